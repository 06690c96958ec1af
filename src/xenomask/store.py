"""ScoreMap <-> disk, in the official benchmark's layout: one HDF5 a frame, dataset `value`, float16 (H, W)."""

from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from xenomask.errors import XenomaskError
from xenomask.files import atomic
from xenomask.types import ScoreMap

ENDING = ".hdf5"


def write_map(path: Path, score_map: ScoreMap) -> None:
    """Writes one map, whole or not at all.

    Raises XenomaskError for a value that is not finite or too large for float16.
    """
    value = score_map.value
    # NOTE: the official tool writes gzip level 9; level 1 with shuffle reads back the same, smaller and faster.
    if not np.isfinite(value).all() or np.abs(value).max(initial=0) > np.finfo(np.float16).max:
        raise XenomaskError(f"map for {path.name} holds NaN, infinity or values beyond float16 (+-65504)")
    # In memory first: HDF5 crashes the process where the disk is full.
    buffer = BytesIO()
    with h5py.File(buffer, "w") as f:
        data = f.create_dataset(
            "value", data=value.astype(np.float16), compression="gzip", compression_opts=1, shuffle=True
        )
        data.attrs["score"] = score_map.score
    with atomic(path) as part:
        part.write_bytes(buffer.getbuffer())


def read_map(path: Path) -> np.ndarray:
    """Reads one map as stored, float16 (H, W); maps of other tools in other floats are cast as the official one does.

    Raises XenomaskError for a damaged file, a missing `value`, a wrong shape and for NaN or infinity.
    """
    try:
        with h5py.File(path, "r") as f:
            if "value" not in f:
                raise XenomaskError(f"map {path} has no dataset 'value', only {sorted(f)}")
            value = np.asarray(f["value"])
    except OSError as e:
        raise XenomaskError(f"map {path} is damaged or no HDF5 file: {str(e).splitlines()[0]}") from e
    if value.ndim != 2 or not np.issubdtype(value.dtype, np.floating):
        raise XenomaskError(f"map {path}: 'value' is {value.dtype} {value.shape}, not a float (H, W)")
    if not np.isfinite(value).all():
        bad = int((~np.isfinite(value)).sum())
        raise XenomaskError(f"map {path} holds {bad} NaN or infinite values; make it again")
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise XenomaskError(f"map {path} holds values beyond float16 (+-65504), as which maps are compared")
    return half


def map_ids(folder: Path) -> list[str]:
    """The frame ids of the maps in a folder, sorted; raises XenomaskError if there is no such folder."""
    if not folder.is_dir():
        raise XenomaskError(f"no folder of maps {folder}; make one with `xenomask score`")
    return sorted(p.name.removesuffix(ENDING) for p in folder.glob(f"*{ENDING}") if not p.name.startswith("."))
