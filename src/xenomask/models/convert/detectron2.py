"""detectron2's Mask2Former (facebookresearch/Mask2Former, and RbA and Open-set-M2F, which build on it) -> Network.

The architecture is read from the shapes alone. Then every tensor that the network needs is looked up under the name
that the original gives it; what is left over must be on the short list of the knowingly dropped.

Not to be seen in the weights, and without a config taken from the published ones: pre_norm off, stride in a ResNet's
3x3 convolution, as many attention heads in the decoder as in the pixel decoder.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, ResNetConfig, SwinConfig

from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.models.convert.arrays import read_arrays
from xenomask.models.convert.checkpoint import (
    bare_names,
    is_safetensors,
    is_torch_file,
    of_a_project,
    read_content,
    state_dict,
)
from xenomask.models.convert.common import Converted
from xenomask.models.convert.detectron2_config import check_config
from xenomask.models.convert.detectron2_names import HEAD, OWN, PIXEL, QUERY, D, source_of, why_dropped
from xenomask.models.convert.entries import Entries
from xenomask.models.convert.yamlconfig import read_yaml
from xenomask.models.network import Network, mask2former
from xenomask.models.preprocess import Preprocess
from xenomask.models.presets import STAGES, without_warnings
from xenomask.models.weights import as_type, is_finite
from xenomask.types import CITYSCAPES_CLASSES

BACKBONES = {  # by width and depths
    (96, 2, 2, 6, 2): "swin-t",
    (96, 2, 2, 18, 2): "swin-s",
    (128, 2, 2, 18, 2): "swin-b",
    (192, 2, 2, 18, 2): "swin-l",
    (64, 3, 4, 6, 3): "resnet-50",
    (64, 3, 4, 23, 3): "resnet-101",
}


@dataclass(frozen=True)
class Sources:
    """The checkpoint's arrays by detectron2's current names, and what each was called in the file."""

    arrays: Mapping[str, Any]
    called: Mapping[str, str]
    where: str

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of an array that the architecture is read from."""
        if name not in self.arrays:
            raise XenomaskError(
                f"{self.where} lacks {name}: it is no Mask2Former of detectron2 with a Swin or a ResNet backbone"
            )
        shape = tuple(self.arrays[name].shape)
        if len(shape) != rank or min(shape) < 1:
            raise XenomaskError(f"{self.where}: {self.called[name]} has the shape {shape}, not one of {rank} sides")
        return shape

    def count(self, prefix: str) -> int:
        """How many numbered modules there are below `prefix`, by the highest number."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
        n = max((int(found[1]) + 1 for name in self.arrays if (found := pattern.match(name))), default=0)
        if n > 64:
            raise XenomaskError(f"{self.where} has a module {prefix}.{n - 1}: no network of this kind is that deep")
        return n


def convert_detectron2(
    path: Path, *, outlier_class: bool | None = None, content: Any = None, config: Path | None = None
) -> Converted:
    """Reads a .pkl or .pth of detectron2's Mask2Former; the file is never run.

    `outlier_class`: whether the last class before "no object" stands for outliers, as in Open-set-M2F's UNO
    (`NUM_CLASSES: 20`). The weights cannot tell; None takes 20 classes as Cityscapes' 19 and outliers, and any other
    number as none. `content` is what the file holds, where it was read before. `config` is the run's config.yaml.
    Raises XenomaskError for a file that holds more than arrays, for tensors missing, unknown or of another shape, by
    their names, and for an entry of the config that contradicts the weights or cannot be honoured.
    """
    sources = _sources(path, content)
    network_config = _config(sources, outlier_class)
    preprocess = _preprocess(sources, network_config, config)
    with torch.device("meta"):  # shapes without memory: they are compared before anything is allocated
        wanted = _build(network_config, sources).state_dict()
    plan = {name: source_of(name) for name in wanted if name not in OWN and not name.endswith("num_batches_tracked")}
    _compare(sources, wanted, plan)
    module = _build(network_config, sources)
    _fill(module, sources, plan)
    dropped = _dropped(sources, module, plan)
    told_by = config.name if config else "none: recognised by shapes, published preprocessing"
    facts = {"converted": {"config": told_by} | _facts(path, sources, network_config, dropped)}
    return Converted(Network(module.eval(), network_config, preprocess, facts=facts), dropped)


def _facts(path: Path, s: Sources, config: Any, dropped: Mapping[str, str]) -> dict[str, Any]:
    """What the model card keeps of where the network is from."""
    b, last = config.backbone_config, config.num_labels - 1
    width = b.embed_dim if b.model_type == "swin" else b.embedding_size
    return {
        "kind": "detectron2",
        "file": path.name,
        "sha256": sha256(path),
        "backbone": BACKBONES.get((width, *b.depths), f"{b.model_type} of width {width} and depths {list(b.depths)}"),
        "tensors": len(s.arrays),
        "dropped": {why: [n for n, w in dropped.items() if w == why] for why in dict.fromkeys(dropped.values())},
        "outlier_class": last if config.id2label[last] == "outlier" else None,
    }


# --- the file ----------------------------------------------------------------------------------------------------


def _sources(path: Path, found: Any = None) -> Sources:
    if found is None:
        found = read_content(path) if is_torch_file(path) or is_safetensors(path) else read_arrays(path)
    tensors = state_dict(found, path)  # beside it: the optimizer's state, the author, the iteration
    if not tensors:
        raise XenomaskError(f"{path} holds no 'model': a dict of named tensors")
    total, arrays, called = 0, {}, {}
    bare = bare_names(map(str, tensors), of_a_project, path)
    for name, value in tensors.items():
        dense = value.layout == torch.strided if isinstance(value, Tensor) else isinstance(value, np.ndarray)
        if not dense:
            raise XenomaskError(f"{path}: {str(name)[:80]!r} is no dense tensor; convert the file of the model alone")
        total += value.nbytes
        current = _current(bare[str(name)])
        arrays[current], called[current] = value, str(name)
    if len(arrays) != len(tensors):
        raise XenomaskError(f"{path} has the same tensor under an old name and a new one")
    if total > path.stat().st_size:  # views of one storage: each would become memory of its own
        raise XenomaskError(f"{path} is refused: its tensors claim {total} bytes, more than the file has")
    for name, value in arrays.items():  # what is wrong with a mean or a deviation, _preprocess says
        if not name.startswith("pixel_") and not is_finite(_tensor(value)):
            raise XenomaskError(f"{path}: tensor {called[name]} holds NaN or infinity, so the network can see nothing")
    return Sources(arrays, called, str(path))


def _current(name: str) -> str:
    """The name as of Mask2Former's present code, which renames older checkpoints in the same way."""
    if name.startswith(f"{HEAD}.") and not name.startswith((f"{PIXEL}.", f"{QUERY}.")):
        name = name.replace(HEAD, PIXEL, 1)
    return name.replace(f"{QUERY}.static_query.", f"{QUERY}.query_feat.")


