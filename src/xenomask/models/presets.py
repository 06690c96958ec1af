"""Architectures by name: each is a plain function's answer, a Mask2FormerConfig and a Preprocess."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import Mask2FormerConfig, SwinConfig, TimmBackboneConfig

from xenomask.errors import unknown
from xenomask.models.preprocess import Preprocess
from xenomask.types import CITYSCAPES_CLASSES

# **kwargs, as the type stubs of transformers do not know them
STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
LEVELS: dict[str, Any] = {"out_indices": [1, 2, 3, 4]}
# The EfficientNet-Lite weights were trained on (x - 127) / 128.
LITE_MEAN, LITE_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)


# What transformers says of networks that it runs well, by logger; any other word of its is let through.
REMARKS = {
    # timm's backbones, or a Swin under MaskFormer's own name
    "transformers.models.mask2former.configuration_mask2former": re.compile("Backbone .* is not a supported model"),
    "transformers.models.maskformer.configuration_maskformer": re.compile("Backbone .* is not a supported model"),
    # its table of missing and unknown tensors, of which an error of ours says what matters
    "transformers.modeling_utils": re.compile(".*LOAD REPORT", re.DOTALL),
}
# heads of nano-l's width (20) would be slow in the authors' CUDA operator, which is not used
SLOW_HEADS = ".*dimension of each attention head a power of 2"


@contextmanager
def without_warnings() -> Iterator[None]:
    """Mutes, while it is open, the remarks of transformers above, and none of its other warnings."""

    # NOTE: filters, as a level of its own makes transformers list every layer that no second GPU gets a part of
    def wanted(record: logging.LogRecord) -> bool:
        return not REMARKS[record.name].match(record.getMessage())

    loggers = [logging.getLogger(name) for name in REMARKS]
    for log in loggers:
        log.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=SLOW_HEADS)
            yield
    finally:
        for log in loggers:
            log.removeFilter(wanted)


@dataclass(frozen=True)
class Preset:
    """One architecture with the way its images are prepared."""

    config: Mask2FormerConfig
    preprocess: Preprocess


def _labels() -> dict:
    return {
        "id2label": dict(enumerate(CITYSCAPES_CLASSES)),
        "label2id": {name: i for i, name in enumerate(CITYSCAPES_CLASSES)},
    }


def _swin(embed: int, heads: list[int], window: int, image: int) -> Preset:
    """The paper's setting: Mask2Former's defaults over a Swin (notes: 100 queries also for Swin-L)."""
    backbone = SwinConfig(
        image_size=image, embed_dim=embed, depths=[2, 2, 18, 2], num_heads=heads, window_size=window,
        drop_path_rate=0.3, **STAGES,
    )  # fmt: skip
    config = Mask2FormerConfig(backbone_config=backbone, num_queries=100, **_labels())
    return Preset(config, Preprocess("fit", 1024, 2048))


def swin_s() -> Preset:
    """Swin-S, 68.7 M parameters (mmseg: mask2former_swin-s_8xb2-90k_cityscapes-512x1024)."""
    return _swin(96, [3, 6, 12, 24], 7, 224)


def swin_l() -> Preset:
    """Swin-L, 215.5 M parameters (mmseg: mask2former_swin-l-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024)."""
    return _swin(192, [6, 12, 24, 48], 12, 384)


def _nano(backbone: str, hidden: int, queries: int, encoder: int, decoder: int, heads: int) -> Preset:
    config = Mask2FormerConfig(
        # BatchNorm frozen: batches of 4 would spoil its statistics
        backbone_config=TimmBackboneConfig(
            backbone=backbone, features_only=True, freeze_batch_norm_2d=True, **LEVELS
        ),
        feature_size=hidden, mask_feature_size=hidden, hidden_dim=hidden, encoder_feedforward_dim=4 * hidden,
        dim_feedforward=8 * hidden, encoder_layers=encoder, decoder_layers=decoder,
        num_attention_heads=heads, num_queries=queries, train_num_points=3072, **_labels(),
    )  # fmt: skip
    return Preset(config, Preprocess("shortest", 384, 1024, LITE_MEAN, LITE_STD, antialias=True))


def nano_s() -> Preset:
    """EfficientNet-Lite0, 50 queries, 3 decoder layers: 4.8 M parameters."""
    return _nano("tf_efficientnet_lite0", hidden=128, queries=50, encoder=2, decoder=4, heads=4)


def nano_l() -> Preset:
    """EfficientNet-Lite2, 100 queries, 5 decoder layers: 8.8 M parameters."""
    return _nano("tf_efficientnet_lite2", hidden=160, queries=100, encoder=3, decoder=6, heads=8)


def tiny() -> Preset:
    """A network of 0.1 M parameters that segments nothing: for tests and for trying a pipeline out."""
    backbone = SwinConfig(
        image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, mlp_ratio=2.0,
        **STAGES,
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, num_queries=8, train_num_points=256, **_labels(),
    )  # fmt: skip
    return Preset(config, Preprocess("shortest", 64, 256))


PRESETS: dict[str, Callable[[], Preset]] = {
    "swin-s": swin_s,
    "swin-l": swin_l,
    "nano-s": nano_s,
    "nano-l": nano_l,
    "tiny": tiny,
}


def preset(name: str) -> Preset:
    """The preset of that name.

    >>> preset("swin_s")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: unknown preset 'swin_s'; did you mean 'swin-s'? known: nano-l, ...
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    with without_warnings():
        return PRESETS[name]()
