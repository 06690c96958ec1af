"""Reading a foreign PyTorch checkpoint as data: names and tensors come out, nothing in it is called.

Before PyTorch's own restricted unpickler sees the file, its zip directory and its pickle's opcodes are looked through.
"""

import contextlib
import pickletools
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xenomask.errors import XenomaskError

MB = 1024 * 1024
MAX_PICKLE = 192 * MB  # the message hub of a run of 160,000 iterations takes 120 MB
MAX_TEXT = 256 * MB  # that all its strings may take in memory
MAX_OPCODES = 1_000_000  # a Swin-L with its optimizer has some 100,000
MAX_EXTRA = 448 * MB  # memory that reading may take beside the file itself
FORBIDDEN = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "BYTEARRAY8", "NEXT_BUFFER"}
MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began its files before 1.6
ADVICE = "nothing of it was run; if you trust the file, keep only its state_dict: torch.save({'state_dict': ...}, ...)"


class Inert:
    """Takes the place of an object of MMEngine or NumPy in a checkpoint: holds nothing and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def inert(*args: object) -> Inert:
    """What a call of MMEngine's or NumPy's becomes."""
    return Inert()


# What a run's message hub (MMEngine's log of losses) is pickled with: each name is replaced, none is imported.
INERT: dict[str, Any] = {
    "mmengine.logging.history_buffer.HistoryBuffer": Inert,
    "numpy.ndarray": Inert,
    "numpy.dtype": Inert,
    "builtins.getattr": inert,
    **{f"numpy.{c}.multiarray.{f}": inert for c in ("core", "_core") for f in ("scalar", "_reconstruct")},
}
HARMLESS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_(tensor_v2|parameter)|_codecs\.encode"
    r"|torch\.(Float|Half|Double|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's tensors by name, and what it says of itself."""

    path: Path
    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]


def find_checkpoint(path: Path) -> Path:
    """The file itself; of a run's folder the one that `last_checkpoint` names, else its newest iter_N, else best_*."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise XenomaskError(f"there is no checkpoint {path}")
    with contextlib.suppress(OSError):
        with (path / "last_checkpoint").open("rb") as f:
            # NOTE: the run wrote an absolute path of its own machine; only the name still means something
            named = path / Path(f.read(4096).decode(errors="replace").strip().replace("\0", "")).name
        if named.is_file():
            return named
    for pattern in ("iter_*.pth", "epoch_*.pth", "best_*.pth"):
        numbered = [(int(m[1]), p) for p in path.glob(pattern) if (m := re.search(r"_(\d{1,9})\.pth$", p.name))]
        if numbered:
            return max(numbered)[1]
    raise XenomaskError(f"{path} holds no checkpoint: no last_checkpoint that is there, no iter_N.pth, no best_*.pth")


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a file that `torch.save` wrote, or the newest one of a run's folder.

    Raises XenomaskError for damage, for a pickle that wants to call or import, for a zip bomb.
    """
    path = find_checkpoint(path)
    content = read_torch(path)
    inner = state_dict(content)
    tensors = {str(k).removeprefix("module."): v for k, v in inner.items() if isinstance(v, Tensor)}
    if not tensors:
        raise XenomaskError(f"{path} holds no tensors by name, so it is no checkpoint")
    for name, tensor in tensors.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name):
            raise XenomaskError(f"{path} has a tensor of the name {name[:60]!r}, which no layer can have")
        _check_tensor(path, name, tensor)
    if sum(t.numel() * t.element_size() for t in tensors.values()) > path.stat().st_size:
        raise XenomaskError(f"{path}: its tensors share their bytes: together they claim more than the file has")
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return Checkpoint(path, tensors, meta if isinstance(meta, Mapping) else {})


def state_dict(content: Any) -> Mapping[Any, Any]:
    """The part of a checkpoint that holds the weights; {} where there is none."""
    if not isinstance(content, Mapping):
        return {}
    # NOTE: mmengine says state_dict, detectron2 model; a bare state dict has neither
    return next((content[k] for k in ("state_dict", "model") if isinstance(content.get(k), Mapping)), content)


