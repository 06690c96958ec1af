"""What torch.save writes, stepped through as data, before PyTorch's own restricted reader may carry it out.

The machine of `arrays` knows the few more instructions and names that torch.save uses, and makes nothing of them. Each
thing that PyTorch's reader would build is counted against the file's size here: its storages and tensors by their
declared sizes, text that is encoded by its length; all else costs at least one instruction, and these are few.
"""

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.models.convert import arrays
from xenomask.models.convert.arrays import Refused, _is, _Machine, _Name, unpickle

MB = 1024 * 1024
MAX_PICKLE = 192 * MB  # the message hub of a run of 160,000 iterations takes 120 MB
MAX_STEPS = 1_000_000  # a Swin-L with its optimizer has some 100,000
MAX_TEXT = 32 * MB  # of one text; in memory it may take four times as much
MAX_TEXTS = 256 * MB  # of all, in memory
BYTES = {"Float": 4, "Half": 2, "Double": 8, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
         "Bool": 1}  # fmt: skip


class Opaque:
    """Something that PyTorch's reader would make: a tensor, or the object that stands in for one of a run's log."""


TENSOR, INERT = Opaque(), Opaque()


class Storage:
    """A tensor's numbers in the file: how many, and of how many bytes each."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size


def check_pickle(stream: Any, size: int) -> Any:
    """Steps through one pickle; `size` bytes of file bound what it may make. Gives what arrays' machine gives.

    Raises Refused.
    """
    return unpickle(_Short(stream), _Machine(size, CALLS), STEPS, MAX_STEPS)


class _Short:
    """A file for pickletools, which would make a text of any length at once."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.tell, self.readline = stream, stream.tell, lambda: stream.readline(1000)

    def read(self, n: int) -> bytes:
        if n > MAX_TEXT:
            raise Refused(f"it holds a text of {n} bytes")
        return self.stream.read(n)


def check_zip(path: Path) -> None:
    """Raises Refused or XenomaskError for what torch.save does not write."""
    total = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch stores its tensors as they are; what is packed, or larger than the file, is a bomb
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise XenomaskError(f"{path} is a compressed zip, which torch.save never writes")
        if sum(e.file_size for e in entries) > total:
            raise XenomaskError(f"{path} is a zip whose entries claim more bytes than it has")
        pickles = [e for e in entries if e.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise XenomaskError(f"{path} is a zip, but not one of torch.save: it has {len(pickles)} entries */data.pkl")
        if pickles[0].file_size > MAX_PICKLE:
            raise XenomaskError(f"{path} has a pickle of {pickles[0].file_size // MB} MB, far more than a checkpoint's")
        with archive.open(pickles[0]) as f:
            check_pickle(io.BytesIO(f.read()), total)


def check_legacy(path: Path) -> None:
    """The same for a file of torch before 1.6."""
    total = path.stat().st_size
    with path.open("rb") as f:
        if f.read(2) == b"PK":
            raise XenomaskError(f"{path} is a zip that was cut off; copy it again")
        f.seek(0)
        for _ in range(5):  # magic, protocol, system, the content, the names of its storages; then their bytes
            check_pickle(f, total)


# --- names ---------------------------------------------------------------------------------------------------------


def _storage(m: _Machine, args: Any) -> Storage:
    """A persistent id: ("storage", type, key, place, count[, a view, which torch has not written for years])."""
    kind, name, key, _, count, *view = _is(args, tuple)
    size = BYTES.get(name.name.removesuffix("Storage")) if type(name) is _Name and name.module == "torch" else None
    if kind != "storage" or size is None or type(key) is not str or type(count) is not int or count < 0 or any(view):
        raise Refused("it holds a tensor whose numbers are not stored as torch.save does")
    if key not in m.storages:
        m.storages[key] = count * size
        if sum(m.storages.values()) > m.size:
            raise Refused(f"its tensors claim {sum(m.storages.values())} bytes, more than the file has")
    return Storage(count, size)


def _tensor(m: _Machine, args: tuple) -> Opaque:
    storage, offset, shape, stride, *_ = args
    numbers = (offset, *_is(shape, tuple), *_is(stride, tuple))
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) != len(stride) or len(shape) > 8:
        raise Refused(f"it holds a tensor of the shape {str(shape)[:60]}")
    last = sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if 0 not in shape and offset + last >= _is(storage, Storage).count:
        raise Refused(f"it holds a tensor of the shape {str(shape)[:60]}, more than is stored")
    return TENSOR


