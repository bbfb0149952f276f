import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import data
from studies.data import Dataset
from studies.record import StudyError

X = np.arange(12 * 4 * 4).reshape(12, 4, 4)
Y = np.arange(12) % 3


@st.composite
def datasets(draw):
    """Labels in any order, three of a class or more outside a published test set."""
    counts = draw(st.lists(st.integers(3, 40), min_size=2, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    fixed_test = draw(st.sampled_from([0, 0, 7]))
    y = np.concatenate([labels, rng.integers(0, len(counts), fixed_test)]).astype(np.int32)
    return Dataset(np.zeros((len(y), 2, 2, 1), np.uint8), y, 1.0, fixed_test)


fractions = st.floats(0.01, 0.99)


def split(dataset, seed, test_fraction=0.2, validation_fraction=0.2):
    node = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    return data.split(dataset, node, np.random.default_rng(seed))


@given(datasets(), fractions, fractions, st.integers(0, 99))
def test_a_split_shares_out_every_example_once_and_every_class_to_each_part(dataset, of_all, of_rest, seed):
    parts = split(dataset, seed, of_all, of_rest)
    together = np.concatenate([parts.train, parts.val, parts.test])
    np.testing.assert_array_equal(np.sort(together), np.arange(len(dataset.y)))
    for part in (parts.train, parts.val) if dataset.fixed_test else (parts.train, parts.val, parts.test):
        assert set(dataset.y[part]) == set(dataset.y)


@given(datasets(), fractions, fractions)
def test_a_split_is_stratified(dataset, of_all, of_rest):
    parts = split(dataset, 0, of_all, of_rest)
    train, val, test = (np.bincount(dataset.y[part], minlength=dataset.classes) for part in vars(parts).values())
    rest = train + val
    np.testing.assert_array_equal(val, np.clip(np.round(of_rest * rest), 1, rest - 1))
    if not dataset.fixed_test:
        np.testing.assert_array_equal(test, np.clip(np.round(of_all * (rest + test)), 1, rest + test - 2))


@given(datasets(), st.integers(0, 99))
def test_a_published_test_set_stays_and_another_does_not_depend_on_the_validation_share(dataset, seed):
    one, other = split(dataset, seed, validation_fraction=0.1), split(dataset, seed, validation_fraction=0.4)
    np.testing.assert_array_equal(one.test, other.test)
    if dataset.fixed_test:
        np.testing.assert_array_equal(one.test, np.arange(len(dataset.y))[-dataset.fixed_test :])


def test_a_split_depends_on_the_seed_alone():
    digits = data.digits()
    darker = Dataset(digits.x // 2, digits.y, digits.scale, 0)
    first, again, other = split(digits, 5), split(darker, 5), split(digits, 6)
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert set(getattr(first, name)) != set(getattr(other, name))


def test_digits_are_sixteen_levels_of_grey():
    digits = data.digits()
    assert digits.x.shape == (1797, 8, 8, 1) and digits.classes == 10
    assert digits.x.max() * digits.scale == 1 and digits.x.min() == 0


def test_mnist_keeps_its_test_set(mnist_root):
    mnist = data.mnist(str(mnist_root))
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_other_numbers_are_taken_as_they_are(written, dtype):
    dataset = data.npz(written(x=X[..., None].astype(dtype), y=Y[:, None].astype(np.float64)))
    assert dataset.x.shape == (12, 4, 4, 1) and dataset.x.dtype == np.float32 and dataset.scale == 1
    assert dataset.y.shape == (12,) and dataset.y.dtype == np.int32
    np.testing.assert_array_equal(dataset.x[..., 0], X)


def test_a_file_with_a_test_set_keeps_it(written):
    dataset = data.npz(written(x_train=X[:9], y_train=Y[:9], x_test=X[9:], y_test=Y[9:]))
    assert dataset.fixed_test == 3
    np.testing.assert_array_equal(dataset.x[..., 0], X)
    np.testing.assert_array_equal(split(dataset, 0).test, [9, 10, 11])


def node(path):
    return {"_target_": "studies.data.npz", "path": str(path)}


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
    "half of the names": dict(x_train=X, y_train=Y),
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
    "two examples of a class to train on": dict(x_train=X[:8], y_train=Y[:8], x_test=X, y_test=Y),
}


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_bad_arrays_are_refused_with_the_name_of_their_file(written, fault):
    path = written(**BAD_ARRAYS[fault])
    with pytest.raises(StudyError) as error:
        data.npz(path)
    assert path in str(error.value)


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
    with pytest.raises(StudyError, match="images.npz"):
        data.npz(str(path))


def test_a_single_array_and_a_folder_are_refused(tmp_path):
    with open(tmp_path / "images.npz", "wb") as file:
        np.save(file, X)
    (tmp_path / "folder.npz").mkdir()
    for name in ("images.npz", "folder.npz"):
        with pytest.raises(StudyError, match=name):
            data.npz(str(tmp_path / name))


@pytest.mark.parametrize("path", [None, ""])
def test_an_empty_path_is_refused(path):
    with pytest.raises(StudyError, match="data.path="):
        data.npz(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StudyError, match="nowhere.npz"):
        data.npz(str(tmp_path / "nowhere.npz"))
    with pytest.raises(StudyError, match="nowhere.npz"):
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
    with pytest.raises(StudyError, match="truncated.npz"):
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
