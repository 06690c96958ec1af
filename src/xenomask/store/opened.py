"""What an HDF5 file of a map may be; all else is refused before anything of it is read or allocated.

One dataset, `value` or another that the user names, an (H, W) of float16, 32 or 64, stored in this very file,
contiguous or in chunks, compressed by gzip or lzf or not at all, with or without shuffle and Fletcher-32. Another
user's map is an untrusted file: HDF5 also knows links, external storage and virtual datasets, by which it would read
any file of this machine as a map.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import h5py
import numpy as np
from h5py import h5l  # pyright: ignore[reportAttributeAccessIssue]

from xenomask.errors import XenomaskError
from xenomask.types import Size

# Bytes of the numbers that a file may claim, of its largest chunk, and, in both, per byte of the file itself: a real
# map shrinks to a half or a third, a forged one by a thousand. All stay below what a photo can have.
MOST, SMALL, SMALL_CHUNK, PER_BYTE = 2**29, 2**27, 2**26, 16
MOST_CHUNKS = 2**16
FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF)
VALUE = "value"  # what the official tool calls a map
LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)


@dataclass(frozen=True)
class Opened:
    """A map's dataset whose claims were checked."""

    data: h5py.Dataset
    filters: tuple[int, ...]
    # of the file
    bytes: int

    @property
    def chunk(self) -> Size:
        """(rows, columns) of a chunk; where there are none, the whole map is one."""
        return self.data.chunks or self.data.shape

    @property
    def grid(self) -> tuple[range, range]:
        """The first rows and first columns of its chunks."""
        (height, width), (rows, columns) = self.data.shape, self.chunk
        return range(0, height, rows), range(0, width, columns)


@contextmanager
def opened(path: Path, key: str = VALUE) -> Iterator[Opened]:
    """The dataset of that name, such as group/value; raises XenomaskError for all that a map may not be."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise XenomaskError(f"map {path} is no regular file")
        with h5py.File(path, "r") as f:
            yield _checked(path, f, status.st_size, key)
    # what h5py makes of HDF5's complaints
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise XenomaskError(f"map {path} is damaged or no HDF5 file: {reason}") from e


def _dataset(path: Path, f: h5py.File, key: str) -> h5py.Dataset:
    """The dataset of that name in this very file."""
    found = f
    for name in key.strip("/").split("/"):
        # asked of the link, not of what it leads to: following it opens that file
        if not isinstance(found, h5py.Group) or not found.id.links.exists(name.encode()):
            held = sorted(found)[:8] if isinstance(found, h5py.Group) else []
            raise XenomaskError(f"map {path} has no dataset {key!r}, only {held}; choose one with --key")
        if found.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
            raise XenomaskError(f"map {path}: {name!r} is a link, maybe to another file: a map holds its own numbers")
        found = found[name]
    if not isinstance(found, h5py.Dataset):
        raise XenomaskError(f"map {path}: {key!r} is a {type(found).__name__.lower()}, not a dataset")
    return found


def _checked(path: Path, f: h5py.File, size: int, key: str) -> Opened:
    data = _dataset(path, f, key)
    plan = data.id.get_create_plist()
    if plan.get_layout() not in LAYOUTS or (plan.get_layout() == h5py.h5d.CONTIGUOUS and plan.get_external_count()):
        raise XenomaskError(
            f"map {path}: the numbers of {key!r} lie in other files (external storage or a virtual dataset), which "
            "are not read: write them into the map itself"
        )
    if data.shape is None or len(data.shape) != 2 or not np.issubdtype(data.dtype, np.floating):
        raise XenomaskError(
            f"map {path}: {key!r} is {data.dtype} {data.shape}, not a float (H, W): write it as float32"
        )
    if data.dtype.itemsize > 8:
        raise XenomaskError(f"map {path}: {key!r} is {data.dtype}; write it as float16, float32 or float64")
    filters = tuple(plan.get_filter(i)[0] for i in range(plan.get_nfilters()))
    if foreign := [n for n in filters if n not in FILTERS]:
        raise XenomaskError(f"map {path} is compressed by HDF5 filter {foreign[0]}: write it with gzip or without")
    claimed, chunk = (prod(shape) * data.dtype.itemsize for shape in (data.shape, data.chunks or (0,)))
    if claimed > min(MOST, SMALL + PER_BYTE * size) or chunk > min(MOST, SMALL_CHUNK + PER_BYTE * size):
        raise XenomaskError(
            f"map {path} claims {data.shape} numbers (chunks {data.chunks}) in {size} bytes: no photo's size"
        )
    found = Opened(data, filters, size)
    _refuse_holes(path, found)
    return found


def _refuse_holes(path: Path, found: Opened) -> None:
    """HDF5 reads what was never written as 0, the lowest score of some maps and the highest of others."""
    data = found.data
    if data.chunks is None:
        if data.size and not data.id.get_storage_size():
            raise XenomaskError(f"map {path} is empty: its numbers were never written; make it again")
        return
    wanted = prod(len(r) for r in found.grid)
    if wanted > MOST_CHUNKS:
        raise XenomaskError(f"map {path} has {wanted} chunks of {data.chunks}: no map's layout; write larger ones")
    if (there := data.id.get_num_chunks()) < wanted:
        raise XenomaskError(f"map {path} has holes: {wanted - there} of its {wanted} chunks are missing; make it again")
