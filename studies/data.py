"""Image datasets as arrays, read and checked without TensorFlow, and the split of a seed."""

import hashlib
import os
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock

from studies.record import StudyError


@dataclass(frozen=True)
class Dataset:
    """All examples in one pool.

    Attributes:
        x: images `(examples, height, width, channels)`, uint8 or float32.
        y: labels `(examples,)`, int32, 0 to classes - 1.
        scale: what a network sees is `x * scale`.
        fixed_test: the pool's last examples are its published test set, so many; 0 where the seed chooses one.
    """

    x: np.ndarray
    y: np.ndarray
    scale: float
    fixed_test: int

    @property
    def classes(self) -> int:
        """Number of different labels."""
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Split:
    """Indices into a dataset's pool, each `(examples,)`."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def digits(**_) -> Dataset:
    """scikit-learn's digits: 1,797 real 8×8 images of 10 classes, inside the package."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(bunch.images[..., None].astype(np.uint8), bunch.target.astype(np.int32), 1 / 16, 0)


def mnist(root: str | None, **_) -> Dataset:
    """MNIST, 70,000 28×28 images of 10 classes, the last 10,000 its test set (LeCun et al. 1998)."""
    return _read_npz(_mnist_file(root))


def npz(path: str, **_) -> Dataset:
    """The user's own arrays: `x_train y_train x_test y_test`, or `x y`."""
    return _read_npz(_npz_file(path))


def content(node: dict) -> str:
    """What identifies the data whatever its path: the hash of its file, or nothing for data inside a package."""
    if node["_target_"] == "studies.data.npz":
        file = _npz_file(node["path"])
    elif node["_target_"] == "studies.data.mnist":
        file = _mnist_file(node["root"])
    else:
        return ""
    return _file_hash(file, file.stat().st_mtime_ns)


def split(dataset: Dataset, node: dict, rng: np.random.Generator) -> Split:
    """Training, validation and test examples, each class in proportion.

    The test set is the published one where there is one; else `test_fraction` of the examples. `validation_fraction`
    is of the rest.
    """
    pool = np.arange(len(dataset.y))
    if dataset.fixed_test:
        rest, test = pool[: -dataset.fixed_test], pool[-dataset.fixed_test :]
    else:
        rest, test = _stratified(pool, dataset.y, node["test_fraction"], rng, least=2)
    train, val = _stratified(rest, dataset.y, node["validation_fraction"], rng, least=1)
    return Split(train, val, test)


def _stratified(indices, y, fraction, rng, least):
    """Two parts: the second has `fraction` of every class, one example or more; `least` or more stay in the first."""
    kept, held_out = [], []
    for label in np.unique(y[indices]):
        members = rng.permutation(indices[y[indices] == label])
        count = min(max(1, round(fraction * len(members))), max(0, len(members) - least))
        held_out.append(members[:count])
        kept.append(members[count:])
    return np.concatenate(kept), np.concatenate(held_out)


def _npz_file(path: str | None) -> Path:
    if not path:
        raise StudyError("data=npz needs a file: give data.path=FILE.npz with x_train y_train x_test y_test, or x y")
    file = Path(path).expanduser()
    if not file.is_file():
        raise StudyError(f"data.path={path}: no such file. Give the path of an .npz file")
    return file


def _mnist_file(root: str | None) -> Path:
    if root and (Path(root).expanduser() / "mnist.npz").is_file():
        return Path(root).expanduser() / "mnist.npz"
    keras_home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    cached = keras_home / "datasets" / "mnist.npz"
    if not cached.is_file():
        keras_home.mkdir(parents=True, exist_ok=True)
        # In a process of its own: the driver must not import TensorFlow.
        download = [sys.executable, "-c", "import keras; keras.datasets.mnist.load_data()"]
        with FileLock(keras_home / "mnist.lock"):
            if not cached.is_file() and subprocess.run(download, capture_output=True).returncode:
                raise StudyError(
                    f"data=mnist: there is no mnist.npz in data.root={root}, and Keras could not download it. "
                    f"Put the file there, or name its folder with data.root=FOLDER or STUDIES_DATA=FOLDER"
                )
    return cached


@lru_cache(maxsize=8)
def _file_hash(path: Path, modified: int) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}): make it readable, or name another file") from error


