import gzip
import io
import lzma
import multiprocessing
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studies.factors import images
from studies.record import StudyError

RNG = np.random.default_rng(0)
GREY = {
    f"{part}/{label}/{number}.png": RNG.integers(0, 256, (5, 4), np.uint8)
    for part, count in (("test", 2), ("train", 4))
    for label in ("dog", "Zebra", "änder")
    for number in range(count)
}
COLOUR = {name: RNG.integers(0, 256, (5, 4, 3), np.uint8) for name in GREY}
ENDS = (".tar", ".tar.gz", ".tar.xz", ".zip")


def png(pixels, form="PNG", **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **settings)
    return file.getvalue()


def encoded(pictures) -> dict[str, bytes]:
    return {name: png(pixels) for name, pixels in pictures.items()}


def tar_member(name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def tar_of(members) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zip_of(members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A function from names and contents to an image folder, a new one each time."""
    made = []

    def make(files):
        made.append(tmp_path / f"folder{len(made)}")
        made[-1].mkdir()
        for name, content in files.items():
            file = made[-1] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return made[-1]

    return make


@pytest.fixture
def archive(tmp_path):
    """A function from names and contents, and a name's end, to an archive; its members are in the given order."""

    def make(files, end):
        path = tmp_path / f"images{end}"
        if end == ".zip":
            path.write_bytes(zip_of(files.items()))
        else:
            compress = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}[end]
            path.write_bytes(compress(tar_of(tar_member(*file) for file in files.items())))
        return path

    return make


def assert_same(arrays, others):
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype
        np.testing.assert_array_equal(array, others[name])


def test_a_class_is_its_place_among_the_sorted_names(folder):
    arrays = images.read(folder(encoded(GREY)), None)
    assert arrays["y_train"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert arrays["y_test"].tolist() == [0, 0, 1, 1, 2, 2]
    for label, name in enumerate(("Zebra", "dog", "änder")):
        for number in range(4):
            pixels = arrays["x_train"][4 * label + number]
            np.testing.assert_array_equal(pixels[..., 0], GREY[f"train/{name}/{number}.png"])


@pytest.mark.parametrize("end", ENDS)
def test_an_archive_is_read_as_its_folder_to_the_bit(folder, archive, end):
    files = encoded(COLOUR)
    wanted = images.read(folder(files), None)
    assert wanted["x_train"].shape == (12, 5, 4, 3)
    assert_same(images.read(archive(dict(reversed(files.items())), end), None), wanted)
    dotted = {f"./{name}": content for name, content in files.items()}
    assert_same(images.read(archive(dotted, end), None), wanted)


def test_grey_images_have_one_channel_unless_one_is_coloured(folder):
    assert images.read(folder(encoded(GREY)), None)["x_train"].shape == (12, 5, 4, 1)
    name = "test/dog/0.png"
    arrays = images.read(folder(encoded(GREY | {name: COLOUR[name]})), None)
    assert arrays["x_train"].shape == (12, 5, 4, 3)
    np.testing.assert_array_equal(arrays["x_train"].std(axis=-1), 0)
    np.testing.assert_array_equal(arrays["x_test"][2], COLOUR[name])


def test_without_a_test_set_there_is_one_pool(folder):
    arrays = images.read(folder(encoded({n: p for n, p in GREY.items() if n.startswith("train")})), None)
    assert {name for name in arrays if name[0] in "xy"} == {"x_train", "y_train"}
    assert arrays["x_train"].shape == (12, 5, 4, 1)


JUNK = (
    *(".DS_Store", "Thumbs.db", "train/dog/.DS_Store", "train/dog/Thumbs.db", "train/dog/desktop.ini"),
    *("test/Zebra/THUMBS.DB", "train/.git/0.png", "__MACOSX/train/dog/._0.png", "train/@eaDir/0.png"),
    *("train/dog/.ipynb_checkpoints/0.png", "__MACOSX/train/dog/0.png"),
)


def test_what_systems_leave_is_passed_over_without_a_word(folder, archive):
    files = encoded(GREY)
    both = dict.fromkeys(JUNK, b"no image") | files
    for path in (folder(both), *(archive(both, end) for end in ENDS)):
        assert_same(images.read(path, None), images.read(folder(files), None))
        assert images.read(path, None)["left_out"].tolist() == []


def test_other_files_are_not_used_and_said_to_be(folder, archive):
    files = encoded(GREY)
    strays = ("README", "train/list.txt", "extra/dog/0.png", "extra/1.png", "a/b/c/d")
    both = dict.fromkeys(strays, b"no image") | files
    for path in (folder(both), *(archive(both, end) for end in ENDS)):
        arrays = images.read(path, None)
        [line] = arrays.pop("left_out")
        assert line.endswith(": README, a/ (1 files), extra/ (2 files), train/list.txt")
        assert_same(arrays, {n: a for n, a in images.read(folder(files), None).items() if n != "left_out"})
    assert images.left_out(folder(both)) == [line]
    assert images.left_out(folder(files)) == []
    many = images.left_out(folder({f"{place}.txt": b"" for place in range(20)} | files))
    assert many[0].endswith("12.txt, 13.txt, 14 more") and "15.txt" not in many[0]


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_a_validation_set_is_read(folder, archive, name):
    extra = {n.replace("test", name): p for n, p in encoded(COLOUR).items() if n.startswith("test")}
    for path in (folder(encoded(COLOUR) | extra), archive(encoded(COLOUR) | extra, ".tar.gz")):
        arrays = images.read(path, None)
        np.testing.assert_array_equal(arrays["x_val"], arrays["x_test"])
        assert arrays["y_val"].tolist() == [0, 0, 1, 1, 2, 2] and arrays["left_out"].tolist() == []
        assert arrays["hashes"][12:18].tolist() == arrays["hashes"][18:].tolist()
    refused(folder(encoded(GREY) | {f"{name}/dog/0.png": png(GREY["train/dog/0.png"])}), "in train or in val alone")
    twins = {name: png(COLOUR["train/dog/0.png"]) for name in ("val/dog/8.png", "VAL/dog/9.png")}
    refused(folder(encoded(COLOUR) | twins), "'VAL' and 'val'", "expected one of these")


@pytest.mark.parametrize("end", ["", *ENDS])
@pytest.mark.parametrize("around", ["", "my images/"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_around_and_classes_alone_are_understood(folder, archive, end, around, flat):
    wanted = {n: p for n, p in encoded(COLOUR).items() if not flat or n.startswith("train")}
    files = {around + (n.removeprefix("train/") if flat else n): p for n, p in wanted.items()}
    path = archive(files | {"README": b""}, end) if end else folder(files | {"README": b""})
    arrays = images.read(path, None)
    [line] = arrays.pop("left_out")
    assert line.endswith(": README")
    assert_same(arrays, {n: a for n, a in images.read(folder(wanted), None).items() if n != "left_out"})
    if not end:
        assert images.content(path) == images.content(folder(wanted))
        assert images.left_out(path) == [line]
    deep = dict(files) | {f"{around}{'' if flat else 'train/'}dog/more/0.png": b""}
    refused(archive(deep, end) if end else folder(deep), f"deeper than {around}{'' if flat else 'train/'}CLASS/FILE")


def test_links_to_folders_are_followed_and_circles_end(folder):
    path, elsewhere = folder(encoded(GREY)), folder({"dogs/9.png": png(GREY["train/dog/0.png"])})
    (path / "loop").symlink_to(path)
    assert images.read(path, None)["x_train"].shape[0] == 12
    (path / "train" / "änder2").symlink_to(elsewhere / "dogs")
    (path / "test" / "änder2").symlink_to(elsewhere / "dogs")
    assert images.read(path, None)["x_train"].shape[0] == 13
    (path / "train" / "dog" / "self").symlink_to("..")
    refused(path, "deeper than train/CLASS/FILE")
    (path / "train" / "dog" / "self").unlink()
    (path / "train" / "dog" / "gone.png").symlink_to("nowhere")
    refused(path, "'train/dog/gone.png' is a link to nothing")


def test_names_that_are_no_utf_8_are_read_and_said(folder):
    strange = b"train/\xe4nder\xff/0.png".decode(errors="surrogateescape")
    files = {n: p for n, p in encoded(GREY).items() if n.startswith("train")}
    path = folder(files | {strange: png(GREY["train/dog/0.png"]), strange[6:]: b""})
    arrays = images.read(path, None)
    assert len(arrays["x_train"]) == 13 and images.content(path)
    [line] = arrays["left_out"].tolist()
    assert r"\udce4nder\udcff/ (1 files)" in line and line.encode()


def as_nobody(answers, path):
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        images.content(path)
    except StudyError as error:
        answers.put(str(error))


@pytest.mark.parametrize("name", ["train/dog", "train/dog/0.png", "."])
def test_what_may_not_be_read_is_refused_and_not_left_out(name):
    with tempfile.TemporaryDirectory() as top:  # pytest's own folder is its user's alone
        os.chmod(top, 0o755)
        for file, content in encoded(GREY).items():
            (Path(top) / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(top) / "images" / file).write_bytes(content)
        (Path(top) / "images" / name).chmod(0)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        process = context.Process(target=as_nobody, args=(answers, Path(top) / "images"))
        process.start()
        answer = answers.get(timeout=30)
        process.join(30)
        (Path(top) / "images" / name).chmod(0o755)
    assert "cannot be read" in answer and "Permission denied" in answer


def upright(orientation):
    """Pixels as a camera stores what is upright as `SIGHT`, by the words of EXIF: which side row 0 and column 0 are."""
    row, column = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    stored = SIGHT
    if "right" in (row, column):
        stored = stored[:, ::-1]
    if "bottom" in (row, column):
        stored = stored[::-1]
    return stored if row in ("top", "bottom") else np.swapaxes(stored, 0, 1)


SIGHT = np.kron(RNG.integers(0, 256, (2, 3, 1), np.uint8), np.ones((8, 8, 3), np.uint8))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(folder, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(form, {})
    content = png(np.ascontiguousarray(upright(orientation)), form, exif=exif, **settings)
    got = images.read(folder({"train/a/0": content, "train/b/0": png(SIGHT)}), None)["x_train"]
    np.testing.assert_allclose(got[0].astype(int), got[1], atol=3 if form == "JPEG" else 0)


def test_damaged_exif_says_nothing(folder):
    content = png(SIGHT, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(7), quality=100)
    assert images.read(folder({"train/a/0": content, "train/b/0": content}), None)["x_train"].shape[1:] == SIGHT.shape


def test_transparency_is_left_out_and_said_to_be(folder):
    files = {n: png(np.dstack([p, np.full((5, 4), 255, np.uint8)])) for n, p in COLOUR.items()}
    assert images.read(folder(files), None)["notes"].tolist() == []
    files["train/dog/1.png"] = png(np.dstack([COLOUR["train/dog/1.png"], np.arange(20, dtype=np.uint8).reshape(5, 4)]))
    arrays = images.read(folder(files), None)
    assert "transparency of 1 images" in arrays["notes"][0] and "'train/dog/1.png'" in arrays["notes"][0]
    np.testing.assert_array_equal(arrays["x_train"], images.read(folder(encoded(COLOUR)), None)["x_train"])


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_several_frames_are_refused(folder, form):
    frames = [Image.fromarray(pixels) for pixels in list(COLOUR.values())[:3]]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    refused(folder({"train/dog/0": file.getvalue()}), "'train/dog/0'", "has 3 frames")


def test_an_image_size_beyond_all_bounds_is_refused(folder):
    refused_size = images.IMAGE_PIXELS**0.5 + 1
    with pytest.raises(StudyError, match=r"data.image_size=4097: expected 4096 at most"):
        images.read(folder(encoded(GREY)), int(refused_size))


def test_images_are_resized_to_squares(folder):
    plain = {name: np.full(RNG.integers(2, 30, 2), 9 * place, np.uint8) for place, name in enumerate(GREY)}
    arrays = images.read(folder(encoded(plain)), 6)
    assert arrays["x_train"].shape == (12, 6, 6, 1)
    assert (arrays["x_train"] == arrays["x_train"][:, :1, :1]).all() and len(np.unique(arrays["x_train"])) == 12


@pytest.mark.parametrize("turned", [False, True])
def test_a_square_keeps_proportions_by_padding_or_cropping(folder, turned):
    """Exact where scaling is: 12×5 pixels, of which each 2×2 block is alike, as a square of 6."""
    blocks = RNG.integers(0, 256, (12, 5), np.uint8)
    pixels = np.kron(blocks, np.ones((2, 2), np.uint8))  # 24 high, 10 wide
    turn = np.transpose if turned else np.asarray
    path = folder({f"train/{label}/0.png": png(turn(pixels)) for label in "ab"})

    def square(side, resize):
        return turn(images.read(path, side, resize)["x_train"][0, :, :, 0])

    def scaled(part, height, width):
        return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR))

    np.testing.assert_array_equal(square(24, "pad")[:, 7:17], pixels)
    assert not square(24, "pad")[:, :7].any() and not square(24, "pad")[:, 17:].any()
    if not turned:  # Pillow scales rows first, and rounds in between
        np.testing.assert_array_equal(square(12, "pad")[:, 3:8], scaled(pixels, 12, 5))
        np.testing.assert_array_equal(square(6, "stretch"), scaled(pixels, 6, 6))
    assert not square(12, "pad")[:, :3].any() and not square(12, "pad")[:, 8:].any()
    np.testing.assert_array_equal(square(10, "crop"), pixels[7:17])
    np.testing.assert_array_equal(square(5, "crop"), turn(scaled(turn(pixels[7:17]), 5, 5)))


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_what_is_square_is_resized_alike_and_what_is_a_line_leaves_something(folder, resize):
    picture = {
        "train/a/0.png": png(RNG.integers(0, 256, (9, 9, 3), np.uint8)),
        "train/b/0.png": png(COLOUR["test/dog/0.png"]),
    }
    first = images.read(folder(picture), 6)["x_train"][0]
    np.testing.assert_array_equal(images.read(folder(picture), 6, resize)["x_train"][0], first)
    line = np.full((1, 300), 200, np.uint8)
    found = images.read(folder({"train/a/0.png": png(line), "train/b/0.png": png(line)}), 4, resize)["x_train"]
    assert found.shape == (2, 4, 4, 1) and found.max() == 200
    assert (found == 200).sum() == (8 if resize == "pad" else 32)


@pytest.mark.parametrize("form", ["BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP"])
def test_other_formats_are_read(folder, form):
    settings = {"lossless": True} if form == "WEBP" else {}
    files = {name: png(pixels, form, **settings) for name, pixels in COLOUR.items()}
    got = images.read(folder(files), None)["x_train"]
    assert got.shape == (12, 5, 4, 3)
    if form not in ("JPEG", "GIF"):
        np.testing.assert_array_equal(got, images.read(folder(encoded(COLOUR)), None)["x_train"])


def refused(path, *words, side=None):
    with pytest.raises(StudyError) as error:
        images.read(path, side)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_the_first_image_of_another_size_is_named(folder):
    odd = {"train/dog/1.png": np.zeros((5, 6), np.uint8), "train/dog/2.png": np.zeros((7, 7), np.uint8)}
    refused(folder(encoded(GREY | odd)), "'train/dog/1.png'", "5×6", "5×4", "data.image_size=")


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", png(GREY["train/dog/0.png"])[:-30], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n"],
)
def test_what_is_no_image_is_named(folder, archive, content):
    files = encoded(GREY) | {"train/dog/x\n.png": content}
    refused(folder(files), r"'train/dog/x\n.png'", "cannot be decoded", "PNG")
    refused(archive(files, ".tar.xz"), r"'train/dog/x\n.png'", "cannot be decoded", "PNG")


@pytest.mark.parametrize("end", ["", ".tar.gz", ".zip"])
def test_images_that_cannot_be_decoded_are_listed_and_left_out_if_they_are_to_be(folder, archive, end):
    damaged = {
        "train/dog/x.png": b"",
        "train/dog/a.png": b"text",
        "test/Zebra/0.png": png(GREY["test/dog/0.png"])[:-30],
    }
    files = encoded(GREY) | damaged
    path = archive(files, end) if end else folder(files)
    refused(
        path,
        "3 of 20 images cannot be decoded, 'test/Zebra/0.png' (",
        "'train/dog/a.png' (no image), 'train/dog/x.png'",
    )
    arrays = images.read(path, None, unreadable="skip")
    whole = images.read(folder({name: content for name, content in files.items() if name not in damaged}), None)
    assert [line.partition(" ")[0] for line in arrays["unreadable"]] == [repr(name) for name in sorted(damaged)]
    [note] = arrays["notes"]
    assert "3 of 20 images cannot be decoded, 'test/Zebra/0.png' (" in note and note.endswith(", and are left out")
    said = ("notes", "unreadable")
    assert_same(*({n: a for n, a in each.items() if n not in said} for each in (arrays, whole)))
    assert whole["unreadable"].tolist() == []


def test_what_leaves_nothing_of_a_class_is_refused_and_many_are_counted(folder):
    files = encoded(GREY) | {name: b"" for name in GREY if "/dog/" in name}
    with pytest.raises(StudyError, match=r"6 of 18 images cannot .* which leaves nothing of test/dog: expected"):
        images.read(folder(files), None, unreadable="skip")
    many = encoded(GREY) | {f"train/dog/z{place:02}.png": b"" for place in range(25)}
    [note] = images.read(folder(many), None, unreadable="skip")["notes"]
    assert "25 of 43 images" in note and note.endswith("'train/dog/z19.png' (no image) and 5 more, and are left out")


@pytest.mark.parametrize("form", ["TGA", "PCX"])
def test_a_format_that_is_not_listed_is_not_tried(folder, form):
    refused(folder({"train/dog/0.png": png(GREY["train/dog/0.png"], form)}), "cannot be decoded")


def deep_png(channels) -> bytes:
    """12 bits of a scanner in 16, which Pillow cannot write in colour."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 4, 5, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = RNG.integers(0, 2**12, (5, 4 * channels)).astype(">u2")
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    """Like it, as a TIFF."""
    pixels = RNG.integers(0, 2**12, (5, 4, 3)).astype("<u2").tobytes()
    tags = [(256, 4), (257, 5), (258, None), (259, 1), (262, 2), (273, None), (277, 3), (278, 5), (279, len(pixels))]
    after = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, value in tags:
        count, value = (3, after) if tag == 258 else (1, after + 6 if tag == 273 else value)
        entries += struct.pack("<HHII", tag, 3 if tag == 258 else 4, count, value)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + b"\x10\0" * 3 + pixels


DEEP = {
    **{f"{channels} channels of PNG": deep_png(channels) for channels in (1, 2, 3, 4)},
    "grey TIFF": png(RNG.integers(0, 2**12, (5, 4)).astype(np.uint16), "TIFF"),
    "TIFF": deep_tiff(),
    "float TIFF": png(RNG.random((5, 4), np.float32), "TIFF"),
    "grey PGM": b"P5 4 5 4095\n" + bytes(40),
    "PPM": b"P6 4 5 4095\n" + bytes(120),
    "written PPM": b"P3 4 5 4095\n" + b"4000 " * 60,
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_eight_bits_are_refused_rather_than_cut_off(folder, kind):
    files = encoded(GREY) | {"train/dog/1.png": DEEP[kind]}
    with Image.open(io.BytesIO(DEEP[kind])) as image:
        image.load()  # it is an image that Pillow reads
    refused(folder(files), "'train/dog/1.png'", "8 bits", "data=npz")


def test_fewer_bits_are_read(folder):
    file = io.BytesIO()
    Image.fromarray(COLOUR["train/dog/0.png"]).quantize(4).save(file, "PNG", bits=2)
    five = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54 + 40, 0, 54, 40, 4, 5, 1, 16, 0, 40, 0, 0, 0, 0) + bytes(40)
    few = {"train/a/0": file.getvalue(), "train/a/1": b"P6 4 5 15\n" + b"\x0f" * 60, "train/b/0": five}
    arrays = images.read(folder(few), None)
    assert arrays["x_train"].shape == (3, 5, 4, 3) and (arrays["x_train"][1] == 255).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train/dog/a/0.png", ("deeper than train/CLASS/FILE",)),
        ("test/bird/0.png", ("'bird' in train or in test alone",)),
        ("train/bird/0.png", ("'bird' in train or in test alone",)),
    ],
)
def test_another_layout_is_refused(folder, archive, name, words):
    files = encoded(GREY | {name: GREY["train/dog/0.png"]})
    refused(folder(files), *words)
    refused(archive(files, ".zip"), *words)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["0.png"],
        ["a/b/train/dog/0.png"],
        ["test/dog/0.png"],
        ["train/0.png"],
        ["dog/0.png"],
        ["val/a/0", "val/b/0"],
    ],
)
def test_no_training_images_are_no_images(folder, archive, names):
    files = dict.fromkeys(["README", *names], png(GREY["train/dog/0.png"]))
    refused(folder(files), "no images in train/CLASS/", "train/CLASS/FILE")
    refused(archive(files, ".tar"), "no images in train/CLASS/")


TAR_FAULTS = {
    "absolute": (tar_member("/train/dog/9.png"), "leads out"),
    "parent": (tar_member("train/../../9.png"), "leads out"),
    "parent folder": (tar_member("..", type=tarfile.DIRTYPE), "leads out"),
    "symbolic link": (tar_member("train/dog/9.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "symbolic link"),
    "hard link": (tar_member("train/dog/9.png", type=tarfile.LNKTYPE, linkname="train/dog/0.png"), "hard link"),
    "link elsewhere": (tar_member("elsewhere", type=tarfile.SYMTYPE, linkname="/"), "symbolic link"),
    "device": (tar_member("train/dog/9.png", type=tarfile.CHRTYPE), "device"),
    "pipe": (tar_member("train/dog/9.png", type=tarfile.FIFOTYPE), "device"),
    "twice": (tar_member("train/dog/0.png"), "twice"),
    "twice with a dot": (tar_member("./train//dog/0.png"), "twice"),
}


@pytest.mark.parametrize("fault", TAR_FAULTS)
def test_a_hostile_tar_is_refused_by_the_name_of_its_member(tmp_path, fault):
    (member, content), word = TAR_FAULTS[fault]
    good = [tar_member(*file) for file in encoded(GREY).items()]
    path = tmp_path / "images.tar.xz"
    path.write_bytes(lzma.compress(tar_of([*good, (member, content)])))
    before = sorted(tmp_path.rglob("*"))
    refused(path, repr(member.name), word)
    assert sorted(tmp_path.rglob("*")) == before


def zip_member(name, mode=0):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


ZIP_FAULTS = {
    "absolute": (zip_member("/train/dog/9.png"), "leads out"),
    "parent": (zip_member("train/../../9.png"), "leads out"),
    "symbolic link": (zip_member("train/dog/9.png", 0o120777), "symbolic link"),
    "device": (zip_member("train/dog/9.png", 0o020666), "device"),
    "twice": (zip_member("./train/dog/0.png"), "twice"),
}


@pytest.mark.parametrize("fault", ZIP_FAULTS)
def test_a_hostile_zip_is_refused_by_the_name_of_its_member(tmp_path, fault):
    member, word = ZIP_FAULTS[fault]
    path = tmp_path / "images.zip"
    path.write_bytes(zip_of([*encoded(GREY).items(), (member, b"/etc/passwd")]))
    refused(path, repr(member.filename), word)


def huge_png(width, height) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(4097, 4096), (1, 2**24 + 1), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_a_huge_image_is_refused_before_it_is_decoded(folder, recwarn, monkeypatch, width, height):
    def decode(*_):
        raise AssertionError("decoded")

    path = folder({"train/dog/0.png": huge_png(width, height)})
    monkeypatch.setattr(Image.Image, "convert", decode)
    refused(path, "'train/dog/0.png'", "pixels", side=8)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["train/dog/9.png", "README", ".hidden"])
def test_a_member_that_is_too_long_is_refused_before_it_is_read(tmp_path, monkeypatch, name):
    member = tarfile.TarInfo(name)
    member.size = images.MEMBER_BYTES + 1
    path = tmp_path / "images.tar"
    path.write_bytes(member.tobuf() + bytes(2048))
    refused(path, repr(name), str(images.MEMBER_BYTES))

    path = tmp_path / "images.zip"
    path.write_bytes(zip_of([(name, bytes(images.MEMBER_BYTES + 1))]))
    assert path.stat().st_size < 2**18
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("read"))
    refused(path, repr(name), str(images.MEMBER_BYTES))


def test_a_folders_file_that_is_too_long_is_refused_before_it_is_read(folder):
    path = folder({"train/dog/0.png": b""} | {"model.h5": b""})
    for name in ("model.h5", "train/dog/0.png"):
        with open(path / name, "wb") as file:
            file.truncate(images.MEMBER_BYTES + 1)
    with open(path / "train/dog/0.png", "wb") as file:
        file.truncate(images.MEMBER_BYTES + 1)
    refused(path, "'train/dog/0.png'", str(images.MEMBER_BYTES))


@pytest.mark.parametrize("size", [-512, -1])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_with_a_negative_size_is_refused(tmp_path, kind, size):
    member = tarfile.TarInfo("README")
    member.type, member.size = kind, size
    path = tmp_path / "images.tar"
    good = tar_of([tar_member("train/dog/1.png", png(GREY["train/dog/0.png"]))])[:1024]
    path.write_bytes(good + member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(path, *[f"'README' is said to have {size} bytes"] * (kind == tarfile.REGTYPE))


def test_an_archive_of_folders_without_end_is_refused(tmp_path, monkeypatch):
    folders = tar_of(tar_member(f"f{place}", type=tarfile.DIRTYPE) for place in range(100))
    path = tmp_path / "images.tar.xz"
    path.write_bytes(lzma.compress(folders))
    refused(path, "no images")
    monkeypatch.setattr(images, "TOTAL_BYTES", 20_000)
    refused(path, "unpacks to more than 20000 bytes")


def test_a_header_that_claims_a_long_name_is_refused(tmp_path):
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**40
    path = tmp_path / "images.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(path, "unpacks to more than")


def test_more_pixels_and_more_bytes_than_allowed_are_refused(folder, archive, monkeypatch):
    files = encoded(GREY)
    pixels = sum(image.size for image in GREY.values())
    content = sum(map(len, files.values()))
    monkeypatch.setattr(images, "TOTAL_BYTES", max(pixels, content))
    images.read(folder(files), None)
    monkeypatch.setattr(images, "TOTAL_BYTES", content - 1)
    refused(folder(files), "allowed")
    refused(archive(files, ".zip"), "allowed")
    refused(archive(files, ".tar.gz"))
    monkeypatch.setattr(images, "TOTAL_BYTES", content)
    refused(folder(files), "bytes of pixels", "data.image_size", side=40)


@pytest.mark.parametrize("end", ENDS)
def test_a_file_of_something_else_is_refused(tmp_path, end):
    path = tmp_path / f"images{end}"
    for content in (b"", b"no archive", b"PK\x03\x04", bytes(4096), gzip.compress(b"text"), lzma.compress(b"text")):
        path.write_bytes(content)
        refused(path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of each kind of archive, where to write a damaged one, and what is in it."""
    path = tmp_path_factory.mktemp("damaged")
    files = encoded({name: pixels for name, pixels in COLOUR.items() if name.endswith("0.png")})
    tar = tar_of(tar_member(*file) for file in files.items())
    contents = dict(zip(ENDS, (tar, gzip.compress(tar), lzma.compress(tar), zip_of(files.items())), strict=True))
    (path / "images.tar").write_bytes(tar)
    return contents, path, images.read(path / "images.tar", None)


@given(st.sampled_from(ENDS), st.floats(0, 1, exclude_max=True))
def test_a_truncated_archive_is_refused_or_whole(good, end, share):
    contents, path, arrays = good
    path /= f"images{end}"
    path.write_bytes(contents[end][: int(share * len(contents[end]))])
    try:
        assert_same(images.read(path, None), arrays)  # a tar's last zeros may be missing
    except StudyError as error:
        assert str(path) in str(error)


def test_a_tar_that_ends_or_breaks_between_members_is_refused(good):
    contents, path, _ = good
    path, tar = path / "images.tar", contents[".tar"]
    for end in range(0, len(tar.rstrip(b"\0")), tarfile.BLOCKSIZE):
        for rest in (b"", b"x" * tarfile.BLOCKSIZE + bytes(1024)):
            path.write_bytes(tar[:end] + rest)
            with pytest.raises(StudyError, match=r"cannot be (read|decoded)|has no images in train/CLASS"):
                images.read(path, None)


@pytest.mark.parametrize("end", [".tar.gz", ".tar.xz"])
def test_a_wrong_checksum_is_refused(good, end):
    contents, path, _ = good
    content = bytearray(contents[end])
    content[-8] ^= 1
    (path / f"images{end}").write_bytes(content)
    refused(path / f"images{end}", "cannot be read")


@given(st.sampled_from(ENDS[1:]), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_damaged_byte_of_a_compressed_archive_is_refused_or_harmless(good, end, place, flip):
    contents, path, arrays = good
    content = bytearray(contents[end])
    content[int(place * len(content))] ^= flip
    path /= f"images{end}"
    path.write_bytes(content)
    try:
        assert_same(images.read(path, None), arrays)
    except StudyError as error:
        assert str(path) in str(error)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_damaged_byte_of_a_tar_never_raises_anything_else(good, place, flip):
    contents, path, _ = good
    content = bytearray(contents[".tar"])
    content[int(place * len(content))] ^= flip
    (path / "images.tar").write_bytes(content)
    try:
        images.read(path / "images.tar", None)
    except StudyError as error:
        assert str(path) in str(error)


def test_a_folder_is_identified_by_its_images_and_their_names(folder):
    files = encoded(GREY)
    first = images.content(folder(files))
    assert images.content(folder(files | {"README": b"new", ".hidden": b""})) == first
    name, other = "train/dog/0.png", "train/dog/1.png"
    renamed = {("train/dog/00.png" if n == name else n): content for n, content in files.items()}
    swapped = files | {name: files[other], other: files[name]}
    fewer = {n: content for n, content in files.items() if n != name}
    assert len({first, *(images.content(folder(changed)) for changed in (renamed, swapped, fewer))}) == 4


def test_what_cannot_be_found_has_no_content(tmp_path):
    with pytest.raises(StudyError, match="nowhere"):
        images.content(tmp_path / "nowhere.tar")
