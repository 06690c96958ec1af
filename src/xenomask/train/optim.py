"""The optimizer's side of the recipe: parameter groups, learning rate, moving average."""

import torch
from torch import nn

from xenomask.train.config import Optim

UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
BARE = ("level_embed", "relative_position_bias_table")


def parameter_groups(module: nn.Module, o: Optim) -> list[dict]:
    """Backbone and the rest, each with and without weight decay (none on norms, embeddings, position tables)."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            lr = o.lr * (o.backbone_lr if "pixel_level_module.encoder." in f"{prefix}." else 1.0)
            decay = 0.0 if isinstance(part, UNDECAYED) or name in BARE else o.weight_decay
            groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "initial_lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]


def lr_factor(o: Optim, step: int) -> float:
    """Linear warm-up times the poly decay to zero.

    >>> o = Optim(iterations=100, warmup=10, power=1.0)
    >>> lr_factor(o, 4), lr_factor(o, 50), lr_factor(o, 100)
    (0.48, 0.5, 0.0)
    """
    warm = min(1.0, (step + 1) / o.warmup) if o.warmup else 1.0
    return warm * (1 - step / o.iterations) ** o.power


@torch.no_grad()
def update_average(average: dict[str, torch.Tensor], module: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) weights, in place; integer buffers are copied."""
    for name, value in module.state_dict().items():
        own = average[name]
        if own.is_floating_point():
            own.lerp_(value.to(own.dtype), 1 - decay)
        else:
            own.copy_(value)
