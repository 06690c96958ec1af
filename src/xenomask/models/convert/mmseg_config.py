"""How MMSegmentation's config describes a Mask2Former, entry by entry: each function is one constructor of theirs.

All of `model` that an answer depends on must be what transformers' network computes; it has no other eps, position
encoding or activation, so other values are refused, not passed over.
"""

import math
from collections.abc import Mapping
from typing import Any

from transformers import Mask2FormerConfig

from xenomask.models.convert.architecture import POINTS, RESNETS
from xenomask.models.convert.entries import DROPOUT, MEMORY, START, TRAINING, Entries

LEVELS = 3  # of the deformable attention
GRADIENT, REPLACED = "whether training changes it", "the decode head's own replaces it"

LAYER_NORM = ("LN", "torch.nn.modules.normalization.LayerNorm")
GROUP_NORM = ("GN", "torch.nn.modules.normalization.GroupNorm")
BATCH_NORM = ("BN", "BN2d", "SyncBN", "torch.nn.modules.batchnorm.BatchNorm2d",
              "torch.nn.modules.batchnorm.SyncBatchNorm")  # fmt: skip
RELU = "torch.nn.modules.activation.ReLU"
DETR = "mmdet.models.layers.transformer.detr_layers."
# What MMEngine's Runner reads beside `model` and the test pipeline. Any other name at the top is the file's own.
RUNNER: Mapping[str, str] = {
    "work_dir": "where a run's files lie",
    **dict.fromkeys(("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"), TRAINING),
    **dict.fromkeys(("load_from", "resume", "randomness", "launcher", "model_wrapper_cfg"), TRAINING),
    **dict.fromkeys(("val_dataloader", "val_cfg", "val_evaluator", "test_evaluator"), "measures, and changes no map"),
    **dict.fromkeys(("default_hooks", "custom_hooks", "test_cfg"), "what happens around a run"),
    **dict.fromkeys(("env_cfg", "log_processor", "log_level", "visualizer", "experiment_name"), "runs and logs"),
    **dict.fromkeys(("tta_model", "tta_pipeline"), "test-time augmentation, of which xenomask has its own"),
    "custom_imports": "code, which is never run; the classes that matter here are checked by name",
}
VARIABLE = "a variable of the config file, which MMEngine's Runner does not read"


def check_model(config: Entries, c: Mask2FormerConfig) -> float:
    """Goes through all of `model` but its data_preprocessor; the rate of Swin's drop path, for further training.

    Raises XenomaskError where an entry contradicts the weights, or asks for what transformers' network cannot do.
    """
    config.only("default_scope", "mmseg", None)
    model = config.part("model")
    model.kind("mmseg.models.segmentors.encoder_decoder.EncoderDecoder")
    model.only("neck", None)
    test = model.part("test_cfg")
    if test.take("mode") == "slide":
        test.refuse("mode", "slide", "is not supported: xenomask shows the network whole photos; where that is what "
                    "you want, say mode='whole'")  # fmt: skip
    test.only("mode", "whole", default=None)
    test.without_effect(dict.fromkeys(("crop_size", "stride"), "of mode='slide' alone"))
    model.without_effect({"train_cfg": TRAINING, "auxiliary_head": TRAINING, "pretrained": START, "init_cfg": START})
    _head(model.part("decode_head"), c)
    b: Any = c.backbone_config
    if b.model_type == "swin":
        return _swin(model.part("backbone"), b)
    _resnet(model.part("backbone"), b)
    return 0.0


def account_for_the_rest(config: Entries) -> None:
    """Marks what stands at the top of a config and is no part of the network or of its photos."""
    names = (str(k) for k in config.values)
    known = {"model", "data_preprocessor", "default_scope", "test_dataloader", "test_pipeline"}
    config.without_effect({k: RUNNER.get(k, VARIABLE) for k in names if k not in known})


def _swin(e: Entries, b: Any) -> float:
    e.kind("mmseg.models.backbones.swin.SwinTransformer")
    e.same("embed_dims", b.embed_dim, 96)
    e.same("depths", b.depths, (2, 2, 6, 2))
    e.same("num_heads", b.num_heads, (3, 6, 12, 24))
    e.same("window_size", b.window_size, 7)
    e.same("qkv_bias", b.qkv_bias, True)
    ratio, width = e.number("mlp_ratio", 0.01, 100, 4), b.embed_dim
    if int(ratio * width) != round(b.mlp_ratio * width):
        e.refuse("mlp_ratio", ratio, f"but the weights' shapes say {b.mlp_ratio:g}", ", ")
    e.only("in_channels", 3)
    e.same("patch_size", b.patch_size, 4)
    e.only("strides", (4, 2, 2, 2))
    e.only("out_indices", (0, 1, 2, 3))
    e.only("patch_norm", True)
    e.only("use_abs_pos_embed", False)
    e.only("qk_scale", None)
    _activation(e.part("act_cfg", {"type": "GELU"}), "torch.nn.modules.activation.GELU")
    _norm(e.part("norm_cfg", {"type": "LN"}), LAYER_NORM)
    e.without_effect({
        "pretrain_img_size": "the size of the absolute position table, which is not there",
        "drop_rate": DROPOUT, "attn_drop_rate": DROPOUT, "with_cp": MEMORY, "frozen_stages": GRADIENT,
        "pretrained": START, "init_cfg": START,
    })  # fmt: skip
    return float(e.number("drop_path_rate", 0, 1, 0.1))


