"""Files -> arrays: photos as RGB uint8, labels with their coding checked."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from xenomask.errors import XenomaskError
from xenomask.types import VOID

ANOMALY = frozenset({0, 1, VOID})
TRAIN_IDS = frozenset({*range(19), VOID})
CODINGS = {
    "anomaly": (ANOMALY, "0 inlier, 1 anomaly, 255 void"),
    "train_ids": (TRAIN_IDS, "Cityscapes train ids 0..18, 255 void"),
}


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
        raise XenomaskError(f"{path} is not an image (or of a kind that Pillow cannot read)") from None
    except Image.DecompressionBombError as e:
        raise XenomaskError(f"{path} is too large an image: {e}") from None
    except (OSError, SyntaxError, ValueError) as e:
        raise XenomaskError(f"{path} is damaged: {e}") from None
    return image


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


def read_label(path: Path, coding: str) -> UInt8[np.ndarray, "H W"]:
    """A label image whose values are checked against the coding ("anomaly" or "train_ids").

    Raises XenomaskError that names the foreign values.
    """
    image = _open(path, "label")
    if image.mode not in ("L", "P", "1", "I", "I;16"):
        raise XenomaskError(f"label {path} has colour mode {image.mode}; one channel of class numbers is needed")
    label = np.array(image)
    allowed, meaning = CODINGS[coding]
    counts = np.bincount(label.ravel().astype(np.int64), minlength=1) if label.min(initial=0) >= 0 else None
    foreign = sorted(set(np.flatnonzero(counts).tolist()) - allowed) if counts is not None else ["negative"]
    if foreign:
        hint = " (a 2 is RoadAnomaly's anomaly)" if coding == "anomaly" and 2 in foreign else ""
        raise XenomaskError(f"label {path} holds the values {foreign[:8]}{hint}; its coding is: {meaning}")
    return label.astype(np.uint8)


# Cityscapes' label ids -> train ids (cityscapesScripts, helpers/labels.py); every other id is void.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def read_label_ids(path: Path) -> UInt8[np.ndarray, "H W"]:
    """A Cityscapes `_labelIds.png` as train ids."""
    image = _open(path, "label")
    if image.mode != "L":
        raise XenomaskError(f"label {path} has colour mode {image.mode}; one channel of label ids is needed")
    table = np.full(256, VOID, np.uint8)
    table[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))
    return table[np.array(image)]