# --- the architecture --------------------------------------------------------------------------------------------


def _config(s: Sources, outlier_class: bool | None) -> Mask2FormerConfig:
    queries, hidden = s.shape(f"{QUERY}.query_feat.weight", 2)
    levels, feature = s.shape(f"{PIXEL}.transformer.level_embed", 2)
    attention = f"{PIXEL}.transformer.encoder.layers.0"
    rows = s.shape(f"{attention}.self_attn.attention_weights.weight", 2)[0]
    classes = s.shape(f"{QUERY}.class_embed.weight", 2)[0] - 1
    heads = rows // (levels * 4)  # 4 points per head and level, everywhere
    names = _classes(classes, outlier_class)
    with without_warnings(), _refusing(s):
        if levels not in (1, 3) or feature % 32 or not heads or feature % heads or hidden % heads or classes < 1:
            raise ValueError(f"{levels} levels, {feature} features, {heads} heads, {classes} classes")
        return Mask2FormerConfig(
            backbone_config=_backbone(s), feature_size=feature, hidden_dim=hidden,
            mask_feature_size=s.shape(f"{PIXEL}.mask_features.weight", 4)[0],
            encoder_feedforward_dim=s.shape(f"{attention}.linear1.weight", 2)[0],
            dim_feedforward=s.shape(f"{QUERY}.transformer_ffn_layers.0.linear1.weight", 2)[0],
            encoder_layers=s.count(f"{PIXEL}.transformer.encoder.layers"),
            # transformers counts the bare queries as a layer, as detectron2's DEC_LAYERS does
            decoder_layers=s.count(f"{QUERY}.transformer_ffn_layers") + 1,
            num_attention_heads=heads, num_queries=queries,
            enforce_input_projection=any(name.startswith(f"{QUERY}.input_proj.") for name in s.arrays),
            # RbA's pixel decoder attends on stride 32 only; the other three strides are convolutions (one_level)
            feature_strides=(4, 8, 16, 32) if levels == 3 else (4, 32, 32, 32),
            id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
        )  # fmt: skip


