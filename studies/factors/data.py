"""Image datasets as arrays, read and checked without TensorFlow, and the split of a seed."""

import inspect
import json
import math
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from studies import contract, record
from studies.factors import cache, images
from studies.record import StudyError, content_key, listed, shown

SETTINGS = (
    *("test_fraction", "validation_fraction", "folds", "fold"),
    *("train_size", "test_size", "label_noise", "imbalance", "standardize"),
    *("flip", "crop", "cutout"),
)
"""What every dataset is asked for, whatever its source."""

PLACES = ("path", "root", "unreadable")
"""Settings that say where a file is, or how strictly it is read: where its content is known, that counts instead."""

LATER = {"test_size": None, **record.LATER["data"]}
"""Settings that came when there were results already, and what they are where nothing is asked of them: then they are
no part of what identifies data."""

DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
"""How many examples each class of `digits` has: so that the driver need not read them."""

CHUNK = 1000
"""So many images at a time become float64."""

DECODING = 2
"""Goes up when images are decoded otherwise than before: those that are kept are then made anew."""


DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What NumPy raises of a file that is no archive of arrays, or a part of one."""


class Unreadable(StudyError):
    """A file is no archive of arrays."""


@dataclass(frozen=True)
class Dataset:
    """All examples in one pool: those to train on, then its own validation set and its own test set, if it has them.

    Attributes:
        x: images `(examples, height, width, channels)`, uint8 or float32.
        y: labels `(examples,)`, int32, 0 to classes - 1.
        scale: what a network sees is `x * scale`.
        fixed_test: so many are its own test set, the pool's last; 0: one is drawn, the same for every seed.
        fixed_val: so many before these are its own validation set; 0: the seed draws one.
        hashes: a number of each image `(examples,)`, uint64, by which the test set is drawn; None: of its pixels.
        notes: what is to be said of it: one line for whatever is neither used nor refused.
        unreadable: images that were to be left out, and why.
        names: of the classes, where they have some.
    """

    x: np.ndarray
    y: np.ndarray
    scale: float
    fixed_test: int
    fixed_val: int = 0
    hashes: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of different labels."""
        return int(self.y.max()) + 1

    @cached_property
    def _pool(self) -> "_Pool":
        hashes = self.hashes
        if hashes is None and not self.fixed_test:
            hashes = images.hashes(self.x)
        return _Pool(self.y, self.x.shape[1:], self.fixed_val, self.fixed_test, hashes, self.notes, self.unreadable)


@dataclass(frozen=True)
class _Pool:
    """A dataset without its images; `hashes` may be None where it does not matter which ones are drawn."""

    y: np.ndarray
    shape: tuple[int, ...]
    fixed_val: int
    fixed_test: int
    hashes: np.ndarray | None
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def in_line(self, members: np.ndarray) -> np.ndarray:
        """Examples `(examples,)` in the order in which they go into the test set."""
        return members if self.hashes is None else members[np.argsort(self.hashes[members], kind="stable")]


@dataclass(frozen=True)
class Split:
    """Indices into a dataset's pool, each `(examples,)`."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def digits(shadows: bool = False, **_: object) -> Dataset:
    """scikit-learn's digits: 1,797 real 8×8 images of 10 classes, inside the package.

    Args:
        shadows: beside each image 64 inputs to reject, 8×16 in all: every pixel of another example, another one for
            each pixel, so that it has the pixel's distribution and knows nothing of the label (Kursa & Rudnicki 2010).
            The same ones for every seed, and the test set is that of the images without them.
    """
    # To import it takes a second, in every worker.
    [package] = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    table = np.loadtxt(Path(package) / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int32)
    x, y = table[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8), table[:, -1].copy()
    if not shadows:
        return Dataset(x, y, 1 / 16, 0)
    others = np.random.default_rng(0).permuted(x.reshape(len(x), -1), axis=0).reshape(x.shape)
    return Dataset(np.concatenate([x, others], axis=2), y, 1 / 16, 0, hashes=images.hashes(x))


def npz(path: str, **_: object) -> Dataset:
    """The user's own arrays: `x_train y_train`, perhaps `x_val y_val` and `x_test y_test`; or `x y`."""
    return _read_npz(_npz_file(path))


