"""MMSegmentation's Mask2Former -> Network: `iter_N.pth`, published files, whole `work_dirs/<config>` folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Mask2FormerConfig

from xenomask.errors import XenomaskError
from xenomask.models.convert.architecture import RESNETS, backbone_name, named, read_architecture
from xenomask.models.convert.checkpoint import Checkpoint, read_checkpoint
from xenomask.models.convert.common import Converted, build, facts, recognised
from xenomask.models.convert.entries import Entries, shown
from xenomask.models.convert.mmseg_config import account_for_the_rest, check_model
from xenomask.models.convert.mmseg_photos import CITYSCAPES, read_preprocess
from xenomask.models.convert.names import MMSEG, first
from xenomask.models.convert.pyconfig import lookup, read_config, read_config_text
from xenomask.models.convert.trainlog import read_miou
from xenomask.models.network import Network
from xenomask.models.preprocess import Preprocess
from xenomask.types import CITYSCAPES_CLASSES

# MMSegmentation 0.x wrote meta.CLASSES, its 1.x writes meta.dataset_meta.classes
NAMED_IN_META = ("dataset_meta.", "", "metainfo.", "dataset_meta.metainfo.")
NAMED_IN_CONFIG = ("metainfo.", "train_dataloader.dataset.metainfo.", "train_dataloader.dataset.dataset.metainfo.")


def convert_mmseg(path: Path, config: Path | None = None, content: Any = None) -> Converted:
    """Converts a Mask2Former of MMSegmentation with a Swin or a ResNet-50, -101 or -152.

    `path` is a checkpoint or a run's work folder; the config is the given file, else the one inside the checkpoint,
    else the folder's, else what the shapes tell and Cityscapes' usual preprocessing. Nothing of the files is executed.
    `content` is what `read_torch` gave, where that was done before.
    Raises XenomaskError that names the tensor, the config's entry or the line that stands in the way.
    """
    checkpoint = read_checkpoint(path, content)
    told, told_by = _config(checkpoint, path, config)
    try:
        weights = recognised(checkpoint.tensors, MMSEG)
        architecture: Any = read_architecture(weights)
        backbone = architecture.backbone_config
        if backbone.model_type == "resnet" and tuple(backbone.depths) not in RESNETS:
            known = ", ".join(f"ResNet-{n} {depths}" for depths, n in RESNETS.items())
            raise XenomaskError(f"its ResNet has blocks {tuple(backbone.depths)}; supported are {known}")
        preprocess = CITYSCAPES
        if told:
            preprocess, drop_path, sized = settings(Entries(told), architecture)
            told_by += "" if sized else "; it has no test pipeline, so photos are sized as Cityscapes'"
            if backbone.model_type == "swin":
                backbone.drop_path_rate = drop_path
        named(architecture, class_names(checkpoint.meta, told, architecture.num_labels))
        module = build(architecture, weights)
    except XenomaskError as e:
        raise XenomaskError(f"{checkpoint.path}: {e}") from e
    module.get_buffer("criterion.empty_weight").fill_(1.0)  # of the loss, which MMSegmentation does not store
    known = facts(checkpoint.path, "mmsegmentation", backbone_name(architecture), weights)
    return Converted(
        Network(module, architecture, preprocess, facts={"converted": known | _of_the_run(checkpoint, told_by, told)}),
        weights.dropped,
    )


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


def settings(config: Entries, architecture: Mask2FormerConfig) -> tuple[Preprocess, float, bool]:
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


def _of_the_run(checkpoint: Checkpoint, told_by: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card keeps of the training."""
    meta = checkpoint.meta
    iterations = meta.get("iter") if isinstance(meta.get("iter"), int) else None
    texts = {k: v[:200] for k, v in meta.items() if isinstance(k, str) and isinstance(v, str)}
    miou = read_miou(checkpoint.path.parent)
    at = iterations if iterations in miou else max(miou, default=None)
    old = any(first(name, MMSEG.earlier) for name in checkpoint.tensors)
    return {
        "layout": "before mmdet's DETR refactor" if old else "current",
        "config": told_by,
        "versions": {k: texts[k] for k in ("mmengine_version", "mmseg_version") if k in texts},
        "experiment": texts.get("experiment_name"),
        "iterations": iterations,
        "miou": miou[at] if at is not None else None,  # per cent
        "miou_at": at,
        "test_mode": str(lookup(config, "model.test_cfg.mode", "whole")),
    }
