"""Files -> arrays: photos as RGB uint8, labels with their coding checked."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from xenomask.datasets.codings import CODINGS, Coding, resembles
from xenomask.errors import XenomaskError, unknown
from xenomask.types import Size

ONE_CHANNEL = ("L", "P", "1", "I", "I;16")


def _open(path: Path, what: str) -> Image.Image:
    """Opens and decodes a file completely: by its content, whatever its name ends with."""
    try:
        with path.open("rb") as f:
            image = Image.open(f)
            image.load()
    except FileNotFoundError:
        raise XenomaskError(f"no such {what}: {path}") from None
    except (IsADirectoryError, PermissionError) as e:
        raise XenomaskError(f"cannot read {what} {path}: {e.strerror}") from None
    except UnidentifiedImageError:
        raise XenomaskError(f"{path} {_no_image(path)}") from None
    except Image.DecompressionBombError as e:
        raise XenomaskError(f"{path} is too large an image: {e}") from None
    except (OSError, SyntaxError, ValueError) as e:
        raise XenomaskError(f"{path} is damaged: {e}") from None
    return image


def _no_image(path: Path) -> str:
    """Why Pillow cannot read it: what phones write has a name."""
    with path.open("rb") as f:
        head = f.read(12)
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "is HEIC, which cannot be read here: save it as JPEG or PNG (heif-convert, or the phone's own export)"
    if head[4:12] == b"ftypavif":
        return "is AVIF, for which this Pillow is too old: pip install --upgrade pillow"
    if head[4:8] == b"ftyp":
        return "is a video: xenomask video FILE --out seen.mp4"
    return "is not an image (or of a kind that Pillow cannot read)"


def read_photo(path: Path, *, upright: bool = True) -> UInt8[np.ndarray, "H W 3"]:
    """A photo of any common kind as RGB: grey is repeated, alpha dropped, 16 bits scaled to 8.

    `upright` turns it as its EXIF orientation says; data sets keep the stored pixels, which their labels
    belong to. Raises XenomaskError for what is no image, truncated or far too large.
    """
    image = _open(path, "photo")
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        # NOTE: Pillow's own conversion of 16-bit grey clips at 255 instead of scaling.
        grey = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode != "F" or grey.max(initial=0) > 1 else 1.0
        grey = np.clip(grey * (255 / top) + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def photo_size(path: Path) -> Size:
    """A photo's (height, width) from its header alone; raises XenomaskError for what is no image."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Image.DecompressionBombError as e:
        raise XenomaskError(f"{path} is too large an image: {e}") from None
    except (OSError, SyntaxError, ValueError) as e:
        raise XenomaskError(f"{path} is not an image (or of a kind that Pillow cannot read): {e}") from None


def read_stored(path: Path, coding: Coding) -> Integer[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]:
    """A label as it is stored: numbers (H, W), or colours (H, W, 3), whichever of them the coding knows.

    A palette picture is numbers to one and colours to the other; to a coding that knows both it is neither. Raises
    XenomaskError for a picture of another kind than the coding's.
    """
    image = _open(path, "label")
    colours = image.mode in ("RGB", "RGBA", "P") and bool(coding.colours)
    numbers = image.mode in ONE_CHANNEL and bool(coding.table)
    if colours and numbers:
        raise XenomaskError(f"label {path} has a palette: save it as RGB colours or as one grey channel of numbers")
    if colours:
        return np.array(image.convert("RGB"))
    if not numbers:
        wanted = "one channel of class numbers" if coding.table else "RGB colours"
        raise XenomaskError(
            f"label {path} has colour mode {image.mode}; {coding.name} needs {wanted}: {coding.meaning}"
        )
    return np.array(image) if image.mode == "L" else np.array(image).astype(np.int32)


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
    """A stored label as what the coding says of it; raises XenomaskError that names the foreign values."""
    held = stored_values(stored)
    known = coding.colours if stored.ndim == 3 else coding.table
    foreign = [v for v in held if v not in known]
    if foreign and (stored.ndim == 2 or coding.other_colours is None):
        if coding.name not in CODINGS:  # a user's own
            like = 'list them, as "void" if need be, or say other = "void"'
        else:
            like = resembles(v for v in held if isinstance(v, int)) if stored.ndim == 2 else "no such colour is known"
        raise XenomaskError(
            f"label {path} holds the values {foreign[:8]}, which {coding.name} has not ({coding.meaning}); {like}"
        )
    if stored.ndim == 2:
        table = np.zeros(256, np.uint8)
        table[list(coding.table)] = list(coding.table.values())
        return table[stored]
    packed = _packed(stored)
    label = np.full(packed.shape, coding.other_colours or 0, np.uint8)
    for (r, g, b), value in coding.colours.items():
        label[packed == (r << 16 | g << 8 | b)] = value
    return label


def read_label(path: Path, coding: str) -> UInt8[np.ndarray, "H W"]:
    """A label file as what its coding (a name of CODINGS) says: 0 / 1 / 255, or train ids and 255.

    Raises XenomaskError that names the values which the coding has not, and what they look like instead.
    """
    if coding not in CODINGS:
        raise unknown("coding", coding, CODINGS)
    chosen = CODINGS[coding]
    return decode(read_stored(path, chosen), chosen, path)
