"""Where picture files are opened, the one place: which formats, how large, and one error for all; no array is made.

numpy is not imported here: a mistyped path, or a file that is no picture, is refused at once.
"""

import ctypes
import logging
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from xenomask.errors import XenomaskError, first_line

# NOTE: never Image.open without this list: among Pillow's other formats are programs (PostScript is run by
# Ghostscript) and decoders that nobody maintains.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
# Names that say picture, read here or not: such a file in a folder of photos is read or refused, never passed over.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".apng",
    ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".jxl", ".tga", ".qoi", ".dds", ".psd",
)  # fmt: skip
MAX_BYTES = 512 * 2**20  # of a file
MAX_PIXELS = 2**27
MAX_SIDE = 65_500  # the longest that a JPEG may have, which overlays are written as
MIN_SIDE = 32  # of a photo: the stride of the networks' coarsest features; less than one of these is no scene
# What decoding may take: so many bytes, and no more than so many times the file and what every file may take.
MAX_MEMORY, MAX_RATIO, SPARE = 900 * 2**20, 20, 220 * 2**20
# Bytes a pixel: Pillow's own picture, by mode, and beside it whichever takes more, what its decoder holds by format or
# what becomes of it here. Measured; tests/test_trust_pictures.py holds the largest of each kind to the bounds above.
STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
DECODER = {"WEBP": 12, "AVIF": 14, "TIFF": 4, "GIF": 2}
PROGRESSIVE = 6  # a JPEG's coefficients
CONVERTED = {"I": 8, "F": 8, "I;16": 6, "I;16B": 6, "I;16L": 6, "I;16N": 6}

# NOTE: Pillow warns of odd metadata and of large pictures; the first do no harm here, the second are refused.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(
    OSError, AttributeError
):  # libtiff writes to stderr by itself; a Pillow that is linked otherwise keeps it
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(ctypes.c_void_p())


@dataclass(frozen=True)
class Header:
    """What a picture's file says before its pixels are decoded: its (height, width) as stored, its orientation."""

    stored: tuple[int, int]
    # EXIF's: 1 is upright, 2..8 are mirrored or turned
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) once it is turned as it says."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    path: Path
    image: Image.Image
    # EXIF's, by which its pixels still have to be turned
    orientation: int
    # Pillow's name of how the file stores a pixel, such as "RGB;16B"
    coded: str
    # whether the file says that its numbers may be negative
    signed: bool = False

    @property
    def format(self) -> str:
        """Pillow's name of the file's format, such as "JPEG"."""
        return self.image.format or ""

    @property
    def deep(self) -> bool:
        """Whether it has several channels of 16 bits, of which Pillow keeps the upper 8."""
        return ";16" in self.coded and not self.image.mode.startswith("I")


def read_header(path: Path, what: str = "picture") -> Header:
    """A picture's size and orientation, without decoding it; raises XenomaskError for what is none."""
    with _opened(path, what) as image:
        return _header(image)


def check_scene(size: tuple[int, int], what: str) -> None:
    """Raises XenomaskError for a photo (height, width) that is too small to show a scene.

    >>> check_scene((1, 40), "dot.png")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: dot.png is 40x1 pixels: less than 32 pixels a side show no scene
    """
    if min(size) < MIN_SIDE:
        raise XenomaskError(f"{what} is {size[1]}x{size[0]} pixels: less than {MIN_SIDE} pixels a side show no scene")


def open_picture(path: Path, what: str = "picture") -> Picture:
    """Opens and decodes a picture by its content, whatever its name: of several frames or pages the first.

    Raises XenomaskError for a missing file, what is no picture of a known format, damaged, or too large.
    """
    with _opened(path, what) as image:
        # a TIFF is turned by Pillow itself, but must be asked before
        orientation = _orientation(image) if image.format != "TIFF" else 1
        coded = _coded(image)
        tags = dict(getattr(image, "tag_v2", {}))
        _check_tags(path, tags)
        image.load()
    return Picture(path, image, orientation, coded, signed=_numbers_of(tags, ExifTags.Base.SampleFormat)[:1] == (2,))


def is_picture(path: Path) -> bool:
    """Whether a file of a folder is one of its pictures: by its name or, where that says nothing, by its content.

    Hidden files (macOS leaves ._x.png in archives) and folders are none.
    """
    if path.name.startswith(".") or (path.exists() and not path.is_file()):
        return False
    if path.suffix.lower() in ENDINGS:  # a link whose file is gone, too: opening it says so
        return True
    try:
        with path.open("rb") as f:
            head = f.read(16)
    except OSError:
        return False
    return _format(head) is not None or _is_heic(head)


def _is_heic(head: bytes) -> bool:
    """What phones write; an AVIF may begin so, too, which Pillow looks into."""
    return head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf")


