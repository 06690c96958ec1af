"""Pictures of others: formats, sizes, orientation, colour modes; each is read right or refused in one line."""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.cli import fails
from helpers.places import ROOT
from xenomask import picture_files
from xenomask.datasets import open_dataset, read_label, read_photo
from xenomask.datasets.check import check
from xenomask.datasets.codings import Coding
from xenomask.datasets.read import decode, photo_size, read_stored
from xenomask.errors import XenomaskError
from xenomask.picture_files import is_picture, open_picture, read_header
from xenomask.pictures import save_picture, turned
from xenomask.predict.frames import open_source
from xenomask.train.cutouts import Cutout, list_cutouts

SOURCE = ROOT / "src" / "xenomask"
SCENE = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 255, (40, 64, 3), np.uint8), (0, 0), 2)


def oriented(path: Path, pixels: np.ndarray, orientation: int, **options) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


def test_source__pictures_are_opened_in_one_place_only():
    opens = re.compile(r"Image\.open\(|\bimread\w*\(|\bimdecode\w*\(|\bimreadmulti\(")
    found = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if opens.search(p.read_text())}
    assert found == {"picture_files.py"}


# --- formats ---


@pytest.mark.parametrize(
    ("name", "kind", "near"),
    [("a.avif", "AVIF", 12), ("a.jfif", "JPEG", 40), ("a.gif", "GIF", 60), ("a.webp", "WEBP", 40), ("a.tif", "TIFF", 0),
     ("a.bmp", "BMP", 0), ("a", "PNG", 0), ("a.txt", "PNG", 0), ("a.dat", "AVIF", 12), ("a.jpg", "PNG", 0)],
)  # fmt: skip
def test_read_photo__by_content_whatever_the_name(tmp_path, name, kind, near):
    Image.fromarray(SCENE).save(tmp_path / name, format=kind)
    assert is_picture(tmp_path / name)
    assert np.abs(read_photo(tmp_path / name).astype(int) - SCENE).max() <= near
    assert photo_size(tmp_path / name) == (40, 64)


def test_read_photo__the_first_of_several_frames(tmp_path):
    frames = [Image.new("RGB", (20, 20), c) for c in ("red", "lime")]
    for name in ("a.gif", "a.webp", "a.tif", "a.png"):
        options: dict = {"lossless": True} if "webp" in name else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert read_photo(tmp_path / name)[5, 5].tolist() == [255, 0, 0]


