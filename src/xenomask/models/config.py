"""A checkpoint folder's JSON as data: looked through before transformers builds anything from it."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError, first_line
from xenomask.files import read_object
from xenomask.models.preprocess import Preprocess, check_preprocess

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "xenomask.json"
# Networks that give a logit for each class and pixel, and have no queries.
PER_PIXEL = ("segformer", "upernet")
MAHALANOBIS = "mahalanobis"  # the kind of models.mahalanobis
OUTLIER_NAME = "outlier"
MAX_ITEMS = 50_000
MAX_NUMBER = 100_000  # of channels, queries, words, classes
MAX_LAYERS = 1000  # each is built before any shape can be compared
MAX_WINDOW = 64  # real ones are 7 to 24; its table grows with the fourth power
REPEATED = re.compile(r"depths?|.*(layers|blocks|stages|levels)")
NAME = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
# How transformers 4 gave a backbone that it then built by its name.
BY_NAME = ("backbone", "backbone_config", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone")
# How a config can make transformers fetch code: each of these may only be what stands beside it.
CODE: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"),
        (None, "eager", "sdpa"),
    ),
    **dict.fromkeys(("auto_map", "quantization_config", "custom_pipelines", "kernel_config"), (None, {})),
}


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint folder, as plain JSON.

    A backbone that is given by its name alone is written out, as transformers would otherwise ask the Hub what it is.
    Raises XenomaskError for numbers that no network has, and for entries by which transformers would ask the network
    for more, or run code.
    """
    config = read_object(folder / CONFIG)
    where = str(folder / CONFIG)
    for n, (key, value) in enumerate(_walk(config)):
        if n >= MAX_ITEMS:
            raise XenomaskError(f"{where} has more than {MAX_ITEMS} entries")
        _check(where, key, value)
    return _with_backbone(where, config)


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value, however deep, with the key that it or its list has."""
    waiting = [(key, value)]
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += ((key, v) for v in value)


def _check(where: str, key: str, value: Any) -> None:
    from transformers import PreTrainedConfig

    if key.startswith("__") or callable(getattr(PreTrainedConfig, key, None)):
        raise XenomaskError(f"{where} has an entry {key[:60]!r}, which is no setting of a network")
    if key in CODE and value not in CODE[key]:
        raise XenomaskError(f"{where} asks for code from elsewhere ({key} = {str(value)[:60]!r}), which is never run")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    most = MAX_LAYERS if REPEATED.fullmatch(key) else MAX_WINDOW if key == "window_size" else MAX_NUMBER
    # thresholds and penalties may be as large as they like
    if not math.isfinite(value) or (isinstance(value, int) and abs(value) > most):
        raise XenomaskError(f"{where} says {key[:60]} = {str(value)[:30]}, which no network has (at most {most})")


def _with_backbone(where: str, part: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """The table with each named backbone, however deep, as a backbone_config."""
    found = {k: _with_backbone(where, v, k) if isinstance(v, dict) else v for k, v in part.items()}
    name = part.get("backbone")
    if name is not None and (not isinstance(name, str) or not NAME.fullmatch(name)):
        raise XenomaskError(f"{where} has the backbone {str(name)[:80]!r}, not a plain name of timm's")
    if key == "decoder_config" and not part.get("backbone_config"):
        # a MaskFormer's decoder is that of a DETR, whose own backbone is part of its settings and never built
        return {k: v for k, v in found.items() if k not in BY_NAME}
    if name is None or part.get("backbone_config") or part.get("model_type") == "timm_backbone":
        return found
    settings = part.get("backbone_kwargs") or {}
    if part.get("use_timm_backbone") is not True or not isinstance(settings, dict):
        raise XenomaskError(f"{where} names the backbone {name} and has no backbone_config that says how it is built")
    rest = {k: v for k, v in found.items() if k not in BY_NAME}
    return {**rest, "backbone_config": {**settings, "model_type": "timm_backbone", "backbone": name}}


def refuse_stripped(folder: Path) -> None:
    """Raises XenomaskError for our own checkpoint without its xenomask.json, which is no Hugging Face folder."""
    if any((folder / p).is_file() for p in (CARD, "preprocessor_config.json", "processor_config.json")):
        return
    # transformers' save_pretrained names the class in `architectures`, Network.save does not
    if read_object(folder / CONFIG).get("architectures", True) in (None, []):
        raise XenomaskError(
            f"{folder} is a checkpoint of xenomask without its {CARD}, which says how photos enter the network: copy "
            "it from where the folder was written"
        )


def read_card(path: Path) -> tuple[Preprocess, dict[str, Any]]:
    """The preprocessing in a xenomask.json, and all else that it says."""
    card = read_object(path)
    try:
        stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.pop("preprocess").items()}
        p = Preprocess(**stored)
        check_preprocess(p)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise XenomaskError(f"{path} is damaged: its preprocess: {first_line(e)}") from e
    return p, card


def is_per_pixel(folder: Path) -> bool:
    """Whether a checkpoint folder's configuration is a per-pixel network's; nothing is loaded."""
    return read_object(folder / CONFIG).get("model_type") in PER_PIXEL


def outlier_last(config: Any) -> bool:
    """Whether a mask transformer's last class is called "outlier" (UNO): such a class is none of the known ones."""
    names: Any = config.id2label or {}
    return config.model_type not in PER_PIXEL and len(names) > 1 and names.get(len(names) - 1) == OUTLIER_NAME