def image_folder(
    path: str, image_size: int | None = None, resize: str = "stretch", unreadable: str = "refuse", **node: object
) -> Dataset:
    """The user's own images: `train/CLASS/FILE`, perhaps `val/…` and `test/…`, in a folder or an archive.

    Args:
        image_size: makes every image a square of so many pixels a side; None: they have one size.
        resize: how: `stretch`, `pad` or `crop`, see `images.square`.
        unreadable: `refuse` images that cannot be decoded, or `skip` them.
    """
    place = _image_folder(path, image_size, resize)
    return _read_images(place, image_size, resize=resize, unreadable=unreadable, **node)


def published(name: str, root: str | None, **node: object) -> Dataset:
    """A set that Keras knows, with its published test set: `root/NAME.npz` or `root/NAME.tar.xz`, or a download."""
    file = _published_file(name, root)
    try:
        return _read_npz(file) if file.suffix == ".npz" else _read_images(file, None, **node)
    except Unreadable as error:
        if file.parent != contract.cache_folder():
            raise
        cache.forget(file.name)
        raise StudyError(
            f"{file}, which had been downloaded, was damaged and is deleted: the same command downloads it again"
        ) from error


SENT: dict[str, Dataset] = {}
"""Datasets whose files are elsewhere, which came to this process otherwise."""


def is_of_files(node: dict | None) -> bool:
    """Whether a data node's dataset is read from files that one machine may have and another not, by ours."""
    return node is not None and node["_target_"] in FILES


def given(node: dict) -> Dataset:
    """The dataset of such a node, from its files."""
    node = source(node)
    _, read = FILES[node.pop("_target_")]
    return read(**node)


def take(node: dict, dataset: Dataset) -> None:
    """Have the dataset of such a node, whose files need not be here."""
    SENT[content_key(source(node))] = dataset


def taken(node: dict) -> Dataset | None:
    """The dataset of a node, if it came so."""
    return SENT.get(content_key(source(node)))


def source(node: dict) -> dict:
    """What of a data node says which images there are: all but what every dataset is asked for."""
    return {name: value for name, value in node.items() if name not in SETTINGS}


def content(node: dict) -> str:
    """What identifies the data whatever its path: the hash of its file, or nothing for data inside a package.

    A folder that a dataset of the user's own reads is known by its files' names, sizes and times.

    Raises:
        StudyError: the file cannot be read, or the dataset has no such setting.
    """
    _refuse_unknown(node)
    if node["_target_"] not in FILES:
        return _own_content(node.get("path") or node.get("root"))
    find, _ = FILES[node["_target_"]]
    return images.content(find(**node))


def _own_content(path: str | None) -> str:
    place = Path(path).expanduser() if path else None
    if place is None or not place.exists():
        return ""
    if place.is_file():
        return images.content(place)
    listed = [(str(file.relative_to(place)), file.stat()) for file in sorted(place.rglob("*")) if file.is_file()]
    return content_key([(name, found.st_size, found.st_mtime_ns) for name, found in listed])


def is_known(node: dict) -> bool:
    """Whether the driver can tell how many examples there are: not of a dataset of the user's own."""
    return _pool(node) is not None


def size(node: dict) -> tuple[int, tuple[int, ...]]:
    """Number of training examples and an image's shape, guessed for data that is not ours.

    Raises:
        StudyError: the file cannot be used, or has not the examples that are asked for.
    """
    pool = _pool(node)
    if pool is None:
        return node["train_size"] or 10_000, (32, 32, 3)
    return len(_parts(pool, node, np.random.default_rng(0))[0]), pool.shape


def classes(node: dict) -> int | None:
    """How many classes there are, None for data that is not ours.

    Raises:
        StudyError: the file cannot be used.
    """
    pool = _pool(node)
    return None if pool is None else int(pool.y.max()) + 1


