"""A folder of maps: how its files are called."""

from pathlib import Path

from xenomask.errors import XenomaskError

ENDING = ".hdf5"


def map_ids(folder: Path) -> list[str]:
    """The frame ids of the maps in a folder, sorted; raises XenomaskError if there is no such folder."""
    if not folder.is_dir():
        raise XenomaskError(f"no folder of maps {folder}; make one with `xenomask score`")
    return sorted(p.name.removesuffix(ENDING) for p in folder.glob(f"*{ENDING}") if not p.name.startswith("."))
