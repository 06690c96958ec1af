"""Opened pictures -> arrays, turned as EXIF says, and back."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from xenomask.errors import XenomaskError, first_line
from xenomask.files import atomic
from xenomask.picture_files import Header, Picture
from xenomask.shapes import UInt8

BLOCK = 2**20  # pixels that are converted at a time
# of a heatmap a third of Pillow's time and its bytes
PNG = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH)


def read_rgb(picture: Picture) -> UInt8[np.ndarray, "H W 3"]:
    """Its colours of 8 bits, upright, by Pillow's own conversion; alpha is dropped.

    Raises XenomaskError for colours that cannot be converted (LAB).
    """
    own = "RGBA" if picture.image.mode == "RGBa" else "RGB"
    return _converted(picture, lambda part: part.convert(own).convert("RGB"), (3,), np.uint8)


def read_rgba(picture: Picture) -> UInt8[np.ndarray, "H W 4"]:
    """The same with alpha: 255 where the file has none."""
    return _converted(picture, lambda part: part.convert("RGBA"), (4,), np.uint8)


def read_numbers(picture: Picture) -> np.ndarray:
    """The numbers (H, W) that it stores, as Pillow has them: of one channel, or of a palette the indices; upright.

    uint8, uint16, int32 or float32.
    """
    kind = {"L": np.uint8, "P": np.uint8, "1": np.uint8, "F": np.float32, "I": np.int32}
    return _converted(picture, lambda part: part, (), kind.get(picture.image.mode, np.uint16))


def _converted(
    picture: Picture, convert: Callable[[Image.Image], Image.Image], channels: tuple[int, ...], dtype: type
) -> np.ndarray:
    """Block by block, because Pillow and numpy between them hold a whole picture three times."""
    image = picture.image
    size = Header((image.height, image.width), picture.orientation).upright
    out = np.empty((*size, *channels), dtype)
    stored = _turn(out, BACK.get(picture.orientation, picture.orientation))
    rows = max(1, BLOCK // image.width)
    try:
        for top in range(0, image.height, rows):
            bottom = min(top + rows, image.height)
            stored[top:bottom] = np.asarray(convert(image.crop((0, top, image.width, bottom))))
    except ValueError as e:
        what = f"colours of a kind ({image.mode}) that is not read here"
        raise XenomaskError(f"{picture.path} has {what}: {first_line(e)}; save it as RGB") from e
    return out


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) as stored, turned as an EXIF orientation says.

    >>> turned(np.array([[1, 2, 3]]), 6).tolist(), turned(np.array([[1, 2, 3]]), 3).tolist()
    ([[1], [2], [3]], [[3, 2, 1]])
    """
    return np.ascontiguousarray(_turn(array, orientation))


BACK = {6: 8, 8: 6}  # the orientation that undoes one; the others undo themselves


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """The same pixels, not copied."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def save_picture(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write an RGB picture (H, W, 3) whole or not at all; its name says the format.

    Raises XenomaskError for one that the format cannot hold.
    """
    with atomic(path) as part:
        if path.suffix.lower() == ".png":
            _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), PNG)
            part.write_bytes(data.tobytes())
        else:
            try:
                Image.fromarray(pixels).save(part, quality=90)
            except (ValueError, OSError) as e:  # larger than the format can be
                if isinstance(e, OSError) and e.errno:
                    raise
                size = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise XenomaskError(f"{path}: {size} pixels are not written as {path.suffix}: {first_line(e)}") from e
