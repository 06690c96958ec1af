"""ScoreMap <-> disk, in the official benchmark's layout: one HDF5 a frame, dataset `value`, float16 (H, W).

A file is plain HDF5 (filters shuffle and gzip): any h5py reads it. What HDF5 would do to each chunk is done here by
ISA-L instead, which is several times faster than its zlib, and outside HDF5's global lock, so that threads read and
write frames side by side.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path

import h5py
import numpy as np

from xenomask.arrays import MapLike, as_half, is_finite
from xenomask.errors import XenomaskError
from xenomask.files import atomic
from xenomask.types import ScoreMap, Size

try:
    from isal import isal_zlib as deflate
except (
    ImportError
):  # a platform without its wheels: the same kind of files, written 3 times slower (DEFLATE says which)
    import zlib as deflate

ENDING = ".hdf5"

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
DEFLATE = deflate.__name__
LEVEL = 2 if DEFLATE == "isal.isal_zlib" else 1
LARGEST = 2**28  # pixels; a forged header may claim terabytes

# its stub says Exception where it means the class
_DAMAGED: type[Exception] = deflate.error  # pyright: ignore[reportAssignmentType]


def write_map(path: Path, score_map: ScoreMap) -> None:
    """Writes one map, whole or not at all.

    Raises XenomaskError for a value that is too large for float16.
    """
    data = encode_map(as_half(score_map.value, f"map for {path.name}"), score_map.score)
    with atomic(path) as part:
        part.write_bytes(data)


def encode_map(value: MapLike, score: str | None, *, level: int = LEVEL, threads: int = 1) -> memoryview:
    """The bytes of the HDF5 file of a map (H, W), rounded to float16; `score` becomes an attribute.

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


def read_map(path: Path) -> np.ndarray:
    """Reads one map as float16 (H, W); maps of other tools in other floats are rounded to it.

    Raises XenomaskError for a damaged file, a missing `value`, a wrong shape and for NaN or infinity.
    """
    value = read_stored(path)
    if value.dtype == np.float16:
        return value
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not is_finite(half):
        raise XenomaskError(f"map {path} holds values beyond float16 (+-65504), as which maps are compared")
    return half


def read_stored(path: Path) -> np.ndarray:
    """The same in the type that it is stored in."""
    with _opened(path) as data:
        raw = _raw_chunks(data)
        value = np.asarray(data) if raw is None else None
    if value is None:
        assert raw is not None
        value = _unpack(path, raw)
    if not is_finite(value):
        bad = int((~np.isfinite(value)).sum())
        raise XenomaskError(f"map {path} holds {bad} NaN or infinite values; make it again")
    return value


@dataclass(frozen=True)
class MapFormat:
    """How a map is stored: its numbers' type, (height, width), and HDF5's filters by number."""

    dtype: np.dtype
    size: Size
    filters: tuple[int, ...]

    @property
    def official(self) -> bool:
        """Whether it is little-endian float16 that any HDF5 reads without a plugin."""
        common = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
        return self.dtype == np.dtype("<f2") and common.issuperset(self.filters)


def map_format(path: Path) -> MapFormat:
    """How a map is stored, from its header alone; raises XenomaskError as `read_map` does."""
    with _opened(path) as data:
        return MapFormat(data.dtype, (data.shape[0], data.shape[1]), _filters(data))


def _filters(data: h5py.Dataset) -> tuple[int, ...]:
    plan = data.id.get_create_plist()
    return tuple(plan.get_filter(i)[0] for i in range(plan.get_nfilters()))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.Dataset]:
    """The dataset `value` of a file, known to be a float (H, W) of a credible size."""
    try:
        with h5py.File(path, "r") as f:
            if "value" not in f:
                raise XenomaskError(f"map {path} has no dataset 'value', only {sorted(f)}")
            data = f["value"]
            if not isinstance(data, h5py.Dataset):
                raise XenomaskError(f"map {path}: 'value' is a {type(data).__name__.lower()}, not a dataset")
            if data.shape is None or len(data.shape) != 2 or not np.issubdtype(data.dtype, np.floating):
                raise XenomaskError(f"map {path}: 'value' is {data.dtype} {data.shape}, not a float (H, W)")
            if max(prod(data.shape), prod(data.chunks or (0,))) > LARGEST:
                raise XenomaskError(f"map {path} claims {data.shape} pixels (chunks {data.chunks}): no photo's size")
            yield data
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as e:  # what h5py makes of HDF5's complaints
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise XenomaskError(f"map {path} is damaged or no HDF5 file: {reason}") from e


@dataclass(frozen=True)
class _Raw:
    """The chunks of a dataset as they lie in the file."""

    dtype: np.dtype
    shape: tuple[int, int]
    chunk: tuple[int, int]
    shuffled: bool
    streams: dict[tuple[int, int], bytes]


def _raw_chunks(data: h5py.Dataset) -> _Raw | None:
    """The compressed chunks; None where HDF5 itself has to read: other filters, no chunks, holes."""
    filters = _filters(data)
    shuffle, deflate = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE
    if data.chunks is None or data.dtype.itemsize not in (2, 4, 8) or filters not in ((deflate,), (shuffle, deflate)):
        return None
    (height, width), (rows, columns) = data.shape, data.chunks
    corners = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]
    if data.id.get_num_chunks() != len(corners):
        return None
    read = {corner: data.id.read_direct_chunk(corner) for corner in corners}
    if any(left_out for left_out, _ in read.values()):
        return None
    streams = {corner: stream for corner, (_, stream) in read.items()}
    return _Raw(data.dtype, (height, width), (rows, columns), shuffle in filters, streams)


def _unpack(path: Path, raw: _Raw) -> np.ndarray:
    """Inflates and joins the chunks; no chunk may yield more than its declared size."""
    size = prod(raw.chunk) * raw.dtype.itemsize
    value = np.empty(raw.shape, raw.dtype.newbyteorder("="))
    for (y, x), stream in raw.streams.items():
        inflater = deflate.decompressobj()
        try:
            data = inflater.decompress(stream, size + 1)
        except _DAMAGED as e:
            raise XenomaskError(f"map {path} is damaged: chunk at row {y}, column {x}: {e}; make it again") from e
        if len(data) != size or not inflater.eof:
            kind = "more" if len(data) > size else "less"
            raise XenomaskError(
                f"map {path} is damaged: chunk at row {y}, column {x} holds {kind} than its {size} bytes"
            )
        block = _join_planes(data, raw.dtype) if raw.shuffled else np.frombuffer(data, raw.dtype)
        target = value[y : y + raw.chunk[0], x : x + raw.chunk[1]]
        target[...] = block.reshape(raw.chunk)[: target.shape[0], : target.shape[1]]
    return value


def _join_planes(data: bytes, dtype: np.dtype) -> np.ndarray:
    """Undoes HDF5's shuffle, which puts the first bytes of all numbers first, then all second ones, ..."""
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    if dtype.newbyteorder("=") == dtype and np.little_endian or dtype.byteorder == "<":
        planes = planes[::-1]
    bits = planes[0].astype(f"u{dtype.itemsize}")
    for plane in planes[1:]:  # three times as fast as a transposed copy
        bits <<= 8
        bits |= plane
    return bits.view(dtype.newbyteorder("="))


def map_ids(folder: Path) -> list[str]:
    """The frame ids of the maps in a folder, sorted; raises XenomaskError if there is no such folder."""
    if not folder.is_dir():
        raise XenomaskError(f"no folder of maps {folder}; make one with `xenomask score`")
    return sorted(p.name.removesuffix(ENDING) for p in folder.glob(f"*{ENDING}") if not p.name.startswith("."))
