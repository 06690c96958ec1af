"""A Hugging Face folder's image processor -> Preprocess: the network's input is transformers' own, or it is refused."""

import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError, first_line, unknown
from xenomask.files import read_object
from xenomask.models.preprocess import LARGEST, Preprocess

FILE, WHOLE = "preprocessor_config.json", "processor_config.json"
WITHOUT = Preprocess("shortest", 1024, 2048)  # where no file says anything
# The processor of each kind of network, where the file names none.
USUAL = {
    "mask2former": "Mask2Former", "maskformer": "MaskFormer", "oneformer": "OneFormer", "segformer": "Segformer",
    "upernet": "Segformer", "eomt": "Eomt", "eomt_dinov3": "Eomt",
}  # fmt: skip
PLAIN = ("Segformer",)  # they never pad, nor resize to multiples of anything
MULTIPLES = ("Mask2Former", "MaskFormer")  # they resize to multiples of size_divisor, by which a photo is stretched
# by Pillow's numbers; transformers has no others on tensors
RESAMPLING: Mapping[int, Any] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
USED = (
    "do_resize", "size", "max_size", "resample", "size_divisor", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_pad", "pad_size", "do_split_image", "image_processor_type", "feature_extractor_type",
    "auto_map",
)  # fmt: skip
# Entries that change no pixel of a photo, each with the reason.
HARMLESS: Mapping[str, str] = {
    **dict.fromkeys(("do_reduce_labels", "reduce_labels", "ignore_index"), "about labels, of which there are none"),
    **dict.fromkeys(
        ("num_labels", "num_text", "repo_path", "class_info_file", "metadata", "processor_class"),
        "about a OneFormer's texts in training, and where its class names are",
    ),
    **dict.fromkeys(("max_seq_length", "task_seq_length"), "about text; the network's config has its length"),
    **dict.fromkeys(("do_center_crop", "crop_size"), "none of these processors crops, whatever they say"),
    **dict.fromkeys(("do_convert_rgb", "input_data_format"), "photos are RGB here, in a known order of axes"),
    **dict.fromkeys(("data_format", "return_tensors", "disable_grouping", "device"), "about the output's container"),
    **dict.fromkeys(("default_to_square", "size_divisibility"), "no processor reads it from the file"),
    **dict.fromkeys(("image_seq_length", "model_input_names", "_valid_processor_keys", "_max_size"), "no setting"),
    "transformers_version": "who wrote the file",
}


def read_preprocess(folder: Path, kind: str = "mask2former") -> tuple[Preprocess, str | None]:
    """How the folder's own processor prepares a photo, and a note where it has none.

    `kind` is the network's model_type. Raises XenomaskError for a damaged file, a processor or an entry that xenomask
    does not know, and for settings that it cannot follow.
    """
    path, stored = _stored(folder)
    if stored is None:
        p = replace(WITHOUT, divisor=1) if USUAL[kind] in PLAIN else WITHOUT
        return p, f"no {FILE}: ImageNet's mean and std, 1024 x 2048"
    try:
        return _read(stored, kind), None
    except (ValueError, TypeError, OverflowError, ArithmeticError) as e:
        raise XenomaskError(f"{path} is damaged or cannot be followed: {first_line(e)}") from e
    except XenomaskError as e:
        raise XenomaskError(f"{path}: {e}") from e


