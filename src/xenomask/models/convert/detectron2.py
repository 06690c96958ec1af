"""detectron2's Mask2Former (facebookresearch/Mask2Former, and RbA and Open-set-M2F, which build on it) -> Network.

The architecture is read from the shapes alone. Then every tensor that the network needs is looked up under the name
that the original gives it; what is left over must be on the short list of the knowingly dropped.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Mask2FormerConfig

from xenomask.errors import XenomaskError
from xenomask.models.convert.architecture import backbone_name, named, read_architecture
from xenomask.models.convert.arrays import read_arrays
from xenomask.models.convert.checkpoint import as_tensor, is_safetensors, is_torch_file, named_tensors, read_content
from xenomask.models.convert.common import Converted, Weights, build, facts, recognised
from xenomask.models.convert.detectron2_config import check_config
from xenomask.models.convert.entries import Entries
from xenomask.models.convert.names import DETECTRON2
from xenomask.models.convert.yamlconfig import read_yaml
from xenomask.models.network import Network
from xenomask.models.preprocess import Preprocess
from xenomask.types import CITYSCAPES_CLASSES


def convert_detectron2(
    path: Path, *, outlier_class: bool | None = None, content: Any = None, config: Path | None = None
) -> Converted:
    """Reads a .pkl or .pth of detectron2's Mask2Former; the file is never run.

    `outlier_class`: whether the last class before "no object" stands for outliers, as in Open-set-M2F's UNO
    (`NUM_CLASSES: 20`). The weights cannot tell; None takes 20 classes as Cityscapes' 19 and outliers, and any other
    number as none. `content` is what the file holds, where it was read before. `config` is the run's config.yaml.
    Raises XenomaskError for a file that holds more than arrays, for tensors missing, unknown or of another shape, by
    their names, and for an entry of the config that contradicts the weights or cannot be honoured.
    """
    if content is None:
        content = read_content(path) if is_torch_file(path) or is_safetensors(path) else read_arrays(path)
    tensors = named_tensors(content, path)
    told = Entries(read_yaml(config)) if config else None
    try:
        weights = recognised(tensors, DETECTRON2)
        architecture: Any = read_architecture(weights)
        named(architecture, _classes(architecture.num_labels, outlier_class))
        preprocess = _preprocess(weights, architecture, told)
        module = build(architecture, weights)
        _check_windows(module, weights)
    except XenomaskError as e:
        raise XenomaskError(f"{path}: {e}") from e
    last = architecture.num_labels - 1
    card = facts(path, "detectron2", backbone_name(architecture), weights) | {
        "config": config.name if config else "none: recognised by shapes, published preprocessing",
        "outlier_class": last if architecture.id2label[last] == "outlier" else None,
    }
    return Converted(Network(module, architecture, preprocess, facts={"converted": card}), weights.dropped)


def _classes(n: int, outlier_class: bool | None) -> list[str]:
    known = len(CITYSCAPES_CLASSES)
    has = n == known + 1 if outlier_class is None else outlier_class
    inliers = n - 1 if has else n
    names: list[str] = [*CITYSCAPES_CLASSES] if inliers == known else [f"class {i}" for i in range(inliers)]
    return [*names, "outlier"] if has else names


def _check_windows(module: nn.Module, w: Weights) -> None:
    """Raises XenomaskError where a window's index is not the one that the network computes."""
    places = {source: name for name, (source, _) in w.found.items()}
    for name in w.dropped:
        table = places.get(name.removesuffix("_index") + "_bias_table")
        if table and name.endswith(".relative_position_index"):
            bias: Any = module.get_submodule(table.removesuffix(".relative_position_bias_table"))
            if not torch.equal(as_tensor(w.tensors[name]).flatten().long(), bias.relative_position_index):
                raise XenomaskError(f"{name} is not the usual order of a window's positions")


def _preprocess(w: Weights, architecture: Mask2FormerConfig, told: Entries | None) -> Preprocess:
    """How photos are prepared at test time: the config's way, else the published one with the file's mean and std."""
    stored = {name: _pixels(w, f"pixel_{name}") for name in ("mean", "std")}
    # detectron2 resizes by Pillow, which averages when it shrinks: 1080 rows to 1024 differ from Pillow's by .4 to .5
    # grey levels in the mean with `antialias` and by .8 to .9 without (three photos of SegmentMeIfYouCan)
    usual = Preprocess("shortest", 1024, 2048, antialias=True)
    usual = replace(usual, **{name: values for name, values in stored.items() if values})
    return check_config(told, architecture, usual, stored) if told else usual


def _pixels(w: Weights, name: str) -> tuple[float, ...] | None:
    """Mean or deviation of the channels, where the file has them."""
    if (found := w.tensors.get(name)) is None:
        return None
    flat = as_tensor(found.reshape(-1)[:4]).double()
    if len(flat) != 3 or not flat.isfinite().all() or (name == "pixel_std" and (flat <= 0).any()):
        raise XenomaskError(f"{name} must be three numbers, and a deviation more than 0")
    return tuple(round(x, 4) for x in flat.tolist())  # they are float32 there: 123.6750030517578
