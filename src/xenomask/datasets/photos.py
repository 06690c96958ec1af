"""A photo however it is given -> RGB uint8."""

import os
from pathlib import Path

import numpy as np

from xenomask.arrays import ImageLike, as_image
from xenomask.datasets.read import read_photo
from xenomask.shapes import UInt8


def as_photo(image: ImageLike, what: str = "photo") -> UInt8[np.ndarray, "H W 3"]:
    """A photo as uint8 RGB (H, W, 3): a path is read by `read_photo`, anything else taken by `arrays.as_image`.

    Raises XenomaskError as these do.
    """
    if isinstance(image, str | os.PathLike):
        return read_photo(Path(os.fspath(image)))
    return as_image(image, what)
