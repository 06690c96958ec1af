"""ImageNet's Swin weights -> transformers' SwinBackbone: microsoft/Swin-Transformer's names, timm's, Hugging Face's.

microsoft's are detectron2's without its prefix, so the table is that converter's. All three merge patches in the same
order (column outermost, then row, then channel), so no channel is moved; tests/train/test_init.py holds the features
of each against timm's.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xenomask.errors import XenomaskError
from xenomask.models.convert.checkpoint import bare_names, is_torch_file, read_torch, state_dict
from xenomask.models.convert.detectron2_names import E, source_of
from xenomask.models.weights import as_type, read_tensors

FILES = ("model.safetensors", "pytorch_model.bin")  # of a Hub folder, the first that is there
# what a classifier has beside its backbone, and what follows from the window's size
LEFT_OUT = re.compile(r"(head|classifier|norm|layernorm|pooler|hidden_states_norms)\..*|.*(attn_mask|position_index)")
# how names of microsoft's and timm's begin, and Hugging Face's
BEGINNINGS = ("patch_embed.", "layers.", "layers_", "embeddings.", "encoder.", "swin.")
HEADS = {"decode_head", "sem_seg_head"}
FRESH = "hidden_states_norms."  # the norms of the four outputs, which no classifier has
HF4 = {  # transformers 5: 4, which is also how both write files
    "attention.q_proj": "attention.self.query",
    "attention.k_proj": "attention.self.key",
    "attention.v_proj": "attention.self.value",
    "attention.o_proj": "attention.output.dense",
    "attention.relative_position_bias.": "attention.self.",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


@dataclass(frozen=True)
class Shape:
    """What tells one Swin from another; windows and heads by stage."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]

    def __str__(self) -> str:
        depths, heads = ("-".join(map(str, numbers)) for numbers in (self.depths, self.heads))
        windows = "/".join(map(str, dict.fromkeys(self.windows)))
        return f"width {self.width}, depths {depths}, heads {heads}, window {windows}"


def load_swin(backbone: nn.Module, path: Path, name: str) -> None:
    """Fills a SwinBackbone from an ImageNet Swin's file, or a Hub folder; the norms of its outputs stay as they are.

    `name` is the network's, for errors. Raises XenomaskError for another width, depth or window, for tensors that are
    missing or unknown, and for what is no file of plain tensors.
    """
    path = _file(path)
    found = _read(path)
    own = backbone.state_dict()
    theirs, ours = _shape(found), _shape(own)
    if theirs is None:
        some = ", ".join(sorted(found)[:3])
        raise XenomaskError(f"{path} holds no Swin Transformer of microsoft's, timm's or Hugging Face's names: {some}")
    if theirs != ours:
        raise XenomaskError(f"{path} holds a Swin of {theirs}; the preset {name} has {ours}: another file is needed")
    last = "swin.layernorm."  # transformers builds it and never calls it; a feature extractor of timm's lacks it
    plan = {k: _find(k, found) for k in own if not k.startswith(FRESH)}
    missing = sorted(k for k, source in plan.items() if source is None and not k.startswith(last))
    plan = {k: source for k, source in plan.items() if source is not None}
    used = {source for source, _ in plan.values()}
    unknown = sorted(k for k in found.keys() - used if not LEFT_OUT.fullmatch(k))
    wrong = [k for k, (source, third) in plan.items() if _part(found[source], third).shape != own[k].shape]
    for what, names in (("lacks", missing), ("has unknown", unknown), ("has other shapes for", wrong)):
        if names:
            more = ", ..." if len(names) > 3 else ""
            raise XenomaskError(
                f"{path} does not fit the preset {name}: it {what} {len(names)} tensors ({', '.join(names[:3])}{more})"
            )
    for k, (source, third) in plan.items():
        value = _part(found[source], third)
        if not value.is_floating_point():
            raise XenomaskError(f"{path}: tensor {source} holds no floats")
        own[k].copy_(as_type(value, own[k].dtype, source, path))


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if found := [path / f for f in FILES if (path / f).is_file()]:
        return found[0]
    raise XenomaskError(f"{path} holds no weights: neither {' nor '.join(FILES)}")


def _read(path: Path) -> dict[str, Tensor]:
    """The file's dense tensors by name, without a wrapper's prefix."""
    try:
        pickled = is_torch_file(path)
    except OSError as e:
        raise XenomaskError(
            f"no such weights: {path} ({e.strerror}); the recipe's comment says where to get them"
        ) from e
    content: Mapping[Any, Any] = state_dict(read_torch(path), path) if pickled else read_tensors(path)
    if any(HEADS & {*str(name).split(".")} for name in content):
        raise XenomaskError(
            f"{path} is a whole network of MMSegmentation or detectron2: run `xenomask convert {path} --out FOLDER` "
            "and set init to that folder"
        )
    bare = bare_names(map(str, content), lambda name: name.startswith(BEGINNINGS), path)
    names = {k: v.removeprefix("swin.") for k, v in bare.items()}
    if odd := [k for k, v in content.items() if not isinstance(v, Tensor) or v.layout != torch.strided]:
        raise XenomaskError(f"{path}: {str(odd[0])[:80]!r} is no dense tensor; keep only the model's state dict")
    return {names[str(k)]: v for k, v in content.items()}


def _shape(tensors: Mapping[str, Tensor]) -> Shape | None:
    """The shape that the names and tables tell, the same in all three naming schemes; None where they tell none."""
    block = re.compile(r".*layers\.(\d{1,2})\.blocks\.(\d{1,3})\..*relative_position_bias_table")
    tables = {(int(m[1]), int(m[2])): v for k, v in tensors.items() if (m := block.fullmatch(k)) and v.dim() == 2}
    patches = [v for k, v in tensors.items() if re.search(r"patch_embed(dings)?\.proj(ection)?\.weight$", k)]
    stages = sorted({i for i, _ in tables})
    if not patches or not tables or patches[0].dim() == 0 or any((i, 0) not in tables for i in stages):
        return None
    first = [tables[i, 0].shape for i in stages]
    return Shape(
        width=patches[0].shape[0],
        depths=tuple(sum(i == stage for i, _ in tables) for stage in stages),
        heads=tuple(heads for _, heads in first),
        windows=tuple((math.isqrt(rows) + 1) // 2 for rows, _ in first),
    )


def _find(name: str, tensors: Mapping[str, Tensor]) -> tuple[str, int | None] | None:
    """The file's tensor for one of the backbone's, and which third of it, if a third; None where there is none."""
    bare = name.removeprefix("swin.")
    old = bare
    for new, written in HF4.items():
        old = old.replace(new, written)
    if bare.startswith("layernorm."):
        microsoft, third = bare.replace("layernorm", "norm"), None
    else:
        source, third = source_of(f"{E}.{name}")
        microsoft = source.removeprefix("backbone.")
    # NOTE: timm (from 0.9 on) merges at the start of a stage, all others at the end of the one before
    timm = re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", microsoft)
    at_start = "layers.0.downsample.reduction.weight" not in tensors
    for candidate, part in ((bare, None), (old, None), (timm if at_start else microsoft, third)):
        if candidate in tensors:
            return candidate, part
    return None


def _part(tensor: Tensor, third: int | None) -> Tensor:
    return tensor if third is None or tensor.dim() == 0 or len(tensor) % 3 else tensor.chunk(3)[third]