def notes(node: dict) -> list[str]:
    """What is to be said of a data node before anything trains: a line for each thing that is not as it was asked for.

    Raises:
        StudyError: as `size`.
    """
    pool = _pool(node)
    if pool is None:  # nobody knows before it is read
        return []
    _, val, test = (len(part) for part in _parts(pool, node, np.random.default_rng(0)))
    said = list(pool.notes)
    for name, fixed, count, of in (
        ("test", pool.fixed_test, test, len(pool.y) - pool.fixed_val),
        ("validation", pool.fixed_val, val, len(pool.y) - test),
    ):
        fraction = node[f"{name}_fraction"]
        if fixed and fraction is not None:
            said.append(
                f"data.{name}_fraction={fraction:g} is not used: the data has a {name} set of its own, of {fixed}"
            )
        elif name == "validation" and node.get("folds"):
            said.append(
                f"data.folds={node['folds']}: each of the {len(pool.y) - test} examples that are not test is in one "
                f"fold, and validates where data.fold is that; data.validation_fraction is not used"
            )
        elif not fixed and _is_bounded(pool, node, name):
            said.append(
                f"data.{name}_fraction={fraction:g} comes to {count} of {of} examples ({count / of:.3g}): every class "
                f"has one at least in each part"
            )
    return said + _said_of_imbalance(pool, node)


def _refuse_unknown(node):
    own = {"studies.data.digits": digits} | {target: read for target, (_, read) in FILES.items()}
    if node["_target_"] not in own:
        return
    parameters = inspect.signature(own[node["_target_"]]).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    for name in node.keys() - {"_target_", "content", *known, *SETTINGS}:
        raise StudyError(
            f"data.{name}={shown(node[name])}: {node['_target_']} has no such setting; it has "
            f"{listed([*known, *SETTINGS])}. Leave it out, or choose other data with data=NAME"
        )


def entry(node: dict) -> dict[str, str]:
    """What a store's reader sees of a data node: MLflow's name, digest, source and profile of a dataset.

    The digest is of all that decides what is trained on, so that two trials have the same data if they have the same
    digest; a file enters by its content, not by its place.

    Raises:
        StudyError: the file cannot be used any more.
    """
    target, content, place = node["_target_"], node["content"], node.get("path") or node.get("root")
    places = PLACES if content else ()
    settings = {n: value for n, value in node.items() if n not in places and not (n in LATER and value == LATER[n])}
    profile = {name: value for name, value in settings.items() if name != "_target_" and value != ""}
    if pool := _pool(node):  # else nobody knows before it is read
        examples, shape = size(node)
        profile = {"training_examples": examples, "image_shape": list(shape), "notes": notes(node)} | profile
        profile |= {"unreadable": list(pool.unreadable)} if pool.unreadable else {}
    source = ("local", {"uri": str(place)}) if place else ("code", {"tags": {"mlflow.source.name": target}})
    return {
        "name": node.get("name") or (Path(node["path"]).stem if node.get("path") else target.rpartition(".")[2]),
        "digest": content_key(settings),
        "source_type": source[0],
        "source": json.dumps(source[1]),
        "profile": json.dumps(profile),
    }


def _pool(node) -> _Pool | None:
    """The pool of a data node, None for data that is not ours."""
    if node["_target_"] == "studies.data.digits":
        shape = (8, 16, 1) if node.get("shadows") else (8, 8, 1)
        return _Pool(np.repeat(np.arange(10), DIGITS), shape, 0, 0, None)
    return _described(json.dumps(source(node), sort_keys=True)) if node["_target_"] in FILES else None


@lru_cache(maxsize=8)
def _described(text: str) -> _Pool:
    node = json.loads(text)
    _, read = FILES[node.pop("_target_")]
    dataset = read(**node)
    fixed, said = (dataset.fixed_val, dataset.fixed_test), (dataset.notes, dataset.unreadable)
    return _Pool(dataset.y, dataset.x.shape[1:], *fixed, None, *said)  # hashes would take as long as reading it


