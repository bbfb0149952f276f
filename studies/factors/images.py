"""Image folders as arrays: `train/CLASS/FILE`, `val/CLASS/FILE`, `test/CLASS/FILE`, in a folder or in an archive.

One folder may be around them; `CLASS/FILE` alone is for training.

An archive is read from its stream in memory and never unpacked, and nothing that it says of itself is believed.
"""

import gzip
import hashlib
import io
import lzma
import math
import os
import stat
import tarfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from studies.record import StudyError, listed, plain

MEMBER_BYTES = 64 * 2**20
"""The largest file that is read."""

IMAGE_PIXELS = 4096 * 4096
"""The largest image that is decoded."""

TOTAL_BYTES = 4 * 2**30
"""As much is read of an archive, and as much decoded, at most."""

MOST_FILES = 1_000_000
"""So many files and folders are gone through at most: an archive of a megabyte can have millions of empty ones."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow knows others, some of which start programs, such as PostScript's."""

GREY = ("1", "L", "LA")
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What each part of a dataset may be called, in letters of any case."""

ORIENTATIONS: dict[int | None, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by EXIF's tag of its orientation (CIPA DC-008, 4.6.4)."""

PASSED_OVER = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"),
    *("$recycle.bin", "system volume information", "lost+found"),
)
"""What systems leave among users' files, besides names that begin with a dot."""

DEPTH = 8
"""So many folders deep is looked for images: links may make circles."""

NAMED = 6
"""So many files that are not used are called by their names."""

UNREADABLE = 20
"""And so many images that cannot be decoded, since they are to be mended."""

LAYOUT = "expected images as train/CLASS/FILE and, if there are such sets, val/CLASS/FILE and test/CLASS/FILE"
STREAMS = {".tar": open, ".tar.gz": gzip.open, ".tar.xz": lzma.open}
ARCHIVES = (*STREAMS, ".zip")


@dataclass(frozen=True)
class _Layout:
    """Images are below `prefix`, as PART/CLASS/FILE or, if it is flat, as CLASS/FILE, all of them to train on."""

    prefix: tuple[str, ...] = ()
    flat: bool = False

    def place(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """A file's part, class and name, and more if it is too deep; None if it is no image."""
        below = parts[len(self.prefix) :]
        if parts[: len(self.prefix)] != self.prefix or not below:
            return None
        part, inside = ("train", below) if self.flat else (PARTS.get(below[0].lower()), below[1:])
        return (part, *inside) if part and len(inside) > 1 else None


def content(path: Path) -> str:
    """The SHA-256 of an archive, or of a folder's images and their names.

    Raises:
        StudyError: something cannot be read.
    """
    try:
        return _folder_hash(path.resolve()) if path.is_dir() else _file_hash(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}): make it readable, or name another file") from error


def left_out(path: Path) -> list[str]:
    """What is said of a folder's files that are not used: one line, or none."""
    names = []
    for _ in _pass(path, _Layout(), names):
        pass
    return _said(names, _layout(path, names))


class Undecodable(StudyError):
    """One image that no decoder takes: says why."""


def read(path: Path, side: int | None, resize: str = "stretch", unreadable: str = "refuse") -> dict[str, np.ndarray]:
    """A folder's or an archive's images, sorted by name; a class's label is its place among the sorted classes.

    They are upright, as their EXIF orientation has it.

    Args:
        side: resize every image to a square of so many pixels; None: all have one size.
        resize: how, see `square`.
        unreadable: `refuse` images that cannot be decoded, or `skip` them.

    Returns:
        `x_train y_train` and, where there are such sets, `x_val y_val` and `x_test y_test`: images
        `(examples, height, width, channels)`, uint8, of one channel if all of them are grey; `hashes` `(examples,)`,
        uint64, of the files, in this order; `classes`, their names; `unreadable`, the images skipped, and why; `notes`,
        what is to be said of the images; `left_out`, of other files.

    Raises:
        StudyError: an archive that is hostile or damaged, or images that cannot be used.
    """
    if side and side**2 > IMAGE_PIXELS:
        raise StudyError(f"data.image_size={side}: expected {math.isqrt(IMAGE_PIXELS)} at most")
    found, hashes, names, transparent, first, total = {}, {}, [], [], None, 0
    skipped: dict[tuple, str] = {}
    for place, name, encoded in _files(path, names):
        try:
            image, is_transparent = _decoded(f"{name!r} in {path}", encoded, side, resize)
        except Undecodable as reason:
            skipped[place] = f"{name!r} ({reason})".encode("utf-8", "backslashreplace").decode()
            continue
        transparent += [name] * is_transparent
        first = first or (name, image.shape[:2])
        if image.shape[:2] != first[1]:
            sizes = ["×".join(map(str, size)) for size in (image.shape[:2], first[1])]
            raise StudyError(
                f"{name!r} in {path} has {sizes[0]} pixels and {first[0]!r} {sizes[1]}: expected all of one size. "
                f"Have them made squares with data.image_size=PIXELS, such as 32; data.resize=pad, or crop, then keeps "
                f"what is on them in proportion"
            )
        total += image.nbytes
        if total > TOTAL_BYTES:
            raise StudyError(
                f"{path} holds more than {TOTAL_BYTES} bytes of pixels: expected so many at most. Leave images out, or "
                f"make them smaller with data.image_size=PIXELS"
            )
        found[place], hashes[place] = image, _hash(encoded)
    listed_so = [skipped[place] for place in sorted(skipped)]
    if skipped:
        _check_skipped(path, skipped, found, unreadable)
    arrays = _stacked(path, found, hashes)
    notes = [f"{path}: {_undecoded(listed_so, len(hashes))}, and are left out"] * bool(skipped)
    notes += [
        f"{path}: the transparency of {len(transparent)} images is left out, such as that of {name!r}"
        for name in transparent[:1]
    ]
    return arrays | {
        "unreadable": np.array(listed_so, np.str_),
        "notes": np.array(notes, np.str_),
        "left_out": np.array(_said(names, _layout(path, names)), np.str_),
    }


