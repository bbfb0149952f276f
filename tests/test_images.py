import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studies import images
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
    assert arrays.keys() == {"x", "y"} and arrays["x"].shape == (12, 5, 4, 1)


def test_other_files_are_passed_over(folder, archive):
    files = encoded(GREY)
    strays = (
        "README",
        "train/list.txt",
        ".DS_Store",
        "train/dog/.DS_Store",
        "train/.git/0.png",
        "val/dog/x",
        "a/b/c/d",
    )
    both = dict.fromkeys(strays, b"no image") | files
    for path in (folder(both), *(archive(both, end) for end in ENDS)):
        assert_same(images.read(path, None), images.read(folder(files), None))


def test_images_are_resized_to_squares(folder):
    plain = {name: np.full(RNG.integers(2, 30, 2), 9 * place, np.uint8) for place, name in enumerate(GREY)}
    arrays = images.read(folder(encoded(plain)), 6)
    assert arrays["x_train"].shape == (12, 6, 6, 1)
    assert (arrays["x_train"] == arrays["x_train"][:, :1, :1]).all() and len(np.unique(arrays["x_train"])) == 12


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


@pytest.mark.parametrize("form", ["TGA", "PCX"])
def test_a_format_that_is_not_listed_is_not_tried(folder, form):
    refused(folder({"train/dog/0.png": png(GREY["train/dog/0.png"], form)}), "cannot be decoded")


def test_sixteen_bits_are_refused_rather_than_cut_off(folder):
    deep = RNG.integers(0, 2**16, (5, 4)).astype(np.uint16)
    refused(folder(encoded(GREY | {"train/dog/1.png": deep})), "'train/dog/1.png'", "8 bits", "data=npz")


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


@pytest.mark.parametrize("names", [[], ["0.png"], ["images/train/dog/0.png"], ["test/dog/0.png"], ["train/0.png"]])
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
    path = folder({"train/dog/0.png": b""})
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
            refused(path, "cannot be")  # read or decoded


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
