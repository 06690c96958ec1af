"""A pickle of named arrays -> {name: array}. Nothing in the file is ever run.

A pickle is a program. Python's own unpickler runs it and can only be told which names not to call; this one knows no
way to import or to call: it steps through the few opcodes that a dict of NumPy arrays consists of, and where the
program names a function, it looks whether that is one of the six by which NumPy writes an array and does that work
itself. No size that the file claims is believed before the bytes for it were counted.
"""

import math
import mmap
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xenomask.errors import XenomaskError

MAX_STEPS = 200_000  # opcodes; a Swin-L's file has 12,000
LARGE = 1024  # bytes; longer runs are looked at in place, not copied
KINDS = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split()  # of numbers, as NumPy writes them: no objects


class Refused(ValueError):
    """What is wrong with the file, without its name."""


def read_arrays(path: Path) -> dict[str, Any]:
    """The file's content: a dict that holds arrays at any depth, and strings and numbers beside them.

    Raises XenomaskError for everything else.
    """
    try:
        with path.open("rb") as f:
            if f.read(1) != b"\x80":
                raise Refused("it is neither a pickle (.pkl) nor a file of torch.save (.pth)")
            # ACCESS_READ: the arrays are views of the file until someone copies them
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        found = unpickle(_InPlace(data), _Machine(len(data), CALLS), STEPS, MAX_STEPS)
    except Refused as e:
        raise XenomaskError(f"{path} is refused: {e}; a checkpoint holds named arrays and nothing else") from e
    except OSError as e:
        raise XenomaskError(f"cannot read {path}: {e.strerror}") from e
    if not isinstance(found, dict):
        raise XenomaskError(f"{path} is refused: it holds a {type(found).__name__}, no dict of named arrays")
    return found


@dataclass(frozen=True)
class _Name:
    """What a pickle would import: only ever compared with the names below."""

    module: str
    name: str


@dataclass
class _Array:
    """An array in the making: NumPy's pickles first name it and fill it afterwards."""

    value: np.ndarray | None = None


@dataclass
class _Dtype:
    kind: str
    order: str = "<"


@dataclass
class _Machine:
    """The unpickler's state; `size` bytes of file bound all that may be built from them."""

    size: int
    calls: Mapping["_Name", Callable[["_Machine", tuple], Any]]  # what the names that may be called make
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    encoded: int = 0  # bytes made of text
    built: int = 0  # bytes of arrays
    texts: int = 0  # bytes of text in memory
    storages: dict[str, int] = field(default_factory=dict)  # bytes of torch's, by key

    def popmark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def array(self, raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
        if not (isinstance(dtype, _Dtype) and isinstance(shape, tuple) and all(type(n) is int for n in shape)):
            raise Refused("it holds an array without shape or type")
        if not isinstance(raw, bytes | bytearray | memoryview):
            raise Refused("it holds an array without bytes")
        real = np.dtype(dtype.order + dtype.kind)
        # Python's integers: a product that no machine's could hold is still the true one
        if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) * real.itemsize != len(raw):
            raise Refused(f"an array claims the shape {str(shape)[:80]}, {len(raw)} bytes are there")
        self.built += len(raw)
        if self.built > self.size:  # many arrays over the same bytes: each would be copied later
            raise Refused("its arrays are larger than the file")
        return np.frombuffer(raw, real).reshape(shape, order="F" if order == "F" else "C")


def unpickle(source: Any, m: _Machine, steps: Mapping[str, Callable[[_Machine, Any], None]], most: int) -> Any:
    """Steps through a pickle of dicts, lists, strings, numbers and arrays, at most so many instructions.

    Raises Refused for every instruction or name that is not in the tables, for claims that exceed the file, and for a
    damaged file.
    """
    try:
        for n, (op, arg, _) in enumerate(pickletools.genops(source)):
            if n >= most:
                raise Refused(f"it has more than {most} steps")
            if op.name == "STOP":
                return _plain(m.stack.pop())
            step = steps.get(op.name)
            if step is None:
                raise Refused(f"it uses the pickle instruction {op.name}")
            step(m, arg)
    except Refused:
        raise
    except RecursionError as e:
        raise Refused("it is nested too deeply") from e
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as e:
        raise Refused("it is damaged or cut off") from e
    raise Refused("it is cut off")


class _InPlace:
    """A file for pickletools whose long runs of bytes are views, and whose reads end where the file does."""

    def __init__(self, data: mmap.mmap):
        self.data, self.view = data, memoryview(data)
        self.tell, self.readline = data.tell, data.readline

    def read(self, n: int) -> Any:
        if n < LARGE:
            return self.data.read(n)
        start = self.data.tell()
        view = self.view[start : start + n]
        self.data.seek(start + len(view))
        return view


def _plain(value: Any) -> Any:
    """The array in its holder's place."""
    return value.value if isinstance(value, _Array) else value


# --- what the functions do that a pickle of arrays names ---------------------------------------------------------


