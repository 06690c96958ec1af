"""Which tensor of detectron2's Mask2Former is which of transformers', and which are knowingly dropped."""

import re

E, D, T = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder", "model.transformer_module"
HEAD, PIXEL, QUERY = "sem_seg_head", "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
CROSS, SELF, FFN = (f"{QUERY}.transformer_{n}_layers.#" for n in ("cross_attention", "self_attention", "ffn"))

# transformers' name: detectron2's. "#" is a number, the same in turn on both sides; "@" is weight, bias or a buffer;
# "[i]" is the i-th third of the rows.
SWIN = {
    f"{E}.swin.embeddings.patch_embeddings.projection.@": "backbone.patch_embed.proj.@",
    f"{E}.swin.embeddings.norm.@": "backbone.patch_embed.norm.@",
    # Both projects merge patches in the order of the Swin authors (offset outermost, down the column first: channel
    # p*C + c), so nothing is permuted here, unlike MMSegmentation's.
    f"{E}.swin.encoder.layers.#.downsample.reduction.@": "backbone.layers.#.downsample.reduction.@",
    f"{E}.swin.encoder.layers.#.downsample.norm.@": "backbone.layers.#.downsample.norm.@",
    **{f"{E}.hidden_states_norms.stage{i + 1}.@": f"backbone.norm{i}.@" for i in range(4)},
    **{
        f"{E}.swin.encoder.layers.#.blocks.#.{ours}": f"backbone.layers.#.blocks.#.{theirs}"
        for ours, theirs in {
            "layernorm_before.@": "norm1.@",
            "layernorm_after.@": "norm2.@",
            "attention.q_proj.@": "attn.qkv.@[0]",
            "attention.k_proj.@": "attn.qkv.@[1]",
            "attention.v_proj.@": "attn.qkv.@[2]",
            "attention.o_proj.@": "attn.proj.@",
            "attention.relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
            "mlp.fc1.@": "mlp.fc1.@",
            "mlp.fc2.@": "mlp.fc2.@",
        }.items()
    },
}
RESNET = {
    f"{E}.embedder.embedder.convolution.@": "backbone.stem.conv1.@",
    f"{E}.embedder.embedder.normalization.@": "backbone.stem.conv1.norm.@",
    **{
        f"{E}.encoder.stages.{i}.layers.#.{ours}.{part}.@": f"backbone.res{i + 2}.#.{theirs}{norm}.@"
        for i in range(4)
        for ours, theirs in {"shortcut": "shortcut", **{f"layer.{j}": f"conv{j + 1}" for j in range(3)}}.items()
        for part, norm in {"convolution": "", "normalization": ".norm"}.items()
    },
}
DECODERS = {
    f"{D}.level_embed": f"{PIXEL}.transformer.level_embed",
    f"{D}.input_projections.#.#.@": f"{PIXEL}.input_proj.#.#.@",
    **{
        f"{D}.encoder.layers.#.self_attn.{n}.@": f"{PIXEL}.transformer.encoder.layers.#.self_attn.{n}.@"
        for n in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    },
    f"{D}.encoder.layers.#.self_attn_layer_norm.@": f"{PIXEL}.transformer.encoder.layers.#.norm1.@",
    f"{D}.encoder.layers.#.fc1.@": f"{PIXEL}.transformer.encoder.layers.#.linear1.@",
    f"{D}.encoder.layers.#.fc2.@": f"{PIXEL}.transformer.encoder.layers.#.linear2.@",
    f"{D}.encoder.layers.#.final_layer_norm.@": f"{PIXEL}.transformer.encoder.layers.#.norm2.@",
    f"{D}.adapter_#.0.@": f"{PIXEL}.adapter_#.@",
    f"{D}.adapter_#.1.@": f"{PIXEL}.adapter_#.norm.@",
    f"{D}.layer_#.0.@": f"{PIXEL}.layer_#.@",
    f"{D}.layer_#.1.@": f"{PIXEL}.layer_#.norm.@",
    f"{D}.mask_projection.@": f"{PIXEL}.mask_features.@",
    f"{T}.queries_embedder.@": f"{QUERY}.query_embed.@",
    f"{T}.queries_features.@": f"{QUERY}.query_feat.@",
    f"{T}.level_embed.@": f"{QUERY}.level_embed.@",
    f"{T}.input_projections.#.@": f"{QUERY}.input_proj.#.@",
    # transformers keeps torch's fused attention across, and writes its own, with three matrices, among the queries
    f"{T}.decoder.layers.#.cross_attn.in_proj_@": f"{CROSS}.multihead_attn.in_proj_@",
    f"{T}.decoder.layers.#.cross_attn.out_proj.@": f"{CROSS}.multihead_attn.out_proj.@",
    f"{T}.decoder.layers.#.cross_attn_layer_norm.@": f"{CROSS}.norm.@",
    f"{T}.decoder.layers.#.self_attn.q_proj.@": f"{SELF}.self_attn.in_proj_@[0]",
    f"{T}.decoder.layers.#.self_attn.k_proj.@": f"{SELF}.self_attn.in_proj_@[1]",
    f"{T}.decoder.layers.#.self_attn.v_proj.@": f"{SELF}.self_attn.in_proj_@[2]",
    f"{T}.decoder.layers.#.self_attn.out_proj.@": f"{SELF}.self_attn.out_proj.@",
    f"{T}.decoder.layers.#.self_attn_layer_norm.@": f"{SELF}.norm.@",
    f"{T}.decoder.layers.#.fc1.@": f"{FFN}.linear1.@",
    f"{T}.decoder.layers.#.fc2.@": f"{FFN}.linear2.@",
    f"{T}.decoder.layers.#.final_layer_norm.@": f"{FFN}.norm.@",
    f"{T}.decoder.layernorm.@": f"{QUERY}.decoder_norm.@",
    f"{T}.decoder.mask_predictor.mask_embedder.#.0.@": f"{QUERY}.mask_embed.layers.#.@",
    "class_predictor.@": f"{QUERY}.class_embed.@",
}
TABLE = {**SWIN, **RESNET, **DECODERS}