def split(dataset: Dataset, node: dict, rng: np.random.Generator) -> Split:
    """Training, validation and test examples, each class in proportion.

    The test set is the data's own where it has one; else `test_fraction` of each class: the images with the lowest
    hashes, so that it is the same for every seed, and a smaller one is part of a larger one. The validation set is
    the data's own; or the one of `folds` that `fold` says, into which the seed deals all of the rest; or
    `validation_fraction` of it, which the seed draws. What is then left to train on is thinned: by `imbalance`, a class
    keeping `imbalance ** (-place / (classes - 1))` of its examples (Cui et al. 2019: the first all, the last
    1 / imbalance), and to `train_size` examples of these, in the proportions that they have. Every class keeps one. At
    one seed a smaller training set is part of a larger one. Of the test set the first `test_size` count, each class in
    proportion: they are part of a larger one, and the same for every seed.

    Raises:
        StudyError: there is neither a test set nor a `test_fraction`; there is no such fold, or a class has fewer
            examples than there are folds; `train_size` or `test_size` is more than there are, or less than one of each
            class; `label_noise` is of no example; `crop` or `cutout` may leave nothing of an image.
    """
    return Split(*_parts(dataset._pool, node, rng))


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


def _parts(pool: _Pool, node, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _check_augmentation(pool.shape, node)
    y, count = pool.y, len(pool.y)
    rest, val, test = np.split(np.arange(count), [count - pool.fixed_val - pool.fixed_test, count - pool.fixed_test])
    if not pool.fixed_test:
        if node["test_fraction"] is None:
            raise StudyError(
                "data.test_fraction=null, and the data has no test set of its own: give a share, such as 0.2"
            )
        rest, test = _stratified(rest, y, node["test_fraction"], 2, pool.in_line)
    if (test_size := node.get("test_size")) is not None:
        test = test[np.argsort(y[test], kind="stable")]
        sizes = np.unique(y[test], return_counts=True)[1]
        test = _first(test, sizes, sizes, test_size, "test", "which is what there is to test on")
    _check_folds(pool, node, np.bincount(y[rest]))
    if pool.fixed_val:
        rest, _ = _stratified(rest, y, 0, 1, rng.permutation)
    elif folds := node.get("folds"):
        rest, val = _dealt(rest, y, folds, node.get("fold", 0), rng.permutation)
    else:
        rest, val = _stratified(rest, y, node["validation_fraction"], 1, rng.permutation)
    train = _thinned(rest, y[rest], node["imbalance"], node["train_size"])
    noise = node["label_noise"]
    if noise and not round(noise * len(train)):
        raise StudyError(
            f"data.label_noise={noise:g}: none of {len(train)} training examples: expected 0, or "
            f"{1 / len(train):.2g} and more"
        )
    return train, val, test


def _check_folds(pool, node, sizes):
    """Refuse folds that cannot be, of classes with so many examples."""
    folds, fold = node.get("folds"), node.get("fold", 0)
    if folds is None:
        if fold:
            raise StudyError(
                f"data.fold={fold} and data.folds=null: give the number of folds too, such as data.folds=5"
            )
        return
    if pool.fixed_val:
        raise StudyError(
            f"data.folds={folds}: the data has a validation set of its own, of {pool.fixed_val}: expected data without "
            f"one. Put its images among those to train on, or give data.folds=null"
        )
    if fold >= folds:
        raise StudyError(f"data.fold={fold}: expected 0 to {folds - 1}, of data.folds={folds}")
    if folds > sizes.min():
        raise StudyError(
            f"data.folds={folds}: expected {sizes.min()} at most, the examples besides test of the smallest class, so "
            f"that each fold has every class"
        )


def _dealt(indices, y, folds, fold, arranged):
    """As `_stratified`, the second part being one of so many folds, which every example is in one of.

    Sizes of a class, and of all of them, differ by one at most from fold to fold.
    """
    kept, held_out, dealt = [], [], 0
    for label in np.unique(y[indices]):
        members = arranged(indices[y[indices] == label])
        hand = (dealt + np.arange(len(members))) % folds
        held_out.append(members[hand == fold])
        kept.append(members[hand != fold])
        dealt += len(members)
    return np.concatenate(kept), np.concatenate(held_out)


def _check_augmentation(shape, node):
    """Refuse what leaves nothing of an image `(height, width, channels)`."""
    side = min(shape[:2])
    for name, most in (("crop", side - 1), ("cutout", side)):
        if node[name] > most:
            raise StudyError(
                f"data.{name}={node[name]} of images of {shape[0]}×{shape[1]} pixels: expected {most} at most, which "
                f"leaves something of each"
            )


def _thinned(train, y, imbalance, train_size):
    """Some of `train`, whose classes follow one another, each in a random order."""
    sizes = np.unique(y, return_counts=True)[1]
    left = f"which is what is left to train on without validation, test and data.imbalance={imbalance:g}"
    return _first(train, sizes, _profile(sizes, imbalance), train_size, "train", left)


def _first(members, sizes, counts, most, name, left):
    """The first ones of each class, whose members follow one another.

    Args:
        sizes: how many members each class has.
        counts: how many of these are to be had.
        most: so many of them all, each class in proportion; None for all.
        name, left: of `data.NAME_size`, and what its greatest value is.
    """
    place = np.concatenate([np.arange(size) for size in sizes])
    of = np.repeat(counts, sizes)
    members, place, of = members[place < of], place[place < of], of[place < of]
    if most is None:
        return members
    if not len(sizes) <= most <= len(members):
        raise StudyError(
            f"data.{name}_size={most}: expected {len(sizes)}, one of each class, to {len(members)}, {left}; null takes "
            f"all"
        )
    # Sainte-Laguë's apportionment in the order of its awards, after one for each: so each size is part of the next.
    awarded = np.argsort(np.where(place == 0, 0, (place + 0.5) / of), kind="stable")
    return members[np.sort(awarded[:most])]


def _profile(sizes, imbalance):
    """How many examples each class keeps."""
    # Cui et al. 2019, section 5.1: n_i * mu ** i; the summand keeps a whole number whole.
    return np.maximum(1, np.floor(sizes * imbalance ** -np.linspace(0, 1, len(sizes)) + 1e-9))


def _said_of_imbalance(pool, node) -> list[str]:
    """A line where classes have too few examples to become as small as they are asked to."""
    balanced = node | {"imbalance": 1.0, "train_size": None, "label_noise": 0.0}
    sizes = np.bincount(pool.y[_parts(pool, balanced, np.random.default_rng(0))[0]])
    few = (sizes * node["imbalance"] ** -np.linspace(0, 1, len(sizes)) + 1e-9 < 1).sum()
    said = (
        f"data.imbalance={node['imbalance']:g}: classes have {listed(sizes.tolist())} training examples, too few for "
        f"{few} of them, which keep one each"
    )
    return [said] * bool(few)


def _stratified(indices, y, fraction, least, arranged):
    """Two parts: the second has `fraction` of every class, one example or more; `least` or more stay in the first.

    Args:
        arranged: puts the examples of a class into the order in which they are taken.
    """
    kept, held_out = [], []
    for label in np.unique(y[indices]):
        members = arranged(indices[y[indices] == label])
        count = _share(fraction, len(members), least)
        held_out.append(members[:count])
        kept.append(members[count:])
    return np.concatenate(kept), np.concatenate(held_out)


def _share(fraction, members, least):
    return min(max(1, round(fraction * members)), max(0, members - least)) if fraction else 0


def _is_bounded(pool, node, name) -> bool:
    """Whether a class has another number of examples in the test or validation set than its share of them."""
    sizes = np.bincount(pool.y[: len(pool.y) - pool.fixed_val - pool.fixed_test]).tolist()
    fraction, least = node[f"{name}_fraction"], {"test": 2, "validation": 1}[name]
    if name == "validation" and not pool.fixed_test:
        sizes = [size - _share(node["test_fraction"], size, 2) for size in sizes]
    return any(_share(fraction, size, least) != round(fraction * size) for size in sizes)


def _npz_file(path=None, **_) -> Path:
    if not path:
        raise StudyError("data=npz needs a file: give data.path=FILE.npz with x_train y_train x_test y_test, or x y")
    file = _place("path", path)
    if not file.is_file():
        raise StudyError(f"data.path={path}: no such file. Give the path of an .npz file")
    return file


def _image_folder(path=None, image_size=None, resize="stretch", **_) -> Path:
    kinds = f"a folder or an archive ({listed(images.ARCHIVES)}) of train/CLASS/FILE and test/CLASS/FILE"
    if not path:
        raise StudyError(f"data=image_folder needs images: give data.path=PATH, {kinds}")
    file = _place("path", path)
    if not file.is_dir() and not (file.is_file() and file.name.lower().endswith(images.ARCHIVES)):
        raise StudyError(f"data.path={path}: there is no such folder or archive. Give the path of {kinds}")
    if resize != "stretch" and image_size is None:
        raise StudyError(
            f"data.resize={resize} and data.image_size=null, by which nothing is resized: give the size too, such as "
            f"data.image_size=32"
        )
    return file


def _place(setting, path) -> Path:
    """A path of the user's, `~` being a home folder.

    Raises:
        StudyError: it cannot be looked up, or is no text that a store can hold.
    """
    try:
        path.encode()
        place = Path(path).expanduser()
        place.exists()
    except UnicodeEncodeError:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise StudyError(f"data.{setting}={shown}: the name is no UTF-8. Give the file another name") from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"data.{setting}={path} cannot be looked up ({reason}). Give another path") from error
    return place


