"""Which photo a map was made from: the SHA-256 of the photo's file, which lies in the map itself.

It goes where the map goes, and is there exactly if the map is: many processes may write into one folder, and any may
be killed. It names no folder, so a data set may move.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.store.opened import VALUE, opened

PHOTO = "photo_sha256"
DETECTOR = "detector"
LENGTH = 64  # hexadecimal digits
LONGEST = 4096  # bytes of an attribute that is read


def map_photo(path: Path, key: str | None = None) -> str | None:
    """The SHA-256 of the photo that a map was made from; None where it does not say (other tools' maps).

    Raises XenomaskError as `read_map` does.
    """
    with opened(path, key or VALUE) as found:
        text = _text(found.data, PHOTO)
        if text is not None and len(text) != LENGTH:
            raise XenomaskError(f"map {path} is damaged: its {PHOTO} is no SHA-256; make it again")
        return text


def _text(data: h5py.Dataset, name: str) -> str | None:
    """An attribute of fixed length as text; "" for one of another kind, which is not read; None where it is not."""
    if not h5py.h5a.exists(data.id, name.encode()):
        return None
    held = h5py.h5a.open(data.id, name.encode())
    if held.shape != () or held.dtype.kind != "S" or held.dtype.itemsize > LONGEST:
        return ""
    return bytes(np.asarray(data.attrs[name])).decode("utf-8", "replace")


def check_photo(path: Path, photo: Path | None, key: str | None = None) -> None:
    """Raises XenomaskError where a map says that it was made from another photo than the one in this file."""
    made_from = None if photo is None else map_photo(path, key)
    if photo is not None and made_from is not None and made_from != photo_digest(photo):
        raise XenomaskError(
            f"map {path} was made from another photo than {photo} is now: name the data set that it was made from, "
            "or score this one into another folder"
        )


def signature(name: str, score: str, described: Mapping[str, Any]) -> str:
    """Who makes a map, in words that tell two detectors apart: its name, its score, a digest of what decides its maps.

    >>> signature("nano", "entropy", {"size": 256})
    'nano, entropy, 51e34632e667'
    """
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{name}, {score}, {digest[:12]}"


def check_one_detector(maps: Iterable[Path], key: str | None = None) -> None:
    """Raises XenomaskError where two of these maps say that different detectors made them."""
    seen: dict[str, Path] = {}
    for path in maps:
        with suppress(XenomaskError), opened(path, key or VALUE) as found:  # a damaged one is refused where it is read
            if maker := _text(found.data, DETECTOR):
                seen.setdefault(maker, path)
    if len(seen) > 1:
        (a, first), (b, other) = list(seen.items())[:2]
        raise XenomaskError(
            f"{first.parent} holds maps of {len(seen)} detectors: {first.name} ({a}) and {other.name} ({b}); give each "
            "a folder of its own"
        )


def photo_digest(photo: Path) -> str:
    """The SHA-256 of a photo's file; raises XenomaskError where it cannot be read."""
    try:
        return sha256(photo)
    except OSError as e:
        raise XenomaskError(f"cannot read photo {photo}: {e.strerror}") from e
