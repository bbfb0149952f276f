"""Image datasets as arrays, read and checked without TensorFlow, and the split of a seed."""

import json
import math
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from studies import cache, images
from studies.record import StudyError, content_key, listed, shown

SETTINGS = (
    *("test_fraction", "validation_fraction"),
    *("train_size", "label_noise", "imbalance", "standardize"),
    *("flip", "crop", "cutout"),
)
"""What every dataset is asked for, whatever its source."""

DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
"""How many examples each class of `digits` has: so that the driver need not read them."""

CHUNK = 1000
"""So many images at a time become float64."""


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
    [package] = find_spec("sklearn").submodule_search_locations  # to import it takes a second, in every worker
    table = np.loadtxt(Path(package) / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int32)
    return Dataset(table[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8), table[:, -1].copy(), 1 / 16, 0)


def npz(path: str, **_) -> Dataset:
    """The user's own arrays: `x_train y_train x_test y_test`, or `x y`."""
    return _read_npz(_npz_file(path))


def image_folder(path: str, image_size: int | None = None, **node) -> Dataset:
    """The user's own images: `train/CLASS/FILE` and perhaps `test/CLASS/FILE`, in a folder or an archive.

    Args:
        image_size: makes every image a square of so many pixels a side; None: they have one size.
    """
    return _read_images(_image_folder(path), image_size, **node)


def published(name: str, root: str | None, **node) -> Dataset:
    """A set that Keras knows, with its published test set: `root/NAME.npz` or `root/NAME.tar.xz`, or a download."""
    file = _published_file(name, root)
    return _read_npz(file) if file.suffix == ".npz" else _read_images(file, None, **node)


def source(node: dict) -> dict:
    """What of a data node says which images there are: all but what every dataset is asked for."""
    return {name: value for name, value in node.items() if name not in SETTINGS}


def content(node: dict) -> str:
    """What identifies the data whatever its path: the hash of its file, or nothing for data inside a package."""
    if node["_target_"] not in FILES:
        return ""
    find, _ = FILES[node["_target_"]]
    return images.content(find(**node))


def size(node: dict) -> tuple[int, tuple[int, ...]]:
    """Number of training examples and an image's shape, guessed for data that is not ours.

    Raises:
        StudyError: the file cannot be used, or has not the examples that are asked for.
    """
    if node["_target_"] == "studies.data.digits":
        y, shape, fixed_test = np.repeat(np.arange(10), DIGITS), (8, 8, 1), 0
    elif node["_target_"] in FILES:
        y, shape, fixed_test = _described(json.dumps(source(node), sort_keys=True))
    else:
        return node["train_size"] or 10_000, (32, 32, 3)
    return len(_parts(y, fixed_test, node, np.random.default_rng(0))[0]), shape


def entry(node: dict) -> dict[str, str]:
    """What a store's reader sees of a data node: MLflow's name, digest, source and profile of a dataset.

    The digest is of all that decides what is trained on, so that two trials have the same data if they have the same
    digest; a file enters by its content, not by its place.

    Raises:
        StudyError: the file cannot be used any more.
    """
    target, content, place = node["_target_"], node["content"], node.get("path") or node.get("root")
    settings = {name: value for name, value in node.items() if not (content and name in ("path", "root"))}
    profile = {name: value for name, value in settings.items() if name != "_target_" and value != ""}
    if target == "studies.data.digits" or target in FILES:  # else nobody knows before it is read
        examples, shape = size(node)
        profile = {"training_examples": examples, "image_shape": list(shape)} | profile
    source = ("local", {"uri": str(place)}) if place else ("code", {"tags": {"mlflow.source.name": target}})
    return {
        "name": node.get("name") or (Path(node["path"]).stem if node.get("path") else target.rpartition(".")[2]),
        "digest": content_key(settings),
        "source_type": source[0],
        "source": json.dumps(source[1]),
        "profile": json.dumps(profile),
    }