def _classes(n: int, outlier_class: bool | None) -> list[str]:
    known = len(CITYSCAPES_CLASSES)
    has = n == known + 1 if outlier_class is None else outlier_class
    inliers = n - 1 if has else n
    names: list[str] = [*CITYSCAPES_CLASSES] if inliers == known else [f"class {i}" for i in range(inliers)]
    return [*names, "outlier"] if has else names


def _backbone(s: Sources) -> SwinConfig | ResNetConfig:
    if any(name.startswith("backbone.res2.") for name in s.arrays):
        stages = [f"backbone.res{i}" for i in range(2, 6)]
        if "backbone.res2.0.conv3.weight" not in s.arrays:
            raise XenomaskError(f"{s.where} has a ResNet of two convolutions a block (R18, R34): not supported")
        return ResNetConfig(
            embedding_size=s.shape("backbone.stem.conv1.weight", 4)[0],
            hidden_sizes=[s.shape(f"{stage}.0.conv3.weight", 4)[0] for stage in stages],
            depths=[s.count(stage) for stage in stages],
            **STAGES,
        )
    embed, _, patch, _ = s.shape("backbone.patch_embed.proj.weight", 4)
    blocks = [f"backbone.layers.{i}.blocks" for i in range(s.count("backbone.layers"))]
    tables = [s.shape(f"{b}.0.attn.relative_position_bias_table", 2) for b in blocks]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    if len(blocks) != 4 or not 2 <= window <= 16 or any((embed << i) % t[1] for i, t in enumerate(tables)):
        raise ValueError(f"a Swin of {len(blocks)} stages, window {window}, heads {[t[1] for t in tables]}")
    return SwinConfig(
        image_size=32 * window, patch_size=patch, embed_dim=embed, depths=[s.count(b) for b in blocks],
        num_heads=[heads for _, heads in tables], window_size=window, drop_path_rate=0.3,
        mlp_ratio=s.shape(f"{blocks[0]}.0.mlp.fc1.weight", 2)[0] / embed,
        qkv_bias=any(name.endswith(".attn.qkv.bias") for name in s.arrays), **STAGES,
    )  # fmt: skip


