"""Small random networks of every Hugging Face kind that xenomask opens, as folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    ConvNextConfig,
    DetrConfig,
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
    TimmBackboneConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
SMALL: dict[str, Any] = dict(
    feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32, dim_feedforward=32,
    encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=8, num_labels=5,
)  # fmt: skip
EOMT: dict[str, Any] = dict(
    hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8, num_blocks=1,
    num_queries=5, num_register_tokens=1, num_upscale_blocks=1,
)  # fmt: skip
# what transformers 4.57.1 writes of a DETR inside a MaskFormer
OLD_DECODER = {
    "backbone": "resnet50", "backbone_config": None, "use_timm_backbone": True, "use_pretrained_backbone": True,
    "backbone_kwargs": {"in_chans": 3, "out_indices": [1, 2, 3, 4]},
}  # fmt: skip


def swin() -> SwinConfig:
    return SwinConfig(image_size=32, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, **STAGES)


def convnext() -> ConvNextConfig:
    return ConvNextConfig(depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], **STAGES)


def maskformer() -> nn.Module:
    decoder = DetrConfig(
        encoder_layers=1, decoder_layers=1, d_model=32, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=6,
    )  # fmt: skip
    config = MaskFormerConfig(backbone_config=swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32)
    return MaskFormerForInstanceSegmentation(config)


def mask2former(backbone: Any = None) -> nn.Module:
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=backbone or swin(), **SMALL))


def mask2former_timm() -> nn.Module:
    levels: dict[str, Any] = {"out_indices": [1, 2, 3, 4]}
    return mask2former(TimmBackboneConfig(backbone="test_resnet", **levels))


def oneformer(length: int = 9) -> nn.Module:
    sizes: dict[str, Any] = dict(
        backbone_config=swin(), conv_dim=32, mask_dim=32, hidden_dim=32, encoder_feedforward_dim=32, encoder_layers=1,
        decoder_layers=2, dim_feedforward=32, num_attention_heads=2, num_queries=7, use_task_norm=True,
        task_seq_len=length, text_encoder_width=32, text_encoder_num_layers=1, text_encoder_context_length=9,
        text_encoder_vocab_size=64,
    )  # fmt: skip
    return OneFormerForUniversalSegmentation(OneFormerConfig(**sizes))


def eomt() -> nn.Module:
    return EomtForUniversalSegmentation(EomtConfig(**EOMT))


def eomt_dinov3() -> nn.Module:
    return EomtDinov3ForUniversalSegmentation(EomtDinov3Config(**EOMT, intermediate_size=32))


def segformer() -> nn.Module:
    sizes: dict[str, Any] = dict(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=19,
    )
    return SegformerForSemanticSegmentation(SegformerConfig(**sizes))


def upernet(backbone: Any = None) -> nn.Module:
    sizes: dict[str, Any] = dict(hidden_size=16, auxiliary_channels=8, num_labels=5)
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone or convnext(), **sizes))


def upernet_swin() -> nn.Module:
    return upernet(swin())


KINDS: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f
    for f in (maskformer, mask2former, mask2former_timm, oneformer, eomt, eomt_dinov3, segformer, upernet, upernet_swin)
}


def write(kind: str, folder: Path) -> nn.Module:
    """Saves a network of that kind into the folder, with a tokenizer where it needs one; returns it."""
    torch.manual_seed(0)
    module: Any = KINDS[kind]().eval()
    module.save_pretrained(folder)
    if kind == "oneformer":
        write_tokenizer(folder)
    return module


def write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of a few words, whose padding token is not token 0."""
    words = ["!", "the</w>", "task</w>", "is</w>", "semantic</w>", "<|startoftext|>", "<|endoftext|>", *"theaskicmn"]
    merges = ["t h", "th e</w>", "t a", "s k</w>", "ta sk</w>", "i s</w>", "s e", "m a", "n t", "i c</w>", "se ma",
              "sema nt", "semant ic</w>"]  # fmt: skip
    parts = [a + b for a, b in (m.split() for m in merges)]
    letters = [c + end for c in "theaskicmn" for end in ("", "</w>")]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys([*words, *letters, *parts]))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Changes a folder's config.json in place."""
    path = folder / "config.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return folder


def as_written_by_457(kind: str, folder: Path) -> Path:
    """Makes the config.json what transformers 4.57.1 writes: backbones by name, a DETR's too."""

    def by_name(table: dict[str, Any]) -> None:
        if kind == "maskformer":
            inner = table["decoder_config"]
            table["decoder_config"] = {k: v for k, v in inner.items() if k not in OLD_DECODER} | OLD_DECODER
        table |= {"backbone": None, "backbone_kwargs": None, "use_pretrained_backbone": False}
        if kind == "mask2former_timm":
            table |= {"backbone": "test_resnet", "backbone_config": None, "use_timm_backbone": True,
                      "backbone_kwargs": {"out_indices": [1, 2, 3, 4]}}  # fmt: skip

    return change_config(folder, by_name)