# what of ours has no counterpart and keeps the value that it is built with
OWN = {
    f"{E}.swin.layernorm.weight": "norm of Swin's last output, which the stages' own norms replace",
    f"{E}.swin.layernorm.bias": "norm of Swin's last output, which the stages' own norms replace",
    "criterion.empty_weight": "class weights of the training loss",
}
DROPPED = {
    r"criterion\..*": "weights of the training loss; built anew from the configuration",
    r"pixel_(mean|std)": "moved into the preprocessing",
    r"backbone\..*\.relative_position_index": "follows from the window's size; compared with the network's own",
    r"backbone\..*\.num_batches_tracked": "a counter of training steps",
}


def _rules() -> list[tuple[re.Pattern[str], str]]:
    leaf = "(weight|bias|running_mean|running_var)"
    return [(re.compile(re.escape(k).replace(r"\#", r"(\d+)").replace("@", leaf)), v) for k, v in TABLE.items()]


RULES = _rules()


def source_of(name: str) -> tuple[str, int | None]:
    """detectron2's name for one of our tensors, and which third of it, if a third.

    >>> source_of("model.pixel_level_module.encoder.swin.encoder.layers.0.blocks.1.attention.k_proj.bias")
    ('backbone.layers.0.blocks.1.attn.qkv.bias', 1)
    """
    for pattern, target in RULES:
        if found := pattern.fullmatch(name):
            for part in found.groups():
                target = re.sub("[#@]", part, target, count=1)
            target, _, third = target.partition("[")
            return target, int(third[0]) if third else None
    raise KeyError(f"no rule for {name}")  # a tensor that transformers added: the table wants a row


def why_dropped(name: str) -> str | None:
    """Why a tensor of detectron2's is left out; None: it is not known."""
    return next((why for pattern, why in DROPPED.items() if re.fullmatch(pattern, name)), None)
