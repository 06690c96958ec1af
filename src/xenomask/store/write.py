"""ScoreMap -> the bytes of its file, written whole or not at all."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from xenomask.arrays import MapLike, as_half
from xenomask.deflate import DEFLATE, deflate
from xenomask.files import atomic
from xenomask.store.provenance import DETECTOR, PHOTO
from xenomask.types import ScoreMap

# NOTE: chosen by benchmarks/maps_io.py (two-core AMD EPYC, ms for 2048x1024 on one core, with rounding to float16;
# maskomaly on AnomalyTrack / max_logit on ObstacleTrack; sizes relative to gzip 9 without, with shuffle):
#                                write        size                      read_map    plain h5py reads
#   h5py gzip 9 (official tool)  133 / 205    1.00, 1.32 / 1.00, 1.26   20 / 14     27 / 20
#   h5py gzip 9, shuffle         269 / 253    0.76, 1.00 / 0.79, 1.00   18 / 15     21 / 17
#   h5py gzip 1, shuffle          68 /  50    0.81, 1.07 / 0.88, 1.11   19 / 14     21 / 18
#   libdeflate 1, shuffle         42 /  36    0.76, 1.00 / 0.81, 1.03   18 / 12     20 / 19
#   ISA-L 2, shuffle (this)       28 /  20    0.79, 1.04 / 0.86, 1.08   15 / 11     20 / 15
# ISA-L 1 is as fast and up to 4 % larger, 3 slower and larger. Two threads within a frame bring little (a frame has
# few chunks); two threads get 1.4 to 1.7 times as many frames read or written, with plain h5py no more than one does.
# libdeflate inflates about a quarter faster still, but its Python package holds the interpreter's lock meanwhile.
CHUNK_PIXELS = 2**19  # 1 MiB: what HDF5's chunk cache holds by default, so others may read row by row too
LEVEL = 2 if DEFLATE == "isal.isal_zlib" else 1


def write_map(path: Path, score_map: ScoreMap, *, photo: str | None = None, detector: str | None = None) -> None:
    """Writes one map, whole or not at all, which then says what it was made of and by, where that is given.

    `photo` is the SHA-256 of the photo's file, `detector` the words of `store.provenance.signature`. Raises
    XenomaskError for a value that is too large for float16.
    """
    value = as_half(score_map.value, f"map for {path.name}")
    data = encode_map(value, score_map.score, photo=photo, detector=detector)
    with atomic(path) as part:
        part.write_bytes(data)


def encode_map(
    value: MapLike, score: str | None, *, photo: str | None = None, detector: str | None = None, level: int = LEVEL,
    threads: int = 1,
) -> memoryview:  # fmt: skip
    """The bytes of the HDF5 file of a map (H, W), rounded to float16; score, photo and detector become attributes.

    Raises XenomaskError for what is no finite map, and for a value that is too large for float16.
    """
    half = np.ascontiguousarray(as_half(value))
    height, width = half.shape
    rows = min(height, max(1, CHUNK_PIXELS // width))
    tops = range(0, height, rows)
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        chunks = list((pool.map if pool else map)(lambda y: _pack(half[y : y + rows], rows, level), tops))
    # In memory first: HDF5 crashes the process where the disk is full.
    buffer = BytesIO()
    with h5py.File(buffer, "w") as f:
        data = f.create_dataset(
            "value", half.shape, np.dtype("<f2"), chunks=(rows, width), compression="gzip", shuffle=True
        )
        if score is not None:
            data.attrs["score"] = score
        if photo is not None:
            data.attrs[PHOTO] = np.bytes_(photo)
        if detector is not None:
            data.attrs[DETECTOR] = np.bytes_(detector.encode("utf-8", "backslashreplace"))
        for y, chunk in zip(tops, chunks, strict=True):
            data.id.write_direct_chunk((y, 0), chunk)
    return buffer.getbuffer()


def _pack(part: np.ndarray, rows: int, level: int) -> bytes:
    """One chunk of `rows` rows as HDF5 stores it: shuffled (all low bytes, then all high ones), then a zlib stream.

    Where the map ends before the chunk does, the rest is zeros.
    """
    planes = np.zeros((2, rows * part.shape[1]), np.uint8)
    bits = part.view(np.uint16).reshape(-1)
    np.bitwise_and(bits, 0xFF, out=planes[0, : bits.size], casting="unsafe")
    np.right_shift(bits, 8, out=planes[1, : bits.size], casting="unsafe")
    return deflate.compress(planes.data, level)
