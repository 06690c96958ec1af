"""Files -> arrays: photos as RGB uint8, labels with their coding checked; both upright."""

from pathlib import Path

import numpy as np

from xenomask.datasets.codings import CODINGS, Coding, resembles
from xenomask.errors import XenomaskError, unknown
from xenomask.picture_files import Picture, open_picture, read_header
from xenomask.pictures import read_numbers, read_rgb, turned
from xenomask.shapes import Integer, UInt8
from xenomask.types import Size

ONE_CHANNEL = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L", "I;16N")
# A photo of 16 bits a channel that uses less than a quarter of its range holds 10, 12 or 14 bits, or is black.
DARK = 2**14


def read_photo(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """A photo of any common kind as RGB, turned upright as its EXIF orientation says.

    Grey is repeated, alpha dropped; numbers of more than 8 bits are scaled by the range that they show: floats 0..1
    or 0..255, whole numbers 0..255 or 0..65535. Raises XenomaskError for other ranges, for what is no picture,
    damaged or too large.
    """
    path = Path(path)
    picture = open_picture(path, "photo")
    if picture.image.mode == "F" or picture.image.mode.startswith("I"):
        return np.repeat(_grey(picture)[..., None], 3, axis=2)
    photo = read_rgb(picture)
    if picture.deep and photo.max() < DARK >> 8:
        raise _unclear(path, f"of 16 bits a channel, none above {int(photo.max() + 1) << 8}")
    return photo


def _grey(picture: Picture) -> UInt8[np.ndarray, "H W"]:
    """A photo of one channel of wide numbers, in 8 bits."""
    found = read_numbers(picture)
    low, high = found.min(), found.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise XenomaskError(f"photo {picture.path} holds NaN or infinity; save it as 8-bit PNG or JPEG")
    whole = found.dtype != np.float32
    tops = (255, 4095) if picture.coded.endswith(";12") else (255, 65535) if whole else (1, 255, 65535)
    # what resampling and rounding add to a float
    spare = 1.0 if whole else 1.002
    top = next((t for t in tops if high <= t * spare), None)
    clear = top is not None and low >= -0.002 * top * (not whole)
    if picture.signed and "16" in picture.coded and high > 255:  # 15 bits: neither scale fits
        raise _unclear(picture.path, f"from {low:g} to {high:g}, and may hold negative ones")
    if not clear or (top == 65535 and high < DARK) or (top == 255 and not whole and high < 16):
        raise _unclear(picture.path, f"from {low:g} to {high:g}")
    assert top is not None
    small = np.empty(found.shape, np.uint8)
    for y, row in enumerate(found):  # row by row: in one step, the floats would take eight times the picture
        small[y] = np.clip(row * (255 / top) + 0.5, 0, 255)
    return small


def _unclear(path: Path, said: str) -> XenomaskError:
    return XenomaskError(
        f"photo {path} holds numbers {said}, which do not say what is white (1, 255 or 65535 would): save it as 8-bit "
        "PNG or JPEG"
    )


def photo_size(path: Path) -> Size:
    """An upright photo's (height, width) from its header alone; raises XenomaskError for what is no picture."""
    return read_header(path, "photo").upright


def upright_label(label: np.ndarray, photo: Path) -> np.ndarray:
    """A photo's label (H, W, ...), upright as `read_photo` gives the photo.

    A label whose size is that of the photo's stored pixels, which EXIF turns by a quarter, was drawn on these and is
    turned with them; every other one is taken to be upright, as who labels sees the photo.
    """
    header = read_header(photo, "photo")
    if header.upright != header.stored == label.shape[:2]:
        return turned(label, header.orientation)
    return label


def read_stored(path: Path, coding: Coding) -> Integer[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]:
    """A label as it is stored: numbers (H, W), or colours (H, W, 3), whichever of them the coding knows.

    A palette picture is numbers to one and colours to the other; to a coding that knows both it is neither. Raises
    XenomaskError for a picture of another kind than the coding's, and where a palette (or fewer than 8 bits) leaves
    two readings that the coding both knows.
    """
    picture = open_picture(path, "label")
    if picture.format == "JPEG":
        raise XenomaskError(f"label {path} is a JPEG, whose compression changes numbers: save the label as PNG")
    mode = picture.image.mode
    colours = mode in ("RGB", "RGBA", "P") and bool(coding.colours)
    numbers = mode in ONE_CHANNEL and bool(coding.table)
    if colours and numbers:
        raise XenomaskError(f"label {path} has a palette: save it as RGB colours or as one grey channel of numbers")
    if colours and picture.deep:
        raise XenomaskError(f"label {path} has 16 bits a channel: save it as RGB of 8 bits")
    if colours:
        return read_rgb(picture)
    if not numbers:
        wanted = "one channel of class numbers" if coding.table else "RGB colours"
        raise XenomaskError(
            f"label {path} has colour mode {mode}; {coding.name} needs {wanted} (save it so): {coding.meaning}"
        )
    return _numbers(picture, coding)


def _numbers(picture: Picture, coding: Coding) -> Integer[np.ndarray, "H W"]:
    """The numbers of a label of one channel, where they are not in doubt.

    A grey palette, fewer than 8 bits and TIFF's "white is zero" have two: what is stored, and the grey that it shows.
    Programs that make files smaller change the first and keep the second; annotation tools mean the first.
    """
    pixels = read_numbers(picture)
    if pixels.dtype != np.uint8:
        return pixels
    stored, grey, how = _readings(picture, pixels)
    held = stored_values(stored)
    shown = grey[held].tolist()
    if held == shown or not coding.knows(shown):
        return stored
    if coding.knows(n for n in held if isinstance(n, int)):
        pairs = ", ".join(f"{n} (shown as grey {g})" for n, g in list(zip(held, shown, strict=True))[:4])
        raise XenomaskError(
            f"label {picture.path} is ambiguous, for it has {how}: it stores {pairs}, and {coding.name} knows both "
            f"({coding.meaning}); save it as 8-bit grey that holds the numbers you mean"
        )
    return grey.astype(np.uint8)[stored]


def _readings(picture: Picture, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """The stored numbers, the grey that each of 256 is shown as (-1: none), and in words why they differ."""
    mode, raw = picture.image.mode, picture.coded.partition(";")[2]
    grey = np.full(256, -1)
    if mode == "P":
        table = np.reshape(picture.image.getpalette("RGB") or [], (-1, 3))[:256]
        if (table == table[:, :1]).all():  # one colour makes it a table of classes
            grey[: len(table)] = table[:, 0]
        return pixels, grey, "a palette of greys"
    bits = 1 if mode == "1" else next((int(c) for c in raw if c in "24"), 8)
    top = 2**bits - 1
    stored = pixels if mode == "1" else pixels // (255 // top)
    grey[: top + 1] = np.arange(top + 1) * (255 // top)
    how = f"{bits} bit{'s' * (bits > 1)} a pixel"
    if "I" in raw:  # white is 0 in the file; Pillow has turned it over
        stored, grey[: top + 1], how = (top - stored).astype(np.uint8), grey[top::-1], f"{how} and white as 0"
    return stored, grey, how


def stored_values(stored: np.ndarray) -> list[int] | list[tuple[int, ...]]:
    """The distinct numbers, or colours, of a stored label, sorted.

    >>> stored_values(np.array([[3, 0], [3, 255]], np.uint8))
    [0, 3, 255]
    """
    if stored.ndim == 3:
        return [(v >> 16, v >> 8 & 255, v & 255) for v in np.unique(_packed(stored)).tolist()]
    if stored.dtype == np.uint8:
        return np.flatnonzero(np.bincount(stored.ravel())).tolist()
    return np.unique(stored).tolist()


def _packed(rgb: np.ndarray) -> np.ndarray:
    wide = rgb.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def decode(stored: np.ndarray, coding: Coding, path: Path) -> UInt8[np.ndarray, "H W"]:
    """A stored label, decoded by its coding; raises XenomaskError that names the foreign values."""
    held = stored_values(stored)
    known, other = (coding.colours, coding.other_colours) if stored.ndim == 3 else (coding.table, coding.other_numbers)
    foreign = [v for v in held if v not in known]
    if foreign and other is None:
        if coding.name not in CODINGS:  # a user's own
            like = 'list them, as "void" if need be, or say other = "void"'
        else:
            like = resembles(v for v in held if isinstance(v, int)) if stored.ndim == 2 else "no such colour is known"
        raise XenomaskError(
            f"label {path} holds the values {foreign[:8]}, which {coding.name} has not ({coding.meaning}); {like}"
        )
    if stored.ndim == 2 and stored.dtype == np.uint8:
        table = np.full(256, other or 0, np.uint8)
        table[list(coding.table)] = list(coding.table.values())
        return table[stored]
    keys = {r << 16 | g << 8 | b: v for (r, g, b), v in coding.colours.items()} if stored.ndim == 3 else coding.table
    packed = _packed(stored) if stored.ndim == 3 else stored
    label = np.full(packed.shape, other or 0, np.uint8)
    for key, value in keys.items():
        label[packed == key] = value
    return label


def read_label(path: Path, coding: str) -> UInt8[np.ndarray, "H W"]:
    """A label file as what its coding (a name of CODINGS) says: 0 / 1 / 255, or train ids and 255.

    Raises XenomaskError that names the values which the coding has not, and what they look like instead.
    """
    if coding not in CODINGS:
        raise unknown("coding", coding, CODINGS)
    chosen = CODINGS[coding]
    return decode(read_stored(path, chosen), chosen, path)