def test_read_photo__a_program_is_not_run(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n{} loop\n")
    start = time.monotonic()
    with pytest.raises(XenomaskError, match="x.png is not an image"):
        read_photo(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["PPM", "TGA", "SGI", "EPS", "PCX", "ICO", "PDF", "MSP", "IM", "DDS", "QOI", "ICNS"])
def test_read_photo__formats_that_nobody_needs_are_refused(tmp_path, kind):
    image = Image.fromarray(SCENE)
    (image.convert("1") if kind == "MSP" else image).save(tmp_path / "x.png", format=kind)
    with pytest.raises(XenomaskError, match="x.png is not an image"):
        read_photo(tmp_path / "x.png")


def test_read_photo__whatever_a_decoder_raises_is_one_error(tmp_path):
    rng = np.random.default_rng(0)
    for kind in picture_files.FORMATS:
        buffer = io.BytesIO()
        Image.fromarray(SCENE).save(buffer, format=kind)
        whole = np.frombuffer(buffer.getvalue(), np.uint8)
        for n in range(60):
            data = whole.copy()
            at = rng.integers(8 if n % 2 else 0, min(len(data), 400), 1 + n % 5)
            data[at] = rng.integers(0, 256, len(at))
            path = tmp_path / "x"
            path.write_bytes(data.tobytes()[: len(data) if n % 3 else rng.integers(1, len(data))])
            for read in (read_photo, photo_size):
                try:
                    read(path)
                except XenomaskError as e:
                    assert "\n" not in str(e)


def test_read_photo__no_decoder_writes_to_stderr(tmp_path, capfd):
    path = tmp_path / "a.tif"
    for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate"):
        Image.fromarray(SCENE).save(path, compression=compression)
        whole = bytearray(path.read_bytes())
        whole[20:40] = b"\xff" * 20
        path.write_bytes(whole)
        with pytest.raises(XenomaskError, match="a.tif is damaged"):
            read_photo(path)
    assert capfd.readouterr().err == ""


def test_read_photo__pipes_devices_and_folders(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(XenomaskError, match="pipe.png: it is no regular file"):
        read_photo(tmp_path / "pipe.png")
    with pytest.raises(XenomaskError, match="no regular file"):
        read_photo(Path("/dev/zero"))
    with pytest.raises(XenomaskError, match="it is a folder"):
        read_photo(tmp_path)
    assert not is_picture(tmp_path / "pipe.png")


def test_folders__a_link_whose_photo_is_gone_is_refused_not_passed_over(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").symlink_to(tmp_path / "unmounted/b.png")
    assert f"no such photo: {tmp_path}/in/b.png" in fails(capsys, "detect", tmp_path / "in", "--out", tmp_path / "out")


@pytest.mark.parametrize(("size", "name"), [((40, 16_384), "x.webp"), ((2, 65_536), "x.jpg")])
def test_save_picture__larger_than_the_format_can_be_is_one_line(tmp_path, size, name):
    with pytest.raises(XenomaskError, match=f"{name}: {size[1]}x{size[0]} pixels are not written as"):
        save_picture(tmp_path / name, np.zeros((*size, 3), np.uint8))
    assert not list(tmp_path.iterdir())


# --- size and memory ---

PEAK = """
import sys
from pathlib import Path
from xenomask.datasets import read_photo
from xenomask.errors import XenomaskError
try:
    print(read_photo(Path(sys.argv[1])).shape)
except XenomaskError as e:
    print(e)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
@pytest.mark.parametrize(
    ("mode", "size", "options", "read"),
    [("I;16", (12_000, 9_000), {"format": "PNG"}, False), ("1", (16_000, 8_000), {"format": "PNG"}, False),
     ("P", (9_000, 9_000), {"format": "GIF"}, False), ("RGB", (5_000, 4_000), {"format": "PNG"}, True),
     ("I;16", (5_000, 4_000), {"format": "PNG"}, True), ("L", (60_000, 60_000), None, False)],
)  # fmt: skip
def test_read_photo__peak_memory_follows_the_files_size(tmp_path, mode, size, options, read):
    path = tmp_path / "x"
    if options is None:  # a header that claims 3.6 gigapixels
        small = io.BytesIO()
        Image.new(mode, (8, 8)).save(small, format="BMP")
        data = bytearray(small.getvalue())
        data[18:26] = b"".join(n.to_bytes(4, "little") for n in size)
        path.write_bytes(data)
    else:
        Image.new(mode, size, 40_000 if mode == "I;16" else 1).save(path, **options)
    run = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    said, peak = run.stdout.rsplit("\n", 2)[:2]
    assert ("too large an image" in said) != read and run.stderr == ""
    assert int(peak) * 1024 <= min(2**30, 20 * path.stat().st_size + 300 * 2**20)


def test_read_photo__limits(tmp_path, monkeypatch):
    Image.new("L", (4, 65_501)).save(tmp_path / "long.png")
    with pytest.raises(XenomaskError, match="long.png is too large an image: 4x65501, a side may have 65500 pixels"):
        read_photo(tmp_path / "long.png")
    Image.fromarray(SCENE).save(tmp_path / "x.bmp")
    monkeypatch.setattr(picture_files, "MAX_BYTES", 1000)
    with pytest.raises(XenomaskError, match="x.bmp is too large an image: 0 MB, at most 0"):
        read_photo(tmp_path / "x.bmp")
    monkeypatch.undo()
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 2000)
    with pytest.raises(XenomaskError, match="40, more than 0 megapixels"):
        photo_size(tmp_path / "x.bmp")


# --- orientation ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif"])
def test_read_photo__upright_as_pillow_turns_it(tmp_path, kind, orientation):
    path = oriented(tmp_path / kind, SCENE, orientation)
    with Image.open(path) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_photo(path), want)
    assert photo_size(path) == want.shape[:2]
    assert read_header(path).stored == (40, 64)
    assert np.array_equal(turned(SCENE, orientation).shape, want.shape)


def test_read_photo__a_pngs_orientation_behind_its_pixels(tmp_path):
    path = oriented(tmp_path / "a.png", SCENE, 6)
    data = path.read_bytes()
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    path.write_bytes(data[:at] + data[end:-12] + data[at:end] + data[-12:])
    assert read_photo(path).shape == (64, 40, 3) and photo_size(path) == (64, 40)


BAD_EXIF = [
    b"garbage",
    b"Exif\0\0garbagegarbage",
    b"Exif\0\0MM\0*\0\0\xff\xff",
    b"b'Exif\\x00",
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", BAD_EXIF)
@pytest.mark.parametrize("kind", ["a.jpg", "a.png", "a.webp", "a.avif"])
def test_read_photo__exif_that_cannot_be_read_is_no_orientation(tmp_path, kind, exif):
    path = tmp_path / kind
    if kind == "a.avif":  # its writer reads what it writes
        exif_good = Image.Exif()
        exif_good[0x010E] = "x" * 40
        Image.fromarray(SCENE).save(path, exif=exif_good)
        path.write_bytes(path.read_bytes().replace(b"Exif", b"Exig"))
    else:
        Image.fromarray(SCENE).save(path, exif=exif)
    plain = tmp_path / f"plain{path.suffix}"
    Image.fromarray(SCENE).save(plain)
    assert np.array_equal(read_photo(path), read_photo(plain)) and photo_size(path) == (40, 64)


def data_set(root: Path, orientation: int, label: np.ndarray, photo: np.ndarray = SCENE) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "labels_masks").mkdir(exist_ok=True)
    oriented(root / "images/a.png", photo, orientation)
    Image.fromarray(label).save(root / "labels_masks/a.png")
    return root


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_dataset__photo_and_label_agree_however_the_photo_is_turned(tmp_path, orientation, drawn_on):
    """The anomaly is where the photo is white."""
    stored = np.zeros((40, 64), np.uint8)
    stored[3:12, 5:20] = 1
    upright = turned(stored, orientation)
    label = upright if drawn_on == "upright" or orientation < 5 else stored
    root = data_set(tmp_path, orientation, label, np.repeat(stored[..., None] * 255, 3, 2))
    data = open_dataset("folder", root)
    sample = data.sample(data.frames[0])
    assert sample.label is not None and np.array_equal(sample.image[..., 0] == 255, sample.label == 1)
    assert np.array_equal(sample.label, upright)
    assert check("folder", root).problems == ()


def test_dataset__a_label_that_fits_neither_way_is_refused(tmp_path):
    data = open_dataset("folder", data_set(tmp_path, 6, np.zeros((41, 64), np.uint8)))
    with pytest.raises(XenomaskError, match="is 40x64, its label .* 64x41: they must be of one size"):
        data.sample(data.frames[0])


def test_label__its_own_orientation_counts(tmp_path):
    label = np.zeros((4, 6), np.uint8)
    label[0, 0] = 1
    assert read_label(oriented(tmp_path / "l.png", label, 6), "anomaly").tolist() == turned(label, 6).tolist()


def test_cutouts__upright_with_their_outlines(tmp_path):
    import json

    stored = np.zeros((40, 64, 3), np.uint8)
    stored[3:12, 5:20] = 250
    oriented(tmp_path / "p.png", stored, 6)
    on_stored, on_upright = [5, 3, 19, 3, 19, 11, 5, 11], [28, 5, 36, 5, 36, 19, 28, 19]
    for size, polygon in (((40, 64), on_stored), ((64, 40), on_upright)):
        table = {
            "images": [{"id": 1, "file_name": "p.png", "height": size[0], "width": size[1]}],
            "categories": [{"id": 1, "name": "dog"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "area": 2000, "segmentation": [polygon]}],
        }
        (tmp_path / "i.json").write_text("\ufeff" + json.dumps(table), "utf-8")
        (cutout,) = list_cutouts(tmp_path, tmp_path / "i.json")
        found = cutout.read()
        assert found.shape == (15, 9, 4) and (found[..., :3] == 250).all()
    with pytest.raises(XenomaskError, match="is 40x64, but its outlines are said to be of 9x9"):
        Cutout(tmp_path / "p.png", ((0, 0, 8, 0, 8, 8),), (9, 9)).read()


# --- colours and numbers of photos ---

GREY = SCENE[..., 0]
REPEATED = np.repeat(GREY[..., None], 3, 2)
WIDE = {
    "int32 0..255": GREY.astype(np.int32),
    "int32 0..65535": GREY.astype(np.int32) * 257,
    "float 0..255": GREY.astype(np.float32),
    "float 0..1": GREY.astype(np.float32) / 255,
    "float 0..65535": GREY.astype(np.float32) * 257,
    "float, overshot": np.where(GREY == GREY.max(), 255.3, np.where(GREY == GREY.min(), -0.3, GREY)).astype(np.float32),
    "uint16 0..255": GREY.astype(np.uint16),
    "uint16 0..65535": GREY.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("name", WIDE)
def test_read_photo__wide_numbers_as_the_same_photo_of_8_bits(tmp_path, name):
    value = WIDE[name]
    if name.endswith("255"):
        value = value.copy()
    Image.fromarray(value).save(tmp_path / "a.tif")
    want = np.where(GREY == GREY.max(), 255, np.where(GREY == GREY.min(), 0, GREY)) if "overshot" in name else GREY
    assert np.array_equal(read_photo(tmp_path / "a.tif"), np.repeat(want[..., None], 3, 2))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("top", [1000, 4095, 16_000])
def test_read_photo__10_12_and_14_bits_are_not_read_dark(tmp_path, dtype, top):
    Image.fromarray((GREY * (top / 255)).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(XenomaskError, match="a.tif holds numbers from .*which do not say what is white.*save it as 8"):
        read_photo(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "value", [GREY.astype(np.int32) - 200, GREY.astype(np.int32) * 10_000, GREY / np.float32(100),
              np.where(GREY > 99, np.nan, GREY).astype(np.float32), np.full((8, 8), np.inf, np.float32)],
)  # fmt: skip
def test_read_photo__other_ranges_are_refused(tmp_path, value):
    Image.fromarray(value).save(tmp_path / "a.tif")
    with pytest.raises(XenomaskError, match=r"a.tif holds (numbers from|NaN or infinity)"):
        read_photo(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_read_photo__colours_of_16_bits(tmp_path, ending, channels):
    path = tmp_path / f"a.{ending}"
    deep = np.dstack([SCENE, SCENE[..., :1]])[..., :channels].astype(np.uint16)
    cv2.imwrite(str(path), deep[..., [2, 1, 0, 3][:channels]] * 257)
    assert np.array_equal(read_photo(path), SCENE)
    for scale in (1, 4, 16):  # 8, 10 and 12 bits of 16
        cv2.imwrite(str(path), deep * scale)
        with pytest.raises(XenomaskError, match="of 16 bits a channel, none above .*save it as 8-bit"):
            read_photo(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "LAB", "RGBX"])
def test_read_photo__every_mode(tmp_path, mode):
    image = Image.fromarray(SCENE, "LAB") if mode == "LAB" else Image.fromarray(SCENE).convert(mode)
    image.save(tmp_path / "a.tif")
    assert np.array_equal(read_photo(tmp_path / "a.tif"), np.asarray(image.convert("RGB")))
    alpha = np.full(GREY.shape, 7, np.uint8)
    Image.fromarray(np.dstack([GREY, alpha]), "LA").save(tmp_path / "la.png")
    assert np.array_equal(read_photo(tmp_path / "la.png"), REPEATED)


# --- numbers of labels ---

MEANT = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)


def palette(path: Path, indices: np.ndarray, table: list[int], bits: int = 8) -> Path:
    image = Image.fromarray(indices, "P")
    image.putpalette(table)
    image.save(path, bits=bits)
    return path


def greys(*values: int) -> list[int]:
    return [v for v in values for _ in range(3)]


def test_palette_label__two_readings_are_refused(tmp_path):
    path = palette(tmp_path / "l.png", np.array([[0, 1, 1]], np.uint8), greys(1, 0))
    said = r"l.png is ambiguous, for it has a palette of greys: it stores 0 \(shown as grey 1\), 1 \(shown as grey 0\)"
    with pytest.raises(XenomaskError, match=said + ", and anomaly knows both"):
        read_label(path, "anomaly")
    # what optimisers of PNG make of a mask of 0 and 255
    with pytest.raises(XenomaskError, match="ambiguous"):
        read_label(palette(path, np.array([[0, 1, 1]], np.uint8), greys(0, 255)), "anomaly")


def test_palette_label__one_reading_is_taken(tmp_path):
    path = tmp_path / "l.png"
    small = np.array([[0, 1, 2], [1, 1, 0]], np.uint8)  # an optimiser's: what it shows is the label
    assert np.array_equal(read_label(palette(path, small, greys(0, 1, 255)), "anomaly"), MEANT)
    assert np.array_equal(read_label(palette(path, MEANT, [v // 3 for v in range(768)]), "anomaly"), MEANT)
    voc = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [9, 8, 7] * 253  # a table of classes: what it stores is the label
    assert np.array_equal(read_label(palette(path, MEANT, voc), "anomaly"), MEANT)
    assert read_label(palette(path, small, greys(0, 85, 170)), "train_ids").tolist() == small.tolist()


def test_label__of_fewer_bits_than_8(tmp_path):
    path = tmp_path / "l.png"
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(path)
    with pytest.raises(
        XenomaskError, match=r"has 1 bit a pixel: it stores 0 \(shown as grey 0\), 1 \(shown as grey 255"
    ):
        read_label(path, "anomaly")
    for bits in (2, 4):
        write_bits(path, [0, 1, 2], bits)
        assert read_label(path, "train_ids").tolist() == [[0, 1, 2]]


def write_bits(path: Path, numbers: list[int], bits: int) -> None:
    """A grey PNG of one row with `bits` a pixel, written by hand."""
    import struct
    import zlib

    row = sum(n << (8 * 4 - bits * (i + 1)) for i, n in enumerate(numbers)).to_bytes(4, "big")
    row = row[: (len(numbers) * bits + 7) // 8]
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", len(numbers), 1, bits, 0, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data)


def test_label__white_as_0(tmp_path):
    path = tmp_path / "l.tif"
    Image.fromarray(MEANT).save(path, tiffinfo={262: 0})
    with Image.open(path) as image:
        inverted = np.asarray(image).tolist() != MEANT.tolist()
    if inverted:
        pytest.skip("this Pillow writes WhiteIsZero itself")
    data = bytearray(path.read_bytes())
    Image.fromarray(MEANT).save(path)
    data = bytearray(path.read_bytes())
    tag = data.index((262).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[tag + 8 : tag + 10] = b"\0\0"
    path.write_bytes(data)
    # it stores 0, 1, 255 and shows 255, 254, 0: only the first is a label
    assert np.array_equal(read_label(path, "anomaly"), MEANT)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_label_map__numbers_beyond_a_byte_are_void_as_it_says(tmp_path, dtype):
    stored = np.array([[7, 26001, 26], [7, 300, 65535]], dtype)
    Image.fromarray(stored).save(tmp_path / "l.tif")
    coding = Coding("mine", "train_ids", "two", {7: 0, 26: 1}, other_numbers=255)
    got = decode(read_stored(tmp_path / "l.tif", coding), coding, tmp_path / "l.tif")
    assert got.tolist() == [[0, 255, 1], [0, 255, 255]]
    strict = Coding("mine", "train_ids", "two", {7: 0, 26: 1})
    with pytest.raises(XenomaskError, match=r"holds the values \[300, 26001, 65535\]"):
        decode(read_stored(tmp_path / "l.tif", strict), strict, tmp_path / "l.tif")


def test_label_map__negative_numbers_are_void_as_it_says(tmp_path):
    Image.fromarray(np.array([[7, -1]], np.int32)).save(tmp_path / "l.tif")
    coding = Coding("mine", "train_ids", "two", {7: 0}, other_numbers=255)
    assert decode(read_stored(tmp_path / "l.tif", coding), coding, tmp_path / "l.tif").tolist() == [[0, 255]]


def test_label__colours_of_16_bits_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "l.png"), np.full((4, 4, 3), 128, np.uint16))
    with pytest.raises(XenomaskError, match="has 16 bits a channel: save it as RGB of 8 bits"):
        read_label(tmp_path / "l.png", "camvid")


# --- folders ---


@pytest.mark.parametrize("ending", ["avif", "jfif", "gif", "JPE", "", "pic"])
def test_folders__photos_of_any_ending(tmp_path, ending):
    name = f"a.{ending}" if ending else "a"
    for folder in ("images", "video"):
        (tmp_path / folder).mkdir()
        kind = {"avif": "AVIF", "gif": "GIF"}.get(ending, "JPEG")
        Image.fromarray(SCENE).save(tmp_path / folder / name, format=kind)
        (tmp_path / folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "labels_masks").mkdir()
    Image.fromarray(np.ones((40, 64), np.uint8)).save(tmp_path / "labels_masks/a.png")
    data = open_dataset("folder", tmp_path)
    assert [f.id for f in data.frames] == ["a"] and data.sample(data.frames[0]).image.shape == (40, 64, 3)
    assert len(list(open_source(str(tmp_path / "video")).frames)) == 1
    with pytest.raises(XenomaskError, match=f"{name} has no transparency"):  # found, opened, and no cut-out
        list_cutouts(tmp_path / "video")


def test_folders__a_picture_that_is_not_read_is_not_passed_over(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(SCENE).save(tmp_path / "images/a.jpg")
    (tmp_path / "images/b.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    data = open_dataset("folder", tmp_path)
    with pytest.raises(XenomaskError, match="b.heic is HEIC, which cannot be read here: save it as"):
        [data.sample(f) for f in data.frames]


def test_folders__names_composed_and_decomposed_are_one_frame(tmp_path):
    for folder, name in (("images", "stra\u00dfe_m\u00fc"), ("labels_masks", "stra\u00dfe_mu\u0308")):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / folder / f"{name}.png")
    (frame,) = open_dataset("folder", tmp_path).frames
    assert frame.image and frame.label and frame.id == "stra\u00dfe_m\u00fc"


def test_open_picture__decodes_behind_the_closed_file(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert open_picture(tmp_path / "a.tif").image.size == (64, 40)


def test_dataset__masks_of_0_and_255_are_named_as_such(tmp_path):
    label = np.zeros((40, 64), np.uint8)
    label[:9] = 255
    data = open_dataset("folder", data_set(tmp_path, 1, label))
    with pytest.raises(XenomaskError, match="hold only 0 and 255, and 255 is void: .*save 1 in its place"):
        data.labelled()
    assert "255 is void" in check("folder", tmp_path).notes[0]
    label[0, 0] = 1
    assert len(open_dataset("folder", data_set(tmp_path, 1, label)).labelled().frames) == 1