def _published_file(name, root=None, **_) -> Path:
    files = [_place("root", root) / f"{name}{end}" for end in (".npz", ".tar.xz")] if root else []
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
    command, calm = [sys.executable, "-c", code, name, str(file)], os.environ | {"PYTHONWARNINGS": ""}
    if subprocess.run(command, env=calm, capture_output=True).returncode:
        raise StudyError(
            f"data={name}: there is no {name}.npz in data.root={shown(root)}, and Keras could not download it. Put the "
            f"file there, or name its folder with data.root=FOLDER or STUDIES_DATA=FOLDER"
        )


def _read_images(path, side, content=None, resize="stretch", unreadable="refuse", **_) -> Dataset:
    """Decoded once for all processes and times."""
    content = content or images.content(path)

    def decode(file):
        arrays: dict[str, Any] = images.read(path, side, resize, unreadable)
        with open(file, "wb") as decoded:
            np.savez(decoded, **arrays)

    name = f"images-{DECODING}-{version('pillow')}-{content}-{side or 'as-they-are'}"
    name += f"-{resize}" * (resize != LATER["resize"]) + f"-{unreadable}" * (unreadable != "refuse")
    return cache.read(f"{name}.npz", decode, lambda file: _decoded(file, path, unreadable), (Unreadable, *DAMAGED))


