"""Reading a foreign PyTorch checkpoint as data: names and tensors come out, nothing in it is called.

Before PyTorch's own restricted unpickler sees the file, its zip directory is checked and its pickle stepped through.
"""

import contextlib
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xenomask.errors import XenomaskError
from xenomask.models.convert.arrays import Refused
from xenomask.models.convert.torchfile import check_legacy, check_zip
from xenomask.models.weights import read_tensors, refuse_nan

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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's tensors by name, and its metadata."""

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
    if len(single := [*path.glob("*.safetensors")]) == 1:
        return single[0]
    raise XenomaskError(
        f"{path} holds no checkpoint: no last_checkpoint that is there, no iter_N.pth, no best_*.pth, no single "
        ".safetensors"
    )


def read_checkpoint(path: Path, content: Any = None) -> Checkpoint:
    """Reads a file that `torch.save` wrote, or the newest one of a run's folder; `content` where it was read before.

    Raises XenomaskError for damage, for a pickle that wants to call or import, for a zip bomb.
    """
    path = find_checkpoint(path)
    content = read_content(path) if content is None else content
    tensors = named_tensors(content, path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return Checkpoint(path, tensors, meta if isinstance(meta, Mapping) else {})


# Where trainers keep the weights (mmengine: state_dict, detectron2: model), and where their running average.
# NOTE: not mmengine's ema_state_dict: its state_dict is the average, and that is what its users test
WEIGHTS = ("state_dict", "model", "model_state_dict", "model_state", "module", "network", "net", "weights")
AVERAGES = ("state_dict_ema", "model_ema", "ema", "params_ema", "model_state_dict_ema")
# What PyTorch puts into the names of modules that it wraps, at any depth.
WRAPPED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
PROJECTS = ["backbone.", "decode_head.", "sem_seg_head."]  # how names of tensors begin; formats add theirs


def state_dict(content: Any, path: Path) -> Mapping[Any, Any]:
    """The part of a checkpoint that holds the weights; {} where there is none.

    Raises XenomaskError where weights and their running average lie side by side: they are two networks.
    """
    if not isinstance(content, Mapping):
        return {}
    weights, averages = ([k for k in keys if isinstance(content.get(k), Mapping)] for keys in (WEIGHTS, AVERAGES))
    if weights and averages:
        raise XenomaskError(
            f"{path} holds two networks, {weights[0]!r} and its average {averages[0]!r}: keep the one that you mean, "
            f"torch.save({{'state_dict': checkpoint['{averages[0]}']}}, ...)"
        )
    inner = next((content[k] for k in (*weights, *averages)), None)
    return content if inner is None else inner


def of_a_project(name: str) -> bool:
    """Whether a tensor's name begins as those of a known format (MMSegmentation, detectron2, ...) do."""
    return name.startswith(tuple(PROJECTS))


def bare_names(names: Iterable[str], known: Callable[[str], bool], where: Path) -> dict[str, str]:
    """Each name with the same name freed of what wrappers put before it (DDP, torch.compile, Lightning, ...).

    `known` decides whether a name needs no freeing. Names that stand outside the wrapper stay as they are. Raises
    XenomaskError where there are several wrappers, thus several networks, and where two names become one.
    """
    found = {name: WRAPPED.sub("", name) for name in names}
    prefixes: set[str] = set()
    if not any(known(bare) for bare in found.values()):
        for bare in found.values():
            parts = bare.split(".")
            cut = next((i for i in range(1, min(4, len(parts))) if known(".".join(parts[i:]))), 0)
            prefixes |= {".".join(parts[:cut]) + "."} if cut else set()
    if len(prefixes) > 1:
        several = ", ".join(repr(p[:60]) for p in sorted(prefixes)[:3])
        raise XenomaskError(f"{where} holds several networks, their tensors under {several}: keep one of them")
    found = {name: bare.removeprefix("".join(prefixes)) for name, bare in found.items()}
    if len({*found.values()}) < len(found):
        raise XenomaskError(f"{where} has the same tensor twice, with a wrapper's name and without: keep one of them")
    return found


def named_tensors(content: Any, path: Path, known: Callable[[str], bool] = of_a_project) -> dict[str, Any]:
    """The tensors in what a file holds, PyTorch's or NumPy's, by name without a wrapper's prefix; `known` as above.

    What stands beside them (iteration, author, optimizer) is passed over. Raises XenomaskError for names that no layer
    can have, for what is no tensor or not stored in full, for tensors that share their bytes, and for NaN or infinity.
    """
    inner = state_dict(content, path)
    found = {str(k): v for k, v in inner.items() if inner is not content or isinstance(v, Tensor | np.ndarray)}
    if not found:
        raise XenomaskError(f"{path} holds no tensors by name, so it is no checkpoint")
    bare = bare_names(found, known, path)
    tensors = {bare[k]: v for k, v in found.items()}
    for name, value in tensors.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name):
            raise XenomaskError(f"{path} has a tensor of the name {name[:60]!r}, which no layer can have")
        _check_tensor(path, name, value)
    if sum(value.nbytes for value in tensors.values()) > path.stat().st_size:
        raise XenomaskError(f"{path}: its tensors share their bytes: together they claim more than the file has")
    for name, value in tensors.items():
        if not name.startswith("pixel_"):  # what is wrong with detectron2's mean or deviation, its converter says
            refuse_nan(as_tensor(value), name, path)
    return tensors


def as_tensor(value: np.ndarray | Tensor) -> Tensor:
    """The array as a tensor of this machine's byte order."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, by its first bytes: a length and the beginning of a JSON object."""
    with path.open("rb") as f:
        head = f.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def read_content(path: Path) -> Any:
    """What a file of torch.save or safetensors holds; raises XenomaskError as `read_torch` and `read_tensors` do."""
    return read_tensors(path) if is_safetensors(path) else read_torch(path)


def is_torch_file(path: Path) -> bool:
    """Whether `torch.save` may have written it, by its first bytes."""
    with path.open("rb") as f:
        head = f.read(32)
    return head.startswith(b"PK") or MAGIC in head


def read_torch(path: Path) -> Any:
    """What the file holds, its tensors still on the disk (mapped into memory) where the format allows it.

    Raises XenomaskError for damage, for a pickle that wants to call or import, for a zip bomb.
    """
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            check_zip(path)
        elif is_torch_file(path):
            check_legacy(path)
        else:
            raise XenomaskError(f"{path} is no file of torch.save: it begins as neither a zip nor a pickle of its kind")
        stand_ins: list[Any] = [(stand_in, name) for name, stand_in in INERT.items()]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except XenomaskError:
        raise
    except Refused as e:
        raise XenomaskError(f"{path} is refused: {e}; {ADVICE}") from e
    except OSError as e:
        raise XenomaskError(f"{path} cannot be read: {e.strerror or e}") from e
    except Exception as e:  # a damaged archive can make zipfile and torch raise anything at all
        # torch's advice to load without its guard is not passed on, only what it stumbled over
        lines = str(e).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
        raise XenomaskError(f"{path} is damaged: {lines[0][:200] if lines else type(e).__name__}; {ADVICE}") from e


def _check_tensor(path: Path, name: str, value: Any) -> None:
    if isinstance(value, np.ndarray):
        return
    if not isinstance(value, Tensor):
        raise XenomaskError(f"{path}: {name!r} is no dense tensor; keep only the model's state dict")
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    # a stride of 0 lets four bytes claim any size
    if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise XenomaskError(f"{path}: tensor {name} {tuple(value.shape)} is not stored in full, element by element")
