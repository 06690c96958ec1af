"""A Mask2Former's architecture from the shapes of MMSegmentation's tensors, and transformers' config of the same."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import Mask2FormerConfig, ResNetConfig, SwinConfig

from xenomask.errors import XenomaskError
from xenomask.models.presets import STAGES, without_warnings

HEAD, PIXEL = "decode_head.", "decode_head.pixel_decoder."
LAYER = "decode_head.transformer_decoder.layers.0."
LEVELS, POINTS = 3, 4  # of the deformable attention: transformers knows no others
MAX_WINDOW = 32  # real ones are 7 and 12; a window's memory grows with its fourth power
SWIN_NAMES: Mapping[Any, str] = {
    (96, (2, 2, 6, 2)): "Swin-T",
    (96, (2, 2, 18, 2)): "Swin-S",
    (128, (2, 2, 18, 2)): "Swin-B",
    (192, (2, 2, 18, 2)): "Swin-L",
}
RESNET_NAMES: Mapping[Any, str] = {(3, 4, 6, 3): "ResNet-50", (3, 4, 23, 3): "ResNet-101"}


@dataclass(frozen=True)
class Architecture:
    """All that the shapes tell; `swin` is None for a ResNet."""

    depths: tuple[int, ...]
    swin: Mapping[str, Any] | None
    head: Mapping[str, Any]  # as Mask2FormerConfig names them
    classes: int  # without "no object"

    @property
    def kind(self) -> str:
        """The table of names that applies."""
        return "resnet" if self.swin is None else "swin"

    @property
    def name(self) -> str:
        """The backbone as people call it."""
        if self.swin is None:
            return RESNET_NAMES.get(self.depths, "ResNet")
        return SWIN_NAMES.get((self.swin["embed_dim"], self.depths), "Swin")


def read_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """The architecture by shapes alone; XenomaskError names tensors that are missing or contradict each other."""
    for prefix in ("decode_head.transformer_decoder.", PIXEL):
        if not any(k.startswith(prefix) for k in tensors):
            raise XenomaskError(f"no Mask2Former of MMSegmentation: it has no tensor {prefix}...")

    def size(what: str, *places: tuple[str, int]) -> int:
        return _agree(what, [(name, _shape(tensors, name, axis)) for name, axis in places])

    heads = size("heads x levels x points", (PIXEL + "encoder.layers.0.self_attn.attention_weights.weight", 0),
                 (PIXEL + "encoder.layers.0.self_attn.attention_weights.bias", 0))  # fmt: skip
    if heads % (LEVELS * POINTS):
        raise XenomaskError(
            f"{PIXEL}encoder.layers.0.self_attn.attention_weights.weight has {heads} rows, no multiple of "
            f"{LEVELS} levels x {POINTS} points; other numbers are not supported"
        )
    head: dict[str, Any] = {
        "num_queries": size("queries", (HEAD + "query_feat.weight", 0), (HEAD + "query_embed.weight", 0)),
        "hidden_dim": size("decoder channels", (HEAD + "query_feat.weight", 1), (HEAD + "query_embed.weight", 1),
                           (HEAD + "cls_embed.weight", 1)),
        "feature_size": size("pixel decoder channels", (PIXEL + "level_encoding.weight", 1),
                             (PIXEL + "input_convs.0.gn.weight", 0), (PIXEL + "mask_feature.weight", 1)),
        "mask_feature_size": size("mask channels", (PIXEL + "mask_feature.weight", 0),
                                  (HEAD + "mask_embed.4.weight", 0)),
        "encoder_layers": len(_indices(tensors, PIXEL + r"encoder\.layers\.(\d+)\.")),
        # NOTE: transformers counts the learnt queries' own prediction as a layer
        "decoder_layers": len(_indices(tensors, r"decode_head\.transformer_decoder\.layers\.(\d+)\.")) + 1,
        "encoder_feedforward_dim": size("encoder feedforward", (PIXEL + "encoder.layers.0.ffn.layers.0.0.weight", 0),
                                        (PIXEL + "encoder.layers.0.ffn.layers.1.weight", 1)),
        "dim_feedforward": size("decoder feedforward", (LAYER + "ffn.layers.0.0.weight", 0),
                                (LAYER + "ffn.layers.1.weight", 1)),
        "num_attention_heads": heads // (LEVELS * POINTS),
    }  # fmt: skip
    classes = size("classes and no object", (HEAD + "cls_embed.weight", 0), (HEAD + "cls_embed.bias", 0)) - 1
    if any(k.startswith("backbone.stages.") for k in tensors):
        return Architecture(*_swin(tensors), head, classes)
    if any(k.startswith("backbone.layer1.") for k in tensors):
        return Architecture(_resnet_depths(tensors), None, head, classes)
    raise XenomaskError("its backbone is neither a Swin (backbone.stages.*) nor a ResNet (backbone.layer1.*)")


def _shape(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    if name not in tensors:
        raise XenomaskError(f"tensor {name} is missing")
    if tensors[name].dim() <= axis:
        raise XenomaskError(f"tensor {name} has the shape {tuple(tensors[name].shape)}, which is too few axes")
    return tensors[name].shape[axis]


def _agree(what: str, found: list[tuple[str, int]]) -> int:
    """The size that all those tensors agree on."""
    values = {v for _, v in found}
    if len(values) != 1:
        raise XenomaskError(f"{what}: {'; '.join(f'tensor {name} says {v}' for name, v in found[:6])}; they must agree")
    return values.pop()


def _indices(tensors: Iterable[str], pattern: str) -> range:
    """The numbers at the pattern's group, from 0 on without a gap."""
    found = {int(m[1]): m[0] for k in tensors if (m := re.match(pattern, k)) and len(m[1]) < 6}
    for i in range(len(found)):
        if i not in found:
            last = found[max(found)]
            raise XenomaskError(f"tensors {last}* are there, and number {i} of their kind is missing")
    return range(len(found))


