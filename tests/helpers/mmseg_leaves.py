"""Every entry of MMSegmentation's config changed in turn, and what the real MMSegmentation then answers.

`mutations` makes the changed configs, for test_trust_mmseg.py too. Run as a program it builds each in the real
MMSegmentation 1.2.2 with the golden weights, looks at one photo through its own test pipeline, and writes whether the
answer stayed, changed or could not be had (env/bin/python: benchmarks/mmseg_engine.sh makes it; one core, 10 minutes):

    env/bin/python tests/helpers/mmseg_leaves.py tests/golden/mmseg/leaves.json
"""

import copy
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden" / "mmseg"
SCALE = (160, 96)  # of test photos, small enough to be looked at a thousand times
PARTS = ("model", "data_preprocessor", "test_dataloader", "test_pipeline", "default_scope")
STAYED, CHANGED, FAILED = "stayed", "changed", "failed"
NONE: Any = object()  # the entry is taken out

# What a dumped config leaves at the constructors' defaults: the dict that gets it, and other values than these
HEAD = "model.decode_head."
PIXEL, DECODER = HEAD + "pixel_decoder.", HEAD + "transformer_decoder."
ENCODER = PIXEL + "encoder.layer_cfg."
LN: dict[str, Any] = {"type": "LN", "eps": 1e-2}
ADDED: dict[str, list[tuple[str, Any]]] = {
    "model": [("neck", {"type": "FPN", "in_channels": [16, 32, 64, 128], "out_channels": 16, "num_outs": 4}),
              ("pretrained", "a.pth"), ("init_cfg", None)],
    "model.backbone": [("norm_cfg", LN), ("norm_cfg", {"type": "LN", "eps": 1e-5}), ("act_cfg", {"type": "ReLU"}),
                       ("act_cfg", {"type": "GELU", "approximate": "tanh"}), ("strides", [4, 2, 2, 1]),
                       ("patch_size", 2), ("use_abs_pos_embed", True), ("pretrain_img_size", 384)],
    "model.test_cfg": [("crop_size", [64, 64]), ("stride", [32, 32])],
    "model.data_preprocessor": [("rgb_to_bgr", True), ("size_divisor", 64), ("batch_augments", None)],
    "model.data_preprocessor.test_cfg": [("size", [256, 256])],
    "model.decode_head": [("ignore_index", 0), ("surprise", 1), ("test_cfg", {"panoptic_on": True})],
    HEAD + "positional_encoding": [("temperature", 20), ("offset", -0.5), ("scale", 1.0), ("eps", 0.5),
                                   ("temperature", 10000), ("scale", 2 * math.pi)],
    PIXEL + "positional_encoding": [("temperature", 20), ("offset", -0.5), ("scale", 1.0), ("eps", 0.5)],
    PIXEL + "norm_cfg": [("eps", 1e-2), ("eps", 1e-5), ("requires_grad", False)],
    PIXEL.removesuffix("."): [("strides", [4, 8, 16, 32]), ("strides", [8, 16, 32, 64]), ("in_channels", [1, 2, 3, 4])],
    PIXEL + "encoder": [("num_cp", 0)],
    ENCODER.removesuffix("."): [("norm_cfg", LN)],
    ENCODER + "ffn_cfg": [("add_identity", False), ("layer_scale_init_value", 1.0), ("layer_scale_init_value", 0.0),
                          ("dropout_layer", {"type": "DropPath", "drop_prob": 0.5})],
    ENCODER + "self_attn_cfg": [("value_proj_ratio", 0.5)],
    DECODER.removesuffix("."): [("post_norm_cfg", LN), ("post_norm_cfg", {"type": "LN"})],
    DECODER + "layer_cfg": [("norm_cfg", LN)],
    DECODER + "layer_cfg.ffn_cfg": [("layer_scale_init_value", 1.0), ("dropout_layer", {"type": "ReLU"}),
                                    ("act_cfg", {"type": "GELU"}), ("dropout_layer", {"type": "Dropout"})],
    DECODER + "layer_cfg.cross_attn_cfg": [("add_zero_attn", True), ("bias", False), ("dropout", 0.5)],
    DECODER + "layer_cfg.self_attn_cfg": [("add_zero_attn", True), ("dropout_layer", {"type": "Sigmoid"})],
    "test_pipeline.1": [("interpolation", "nearest"), ("backend", "pillow"), ("scale_factor", 0.5),
                        ("clip_object_border", False)],
    "test_pipeline.0": [("color_type", "grayscale"), ("to_float32", True), ("imdecode_backend", "pillow"),
                        ("ignore_empty", True), ("surprise", 1)],
}  # fmt: skip


