"""Penalties and their gradients, rules, clipping and augmentation against NumPy."""

import numpy as np
import pytest

rng = np.random.default_rng(0)
KERNELS = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (4, 9), (3, 3, 2, 5), (3, 3, 1, 16))]


def columns(kernel):
    """A unit's incoming weights in a column."""
    return kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)


@pytest.fixture(scope="session")
def regularizers(tf):
    from studies.factors import regularizers

    return regularizers


@pytest.fixture(scope="session")
def clipping(tf):
    from studies.factors import clipping

    return clipping


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: str(kernel.shape))
def test_the_orthogonal_penalty_and_its_gradient(tf, regularizers, kernel):
    matrix = columns(kernel)
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    gap = matrix.T @ matrix - np.eye(matrix.shape[1])
    gradient = 4 * 0.3 * matrix @ gap  # of tr((MᵀM − I)²)
    with tf.GradientTape() as tape:
        w = tf.constant(kernel)
        tape.watch(w)
        penalty = regularizers.orthogonal(0.3)(w)
    assert float(penalty) == pytest.approx(0.3 * np.sum(gap**2), rel=1e-5)
    actual = columns(tape.gradient(penalty, w).numpy())
    np.testing.assert_allclose(actual, gradient if actual.shape == gradient.shape else gradient.T, rtol=1e-4, atol=1e-5)


def test_orthogonal_weights_have_no_orthogonal_penalty(regularizers):
    square, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    for matrix in (square, square[:, :3], square[:3]):
        assert float(regularizers.orthogonal(1.0)(np.float32(matrix))) < 1e-10


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: str(kernel.shape))
def test_rules_follow_their_formulas(regularizers, kernel):
    norms = np.linalg.norm(columns(kernel), axis=0)
    limit = float(np.median(norms))
    expected = {
        regularizers.decoupled(0.5).before: kernel * (1 - 0.1 * 0.5),
        regularizers.proximal_l1(3.0).after: np.sign(kernel) * np.maximum(np.abs(kernel) - 0.1 * 3, 0),
        regularizers.max_norm(limit).after: kernel * np.minimum(1, limit / norms),
        regularizers.unit_norm().after: kernel / norms,
    }
    for change, changed in expected.items():
        np.testing.assert_allclose(change(kernel, 0.1), changed, rtol=1e-5, atol=1e-7)
    assert (np.asarray(regularizers.proximal_l1(3.0).after(kernel, 0.1)) == 0).any()


def test_a_proximal_step_of_the_elastic_net_minimizes_what_it_is_of(regularizers):
    kernel, rate, l1, l2 = np.float32([[-1.0, 0.02, 0.4]]), 0.1, 0.5, 3.0
    grid = np.linspace(-1, 1, 200_001)
    for w, found in zip(kernel[0], np.asarray(regularizers.proximal_l1(l1, l2).after(kernel, rate))[0], strict=True):
        best = grid[np.argmin((grid - w) ** 2 / 2 + rate * (l1 * np.abs(grid) + l2 * grid**2))]
        assert found == pytest.approx(best, abs=2e-5)


def test_rules_leave_a_dead_unit_at_zero(regularizers):
    dead = np.zeros((4, 2), np.float32)
    for rule in (regularizers.max_norm(1.0), regularizers.unit_norm()):
        np.testing.assert_array_equal(rule.after(dead, 0.1), dead)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: str(kernel.shape))
def test_adaptive_clipping_bounds_each_unit_by_its_weights(clipping, kernel):
    gradient = kernel[..., ::-1] * np.geomspace(1e-4, 1, kernel.shape[-1]).astype(np.float32)
    [clipped], share = clipping.clip_adaptively(0.05, 0.001).clip([gradient], [kernel])
    limits = 0.05 * np.linalg.norm(columns(kernel), axis=0)
    norms = np.linalg.norm(columns(gradient), axis=0)
    assert (norms > limits).any() and (norms < limits).any()
    np.testing.assert_allclose(clipped, gradient * np.where(norms > limits, limits / norms, 1), rtol=1e-5)
    assert float(share) == pytest.approx(np.mean(norms > limits))


def test_adaptive_clipping_lets_a_bias_at_zero_move(clipping):
    [clipped], _ = clipping.clip_adaptively(0.05, 0.001).clip([np.float32([3, 4])], [np.zeros(2, np.float32)])
    np.testing.assert_allclose(clipped, 0.05 * 0.001 * np.array([0.6, 0.8]), rtol=1e-5)
    [still], _ = clipping.clip_adaptively(0.05, 0.001).clip([np.zeros(2, np.float32)], [np.ones(2, np.float32)])
    np.testing.assert_array_equal(still, [0, 0])


def test_clipping_says_how_much_it_changed(clipping):
    gradients = [np.float32([[3, 0.1], [4, 0.2]]), np.float32([0.3, 0.4, 0])]
    shares = {
        clipping.clip_by_value(0.25): 4 / 7,
        clipping.clip_by_norm(1.0): 1 / 2,
        clipping.clip_by_global_norm(1.0): 1,
        clipping.clip_by_global_norm(9.0): 0,
    }
    for rule, share in shares.items():
        assert float(rule.clip(gradients, gradients)[1]) == pytest.approx(share)