def _check_skipped(path, skipped: dict[tuple, str], found, unreadable: str) -> None:
    """Refuse images that cannot be decoded, unless they are to be skipped and leave something of each class."""
    said = f"{path}: {_undecoded([skipped[place] for place in sorted(skipped)], len(found))}"
    remedy = f"expected images as {listed(FORMATS)}. Mend them, or take them out"
    if unreadable == "refuse":
        raise StudyError(f"{said}: {remedy}; data.unreadable=skip leaves them out, and notes it")
    if gone := sorted({place[:2] for place in skipped} - {place[:2] for place in found}):
        raise StudyError(f"{said}, which leaves nothing of {'/'.join(gone[0])}: {remedy}")


def _undecoded(said: list[str], others: int) -> str:
    more = f" and {len(said) - UNREADABLE} more" * (len(said) > UNREADABLE)
    return f"{len(said)} of {len(said) + others} images cannot be decoded, {', '.join(said[:UNREADABLE])}{more}"


def hashes(x: np.ndarray) -> np.ndarray:
    """A number of each image, `(examples,)` uint64, which its pixels decide and nothing else."""
    return np.array([_hash(image.tobytes()) for image in x], np.uint64)


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, person=b"test set").digest())


def _stacked(path, found, hashes) -> dict[str, np.ndarray]:
    """Images by their places as arrays of each part; `found` is emptied, since all may just fit into memory."""
    names = {part: sorted(place for place in found if place[0] == part) for part in ("train", "val", "test")}
    classes = {part: sorted({place[1] for place in places}) for part, places in names.items()}
    for part in ("val", "test"):
        if classes[part] and classes[part] != classes["train"]:
            alone = sorted(set(classes["train"]) ^ set(classes[part]))
            raise StudyError(f"{path} has {alone[0]!r} in train or in {part} alone: expected the same classes in both")
    channels = 1 if all(image.ndim == 2 for image in found.values()) else 3
    height, width = next(iter(found.values())).shape[:2]
    arrays = {"hashes": np.array([hashes[place] for places in names.values() for place in places], np.uint64)}
    arrays["classes"] = np.array(
        [plain(label.encode("utf-8", "backslashreplace").decode()) for label in classes["train"]]
    )
    for part, places in names.items():
        if not places:
            continue
        x = np.empty((len(places), height, width, channels), np.uint8)
        for index, place in enumerate(places):
            image = found.pop(place)
            x[index] = image[..., None] if image.ndim == 2 else image
        labels = {label: index for index, label in enumerate(classes["train"])}
        arrays[f"x_{part}"] = x
        arrays[f"y_{part}"] = np.array([labels[place[1]] for place in places], np.int32)
    return arrays


