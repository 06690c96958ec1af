"""How detectron2's config describes a Mask2Former and its photos, entry by entry, with that project's own defaults."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from transformers import Mask2FormerConfig

from xenomask.errors import XenomaskError, first_line
from xenomask.models.convert.architecture import RESNETS
from xenomask.models.convert.entries import DROPOUT, MEMORY, START, TRAINING, Entries
from xenomask.models.preprocess import Preprocess, check_preprocess

OTHERS = "of other networks than this one"
UNUSED, AFTER = "Mask2Former never reads it", "what is made of the queries, which xenomask does itself"
RUN = "neither of the network nor of its photos"
STAGES = ("res2", "res3", "res4", "res5")
ARCHITECTURES = (
    "PROPOSAL_GENERATOR", "ANCHOR_GENERATOR", "RPN", "FPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_BOX_CASCADE_HEAD",
    "ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD", "PANOPTIC_FPN", "RETINANET", "MASK_ON", "KEYPOINT_ON", "LOAD_PROPOSALS",
    "MVIT", "VIT", "WIDE_RESNET",
)  # fmt: skip
FROZEN = (
    "FREEZE_BACKBONE", "FREEZE_PIXEL_DECODER", "FREEZE_TRANSFORMER_DECODER", "FREEZE_TRANSFORMER_DECODER_EXCEPT_MLP",
    "FREEZE_TRANSFORMER_DECODER_EXCEPT_MLP_AND_OOD_PRED", "FREEZE_TRANSFORMER_DECODER_EXCEPT_OBJECT_QUERIES",
)  # fmt: skip
LOSSES = (
    "DEEP_SUPERVISION", "NO_OBJECT_WEIGHT", "CLASS_WEIGHT", "DICE_WEIGHT", "MASK_WEIGHT", "TRAIN_NUM_POINTS",
    "OVERSAMPLE_RATIO", "IMPORTANCE_SAMPLE_RATIO", "MATCHER", "JSD_WEIGHT",
    # of RbA; what of them has weights of its own is refused by these
    "DENSE_HYBRID_BETA", "DENSE_HYBRID_LOSS", "DENSE_HYBRID_WEIGHT", "GAMBLER_LOSS", "GAMBLER_WEIGHT",
    "INLIER_UPPER_THRESHOLD", "OUTLIER_LOSS_FUNC", "OUTLIER_LOSS_TARGET", "OUTLIER_LOWER_THRESHOLD",
    "OUTLIER_SUPERVISION", "OUTLIER_WEIGHT", "PEBAL_OOD_REG", "PEBAL_REWARD", "SMOOTHNESS_LOSS", "SMOOTHNESS_SCORE",
    "SMOOTHNESS_WEIGHT", "SPARSITY_LOSS", "SPARSITY_WEIGHT", "SCORE_NORM", "UNLABELED_REGION",
    "SEM_SEG_UNLABELED_REGION",
)  # fmt: skip
PHOTOS_IN_TRAINING = (
    "MIN_SIZE_TRAIN", "MIN_SIZE_TRAIN_SAMPLING", "MAX_SIZE_TRAIN", "RANDOM_FLIP", "CROP", "MASK_FORMAT",
    "DATASET_MAPPER_NAME", "COLOR_AUG_SSD", "SIZE_DIVISIBILITY", "IMAGE_SIZE", "MIN_SCALE", "MAX_SCALE",
    "COCO_PROXY_SIZE", "COCO_ROOT", "OOD_LABEL", "OOD_PROB", "REPEAT_INSTANCE_MASKS",
)  # fmt: skip


def check_config(
    e: Entries, config: Mask2FormerConfig, usual: Preprocess, stored: Mapping[str, Any] = MappingProxyType({})
) -> Preprocess:
    """How photos are prepared; `config` is what the weights' shapes say, `usual` what goes without a config.

    `stored` has the `mean` and the `std` that the checkpoint itself holds, which the config's must equal.

    Raises XenomaskError for the first entry that contradicts the weights, or that xenomask cannot honour.
    """
    model = e.part("MODEL")
    model.only("META_ARCHITECTURE", "MaskFormer", default="GeneralizedRCNN")
    swin = config.backbone_config.model_type == "swin"  # pyright: ignore
    backbone = model.part("BACKBONE", {})
    name = backbone.take("NAME", "build_resnet_backbone")
    if name != ("D2SwinTransformer" if swin else "build_resnet_backbone"):
        backbone.refuse("NAME", name, f"but the weights are a {'Swin' if swin else 'ResNet'}'s", ", ")
    backbone.without_effect({"FREEZE_AT": TRAINING})
    if swin:
        _swin(model.part("SWIN", {}), config.backbone_config)
    else:
        _resnet(model.part("RESNETS", {}), config.backbone_config)
    _pixel_decoder(model.part("SEM_SEG_HEAD", {}), config)
    divisor = _decoder(model.part("MASK_FORMER", {}), config, 32 if swin else 1)
    model.without_effect({
        **dict.fromkeys(ARCHITECTURES, OTHERS), **dict.fromkeys(FROZEN, TRAINING), "WEIGHTS": START,
        "DEVICE": "where it ran", "RESNETS" if swin else "SWIN": OTHERS,
    })  # fmt: skip
    mean = _three(model, "PIXEL_MEAN", (103.53, 116.28, 123.675), stored.get("mean"))
    std = _three(model, "PIXEL_STD", (1.0, 1.0, 1.0), stored.get("std"))
    size, longest = _photos(e.part("INPUT", {}))
    e.without_effect({str(key): RUN for key in e.values if key not in ("MODEL", "INPUT")})
    e.finish()
    p = replace(usual, size=size, longest=longest, mean=mean, std=std, divisor=divisor)
    p = p if size else replace(p, policy="none", longest=0)
    try:
        check_preprocess(p)
    except ValueError as error:
        raise XenomaskError(f"the config prepares photos in a way that cannot be: {first_line(error)}") from error
    return p


def _three(e: Entries, key: str, default: Any, stored: tuple[float, ...] | None) -> tuple[float, float, float]:
    values = e.three(key, default)
    if stored is not None and any(abs(a - b) > 1e-3 for a, b in zip(values, stored, strict=True)):
        e.refuse(key, values, f"but the checkpoint has {stored}", ", ")
    a, b, c = map(float, values)
    return a, b, c


def _photos(e: Entries) -> tuple[int, int]:
    """(shortest edge, 0 for no resizing; longest edge) at test time."""
    e.only("FORMAT", "RGB", default="BGR")
    size, longest = e.take("MIN_SIZE_TEST", 800), e.take("MAX_SIZE_TEST", 1333)
    for key, value in (("MIN_SIZE_TEST", size), ("MAX_SIZE_TEST", longest)):
        if type(value) is not int or value < 0:
            e.refuse(key, value, "is no edge in pixels")
    e.without_effect(dict.fromkeys(PHOTOS_IN_TRAINING, TRAINING))
    return size, longest


def _swin(e: Entries, b: Any) -> None:
    e.same("EMBED_DIM", b.embed_dim, 96)
    e.same("DEPTHS", b.depths, (2, 2, 6, 2))
    e.same("NUM_HEADS", b.num_heads, (3, 6, 12, 24))
    e.same("WINDOW_SIZE", b.window_size, 7)
    e.same("PATCH_SIZE", b.patch_size, 4)
    e.same("QKV_BIAS", b.qkv_bias, True)
    ratio = e.number("MLP_RATIO", 0.01, 100, 4.0)
    if int(ratio * b.embed_dim) != round(b.mlp_ratio * b.embed_dim):
        e.refuse("MLP_RATIO", ratio, f"but the weights' shapes say {b.mlp_ratio:g}", ", ")
    e.only("QK_SCALE", None)
    e.only("APE", False)
    e.only("PATCH_NORM", True)
    e.only("OUT_FEATURES", STAGES)
    e.without_effect({
        **dict.fromkeys(("DROP_RATE", "ATTN_DROP_RATE", "DROP_PATH_RATE"), DROPOUT), "USE_CHECKPOINT": MEMORY,
        "PRETRAIN_IMG_SIZE": "the size of the absolute position table, which is not there",
    })  # fmt: skip


def _resnet(e: Entries, b: Any) -> None:
    e.same("DEPTH", RESNETS.get(tuple(b.depths)), 50)
    e.same("STEM_OUT_CHANNELS", b.embedding_size, 64)
    e.same("RES2_OUT_CHANNELS", b.hidden_sizes[0], 256)
    e.only("OUT_FEATURES", STAGES, default=("res4",))
    e.only("NORM", "FrozenBN", "BN", "SyncBN")  # the same at inference, each with an eps of 1e-5
    e.only("STRIDE_IN_1X1", False, default=True)
    e.only("NUM_GROUPS", 1)
    e.only("WIDTH_PER_GROUP", 64)
    e.only("RES5_DILATION", 1)
    e.only("DEFORM_ON_PER_STAGE", (False,) * 4)
    e.without_effect({
        **dict.fromkeys(("DEFORM_MODULATED", "DEFORM_NUM_GROUPS"), "there are no deformable convolutions"),
        **dict.fromkeys(("RES4_DILATION", "RES5_MULTI_GRID", "STEM_TYPE"), "of DeepLab's ResNet alone"),
    })  # fmt: skip


def _pixel_decoder(e: Entries, c: Mask2FormerConfig) -> None:
    e.only("NAME", "MaskFormerHead", default="SemSegFPNHead")
    e.only("PIXEL_DECODER_NAME", "MSDeformAttnPixelDecoder", default="BasePixelDecoder")
    e.only("IN_FEATURES", STAGES, default=("p2", "p3", "p4", "p5"))
    several = min(c.feature_strides[1:]) < 32
    e.same("DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES", STAGES[1:] if several else STAGES[3:], STAGES[1:])
    e.same("NUM_CLASSES", c.num_labels, 54)
    e.same("CONVS_DIM", c.feature_size, 128)
    e.same("MASK_DIM", c.mask_feature_size, 256)
    e.same("TRANSFORMER_ENC_LAYERS", c.encoder_layers, 0)
    e.only("COMMON_STRIDE", 4)
    e.only("NORM", "GN")
    e.without_effect({
        **dict.fromkeys(("IGNORE_VALUE", "LOSS_WEIGHT", "LOSS_TYPE"), TRAINING),
        **dict.fromkeys(("DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS", "DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS"), UNUSED),
        **dict.fromkeys(("ASPP_CHANNELS", "ASPP_DILATIONS", "ASPP_DROPOUT", "PROJECT_CHANNELS", "PROJECT_FEATURES",
                         "USE_DEPTHWISE_SEPARABLE_CONV"), "of DeepLab's head alone"),
    })  # fmt: skip


def _decoder(e: Entries, c: Mask2FormerConfig, own_multiple: int) -> int:
    """The multiple that photos are padded to; `own_multiple` is the backbone's."""
    e.only("TRANSFORMER_DECODER_NAME", "MultiScaleMaskedTransformerDecoder")
    e.only("TRANSFORMER_IN_FEATURE", "multi_scale_pixel_decoder", default="res5")
    e.same("NHEADS", c.num_attention_heads, 8)
    e.same("DIM_FEEDFORWARD", c.dim_feedforward, 2048)
    e.same("HIDDEN_DIM", c.hidden_dim, 256)
    e.same("NUM_OBJECT_QUERIES", c.num_queries, 100)
    e.same("DEC_LAYERS", c.decoder_layers, 6)  # both count the bare queries as a layer
    # where the widths differ there is a projection anyway
    enforced = e.take("ENFORCE_INPUT_PROJ", False)
    if c.feature_size == c.hidden_dim and enforced != c.enforce_input_projection:
        e.refuse("ENFORCE_INPUT_PROJ", enforced, f"but the weights say {c.enforce_input_projection}", ", ")
    e.only("PRE_NORM", False)
    e.without_effect({
        **dict.fromkeys(LOSSES, TRAINING), "DROPOUT": DROPOUT, "ENC_LAYERS": UNUSED, "TEST": AFTER,
        "OPEN_PANOPTIC": AFTER, "USE_POINT_REND": OTHERS,
    })  # fmt: skip
    multiple = e.take("SIZE_DIVISIBILITY", 32)
    if type(multiple) is not int or not -1 <= multiple <= 1024:
        e.refuse("SIZE_DIVISIBILITY", multiple, "is no number of pixels in -1..1024")
    return own_multiple if multiple < 0 else max(multiple, 1)