def _resnet(e: Entries, b: Any) -> None:
    e.kind("mmseg.models.backbones.resnet.ResNet")
    e.same("depth", RESNETS.get(tuple(b.depths)))
    e.only("in_channels", 3)
    e.same("stem_channels", b.embedding_size, 64)
    e.same("base_channels", b.hidden_sizes[0] // 4, 64)
    e.only("num_stages", 4)
    e.only("strides", (1, 2, 2, 2))
    e.only("dilations", (1, 1, 1, 1))
    e.only("out_indices", (0, 1, 2, 3))
    e.only("style", "pytorch")
    e.only("deep_stem", False)
    e.only("avg_down", False)
    e.only("contract_dilation", False)
    for key in ("conv_cfg", "dcn", "plugins", "multi_grid"):
        e.only(key, None)
    _norm(e.part("norm_cfg", {"type": "BN"}), BATCH_NORM)
    e.without_effect({
        "stage_with_dcn": "without dcn it says nothing", "norm_eval": TRAINING, "zero_init_residual": START,
        "with_cp": MEMORY, "frozen_stages": GRADIENT, "pretrained": START, "init_cfg": START,
    })  # fmt: skip


def _norm(e: Entries, classes: tuple[str, ...]) -> None:
    e.kind(*classes)
    e.only("eps", 1e-5)  # torch's and mmcv's default; transformers has it built in
    if classes is GROUP_NORM:
        e.only("num_groups", 32, default=None)
    e.without_effect({"requires_grad": GRADIENT} | ({"momentum": TRAINING} if classes is BATCH_NORM else {}))


def _activation(e: Entries, kind: str) -> None:
    e.kind(kind)
    if kind == RELU:
        e.without_effect({"inplace": "where the result is stored"})
    else:
        e.only("approximate", "none")


def _head(e: Entries, c: Mask2FormerConfig) -> None:
    e.kind("mmseg.models.decode_heads.mask2former_head.Mask2FormerHead")
    b: Any = c.backbone_config
    channels = [b.embed_dim << i for i in range(4)] if b.model_type == "swin" else b.hidden_sizes
    e.same("in_channels", channels)
    e.same("feat_channels", c.hidden_dim)
    e.same("out_channels", c.mask_feature_size)
    e.same("num_classes", c.num_labels)
    e.same("num_queries", c.num_queries, 100)
    e.only("num_transformer_feat_level", LEVELS)
    e.only("enforce_decoder_input_project", False)
    e.only("strides", (4, 8, 16, 32))
    e.only("align_corners", False)
    _positions(e.part("positional_encoding", {"num_feats": 128, "normalize": True}), c.hidden_dim)
    _pixel_decoder(e.part("pixel_decoder"), c)
    _decoder(e.part("transformer_decoder"), c)
    e.without_effect({
        **dict.fromkeys(("loss_cls", "loss_mask", "loss_dice", "train_cfg", "ignore_index"), TRAINING),
        "test_cfg": "the semantic head never reads it", "init_cfg": START,
        **dict.fromkeys(("num_things_classes", "num_stuff_classes"), "num_classes replaces it"),
    })  # fmt: skip


def _positions(e: Entries, width: int) -> None:
    e.kind("mmdet.models.layers.positional_encoding.SinePositionalEncoding", default=None)
    e.same("num_feats", width // 2)
    e.only("normalize", True, default=False)
    e.only("temperature", 10000)
    e.only("scale", 2 * math.pi)
    e.only("eps", 1e-6)
    e.only("offset", 0)
    e.without_effect({"init_cfg": START})


def _pixel_decoder(e: Entries, c: Mask2FormerConfig) -> None:
    e.kind("mmdet.models.layers.msdeformattn_pixel_decoder.MSDeformAttnPixelDecoder")
    e.only("num_outs", LEVELS)
    e.only("strides", (4, 8, 16, 32))
    _norm(e.part("norm_cfg", {"type": "GN", "num_groups": 32}), GROUP_NORM)
    _activation(e.part("act_cfg", {"type": "ReLU"}), RELU)
    _positions(e.part("positional_encoding", {"num_feats": 128, "normalize": True}), c.feature_size)
    e.without_effect({
        "init_cfg": START, **dict.fromkeys(("in_channels", "feat_channels", "out_channels"), REPLACED),
    })  # fmt: skip
    e = e.part("encoder")
    e.kind(DETR + "DetrTransformerEncoder", default=None)
    e.same("num_layers", c.encoder_layers)
    e.without_effect({"num_cp": MEMORY, "init_cfg": START})
    _layer(e, c, c.feature_size, c.encoder_feedforward_dim, ("self_attn",))


def _decoder(e: Entries, c: Mask2FormerConfig) -> None:
    e.kind(DETR + "DetrTransformerDecoder", default=None)
    e.same("num_layers", c.decoder_layers - 1)
    _norm(e.part("post_norm_cfg", {"type": "LN"}), LAYER_NORM)
    e.without_effect({"return_intermediate": "the head takes the layers one by one", "init_cfg": START})
    _layer(e, c, c.hidden_dim, c.dim_feedforward, ("cross_attn", "self_attn"))


def _layer(e: Entries, c: Mask2FormerConfig, width: int, inner: int, attentions: tuple[str, ...]) -> None:
    """One layer of the encoder or of the decoder, as mmdet writes it since its DETR refactor, or as before."""
    attention = _deformable if len(attentions) == 1 else _attention
    if "transformerlayers" not in e:
        layer = e.part("layer_cfg")
        for name in attentions:
            # NOTE: left out, mmdet takes 256 channels and 8 heads
            default = {"embed_dims": 256, "num_heads": 8}
            attention(layer.part(f"{name}_cfg", default), c, width, batch_first=True)
        ffn = layer.part("ffn_cfg", {})
    else:
        layer = e.part("transformerlayers")
        layer.kind("mmcv.cnn.bricks.transformer.BaseTransformerLayer", "mmdet.BaseTransformerLayer",
                   DETR + "DetrTransformerDecoderLayer")  # fmt: skip
        layer.only("operation_order", (*(n for name in attentions for n in (name, "norm")), "ffn", "norm"))
        layer.only("batch_first", False, True)
        layer.same("feedforward_channels", inner, inner)
        layer.only("ffn_num_fcs", 2)
        layer.without_effect({"ffn_dropout": DROPOUT})
        attention(layer.part("attn_cfgs"), c, width, batch_first=False)
        ffn = layer.part("ffn_cfgs", {})
    _norm(layer.part("norm_cfg", {"type": "LN"}), LAYER_NORM)
    layer.without_effect({"init_cfg": START})
    _feedforward(ffn, width, inner)


def _deformable(e: Entries, c: Mask2FormerConfig, width: int, batch_first: bool) -> None:
    e.kind("mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttention", "mmdet.MultiScaleDeformableAttention",
           default=None)  # fmt: skip
    e.same("embed_dims", width, 256)
    e.same("num_heads", c.num_attention_heads, 8)
    e.only("num_levels", LEVELS, default=4)
    e.only("num_points", POINTS)
    e.only("value_proj_ratio", 1.0)
    e.only("batch_first", batch_first)
    e.without_effect({
        "dropout": DROPOUT, "im2col_step": "how the work is cut into batches", "init_cfg": START,
        "norm_cfg": "kept by the attention and never used",
    })  # fmt: skip


def _attention(e: Entries, c: Mask2FormerConfig, width: int, batch_first: bool) -> None:
    e.kind("mmcv.cnn.bricks.transformer.MultiheadAttention", "mmdet.MultiheadAttention", default=None)
    e.same("embed_dims", width)
    # NOTE: the weights cannot tell; without a config the pixel decoder's number is taken
    e.same("num_heads", c.num_attention_heads)
    e.only("batch_first", batch_first)
    _dropout(e)
    e.without_effect(dict.fromkeys(("attn_drop", "proj_drop", "dropout"), DROPOUT) | {"init_cfg": START})


def _feedforward(e: Entries, width: int, inner: int) -> None:
    e.kind("mmcv.cnn.bricks.transformer.FFN", "mmdet.FFN", default=None)
    e.same("embed_dims", width, width if e.path[-1] == "ffn_cfgs" else 256)  # the old layer passes its own on
    e.same("feedforward_channels", inner, 1024)
    e.only("num_fcs", 2)
    e.only("add_identity", True)
    e.only("layer_scale_init_value", 0)
    _activation(e.part("act_cfg", {"type": "ReLU"}), RELU)
    _dropout(e)
    e.without_effect({"ffn_drop": DROPOUT, "init_cfg": START})


def _dropout(e: Entries) -> None:
    """The layer after an attention or a feedforward, which could be of any kind."""
    if e.values.get("dropout_layer") is None:
        e.only("dropout_layer", None)
        return
    drop = e.part("dropout_layer")
    if drop.values:
        drop.kind("mmcv.cnn.bricks.drop.Dropout", "mmcv.cnn.bricks.drop.DropPath")
    drop.without_effect({"drop_prob": DROPOUT, "inplace": "where the result is stored"})
