"""A folder of maps: how its files are called."""

import unicodedata
from pathlib import Path

from xenomask.errors import XenomaskError

ENDING = ".hdf5"


def map_ids(folder: Path) -> list[str]:
    """The frame ids of the maps in a folder, sorted; raises XenomaskError if there is none, or two maps have one id.

    As a data set's ids they are in Unicode's composed form (NFC), in whichever a disk of macOS has named the files.
    """
    if not folder.is_dir():
        raise XenomaskError(f"no folder of maps {folder}; make one with `xenomask score`")
    names = [p.name.removesuffix(ENDING) for p in folder.glob(f"*{ENDING}") if not p.name.startswith(".")]
    found: dict[str, str] = {}
    for name in names:
        if (other := found.setdefault(_composed(name), name)) != name:
            raise XenomaskError(f"{folder} holds two maps of frame {name} ({ascii(other)} and {ascii(name)}): keep one")
    return sorted(found)


def map_path(folder: Path, frame: str) -> Path:
    """Where a frame's map lies: under its id, or under the same name in another of Unicode's forms."""
    path = folder / f"{frame}{ENDING}"
    if frame.isascii() or path.exists():
        return path
    wanted = _composed(path.name)
    return next((p for p in sorted(folder.glob(f"*{ENDING}")) if _composed(p.name) == wanted), path)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