def _reconstruct(m: _Machine, args: tuple) -> _Array:
    if args[0] != _Name("numpy", "ndarray"):
        raise Refused("it holds an array of another class than numpy.ndarray")
    return _Array()


def _frombuffer(m: _Machine, args: tuple) -> _Array:
    return _Array(m.array(*args))


def _scalar(m: _Machine, args: tuple) -> _Array:
    dtype, raw = args
    return _Array(m.array(raw, dtype, ()))


def _dtype(m: _Machine, args: tuple) -> _Dtype:
    if args[0] not in KINDS:
        raise Refused(f"it holds an array of type {str(args[0])[:20]!r}, which are no plain numbers")
    return _Dtype(args[0])


def _encode(m: _Machine, args: tuple) -> bytes:
    text, how = args  # protocol 2 writes bytes as text
    m.encoded += len(text)
    if how != "latin1" or m.encoded > m.size:
        raise Refused("its text is no bytes of an array")
    return text.encode("latin1")


def _nothing(kind: type) -> Callable[[_Machine, tuple], Any]:
    def make(m: _Machine, args: tuple) -> Any:
        if args:
            raise Refused(f"it fills a {kind.__name__} by a call")
        return kind()

    return make


CALLS: dict[_Name, Callable[[_Machine, tuple], Any]] = {
    _Name("numpy", "dtype"): _dtype,
    _Name("_codecs", "encode"): _encode,
    _Name("collections", "OrderedDict"): _nothing(dict),
    _Name("__builtin__", "bytes"): _nothing(bytes),
    _Name("builtins", "bytes"): _nothing(bytes),
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    CALLS[_Name(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    CALLS[_Name(f"{_core}.multiarray", "scalar")] = _scalar
    CALLS[_Name(f"{_core}.numeric", "_frombuffer")] = _frombuffer
NAMES = {*CALLS, _Name("numpy", "ndarray")}


# --- the opcodes -------------------------------------------------------------------------------------------------


def _push(m: _Machine, arg: Any) -> None:
    m.stack.append(arg)


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.stack.append(make())


def _mark(m: _Machine, _: Any) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _tuple(m: _Machine, _: Any) -> None:
    items = m.popmark()
    m.stack.append(tuple(items))


def _tuple_of(n: int) -> Callable[[_Machine, Any], None]:
    def step(m: _Machine, _: Any) -> None:
        if len(m.stack) < n:
            raise IndexError
        m.stack[-n:] = [tuple(m.stack[-n:])]

    return step


def _append(m: _Machine, _: Any) -> None:
    item = m.stack.pop()
    _is(m.stack[-1], list).append(_plain(item))


def _appends(m: _Machine, _: Any) -> None:
    items = m.popmark()
    _is(m.stack[-1], list).extend(map(_plain, items))


def _setitem(m: _Machine, _: Any) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _put(m.stack[-1], [key, value])


def _setitems(m: _Machine, _: Any) -> None:
    items = m.popmark()
    _put(m.stack[-1], items)


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _put(target: Any, items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):
            raise Refused("it names an array by something else than a string")
        _is(target, dict)[key] = _plain(value)


def _memoize(m: _Machine, _: Any) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _binput(m: _Machine, arg: int) -> None:
    m.memo[arg] = m.stack[-1]


def _binget(m: _Machine, arg: int) -> None:
    m.stack.append(m.memo[arg])


def _global(m: _Machine, arg: str) -> None:
    module, name = arg.split(" ", 1)
    _import(m, module, name)


def _stack_global(m: _Machine, _: Any) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    _import(m, _is(module, str), _is(name, str))


def _import(m: _Machine, module: str, name: str) -> None:
    if _Name(module, name) not in NAMES:
        raise Refused(f"it asks for {f'{module}.{name}'[:80]!r}")
    m.stack.append(_Name(module, name))


def _reduce(m: _Machine, _: Any) -> None:
    args, what = m.stack.pop(), m.stack.pop()
    if type(what) is not _Name or what not in m.calls:
        raise Refused("it calls something that makes no array")
    m.stack.append(m.calls[what](m, _is(args, tuple)))


def _build(m: _Machine, _: Any) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if type(target) is _Array:
        _, shape, dtype, fortran, raw = state
        target.value = m.array(raw, dtype, shape, "F" if fortran else "C")
    elif type(target) is _Dtype:
        if state[1] not in ("<", ">", "|") or any(part is not None for part in state[2:5]):
            raise Refused("it holds an array whose elements have fields")
        target.order = state[1]
    elif type(target) is not dict:  # the attributes of a module's state dict (_metadata) are of no use
        raise Refused("it changes something that is no array")


VALUES = (
    "BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 "
    "BYTEARRAY8"
).split()
STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(VALUES, _push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, arg: None),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "MARK": _mark,
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "MEMOIZE": _memoize,
    "BINPUT": _binput,
    "LONG_BINPUT": _binput,
    "BINGET": _binget,
    "LONG_BINGET": _binget,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}