@contextmanager
def _refusing(s: Sources) -> Iterator[None]:
    """Turns a library's error about an impossible architecture into one line about the file."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError) as e:
        text = " ".join(str(e).split())[:200]
        raise XenomaskError(f"the shapes in {s.where} describe no Mask2Former that can be built: {text}") from e


def _build(config: Mask2FormerConfig, s: Sources) -> nn.Module:
    with _refusing(s):
        module = mask2former(config)
    pixel: Any = module.get_submodule(D)
    # what is built here must be what `load` builds from config.json alone
    if min(config.feature_strides[1:]) == 32 and pixel.num_feature_levels != 1:
        raise XenomaskError(
            f"{s.where} has a pixel decoder whose attention sees stride 32 only, as RbA's models with one decoder "
            "layer; that of transformers always sees three strides, and cannot take these weights"
        )
    return module


# --- the tensors -------------------------------------------------------------------------------------------------


def _compare(s: Sources, wanted: Mapping[str, Tensor], plan: Mapping[str, tuple[str, int | None]]) -> None:
    """Refuses missing, unknown and misshapen tensors, by name."""
    expected = {}
    for name, (source, third) in plan.items():
        rows, *rest = wanted[name].shape
        expected[source] = (rows if third is None else 3 * rows, *rest)
    named = {source: s.called.get(source, source) for source in {*expected, *s.arrays}}
    missing = [named[n] for n in sorted(expected.keys() - s.arrays.keys())]
    unknown = [named[n] for n in sorted(s.arrays.keys() - expected.keys()) if not why_dropped(n)]
    shapes = [
        f"{named[n]}: {tuple(s.arrays[n].shape)} instead of {shape}"
        for n, shape in expected.items()
        if n in s.arrays and tuple(s.arrays[n].shape) != shape
    ]
    kinds = [named[n] for n in expected if n in s.arrays and not _is_float(s.arrays[n])]
    parts = [
        f"{what} {len(names)} tensors ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("lacks", missing),
            ("has unknown", unknown),
            ("has other shapes for", shapes),
            ("has no floats in", kinds),
        )
        if names
    ]
    if parts:
        raise XenomaskError(f"{s.where} is no Mask2Former of detectron2 as its other shapes say: it {'; '.join(parts)}")


def _is_float(value: np.ndarray | Tensor) -> bool:
    return value.is_floating_point() if isinstance(value, Tensor) else value.dtype.kind == "f"


def _tensor(value: np.ndarray | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))


@torch.no_grad()
def _fill(module: nn.Module, s: Sources, plan: Mapping[str, tuple[str, int | None]]) -> None:
    own = module.state_dict()
    for name, (source, third) in plan.items():
        value = as_type(_tensor(s.arrays[source]), torch.float32, source, "the file")
        own[name].copy_(value if third is None else value.chunk(3)[third])


def _dropped(s: Sources, module: nn.Module, plan: Mapping[str, tuple[str, int | None]]) -> dict[str, str]:
    """Each dropped tensor with its reason; a window's index must be the one that the network computes."""
    ours = {source: name for name, (source, _) in plan.items()}
    for name, value in s.arrays.items():
        table = ours.get(name.removesuffix("_index") + "_bias_table")
        if table and name.endswith(".relative_position_index"):
            bias: Any = module.get_submodule(table.removesuffix(".relative_position_bias_table"))
            if not torch.equal(_tensor(value).flatten().long(), bias.relative_position_index):
                raise XenomaskError(f"{s.where}: {s.called[name]} is not the usual order of a window's positions")
    return {s.called[n]: why for n in s.arrays if (why := why_dropped(n))}


def _preprocess(s: Sources, network_config: Mask2FormerConfig, config: Path | None) -> Preprocess:
    """How photos are prepared at test time: the config's way, else the published one with the file's mean and std."""
    stored = {name: _pixels(s, name) for name in ("mean", "std")}
    # detectron2 resizes by Pillow, which averages when it shrinks: 1080 rows to 1024 differ from Pillow's by .4 to .5
    # grey levels in the mean with `antialias` and by .8 to .9 without (three photos of SegmentMeIfYouCan)
    usual = Preprocess("shortest", 1024, 2048, antialias=True)
    usual = replace(usual, **{name: values for name, values in stored.items() if values})
    if config is None:
        return usual
    return check_config(Entries(read_yaml(config)), network_config, usual, stored)


def _pixels(s: Sources, name: str) -> tuple[float, ...] | None:
    """Mean or deviation of the channels, where the file has them."""
    if (found := s.arrays.get(f"pixel_{name}")) is None:
        return None
    flat = _tensor(found.reshape(-1)[:4]).double()
    if len(flat) != 3 or not flat.isfinite().all() or (name == "std" and (flat <= 0).any()):
        raise XenomaskError(f"{s.where}: pixel_{name} must be three numbers, and a deviation more than 0")
    return tuple(round(x, 4) for x in flat.tolist())  # they are float32 there: 123.6750030517578
