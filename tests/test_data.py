import json
import multiprocessing
import os
import subprocess
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from studies.factors import data, images, limits, targets
from studies.factors.data import Dataset
from studies.record import StudyError

X = np.arange(12 * 4 * 4).reshape(12, 4, 4)
Y = np.arange(12) % 3


@st.composite
def datasets(draw):
    """Labels in any order, three of a class or more outside what is fixed."""
    counts = draw(st.lists(st.integers(3, 40), min_size=2, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    fixed_test, fixed_val = draw(st.sampled_from([0, 0, 7])), draw(st.sampled_from([0, 0, 5]))
    y = np.concatenate([labels, rng.integers(0, len(counts), fixed_val + fixed_test)]).astype(np.int32)
    return Dataset(rng.integers(0, 256, (len(y), 2, 2, 1), np.uint8), y, 1.0, fixed_test, fixed_val)


fractions = st.floats(0.01, 0.99)


COMMON = {"train_size": None, "label_noise": 0.0, "imbalance": 1.0, "standardize": False}
COMMON |= {"flip": False, "crop": 0, "cutout": 0}


def split(dataset, seed, test_fraction=0.2, validation_fraction=0.2, **settings):
    node = COMMON | {"test_fraction": test_fraction, "validation_fraction": validation_fraction} | settings
    return data.split(dataset, node, np.random.default_rng(seed))


@given(datasets(), fractions, fractions, st.integers(0, 99))
def test_a_split_shares_out_every_example_once_and_every_class_to_each_part(dataset, of_all, of_rest, seed):
    parts = split(dataset, seed, of_all, of_rest)
    together = np.concatenate([parts.train, parts.val, parts.test])
    np.testing.assert_array_equal(np.sort(together), np.arange(len(dataset.y)))
    drawn = [parts.train, *[parts.val] * (not dataset.fixed_val), *[parts.test] * (not dataset.fixed_test)]
    for part in drawn:
        assert set(dataset.y[part]) == set(dataset.y)


@given(datasets(), fractions, fractions)
def test_a_split_is_stratified(dataset, of_all, of_rest):
    parts = split(dataset, 0, of_all, of_rest)
    train, val, test = (np.bincount(dataset.y[part], minlength=dataset.classes) for part in vars(parts).values())
    rest = train if dataset.fixed_val else train + val
    if not dataset.fixed_val:
        np.testing.assert_array_equal(val, np.clip(np.round(of_rest * rest), 1, rest - 1))
    if not dataset.fixed_test:
        np.testing.assert_array_equal(test, np.clip(np.round(of_all * (rest + test)), 1, rest + test - 2))


@given(datasets(), st.integers(0, 99), st.integers(0, 99), fractions)
def test_no_seed_moves_the_test_set_nor_a_validation_set_of_the_datas_own(dataset, seed, another, fraction):
    one, other = split(dataset, seed), split(dataset, another, validation_fraction=fraction)
    np.testing.assert_array_equal(one.test, other.test)
    place = np.arange(len(dataset.y))[: len(dataset.y) - dataset.fixed_test]
    if dataset.fixed_test:
        np.testing.assert_array_equal(one.test, np.arange(len(dataset.y))[-dataset.fixed_test :])
    if dataset.fixed_val:
        np.testing.assert_array_equal(one.val, place[-dataset.fixed_val :])
        np.testing.assert_array_equal(other.val, place[-dataset.fixed_val :])


@given(datasets(), fractions, fractions)
def test_a_smaller_test_set_is_part_of_a_larger_one(dataset, one, other):
    less, more = sorted((one, other))
    assert set(split(dataset, 0, less).test) <= set(split(dataset, 0, more).test)


@given(datasets(), st.data())
def test_a_number_of_test_examples_leaves_the_other_parts_as_they_are(dataset, drawn):
    whole = split(dataset, 0)
    present = len(set(dataset.y[whole.test]))
    less, more = sorted(drawn.draw(st.integers(present, len(whole.test))) for _ in range(2))
    some, most = split(dataset, 0, test_size=less), split(dataset, 0, test_size=more)
    assert len(some.test) == less and set(some.test) <= set(most.test) <= set(whole.test)
    assert len(set(dataset.y[some.test])) == present
    np.testing.assert_array_equal(some.train, whole.train)
    np.testing.assert_array_equal(some.val, whole.val)
    for size in (present - 1, len(whole.test) + 1):
        with pytest.raises(
            StudyError, match=rf"test_size={size}: expected {present}, .* to {len(whole.test)}, which is"
        ):
            split(dataset, 0, test_size=size)


@given(datasets(), st.integers(0, 99), st.integers(2, 5))
def test_every_example_besides_test_validates_in_one_fold_with_each_class_in_proportion(dataset, seed, folds):
    whole = split(dataset, seed)
    rest = np.concatenate([whole.train, whole.val])
    if dataset.fixed_val or folds > np.bincount(dataset.y[rest]).min():
        with pytest.raises(StudyError, match=rf"data\.folds={folds}: "):
            split(dataset, seed, folds=folds)
        return
    dealt = [split(dataset, seed, folds=folds, fold=fold) for fold in range(folds)]
    np.testing.assert_array_equal(np.sort(np.concatenate([parts.val for parts in dealt])), np.sort(rest))
    for parts in dealt:
        np.testing.assert_array_equal(parts.test, whole.test)
        np.testing.assert_array_equal(np.sort(np.concatenate([parts.train, parts.val])), np.sort(rest))
        assert set(dataset.y[parts.val]) == set(dataset.y[parts.train]) == set(dataset.y[rest])
    of_class = np.array([np.bincount(dataset.y[parts.val]) for parts in dealt])
    assert np.ptp(of_class, axis=0).max() <= 1 and np.ptp(of_class.sum(axis=1)) <= 1


def test_folds_are_of_the_seed_and_a_fold_that_is_not_there_is_refused():
    digits = data.digits()
    one, again, other = (split(digits, seed, folds=5, fold=4).val for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert set(one) != set(other) and abs(len(one) - 1438 / 5) < 1
    small, large = (split(digits, 0, folds=5, fold=4, train_size=size).train for size in (50, 500))
    assert set(small) <= set(large) and not set(large) & set(one)
    with pytest.raises(StudyError, match=r"data\.fold=5: expected 0 to 4, of data\.folds=5"):
        split(digits, 0, folds=5, fold=5)
    with pytest.raises(StudyError, match=r"data\.fold=1 and data\.folds=null"):
        split(digits, 0, fold=1)
    node = {"_target_": "studies.data.digits"} | COMMON | {"test_fraction": 0.2, "validation_fraction": 0.2}
    [note] = data.notes(node | {"folds": 5, "fold": 2})
    assert "each of the 1438 examples that are not test is in one fold" in note and "not used" in note


def test_a_setting_that_came_later_is_no_part_of_what_identifies_earlier_results(config):
    """`data.test_size` and others came when there were stores of trials already."""
    node = config()["data"]
    assert data.LATER.items() > {"test_size": None, "resize": "stretch", "folds": None, "fold": 0}.items()
    node = node | data.LATER
    before = {name: value for name, value in node.items() if name not in data.LATER}
    for identity in (
        lambda data_node: limits.identity(config() | {"data": data_node}),
        lambda data_node: limits.graph(config() | {"data": data_node}),
        lambda data_node: data.entry(data_node | {"content": ""})["digest"],
    ):
        assert identity(node) == identity(before)
        for changed in ({"test_size": 50}, {"resize": "pad"}, {"folds": 5}):
            assert identity(node | changed) != identity(before)


@given(datasets(), st.integers(0, 99))
def test_the_test_set_is_of_images_not_of_their_order(dataset, seed):
    if dataset.fixed_test or dataset.fixed_val:
        return
    x, indices = np.unique(dataset.x, axis=0, return_index=True)  # of equal images the first is taken
    distinct = Dataset(x, dataset.y[indices], 1.0, 0)
    if min(np.bincount(distinct.y, minlength=2)) < 3:
        return
    order = np.random.default_rng(seed).permutation(len(x))
    moved = Dataset(x[order], distinct.y[order], 1.0, 0)
    one, other = split(distinct, 0).test, split(moved, 0).test
    assert {image.tobytes() for image in x[one]} == {image.tobytes() for image in moved.x[other]}


def test_a_test_set_keeps_most_of_its_images_when_new_ones_come():
    digits = data.digits()
    part = Dataset(digits.x[:1700], digits.y[:1700], digits.scale, 0)
    whole, before = set(split(digits, 0).test), split(part, 0).test
    assert np.isin(before, list(whole)).mean() > 0.9
    assert len(before) > 300


def test_a_test_set_is_as_good_as_a_random_one():
    digits = data.digits()
    drawn = split(digits, 0).test
    mean, rest = digits.x[drawn].mean(axis=(1, 2, 3)), digits.x.mean(axis=(1, 2, 3))
    assert abs(mean.mean() - rest.mean()) < 3 * rest.std() / len(drawn) ** 0.5
    assert abs(drawn.mean() / len(digits.y) - 0.5) < 3 * (1 / 12 / len(drawn)) ** 0.5


def test_a_split_depends_on_the_seed_alone():
    digits = data.digits()
    first, again, other = split(digits, 5), split(data.digits(), 5), split(digits, 6)
    for name in ("train", "val"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert set(getattr(first, name)) != set(getattr(other, name))


def test_digits_are_sixteen_levels_of_grey():
    digits = data.digits()
    assert digits.x.shape == (1797, 8, 8, 1) and digits.classes == 10
    assert digits.x.max() * digits.scale == 1 and digits.x.min() == 0
    theirs = load_digits()
    assert (digits.x[..., 0] == theirs.images).all() and (digits.y == theirs.target).all()


def test_shadows_have_the_pixels_of_digits_and_know_nothing_of_the_label():
    digits, beside = data.digits(), data.digits(shadows=True)
    image, shadow = np.split(beside.x, 2, axis=2)
    assert (image == digits.x).all() and (np.sort(shadow, axis=0) == np.sort(digits.x, axis=0)).all()
    assert (data.digits(shadows=True).x == beside.x).all()
    one, other = split(digits, 3), split(beside, 3)
    assert (one.train == other.train).all() and (one.test == other.test).all()
    pixels = [images.reshape(len(images), -1).astype(float) for images in (image, shadow)]
    between = [np.var([x[digits.y == label].mean(axis=0) for label in range(10)], axis=0).mean() for x in pixels]
    assert between[1] < between[0] / 20  # as 1,797 examples leave it by chance
    pairs = np.corrcoef(pixels[1][:, pixels[1].std(axis=0) > 0].T)
    assert np.abs(pairs - np.eye(len(pairs))).mean() < 0.03
    node = {"_target_": "studies.data.digits", "shadows": True} | COMMON
    assert data.size(node | {"test_fraction": 0.2, "validation_fraction": 0.2})[1] == beside.x.shape[1:]


@given(datasets(), st.integers(0, 99), st.data())
def test_a_smaller_training_set_is_part_of_a_larger_one_and_leaves_the_rest_alone(dataset, seed, drawn):
    whole = split(dataset, seed)
    sizes = st.integers(dataset.classes, len(whole.train))
    small, large = sorted((drawn.draw(sizes), drawn.draw(sizes)))
    less, more = split(dataset, seed, train_size=small), split(dataset, seed, train_size=large)
    assert len(set(less.train)) == len(less.train) == small and len(set(more.train)) == len(more.train) == large
    assert set(less.train) <= set(more.train) <= set(whole.train)
    for parts in (less, more):
        np.testing.assert_array_equal(parts.val, whole.val)
        np.testing.assert_array_equal(parts.test, whole.test)
    np.testing.assert_array_equal(split(dataset, seed, train_size=len(whole.train)).train, whole.train)


@given(datasets(), st.data())
def test_a_smaller_training_set_keeps_every_class_and_the_proportions(dataset, drawn):
    train = split(dataset, 0).train
    size = drawn.draw(st.integers(dataset.classes, len(train)))
    of = np.bincount(dataset.y[train])
    count = np.bincount(dataset.y[split(dataset, 0, train_size=size).train], minlength=len(of))
    assert (count >= 1).all()
    # Sainte-Laguë's quotients: no award would have gone to another class with more right.
    given_up, taken = (of / (2 * count + 1))[count < of], (of / (2 * count - 1))[count > 1]
    assert max(given_up, default=0) <= min(taken, default=np.inf) * (1 + 1e-12)


def test_a_smaller_training_set_is_the_seeds():
    digits = data.digits()
    sets = [set(split(digits, seed, train_size=100).train) for seed in (1, 1, 2)]
    assert sets[0] == sets[1] != sets[2]
    assert np.bincount(digits.y[list(sets[0])]).tolist() == [10] * 10


@pytest.mark.parametrize(("size", "imbalance"), [(1797, 1.0), (9, 1.0), (600, 10.0)])
def test_a_training_set_that_there_is_not_is_refused(size, imbalance):
    with pytest.raises(
        StudyError, match=f"train_size={size}: expected 10, one of each class, to [0-9]+, .*={imbalance:g};"
    ):
        split(data.digits(), 0, train_size=size, imbalance=imbalance)


def balanced(of_each, classes=10):
    y = np.repeat(np.arange(classes), of_each).astype(np.int32)
    return Dataset(np.zeros((len(y), 1, 1, 1), np.uint8), y, 1.0, 0)


def refused(dataset, words, **settings):
    with pytest.raises(StudyError, match=words):
        split(dataset, 0, **settings)


def test_label_noise_that_changes_nothing_is_refused():
    digits = data.digits()
    train = split(digits, 0).train
    refused(digits, f"label_noise=0.0001: none of {len(train)} .*expected 0, or 0.00087 and more", label_noise=1e-4)
    assert (noisy(digits, train, 0.00087) != digits.y).sum() == 1
    refused(digits, "label_noise=0.01: none of 10 ", label_noise=0.01, train_size=10)
    split(digits, 0, label_noise=0.001)


@pytest.mark.parametrize(
    ("name", "most", "shape"), [("crop", 7, (8, 9)), ("crop", 7, (9, 8)), ("cutout", 8, (8, 9)), ("cutout", 8, (9, 8))]
)
def test_augmentation_that_may_leave_nothing_of_an_image_is_refused(name, most, shape):
    dataset = Dataset(np.zeros((30, *shape, 1), np.uint8), np.arange(30) % 3, 1.0, 0)
    split(dataset, 0, **{name: most})
    refused(
        dataset,
        rf"data.{name}={most + 1} of images of {shape[0]}×{shape[1]} pixels: expected {most}",
        **{name: most + 1},
    )


@pytest.mark.parametrize("ratio", [1, 2, 10, 50, 100, 200])
def test_imbalance_is_the_published_profile(ratio):
    parts = split(balanced(6250), 0, imbalance=float(ratio))
    train = np.bincount(np.repeat(np.arange(10), 6250)[parts.train])
    # Cui et al. 2019, as their code has it: int(img_max * imb_factor ** (cls_idx / (cls_num - 1)))
    assert train.tolist() == [int(4000 * (1 / ratio) ** (place / 9) + 1e-9) for place in range(10)]
    np.testing.assert_array_equal(parts.val, split(balanced(6250), 0).val)
    np.testing.assert_array_equal(parts.test, split(balanced(6250), 0).test)


def test_imbalance_100_of_cifar10_has_the_published_counts():
    y = np.repeat(np.arange(10), 5000)
    train = data._thinned(np.arange(50_000), y, 100.0, None)
    assert np.bincount(y[train]).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_a_whole_number_of_examples_is_not_lost_to_rounding():
    assert 98 * 49.0**-1 < 2
    train = data._thinned(np.arange(196), np.repeat([0, 1], 98), 49.0, None)
    assert np.bincount(train // 98).tolist() == [98, 2]


@given(datasets(), st.floats(1, 1000), st.floats(1, 1000))
def test_more_imbalance_leaves_a_part_of_what_less_leaves_and_every_class(dataset, one, other):
    less, more = sorted((one, other))
    large, small = split(dataset, 0, imbalance=less).train, split(dataset, 0, imbalance=more).train
    assert set(small) <= set(large) <= set(split(dataset, 0).train)
    assert set(dataset.y[small]) == set(dataset.y)


def test_a_size_keeps_the_imbalance():
    dataset = balanced(6250)
    counts = np.bincount(dataset.y[split(dataset, 0, imbalance=100.0, train_size=1000).train])
    whole = np.bincount(dataset.y[split(dataset, 0, imbalance=100.0).train])
    assert counts.sum() == 1000
    np.testing.assert_allclose(counts, whole * 1000 / whole.sum(), atol=1)


def noisy(dataset, train, share, seed=0):
    return data.noisy_labels(dataset, train, share, np.random.default_rng(seed))


@given(datasets(), st.floats(0, 1), st.integers(0, 99))
def test_label_noise_replaces_its_share_of_the_training_labels_and_no_others(dataset, share, seed):
    train = split(dataset, 0).train
    y = noisy(dataset, train, share, seed)
    assert y.dtype == np.int32 and set(y) <= set(range(dataset.classes))
    wrong = np.flatnonzero(y != dataset.y)
    assert len(wrong) == round(share * len(train)) and set(wrong) <= set(train)


@given(datasets(), st.floats(0, 1), st.floats(0, 1))
def test_less_label_noise_is_part_of_more(dataset, one, other):
    train = split(dataset, 0).train
    less, more = (noisy(dataset, train, share) for share in sorted((one, other)))
    changed = less != dataset.y
    np.testing.assert_array_equal(less[changed], more[changed])


@given(datasets(), st.floats(0, 1), st.data())
def test_an_examples_noise_does_not_depend_on_the_others(dataset, share, drawn):
    train = split(dataset, 0).train
    part = split(dataset, 0, train_size=drawn.draw(st.integers(dataset.classes, len(train)))).train
    of_all, of_part = (noisy(dataset, examples, share)[part] != dataset.y[part] for examples in (train, part))
    assert (of_all <= of_part).all() or (of_part <= of_all).all()


def test_label_noise_falls_on_every_example_and_every_other_class_alike():
    dataset = balanced(5000, classes=4)
    y = noisy(dataset, np.arange(20_000), 0.5)
    table = np.histogram2d(dataset.y, y, bins=4)[0]
    np.testing.assert_array_equal(np.diag(table), 5000 - (table.sum(axis=1) - np.diag(table)))
    np.testing.assert_allclose(table, np.where(np.eye(4, dtype=bool), 2500, 2500 / 3), rtol=0.12)
    assert (noisy(dataset, np.arange(20_000), 0.5, seed=1) != y).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [7, 2 * data.CHUNK + 1])
def test_standardized_training_images_have_mean_0_and_sd_1(dtype, count):
    rng = np.random.default_rng(0)
    x = np.clip(rng.normal([40, 90, 200], [3, 20, 40], (count + 20, 4, 5, 3)), 0, 255).astype(dtype)
    dataset, train = Dataset(x, np.zeros(len(x), np.int32), 1 / 255, 0), rng.permutation(len(x))[:count]
    scale, shift = data.scaling(dataset, train, True)
    assert scale.shape == shift.shape == (3,) and scale.dtype == shift.dtype == np.float32
    seen = x[train].astype(np.float32) * scale + shift
    np.testing.assert_allclose(seen.mean(axis=(0, 1, 2), dtype=np.float64), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(axis=(0, 1, 2), dtype=np.float64), 1, rtol=1e-5)
    everything = x.astype(np.float32) * scale + shift
    assert abs(everything.mean(axis=(0, 1, 2), dtype=np.float64)).max() > 1e-4


@given(st.floats(2**-6, 1024, width=32), st.integers(3, 50))
def test_a_constant_channel_is_shifted_and_not_blown_up(value, count):
    x = np.full((count, 3, 3, 2), value, np.float32)
    x[::2, ..., 1] = 5000
    dataset = Dataset(x, np.zeros(count, np.int32), 1.0, 0)
    scale, shift = data.scaling(dataset, np.arange(count), True)
    assert scale[0] == 1 and value + shift[0] == pytest.approx(0, abs=1e-6 * value)
    assert scale[1] < 1


def test_unstandardized_images_are_only_scaled():
    scale, shift = data.scaling(data.digits(), np.arange(9), False)
    assert scale.tolist() == [1 / 16] and shift.tolist() == [0]


def test_mnist_keeps_its_test_set(mnist_root):
    mnist = data.published("mnist", str(mnist_root))
    assert mnist.x.shape == (70_000, 28, 28, 1) and mnist.y.shape == (70_000,) and mnist.classes == 10
    assert mnist.x.max() * mnist.scale == 1
    parts = split(mnist, 0, test_fraction=None, validation_fraction=0.1)
    np.testing.assert_array_equal(parts.test, np.arange(60_000, 70_000))
    assert len(parts.val) == pytest.approx(6_000, abs=5) and len(parts.train) + len(parts.val) == 60_000
    assert mnist.y[:5].tolist() == [5, 0, 4, 1, 9] and mnist.y[-10_000:][:5].tolist() == [7, 2, 1, 0, 4]


@pytest.fixture
def written(tmp_path):
    """A function from arrays to the path of their .npz file."""

    def write(**arrays):
        path = tmp_path / "images.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


def test_a_pool_of_grey_bytes_is_scaled_and_gets_a_channel(written):
    dataset = data.npz(written(x=X.astype(np.uint8), y=Y))
    assert dataset.x.shape == (12, 4, 4, 1) and dataset.x.dtype == np.uint8
    assert dataset.scale == 1 / 255 and dataset.fixed_test == 0 and dataset.classes == 3
    np.testing.assert_array_equal(dataset.x[..., 0], X)
    np.testing.assert_array_equal(dataset.y, Y)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.int32])
def test_whole_numbers_to_255_are_bytes_in_any_type(written, dtype):
    dataset = data.npz(written(x=X[..., None].astype(dtype), y=Y[:, None].astype(np.float64)))
    assert dataset.x.shape == (12, 4, 4, 1) and dataset.x.dtype == np.uint8 and dataset.scale == 1 / 255
    assert dataset.y.shape == (12,) and dataset.y.dtype == np.int32
    np.testing.assert_array_equal(dataset.x[..., 0], X)
    said = " ".join(dataset.notes)
    assert ("divided by 255 as bytes" in said) == (dtype != np.uint8) and (np.dtype(dtype).name in said or not said)


@pytest.mark.parametrize(
    ("x", "is_said"),
    [
        ((X * 100).astype(np.uint16), True),
        (X - 1, True),
        (X.astype(np.float64), True),
        (X / 255, False),
        ((X % 2).astype(np.float32), False),
        ((X - 96) / 50, False),
    ],
)
def test_other_numbers_are_taken_as_they_are(written, x, is_said):
    dataset = data.npz(written(x=x, y=Y))
    assert dataset.x.dtype == np.float32 and dataset.scale == 1
    np.testing.assert_array_equal(dataset.x[..., 0], x.astype(np.float32))
    assert ("not divided by anything" in " ".join(dataset.notes)) == is_said


@pytest.mark.parametrize("alias", ["val", "valid", "validation"])
def test_a_validation_set_of_its_own_is_used_at_every_seed(written, alias):
    arrays = {"x_train": X[:6], "y_train": Y[:6], f"x_{alias}": X[6:9], f"y_{alias}": Y[6:9, None]}
    dataset = data.npz(written(**arrays, x_test=X[9:], y_test=Y[9:]))
    assert dataset.fixed_val == dataset.fixed_test == 3
    for seed in (0, 1):
        parts = split(dataset, seed)
        assert sorted(parts.train) == list(range(6))
        assert parts.val.tolist() == [6, 7, 8] and parts.test.tolist() == [9, 10, 11]
    assert len(split(dataset, 0, train_size=4).train) == 4
    more = np.tile(X, (2, 1, 1)), np.tile(Y, 2)
    untested = data.npz(written(x=more[0], y=more[1], x_val=X[6:9], y_val=Y[6:9]))
    parts = split(untested, 0)
    assert parts.val.tolist() == [24, 25, 26] and len(parts.test) == 6 and len(parts.train) == 18


def test_what_is_not_used_of_a_file_is_said(written):
    asked = node(written(x=X.astype(np.uint8), y=Y, ids=np.array([{}], object), z_meta=X)) | COMMON
    asked |= {"test_fraction": 0.3, "validation_fraction": 0.3}
    [line] = data.notes(asked | {"content": "1"})
    assert line.startswith(asked["path"]) and line.endswith(": ids, z_meta")
    written(x=X.astype(np.uint8), y=Y)
    assert data.notes(asked | {"content": "2"}) == []
    written(
        x_train=X.astype(np.uint8), y_train=Y, x_val=X[:3].astype(np.uint8), y_val=Y[:3], x_test=X, y_test=Y, x=X, y=Y
    )
    lines = data.notes(asked | {"content": "3"})
    assert [line.partition(" ")[0] for line in lines[-2:]] == ["data.test_fraction=0.3", "data.validation_fraction=0.3"]
    assert all("is not used: the data has a" in line for line in lines[-2:]) and lines[1].endswith(": x, y")
    assert "of 12" in lines[-2] and "of 3" in lines[-1]


def test_what_is_to_be_said_of_data_is_said_once_before_training(written, planned):
    path = written(x=X.astype(np.uint8), y=Y, ids=Y)
    factors = "+study.factors={data.standardize:[true,false],data.imbalance:[1,9]}"
    code, out, err = planned("data=npz", f"data.path={path}", factors, "study.name=notes", "training.batch_size=2")
    assert code == 0 and "4 trials" in out and "note:" not in out
    assert err.splitlines() == [
        f"note: {path}: not used, since it is no part of x_train y_train x_val y_val x_test y_test: ids",
        "note: data.imbalance=9: classes have 2, 2, 2 training examples, too few for 2 of them, which keep one each",
    ]


def test_fractions_that_classes_cannot_have_are_said(written):
    asked = node(written(x=X.astype(np.uint8), y=Y)) | COMMON | {"content": "4"}
    few = data.notes(asked | {"test_fraction": 0.01, "validation_fraction": 0.99})
    assert len(few) == 2 and "test_fraction=0.01 comes to 3 of 12 examples (0.25)" in few[0]
    assert "validation_fraction=0.99 comes to 6 of 9 examples (0.667)" in few[1]
    digits = {"_target_": "studies.data.digits"} | COMMON | {"test_fraction": 0.2, "validation_fraction": 0.2}
    assert data.notes(digits) == data.notes(digits | {"imbalance": 100.0, "train_size": 50}) == []
    [line] = data.notes(digits | {"imbalance": 1000.0})
    assert "data.imbalance=1000" in line and "too few for 3 of them" in line
    [line] = data.notes(digits | {"validation_fraction": 0.999})
    assert "of 1438 examples (0.993)" in line


def test_an_unknown_setting_is_refused_rather_than_left_out(written, folder):
    for asked, name in (
        (node(written(x=X, y=Y)), "image_size"),
        ({"_target_": "studies.data.digits"}, "path"),
        ({"_target_": "studies.data.image_folder", "path": str(folder())}, "name"),
        ({"_target_": "studies.data.published", "name": "mnist", "root": None}, "image_size"),
    ):
        with pytest.raises(StudyError, match=f"data.{name}=3: .* has no such setting; it has .*train_size"):
            data.content(asked | COMMON | {name: 3})


def test_a_file_with_a_test_set_keeps_it(written):
    dataset = data.npz(written(x_train=X[:9], y_train=Y[:9], x_test=X[9:], y_test=Y[9:]))
    assert dataset.fixed_test == 3
    np.testing.assert_array_equal(dataset.x[..., 0], X)
    np.testing.assert_array_equal(split(dataset, 0).test, [9, 10, 11])


def node(path):
    return {"_target_": "studies.data.npz", "path": str(path)}


def test_the_plan_counts_the_training_examples_of_the_split(written):
    settings = COMMON | {"test_fraction": 0.3, "validation_fraction": 0.1}
    for node, dataset in (
        ({"_target_": "studies.data.digits"}, data.digits()),
        ({"_target_": "studies.data.npz", "path": written(x=X, y=Y), "content": "a"}, data.npz(written(x=X, y=Y))),
    ):
        for changed in ({}, {"train_size": 5}, {"imbalance": 20.0}, {"label_noise": 0.5}):
            asked = node | settings | changed
            if changed == {"train_size": 5} and dataset.classes > 5:
                asked["train_size"] = 50
            wanted = data.split(dataset, asked, np.random.default_rng(3)).train
            assert data.size(asked) == (len(wanted), dataset.x.shape[1:])


def test_data_is_identified_by_content_not_by_path(written, tmp_path):
    original = written(x=X, y=Y)
    copy = tmp_path / "copy.npz"
    copy.write_bytes((tmp_path / "images.npz").read_bytes())
    assert data.content(node(original)) == data.content(node(copy)) != ""
    before = data.content(node(original))
    written(x=X + 1, y=Y)
    assert data.content(node(original)) != before


BAD_ARRAYS = {
    "wrong names": dict(images=X, labels=Y),
    "half of the names": dict(x_train=X, y_train=Y, x_test=X),
    "half of a pair": dict(x=X, y=Y, y_val=Y),
    "no training set": dict(x_test=X, y_test=Y),
    "two validation sets": dict(x=X, y=Y, x_val=X, y_val=Y, x_valid=X, y_valid=Y),
    "flat images": dict(x=X.reshape(12, 16), y=Y),
    "five axes": dict(x=X[..., None, None], y=Y),
    "one number": dict(x=np.float32(3), y=Y),
    "no images": dict(x=X[:0], y=Y[:0]),
    "no pixels": dict(x=X[:, :0], y=Y),
    "one-hot labels": dict(x=X, y=np.eye(3)[Y]),
    "different lengths": dict(x=X, y=Y[:-1]),
    "test images of another size": dict(x_train=X, y_train=Y, x_test=X[:, :3], y_test=Y),
    "test labels of another length": dict(x_train=X, y_train=Y, x_test=X, y_test=Y[:-2]),
    "NaN in an image": dict(x=np.where(X == 7, np.nan, X), y=Y),
    "infinite image": dict(x=np.where(X == 7, -np.inf, X), y=Y),
    "NaN in the labels": dict(x=X, y=np.where(np.arange(12) == 2, np.nan, Y)),
    "words": dict(x=X.astype(str), y=Y),
    "words for labels": dict(x=X, y=Y.astype(str)),
    "complex images": dict(x=X * 1j, y=Y),
    "labels from one": dict(x=X, y=Y + 1),
    "negative labels": dict(x=X, y=Y - 1),
    "label beyond the classes": dict(x=X, y=np.where(Y == 2, 2**40, Y)),
    "gap in the labels": dict(x=X, y=np.where(Y == 2, 3, Y)),
    "labels in between": dict(x=X, y=np.where(Y == 2, 2.5, Y)),
    "one class": dict(x=X, y=np.zeros(12, int)),
    "two examples of a class": dict(x=X, y=np.array([0] * 5 + [1] * 5 + [2] * 2)),
    "class in the test set alone": dict(x_train=X, y_train=Y % 2, x_test=X, y_test=Y),
    "class in the validation set alone": dict(x_train=X, y_train=Y % 2, x_val=X, y_val=Y),
    "bytes to train on and shares to test on": dict(x_train=X, y_train=Y, x_test=X / 255, y_test=Y),
    "beyond float32": dict(x=np.where(X == 7, 1e39, X), y=Y),
    "below float32": dict(x=np.where(X == 7, -1e39, X), y=Y),
    "channels first": dict(x=np.zeros((12, 3, 8, 8)), y=Y),
    "grey channels first": dict(x=np.zeros((12, 1, 28, 30)), y=Y),
    "many channels first": dict(x=np.zeros((12, 13, 16, 16)), y=Y),
    "two examples of a class to train on": dict(x_train=X[:8], y_train=Y[:8], x_test=X, y_test=Y),
}


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_bad_arrays_are_refused_with_the_name_of_their_file(written, fault):
    path = written(**BAD_ARRAYS[fault])
    with pytest.raises(StudyError) as error:
        data.npz(path)
    assert path in str(error.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        *((f"{channels}channels first", r"x\.transpose\(0, 2, 3, 1\)") for channels in ("", "grey ", "many ")),
        ("one-hot labels", r"y\.argmax\(axis=1\)"),
        ("beyond float32", "divide them"),
        ("half of a pair", "y_val and not its pair"),
    ],
)
def test_a_refusal_says_what_to_write(written, fault, words, recwarn):
    with pytest.raises(StudyError, match=words):
        data.npz(written(**BAD_ARRAYS[fault]))
    assert not recwarn.list


@pytest.mark.parametrize("shape", [(4, 4, 1), (3, 3, 3), (1, 20, 3), (8, 8, 12), (3, 32, 4), (20, 3, 8)])
def test_channels_last_are_taken_for_such(written, shape):
    assert data.npz(written(x=np.zeros((12, *shape)), y=Y)).x.shape == (12, *shape)


def test_a_training_set_alone_leaves_the_test_set_to_be_drawn(written):
    dataset = data.npz(written(x_train=X, y_train=Y))
    assert dataset.fixed_test == 0 and len(split(dataset, 0, 0.3).test) == 3


@pytest.mark.parametrize("fault", ["NaN in an image", "infinite image", "NaN in the labels"])
def test_missing_numbers_are_called_so(written, fault):
    with pytest.raises(StudyError, match="NaN or infinite"):
        data.npz(written(**BAD_ARRAYS[fault]))


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    path = tmp_path / "images.npz"
    np.savez(path, x=np.array([Trap()] * 12, object), y=Y)
    with pytest.raises(StudyError, match="pickled") as error:
        data.npz(str(path))
    assert str(path) in str(error.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"x,y\n1,2\n", b"PK\x03\x04 and nothing", b"\x93NUMPY\x01\x00"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "images.npz"
    path.write_bytes(content)
    with pytest.raises(StudyError) as error:
        data.npz(str(path))
    assert str(path) in str(error.value)


def test_an_archive_of_text_is_refused(tmp_path):
    path = tmp_path / "images.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "1 2 3")
        archive.writestr("y", "0 1 2")
    with pytest.raises(StudyError, match=r"images.npz"):
        data.npz(str(path))


def test_a_single_array_and_a_folder_are_refused(tmp_path):
    with open(tmp_path / "images.npz", "wb") as file:
        np.save(file, X)
    (tmp_path / "folder.npz").mkdir()
    for name in ("images.npz", "folder.npz"):
        with pytest.raises(StudyError, match=name):
            data.npz(str(tmp_path / name))


NO_PATHS = {
    "~nobody-of-that-name/images.npz": "home",
    "a" * 300 + ".npz": "too long",
    "a\0b.npz": "no such",
    b"\xff.npz".decode(errors="surrogateescape"): r"\udcff.npz: the name is no UTF-8",
}


@pytest.mark.parametrize("path", NO_PATHS)
def test_a_path_that_cannot_be_looked_up_is_refused(path):
    for read in (data.npz, data.image_folder, lambda path: data.published("mnist", path)):
        with pytest.raises(StudyError) as error:
            read(path)
        name = "root" if read not in (data.npz, data.image_folder) else "path"
        assert f"data.{name}=" in str(error.value) and str(error.value).encode()
        assert read is not data.npz or NO_PATHS[path].lower() in str(error.value).lower()
        if path == "a\0b.npz":
            break


@pytest.mark.parametrize("name", ["my images.npz", "bilder ä 図.npz", "~.npz", "$HOME.npz", "a=b,c.npz"])
def test_a_path_may_have_any_characters(written, tmp_path, name, monkeypatch):
    file = tmp_path / name
    Path(written(x=X, y=Y)).rename(file)
    assert len(data.npz(str(file)).y) == 12
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(data.npz(f"~/{name}").y) == 12


def as_nobody(answers, asked):
    if os.geteuid() == 0:
        os.setuid(65534)
    for function in (data.content, lambda asked: data.npz(asked["path"])):
        try:
            function(asked)
        except StudyError as error:
            answers.put(str(error))


def test_a_file_that_may_not_be_read_is_refused():
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        np.savez(f"{top}/images.npz", x=X, y=Y)
        os.chmod(f"{top}/images.npz", 0)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        process = context.Process(target=as_nobody, args=(answers, node(f"{top}/images.npz")))
        process.start()
        said = [answers.get(timeout=30) for _ in range(2)]
        process.join(30)
    assert all("images.npz cannot be read (Permission denied)" in text for text in said)


@pytest.mark.parametrize("path", [None, ""])
def test_an_empty_path_is_refused(path):
    with pytest.raises(StudyError, match=r"data.path="):
        data.npz(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere.npz"):
        data.npz(str(tmp_path / "nowhere.npz"))
    with pytest.raises(StudyError, match=r"nowhere.npz"):
        data.content(node(tmp_path / "nowhere.npz"))


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """Two good files, one compressed, to be damaged."""
    paths = []
    for save in (np.savez, np.savez_compressed):
        paths.append(tmp_path_factory.mktemp("archives") / "images.npz")
        save(paths[-1], x=X, y=Y)
    return paths


@given(st.integers(0, 1), st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(archives, which, share):
    good = archives[which].read_bytes()
    damaged = archives[which].with_name("truncated.npz")
    damaged.write_bytes(good[: int(share * len(good))])
    with pytest.raises(StudyError, match=r"truncated.npz"):
        data.npz(str(damaged))


@given(st.integers(0, 1), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_harmless(archives, which, place, flip):
    good = bytearray(archives[which].read_bytes())
    good[int(place * len(good))] ^= flip
    damaged = archives[which].with_name("damaged.npz")
    damaged.write_bytes(good)
    try:
        dataset = data.npz(str(damaged))
    except StudyError as error:
        assert "damaged.npz" in str(error)
    else:
        np.testing.assert_array_equal(dataset.x[..., 0], X)
        np.testing.assert_array_equal(dataset.y, Y)


@pytest.fixture
def folder(tmp_path):
    """A small image folder, grey, of two classes, different each time it is asked for."""
    made = []

    def make(size=(6, 5), parts=("train", "test")):
        root = tmp_path / f"images{len(made)}"
        rng = np.random.default_rng([len(made), time.time_ns()])
        for place in range(4 * 2 * len(parts)):
            file = root / parts[place % len(parts)] / "ab"[place // len(parts) % 2] / f"{place:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(file)
        made.append(root)
        return root

    return make


def image_node(path, **settings):
    node = {"_target_": "studies.data.image_folder", "path": str(path), "image_size": None}
    node |= COMMON | {"test_fraction": 0.25, "validation_fraction": 0.25} | settings
    return node | {"content": data.content(node)}


def read(node):
    return data.image_folder(**{name: value for name, value in node.items() if name != "_target_"})


def test_an_image_folder_is_a_dataset(folder):
    dataset = read(image_node(folder()))
    assert dataset.x.shape == (16, 6, 5, 1) and dataset.x.dtype == np.uint8 and dataset.scale == 1 / 255
    assert dataset.fixed_test == 8 and dataset.y.tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    assert data.size(image_node(folder())) == (6, (6, 5, 1))


def test_an_image_folder_without_a_test_set_leaves_it_to_the_seed(folder):
    node = image_node(folder(parts=("train",)))
    assert read(node).fixed_test == 0
    assert data.size(node) == (4, (6, 5, 1))
    with pytest.raises(StudyError, match="test_fraction=null"):
        data.size(node | {"test_fraction": None})


def test_how_images_are_resized_is_kept_apart_and_needs_a_size(folder):
    node = image_node(folder(size=(6, 9)))
    kept = [read(node | {"image_size": 3, "resize": resize}).x for resize in ("stretch", "pad", "crop")]
    assert all(x.shape == (16, 3, 3, 1) for x in kept)
    assert not kept[1][:, 2].any() and kept[0].min() > 0 and kept[2].min() > 0
    with pytest.raises(StudyError, match=r"data\.resize=pad and data\.image_size=null"):
        data.content(node | {"resize": "pad"})


def test_images_left_out_are_noted_kept_and_change_no_key_where_there_are_none(folder, config):
    path = folder()
    whole = data.size(image_node(path))
    (path / "train" / "a" / "0.txt").write_text("mine")
    images._folder_hash.cache_clear()
    node = image_node(path)
    with pytest.raises(StudyError, match=r"1 of 17 images cannot be decoded, 'train/a/0.txt' \(no image\)"):
        data.size(node)
    skipping = node | {"unreadable": "skip"}
    assert data.size(skipping) == whole and "1 of 17 images" in data.notes(skipping)[0]
    assert json.loads(data.entry(skipping)["profile"])["unreadable"] == ["'train/a/0.txt' (no image)"]
    with pytest.raises(StudyError, match="1 of 17 images"):  # what was kept meanwhile is not taken for the whole
        data.size(node)
    one, other = (limits.identity(config() | {"data": each}) for each in (skipping, node))
    assert one == other


def test_images_are_decoded_once(folder, monkeypatch):
    node = image_node(folder())
    first = read(node)
    resized = read(node | {"image_size": 3})
    monkeypatch.setattr(images, "_decoded", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(read(node).x, first.x)
    np.testing.assert_array_equal(read(node | {"image_size": 3}).x, resized.x)
    assert resized.x.shape == (16, 3, 3, 1)


def test_an_image_folder_is_identified_by_content_not_by_path(folder, tmp_path):
    one, other = folder(), folder()
    moved = one.rename(tmp_path / "moved")
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.add(moved, ".")
    (tmp_path / "copy.tar").write_bytes((tmp_path / "one.tar").read_bytes())
    contents = [image_node(path)["content"] for path in (moved, other, tmp_path / "one.tar", tmp_path / "copy.tar")]
    assert contents[0] != contents[1] and contents[2] == contents[3] and all(contents)
    np.testing.assert_array_equal(read(image_node(moved)).x, read(image_node(tmp_path / "copy.tar")).x)


def test_what_is_wrong_with_an_image_folder_is_said_of_its_path(folder):
    path = folder(parts=("train",))
    for file in sorted((path / "train" / "b").iterdir())[2:]:
        file.unlink()
    with pytest.raises(StudyError, match="a class has 2 examples, b: expected 3 or more") as error:
        data.size(image_node(path))
    assert str(error.value).startswith(str(path))


def test_what_is_not_used_of_a_folder_is_said_though_its_images_are_kept(folder):
    path = folder(size=(6, 5, 4))
    asked = image_node(path)
    transparent, *rest = data.notes(asked)
    assert "transparency of 16 images" in transparent and "test_fraction=0.25 is not used" in rest[0] and not rest[1:]
    (path / "README").write_text("new")
    assert data.content(asked) == asked["content"]
    data._described.cache_clear()
    assert data.notes(asked) == [transparent, *data.notes(asked)[1:2], *rest] and "README" in data.notes(asked)[1]
    profile = json.loads(data.entry(asked)["profile"])
    assert profile["notes"] == data.notes(asked)


def test_the_test_set_of_a_folder_does_not_depend_on_the_size_of_its_images(folder):
    path = folder(parts=("train",))

    def drawn(seed=0, **settings):
        node = image_node(path, **settings)
        dataset = read(node)
        return set(dataset.hashes[data.split(dataset, node, np.random.default_rng(seed)).test])

    first = drawn()
    assert len(first) == 2 and drawn(1, image_size=3) == first
    (path / "train" / "a" / "00.png").rename(path / "train" / "a" / "99.png")
    assert drawn() == first


def first_use(start, node, answers):
    start.wait(30)
    answers.put(read(node).x.sum())


def test_processes_that_come_first_at_once_all_read_the_images(folder):
    context = multiprocessing.get_context("fork")
    node, start, answers = image_node(folder()), context.Event(), context.Queue()
    processes = [context.Process(target=first_use, args=(start, node, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    sums = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(30)
    assert sums == {read(node).x.sum()}


@pytest.mark.parametrize("path", [None, "", "nowhere", "nowhere.tar", __file__])
def test_what_is_no_image_folder_is_refused(path):
    with pytest.raises(StudyError, match="train/CLASS/FILE") as error:
        data.image_folder(path)
    assert "data.path=" in str(error.value) and ".tar.xz, .zip" in str(error.value)


def test_cifar10_is_read_from_its_archive(cifar10_root):
    node = COMMON | {"_target_": "studies.data.published", "name": "cifar10", "root": str(cifar10_root)}
    node |= {"test_fraction": None, "validation_fraction": 0.1}
    node |= {"content": data.content(node)}
    started = time.perf_counter()
    assert data.size(node) == (45_000, (32, 32, 3))
    cifar10 = data.published("cifar10", str(cifar10_root))
    assert time.perf_counter() - started < 100  # 14 s on a core of its own
    assert cifar10.x.shape == (60_000, 32, 32, 3) and cifar10.x.dtype == np.uint8 and cifar10.fixed_test == 10_000
    assert np.bincount(cifar10.y[:50_000]).tolist() == [5000] * 10
    assert np.bincount(cifar10.y[50_000:]).tolist() == [1000] * 10
    train = split(cifar10, 0, None, 0.1).train
    scale, shift = data.scaling(cifar10, train, True)
    # The mean and sd that everyone uses for CIFAR-10, in units of 255.
    np.testing.assert_allclose(-shift / scale / 255, [0.4914, 0.4822, 0.4465], atol=0.003)
    np.testing.assert_allclose(1 / scale / 255, [0.2470, 0.2435, 0.2616], atol=0.004)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_a_published_set_is_read_where_it_is_and_else_downloaded_once(tmp_path, monkeypatch, name):
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "cache"))
    calls = []

    def download(command, **_):
        calls.append(command)
        with open(command[-1], "wb") as file:
            np.savez(file, x_train=X, y_train=Y[:, None], x_test=X + 1, y_test=Y[:, None])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", download)
    for root in (None, str(tmp_path), str(tmp_path)):
        assert data.published(name, root).fixed_test == 12
    assert [command[-2] for command in calls] == [name]
    np.savez(tmp_path / f"{name}.npz", x=X, y=Y)
    (tmp_path / f"{name}.tar.xz").write_bytes(b"not looked at")
    assert data.published(name, str(tmp_path)).fixed_test == 0


def test_a_download_that_fails_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(StudyError, match=r"no cifar10.npz in data.root=null.*STUDIES_DATA=FOLDER"):
        data.published("cifar10", None)
    assert not list(tmp_path.glob("cache/*.npz"))


def test_keras_has_what_is_downloaded_by_its_name(tf):
    import keras

    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
        assert callable(getattr(keras.datasets, name).load_data)


def test_an_entry_says_by_its_digest_whether_two_trials_train_on_the_same(tmp_path, config):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.integers(0, 255, (60, 5, 4), dtype=np.uint8), "y": np.arange(60) % 3}
    places = [tmp_path / name for name in ("here.npz", "there.npz", "other.npz")]
    for place in places:
        np.savez(place, **arrays)
    arrays["x"][0, 0, 0] ^= 1
    np.savez(places[2], **arrays)

    def entry(*overrides):
        node = targets.canonical(config(overrides)["data"])
        return data.entry(node | {"content": data.content(node)})

    here, there, other = (entry("data=npz", f"data.path={place}", "data.test_fraction=0.2") for place in places)
    assert here["digest"] == there["digest"] != other["digest"] and here["name"] == "here"
    assert json.loads(here["source"]) == {"uri": str(places[0])}
    profile = json.loads(here["profile"])
    assert profile["image_shape"] == [5, 4, 1] and 0 < profile["training_examples"] < 48

    whole, fewer = entry(), entry("data.train_size=100")
    assert whole["name"] == fewer["name"] == "digits" and whole["digest"] != fewer["digest"]
    assert json.loads(fewer["profile"])["training_examples"] == 100
    assert all(len(each["digest"]) <= 36 for each in (here, whole))  # what MLflow's table takes


def test_an_entry_of_data_that_nobody_has_seen_yet_claims_nothing():
    entry = data.entry({"_target_": "mine.images", "size": 3, "content": ""})
    assert entry["name"] == "images" and json.loads(entry["profile"]) == {"size": 3}


def test_what_a_dataset_of_the_users_own_reads_is_told_apart_by_its_content(tmp_path):
    one, other = tmp_path / "one.bin", tmp_path / "other.bin"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    own = COMMON | {"_target_": "mine.load", "path": str(one)}
    known = {data.content(own), data.content(own | {"path": str(other)}), data.content(own | {"path": None})}
    assert len(known) == 3 and "" in known
    folder = tmp_path / "folder"
    folder.mkdir()
    before = data.content(own | {"path": str(folder)})
    (folder / "a.bin").write_bytes(b"1")
    assert data.content(own | {"path": str(folder)}) != before
    assert not data.is_known(own) and data.is_known(COMMON | {"_target_": "studies.data.digits"})
