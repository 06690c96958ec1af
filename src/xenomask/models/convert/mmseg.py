"""MMSegmentation's Mask2Former -> Network: `iter_N.pth`, published files, whole `work_dirs/<config>` folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.models.convert.architecture import Architecture, read_architecture, transformers_config
from xenomask.models.convert.checkpoint import Checkpoint, read_checkpoint
from xenomask.models.convert.common import Converted
from xenomask.models.convert.entries import Entries, shown
from xenomask.models.convert.mmseg_config import account_for_the_rest, check_model
from xenomask.models.convert.mmseg_photos import CITYSCAPES, read_preprocess
from xenomask.models.convert.pyconfig import lookup, read_config, read_config_text
from xenomask.models.convert.rules import (
    DROPPED,
    NOT_IN_SOURCE,
    RULES,
    Rule,
    changed,
    find_rule,
    new_layout,
    renamed,
    source_of,
)
from xenomask.models.convert.trainlog import read_miou
from xenomask.models.network import Network
from xenomask.models.preprocess import Preprocess
from xenomask.models.presets import without_warnings
from xenomask.models.weights import as_type
from xenomask.types import CITYSCAPES_CLASSES

SHOWN = 3  # tensors that an error names
# MMSegmentation 0.x wrote meta.CLASSES, its 1.x writes meta.dataset_meta.classes
NAMED_IN_META = ("dataset_meta.", "", "metainfo.", "dataset_meta.metainfo.")
NAMED_IN_CONFIG = ("metainfo.", "train_dataloader.dataset.metainfo.", "train_dataloader.dataset.dataset.metainfo.")


def convert_mmseg(path: Path, config: Path | None = None, content: Any = None) -> Converted:
    """Converts a Mask2Former of MMSegmentation with a Swin or a ResNet-50/101.

    `path` is a checkpoint or a run's work folder; the config is the given file, else the one inside the checkpoint,
    else the folder's, else what the shapes tell and Cityscapes' usual preprocessing. Nothing of the files is executed.
    `content` is what `read_torch` gave, where that was done before.
    Raises XenomaskError that names the tensor, the config's entry or the line that stands in the way.
    """
    checkpoint = read_checkpoint(path, content)
    told, told_by = _config(checkpoint, path, config)
    try:
        tensors, layout = new_layout(checkpoint.tensors)
        architecture = read_architecture(tensors)
        preprocess, drop_path = CITYSCAPES, 0.3
        if told:
            preprocess, drop_path, sized = settings(Entries(told), architecture)
            told_by += "" if sized else "; it has no test pipeline, so photos are sized as Cityscapes'"
        names = class_names(checkpoint.meta, told, architecture.classes)
        rules = RULES[architecture.kind]
        weights, dropped = convert_tensors(tensors, rules)
        network_config, module = build_module(architecture, names, drop_path, weights, tensors)
    except XenomaskError as e:
        raise XenomaskError(f"{checkpoint.path}: {e}") from e
    facts = _facts(checkpoint, architecture, layout, told_by, told, dropped)
    return Converted(Network(module, network_config, preprocess, facts=facts), dropped)


def _config(checkpoint: Checkpoint, path: Path, given: Path | None) -> tuple[Mapping[str, Any], str]:
    """The config and where it is from; {} where there is none."""
    if given is not None:
        return read_config(given), given.name
    text = checkpoint.meta.get("cfg")
    if isinstance(text, str) and text.strip():
        return read_config_text(text, f"inside {checkpoint.path.name}"), "inside the checkpoint"
    beside = sorted(path.glob("*.py")) if path.is_dir() else []
    if len(beside) == 1:
        return read_config(beside[0]), beside[0].name
    return {}, "none: recognised by shapes, Cityscapes' preprocessing"


def settings(config: Entries, architecture: Architecture) -> tuple[Preprocess, float, bool]:
    """All that is taken from a config: how photos are prepared, Swin's drop path, whether the config tells a size.

    Raises XenomaskError that names the first entry which contradicts the weights or asks for what we cannot do.
    """
    drop_path = check_model(config, architecture)
    preprocess, sized = read_preprocess(config)
    account_for_the_rest(config)
    config.finish()
    return preprocess, drop_path, sized


def class_names(meta: Mapping[str, Any], config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The classes that the checkpoint names, else its config, else Cityscapes' where there are as many, else "class 0".

    Raises XenomaskError for names that are not `count`, or no names, and where two places name different ones.
    """
    for source, what, places in ((meta, "meta", NAMED_IN_META), (config, "config", NAMED_IN_CONFIG)):
        found = {}
        for place in (f"{p}{key}" for p in places for key in ("classes", "CLASSES")):  # lower case since MMEngine
            if names := lookup(source, place):
                found[place] = _names(names, f"the checkpoint's {what}: {place}", count)
        if len(set(found.values())) > 1:
            raise XenomaskError(f"the checkpoint's {what} names different classes in {' and '.join(found)}")
        if found:
            return next(iter(found.values()))
    return CITYSCAPES_CLASSES if count == len(CITYSCAPES_CLASSES) else tuple(f"class {i}" for i in range(count))


