"""Which photo a map was made from: the SHA-256 of the photo's file, which lies in the map itself.

It goes where the map goes, and is there exactly if the map is: many processes may write into one folder, and any may
be killed. It names no folder, so a data set may move.
"""

from pathlib import Path

import h5py
import numpy as np

from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.store.opened import VALUE, opened

PHOTO = "photo_sha256"
LENGTH = 64  # hexadecimal digits


def map_photo(path: Path, key: str | None = None) -> str | None:
    """The SHA-256 of the photo that a map was made from; None where it does not say (other tools' maps).

    Raises XenomaskError as `read_map` does.
    """
    with opened(path, key or VALUE) as found:
        if not h5py.h5a.exists(found.data.id, PHOTO.encode()):
            return None
        held = h5py.h5a.open(found.data.id, PHOTO.encode())
        if held.shape != () or held.dtype.kind != "S" or held.dtype.itemsize != LENGTH:
            raise XenomaskError(f"map {path} is damaged: its {PHOTO} is no SHA-256; make it again")
        return bytes(np.asarray(found.data.attrs[PHOTO])).decode("ascii", "replace")


def check_photo(path: Path, photo: Path | None, key: str | None = None) -> None:
    """Raises XenomaskError where a map says that it was made from another photo than the one in this file."""
    made_from = None if photo is None else map_photo(path, key)
    if photo is not None and made_from is not None and made_from != photo_digest(photo):
        raise XenomaskError(
            f"map {path} was made from another photo than {photo} is now: name the data set that it was made from, "
            "or score this one into another folder"
        )


def photo_digest(photo: Path) -> str:
    """The SHA-256 of a photo's file; raises XenomaskError where it cannot be read."""
    try:
        return sha256(photo)
    except OSError as e:
        raise XenomaskError(f"cannot read photo {photo}: {e.strerror}") from e