@lru_cache(maxsize=8)
def _described(text: str) -> tuple[np.ndarray, tuple[int, ...], int]:
    node = json.loads(text)
    _, read = FILES[node.pop("_target_")]
    dataset = read(**node)
    return dataset.y, dataset.x.shape[1:], dataset.fixed_test


def split(dataset: Dataset, node: dict, rng: np.random.Generator) -> Split:
    """Training, validation and test examples, each class in proportion.

    The test set is the published one where there is one; else `test_fraction` of the examples. `validation_fraction`
    is of the rest. What is then left to train on is thinned: by `imbalance`, a class keeping
    `imbalance ** (-place / (classes - 1))` of its examples (Cui et al. 2019: the first all, the last 1 / imbalance),
    and to `train_size` examples of these, in the proportions that they have. Every class keeps one. At one seed a
    smaller training set is part of a larger one.

    Raises:
        StudyError: there is neither a test set nor a `test_fraction`; `train_size` is more than there are, or less
            than one of each class.
    """
    return Split(*_parts(dataset.y, dataset.fixed_test, node, rng))


def noisy_labels(dataset: Dataset, train: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The labels `(examples,)`, a share of those in `train` replaced by another class, any with equal chance.

    With one generator a smaller share's wrong labels are among a larger one's.
    """
    # Drawn for every example, so that what becomes of one does not depend on the other training examples.
    urgency, offset = rng.random(len(dataset.y)), rng.integers(1, dataset.classes, len(dataset.y))
    wrong = train[np.argsort(urgency[train])][: round(share * len(train))]
    y = dataset.y.copy()
    y[wrong] = (y[wrong] + offset[wrong]) % dataset.classes
    return y


def scaling(dataset: Dataset, train: np.ndarray, standardize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each channel's scale and shift, `(channels,)` float32: what a network sees is `x * scale + shift`.

    Standardized, every channel of the examples in `train` has mean 0 and, unless it is constant, sd 1 over all pixels.
    """
    channels = dataset.x.shape[-1]
    if not standardize:
        return np.full(channels, dataset.scale, np.float32), np.zeros(channels, np.float32)
    total, squares = np.zeros(channels), np.zeros(channels)
    for start in range(0, len(train), CHUNK):
        # Channels first: three times as fast.
        pixels = dataset.x[train[start : start + CHUNK]].reshape(-1, channels).T.astype(np.float64, order="C")
        total += pixels.sum(axis=1)
        squares += np.square(pixels).sum(axis=1)
    count = len(train) * math.prod(dataset.x.shape[1:3])
    mean = total / count
    variance = squares / count - mean**2
    sd = np.sqrt(np.where(variance > 1e-12 * mean**2, variance, 1))  # what is less is rounding
    return (1 / sd).astype(np.float32), (-mean / sd).astype(np.float32)


def _parts(y, fixed_test, node, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pool = np.arange(len(y))
    if fixed_test:
        rest, test = pool[:-fixed_test], pool[-fixed_test:]
    elif node["test_fraction"] is None:
        raise StudyError("data.test_fraction=null, and the data has no test set of its own: give a share, such as 0.2")
    else:
        rest, test = _stratified(pool, y, node["test_fraction"], rng, least=2)
    train, val = _stratified(rest, y, node["validation_fraction"], rng, least=1)
    return _thinned(train, y[train], node["imbalance"], node["train_size"]), val, test


def _thinned(train, y, imbalance, train_size):
    """Some of `train`, whose classes follow one another, each in a random order: the first ones of each."""
    sizes = np.unique(y, return_counts=True)[1]
    # Cui et al. 2019, section 5.1: n_i * mu ** i; the summand keeps a whole number whole.
    profile = np.linspace(0, 1, len(sizes))
    counts = np.maximum(1, np.floor(sizes * imbalance**-profile + 1e-9))
    place = np.concatenate([np.arange(size) for size in sizes])
    of = np.repeat(counts, sizes)
    train, place, of = train[place < of], place[place < of], of[place < of]
    if train_size is None:
        return train
    if not len(sizes) <= train_size <= len(train):
        raise StudyError(
            f"data.train_size={train_size}: expected {len(sizes)}, one of each class, to {len(train)}, which is what "
            f"is left to train on without validation, test and data.imbalance={imbalance:g}; null takes all"
        )
    # Sainte-Laguë's apportionment in the order of its awards, after one for each: so each size is part of the next.
    awarded = np.argsort(np.where(place == 0, 0, (place + 0.5) / of), kind="stable")
    return train[np.sort(awarded[:train_size])]


def _stratified(indices, y, fraction, rng, least):
    """Two parts: the second has `fraction` of every class, one example or more; `least` or more stay in the first."""
    kept, held_out = [], []
    for label in np.unique(y[indices]):
        members = rng.permutation(indices[y[indices] == label])
        count = min(max(1, round(fraction * len(members))), max(0, len(members) - least))
        held_out.append(members[:count])
        kept.append(members[count:])
    return np.concatenate(kept), np.concatenate(held_out)


def _npz_file(path=None, **_) -> Path:
    if not path:
        raise StudyError("data=npz needs a file: give data.path=FILE.npz with x_train y_train x_test y_test, or x y")
    file = Path(path).expanduser()
    if not file.is_file():
        raise StudyError(f"data.path={path}: no such file. Give the path of an .npz file")
    return file


def _image_folder(path=None, **_) -> Path:
    kinds = f"a folder or an archive ({listed(images.ARCHIVES)}) of train/CLASS/FILE and test/CLASS/FILE"
    if not path:
        raise StudyError(f"data=image_folder needs images: give data.path=PATH, {kinds}")
    file = Path(path).expanduser()
    if not file.is_dir() and not (file.is_file() and file.name.lower().endswith(images.ARCHIVES)):
        raise StudyError(f"data.path={path}: there is no such folder or archive. Give the path of {kinds}")
    return file


def _published_file(name, root=None, **_) -> Path:
    files = [Path(root).expanduser() / f"{name}{end}" for end in (".npz", ".tar.xz")] if root else []
    return next((file for file in files if file.is_file()), None) or cache.kept(
        f"{name}.npz", lambda file: _download(name, root, file)
    )


def _download(name, root, file):
    # In a process of its own: the driver must not import TensorFlow.
    code = (
        "import sys, keras, numpy\n"
        "(x, y), (x_test, y_test) = getattr(keras.datasets, sys.argv[1]).load_data()\n"
        "numpy.savez(open(sys.argv[2], 'wb'), x_train=x, y_train=y, x_test=x_test, y_test=y_test)"
    )
    if subprocess.run([sys.executable, "-c", code, name, str(file)], capture_output=True).returncode:
        raise StudyError(
            f"data={name}: there is no {name}.npz in data.root={shown(root)}, and Keras could not download it. Put the "
            f"file there, or name its folder with data.root=FOLDER or STUDIES_DATA=FOLDER"
        )


def _read_images(path, side, content=None, **_) -> Dataset:
    """Decoded once for all processes and times."""
    content = content or images.content(path)

    def decode(file):
        with open(file, "wb") as decoded:
            np.savez(decoded, **images.read(path, side))

    decoded = cache.kept(f"images-{content}-{side or 'as-they-are'}.npz", decode)
    return _read_npz(decoded, path)


def _read_npz(file: Path, path: Path | None = None) -> Dataset:
    """A file's arrays; errors are about `path`."""
    arrays, path = _arrays(file), path or file
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
    pixels = x[..., None] if x.ndim == 3 else x
    if pixels.dtype == np.uint8:
        return Dataset(pixels, y.astype(np.int32), 1 / 255, fixed_test)
    return Dataset(pixels.astype(np.float32), y.astype(np.int32), 1.0, fixed_test)


FILES = {
    "studies.data.npz": (_npz_file, npz),
    "studies.data.image_folder": (_image_folder, image_folder),
    "studies.data.published": (_published_file, published),
}
"""For each dataset that is in a file: what finds it, and what reads it."""
