"""model.safetensors -> a module's tensors: header checked, shapes compared, then each tensor read into its own memory.

The format (https://huggingface.co/docs/safetensors): 8 bytes length of the header, the header as JSON, the numbers.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from xenomask.errors import XenomaskError, first_line
from xenomask.files import unique_keys

Shape = tuple[int, ...]
MAX_HEADER = 8 * 2**20  # bytes; a Swin-L's has 80 KB
MAX_BUFFERS = 128 * 2**20  # bytes that a network computes for itself; a Swin-L's are 4 MB
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type, its shape, and where in the file its bytes lie."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


def read_header(path: Path) -> dict[str, Entry]:
    """What a safetensors file holds, by name in the file's order, from its header alone.

    Raises XenomaskError unless the tensors fill the file exactly, one after the other, each with as many bytes as its
    shape says.
    """
    try:
        with path.open("rb") as f:
            return _entries(f)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        reason = getattr(e, "strerror", None) or first_line(e)
        raise XenomaskError(f"{path} is damaged or no safetensors file: {reason}") from e


def _entries(f: BinaryIO) -> dict[str, Entry]:
    total = os.fstat(f.fileno()).st_size
    length = int.from_bytes(f.read(8), "little")
    if total < 10 or not 2 <= length <= min(total - 8, MAX_HEADER):
        raise ValueError(f"its header claims {length} bytes of {total}")
    table = json.loads(f.read(length), object_pairs_hook=unique_keys)
    table.pop("__metadata__", None)
    found = {name: _entry(name, t, 8 + length) for name, t in table.items()}
    at = 8 + length
    for name, e in sorted(found.items(), key=lambda item: (item[1].start, item[1].size)):
        if e.start != at:
            raise ValueError(f"tensor {name[:80]!r} begins at byte {e.start}, where the one before it ends at {at}")
        at += e.size
    if at != total:
        raise ValueError(f"its tensors end at byte {at}, the file at {total}; copy it again")
    return found


def _entry(name: str, t: Mapping[str, Any], base: int) -> Entry:
    dtype, shape, (start, end) = t["dtype"], t["shape"], t["data_offsets"]
    if dtype not in DTYPES:
        raise ValueError(f"tensor {name[:80]!r} has the unknown type {str(dtype)[:20]!r}")
    if not all(type(n) is int and 0 <= n < 2**40 for n in (*shape, start, end)) or len(shape) > 8:
        raise ValueError(f"tensor {name[:80]!r} has the shape {str(shape)[:60]} at {str((start, end))[:60]}")
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if end - start != size:
        raise ValueError(f"tensor {name[:80]!r} of {size} bytes claims {end - start} bytes")
    return Entry(DTYPES[dtype], tuple(shape), base + start, size)


def check_shapes(own: Mapping[str, Tensor], found: Mapping[str, Any], where: str, config: str) -> None:
    """Raises XenomaskError that names the first few disagreements of two sets of named shapes."""
    shapes = [{k: tuple(t.shape) for k, t in named.items()} for named in (own, found)]
    refuse_others(f"{where} is of another architecture than its {config}", *shapes)


def refuse_others(
    says: str, wanted: Mapping[str, Shape], found: Mapping[str, Shape], whole: Iterable[str] = ()
) -> None:
    """Raises XenomaskError, which `says` begins, where the names and shapes differ, or where `whole` names any tensors.

    >>> refuse_others("a.pth is no net", {"a": (2,), "b": (3,)}, {"a": (2, 1), "c": ()})
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: a.pth is no net: it lacks 1 tensors (b); has unknown 1 tensors (c); has other ...
    """
    shapes = sorted(k for k in wanted.keys() & found.keys() if found[k] != wanted[k])
    shapes[:1] = [f"{k[:100]}: {found[k]} instead of {wanted[k]}" for k in shapes[:1]]
    missing, unknown = (
        [k[:100] for k in keys] for keys in (wanted.keys() - found.keys(), found.keys() - wanted.keys())
    )
    refuse(says, missing, unknown, shapes, whole)


def refuse(
    says: str, missing: Iterable[str], unknown: Iterable[str], shapes: Iterable[str], whole: Iterable[str] = ()
) -> None:
    """The same where it is known which tensors differ and how."""
    parts = []
    for what, names in (("lacks", missing), ("has unknown", unknown), ("has other shapes for", shapes),
                        ("has no floats in", whole)):  # fmt: skip
        if names := sorted(names):
            more = ", ..." if len(names) > 3 else ""
            parts.append(f"{what} {len(names)} tensors ({', '.join(k[:200] for k in names[:3])}{more})")
    if parts:
        raise XenomaskError(f"{says}: it {'; '.join(parts)}")


def fill(module: nn.Module, path: Path, header: Mapping[str, Entry]) -> None:
    """Gives a module that was built on the meta device the file's tensors, in the module's own types.

    Raises XenomaskError for a tensor that holds NaN or infinity.
    """
    own = module.state_dict()
    # NOTE: not mapped into memory, although that is quicker: a file cut short later would end the process by SIGBUS,
    # one written over would change the network, and mapped pages count as the process' memory too
    tensors = {k: as_type(t, own[k].dtype, k, path) for k, t in _tensors(path, header)}
    module.load_state_dict(tensors, assign=True)


def as_type(t: Tensor, dtype: torch.dtype, name: str, where: object) -> Tensor:
    """The tensor in that type; XenomaskError for NaN and infinity, and for numbers that the type cannot hold.

    >>> as_type(torch.tensor([1e300], dtype=torch.float64), torch.float32, "a", "file.pth")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: file.pth: tensor a holds NaN or infinity, so the network can see nothing
    """
    return refuse_nan(t.to(dtype), name, where)


def refuse_nan(t: Tensor, name: str, where: object) -> Tensor:
    """The tensor itself; XenomaskError where it holds NaN or infinity."""
    if not is_finite(t):
        raise XenomaskError(f"{where}: tensor {name} holds NaN or infinity, so the network can see nothing")
    return t


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file; raises XenomaskError for a damaged file and for NaN or infinity in it."""
    return dict(_tensors(path, read_header(path)))