def _names(names: Any, where: str, count: int) -> tuple[str, ...]:
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        raise XenomaskError(f"{where} is no list of names: {shown(names)}")
    if len(names) != count:
        raise XenomaskError(f"{where} names {len(names)} classes, but decode_head.cls_embed.weight has {count}")
    return tuple(names)


def convert_tensors(tensors: Mapping[str, Tensor], rules: tuple[Rule, ...]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor under transformers' name, and those left out, with the reason.

    Raises XenomaskError that names tensors which no row of the table is for.
    """
    weights: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    foreign = []
    for name, tensor in tensors.items():
        if reason := next((r for pattern, r in DROPPED.items() if renamed(name, pattern, "") is not None), None):
            dropped[name] = reason
        elif found := find_rule(name, rules):
            rule, target = found
            if (rule.change == "split" and tensor.shape[0] % 3) or (rule.change == "merge" and tensor.shape[-1] % 4):
                raise XenomaskError(f"tensor {name} has the shape {tuple(tensor.shape)}, which cannot be")
            weights |= changed(tensor, rule, target)
        else:
            foreign.append(name)
    if foreign:
        raise XenomaskError(f"{_some(foreign)} unknown to xenomask's table of Mask2Former's tensors")
    return weights, dropped


def build_module(
    architecture: Architecture,
    names: tuple[str, ...],
    drop_path: float,
    weights: dict[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> tuple[Mask2FormerConfig, torch.nn.Module]:
    """transformers' network with these weights in it; compared by name and shape before memory is taken."""
    rules = RULES[architecture.kind]
    try:
        config = transformers_config(architecture, names, float(drop_path))
        with torch.device("meta"), without_warnings():
            own = Mask2FormerForUniversalSegmentation(config).state_dict()
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as e:
        raise XenomaskError(f"transformers cannot build this architecture: {e}") from e
    compare(own, weights, tensors, rules)
    for name in NOT_IN_SOURCE & own.keys():
        weights[name] = torch.ones(own[name].shape) if name.endswith("weight") else torch.zeros(own[name].shape)
    with without_warnings():
        module = Mask2FormerForUniversalSegmentation(config)
    module.load_state_dict({k: as_type(v, own[k].dtype, k, "the file") for k, v in weights.items()})
    return config, module.to(memory_format=torch.channels_last).eval()  # pyright: ignore


def compare(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor], rules: tuple[Rule, ...]
) -> None:
    """Raises XenomaskError that names MMSegmentation's tensors which are missing, too many or of another shape."""
    if missing := own.keys() - weights.keys() - NOT_IN_SOURCE:
        raise XenomaskError(f"{_some({source_of(k, rules) for k in missing})} missing")
    if extra := weights.keys() - own.keys():
        raise XenomaskError(f"{_some({source_of(k, rules) for k in extra})} not part of this architecture")
    wrong = {source_of(k, rules): (k, w) for k, w in weights.items() if w.shape != own[k].shape}
    if wrong:
        name, (target, weight) = min(wrong.items())
        shape = tuple(tensors[name].shape) if name in tensors else tuple(weight.shape)
        raise XenomaskError(
            f"{_some(wrong)} of another shape than this architecture's: {name} has {shape}, and would become "
            f"{tuple(own[target].shape)} in transformers"
        )


def _some(names: Any) -> str:
    """'tensor a is' or 'tensors a, b, c, ... (7) are'."""
    names = sorted(names)
    if len(names) == 1:
        return f"tensor {names[0]} is"
    return f"tensors {', '.join(names[:SHOWN])}{f', ... ({len(names)})' if len(names) > SHOWN else ''} are"


def _facts(
    checkpoint: Checkpoint,
    architecture: Architecture,
    layout: str,
    told_by: str,
    config: Mapping[str, Any],
    dropped: Mapping[str, str],
) -> dict[str, Any]:
    """What the model card keeps of where the network is from."""
    meta = checkpoint.meta
    iterations = meta.get("iter") if isinstance(meta.get("iter"), int) else None
    texts = {k: v[:200] for k, v in meta.items() if isinstance(k, str) and isinstance(v, str)}
    miou = read_miou(checkpoint.path.parent)
    at = iterations if iterations in miou else max(miou, default=None)
    return {
        "converted": {
            "kind": "mmsegmentation",
            "file": checkpoint.path.name,
            "sha256": sha256(checkpoint.path),
            "backbone": architecture.name,
            "layout": layout,
            "config": told_by,
            "versions": {k: texts[k] for k in ("mmengine_version", "mmseg_version") if k in texts},
            "experiment": texts.get("experiment_name"),
            "iterations": iterations,
            "miou": miou[at] if at is not None else None,  # per cent
            "miou_at": at,
            "test_mode": str(lookup(config, "model.test_cfg.mode", "whole")),
            "tensors": len(checkpoint.tensors),
            "dropped": {r: [n for n, why in dropped.items() if why == r] for r in dict.fromkeys(dropped.values())},
        }
    }