def base() -> dict[str, Any]:
    """The config that the real run dumped, with test photos fit into 160x96."""
    found: dict[str, Any] = {}
    exec((GOLDEN / "config.py").read_text(), found)  # our own file
    config = {k: v for k, v in found.items() if not k.startswith("__")}
    for steps in (config["test_pipeline"], config["test_dataloader"]["dataset"]["pipeline"]):
        steps[1]["scale"] = SCALE
    return config


def entries(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each entry of a config, dicts and lists of dicts before what is in them."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for k, v in value.items():
            yield from entries(v, (*path, k))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for i, v in enumerate(value):
            yield from entries(v, (*path, i))


def others(value: Any) -> list[Any]:
    """Values that might stand in place of one, of its own kind and of others."""
    if isinstance(value, bool):
        return [not value, NONE]
    if isinstance(value, int | float):
        return [value + 1, value * 2 + 0.5, 0, -1, None, NONE]
    if isinstance(value, str):
        return [value + "2", "whole" if value == "slide" else "slide", NONE]
    if isinstance(value, dict):
        return [NONE, None, {}, {**value, "surprise": 1}]
    if isinstance(value, list | tuple):
        return [value[::-1], value[:-1], [*value, value[0]], None, NONE]
    return [5, {"type": "ReLU"}, NONE]  # it is None


def changed(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """The config with another value at a path; all else is shared with it."""
    if not path:
        return other
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        if rest or other is not NONE:
            return {**value, key: changed(value.get(key), rest, other)}
        return {k: v for k, v in value.items() if k != key}
    inner = [] if not rest and other is NONE else [changed(value[key], rest, other)]
    return [*value[:key], *inner, *value[key + 1 :]]


def mutations(config: dict[str, Any], added: dict[str, list[tuple[str, Any]]]) -> Iterator[tuple[str, Any, Any]]:
    """(a name, the entry's path, the changed config) for each change of each entry, and for each added one.

    The two test pipelines are changed together too, for no answer differs between them.
    """
    twice = ("test_dataloader", "dataset", "pipeline")
    for path, value in entries(config):
        for other in others(value):
            new = changed(config, path, other)
            if path[0] == "test_pipeline":
                new = changed(new, (*twice, *path[1:]), other)
            yield f"{'.'.join(map(str, path))} = {'nothing' if other is NONE else repr(other)}", path, new
    for where, more in added.items():
        path = tuple(int(p) if p.isdigit() else p for p in where.split("."))
        for key, value in more:
            new = changed(config, (*path, key), value)
            if path[0] == "test_pipeline":
                new = changed(new, (*twice, *path[1:], key), value)
            yield f"{where}.{key} := {value!r}", (*path, key), new


# --- the real MMSegmentation -----------------------------------------------------------------------------------------


def answer(config: dict[str, Any], weights: Any, photo: Path) -> Any:
    """Its map of class scores of a photo, by both pipelines; class and mask logits."""
    import torch
    from mmengine.config import Config  # pyright: ignore
    from mmengine.dataset import Compose  # pyright: ignore
    from mmengine.registry import init_default_scope  # pyright: ignore
    from mmseg.registry import MODELS  # pyright: ignore
    from mmseg.utils import register_all_modules  # pyright: ignore

    register_all_modules(init_default_scope=False)
    init_default_scope(config.get("default_scope") or "mmseg")
    # without these nothing is downloaded; the weights come from the checkpoint anyway
    config = copy.deepcopy(config)
    config["model"]["backbone"]["init_cfg"] = None
    config["model"].pop("pretrained", None)
    cfg = Config(config)
    if "data_preprocessor" in cfg:
        cfg.model.setdefault("data_preprocessor", cfg.data_preprocessor)  # as the Runner does
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    if weights is not None:
        model.load_state_dict(weights, strict=True)
    else:  # all random, none large, and the same by name
        for name, p in model.state_dict().items():
            if p.is_floating_point():
                x = torch.rand(p.shape, generator=torch.Generator().manual_seed(len(name)))
                narrow = name.endswith(("weight", "running_var")) and p.dim() == 1
                p.copy_(x + 0.5 if narrow else (x - 0.5) * p[0].numel() ** -0.5 if p.dim() > 1 else (x - 0.5) / 5)
    found = []
    loader = cfg.get("test_dataloader") or {}
    pipelines = [p for p in ((loader.get("dataset") or {}).get("pipeline"), cfg.get("test_pipeline")) if p is not None]
    for steps in pipelines or [[{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]]:
        steps = [s for s in steps if "LoadAnnotations" not in s.get("type", "")]
        data = Compose(steps)({"img_path": str(photo)})
        data = {"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}
        with torch.no_grad():
            samples = model.test_step(copy.deepcopy(data))
            x = model.data_preprocessor(data)["inputs"]
            found.append([samples[0].seg_logits.data, *(t[-1] for t in model.decode_head(model.extract_feat(x), []))])
    return found


def verdict(config: dict[str, Any], weights: Any, photo: Path, expected: Any) -> str:
    """Whether the real MMSegmentation's answer stayed what it was."""
    import torch

    try:
        found = answer(config, weights, photo)
    except Exception:  # a config that cannot be built raises anything
        return FAILED
    stayed = all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
        for one in found
        for a, b in zip(one, expected[0], strict=True)
    )
    return STAYED if stayed else CHANGED


def resnet() -> dict[str, Any]:
    """The same head on a ResNet-50, written with all that its constructor takes."""
    config = base()
    config["model"]["backbone"] = {
        "type": "ResNet", "depth": 50, "in_channels": 3, "stem_channels": 64, "base_channels": 64, "num_stages": 4,
        "strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1), "out_indices": (0, 1, 2, 3), "style": "pytorch",
        "deep_stem": False, "avg_down": False, "frozen_stages": -1, "conv_cfg": None,
        "norm_cfg": {"type": "BN", "requires_grad": True, "eps": 1e-5, "momentum": 0.1}, "norm_eval": False,
        "dcn": None, "stage_with_dcn": (False, False, False, False), "plugins": None, "multi_grid": None,
        "contract_dilation": False, "with_cp": False, "zero_init_residual": True, "pretrained": None, "init_cfg": None,
    }  # fmt: skip
    config["model"]["decode_head"]["in_channels"] = [256, 512, 1024, 2048]
    return config


def main(out: Path) -> None:
    """Writes {"swin": {change: verdict}, "resnet": ...}; all that is not of the network or its photos is left out."""
    import cv2
    import numpy as np
    import torch

    torch.set_num_threads(1)
    photo = out.with_suffix(".png")
    cv2.imwrite(str(photo), np.load(GOLDEN / "random_micro_101x183.npz")["image_bgr"])
    weights = torch.load(GOLDEN / "random_micro.pth", weights_only=True)["state_dict"]
    result: dict[str, dict[str, str]] = {}
    for kind, config, w, of in (("swin", base(), weights, PARTS), ("resnet", resnet(), None, ("model",))):
        expected = answer(config, w, photo)
        result[kind] = {}
        for name, path, new in mutations(config, ADDED if kind == "swin" else {}):
            if path[0] in of and (kind == "swin" or path[:2] == ("model", "backbone")):
                result[kind][name] = verdict(new, w, photo, expected)
                print(name, result[kind][name], flush=True)
    photo.unlink()
    out.write_text(json.dumps(result, indent=0) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
