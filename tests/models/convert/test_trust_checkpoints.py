"""Weights in the wrappers that people's trainers put around them, broken weights, and devices that compute nothing."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.cli import fails
from helpers.detectron2 import Checkpoint, plain, written
from helpers.hf_folders import write
from helpers.places import MICRO
from helpers.swin import by_microsoft, network, timm_swin
from xenomask import load_model
from xenomask.errors import XenomaskError
from xenomask.models import load
from xenomask.models.convert.common import compare, recognised
from xenomask.models.convert.names import DETECTRON2
from xenomask.models.convert.recognise import convert
from xenomask.models.convert.swin import load_swin
from xenomask.train.init import ENCODER

CONFIG = MICRO.parent / "config.py"
PREFIXES = {
    "DDP": "module.",
    "torch.compile": "_orig_mod.",
    "both": "module._orig_mod.",
    "Lightning": "model.",
    "Lightning, compiled": "model._orig_mod.",
    "net": "net.",
    "a module of a module": "segmenter.net.",
}


@pytest.fixture(scope="module")
def mmseg() -> dict[str, Tensor]:
    content = torch.load(MICRO, weights_only=False)
    return {k: v.clone() for k, v in content["state_dict"].items()}


@pytest.fixture(scope="module")
def expected(mmseg) -> dict[str, Tensor]:
    return convert(MICRO, CONFIG).network.module.state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", PREFIXES)
def test_mmseg__in_wrappers(name, mmseg, expected, tmp_path):
    wrapped = {PREFIXES[name] + k: v for k, v in mmseg.items()}
    for path in (saved(tmp_path / "a.pth", {"state_dict": wrapped}), saved(tmp_path / "b.pth", wrapped)):
        assert equal(convert(path, CONFIG).network.module.state_dict(), expected)


def test_mmseg__compiled_in_part(mmseg, expected, tmp_path):
    wrapped = {k.replace("backbone.", "backbone._orig_mod."): v for k, v in mmseg.items()}
    path = saved(tmp_path / "a.pth", wrapped)
    assert equal(convert(path, CONFIG).network.module.state_dict(), expected)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module", "state_dict_ema", "ema"])
def test_mmseg__under_any_key_and_in_safetensors(key, mmseg, expected, tmp_path):
    path = saved(tmp_path / "a.pth", {key: mmseg, "epoch": 3})
    assert equal(convert(path, CONFIG).network.module.state_dict(), expected)
    save_file({"model." + k: v for k, v in mmseg.items()}, tmp_path / "model.safetensors")
    assert equal(convert(tmp_path / "model.safetensors", CONFIG).network.module.state_dict(), expected)
    (tmp_path / "a.pth").unlink()
    assert equal(convert(tmp_path, CONFIG).network.module.state_dict(), expected)


def test_mmseg__its_own_average_is_in_the_state_dict_already(mmseg, expected, tmp_path):
    before = {k: v + 1 if v.is_floating_point() else v for k, v in mmseg.items()}
    path = saved(tmp_path / "a.pth", {"state_dict": mmseg, "ema_state_dict": before})
    assert equal(convert(path, CONFIG).network.module.state_dict(), expected)


def refused(path: Path, message: str) -> None:
    with pytest.raises(XenomaskError, match=message) as e:
        convert(path, CONFIG if "d2" not in path.name else None)
    assert "\n" not in str(e.value) and str(path) in str(e.value)


def test_two_networks_in_one_file__are_refused(mmseg, tmp_path):
    both = saved(tmp_path / "a.pth", {"state_dict": mmseg, "state_dict_ema": mmseg})
    refused(both, "two networks, 'state_dict' and its average 'state_dict_ema': keep")
    pair = {f"{who}.{k}": v for who in ("student", "teacher") for k, v in mmseg.items()}
    refused(saved(tmp_path / "b.pth", pair), r"several networks, their tensors under 'student\.', 'teacher\.'")
    twice = {**{"_orig_mod." + k: v for k, v in mmseg.items()}, **mmseg}
    refused(saved(tmp_path / "c.pth", twice), "the same tensor twice")
    beside = {**{"model." + k: v for k, v in mmseg.items()}, "criterion.weight": torch.ones(3)}
    refused(saved(tmp_path / "d.pth", beside), r"has unknown 1 tensors \(criterion.weight\)")


def test_compare__a_fused_tensor_that_holds_one_third_only():
    block = "model.pixel_level_module.encoder.swin.encoder.layers.0.blocks.0.attention"
    wanted = {f"{block}.{part}_proj.weight": torch.zeros(8, 8) for part in "qkv"}
    name = "backbone.layers.0.blocks.0.attn.qkv.weight"
    with pytest.raises(XenomaskError, match=rf"other shapes for 1 tensors \({name}: \(8, 8\) instead of \(24, 8\)\)"):
        compare(wanted, recognised({name: torch.zeros(8, 8)}, DETECTRON2), "is none")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights__are_refused_by_name(value, mmseg, tmp_path):
    name = "decode_head.cls_embed.bias"
    broken = mmseg[name].clone()
    broken[1] = value
    refused(saved(tmp_path / "a.pth", {"state_dict": {**mmseg, name: broken}}), f"tensor {name} holds NaN")
    save_file({**mmseg, name: broken}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", f"tensor {name} holds NaN")
    arrays = plain(Checkpoint())
    own = "sem_seg_head.predictor.class_embed.bias"
    arrays[own] = np.array(arrays[own])
    arrays[own][0] = value
    refused(written(tmp_path / "d2.pkl", arrays), f"tensor {own} holds NaN")


@pytest.mark.parametrize("name", PREFIXES)
def test_detectron2__in_wrappers(name, tmp_path):
    arrays = plain(Checkpoint())
    whole = convert(written(tmp_path / "d2.pkl", arrays)).network.module.state_dict()
    tensors = {PREFIXES[name] + k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}
    path = saved(tmp_path / "d2.pth", {"model": tensors})
    assert equal(convert(path).network.module.state_dict(), whole)


@pytest.mark.parametrize("kind", ["mask2former", "maskformer", "segformer", "eomt", "own"])
@pytest.mark.parametrize("name", PREFIXES)
def test_load__folders_whose_names_are_wrapped(name, kind, tiny_checkpoint, tmp_path):
    folder = tmp_path / "f"
    if kind == "own":
        shutil.copytree(tiny_checkpoint, folder)
    else:
        write(kind, folder)
    plain_network = load(folder).module.state_dict()
    tensors = {PREFIXES[name] + k: v for k, v in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert equal(load(folder).module.state_dict(), plain_network)


def test_load__a_pickled_folder_whose_names_are_wrapped(tmp_path):
    write("mask2former", tmp_path)
    whole = load(tmp_path).module.state_dict()
    tensors = {"module." + k: v for k, v in load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    saved(tmp_path / "pytorch_model.bin", tensors)
    assert equal(load(tmp_path).module.state_dict(), whole)


def test_init__from_a_wrapped_swin_and_from_a_whole_network(mmseg, tmp_path):
    backbone = network().module.get_submodule(ENCODER)
    tensors = by_microsoft(timm_swin().state_dict())
    load_swin(backbone, saved(tmp_path / "plain.pth", {"model": tensors}), "tiny")
    whole = {k: v.clone() for k, v in backbone.state_dict().items()}
    for prefix in ("module.", "_orig_mod.", "model.", "backbone."):
        other = network(seed=1).module.get_submodule(ENCODER)
        load_swin(other, saved(tmp_path / "swin.pth", {prefix + k: v for k, v in tensors.items()}), "tiny")
        assert equal(
            {k: v for k, v in other.state_dict().items() if "layernorm" not in k},
            {k: v for k, v in whole.items() if "layernorm" not in k},
        )
    path = saved(tmp_path / "m.pth", {"state_dict": mmseg})
    with pytest.raises(XenomaskError, match="run `xenomask convert .* and set init to that folder"):
        load_swin(backbone, path, "tiny")


@pytest.mark.parametrize("device", ["meta", "cuda:99", "gpu", "cpu:x", "mps", "vulkan", "hpu", "xla"])
def test_devices__that_compute_nothing(device, tiny_checkpoint, tiny_detector, tmp_path, capsys):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(XenomaskError, match=f"device {device} cannot be used") as e:
        load_model(tiny_checkpoint, device=device)
    assert "\n" not in str(e.value)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    text = fails(capsys, "detect", tmp_path / "a.png", "--detector", tiny_detector, "--device", device)
    assert f"device {device} cannot be used" in text