IMAGES = rng.random((6, 9, 7, 2)).astype(np.float32)
TARGETS = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 1, 0]]


def test_label_smoothing_shares_some_of_the_target(regularizers):
    images, targets = regularizers.label_smoothing(0.3).examples(IMAGES, TARGETS, None)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_allclose(targets, np.where(TARGETS, 0.8, 0.1), rtol=1e-6)


def test_mixup_mixes_each_example_with_another(regularizers):
    images, targets = regularizers.mixup(0.2).examples(IMAGES, TARGETS, np.float32([0.7]))
    np.testing.assert_allclose(images, 0.7 * IMAGES + 0.3 * np.roll(IMAGES, 1, axis=0), rtol=1e-5)
    np.testing.assert_allclose(targets, 0.7 * TARGETS + 0.3 * np.roll(TARGETS, 1, axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("left", "row", "column"), [(0.5, 0.5, 0.5), (0.3, 0.0, 0.99), (0.0, 0.5, 0.5), (1.0, 0.2, 0.2)]
)
def test_cutmix_takes_a_box_and_its_share_of_the_target(regularizers, left, row, column):
    images, targets = regularizers.cutmix(1.0).examples(IMAGES, TARGETS, np.float32([left, row, column]))
    # The authors' rand_bbox, written out.
    bounds = []
    for size, centre in ((9, int(row * 9)), (7, int(column * 7))):
        half = int(size * np.sqrt(1 - left)) // 2
        bounds.append(slice(max(centre - half, 0), min(centre + half, size)))
    expected = IMAGES.copy()
    expected[:, *bounds] = np.roll(IMAGES, 1, axis=0)[:, *bounds]
    np.testing.assert_array_equal(images, expected)
    share = (expected != IMAGES).all(axis=(0, 3)).mean()
    np.testing.assert_allclose(targets, (1 - share) * TARGETS + share * np.roll(TARGETS, 1, axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_drawn_from_a_beta_distribution(regularizers, name, alpha):
    rule = getattr(regularizers, name)(alpha)
    drawn = rule.draw(np.random.default_rng(0), 20000, 8)
    assert len(drawn) == 20000
    assert drawn[:, 0].mean() == pytest.approx(0.5, abs=0.01)
    assert drawn[:, 0].var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_gradient_noise_is_normal_and_fades(regularizers):
    from studies.factors.rules import Step

    rule = regularizers.gradient_noise(0.3, 0.55)
    gradients = [np.ones((200, 100), np.float32), np.ones(20000, np.float32)]
    numbers, others = rule.draw(np.random.default_rng(0), 2, 8).astype(np.float32)

    def noisy(step, drawn):
        return rule.gradients(gradients, Step([], step, drawn, None))

    for step in (0, 99):
        first, second = (np.asarray(g).ravel() - 1 for g in noisy(step, numbers))
        sd = np.sqrt(0.3 / (1 + step) ** 0.55)
        for noise in (first, second):
            assert noise.std() == pytest.approx(sd, rel=0.02) and noise.mean() == pytest.approx(0, abs=0.03 * sd)
        assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=0.03)
        np.testing.assert_array_equal(noisy(step, numbers)[0], 1 + first.reshape(200, 100))
        assert (np.asarray(noisy(step, others)[1]) != 1 + second).mean() > 0.99


def augmented(numbers, **settings):
    from studies.factors.augmentation import Augmentation

    return Augmentation(**settings)(IMAGES, np.broadcast_to(np.float32(numbers), (len(IMAGES), 5))).numpy()


def test_a_flip_mirrors_half_of_the_images(tf):
    np.testing.assert_array_equal(augmented([0.4, 0, 0, 0, 0], flip=True), IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(augmented([0.6, 0, 0, 0, 0], flip=True), IMAGES)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (0.5, 0.999), (0.999, 0.3)])
def test_a_crop_takes_a_window_of_the_padded_image(tf, down, right):
    padded = np.pad(IMAGES, [(0, 0), (2, 2), (2, 2), (0, 0)])
    row, column = int(5 * down), int(5 * right)
    expected = padded[:, row : row + 9, column : column + 7]
    np.testing.assert_array_equal(augmented([0, down, right, 0, 0], crop=2), expected)


@pytest.mark.parametrize(("row", "column", "side"), [(0.5, 0.5, 3), (0, 0.999, 4), (0.999, 0, 20)])
def test_cutout_zeroes_a_square_that_the_border_may_cut(tf, row, column, side):
    expected = IMAGES.copy()
    top, left = int(9 * row) - side // 2, int(7 * column) - side // 2
    expected[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
    np.testing.assert_array_equal(augmented([0, 0, 0, row, column], cutout=side), expected)


def test_each_image_is_changed_by_its_own_numbers(tf):
    from studies.factors.augmentation import Augmentation

    drawn = np.random.default_rng(0).random((len(IMAGES), 5), np.float32)
    change = Augmentation(flip=True, crop=2, cutout=3)
    together = change(IMAGES, drawn).numpy()
    for place in range(len(IMAGES)):
        alone = change(IMAGES[place : place + 1], drawn[place : place + 1]).numpy()
        np.testing.assert_array_equal(together[place], alone[0])