def _tensors(path: Path, header: Mapping[str, Entry]) -> Iterator[tuple[str, Tensor]]:
    with path.open("rb", buffering=0) as f:
        for name, e in header.items():
            t = torch.empty(e.shape, dtype=e.dtype)
            f.seek(e.start)
            if e.size and _read_into(f, t) != e.size:
                raise XenomaskError(f"{path} was cut short while it was read")
            yield name, refuse_nan(t, name, path)


def is_finite(t: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    # the extremes are NaN where one number is
    return not t.is_floating_point() or not t.numel() or all(bool(x.isfinite()) for x in t.aminmax())


def _read_into(f: Any, t: Tensor) -> int:
    array: Any = t.reshape(-1).view(torch.uint8).numpy()
    view = memoryview(array)
    done = 0
    while done < len(view) and (n := f.readinto(view[done:])):  # Linux reads 2 GB at most at once
        done += n
    return done


def own_buffers(module: nn.Module) -> Iterable[tuple[nn.Module, str, Tensor]]:
    """The buffers that no file holds, as the network computes them itself, each with its owner and name."""
    for part in module.modules():
        for name in part._non_persistent_buffers_set:
            if (buffer := part._buffers.get(name)) is not None:
                yield part, name, buffer


def fill_buffers(module: nn.Module) -> bool:
    """Computes the buffers of a module on the meta device that no file holds; False where one is of an unknown kind."""
    missing = list(own_buffers(module))
    if not all(n == "relative_position_index" and hasattr(p, "_create_relative_position_index") for p, n, _ in missing):
        return False
    for part, name, _ in missing:  # a Swin's windows
        made: Any = part
        part._buffers[name] = made._create_relative_position_index().view(-1)
    return True
