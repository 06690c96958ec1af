"""Swin encoders with random weights, in the namings of timm and Microsoft."""

from dataclasses import replace
from typing import Any

import timm
import torch
from transformers import Mask2FormerConfig, SwinConfig

from xenomask.models import Network, build
from xenomask.models.network import mask2former
from xenomask.models.presets import STAGES, preset
from xenomask.train.init import ENCODER

SIZES: dict[str, Any] = {"embed_dim": 6, "window_size": 3, "mlp_ratio": 2.0}
DEPTHS, HEADS = (2, 1, 3, 2), (1, 2, 3, 2)
SIDE = 4 * 3 * 8 * 2  # two windows across at the last stage: every window is whole, none is clamped


def randomised(module: Any, seed: int) -> Any:
    """Every parameter random, so that two of one shape cannot be exchanged unnoticed."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    return module.eval()


def timm_swin(**changes) -> Any:
    kind = timm.models.swin_transformer.SwinTransformer  # pyright: ignore
    sizes = {**SIZES, "depths": DEPTHS, "num_heads": HEADS, "num_classes": 5, "img_size": SIDE, **changes}
    return randomised(kind(**sizes), 1)


def network(window: int = 3, seed: int = 0) -> Network:
    """A Mask2Former over that Swin, every parameter random but the norms of the outputs."""
    tiny = preset("tiny").config
    backbone: Any = SwinConfig(
        image_size=SIDE, depths=list(DEPTHS), num_heads=list(HEADS), **{**SIZES, "window_size": window}, **STAGES
    )
    config = Mask2FormerConfig.from_dict({**tiny.to_dict(), "backbone_config": backbone.to_dict()})
    own = build("tiny")
    made = replace(own, module=mask2former(config).eval(), config=config)
    randomised(made.module.get_submodule(f"{ENCODER}.swin"), seed)
    return made


def by_microsoft(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's tensors as microsoft/Swin-Transformer's file has them; timm's own reader is this backwards."""
    out = {}
    for name, value in tensors.items():
        for stage in (1, 2, 3):
            if name.startswith(f"layers.{stage}.downsample."):
                name = name.replace(f"layers.{stage}", f"LAYERS.{stage - 1}")
        out[name.replace("LAYERS", "layers").replace("head.fc", "head")] = value
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            out[f"layers.{stage}.blocks.{block}.attn.relative_position_index"] = torch.zeros(9, 9, dtype=torch.int64)
    out["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 9, 9)
    return out
