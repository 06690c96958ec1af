"""What transformers, MMSegmentation and detectron2 call the weights of a Mask2Former: one table, in one small language.

`#` stands for a number, `*` for a part such as weight, `**` for anything, in the same order on both sides of a row.
A name may end with what is taken of the tensor: `[0]`, `[1]`, `[2]` for a third of its rows, as of fused q, k, v, or
`[merge]` for Swin's patch merging in MMSegmentation's order of channels.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

Rows = Iterable[tuple[str, str]]
THIRDS = ("0", "1", "2")
E, D, T = "model.pixel_level_module.encoder.", "model.pixel_level_module.decoder.", "model.transformer_module."
PIXEL, LAYERS = "decode_head.pixel_decoder.", "decode_head.transformer_decoder.layers.#."  # MMSegmentation's
HEAD = "sem_seg_head."  # detectron2's
QUERY = f"{HEAD}predictor."

# (beginning of transformers' names, of MMSegmentation's, of detectron2's), and a row for each of their ends; "-": none
TABLE = {
    (E, "backbone.", "backbone."): """
        swin.embeddings.patch_embeddings.projection.* patch_embed.projection.* patch_embed.proj.*
        swin.embeddings.norm.*                   patch_embed.norm.*     patch_embed.norm.*
        swin.encoder.layers.#.downsample.norm.*  stages.#.downsample.norm.*[merge]  layers.#.downsample.norm.*
        swin.encoder.layers.#.downsample.reduction.*
            stages.#.downsample.reduction.*[merge]  layers.#.downsample.reduction.*
        hidden_states_norms.stage1.*       norm0.*  norm0.*
        hidden_states_norms.stage2.*       norm1.*  norm1.*
        hidden_states_norms.stage3.*       norm2.*  norm2.*
        hidden_states_norms.stage4.*       norm3.*  norm3.*
        embedder.embedder.convolution.*    conv1.*  stem.conv1.*
        embedder.embedder.normalization.*  bn1.*    stem.conv1.norm.*
    """,
    (f"{E}swin.encoder.layers.#.blocks.#.", "backbone.stages.#.blocks.#.", "backbone.layers.#.blocks.#."): """
        layernorm_before.*   norm1.*              norm1.*
        layernorm_after.*    norm2.*              norm2.*
        attention.q_proj.*   attn.w_msa.qkv.*[0]  attn.qkv.*[0]
        attention.k_proj.*   attn.w_msa.qkv.*[1]  attn.qkv.*[1]
        attention.v_proj.*   attn.w_msa.qkv.*[2]  attn.qkv.*[2]
        attention.o_proj.*   attn.w_msa.proj.*    attn.proj.*
        attention.relative_position_bias.*        attn.w_msa.*  attn.*
        mlp.fc1.*            ffn.layers.0.0.*     mlp.fc1.*
        mlp.fc2.*            ffn.layers.1.*       mlp.fc2.*
    """,
    **{
        (f"{E}encoder.stages.{i}.layers.#.", f"backbone.layer{i + 1}.#.", f"backbone.res{i + 2}.#."): """
        shortcut.convolution.*    downsample.0.*  shortcut.*
        shortcut.normalization.*  downsample.1.*  shortcut.norm.*
        layer.0.convolution.*     conv1.*         conv1.*
        layer.0.normalization.*   bn1.*           conv1.norm.*
        layer.1.convolution.*     conv2.*         conv2.*
        layer.1.normalization.*   bn2.*           conv2.norm.*
        layer.2.convolution.*     conv3.*         conv3.*
        layer.2.normalization.*   bn3.*           conv3.norm.*
    """
        for i in range(4)
    },
    (D, PIXEL, f"{HEAD}pixel_decoder."): """
        level_embed             level_encoding.weight   transformer.level_embed
        input_projections.#.0.* input_convs.#.conv.*    input_proj.#.0.*
        input_projections.#.1.* input_convs.#.gn.*      input_proj.#.1.*
        adapter_1.0.*           lateral_convs.0.conv.*  adapter_1.*
        adapter_1.1.*           lateral_convs.0.gn.*    adapter_1.norm.*
        layer_1.0.*             output_convs.0.conv.*   layer_1.*
        layer_1.1.*             output_convs.0.gn.*     layer_1.norm.*
        adapter_#.0.*           -                       adapter_#.*
        adapter_#.1.*           -                       adapter_#.norm.*
        layer_#.0.*             -                       layer_#.*
        layer_#.1.*             -                       layer_#.norm.*
        mask_projection.*       mask_feature.*          mask_features.*
    """,
    (f"{D}encoder.layers.#.", f"{PIXEL}encoder.layers.#.", f"{HEAD}pixel_decoder.transformer.encoder.layers.#."): """
        self_attn.sampling_offsets.*   self_attn.sampling_offsets.*   self_attn.sampling_offsets.*
        self_attn.attention_weights.*  self_attn.attention_weights.*  self_attn.attention_weights.*
        self_attn.value_proj.*         self_attn.value_proj.*         self_attn.value_proj.*
        self_attn.output_proj.*        self_attn.output_proj.*        self_attn.output_proj.*
        self_attn_layer_norm.*         norms.0.*                      norm1.*
        fc1.*                          ffn.layers.0.0.*               linear1.*
        fc2.*                          ffn.layers.1.*                 linear2.*
        final_layer_norm.*             norms.1.*                      norm2.*
    """,
    # transformers keeps torch's fused attention across, and writes its own, with three matrices, among the queries
    (f"{T}decoder.layers.#.", LAYERS, f"{QUERY}transformer_"): """
        cross_attn.in_proj_*     cross_attn.attn.in_proj_*    cross_attention_layers.#.multihead_attn.in_proj_*
        cross_attn.out_proj.*    cross_attn.attn.out_proj.*   cross_attention_layers.#.multihead_attn.out_proj.*
        cross_attn_layer_norm.*  norms.0.*                    cross_attention_layers.#.norm.*
        self_attn.q_proj.*       self_attn.attn.in_proj_*[0]  self_attention_layers.#.self_attn.in_proj_*[0]
        self_attn.k_proj.*       self_attn.attn.in_proj_*[1]  self_attention_layers.#.self_attn.in_proj_*[1]
        self_attn.v_proj.*       self_attn.attn.in_proj_*[2]  self_attention_layers.#.self_attn.in_proj_*[2]
        self_attn.out_proj.*     self_attn.attn.out_proj.*    self_attention_layers.#.self_attn.out_proj.*
        self_attn_layer_norm.*   norms.1.*                    self_attention_layers.#.norm.*
        fc1.*                    ffn.layers.0.0.*             ffn_layers.#.linear1.*
        fc2.*                    ffn.layers.1.*               ffn_layers.#.linear2.*
        final_layer_norm.*       norms.2.*                    ffn_layers.#.norm.*
    """,
    (T, "decode_head.", QUERY): """
        queries_embedder.*     query_embed.*                    query_embed.*
        queries_features.*     query_feat.*                     query_feat.*
        level_embed.*          level_embed.*                    level_embed.*
        input_projections.#.*  -                                input_proj.#.*
        decoder.layernorm.*    transformer_decoder.post_norm.*  decoder_norm.*
        decoder.mask_predictor.mask_embedder.0.0.*  mask_embed.0.*  mask_embed.layers.0.*
        decoder.mask_predictor.mask_embedder.1.0.*  mask_embed.2.*  mask_embed.layers.1.*
        decoder.mask_predictor.mask_embedder.2.0.*  mask_embed.4.*  mask_embed.layers.2.*
    """,
    ("", "decode_head.", QUERY): "class_predictor.* cls_embed.* class_embed.*",
}


@dataclass(frozen=True)
class Names:
    """How a project names its tensors."""

    table: tuple[tuple[str, str], ...]  # (transformers' name, the project's)
    earlier: tuple[tuple[str, str], ...]  # names of the project's older versions -> today's; the first row holds
    dropped: Mapping[str, str]  # what no network needs, and why


def _column(n: int) -> Iterator[tuple[str, str]]:
    for (ours, *theirs), rows in TABLE.items():
        cells = rows.split()
        for target, source in zip(cells[::3], cells[n::3], strict=True):
            if source != "-":
                yield ours + target, theirs[n - 1] + source


MMSEG = Names(
    tuple(_column(1)),
    # the layout before mmdet's DETR refactor (3.0.0rc6, early 2023)
    (
        (f"{PIXEL}encoder.layers.#.attentions.0.*.*", f"{PIXEL}encoder.layers.#.self_attn.*.*"),
        (f"{PIXEL}encoder.layers.#.ffns.0.**", f"{PIXEL}encoder.layers.#.ffn.**"),
        (f"{LAYERS}attentions.0.attn.**", f"{LAYERS}cross_attn.attn.**"),
        (f"{LAYERS}attentions.1.attn.**", f"{LAYERS}self_attn.attn.**"),
        (f"{LAYERS}ffns.0.**", f"{LAYERS}ffn.**"),
    ),
    {
        "backbone.stages.#.blocks.#.attn.w_msa.relative_position_index": "a constant that transformers computes itself",
        "decode_head.loss_cls.class_weight": "weights of the training's loss",
    },
)
# NOTE: detectron2 merges patches in the order of the Swin authors, as transformers does, so nothing is moved there
DETECTRON2 = Names(
    tuple(_column(2)),
    # Mask2Former's present code renames older checkpoints in the same way
    (
        (f"{QUERY}static_query.**", f"{QUERY}query_feat.**"),
        (f"{QUERY}**", f"{QUERY}**"),
        (f"{HEAD}pixel_decoder.**", f"{HEAD}pixel_decoder.**"),
        (f"{HEAD}**", f"{HEAD}pixel_decoder.**"),
    ),
    {
        "criterion.**": "weights of the training loss; built anew from the configuration",
        "pixel_mean": "moved into the preprocessing",
        "pixel_std": "moved into the preprocessing",
        "backbone.**.relative_position_index": "follows from the window's size; compared with the network's own",
        "backbone.**.num_batches_tracked": "a counter of training steps",
    },
)
# What a file may lack, as no answer depends on it: a last norm that Mask2Former never reads, the loss, counters.
OPTIONAL = (f"{E}swin.layernorm.*", "criterion.**", "**.num_batches_tracked")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", "([a-z_]+)")
    return re.compile(text.replace(r"\#", "([0-9]+)"))


def renamed(name: str, pattern: str, target: str) -> str | None:
    """The name on the other side of a row, or None where the row is not for it.

    >>> renamed("backbone.stages.2.blocks.5.norm1.bias", "backbone.stages.#.blocks.#.norm1.*", "layers.#.#.before.*")
    'layers.2.5.before.bias'
    """
    if not (found := _compiled(pattern).fullmatch(name)):
        return None
    parts = iter(found.groups())
    return re.sub(r"\*\*|[#*]", lambda _: next(parts), target)


def first(name: str, rows: Rows) -> str | None:
    """The name by the first row that is for it; None where there is none."""
    return next((new for old, now in rows if (new := renamed(name, old, now)) is not None), None)


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of those."""
    return any(_compiled(p).fullmatch(name) for p in patterns)


def ours(name: str, table: Rows) -> dict[str, str]:
    """transformers' names for a project's tensor, and what each is of it: "" for all, else as in brackets.

    >>> ours("backbone.layers.0.blocks.1.attn.proj.bias", DETECTRON2.table)
    {'model.pixel_level_module.encoder.swin.encoder.layers.0.blocks.1.attention.o_proj.bias': ''}
    """
    split = ((target, *source.partition("[")) for target, source in table)
    return {new: part[:-1] for target, source, _, part in split if (new := renamed(name, source, target)) is not None}


def theirs(name: str, table: Rows) -> tuple[str, str]:
    """A project's name for one of transformers' tensors, and what it is of it; the name itself where there is none.

    >>> theirs("model.pixel_level_module.encoder.swin.encoder.layers.0.blocks.1.attention.k_proj.bias", MMSEG.table)
    ('backbone.stages.0.blocks.1.attn.w_msa.qkv.bias', '1')
    """
    source, _, part = (first(name, table) or name).partition("[")
    return source, part[:-1]
