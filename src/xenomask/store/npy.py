"""NumPy's files -> arrays, read as data: no pickle, and nothing is allocated before the header was checked."""

import ast
import re
import zipfile
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np

from xenomask.errors import XenomaskError, first_line
from xenomask.store.opened import MOST, PER_BYTE, SMALL

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000  # bytes, as NumPy has it
MAX_MEMBERS = 2**20  # bytes of a zip's table of contents
END, TAIL = 22, 2**16  # bytes of a zip's last record, and of the comment behind it
DAMAGED = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read_npy(path: Path, key: str | None = None) -> np.ndarray:
    """Read the array of a .npy file in the type that it is stored in; any shape.

    Raises XenomaskError for pickles, a header that does not fit the file, and a key, which such a file has not.
    """
    refuse_key(path, key)
    try:
        with path.open("rb") as f:
            return _array(f.read, path, path.stat().st_size)
    except DAMAGED as e:
        raise XenomaskError(f"map {path} is damaged or no .npy file: {first_line(e)}") from e


def read_npz(path: Path, key: str | None = None) -> np.ndarray:
    """Read one array of a .npz file: of that name; without one, `value`, ISSU's `anomaly_scores`, or the only array.

    Raises XenomaskError for what `read_npy` refuses, zip bombs, and a name that is not there.
    """
    try:
        _check_contents(path)
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(_member(path, archive.namelist(), key))
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
                raise XenomaskError(f"map {path}: {member.filename} is packed in another way than numpy.savez does")
            with archive.open(member) as f:
                return _array(f.read, path, min(MOST, SMALL + PER_BYTE * path.stat().st_size), whole=True)
    except DAMAGED as e:
        raise XenomaskError(f"map {path} is damaged or no .npz file: {first_line(e)}") from e


def refuse_key(path: Path, key: str | None) -> None:
    """Raise XenomaskError where a key is given for a file that holds one array without a name."""
    if key is not None:
        raise XenomaskError(f"map {path} holds one array, which has no key: leave --key out")


def _member(path: Path, names: list[str], key: str | None) -> str:
    held = sorted(n.removesuffix(".npy") for n in names if n.endswith(".npy"))
    issu = "anomaly_scores" if "anomaly_scores" in held and "value" not in held else "value"
    chosen = key or (held[0] if len(held) == 1 else issu)
    if chosen not in held:
        raise XenomaskError(f"map {path} has no array {chosen!r}, only {held[:8]}; choose one with --key")
    return f"{chosen}.npy"


def _check_contents(path: Path) -> None:
    """Refuse a zip whose table of contents alone takes much memory, and ZIP64, which no map needs."""
    with path.open("rb") as f:
        f.seek(0, 2)
        f.seek(max(0, f.tell() - END - TAIL))
        tail = f.read()
    at = tail.rfind(b"PK\5\6")  # where zipfile finds it, too
    if at < 0 or len(tail) - at < END:
        raise XenomaskError(f"map {path} is damaged or no .npz file: it has no table of contents")
    if b"PK\6\7" in tail[:at] or int.from_bytes(tail[at + 12 : at + 16], "little") > MAX_MEMBERS:
        raise XenomaskError(f"map {path} is a zip file of too many parts: save the maps alone")


def _array(read: Callable[[int], bytes], path: Path, limit: int, whole: bool = False) -> np.ndarray:
    """The array of a stream, which may take so many bytes; `whole`: nothing may follow."""
    dtype, fortran, shape = _header(read, path)
    claimed = prod(shape) * dtype.itemsize
    if claimed > min(limit, MOST):
        raise XenomaskError(f"map {path} claims {shape} numbers of {dtype}, more than such a file may hold")
    data = read(claimed)
    if len(data) != claimed or (whole and read(1)):
        raise XenomaskError(f"map {path} is damaged: it does not hold the {claimed} bytes of its {shape} numbers")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _header(read: Callable[[int], bytes], path: Path) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """What a .npy file says of its array: type, whether columns come first, shape."""
    start = read(8)
    if start[:6] != MAGIC or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise XenomaskError(f"map {path} is no .npy file")
    size = int.from_bytes(read(2 if start[6] == 1 else 4), "little")
    if size > MAX_HEADER:
        raise XenomaskError(f"map {path} is damaged: a header of {size} bytes")
    try:
        said = ast.literal_eval(read(size).decode("utf-8").strip())
        kind, fortran, shape = said["descr"], said["fortran_order"], said["shape"]
        real = isinstance(kind, str) and re.fullmatch(r"[<>|=]?[biuf]\d{1,2}", kind)
        dtype = np.dtype(kind if real else "V")
        fits = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as e:
        raise XenomaskError(f"map {path} is damaged: its header cannot be read: {first_line(e)}") from e
    if not fits or type(fortran) is not bool:
        raise XenomaskError(f"map {path} is damaged: its header says {str(said)[:80]}")
    if not real:
        raise XenomaskError(f"map {path} holds {str(kind)[:40]}, not real numbers; pickles are never opened")
    return dtype, fortran, shape