def _decoded(file: Path, path: Path, unreadable: str) -> Dataset:
    """What was kept of a folder or an archive of images."""
    with np.load(file, allow_pickle=False) as arrays:
        hashes, notes = arrays["hashes"], arrays["notes"].tolist()
        left_out = images.left_out(path) if path.is_dir() else arrays["left_out"].tolist()
        skipped = arrays["unreadable"].tolist() if unreadable != "refuse" else []
        classes = arrays["classes"].tolist() if "classes" in arrays.files else None  # kept by an earlier version
    said = (*notes, *(f"{path}: {line}" for line in left_out))
    dataset = _read_npz(file, path, classes)
    return replace(dataset, hashes=hashes, notes=said, unreadable=tuple(skipped), names=tuple(classes or ()))


def _read_npz(file: Path, path: Path | None = None, classes: list[str] | None = None) -> Dataset:
    """A file's arrays; errors are about `path`, and call classes by their names if they have some."""
    path = path or file
    arrays, others = _arrays(file, path)
    arrays |= {name: _column(array) for name, array in arrays.items() if name.startswith("y")}
    parts = [part for part in ("train", "val", "test") if f"x_{part}" in arrays]
    x, y = (_joined(path, {f"{name}_{part}": arrays[f"{name}_{part}"] for part in parts}) for name in "xy")
    held = {part: math.prod(arrays[f"y_{part}"].shape[:1]) for part in parts}
    dataset = _checked(path, x, y, held.get("val", 0), held.get("test", 0), classes)
    unused = [f"{path}: not used, since it is no part of x_train y_train x_val y_val x_test y_test: {listed(others)}"]
    return replace(dataset, notes=(*dataset.notes, *unused * bool(others)))


