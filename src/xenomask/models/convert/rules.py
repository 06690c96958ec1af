"""How MMSegmentation's tensors are called in transformers: one table, and the few that change on the way.

In a name `#` stands for a number and `*` for a part such as weight; both sides of a row have them in the same order.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

# "merge": Swin's patch merging, whose channels are reordered; "split": fused q, k, v, of which `{}` is one
Change = Literal["copy", "merge", "split"]


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    source: str
    target: str
    change: Change = "copy"


B, P, D = "backbone.", "decode_head.pixel_decoder.", "decode_head.transformer_decoder."
E, PIXEL, T = "model.pixel_level_module.encoder.", "model.pixel_level_module.decoder.", "model.transformer_module."

SWIN = (
    Rule(B + "patch_embed.projection.*", E + "swin.embeddings.patch_embeddings.projection.*"),
    Rule(B + "patch_embed.norm.*", E + "swin.embeddings.norm.*"),
    Rule(B + "stages.#.blocks.#.norm1.*", E + "swin.encoder.layers.#.blocks.#.layernorm_before.*"),
    Rule(B + "stages.#.blocks.#.norm2.*", E + "swin.encoder.layers.#.blocks.#.layernorm_after.*"),
    Rule(B + "stages.#.blocks.#.attn.w_msa.qkv.*", E + "swin.encoder.layers.#.blocks.#.attention.{}_proj.*", "split"),
    Rule(B + "stages.#.blocks.#.attn.w_msa.proj.*", E + "swin.encoder.layers.#.blocks.#.attention.o_proj.*"),
    Rule(
        B + "stages.#.blocks.#.attn.w_msa.relative_position_bias_table",
        E + "swin.encoder.layers.#.blocks.#.attention.relative_position_bias.relative_position_bias_table",
    ),
    Rule(B + "stages.#.blocks.#.ffn.layers.0.0.*", E + "swin.encoder.layers.#.blocks.#.mlp.fc1.*"),
    Rule(B + "stages.#.blocks.#.ffn.layers.1.*", E + "swin.encoder.layers.#.blocks.#.mlp.fc2.*"),
    Rule(B + "stages.#.downsample.norm.*", E + "swin.encoder.layers.#.downsample.norm.*", "merge"),
    Rule(B + "stages.#.downsample.reduction.*", E + "swin.encoder.layers.#.downsample.reduction.*", "merge"),
    *(Rule(B + f"norm{i}.*", E + f"hidden_states_norms.stage{i + 1}.*") for i in range(4)),
)

RESNET = (
    Rule(B + "conv1.*", E + "embedder.embedder.convolution.*"),
    Rule(B + "bn1.*", E + "embedder.embedder.normalization.*"),
    *(
        rule
        for i in range(4)
        for rule in (
            *(
                rule
                for j in range(3)
                for rule in (
                    Rule(
                        B + f"layer{i + 1}.#.conv{j + 1}.*", E + f"encoder.stages.{i}.layers.#.layer.{j}.convolution.*"
                    ),
                    Rule(
                        B + f"layer{i + 1}.#.bn{j + 1}.*", E + f"encoder.stages.{i}.layers.#.layer.{j}.normalization.*"
                    ),
                )
            ),
            Rule(B + f"layer{i + 1}.#.downsample.0.*", E + f"encoder.stages.{i}.layers.#.shortcut.convolution.*"),
            Rule(B + f"layer{i + 1}.#.downsample.1.*", E + f"encoder.stages.{i}.layers.#.shortcut.normalization.*"),
        )
    ),
)

HEAD = (
    Rule(P + "input_convs.#.conv.*", PIXEL + "input_projections.#.0.*"),  # 0 is the coarsest in both
    Rule(P + "input_convs.#.gn.*", PIXEL + "input_projections.#.1.*"),
    Rule(P + "level_encoding.weight", PIXEL + "level_embed"),
    Rule(P + "encoder.layers.#.self_attn.sampling_offsets.*", PIXEL + "encoder.layers.#.self_attn.sampling_offsets.*"),
    Rule(
        P + "encoder.layers.#.self_attn.attention_weights.*", PIXEL + "encoder.layers.#.self_attn.attention_weights.*"
    ),
    Rule(P + "encoder.layers.#.self_attn.value_proj.*", PIXEL + "encoder.layers.#.self_attn.value_proj.*"),
    Rule(P + "encoder.layers.#.self_attn.output_proj.*", PIXEL + "encoder.layers.#.self_attn.output_proj.*"),
    Rule(P + "encoder.layers.#.ffn.layers.0.0.*", PIXEL + "encoder.layers.#.fc1.*"),
    Rule(P + "encoder.layers.#.ffn.layers.1.*", PIXEL + "encoder.layers.#.fc2.*"),
    Rule(P + "encoder.layers.#.norms.0.*", PIXEL + "encoder.layers.#.self_attn_layer_norm.*"),
    Rule(P + "encoder.layers.#.norms.1.*", PIXEL + "encoder.layers.#.final_layer_norm.*"),
    Rule(P + "lateral_convs.0.conv.*", PIXEL + "adapter_1.0.*"),
    Rule(P + "lateral_convs.0.gn.*", PIXEL + "adapter_1.1.*"),
    Rule(P + "output_convs.0.conv.*", PIXEL + "layer_1.0.*"),
    Rule(P + "output_convs.0.gn.*", PIXEL + "layer_1.1.*"),
    Rule(P + "mask_feature.*", PIXEL + "mask_projection.*"),
    # the cross attention is torch's own in both, its q, k, v fused; the self attention is not
    Rule(D + "layers.#.cross_attn.attn.in_proj_*", T + "decoder.layers.#.cross_attn.in_proj_*"),
    Rule(D + "layers.#.cross_attn.attn.out_proj.*", T + "decoder.layers.#.cross_attn.out_proj.*"),
    Rule(D + "layers.#.self_attn.attn.in_proj_*", T + "decoder.layers.#.self_attn.{}_proj.*", "split"),
    Rule(D + "layers.#.self_attn.attn.out_proj.*", T + "decoder.layers.#.self_attn.out_proj.*"),
    Rule(D + "layers.#.ffn.layers.0.0.*", T + "decoder.layers.#.fc1.*"),
    Rule(D + "layers.#.ffn.layers.1.*", T + "decoder.layers.#.fc2.*"),
    Rule(D + "layers.#.norms.0.*", T + "decoder.layers.#.cross_attn_layer_norm.*"),
    Rule(D + "layers.#.norms.1.*", T + "decoder.layers.#.self_attn_layer_norm.*"),
    Rule(D + "layers.#.norms.2.*", T + "decoder.layers.#.final_layer_norm.*"),
    Rule(D + "post_norm.*", T + "decoder.layernorm.*"),
    Rule("decode_head.query_embed.weight", T + "queries_embedder.weight"),
    Rule("decode_head.query_feat.weight", T + "queries_features.weight"),
    Rule("decode_head.level_embed.weight", T + "level_embed.weight"),
    Rule("decode_head.cls_embed.*", "class_predictor.*"),
    *(Rule(f"decode_head.mask_embed.{2 * i}.*", T + f"decoder.mask_predictor.mask_embedder.{i}.0.*") for i in range(3)),
)

RULES: Mapping[str, tuple[Rule, ...]] = {"swin": (*SWIN, *HEAD), "resnet": (*RESNET, *HEAD)}

# The layout before mmdet's DETR refactor (3.0.0rc6, early 2023) -> the one after it.
OLD_LAYOUT = (
    (P + "encoder.layers.#.attentions.0.*.*", P + "encoder.layers.#.self_attn.*.*"),
    (P + "encoder.layers.#.ffns.0.layers.0.0.*", P + "encoder.layers.#.ffn.layers.0.0.*"),
    (P + "encoder.layers.#.ffns.0.layers.1.*", P + "encoder.layers.#.ffn.layers.1.*"),
    (D + "layers.#.attentions.0.attn.in_proj_*", D + "layers.#.cross_attn.attn.in_proj_*"),
    (D + "layers.#.attentions.0.attn.out_proj.*", D + "layers.#.cross_attn.attn.out_proj.*"),
    (D + "layers.#.attentions.1.attn.in_proj_*", D + "layers.#.self_attn.attn.in_proj_*"),
    (D + "layers.#.attentions.1.attn.out_proj.*", D + "layers.#.self_attn.attn.out_proj.*"),
    (D + "layers.#.ffns.0.layers.0.0.*", D + "layers.#.ffn.layers.0.0.*"),
    (D + "layers.#.ffns.0.layers.1.*", D + "layers.#.ffn.layers.1.*"),
)

# What a checkpoint has and a network does not need.
DROPPED = {
    B + "stages.#.blocks.#.attn.w_msa.relative_position_index": "a constant that transformers computes itself",
    "decode_head.loss_cls.class_weight": "weights of the training's loss",
}
# What transformers has and MMSegmentation does not; none of it takes part in an answer.
NOT_IN_SOURCE = {
    E + "swin.layernorm.weight",  # a last norm that Mask2Former never reads
    E + "swin.layernorm.bias",
    "criterion.empty_weight",  # weights of the training's loss
}


def renamed(name: str, pattern: str, target: str) -> str | None:
    """The name on the other side of a row, or None where the row is not for it.

    >>> renamed("backbone.stages.2.blocks.5.norm1.bias", "backbone.stages.#.blocks.#.norm1.*", "layers.#.#.before.*")
    'layers.2.5.before.bias'
    """
    regex = re.escape(pattern).replace(r"\#", "([0-9]+)").replace(r"\*", "([a-z_]+)")
    if not (found := re.fullmatch(regex, name)):
        return None
    parts = iter(found.groups())
    return re.sub(r"[#*]", lambda _: next(parts), target)


def new_layout(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors under the names after mmdet's refactor, and which layout they had."""
    result = {}
    for name, tensor in tensors.items():
        new = (renamed(name, old, new) for old, new in OLD_LAYOUT)
        result[next((n for n in new if n), name)] = tensor
    old = [n for n in tensors if n not in result]
    return result, "before mmdet's DETR refactor" if old else "current"


