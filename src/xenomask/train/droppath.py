"""Stochastic depth (Huang et al. 2016) whose draws are each image's own, however a step's images are split."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NAMES = ("SwinDropPath",)


class DropPath(nn.Module):
    """Leaves out a layer's branch for the images whose draw is below `p`, and scales it for the others."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.draws: Tensor | None = None  # (B,) in [0, 1), set before each forward

    def forward(self, x: Tensor) -> Tensor:
        """x (B, ...), or its kept part."""
        if not self.training or self.p == 0:
            return x
        assert self.draws is not None and len(self.draws) == len(x)
        kept = (self.draws >= self.p).to(x.dtype) / (1 - self.p)
        return x * kept.view(-1, *[1] * (x.ndim - 1))


def own_paths(module: nn.Module) -> list[DropPath]:
    """Puts our layers in the places of transformers'; returns those that draw."""
    found = []
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ in NAMES:
                layer = DropPath(float(child.drop_prob or 0.0))  # pyright: ignore
                setattr(parent, name, layer)
                if layer.p:
                    found.append(layer)
    return found


def draw_paths(layers: Sequence[DropPath], seeds: Sequence[int], device: torch.device) -> None:
    """Draws for one forward pass of images with these seeds."""
    if not layers:
        return
    draws = [torch.rand(len(layers), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    for layer, own in zip(layers, torch.stack(draws, 1).to(device), strict=True):
        layer.draws = own