def _stored(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The processor's settings and the file that they are from: as transformers, the whole processor's file first."""
    if (folder / WHOLE).is_file():
        inner = read_object(folder / WHOLE).get("image_processor")
        if inner is not None:
            if not isinstance(inner, dict):
                raise XenomaskError(f"{folder / WHOLE} is damaged: its image_processor is no table")
            return folder / WHOLE, inner
    return folder / FILE, read_object(folder / FILE) if (folder / FILE).is_file() else None


def _read(stored: Mapping[str, Any], kind: str) -> Preprocess:
    name = str(stored.get("image_processor_type") or stored.get("feature_extractor_type") or USUAL[kind])
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    if name not in USUAL.values():
        raise unknown("image processor", name, USUAL.values())
    if stored.get("auto_map"):
        raise XenomaskError("its auto_map asks for code from elsewhere, which is never run")
    if odd := sorted(stored.keys() - {*USED, *HARMLESS}):
        raise XenomaskError(
            f"xenomask does not know its entry {odd[0][:60]!r}, so it cannot prepare photos as the network wants them: "
            "remove the entry if it changes no photo"
        )
    # transformers itself says what an entry is that is absent; one that is null is not
    module = importlib.import_module(f"transformers.models.{name.lower()}.image_processing_{name.lower()}")
    default = getattr(module, f"{name}ImageProcessor")
    settings = {k: stored.get(k, getattr(default, k, None)) for k in USED}
    if name in MULTIPLES and settings["size"] is None:
        settings["size"] = default.size
    mean, std = _normalisation(settings)
    if settings["pad_size"] is not None:
        raise XenomaskError("its pad_size pads every photo to one size, which is not supported: remove the entry")
    return replace(_resizing(settings, name, stored), mean=mean, std=std)


def _normalisation(settings: Mapping[str, Any]) -> Any:
    """(mean, std) of pixel values 0..255 that do what rescaling and normalising do together."""
    factor = _number(settings["rescale_factor"], "rescale_factor") if _flag(settings, "do_rescale") else 1.0
    if not factor > 0:
        raise ValueError(f"rescale_factor = {factor} is not above 0")
    values = (("image_mean", 0.0), ("image_std", 1.0))
    if not _flag(settings, "do_normalize"):
        return tuple((plain / factor,) * 3 for _, plain in values)
    return tuple(tuple(x / factor for x in _three(settings[key], key)) for key, _ in values)


def _three(value: Any, key: str) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        value = [value] * 3
    if len(value) != 3:
        raise ValueError(f"{key} has {len(value)} {'means' if key == 'image_mean' else 'deviations'}, not three")
    return tuple(_number(x, key) for x in value)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} = {str(value)[:40]} is no finite number")
    return float(value)


def _flag(settings: Mapping[str, Any], key: str) -> bool:
    if not isinstance(value := settings[key], bool | None):
        raise ValueError(f"{key} = {str(value)[:40]} is neither true nor false")
    return bool(value)


def _pixels(value: Any, key: str) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise ValueError(f"{key} = {str(value)[:40]} is no number of pixels up to {LARGEST}")
    return value


def _resizing(settings: Mapping[str, Any], name: str, stored: Mapping[str, Any]) -> Preprocess:
    """A Preprocess that resizes and pads as the processor does; mean and std are still ImageNet's."""
    divisor = 1
    if name in MULTIPLES and settings["size_divisor"] != 0:
        divisor = _pixels(settings["size_divisor"], "size_divisor")
    if not _flag(settings, "do_resize"):
        if name == "Eomt":
            raise XenomaskError("its do_resize is false, but the network takes photos of one size only")
        return Preprocess("none", 0, 0, divisor=1)
    resample = 2 if settings["resample"] is None else settings["resample"]
    if type(resample) is bool or not isinstance(resample, int) or resample not in RESAMPLING:
        raise XenomaskError(f"its resample = {str(resample)[:40]} is not supported: 0, 2 and 3 are")
    fixed, (a, b) = _edges(settings, name, stored)
    if fixed:
        p = Preprocess("fixed", a, b or a, divisor=divisor, resample=RESAMPLING[resample])
        if name == "Eomt" and (_flag(settings, "do_split_image") or _flag(settings, "do_pad")):
            raise XenomaskError("its do_split_image and do_pad want a shortest edge, not a height and a width")
    else:
        p = Preprocess("truncated", a, b or 16 * LARGEST, divisor=divisor, resample=RESAMPLING[resample])
        if name == "Eomt":
            return _eomt(p, settings, b)
    return replace(p, stretch=divisor > 1)


def _edges(settings: Mapping[str, Any], name: str, stored: Mapping[str, Any]) -> tuple[bool, tuple[int, int | None]]:
    """The size in any of its forms: (True, (height, width)) or (False, (shortest edge, the longest's limit))."""
    size, most = settings["size"], settings["max_size"]
    if stored.get("size") is None and most is not None and name in MULTIPLES:
        size = {**size, "longest_edge": most}
    if type(size) is int and name not in PLAIN:
        size = {"shortest_edge": size, "longest_edge": most if name in MULTIPLES else None}
    if isinstance(size, dict):
        size = {k: v for k, v in size.items() if v is not None}
    fixed = [size] * 2 if type(size) is int else size
    if isinstance(size, dict) and size.keys() == {"height", "width"}:
        fixed = [size["height"], size["width"]]
    if isinstance(fixed, list):
        if len(fixed) != 2:
            raise ValueError(f"size = {str(size)[:60]} is no height and width")
        height, width = (_pixels(value, "size") for value in fixed)
        return True, (height, width)
    short_only = name not in MULTIPLES  # the others want both edges
    if isinstance(size, dict) and "shortest_edge" in size and size.keys() <= {"shortest_edge", "longest_edge"}:
        if len(size) == 2 or short_only:
            long = size.get("longest_edge")
            return False, (_pixels(size["shortest_edge"], "shortest_edge"), long and _pixels(long, "longest_edge"))
    raise XenomaskError(
        f"its size {json.dumps(size)[:80]} is not supported: a shortest and a longest edge, or a height and a width"
    )


def _eomt(p: Preprocess, settings: Mapping[str, Any], long: int | None) -> Preprocess:
    """An EoMT's photos are cut into windows along the longer edge, or padded with black to one square."""
    if _flag(settings, "do_split_image"):
        if _flag(settings, "do_pad") or long is not None:
            raise XenomaskError("its windows (do_split_image) come with padding or a longest edge: not supported")
        return p
    if not _flag(settings, "do_pad") or long not in (None, p.size):
        raise XenomaskError("neither do_split_image nor a do_pad to a square: photos have shapes that no EoMT takes")
    return replace(p, longest=p.size, divisor=p.size, black=True)