def is_torch_file(path: Path) -> bool:
    """Whether `torch.save` may have written it, by its first bytes."""
    with path.open("rb") as f:
        head = f.read(32)
    return head.startswith(b"PK") or MAGIC in head


def read_torch(path: Path) -> Any:
    """What the file holds, its tensors still on the disk (mapped into memory)."""
    try:
        with memory_limit(path.stat().st_size + MAX_EXTRA):
            return _read(path)
    except XenomaskError:
        raise
    except OSError as e:
        raise XenomaskError(f"{path} cannot be read: {e.strerror or e}") from e
    except MemoryError as e:
        raise XenomaskError(f"{path} needs far more memory than a checkpoint does; {ADVICE}") from e
    except Exception as e:  # a hostile pickle can make an unpickler raise anything at all
        # torch's advice to load without its guard is not passed on, only what it stumbled over
        lines = str(e).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
        raise XenomaskError(f"{path} is damaged: {lines[0][:200] if lines else type(e).__name__}; {ADVICE}") from e


def _read(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        size = _check_zip(path)
    elif is_torch_file(path):
        size = _check_legacy(path)
    else:
        raise XenomaskError(f"{path} is no file of torch.save: it begins as neither a zip nor a pickle of its kind")
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in INERT.items()]
    # texts come as bytes, str and encoded: four times its size is ample for an honest pickle
    extra = min(128 * MB + 4 * size, MAX_EXTRA)
    with memory_limit(path.stat().st_size + extra), torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _check_zip(path: Path) -> int:
    """Raises XenomaskError for what torch.save does not write; gives the pickle's size."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch stores its tensors as they are; what is packed, or larger than the file, is a bomb
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise XenomaskError(f"{path} is a compressed zip, which torch.save never writes")
        if sum(e.file_size for e in entries) > path.stat().st_size:
            raise XenomaskError(f"{path} is a zip whose entries claim more bytes than it has")
        pickles = [e for e in entries if e.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise XenomaskError(f"{path} is a zip, but not one of torch.save: it has {len(pickles)} entries */data.pkl")
        if pickles[0].file_size > MAX_PICKLE:
            raise XenomaskError(f"{path} has a pickle of {pickles[0].file_size // MB} MB, far more than a checkpoint's")
        with archive.open(pickles[0]) as f:
            _check_opcodes(path, f.read())
        return pickles[0].file_size


def _check_legacy(path: Path) -> int:
    with path.open("rb") as f:
        if f.read(2) == b"PK":
            raise XenomaskError(f"{path} is a zip that was cut off; copy it again")
        f.seek(0)
        for _ in range(5):  # magic, protocol, system, the content, the names of its storages; then their bytes
            _check_opcodes(path, f)
        return f.tell()


def _check_opcodes(path: Path, stream: Any) -> None:
    """Goes through a pickle without doing what it says."""
    opcodes = memory = 0
    for opcode, argument, _ in pickletools.genops(stream):
        opcodes += 1
        memory += sys.getsizeof(argument) if isinstance(argument, str | bytes | int) else 0
        if opcodes > MAX_OPCODES or memory > MAX_TEXT:
            raise XenomaskError(f"{path} has a pickle far larger than a checkpoint's; {ADVICE}")
        if opcode.name == "GLOBAL":
            name = str(argument).replace(" ", ".", 1).replace("__builtin__.", "builtins.", 1)
            if name not in INERT and not HARMLESS.fullmatch(name):
                raise XenomaskError(f"{path} asks for {name[:80]!r}, which no checkpoint needs; {ADVICE}")
        elif opcode.name in FORBIDDEN:
            raise XenomaskError(f"{path} has a pickle that torch.save does not write ({opcode.name}); {ADVICE}")


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    # a stride of 0 lets four bytes claim any size
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise XenomaskError(f"{path}: tensor {name} {tuple(tensor.shape)} is not stored in full, element by element")


@contextlib.contextmanager
def memory_limit(extra: int) -> Iterator[None]:
    """Inside, the process may take only `extra` bytes more of address space: a bomb becomes a MemoryError (Linux)."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # no Linux: the other checks must do
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + extra if soft == resource.RLIM_INFINITY else min(soft, used + extra)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