def _parameter(m: _Machine, args: tuple) -> Opaque:
    if args[0] is not TENSOR:
        raise Refused("it holds a parameter that is no tensor")
    return TENSOR


def _inert(m: _Machine, args: tuple) -> Opaque:
    return INERT


def _encode(m: _Machine, args: tuple) -> Opaque:
    text, how = args
    m.encoded += len(_is(text, str))
    if how not in ("latin1", "utf-8") or m.encoded > m.size:
        raise Refused("its text is no bytes of an array")
    return INERT


NOTHING = [_Name("collections", "OrderedDict"), _Name("builtins", "bytes"), _Name("__builtin__", "bytes")]
CALLS: dict[_Name, Callable[[_Machine, tuple], Any]] = {
    **{name: arrays.CALLS[name] for name in NOTHING},
    _Name("_codecs", "encode"): _encode,
    _Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Name("torch._utils", "_rebuild_parameter"): _parameter,
    # a run's message hub (MMEngine's log of losses); PyTorch's reader gets a function that does nothing for each
    _Name("builtins", "getattr"): _inert,
    _Name("__builtin__", "getattr"): _inert,
    _Name("numpy", "dtype"): _inert,
    _Name("mmengine.logging.history_buffer", "HistoryBuffer"): _inert,
    **{_Name(f"numpy.{c}.multiarray", f): _inert for c in ("core", "_core") for f in ("scalar", "_reconstruct")},
}
# named, but not called
NAMED = {_Name("numpy", "ndarray"), *(_Name("torch", f"{kind}Storage") for kind in BYTES)}


# --- instructions --------------------------------------------------------------------------------------------------


def _global(m: _Machine, arg: str) -> None:
    module, name = arg.split(" ", 1)
    if _Name(module, name) not in CALLS and _Name(module, name) not in NAMED:
        raise Refused(f"it asks for {f'{module}.{name}'[:80]!r}, which no checkpoint needs")
    m.stack.append(_Name(module, name))


def _persistent(m: _Machine, _: Any) -> None:
    m.stack.append(_storage(m, m.stack.pop()))


def _new(m: _Machine, _: Any) -> None:
    args, what = m.stack.pop(), m.stack.pop()
    if what != _Name("mmengine.logging.history_buffer", "HistoryBuffer") or _is(args, tuple):
        raise Refused("it makes an object of a class that is none of a checkpoint's")
    m.stack.append(INERT)


def _build(m: _Machine, _: Any) -> None:
    m.stack.pop()
    # NOTE: a state dict's attribute _metadata, and what a HistoryBuffer holds
    if type(m.stack[-1]) is not dict and m.stack[-1] is not INERT:
        raise Refused("it changes something that is no array")


def _text(m: _Machine, arg: str) -> None:
    m.texts += sys.getsizeof(arg)
    if m.texts > MAX_TEXTS:
        raise Refused(f"its texts take more than {MAX_TEXTS // MB} MB")
    m.stack.append(arg)


STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **{k: v for k, v in arrays.STEPS.items() if k not in ("STACK_GLOBAL", "BYTEARRAY8")},
    "GLOBAL": _global,
    "BINPERSID": _persistent,
    "NEWOBJ": _new,
    "BUILD": _build,
    "BINUNICODE": _text,
}