def square(image: Image.Image, side: int, resize: str) -> Image.Image:
    """An image as a square of `side` pixels, by bilinear interpolation.

    Args:
        resize: `stretch` it to one; `crop` the largest square in its middle and scale that; or scale it until its
            longer side fits and `pad` the other with zeros on both sides, one more after it if they are odd.
    """
    if resize == "crop":
        part = min(image.size)
        left, upper = ((length - part) // 2 for length in image.size)
        image = image.crop((left, upper, left + part, upper + part))
    if resize != "pad":
        return image.resize((side, side), Image.Resampling.BILINEAR)
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    padded = Image.new(image.mode, (side, side))
    padded.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((side - width) // 2, (side - height) // 2))
    return padded


def _decoded(where, encoded, side, resize) -> tuple[np.ndarray, bool]:
    """An image `(height, width)` if it is grey, else `(height, width, 3)`; and whether some of it is transparent."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded), formats=FORMATS) as header:
            if header.width * header.height > IMAGE_PIXELS:
                raise StudyError(
                    f"{where} has {header.width}×{header.height} pixels: expected {IMAGE_PIXELS} at most. Make it "
                    f"smaller, or take it out"
                )
            if _is_deep(header):
                raise StudyError(f"{where} has more than 8 bits a channel: save it with 8, or give arrays (data=npz)")
            frames = getattr(header, "n_frames", 1) if header.format in ("GIF", "PNG", "TIFF", "WEBP") else 1
            if frames > 1:
                raise StudyError(f"{where} has {frames} frames: expected one. Save one of them, or take it out")
            image = header.convert("L" if header.mode in GREY else "RGB")
            transparent = header.has_transparency_data and bool(np.asarray(header.convert("RGBA"))[..., 3].min() < 255)
            orientation = ORIENTATIONS.get(_orientation(header))
        image = image if orientation is None else image.transpose(orientation)
        return np.asarray(square(image, side, resize) if side else image), transparent
    except StudyError:
        raise
    except Exception as error:  # a decoder may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = "no image" if isinstance(error, UnidentifiedImageError) else reason
        raise Undecodable(reason) from error


def _is_deep(header) -> bool:
    """Whether an image has more than 8 bits a channel; Pillow cuts those of colours to 8 when it decodes them."""
    if header.mode.startswith(("I", "F")):
        return True
    arguments = [name for tile in header.tile for name in (tile[3] if isinstance(tile[3], tuple) else [tile[3]])]
    if header.format == "PPM":  # the largest value
        return any(isinstance(argument, int) and argument > 255 for argument in arguments)
    # Pillow's names, such as RGB;16B; a BMP's BGR;16 is 5 or 6 bits a channel.
    return header.format != "BMP" and any(isinstance(name, str) and ";16" in name for name in arguments)


def _orientation(header) -> int | None:
    """EXIF's, after decoding: a TIFF is then upright, and has none any more."""
    try:
        return header.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF that is damaged says nothing
        return None


def _files(path, names: list) -> Iterator[tuple[tuple[str, str, str], str, bytes]]:
    """Each image's place, name and content; the parts of all files' names are added to `names`."""
    yield from _pass(path, _Layout(), names, read=True)
    layout = _layout(path, names)
    if layout != _Layout():  # then there was no image in this pass
        yield from _pass(path, layout, [], read=True)


def _pass(path, layout, names, read=False) -> Iterator[tuple[tuple[str, str, str], str, bytes]]:
    """As `_files`, for one layout, without contents unless they are read; what no image folder has is refused."""
    seen, total = set(), 0
    try:
        for number, (member, kind, size, read_member) in enumerate(_members(path), start=1):
            if number > MOST_FILES:
                raise StudyError(f"{path} has more than {MOST_FILES:,} files: expected so many at most. Leave some out")
            parts = PurePosixPath(member).parts
            place = None
            if kind != "folder" and not _is_passed_over(parts):
                names.append(parts)
                place = layout.place(parts)
            if place is None and path.is_dir():  # it is not read, and need not be
                continue
            total += size
            fault = None
            if member.startswith("/") or ".." in parts:
                fault = "has a path that leads out of the archive"
            elif place and len(place) != 3:
                fault = f"is deeper than {'/'.join((*layout.prefix, *['train'] * (not layout.flat), 'CLASS/FILE'))}"
            elif kind not in ("file", "folder"):
                fault = f"is a {kind}"
            elif not 0 <= size <= MEMBER_BYTES:
                fault = f"is said to have {size} bytes, and {MEMBER_BYTES} are allowed"
            elif total > TOTAL_BYTES:
                fault = f"makes it more than {TOTAL_BYTES} bytes, which are allowed"
            elif place and place in seen:
                fault = "is there twice"
            if fault:
                remedy = "Move it into its class's folder, or take it out" if "deeper" in fault else "Take it out"
                raise StudyError(f"{path}: {member!r} {fault}: {LAYOUT}, and no links. {remedy}")
            if place:
                seen.add(place)
                yield place, "/".join(parts), read_member() if read else b""
    except (
        OSError, EOFError, ValueError, KeyError, RuntimeError, OverflowError, tarfile.TarError, zipfile.BadZipFile,
        lzma.LZMAError, zlib.error,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            f"{path} cannot be read ({reason}). Give a folder or an archive that is whole: {listed(ARCHIVES)}"
        ) from error


def _layout(path, names) -> _Layout:
    """Where the images are among files of such names."""
    tops = {name[0] for name in names if len(name) > 1}
    around = [tuple(tops)] if len(tops) == 1 and not tops & PARTS.keys() else []
    for prefix in ((), *around):
        below = [name[len(prefix) :] for name in names if name[: len(prefix)] == prefix]
        parts = {}
        for folder in sorted({name[0] for name in below if len(name) > 2 and name[0].lower() in PARTS}):
            if (twin := parts.setdefault(PARTS[folder.lower()], folder)) != folder:
                raise StudyError(f"{path} has {twin!r} and {folder!r}: expected one of these. Join them")
        if "train" in parts:
            return _Layout(prefix)
        if not parts and len({name[0] for name in below if len(name) == 2 and name[0].lower() not in PARTS}) > 1:
            return _Layout(prefix, flat=True)
    raise StudyError(f"{path} has no images in train/CLASS/: {LAYOUT}; or CLASS/FILE alone, of two classes or more")


def _said(names, layout) -> list[str]:
    """One line of the files that are no images by their place, folders of them as one; none if there are none."""
    strays = Counter()
    for name in names:
        if layout.place(name) is None:
            inside = layout.prefix and name[: len(layout.prefix)] == layout.prefix
            top = name[: 1 + len(layout.prefix) * bool(inside)]
            known = top[-1].lower() in PARTS or len(name) == len(top)
            strays["/".join(name) if known else f"{'/'.join(top)}/"] += 1
    shown = [f"{name} ({count} files)" if name.endswith("/") else name for name, count in sorted(strays.items())]
    shown[NAMED:] = [f"{len(shown) - NAMED} more"] * (len(shown) > NAMED)
    line = ", ".join(shown).encode("utf-8", "backslashreplace").decode()
    where = "CLASS/" if layout.flat else "train/CLASS/, val/CLASS/ or test/CLASS/"
    return [f"not used, since it is not in {where}: {line}"] * bool(line)


def _is_passed_over(parts) -> bool:
    return any((part.startswith(".") and part != "..") or part.lower() in PASSED_OVER for part in parts)


def _members(path) -> Iterator[tuple]:
    """Name, kind, size and a function that reads it, for each member."""
    if path.is_dir():
        return _of_folder(path)
    if path.name.lower().endswith(".zip"):
        return _of_zip(path)
    return _of_tar(path, next(open_ for end, open_ in STREAMS.items() if path.name.lower().endswith(end)))


def _of_folder(path):
    def fail(error):
        raise error

    for folder, folders, files in os.walk(path, onerror=fail, followlinks=True):
        folders[:] = sorted(name for name in folders if not _is_passed_over((name,)))
        where = Path(folder).relative_to(path)
        if len(where.parts) >= DEPTH:
            files, folders[:] = [*files, *folders], []
        for name in sorted(files):
            file = Path(folder, name)
            there = file.is_file()
            kind = "file" if there else "link to nothing" if file.is_symlink() and not file.exists() else "device"
            yield (where / name).as_posix(), kind, file.stat().st_size if there else 0, file.read_bytes


def _of_tar(path, open_stream):
    kinds = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}
    with open_stream(path, "rb") as stream:
        bounded: Any = _Bounded(stream)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for member in archive:
                kind = "folder" if member.isdir() else "file" if member.isreg() else kinds.get(member.type, "device")
                yield member.name, kind, member.size, partial(_extracted, archive, member)
                archive.members.clear()  # type: ignore[attr-defined]  # all that have been read, else
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

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MEMBER_BYTES or self.stream.tell() > TOTAL_BYTES:
            raise tarfile.ReadError(f"it unpacks to more than {TOTAL_BYTES} bytes, or says so")
        self.last = self.stream.read(size)
        return self.last

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.stream.tell()


@lru_cache(maxsize=8)
def _file_hash(path: Path, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=8)
def _folder_hash(path: Path) -> str:
    """Of names and contents; once a process, since a study asks for every arm."""
    every = hashlib.sha256()
    for place, digest in sorted((place, hashlib.sha256(encoded).hexdigest()) for place, _, encoded in _files(path, [])):
        every.update(f"{'/'.join(place)}\0{digest}\0".encode(errors="surrogateescape"))
    return every.hexdigest()
