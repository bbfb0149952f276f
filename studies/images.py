"""Image folders as arrays: `train/CLASS/FILE` and `test/CLASS/FILE`, in a folder or in an archive.

An archive is read from its stream in memory and never unpacked, and nothing that it says of itself is believed.
"""

import gzip
import hashlib
import io
import lzma
import stat
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from studies.record import StudyError, listed

MEMBER_BYTES = 64 * 2**20
"""The largest file that is read."""

IMAGE_PIXELS = 4096 * 4096
"""The largest image that is decoded."""

TOTAL_BYTES = 4 * 2**30
"""As much is read of an archive, and as much decoded, at most."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow knows others, some of which start programs, such as PostScript's."""

GREY = ("1", "L", "LA")
LAYOUT = "expected images as train/CLASS/FILE and, if there is a test set, test/CLASS/FILE"
STREAMS = {".tar": open, ".tar.gz": gzip.open, ".tar.xz": lzma.open}
ARCHIVES = (*STREAMS, ".zip")


def content(path: Path) -> str:
    """The SHA-256 of an archive, or of a folder's images and their names.

    Raises:
        StudyError: something cannot be read.
    """
    try:
        return _folder_hash(path.resolve()) if path.is_dir() else _file_hash(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}): make it readable, or name another file") from error


def read(path: Path, side: int | None) -> dict[str, np.ndarray]:
    """A folder's or an archive's images, sorted by name; a class's label is its place among the sorted classes.

    Args:
        side: resize every image to a square of so many pixels; None: all have one size.

    Returns:
        `x_train y_train x_test y_test`, or `x y` without a test set; images `(examples, height, width, channels)`,
        uint8, of one channel if all of them are grey.

    Raises:
        StudyError: an archive that is hostile or damaged, or images that cannot be used.
    """
    found, first, total = {}, None, 0
    for name, encoded in _files(path):
        image = _decoded(f"{name!r} in {path}", encoded, side)
        first = first or (name, image.shape[:2])
        if image.shape[:2] != first[1]:
            sizes = ["×".join(map(str, size)) for size in (image.shape[:2], first[1])]
            raise StudyError(
                f"{name!r} in {path} has {sizes[0]} pixels and {first[0]!r} {sizes[1]}: expected all of one size. "
                f"Have them made squares with data.image_size=PIXELS, such as 32"
            )
        total += image.nbytes
        if total > TOTAL_BYTES:
            raise StudyError(
                f"{path} holds more than {TOTAL_BYTES} bytes of pixels: expected so many at most. Leave images out, or "
                f"make them smaller with data.image_size=PIXELS"
            )
        found[tuple(name.split("/"))] = image
    parts = {part: sorted(name for name in found if name[0] == part) for part in ("train", "test")}
    classes = {part: sorted({name[1] for name in names}) for part, names in parts.items()}
    if not classes["train"]:
        raise StudyError(f"{path} has no images in train/CLASS/: {LAYOUT}")
    if classes["test"] and classes["test"] != classes["train"]:
        alone = sorted(set(classes["train"]) ^ set(classes["test"]))
        raise StudyError(f"{path} has {alone[0]!r} in train or in test alone: expected the same classes in both")
    channels = 1 if all(image.ndim == 2 for image in found.values()) else 3
    arrays = {}
    for part, names in parts.items():
        suffix = f"_{part}" if classes["test"] else ""
        x = np.empty((len(names), *first[1], channels), np.uint8)
        for place, name in enumerate(names):
            image = found.pop(name)
            x[place] = image[..., None] if image.ndim == 2 else image
        if names:
            arrays[f"x{suffix}"] = x
            arrays[f"y{suffix}"] = np.searchsorted(classes["train"], [name[1] for name in names]).astype(np.int32)
    return arrays