def find_rule(name: str, rules: Iterable[Rule]) -> tuple[Rule, str] | None:
    """The row for a tensor of MMSegmentation, and its name in transformers."""
    return next(((r, new) for r in rules if (new := renamed(name, r.source, r.target))), None)


def source_of(target: str, rules: Iterable[Rule]) -> str:
    """The tensor of MMSegmentation that one of transformers comes from."""
    for rule in rules:
        for part in "qkv" if rule.change == "split" else " ":
            if name := renamed(target, rule.target.replace("{}", part), rule.source):
                return name
    return target


def reordered(tensor: Tensor) -> Tensor:
    """Patch merging's last axis from MMSegmentation's order (channel, pixel) to transformers' (pixel, channel).

    NOTE: MMSegmentation unfolds 2x2 pixels as (top left, top right, bottom left, bottom right), each channel's four
    together; Swin's authors, and transformers, go down the columns first.
    """
    four = tensor.reshape(*tensor.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]
    return four.transpose(-1, -2).reshape(tensor.shape)


def changed(tensor: Tensor, rule: Rule, target: str) -> dict[str, Tensor]:
    """What becomes of one tensor: one of transformers, or three."""
    if rule.change == "split":
        return {target.format(part): t for part, t in zip("qkv", tensor.chunk(3), strict=True)}
    return {target: reordered(tensor) if rule.change == "merge" else tensor}
