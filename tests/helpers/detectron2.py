"""Checkpoints with the names and shapes of detectron2's Mask2Former."""

import math
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HEAD, PIXEL, QUERY = "sem_seg_head", "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
HEADS = 4  # of both decoders


class Checkpoint(dict[str, np.ndarray]):
    """A random state dict with the names and shapes of the original."""

    def __init__(self, **how: Any):
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.how = {
            "window": 4, "depths": (2, 1, 2, 1), "levels": 3, "layers": 1, "encoder": 1, "classes": 19, "queries": 6,
            "feature": 32, "hidden": 32, "mask": 24, "resnet": False, **how,
        }  # fmt: skip
        (self.resnet if self.how["resnet"] else self.swin)()
        self.head()

    def put(self, name: str, *shape: int, around: float = 0.0, scale: float | None = None) -> None:
        scale = 1 / math.sqrt(math.prod(shape[1:])) if scale is None else scale
        self[name] = (around + scale * self.rng.standard_normal(shape)).astype(np.float32)

    def layer(self, name: str, out: int, *into: int, bias: bool = True) -> None:
        self.put(f"{name}.weight", out, *into)
        if bias:
            self.put(f"{name}.bias", out, scale=0.2)

    def norm(self, name: str, n: int, batch: bool = False) -> None:
        self.put(f"{name}.weight", n, around=1, scale=0.2)
        self.put(f"{name}.bias", n, scale=0.2)
        if batch:
            self.put(f"{name}.running_mean", n, scale=0.2)
            self[f"{name}.running_var"] = self.rng.uniform(0.5, 2, n).astype(np.float32)

    def swin(self) -> None:
        c, w = 8, self.how["window"]
        self.channels = [c << i for i in range(4)]
        self.layer("backbone.patch_embed.proj", c, 3, 4, 4)
        self.norm("backbone.patch_embed.norm", c)
        for i, (n, depth) in enumerate(zip(self.channels, self.how["depths"], strict=True)):
            for j in range(depth):
                b = f"backbone.layers.{i}.blocks.{j}"
                self.norm(f"{b}.norm1", n)
                self.norm(f"{b}.norm2", n)
                self.layer(f"{b}.attn.qkv", 3 * n, n)
                self.layer(f"{b}.attn.proj", n, n)
                self.put(f"{b}.attn.relative_position_bias_table", (2 * w - 1) ** 2, 1 << i, scale=1)
                self[f"{b}.attn.relative_position_index"] = positions(w).numpy()
                self.layer(f"{b}.mlp.fc1", 4 * n, n)
                self.layer(f"{b}.mlp.fc2", n, 4 * n)
            if i < 3:
                self.norm(f"backbone.layers.{i}.downsample.norm", 4 * n)
                self.layer(f"backbone.layers.{i}.downsample.reduction", 2 * n, 4 * n, bias=False)
            self.norm(f"backbone.norm{i}", n)

    def resnet(self) -> None:
        self.channels = [16, 32, 64, 128]
        self.layer("backbone.stem.conv1", 8, 3, 7, 7, bias=False)
        self.norm("backbone.stem.conv1.norm", 8, batch=True)
        before = 8
        for i, (n, depth) in enumerate(zip(self.channels, self.how["depths"], strict=True)):
            for j in range(depth):
                b = f"backbone.res{i + 2}.{j}"
                shapes = {"conv1": (n // 4, before, 1, 1), "conv2": (n // 4, n // 4, 3, 3), "conv3": (n, n // 4, 1, 1)}
                for name, shape in {**({"shortcut": (n, before, 1, 1)} if j == 0 else {}), **shapes}.items():
                    self.layer(f"{b}.{name}", *shape, bias=False)
                    self.norm(f"{b}.{name}.norm", shape[0], batch=True)
                before = n

    def head(self) -> None:
        h = self.how
        c, d, levels = h["feature"], h["hidden"], h["levels"]
        for i in range(levels):
            self.layer(f"{PIXEL}.input_proj.{i}.0", c, self.channels[3 - i], 1, 1)
            self.norm(f"{PIXEL}.input_proj.{i}.1", c)
        self.put(f"{PIXEL}.transformer.level_embed", levels, c, scale=1)
        for i in range(h["encoder"]):
            e = f"{PIXEL}.transformer.encoder.layers.{i}"
            self.layer(f"{e}.self_attn.sampling_offsets", HEADS * levels * 4 * 2, c)
            self.layer(f"{e}.self_attn.attention_weights", HEADS * levels * 4, c)
            self.layer(f"{e}.self_attn.value_proj", c, c)
            self.layer(f"{e}.self_attn.output_proj", c, c)
            self.layer(f"{e}.linear1", 40, c)
            self.layer(f"{e}.linear2", c, 40)
            self.norm(f"{e}.norm1", c)
            self.norm(f"{e}.norm2", c)
        for i in range(4 - levels):
            self.layer(f"{PIXEL}.adapter_{i + 1}", c, self.channels[i], 1, 1, bias=False)
            self.norm(f"{PIXEL}.adapter_{i + 1}.norm", c)
            self.layer(f"{PIXEL}.layer_{i + 1}", c, c, 3, 3, bias=False)
            self.norm(f"{PIXEL}.layer_{i + 1}.norm", c)
        self.layer(f"{PIXEL}.mask_features", h["mask"], c, 1, 1)
        for name in ("query_feat", "query_embed", "level_embed"):
            self.put(f"{QUERY}.{name}.weight", levels if name == "level_embed" else h["queries"], d, scale=1)
        for i in range(levels if c != d else 0):
            self.layer(f"{QUERY}.input_proj.{i}", d, c, 1, 1)
        for i in range(h["layers"]):
            for kind, inner in (("self", "self_attn"), ("cross", "multihead_attn")):
                a = f"{QUERY}.transformer_{kind}_attention_layers.{i}"
                self.put(f"{a}.{inner}.in_proj_weight", 3 * d, d)
                self.put(f"{a}.{inner}.in_proj_bias", 3 * d, scale=0.2)
                self.layer(f"{a}.{inner}.out_proj", d, d)
                self.norm(f"{a}.norm", d)
            f = f"{QUERY}.transformer_ffn_layers.{i}"
            self.layer(f"{f}.linear1", 56, d)
            self.layer(f"{f}.linear2", d, 56)
            self.norm(f"{f}.norm", d)
        self.norm(f"{QUERY}.decoder_norm", d)
        self.layer(f"{QUERY}.class_embed", h["classes"] + 1, d)
        for i, out in enumerate((d, d, h["mask"])):
            self.layer(f"{QUERY}.mask_embed.layers.{i}", out, d)
        self["criterion.empty_weight"] = np.ones(h["classes"] + 1, np.float32)


@cache
def positions(w: int) -> Tensor:
    """For each pair of a window's places, the row of the bias table: their offset, rows first."""
    places = [(y, x) for y in range(w) for x in range(w)]
    return torch.tensor([[(a - c + w - 1) * (2 * w - 1) + b - d + w - 1 for c, d in places] for a, b in places])


def written(path: Path, model: Any, protocol: int = 4) -> Path:
    """As detectron2 publishes models."""
    content = {"model": model, "__author__": "third_party", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def plain(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return dict(checkpoint)