def _arrays(file: Path, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays `x_PART` and `y_PART`, and the names of others, which are not looked at."""
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise StudyError(f"{path} is a single array: expected an .npz archive, such as np.savez writes")
        with archive:
            chosen = _chosen(path, archive.files)
            others = sorted(set(archive.files) - set(chosen.values()))
            if archive.zip:
                _refuse_bomb(path, archive.zip, chosen.values())
            return {name: np.asarray(archive[stored]) for name, stored in chosen.items()}, others
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, PermissionError):
            raise StudyError(f"{path} cannot be read ({error.strerror}): make it readable") from error
        if not zipfile.is_zipfile(file):
            reason = "it is no archive, or only a part of one"
        elif "ickle" in reason:
            reason = "it holds pickled objects, which are refused"
        raise Unreadable(
            f"{path} cannot be read as an .npz archive of plain arrays ({reason}). Write it again with "
            f"np.savez(path, x=..., y=...) and numeric arrays"
        ) from error


def _refuse_bomb(path: Path, archive: zipfile.ZipFile, names: Iterable[str]) -> None:
    """Refuse arrays that unpack to more than this machine could hold: a small file can."""
    stored = set(archive.namelist())
    size = sum(archive.getinfo(name if name in stored else f"{name}.npy").file_size for name in names)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise StudyError(
            f"{path} unpacks to {size:,} bytes, and this machine has {memory:,} of memory: leave examples out, or "
            f"write them with fewer bits, such as np.uint8"
        )


def _chosen(path, names) -> dict[str, str]:
    """From `x_train y_train x_val y_val x_test y_test`, as far as there are such, to what they are called."""
    pairs = {(f"x_{alias}", f"y_{alias}"): part for alias, part in images.PARTS.items()}
    if not {"x_train", "y_train"} & set(names):
        pairs |= {("x", "y"): "train"}
    chosen = {}
    for pair, part in pairs.items():
        have = [name for name in pair if name in names]
        if len(have) == 1:
            raise StudyError(
                f"{path} holds {have[0]} and not its pair: expected {listed(pair)}. It holds {sorted(names)}"
            )
        if have and f"x_{part}" in chosen:
            raise StudyError(f"{path} holds {chosen[f'x_{part}']} and {have[0]}: expected one of these. Join them")
        chosen |= {f"{stored[0]}_{part}": stored for stored in have}
    if "x_train" not in chosen:
        raise StudyError(
            f"{path} holds {sorted(names)}: expected the arrays x_train y_train and, if there are such sets, x_val "
            f"y_val x_test y_test; or x y. Write it again with np.savez(path, x=images, y=labels)"
        )
    return chosen


def _column(y) -> np.ndarray:
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _joined(path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    (first, array), *others = arrays.items()
    for name, other in others:
        if array.ndim == 0 or other.ndim == 0 or array.shape[1:] != other.shape[1:]:
            raise StudyError(
                f"{path}: {first} has shape {array.shape} and {name} {other.shape}: expected the same shape after the "
                f"first axis"
            )
        if name.startswith("x") and (array.dtype.kind == "f") != (other.dtype.kind == "f"):
            raise StudyError(
                f"{path}: {first} is {array.dtype} and {name} {other.dtype}: expected the same numbers in both"
            )
    return np.concatenate(list(arrays.values())) if others else array


def _checked(path, x, y, fixed_val, fixed_test, classes) -> Dataset:
    if y.ndim == 2:
        raise StudyError(
            f"{path}: labels have shape {y.shape}: expected one number each, (examples,). If they are one-hot, write "
            f"y.argmax(axis=1)"
        )
    if x.ndim not in (3, 4) or y.ndim != 1 or len(x) != len(y) or 0 in x.shape:
        raise StudyError(
            f"{path}: images have shape {x.shape} and labels {y.shape}: expected images (examples, height, width) or "
            f"(examples, height, width, channels) and as many labels (examples,)"
        )
    if x.dtype.kind not in "uif" or y.dtype.kind not in "uif":
        raise StudyError(f"{path}: images are {x.dtype} and labels {y.dtype}: expected numbers")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise StudyError(f"{path} holds NaN or infinite values: replace or leave out these examples")
    _refuse_channels_first(path, x.shape)
    labels = np.unique(y)
    if len(labels) < 2:
        raise StudyError(f"{path}: all labels are {labels[0]}: expected two classes or more")
    if (labels != np.arange(len(labels))).any():
        raise StudyError(
            f"{path}: labels run from {labels[0]} to {labels[-1]} with {len(labels)} different values: expected every "
            f"whole number from 0 to classes - 1"
        )
    rest = y[: len(y) - fixed_val - fixed_test]
    if set(np.unique(rest)) != set(labels):
        raise StudyError(
            f"{path}: some classes are in the validation or test set alone: expected all of them in y_train as well"
        )
    counts, least = np.bincount(rest.astype(np.int64)), 1 if fixed_val and fixed_test else 3
    label = counts.argmin()
    if counts[label] < least:
        name = classes[label] if classes else label
        raise StudyError(
            f"{path}: a class has {counts[label]} examples, {name}: expected 3 or more, for training, validation and "
            f"test. Add to it, or leave the class out"
        )
    pixels, scale, notes = _numbers(path, x[..., None] if x.ndim == 3 else x)
    return Dataset(pixels, y.astype(np.int32), scale, fixed_test, fixed_val, notes=notes)


def _refuse_channels_first(path, shape):
    if len(shape) != 4:
        return
    _, first, middle, last = shape
    if last > 4 and (first <= 4 or first < middle == last):
        raise StudyError(
            f"{path}: images have shape {shape}, whose channels seem to come first: expected (examples, height, width, "
            f"channels). Write x.transpose(0, 2, 3, 1); if they do have {last} channels and are {first} pixels high, "
            f"lay them on their sides with x.transpose(0, 2, 1, 3)"
        )


def _numbers(path, x) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """Images as uint8 or float32, their scale, and what is to be said of it: whole numbers to 255 are bytes."""
    if x.dtype == np.uint8:
        return x, 1 / 255, ()
    low, high = x.min(), x.max()
    described = f"{path}: images are {x.dtype} from {low:g} to {high:g}"
    if max(abs(float(low)), abs(float(high))) > float(np.finfo(np.float32).max):
        raise StudyError(f"{described}, beyond what training computes with: divide them, such as by their largest")
    if x.dtype.kind != "f" and low >= 0 and high <= 255:
        return x.astype(np.uint8), 1 / 255, (f"{described}, and are divided by 255 as bytes are",)
    unlike = x.dtype.kind != "f" or (low >= 0 and 1 < high <= 255 and (x == np.floor(x)).all())
    said = f"{described}, and are not divided by anything: data.standardize=true gives them mean 0 and sd 1"
    return x.astype(np.float32), 1.0, (said,) * bool(unlike)


FILES: dict[str, tuple[Callable[..., Path], Callable[..., Dataset]]] = {
    "studies.data.npz": (_npz_file, npz),
    "studies.data.image_folder": (_image_folder, image_folder),
    "studies.data.published": (_published_file, published),
}
"""For each dataset that is in a file: what finds it, and what reads it."""