def _swin(tensors: Mapping[str, Tensor]) -> tuple[tuple[int, ...], Mapping[str, Any]]:
    stages = _indices(tensors, r"backbone\.stages\.(\d+)\.")
    depths = tuple(len(_indices(tensors, rf"backbone\.stages\.{i}\.blocks\.(\d+)\.")) for i in stages)
    if len(depths) != 4 or not all(depths):
        raise XenomaskError(f"its Swin has blocks {depths} in its stages; four stages are needed")
    tables = [
        [f"backbone.stages.{i}.blocks.{j}.attn.w_msa.relative_position_bias_table" for j in range(n)]
        for i, n in enumerate(depths)
    ]
    rows = _agree("window", [(name, _shape(tensors, name, 0)) for stage in tables for name in stage])
    window = (math.isqrt(rows) + 1) // 2
    if (2 * window - 1) ** 2 != rows or window > MAX_WINDOW:
        raise XenomaskError(f"tensor {tables[0][0]} has {rows} rows, no (2w - 1)^2 of a window w up to {MAX_WINDOW}")
    embed = _agree("Swin channels", [(n, _shape(tensors, n, 0)) for n in
                   ("backbone.patch_embed.projection.weight", "backbone.patch_embed.norm.weight",
                    "backbone.norm0.weight")])  # fmt: skip
    first = "backbone.stages.0.blocks.0.ffn.layers."
    inner = _agree("Swin feedforward", [(first + "0.0.weight", _shape(tensors, first + "0.0.weight", 0)),
                                        (first + "1.weight", _shape(tensors, first + "1.weight", 1))])  # fmt: skip
    return depths, {
        "embed_dim": embed,
        "num_heads": [_agree("heads", [(name, _shape(tensors, name, 1)) for name in stage]) for stage in tables],
        "window_size": window,
        "mlp_ratio": inner / embed,
        "qkv_bias": any(k.endswith("attn.w_msa.qkv.bias") for k in tensors),
    }


def _resnet_depths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    depths = tuple(len(_indices(tensors, rf"backbone\.layer{i}\.(\d+)\.")) for i in range(1, 5))
    if depths not in RESNET_NAMES:
        raise XenomaskError(
            f"its ResNet has blocks {depths}; supported are ResNet-50 (3, 4, 6, 3) and -101 (3, 4, 23, 3)"
        )
    return depths


def transformers_config(a: Architecture, names: Iterable[str], drop_path: float = 0.3) -> Mask2FormerConfig:
    """The same architecture as transformers describes it, with the classes' names."""
    labels = dict(enumerate(names))
    backbone: SwinConfig | ResNetConfig
    with without_warnings():
        if a.swin is None:
            # NOTE: strides in the 3x3 convolutions, as MMSegmentation's style="pytorch"
            backbone = ResNetConfig(depths=list(a.depths), downsample_in_bottleneck=False, **STAGES)
        else:
            # image_size changes nothing that is computed here
            size = 32 * a.swin["window_size"]
            backbone = SwinConfig(image_size=size, depths=list(a.depths), drop_path_rate=drop_path, **a.swin, **STAGES)
        return Mask2FormerConfig(
            backbone_config=backbone, **a.head, id2label=labels, label2id={n: i for i, n in labels.items()}
        )  # pyright: ignore
