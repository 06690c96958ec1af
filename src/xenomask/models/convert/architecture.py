"""transformers' config of a Mask2Former, read from the shapes of its weights, whichever project named them.

Not to be seen in the weights, and as in the published configs: pre_norm off, the stride in a ResNet's 3x3 convolution,
as many attention heads in the decoder as in the pixel decoder.
"""

import math
from collections.abc import Iterable
from typing import Any

from transformers import Mask2FormerConfig, ResNetConfig, SwinConfig

from xenomask.errors import XenomaskError
from xenomask.models.convert.common import Weights, refusing
from xenomask.models.convert.names import D, E, T
from xenomask.models.presets import STAGES, without_warnings

POINTS = 4  # per head and level of the deformable attention: transformers knows no other number
MAX_WINDOW = 32  # real ones are 7 and 12; a window's memory grows with its fourth power
ENCODER, DECODER = f"{D}encoder.layers.", f"{T}decoder.layers."
SWINS = {(96, 2, 2, 6, 2): "Swin-T", (96, 2, 2, 18, 2): "Swin-S", (128, 2, 2, 18, 2): "Swin-B",
         (192, 2, 2, 18, 2): "Swin-L"}  # fmt: skip
RESNETS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def backbone_name(config: Mask2FormerConfig) -> str:
    """The backbone as people call it; one of a size of its own by its numbers."""
    b: Any = config.backbone_config
    if b.model_type == "swin":
        return SWINS.get((b.embed_dim, *b.depths), f"Swin of width {b.embed_dim} and depths {list(b.depths)}")
    known = RESNETS.get(tuple(b.depths))
    return f"ResNet-{known}" if known else f"ResNet of width {b.embedding_size} and depths {list(b.depths)}"


def read_architecture(w: Weights) -> Mask2FormerConfig:
    """The architecture by shapes alone; XenomaskError names tensors that are missing or contradict each other."""
    if not any(name.startswith((D, T)) for name in w.found):
        raise XenomaskError("no Mask2Former with a Swin or a ResNet backbone: it has no tensor of its decoders")
    size, queries, positions = w.size, f"{T}queries_features.weight", f"{T}queries_embedder.weight"
    hidden = size("decoder channels", (queries, 1), (positions, 1), ("class_predictor.weight", 1))
    levels = size("levels", (f"{D}level_embed", 0))
    attention = f"{ENCODER}0.self_attn.attention_weights."
    rows = size("heads x levels x points", (f"{attention}weight", 0), (f"{attention}bias", 0))
    feature = size("pixel decoder channels", (f"{D}level_embed", 1), (f"{D}input_projections.0.1.weight", 0),
                   (f"{D}mask_projection.weight", 1))  # fmt: skip
    classes = size("classes and no object", ("class_predictor.weight", 0), ("class_predictor.bias", 0)) - 1
    heads = rows // (levels * POINTS)
    if levels not in (1, 3) or rows % (levels * POINTS):
        raise XenomaskError(
            f"tensors {w.source(f'{D}level_embed')[0]} and {w.source(f'{attention}weight')[0]} say {levels} levels, of "
            f"which 1 and 3 are supported, and {rows} heads x levels x points, which must be a multiple of "
            f"{levels} levels x {POINTS} points"
        )
    with without_warnings(), refusing():
        if feature % 32 or feature % heads or hidden % heads or classes < 1:
            raise ValueError(f"{feature} and {hidden} channels, {heads} heads, {classes} classes")
        return named(Mask2FormerConfig(
            backbone_config=_backbone(w),
            feature_size=feature, hidden_dim=hidden,
            mask_feature_size=size("mask channels", (f"{D}mask_projection.weight", 0),
                                   (f"{T}decoder.mask_predictor.mask_embedder.2.0.weight", 0)),
            encoder_feedforward_dim=size("encoder feedforward", (f"{ENCODER}0.fc1.weight", 0),
                                         (f"{ENCODER}0.fc2.weight", 1)),
            dim_feedforward=size("decoder feedforward", (f"{DECODER}0.fc1.weight", 0), (f"{DECODER}0.fc2.weight", 1)),
            encoder_layers=w.count(rf"{ENCODER}(\d+)\."),
            # NOTE: transformers counts the learnt queries' own prediction as a layer, as detectron2's DEC_LAYERS does
            decoder_layers=w.count(rf"{DECODER}(\d+)\.") + 1,
            num_attention_heads=heads, num_queries=size("queries", (queries, 0), (positions, 0)),
            enforce_input_projection=any(name.startswith(f"{T}input_projections.") for name in w.found),
            # RbA's pixel decoder attends on stride 32 only; the other three strides are convolutions (one_level)
            feature_strides=[4, 8, 16, 32] if levels == 3 else [4, 32, 32, 32],
        ), [f"class {i}" for i in range(classes)])  # fmt: skip


