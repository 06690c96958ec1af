import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xenomask import load_model
from xenomask.errors import XenomaskError
from xenomask.masks import with_queries
from xenomask.models import PRESETS, Network, Preprocess, build, load
from xenomask.models.preprocess import network_input, target_size
from xenomask.models.presets import preset

MILLION = 1e6


def backbone_config(network: Network) -> Any:
    return network.config.backbone_config


@pytest.mark.parametrize(("name", "millions", "queries"), [("swin-s", 68.72, 100), ("swin-l", 215.46, 100)])
def test_presets__the_papers_sizes(name, millions, queries):
    with torch.device("meta"):
        network = build(name)
    count = sum(p.numel() for p in network.module.parameters())
    # transformers adds swin.layernorm, which Mask2Former never uses, and nothing else
    assert count / MILLION == pytest.approx(millions, abs=0.01)
    assert (network.config.num_queries, network.config.num_labels) == (queries, 19)
    assert backbone_config(network).drop_path_rate == 0.3
    assert network.config.decoder_layers == 10  # nine real ones


def test_presets__nanos_are_small_and_different():
    with torch.device("meta"):
        s, n = build("nano-s"), build("nano-l")
    sizes = [sum(p.numel() for p in x.module.parameters()) / MILLION for x in (s, n)]
    assert sizes == pytest.approx([4.77, 8.76], abs=0.01)
    assert backbone_config(s).backbone != backbone_config(n).backbone
    assert s.config.num_queries != n.config.num_queries


def test_presets__unknown_name():
    with pytest.raises(XenomaskError, match="did you mean 'swin-s'"):
        preset("swin_s")


@pytest.mark.parametrize(
    ("policy", "size", "longest", "image", "expected"),
    [
        ("shortest", 1024, 2048, (720, 1280), (1024, 1820)),
        ("shortest", 384, 1024, (200, 1000), (205, 1024)),  # the longest edge decides
        ("shortest", 384, 1024, (1280, 720), (683, 384)),
        ("longest", 512, 0, (720, 1280), (288, 512)),
        ("fit", 1024, 2048, (1024, 2048), (1024, 2048)),
        ("none", 0, 0, (7, 9), (7, 9)),
    ],
)
def test_target_size__policies(policy, size, longest, image, expected):
    assert target_size(Preprocess(policy, size, longest), image) == expected


def test_network_input__normalises_then_pads_right_and_bottom_with_zeros():
    p = Preprocess("none", mean=(10, 20, 30), std=(2, 4, 5), divisor=4)
    image = np.tile(np.array([12, 24, 35], np.uint8), (3, 6, 1))
    x, used = network_input(p, image)
    assert used == (3, 6) and x.shape == (1, 3, 4, 8)
    assert (x[0, :, :3, :6] == 1).all()
    assert x[0, :, 3:].abs().sum() == 0 and x[0, :, :, 6:].abs().sum() == 0


def test_network__output_has_the_sizes_it_says(tiny_checkpoint):
    network = load(tiny_checkpoint)
    out = with_queries(network.predict(np.zeros((50, 90, 3), np.uint8)))
    assert out.class_logits.shape == (8, 20)
    assert (out.input_size, out.padded_size, out.image_size) == ((64, 115), (64, 128), (50, 90))
    assert out.mask_logits.shape == (8, 16, 32)


def test_network__survives_saving_and_half_precision(tiny_checkpoint, tmp_path):
    network = load(tiny_checkpoint)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    again, output = load(network.save(tmp_path / "same")), with_queries(network.predict(image))
    assert torch.equal(with_queries(again.predict(image)).mask_logits, output.mask_logits)
    assert again.sha256 == network.sha256 != ""
    half = load(network.save(tmp_path / "half", half=True))
    assert load_file(tmp_path / "half/model.safetensors")["class_predictor.weight"].dtype == torch.float16
    assert torch.allclose(with_queries(half.predict(image)).class_logits, output.class_logits, atol=0.05)
    next(network.module.parameters()).data.fill_(1e5)  # float16 ends at 65504
    with pytest.raises(XenomaskError, match="as float16: tensor .* holds NaN or infinity"):
        network.save(tmp_path / "half", half=True)
    assert load(tmp_path / "half").sha256 == half.sha256


def test_network__a_fact_that_is_no_number_is_read_back_as_none(tiny_checkpoint, tmp_path):
    network = replace(load(tiny_checkpoint), facts={"converted": {"miou": float("nan")}})
    assert load(network.save(tmp_path / "nan")).facts["converted"] == {"miou": None}


def test_checkpoint__is_a_folder_that_transformers_loads(tiny_checkpoint):
    from transformers import Mask2FormerForUniversalSegmentation

    theirs = Mask2FormerForUniversalSegmentation.from_pretrained(tiny_checkpoint).eval()
    x = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        a, b = theirs(pixel_values=x), load(tiny_checkpoint).module(pixel_values=x)
    assert torch.allclose(a.class_queries_logits, b.class_queries_logits, atol=1e-5)


def test_load__another_architecture_is_refused(tiny_checkpoint, tmp_path):
    folder = load(tiny_checkpoint).save(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    config["num_queries"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(XenomaskError, match="of another architecture .* other shapes for 2 tensors"):
        load(folder)
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    tensors["foreign.weight"] = tensors.pop("class_predictor.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(XenomaskError, match=r"lacks 1 tensors \(class_predictor.weight\); has unknown 1"):
        load(folder)


def test_load__damaged_or_missing(tiny_checkpoint, tmp_path):
    with pytest.raises(XenomaskError, match="is no checkpoint folder: it has no config.json"):
        load(tmp_path)
    folder = load(tiny_checkpoint).save(tmp_path / "c")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(XenomaskError, match="damaged or no safetensors"):
        load(folder)
    (folder / "xenomask.json").write_text("{")
    with pytest.raises(XenomaskError, match="xenomask.json is damaged"):
        load(folder)


def test_presets__all_build_a_config():
    assert {"swin-s", "swin-l", "nano-s", "nano-l", "tiny"} == set(PRESETS)


def test_network__batches_of_tensors_and_photos_agree(tiny_checkpoint):
    network = load_model(tiny_checkpoint)
    image = np.random.default_rng(0).integers(0, 255, (50, 90, 3), np.uint8)
    stored, native = network.predict(image), with_queries(network.predict(image, size_policy="native"))
    assert native.input_size == (50, 90) and native.padded_size == (64, 96) and stored.input_size != (50, 90)
    x, _ = network_input(replace(network.preprocess, policy="none"), image)
    class_logits, mask_logits = network(torch.cat([x, x.flip(3)]))
    assert class_logits.shape == (2, 8, 20) and mask_logits.shape[:2] == (2, 8)
    assert torch.allclose(class_logits[0], native.class_logits, atol=1e-5)
    assert torch.allclose(mask_logits[0], native.mask_logits, atol=1e-4)
    with pytest.raises(XenomaskError, match="did you mean 'nano-s'"):
        load_model("nano_s")
    with pytest.raises(XenomaskError, match="unknown runtime"):
        load_model(tiny_checkpoint, runtime="onnx")