def _format(head: bytes) -> str | None:
    """The format that a file's first bytes announce."""
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    starts = {
        b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF",
        b"MM\0+": "TIFF", b"GIF87a": "GIF", b"GIF89a": "GIF",
    }  # fmt: skip
    return next((name for start, name in starts.items() if head.startswith(start)), None)


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    """The picture, not yet decoded and of a size that may be; whatever a decoder raises becomes a XenomaskError."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise XenomaskError(f"cannot read {what} {path}: it is a folder")
        if not stat.S_ISREG(found.st_mode):  # a pipe or device may never end
            raise XenomaskError(f"cannot read {what} {path}: it is no regular file; copy it into one")
        if found.st_size > MAX_BYTES:
            raise XenomaskError(f"{path} is too large an image: {found.st_size >> 20} MB, at most {MAX_BYTES >> 20}")
        with path.open("rb") as f:
            image = Image.open(f, formats=FORMATS)
            _check_size(path, image, found.st_size)
            yield image
    except XenomaskError:
        raise
    except FileNotFoundError:
        raise XenomaskError(f"no such {what}: {path}") from None
    except UnidentifiedImageError:
        raise XenomaskError(f"{path} {_no_picture(path)}") from None
    except Image.DecompressionBombError as e:
        raise XenomaskError(f"{path} is too large an image: {first_line(e)}") from None
    except MemoryError:
        raise XenomaskError(f"{path} is too large an image for this machine's memory") from None
    except Exception as e:  # decoders raise what they like: IndexError, NotImplementedError, RuntimeError, ...
        if isinstance(e, OSError) and e.strerror:
            raise XenomaskError(f"cannot read {what} {path}: {e.strerror}") from None
        raise XenomaskError(f"{path} is damaged: {first_line(e)}") from None


def _check_size(path: Path, image: Image.Image, size: int) -> None:
    """Raises XenomaskError where decoding would take more memory than a file of `size` bytes may ask for."""
    width, height = image.size
    said = f"{path} is too large an image: {width}x{height}"
    if min(width, height) < 1:
        raise XenomaskError(f"{path} is damaged: it is {width}x{height} pixels")
    if max(width, height) > MAX_SIDE:
        raise XenomaskError(f"{said}, a side may have {MAX_SIDE} pixels at most")
    if width * height > MAX_PIXELS:
        raise XenomaskError(f"{said}, more than {MAX_PIXELS // 10**6} megapixels")
    decoder = PROGRESSIVE if "progressive" in image.info else DECODER.get(image.format or "", 0)
    a_pixel = STORED.get(image.mode, 4) + max(decoder, CONVERTED.get(image.mode, 4))
    wanted = a_pixel * width * height + _tile(image)
    limit = min(MAX_MEMORY, MAX_RATIO * size + SPARE)
    if wanted > limit:
        raise XenomaskError(
            f"{said} pixels take {wanted >> 20} MB to decode, a file of {max(1, size >> 10)} KB may take "
            f"{limit >> 20}: save it smaller"
        )


def _numbers_of(tags: Mapping[int, Any], tag: int) -> tuple[int, ...]:
    found = tags.get(tag, ())
    return tuple(v for v in (found if isinstance(found, tuple) else (found,)) if isinstance(v, int))


def _check_tags(path: Path, tags: Mapping[int, Any]) -> None:
    """Raises XenomaskError for TIFFs of four kinds that Pillow (12) decodes as other numbers, without an error."""
    wide = max(_numbers_of(tags, ExifTags.Base.BitsPerSample), default=1) > 8
    colours = _numbers_of(tags, ExifTags.Base.ColorMap)
    if wide and 0 in _numbers_of(tags, ExifTags.Base.PhotometricInterpretation):
        said = "numbers of more than 8 bits in which 0 is white (PhotometricInterpretation 0)"
    elif wide and 2 in _numbers_of(tags, ExifTags.Base.PlanarConfiguration):
        said = "numbers of more than 8 bits, one channel after the other (PlanarConfiguration 2)"
    elif not wide and 2 in _numbers_of(tags, ExifTags.Base.SampleFormat):
        said = "signed numbers of 8 bits (SampleFormat 2)"
    elif colours and 0 < max(colours) < 256:
        said = "a palette of 8-bit colours where TIFF has 16-bit ones (ColorMap)"
    else:
        return
    raise XenomaskError(f"{path} is a TIFF with {said}, which is not read here: save it as PNG")


def _tile(image: Image.Image) -> int:
    """Bytes of a TIFF's tile, which may be larger than the picture."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag, 0) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength)]
    return 8 * sides[0] * sides[1] if all(isinstance(s, int) for s in sides) else 0


def _header(image: Image.Image) -> Header:
    orientation = _orientation(image)
    width, height = image.size
    turned_already = image.format == "TIFF" and orientation >= 5  # Pillow gives a TIFF's size upright
    return Header((width, height) if turned_already else (height, width), orientation)


def _orientation(image: Image.Image) -> int:
    """EXIF's (or XMP's); 1 where there is none that can be read."""
    try:
        if image.format == "PNG" and "exif" not in image.info and not _has_late_chunks(image):
            found = Image.Image.getexif(image)  # the PNG's own would decode all pixels to look behind them
        else:
            found = image.getexif()
        value = found.get(ExifTags.Base.Orientation, 1)
    except Exception:  # malformed, in whatever way
        return 1
    return value if type(value) is int and 1 <= value <= 8 else 1


def _has_late_chunks(image: Image.Image) -> bool:
    """Whether a PNG has metadata behind its pixels."""
    f = getattr(image, "fp")  # noqa: B009 - of files alone
    at = f.tell()
    try:
        f.seek(8)
        pixels = False
        while len(head := f.read(8)) == 8:
            name = head[4:]
            if pixels and name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            pixels = pixels or name == b"IDAT"
            f.seek(int.from_bytes(head[:4], "big") + 4, 1)
        return False
    finally:
        f.seek(at)


def _coded(image: Image.Image) -> str:
    """Pillow's raw mode; the mode itself where its decoder has none."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else None
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) else image.mode


def _no_picture(path: Path) -> str:
    """Why it cannot be read: what phones write has a name."""
    with path.open("rb") as f:
        head = f.read(12)
    if not head:
        return "is empty (0 bytes): copy or download it again"
    if _is_heic(head):
        return "is HEIC, which cannot be read here: save it as JPEG or PNG (heif-convert, or the phone's own export)"
    if _format(head) == "AVIF":
        return "is AVIF, for which this Pillow is too old: pip install --upgrade pillow"
    if head[4:8] == b"ftyp":
        return "is a video: xenomask video FILE --out seen.mp4"
    return "is not an image (or of a kind that is not read here: save it as PNG or JPEG)"
