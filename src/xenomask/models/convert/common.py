"""A foreign checkpoint's tensors under transformers' names, and a Mask2Former with them in it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig

from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.models.convert.checkpoint import as_tensor
from xenomask.models.convert.names import OPTIONAL, THIRDS, D, Names, first, fits, ours, theirs
from xenomask.models.network import Network, mask2former
from xenomask.models.weights import as_type, refuse_others

MAX_MODULES = 64  # of one kind: no network of these is that deep


@dataclass(frozen=True)
class Converted:
    """A network made from a foreign checkpoint, and why each tensor that was left out was."""

    network: Network
    dropped: Mapping[str, str]


@dataclass(frozen=True)
class Weights:
    """A checkpoint's tensors, PyTorch's or NumPy's, by the file's names, and where transformers' names are found."""

    tensors: Mapping[str, Any]
    found: Mapping[str, tuple[str, str]]  # transformers' name -> (the file's, what it is of that tensor)
    dropped: Mapping[str, str]  # the file's name -> why it is left out
    names: Names

    def source(self, name: str) -> tuple[str, str]:
        """The file's tensor for one of transformers', and what it is of it; of a missing one its name today."""
        return self.found.get(name) or theirs(name, self.names.table)

    def size(self, what: str, *places: tuple[str, int]) -> int:
        """The size that (transformers' name, axis) agree on, all of them.

        Raises XenomaskError that names tensors which are missing, too flat, empty, or contradict each other.
        """
        sizes = []
        for name, axis in places:
            source = self.source(name)[0]
            if name not in self.found:
                raise XenomaskError(f"tensor {source} is missing")
            shape = tuple(self.tensors[source].shape)
            if len(shape) <= axis or min(shape) < 1:
                raise XenomaskError(f"tensor {source} has the shape {shape}, too few axes or none of a size")
            sizes.append((source, shape[axis]))
        if len({n for _, n in sizes}) != 1:
            raise XenomaskError(
                f"{what}: {'; '.join(f'tensor {source} says {n}' for source, n in sizes[:6])}; they must agree"
            )
        return sizes[0][1]

    def count(self, pattern: str) -> int:
        """How many modules there are whose number is the pattern's group, from 0 on without a gap."""
        found = {int(m[1]): name for name in self.found if (m := re.match(pattern, name)) and len(m[1]) < 6}
        for i in range(len(found)):
            if i not in found:
                last = self.source(found[max(found)])[0]
                raise XenomaskError(f"tensor {last} is there, and number {i} of its kind is missing")
        if len(found) > MAX_MODULES:
            raise XenomaskError(f"it has {len(found)} modules like that of {self.source(found[0])[0]}: too many")
        return len(found)


def recognised(tensors: Mapping[str, Any], names: Names) -> Weights:
    """Finds transformers' name for each tensor; XenomaskError where two of the file's are the same one."""
    today = {name: first(name, names.earlier) or name for name in tensors}
    if len({*today.values()}) < len(today):
        raise XenomaskError("it has the same tensor under an old name and a new one")
    why = {name: next((w for p, w in names.dropped.items() if fits(new, [p])), None) for name, new in today.items()}
    dropped = {name: reason for name, reason in why.items() if reason is not None}
    kept = {name: ours(new, names.table) for name, new in today.items() if name not in dropped}
    found = {target: (name, part) for name, parts in kept.items() for target, part in parts.items()}
    return Weights(tensors, found, dropped, names)


@contextmanager
def refusing() -> Iterator[None]:
    """Turns a library's error about an impossible architecture into one line."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError) as e:
        text = " ".join(str(e).split())[:200]
        raise XenomaskError(f"its shapes describe no Mask2Former that can be built: {text}") from e


def build(config: Mask2FormerConfig, weights: Weights) -> nn.Module:
    """The network with these weights in it; compared by name, shape and type before memory is taken."""
    with torch.device("meta"):
        wanted = _empty(config).state_dict()
    compare(wanted, weights, "is no Mask2Former as its other shapes say")
    module = _empty(config)
    fill(module.state_dict(), weights)
    return module.eval()


def _empty(config: Mask2FormerConfig) -> nn.Module:
    with refusing():
        module = mask2former(config)
    pixel: Any = module.get_submodule(D.removesuffix("."))
    # what is built here must be what `load` builds from config.json alone
    if min(config.feature_strides[1:]) == 32 and pixel.num_feature_levels != 1:
        raise XenomaskError(
            "it has a pixel decoder whose attention sees stride 32 only, as RbA's models with one decoder layer; that "
            "of transformers always sees three strides, and cannot take these weights"
        )
    return module


def compare(wanted: Mapping[str, Tensor], w: Weights, otherwise: str, optional: Iterable[str] = ()) -> None:
    """Raises XenomaskError that names tensors which are missing, unknown, of another shape, or whole numbers."""
    expected: dict[str, Any] = {}
    for name, tensor in wanted.items():
        if name in w.found or not fits(name, (*OPTIONAL, *optional)):
            source, part = w.source(name)
            shape = tuple(tensor.shape)
            expected[source] = (3 * shape[0], *shape[1:]) if part in THIRDS else shape
    kept = {name: tuple(t.shape) for name, t in w.tensors.items() if name not in w.dropped}
    whole = {w.source(n)[0] for n, t in wanted.items() if t.is_floating_point() and n in w.found and _is_whole(w, n)}
    refuse_others(f"it {otherwise}", expected, kept, whole)


def _is_whole(w: Weights, name: str) -> bool:
    t = w.tensors[w.found[name][0]]
    return not (t.is_floating_point() if isinstance(t, Tensor) else t.dtype.kind == "f")


@torch.no_grad()
def fill(own: Mapping[str, Tensor], w: Weights) -> None:
    """Copies into `own` what is found; what is not keeps its value. XenomaskError for NaN or infinity."""
    for name in (name for name in own if name in w.found):
        source, part = w.found[name]
        value = as_tensor(w.tensors[source])
        if part in THIRDS:
            value = value.chunk(3)[int(part)]
        elif part == "merge":
            value = reordered(value)
        own[name].copy_(as_type(value, own[name].dtype, source, "the file"))


def reordered(tensor: Tensor) -> Tensor:
    """Patch merging's last axis from MMSegmentation's order (channel, pixel) to transformers' (pixel, channel).

    NOTE: MMSegmentation unfolds 2x2 pixels as (top left, top right, bottom left, bottom right), each channel's four
    together; Swin's authors, and transformers, go down the columns first.
    """
    four = tensor.reshape(*tensor.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]
    return four.transpose(-1, -2).reshape(tensor.shape)


def facts(path: Path, kind: str, backbone: str, w: Weights) -> dict[str, Any]:
    """What the model card keeps of any checkpoint that a network is from."""
    reasons = dict.fromkeys(w.dropped.values())
    return {
        "kind": kind, "file": path.name, "sha256": sha256(path), "backbone": backbone, "tensors": len(w.tensors),
        "dropped": {why: [n for n, w in w.dropped.items() if w == why] for why in reasons},
    }  # fmt: skip
