import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTokenizer,
    DetrConfig,
    DPTConfig,
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    OneFormerImageProcessor,
    OneFormerProcessor,
    SwinConfig,
)

from helpers import hf_folders
from xenomask.detector import Detector
from xenomask.detector.folder import assemble
from xenomask.errors import XenomaskError
from xenomask.models import build, load
from xenomask.models.hf import read_preprocess, window_starts

STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}


def swin():
    return SwinConfig(image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, **STAGES)


def logits(module, x):
    with torch.inference_mode():
        out = module(pixel_values=x)
    return out.class_queries_logits, out.masks_queries_logits


@pytest.fixture(scope="module")
def x():
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory):
    """A folder as `save_pretrained` writes it: the Swin's keys in the names of transformers 4."""
    torch.manual_seed(0)
    module = build("tiny").module
    folder = tmp_path_factory.mktemp("hf")
    module.save_pretrained(folder)  # pyright: ignore
    assert any("attention.self.query" in k for k in load_file(folder / "model.safetensors"))
    return folder, module


def test_load__mask2former_with_keys_of_transformers_4_and_5(mask2former, x, tmp_path):
    folder, module = mask2former
    expected = logits(module, x)
    for kind in ("4", "5"):
        own = shutil.copytree(folder, tmp_path / kind)
        if kind == "5":
            tensors = {k: v.contiguous() for k, v in module.state_dict().items()}
            assert not any("attention.self.query" in k for k in tensors)
            save_file(tensors, own / "model.safetensors", metadata={"format": "pt"})
        network = load(own)
        for ours, theirs in zip(logits(network.module, x), expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
        assert network.predict(np.zeros((40, 60, 3), np.uint8)).image_size == (40, 60)
        assert len(network.sha256) == 64


def test_load__maskformer(x, tmp_path):
    decoder = DetrConfig(
        encoder_layers=1, decoder_layers=1, d_model=32, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=6,
    )  # fmt: skip
    config = MaskFormerConfig(backbone_config=swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32)
    module = MaskFormerForInstanceSegmentation(config).eval()
    module.save_pretrained(tmp_path)
    network = load(tmp_path)
    for ours, theirs in zip(logits(network.module, x), logits(module, x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_load__oneformer_says_its_task_as_transformers_does(x, tmp_path):
    module = hf_folders.oneformer().eval()
    module.save_pretrained(tmp_path)  # pyright: ignore
    with pytest.raises(XenomaskError, match="needs its tokenizer"):
        load(tmp_path)
    hf_folders.write_tokenizer(tmp_path)
    # its metadata is for training's texts, and would be asked of the Hub by their default name
    images = OneFormerImageProcessor(class_info_file=None, num_text=0)
    theirs = OneFormerProcessor(images, CLIPTokenizer.from_pretrained(tmp_path), task_seq_length=9)
    image = np.zeros((64, 96, 3), np.uint8)
    tokens = theirs(images=image, task_inputs=["semantic"], return_tensors="pt")["task_inputs"]
    assert theirs.tokenizer.pad_token_id != 0 and (tokens == 0).sum() == 3, tokens
    network = load(tmp_path)
    assert torch.equal(network.module.get_buffer("task_inputs"), tokens)
    with torch.inference_mode():
        expected = module(pixel_values=x, task_inputs=tokens).class_queries_logits
        padded = module(pixel_values=x, task_inputs=theirs.tokenizer(
            "the task is semantic", padding="max_length", max_length=9, return_tensors="pt")["input_ids"])  # fmt: skip
    assert torch.allclose(logits(network.module, x)[0], expected, atol=1e-5)
    assert (padded.class_queries_logits - expected).abs().max() > 1e-3  # the tokens matter to this network
    assert network.predict(image).image_size == (64, 96)


def eomt(**sizes):
    return EomtForUniversalSegmentation(EomtConfig(**sizes))


def eomt_dinov3(**sizes):
    return EomtDinov3ForUniversalSegmentation(EomtDinov3Config(**sizes, intermediate_size=32))


@pytest.mark.parametrize("make", [eomt, eomt_dinov3])
@pytest.mark.parametrize("shape", [(32, 32), (32, 64), (32, 56), (80, 32)])
def test_load__eomt_looks_through_windows(make, shape, tmp_path):
    sizes: dict[str, Any] = dict(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8, num_blocks=1,
        num_queries=5, num_register_tokens=1, num_upscale_blocks=1,
    )  # fmt: skip
    torch.manual_seed(0)
    module = make(**sizes).eval()
    module.save_pretrained(tmp_path)
    network = load(tmp_path)
    x = torch.randn(2, 3, *shape)
    class_logits, mask_logits = network(x)
    long, along = max(shape), -1 if shape[1] >= shape[0] else -2
    starts = window_starts(long, 32, 8)
    assert class_logits.shape[:2] == (2, 5 * len(starts)) and starts[0] == 0 and starts[-1] == long - 32
    owned = torch.zeros(mask_logits.shape[-2:])
    for i, start in enumerate(starts):
        with torch.inference_mode():
            own = module(pixel_values=x.narrow(along, start, 32))
        mask, stride = own.masks_queries_logits, 32 // own.masks_queries_logits.shape[-1]
        q = slice(5 * i, 5 * i + 5)
        assert torch.allclose(class_logits[:, q], own.class_queries_logits, atol=1e-5)
        part = mask_logits[:, q].narrow(along, start // stride, mask.shape[-1])
        here = part > -30
        assert torch.allclose(part[here], mask[here], atol=1e-5)
        owned += (mask_logits[0, 5 * i] > -30).float()
    with pytest.raises(XenomaskError, match="use its own folder as it is"):
        network.save(tmp_path / "again")
    folder = assemble(tmp_path.parent / f"{tmp_path.name}-detector", "e", [("m", tmp_path)], [1.0], "eam")
    assert Detector.from_folder(folder).detect(np.zeros((40, 60, 3), np.uint8)).value.shape == (40, 60)
    assert (owned == 1).all()  # each pixel belongs to one window
    seen = network.predict(np.zeros((60, 99, 3), np.uint8))
    assert (seen.input_size, seen.padded_size) == ((32, 53), (32, 56))
    with pytest.raises(XenomaskError, match="shortest edge 32, padded to multiples of 8; this one is 50x32"):
        network(torch.zeros(1, 3, 32, 50))


def test_load__refuses_by_name(mask2former, tmp_path):
    folder, _ = mask2former

    def changed(name, change):
        own = shutil.copytree(folder, tmp_path / name)
        tensors = load_file(own / "model.safetensors")
        change(tensors)
        save_file(tensors, own / "model.safetensors", metadata={"format": "pt"})
        return own

    with pytest.raises(XenomaskError, match=r"lacks 1 tensors \(class_predictor.bias\)"):
        load(changed("missing", lambda t: t.pop("class_predictor.bias")))
    with pytest.raises(XenomaskError, match=r"has unknown 1 tensors \(stranger\)"):
        load(changed("extra", lambda t: t.update(stranger=torch.zeros(1))))
    with pytest.raises(XenomaskError, match=r"has other shapes for 1 tensors \(class_predictor.bias\)"):
        load(changed("shape", lambda t: t.update({"class_predictor.bias": torch.zeros(3)})))


def test_load__refuses_other_kinds_and_damage(mask2former, tmp_path):
    DPTConfig().save_pretrained(tmp_path / "dpt")
    with pytest.raises(XenomaskError, match="unknown kind of network in .* 'dpt'; .*known: .*segformer, upernet"):
        load(tmp_path / "dpt")
    own = shutil.copytree(mask2former[0], tmp_path / "cut")
    (own / "model.safetensors").write_bytes((own / "model.safetensors").read_bytes()[:100])
    with pytest.raises(XenomaskError, match="model.safetensors is damaged"):
        load(own)
    (own / "config.json").write_text("{")
    with pytest.raises(XenomaskError, match="config.json is damaged"):
        load(own)
    with pytest.raises(XenomaskError, match="has no config.json"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["maskformer", "oneformer"])
def test_text_files__with_a_byte_order_mark_are_read(kind, tmp_path):
    """As editors of Windows write it, in every text file that we or transformers open."""
    hf_folders.write(kind, tmp_path).save_pretrained(tmp_path, max_shard_size="40KB")  # pyright: ignore
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 64}}')
    for name in ("tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_text("{}")
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    expected: Any = load(tmp_path).predict(image)
    texts = [p for p in tmp_path.iterdir() if p.suffix in (".json", ".txt")]
    for path in texts:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    found = load(tmp_path)
    assert torch.equal(found.predict(image).mask_logits, expected.mask_logits)  # pyright: ignore
    assert "model.safetensors.index.json" in [p.name for p in texts] and found.facts["source"] == str(tmp_path)


def test_read_preprocess__keeps_mean_and_std_and_the_squeeze(tmp_path):
    stored = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "size": {"height": 384, "width": 384}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored))
    p, note = read_preprocess(tmp_path)
    assert p.mean == pytest.approx((127.5, 102, 76.5)) and p.std == pytest.approx((51, 51, 25.5))
    assert (p.policy, p.size, p.longest, p.divisor, note) == ("fixed", 384, 384, 32, None)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    with pytest.raises(XenomaskError, match="1 means"):
        read_preprocess(tmp_path)