def named(config: Mask2FormerConfig, names: Iterable[str]) -> Mask2FormerConfig:
    """The same config, its classes named."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in config.id2label.items()}
    return config


def _backbone(w: Weights) -> SwinConfig | ResNetConfig:
    if any(name.startswith(f"{E}swin.encoder.") for name in w.found):
        return read_swin(w)
    if any(name.startswith(f"{E}encoder.") for name in w.found):
        return _resnet(w)
    raise XenomaskError("its backbone is neither a Swin nor a ResNet")


def read_swin(w: Weights) -> SwinConfig:
    """A Swin by the shapes of its weights."""
    swin = f"{E}swin.encoder.layers."
    depths = [w.count(rf"{swin}{i}\.blocks\.(\d+)\.") for i in range(w.count(rf"{swin}(\d+)\."))]
    if len(depths) != 4 or not all(depths):
        raise XenomaskError(f"its Swin has blocks {tuple(depths)} in its stages; four stages are needed")
    bias = "attention.relative_position_bias.relative_position_bias_table"
    tables = [[f"{swin}{i}.blocks.{j}.{bias}" for j in range(n)] for i, n in enumerate(depths)]
    rows = w.size("window", *((name, 0) for stage in tables for name in stage))
    window = (math.isqrt(rows) + 1) // 2
    if (2 * window - 1) ** 2 != rows or window > MAX_WINDOW:
        first = w.source(tables[0][0])[0]
        raise XenomaskError(f"tensor {first} has {rows} rows, no (2w - 1)^2 of a window w up to {MAX_WINDOW}")
    patches = f"{E}swin.embeddings.patch_embeddings.projection.weight"
    width = w.size("Swin channels", (patches, 0), (f"{E}swin.embeddings.norm.weight", 0))
    inner = w.size("Swin feedforward", (f"{swin}0.blocks.0.mlp.fc1.weight", 0), (f"{swin}0.blocks.0.mlp.fc2.weight", 1))
    return SwinConfig(
        image_size=32 * window,  # changes nothing that is computed here
        patch_size=w.size("patch", (patches, 2), (patches, 3)), embed_dim=width, depths=depths,
        num_heads=[w.size("heads", *((name, 1) for name in stage)) for stage in tables], window_size=window,
        drop_path_rate=0.3, mlp_ratio=inner / width,
        qkv_bias=any(name.endswith(".attention.q_proj.bias") for name in w.found), **STAGES,
    )  # fmt: skip


def _resnet(w: Weights) -> ResNetConfig:
    """A ResNet by the shapes of its weights."""
    stages = [f"{E}encoder.stages.{i}.layers." for i in range(4)]
    last = "0.layer.2.convolution.weight"
    if f"{stages[0]}{last}" not in w.found and f"{stages[0]}0.layer.1.convolution.weight" in w.found:
        raise XenomaskError("it has a ResNet of two convolutions a block (R18, R34): not supported")
    return ResNetConfig(
        embedding_size=w.size("stem channels", (f"{E}embedder.embedder.convolution.weight", 0)),
        hidden_sizes=[w.size("stage channels", (f"{stage}{last}", 0)) for stage in stages],
        depths=[w.count(rf"{stage}(\d+)\.") for stage in stages], **STAGES,
    )  # fmt: skip