def _read_npz(path: Path) -> Dataset:
    arrays = _arrays(path)
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        x = _joined(path, "x", arrays["x_train"], arrays["x_test"])
        y = _joined(path, "y", arrays["y_train"], arrays["y_test"])
        fixed_test = len(arrays["y_test"])
    elif {"x", "y"} <= arrays.keys():
        x, y, fixed_test = arrays["x"], arrays["y"], 0
    else:
        raise StudyError(f"{path} holds {sorted(arrays)}: expected the arrays x_train y_train x_test y_test, or x y")
    return _checked(path, x, y, fixed_test)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise StudyError(f"{path} is a single array: expected an .npz archive, such as np.savez writes")
        with archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if not zipfile.is_zipfile(path):
            reason = "it is no archive, or only a part of one"
        elif "ickle" in reason:
            reason = "it holds pickled objects, which are refused"
        raise StudyError(
            f"{path} cannot be read as an .npz archive of plain arrays ({reason}). Write it again with "
            f"np.savez(path, x=..., y=...) and numeric arrays"
        ) from error


def _joined(path, name, first, second):
    if first.ndim == 0 or second.ndim == 0 or first.shape[1:] != second.shape[1:]:
        raise StudyError(
            f"{path}: {name}_train has shape {first.shape} and {name}_test {second.shape}: expected the same shape "
            f"after the first axis"
        )
    return np.concatenate([first, second])


def _checked(path, x, y, fixed_test) -> Dataset:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim not in (3, 4) or y.ndim != 1 or len(x) != len(y) or 0 in x.shape:
        raise StudyError(
            f"{path}: images have shape {x.shape} and labels {y.shape}: expected images (examples, height, width) or "
            f"(examples, height, width, channels) and as many labels (examples,)"
        )
    if x.dtype.kind not in "uif" or y.dtype.kind not in "uif":
        raise StudyError(f"{path}: images are {x.dtype} and labels {y.dtype}: expected numbers")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise StudyError(f"{path} holds NaN or infinite values: replace or leave out these examples")
    labels = np.unique(y)
    if len(labels) < 2:
        raise StudyError(f"{path}: all labels are {labels[0]}: expected two classes or more")
    if (labels != np.arange(len(labels))).any():
        raise StudyError(
            f"{path}: labels run from {labels[0]} to {labels[-1]} with {len(labels)} different values: expected every "
            f"whole number from 0 to classes - 1"
        )
    rest = y[: len(y) - fixed_test] if fixed_test else y
    if set(np.unique(rest)) != set(labels):
        raise StudyError(f"{path}: some classes are in the test set alone: expected all of them in y_train as well")
    per_class = np.bincount(rest.astype(np.int64)).min()
    if per_class < 3:
        raise StudyError(
            f"{path}: a class has {per_class} examples: expected 3 or more, for training, validation and test"
        )
    images = x[..., None] if x.ndim == 3 else x
    if images.dtype == np.uint8:
        return Dataset(images, y.astype(np.int32), 1 / 255, fixed_test)
    return Dataset(images.astype(np.float32), y.astype(np.int32), 1.0, fixed_test)


def size(node: dict) -> tuple[int, tuple[int, ...]]:
    """Number of examples and an image's shape, guessed for data that is not ours.

    Raises:
        StudyError: the file cannot be used, or there is neither a test set nor a `test_fraction`.
    """
    if node["_target_"] == "studies.data.digits":
        examples, shape, fixed_test = 1797, (8, 8, 1), 0
    elif node["_target_"] == "studies.data.npz":
        examples, shape, fixed_test = _checked_file(_npz_file(node["path"]), node["content"])
    elif node["_target_"] == "studies.data.mnist":
        examples, shape, fixed_test = _checked_file(_mnist_file(node["root"]), node["content"])
    else:
        return 10_000, (32, 32, 3)
    if not fixed_test and node["test_fraction"] is None:
        raise StudyError("data.test_fraction=null, and the data has no test set of its own: give a share, such as 0.2")
    return examples, shape


@lru_cache(maxsize=8)
def _checked_file(file: Path, content: str) -> tuple[int, tuple[int, ...], int]:
    dataset = _read_npz(file)
    return len(dataset.x), dataset.x.shape[1:], dataset.fixed_test
