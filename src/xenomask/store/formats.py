"""The one table of map formats: {ending: how such a file is read}; every way to read a map passes through it."""

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xenomask.arrays import MapLike, as_half, as_map
from xenomask.errors import XenomaskError, first_line
from xenomask.picture_files import open_picture
from xenomask.pictures import read_numbers
from xenomask.shapes import Float, Float16
from xenomask.store.npy import read_npy, read_npz, refuse_key
from xenomask.store.read import read_hdf5

HDF5 = (".hdf5", ".h5")
GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of one number a pixel
SIXTEEN = np.float32(257)  # 65535 / 255: a float16 ends at 65504


@dataclass(frozen=True)
class FileFormat:
    """How the files of one ending are read as maps."""

    # with its dot, in small letters
    ending: str
    # (file, key or None) -> real numbers (H, W), higher = more anomalous
    read: Callable[[Path, str | None], MapLike]


FORMATS: dict[str, FileFormat] = {}


def register(found: FileFormat) -> None:
    """Make a map format known to every command; raises XenomaskError for an ending that is known already, or none."""
    if found.ending in FORMATS or not found.ending.startswith(".") or found.ending != found.ending.lower():
        raise XenomaskError(f"map format {found.ending!r}: the ending is already known, or not like '.npy'")
    FORMATS[found.ending] = found


def format_of(name: str) -> FileFormat | None:
    """Return the format of a file's name; None where there is none."""
    return FORMATS.get(Path(name).suffix.lower())


def read_stored(path: Path, key: str | None = None) -> Float[np.ndarray, "H W"]:
    """Read a map (H, W) in the float type that it is stored in; whole numbers become floats.

    `key` is the array's name in the file: of HDF5 `value` by default, of .npz the only one. Raises XenomaskError, in
    one line, for whatever is wrong with the file.
    """
    found = format_of(path.name)
    if found is None:
        raise XenomaskError(f"map {path} is of no known format: {', '.join(FORMATS)}")
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise XenomaskError(f"map {path} is no regular file")
        return as_map(found.read(path, key), f"map {path}")
    except XenomaskError:
        raise
    except Exception as e:  # whatever the reader of a registered format raises
        raise XenomaskError(f"map {path} cannot be read: {first_line(e)}") from e


def read_map(path: str | Path, key: str | None = None) -> Float16[np.ndarray, "H W"]:
    """Read a map (H, W) as float16, as which maps are compared; other numbers are rounded to it.

    Raises XenomaskError as `read_stored` does, and for values beyond float16 (+-65504).
    """
    return as_half(read_stored(Path(path), key), f"map {path}", check=False)


def read_picture(path: Path, key: str | None = None) -> np.ndarray:
    """Read the numbers (H, W) of a picture of one channel: of 8 bits 0..255; of 16 bits divided by 257, so 0..255 too.

    Floats and 32-bit numbers of TIFF stay as they are. Raises XenomaskError for colours and palettes, and as
    `pictures.open_picture` does.
    """
    refuse_key(path, key)
    picture = open_picture(path, "map")
    if picture.image.mode not in GREY:
        raise XenomaskError(
            f"map {path} is a picture of colours (mode {picture.image.mode}), not of scores: save the scores in one "
            "channel, or as .npy"
        )
    found = read_numbers(picture)
    return found / SIXTEEN if found.dtype == np.uint16 else found


for _ending in HDF5:
    register(FileFormat(_ending, read_hdf5))
register(FileFormat(".npy", read_npy))
register(FileFormat(".npz", read_npz))
for _ending in (".tif", ".tiff", ".png"):
    register(FileFormat(_ending, read_picture))
