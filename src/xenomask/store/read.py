"""A map's HDF5 file -> its numbers, with at most one chunk in memory beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import h5py
import numpy as np

from xenomask.arrays import is_finite
from xenomask.deflate import DAMAGED, deflate
from xenomask.errors import XenomaskError
from xenomask.store.opened import VALUE, Opened, opened
from xenomask.types import Size

BLOCK = 2**22  # bytes that HDF5 reads at once
CHECKSUM = 4  # bytes of a Fletcher-32, behind what it is of

# (row, column, numbers)
_Block = tuple[int, int, np.ndarray]


def read_hdf5(path: Path, key: str | None = None) -> np.ndarray:
    """Read the map (H, W) of an HDF5 file in the float type that it is stored in.

    Raises XenomaskError for a damaged file, one that is no map (`store.opened` says what a map is), holes, and for
    values that are not finite.
    """
    with opened(path, key or VALUE) as found:
        value = np.empty(found.data.shape, found.data.dtype.newbyteorder("="))
        raw = _raw_chunks(path, found)
        not_finite = _fill(value, _by_hdf5(found)) if raw is None else 0
    if raw is not None:  # outside HDF5's lock
        not_finite = _fill(value, _unpacked(path, raw))
    if not_finite:
        raise XenomaskError(f"map {path} holds {not_finite} NaN or infinite values; make it again")
    return value


def _fill(value: np.ndarray, blocks: Iterator[_Block]) -> int:
    """Puts the blocks where they belong; counts what is not finite."""
    not_finite = 0
    for y, x, block in blocks:
        target = value[y : y + block.shape[0], x : x + block.shape[1]]
        part = block[: target.shape[0], : target.shape[1]]
        if not is_finite(part):
            not_finite += int((~np.isfinite(part)).sum())
        target[...] = part
    return not_finite


@dataclass(frozen=True)
class MapFormat:
    """How an HDF5 map is stored: its numbers' type, (height, width), and HDF5's filters by number."""

    dtype: np.dtype
    size: Size
    filters: tuple[int, ...]

    @property
    def official(self) -> bool:
        """Whether it is little-endian float16 that any HDF5 reads without a plugin."""
        common = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
        return self.dtype == np.dtype("<f2") and common.issuperset(self.filters)


def map_format(path: Path, key: str | None = None) -> MapFormat:
    """How an HDF5 map is stored, from its header alone; raises XenomaskError as `read_map` does."""
    with opened(path, key or VALUE) as found:
        height, width = found.data.shape
        return MapFormat(found.data.dtype, (height, width), found.filters)


def _by_hdf5(found: Opened) -> Iterator[_Block]:
    """The rows, some at a time, as HDF5 itself reads them: what is not deflated."""
    data = found.data
    height, width = data.shape
    least = data.chunks[0] if data.chunks else 1
    rows = least * max(1, BLOCK // max(1, least * width * data.dtype.itemsize))
    for y in range(0, height, rows):
        yield y, 0, data[y : y + rows]


@dataclass(frozen=True)
class _Raw:
    """The chunks of a dataset as they lie in the file: the filters' bits that were left out, and the bytes."""

    dtype: np.dtype
    chunk: tuple[int, int]
    filters: tuple[int, ...]
    streams: dict[tuple[int, int], tuple[int, bytes]]


def _raw_chunks(path: Path, found: Opened) -> _Raw | None:
    """The compressed chunks; None where nothing is deflated, which HDF5 reads as well.

    HDF5 inflates a chunk to whatever comes out of it, however much that is.
    """
    data, filters = found.data, found.filters
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return None
    at_end = h5py.h5z.FILTER_FLETCHER32 not in filters[:-1]
    plain = data.id.get_type() == h5py.h5t.py_create(data.dtype)  # no float of bits that numpy has not
    if not at_end or h5py.h5z.FILTER_LZF in filters or not plain:
        raise XenomaskError(f"map {path} is {data.dtype} with the HDF5 filters {filters}: write it with gzip alone")
    streams: dict[tuple[int, int], tuple[int, bytes]] = {}
    left = found.bytes
    for y in found.grid[0]:
        for x in found.grid[1]:
            info = data.id.get_chunk_info_by_coord((y, x))
            left -= info.size or 0
            if info.byte_offset is None or left < 0:
                raise XenomaskError(f"map {path} is damaged: chunk at row {y}, column {x} is not in it; make it again")
            streams[y, x] = data.id.read_direct_chunk((y, x))
    return _Raw(data.dtype, found.chunk, filters, streams)


def _unpacked(path: Path, raw: _Raw) -> Iterator[_Block]:
    for (y, x), (left_out, stream) in raw.streams.items():
        where = f"map {path} is damaged: chunk at row {y}, column {x}"
        data, shuffled = stream, False
        for number, kind in reversed(list(enumerate(raw.filters))):
            if left_out >> number & 1:
                continue
            if kind == h5py.h5z.FILTER_FLETCHER32:  # what it is of carries zlib's own checksum
                data = data[:-CHECKSUM]
            elif kind == h5py.h5z.FILTER_DEFLATE:
                data = _inflated(data, prod(raw.chunk) * raw.dtype.itemsize, where)
            else:
                shuffled = True
        if len(data) != prod(raw.chunk) * raw.dtype.itemsize:
            raise XenomaskError(f"{where} holds {len(data)} bytes; make it again")
        block = _join_planes(data, raw.dtype) if shuffled else np.frombuffer(data, raw.dtype)
        yield y, x, block.reshape(raw.chunk)


def _inflated(stream: bytes, size: int, where: str) -> bytes:
    """A zlib stream, known to hold that many bytes; no more are made of it."""
    inflater = deflate.decompressobj()
    try:
        data = inflater.decompress(stream, size + 1)
    except DAMAGED as e:
        raise XenomaskError(f"{where}: {e}; make it again") from e
    if len(data) != size or not inflater.eof:
        raise XenomaskError(f"{where} holds {'more' if len(data) > size else 'less'} than its {size} bytes")
    return data


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