def _decoded(where, encoded, side) -> np.ndarray:
    """An image `(height, width)` if it is grey, else `(height, width, 3)`."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded), formats=FORMATS) as header:
            if header.width * header.height > IMAGE_PIXELS:
                raise StudyError(
                    f"{where} has {header.width}×{header.height} pixels: expected {IMAGE_PIXELS} at most. Make it "
                    f"smaller, or take it out"
                )
            if header.mode.startswith(("I", "F")):
                raise StudyError(f"{where} has more than 8 bits a channel: save it with 8, or give arrays (data=npz)")
            image = header.convert("L" if header.mode in GREY else "RGB")
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR) if side else image)
    except StudyError:
        raise
    except Exception as error:  # a decoder may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            f"{where} cannot be decoded ({reason}): expected an image as {listed(FORMATS)}. Mend it, or take it out"
        ) from error


def _files(path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the images; other files are passed over, and what no image folder has is refused."""
    seen, total = set(), 0
    try:
        for member, kind, size, read_member in _members(path):
            parts = PurePosixPath(member).parts
            name = "/".join(parts)
            total += size
            fault = None
            if member.startswith("/") or ".." in parts:
                fault = "has a path that leads out of the archive"
            elif kind not in ("file", "folder"):
                fault = f"is a {kind}"
            elif not 0 <= size <= MEMBER_BYTES:
                fault = f"is said to have {size} bytes, and {MEMBER_BYTES} are allowed"
            elif total > TOTAL_BYTES:
                fault = f"makes it more than {TOTAL_BYTES} bytes, which are allowed"
            elif kind == "file" and _is_image(parts):
                if len(parts) != 3:
                    fault = "is deeper than train/CLASS/FILE"
                elif name in seen:
                    fault = "is there twice"
            if fault:
                raise StudyError(f"{path}: {member!r} {fault}: {LAYOUT}, and no links. Take it out")
            if kind == "file" and _is_image(parts):
                seen.add(name)
                yield name, read_member()
    except (
        OSError, EOFError, ValueError, KeyError, RuntimeError, OverflowError, tarfile.TarError, zipfile.BadZipFile,
        lzma.LZMAError, zlib.error,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            f"{path} cannot be read ({reason}). Give a folder or an archive that is whole: {listed(ARCHIVES)}"
        ) from error


def _is_image(parts) -> bool:
    return len(parts) > 2 and parts[0] in ("train", "test") and not any(part.startswith(".") for part in parts)


def _members(path) -> Iterator[tuple]:
    """Name, kind, size and a function that reads it, for each member."""
    if path.is_dir():
        return _of_folder(path)
    if path.name.lower().endswith(".zip"):
        return _of_zip(path)
    return _of_tar(path, next(open_ for end, open_ in STREAMS.items() if path.name.lower().endswith(end)))


def _of_folder(path):
    for file in sorted(file for part in ("train", "test") for file in path.glob(f"{part}/*/**/*")):
        if not file.is_dir():
            kind = "file" if file.is_file() else "device"
            yield file.relative_to(path).as_posix(), kind, file.stat().st_size, file.read_bytes


def _of_tar(path, open_stream):
    kinds = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}
    with open_stream(path, "rb") as stream:
        bounded = _Bounded(stream)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for member in archive:
                kind = "folder" if member.isdir() else "file" if member.isreg() else kinds.get(member.type, "device")
                yield member.name, kind, member.size, partial(_extracted, archive, member)
        if len(bounded.last) != tarfile.BLOCKSIZE or bounded.last.strip(b"\0"):  # tarfile takes it for the end
            raise tarfile.ReadError("it is cut off, or damaged")
        while bounded.read(2**20):  # the checksum comes at the end
            pass


def _extracted(archive, member) -> bytes:
    with archive.extractfile(member) as file:
        return file.read()


def _of_zip(path):
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            kind = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symbolic link"}.get(
                stat.S_IFMT(member.external_attr >> 16), "device"
            )
            yield (
                member.filename, "folder" if member.is_dir() else kind, member.file_size, partial(archive.read, member)
            )  # fmt: skip


class _Bounded:
    """A stream that gives no more than an image folder may have: a small archive can claim, and unpack to, anything."""

    def __init__(self, stream):
        self.stream, self.last = stream, b""

    def read(self, size):
        if not 0 <= size <= MEMBER_BYTES or self.stream.tell() > TOTAL_BYTES:
            raise tarfile.ReadError(f"it unpacks to more than {TOTAL_BYTES} bytes, or says so")
        self.last = self.stream.read(size)
        return self.last

    def seek(self, place):
        return self.stream.seek(place)

    def tell(self):
        return self.stream.tell()


@lru_cache(maxsize=8)
def _file_hash(path: Path, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=8)
def _folder_hash(path: Path) -> str:
    """Of names and contents; once a process, since a study asks for every arm."""
    every = hashlib.sha256()
    for name, encoded in _files(path):
        every.update(f"{name}\0{hashlib.sha256(encoded).hexdigest()}\0".encode(errors="surrogateescape"))
    return every.hexdigest()
