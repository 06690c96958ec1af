"""`init` of a recipe: ImageNet's Swin weights in their three namings, and checkpoints of other classes."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import layer_norm
from transformers import SwinConfig, SwinForImageClassification

from helpers.fakehub import FakeHub, serve
from helpers.swin import DEPTHS, HEADS, SIDE, SIZES, by_microsoft, network, randomised, timm_swin
from xenomask.errors import XenomaskError
from xenomask.models import Network, build
from xenomask.train.init import ENCODER, initialise, locate


def features(net: Network, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        encoder: Any = net.module.get_submodule(ENCODER)
        return encoder(x).feature_maps


def timm_features(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """timm's stages (height, width, channel), and after each the norm that a fresh backbone has on its outputs."""
    out = []
    with torch.no_grad():
        x = model.patch_embed(x)
        for layer in model.layers:
            x = layer(x)
            out.append(layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
    return out


def microsoft_file(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save({"model": by_microsoft(tensors)}, path)
    return path


def hub_folder(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path / "model.safetensors")
    (path / "config.json").write_text('{"architecture": "swin_small_patch4_window7_224"}')
    return path


def test_initialise__features_are_those_of_timm_in_every_naming(tmp_path):
    model = timm_swin()
    tensors = dict(model.state_dict())
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    expected = timm_features(model, x)
    assert max(e.abs().max() for e in expected) > 1
    folder = hub_folder(tmp_path / "timm", tensors)
    torch.save(tensors, tmp_path / "timm.pth")
    sources = (
        microsoft_file(tmp_path / "microsoft.pth", tensors),
        folder,
        folder / "model.safetensors",
        tmp_path / "timm.pth",
    )
    for source in sources:
        net = network()
        before = {k: v.clone() for k, v in net.module.state_dict().items()}
        initialise(net, source)
        for got, want in zip(features(net, x), expected, strict=True):
            assert (got - want).abs().max() < 1e-5, source
        # what changed is the whole of the backbone but the norms of its outputs, and nothing else
        after = net.module.state_dict()
        changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
        assert changed == {k for k in after if k.startswith(f"{ENCODER}.swin.")}
        assert len(changed) == len(tensors) - 2 + 2 * 2 * sum(DEPTHS)  # no head; qkv, weight and bias, in three


def test_initialise__microsofts_names_one_by_one(tmp_path):
    """Each tensor of its file, by a mapping written out here, and each third of the fused ones."""
    tensors = by_microsoft(dict(timm_swin().state_dict()))
    torch.save({"model": tensors}, tmp_path / "m.pth")
    net = network()
    initialise(net, tmp_path / "m.pth")
    own = {k.removeprefix(f"{ENCODER}.swin."): v for k, v in net.module.state_dict().items() if k.startswith(ENCODER)}
    pairs = {"patch_embed.proj": "embeddings.patch_embeddings.projection", "patch_embed.norm": "embeddings.norm",
             "norm": "layernorm"}  # fmt: skip
    for i, depth in enumerate(DEPTHS):
        if i < 3:
            pairs[f"layers.{i}.downsample.norm"] = f"encoder.layers.{i}.downsample.norm"
            pairs[f"layers.{i}.downsample.reduction"] = f"encoder.layers.{i}.downsample.reduction"
        for j in range(depth):
            a, b = f"layers.{i}.blocks.{j}", f"encoder.layers.{i}.blocks.{j}"
            pairs |= {f"{a}.norm1": f"{b}.layernorm_before", f"{a}.norm2": f"{b}.layernorm_after",
                      f"{a}.attn.proj": f"{b}.attention.o_proj", f"{a}.mlp.fc1": f"{b}.mlp.fc1",
                      f"{a}.mlp.fc2": f"{b}.mlp.fc2"}  # fmt: skip
            table = f"{b}.attention.relative_position_bias.relative_position_bias_table"
            assert torch.equal(own.pop(table), tensors[f"{a}.attn.relative_position_bias_table"])
            for end in ("weight", "bias"):
                qkv = tensors[f"{a}.attn.qkv.{end}"]
                n = len(qkv) // 3
                for k, part in enumerate("qkv"):
                    assert torch.equal(own.pop(f"{b}.attention.{part}_proj.{end}"), qkv[k * n : (k + 1) * n])
    for theirs, ours in pairs.items():
        for end in ("weight", "bias"):
            if f"{theirs}.{end}" in tensors:
                assert torch.equal(own.pop(f"{ours}.{end}"), tensors[f"{theirs}.{end}"])
    assert all(k.startswith(f"{ENCODER}.hidden_states_norms.") for k in own) and len(own) == 8


@pytest.mark.parametrize("names", ["written", "in memory"])
def test_initialise__a_hugging_face_folder(tmp_path, names):
    sizes: dict[str, Any] = {**SIZES, "num_labels": 5}
    config = SwinConfig(image_size=SIDE, depths=list(DEPTHS), num_heads=list(HEADS), **sizes)
    model: Any = randomised(SwinForImageClassification(config), 3)
    model.save_pretrained(tmp_path)
    if names == "in memory":  # transformers 5's own; it still writes 4's
        save_file(dict(model.state_dict()), tmp_path / "model.safetensors")
    net = network()
    initialise(net, tmp_path)
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        embedded, size = model.swin.embeddings(x)
        for i, layer in enumerate(model.swin.encoder.layers):
            for block in layer.blocks:
                embedded = block(embedded, size)
                embedded = embedded[0] if isinstance(embedded, tuple) else embedded
            want = layer_norm(embedded, embedded.shape[-1:]).transpose(1, 2)
            assert (features(net, x)[i].flatten(2) - want).abs().max() < 1e-5
            if layer.downsample is not None:
                embedded, size = layer.downsample(embedded, size), tuple(s // 2 for s in size)


def test_initialise__another_swin_is_refused_by_both_shapes(tmp_path):
    for changes, says in (
        ({"window_size": 6, "img_size": 2 * SIDE}, "window 6"),
        ({"embed_dim": 12}, "width 12"),
        ({"depths": (2, 1, 2, 2)}, "depths 2-1-2-2"),
        ({"num_heads": (1, 2, 6, 2)}, "heads 1-2-6-2"),
    ):
        path = microsoft_file(tmp_path / "m.pth", dict(timm_swin(**changes).state_dict()))
        has = "width 6, depths 2-1-3-2, heads 1-2-3-2, window 3"
        with pytest.raises(XenomaskError, match=f"holds a Swin of .*{says}.*; the preset tiny has {has}"):
            initialise(network(), path)


def test_initialise__damaged_and_foreign_files_are_refused(tmp_path):
    whole = by_microsoft(dict(timm_swin().state_dict()))

    def refused(tensors: Any, message: str) -> None:
        net = network()
        before = {k: v.clone() for k, v in net.module.state_dict().items()}
        torch.save({"model": tensors}, tmp_path / "m.pth")
        with pytest.raises(XenomaskError, match=message) as e:
            initialise(net, tmp_path / "m.pth")
        assert "\n" not in str(e.value)
        if "NaN" not in message:
            assert all(torch.equal(v, before[k]) for k, v in net.module.state_dict().items())

    name = "layers.2.blocks.1.mlp.fc1.weight"
    refused({k: v for k, v in whole.items() if k != name}, "lacks 1 tensors .*layers.2.blocks.1.mlp.fc1.weight")
    refused({**whole, "absolute_pos_embed": torch.zeros(1, 4, 6)}, r"has unknown 1 tensors \(absolute_pos_embed\)")
    refused({**whole, name: whole[name][:5]}, "has other shapes for 1 tensors")
    refused({**whole, "layers.0.blocks.0.attn.qkv.bias": torch.zeros(17)}, "has other shapes for")
    refused({**whole, name: whole[name] * torch.nan}, f"tensor {name} holds NaN")
    refused({**whole, name: whole[name].double() * 1e300}, f"tensor {name} holds NaN or infinity")  # in float32
    refused({**whole, name: "text"}, "is no dense tensor")
    refused({"fc.weight": torch.zeros(2)}, "holds no Swin Transformer .*: fc.weight")
    (tmp_path / "t.pth").write_text("x" * 100)
    with pytest.raises(XenomaskError, match="t.pth is damaged or no safetensors file"):
        initialise(network(), tmp_path / "t.pth")
    with pytest.raises(XenomaskError, match="no such weights: .*nowhere.pth .*the recipe's comment"):
        initialise(network(), tmp_path / "nowhere.pth")
    with pytest.raises(XenomaskError, match="holds no weights: neither model.safetensors nor pytorch_model.bin"):
        initialise(network(), tmp_path)


def test_initialise__a_pickle_that_calls_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": {"layers.0.blocks.0.x": Evil()}}, tmp_path / "m.pth")
    with pytest.raises(XenomaskError, match="nothing of it was run"):
        initialise(network(), tmp_path / "m.pth")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    fake = FakeHub()
    server = serve(fake)
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    yield fake
    server.shutdown()
    server.server_close()


def test_locate__offline_it_says_which_file_to_put_where(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    wanted = re.escape(
        "put model.safetensors of https://huggingface.co/timm/swin_x.ms_in1k at "
        'weights/swin_x.ms_in1k/model.safetensors and set init = "weights/swin_x.ms_in1k/model.safetensors"'
    )
    with pytest.raises(XenomaskError, match=wanted):
        initialise(network(), Path("timm/swin_x.ms_in1k"))
    assert hub.requests == []


def test_initialise__from_the_hub_and_then_from_its_cache(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    tensors = dict(timm_swin().state_dict())
    hub.repositories["timm/swin_x.ms_in1k"] = hub_folder(tmp_path / "served", tensors)
    key, tensor = f"{ENCODER}.swin.embeddings.norm.weight", tensors["patch_embed.norm.weight"]
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        hub.requests.clear()
        net = network()
        initialise(net, Path("timm/swin_x.ms_in1k"))
        assert torch.equal(net.module.state_dict()[key], tensor)
        assert bool(hub.requests) is not offline
    # a folder of that name goes first
    (tmp_path / "timm/swin_x.ms_in1k").mkdir(parents=True)
    assert locate(Path("timm/swin_x.ms_in1k")) == Path("timm/swin_x.ms_in1k")


def test_initialise__other_classes_leave_the_class_predictor_and_say_so(tmp_path, caplog):
    torch.manual_seed(0)
    source = build("tiny")
    folder = source.save(tmp_path / "iter_1")
    net = build("tiny", ("road", "car", "tree"))
    fresh = net.module.state_dict()["class_predictor.weight"].clone()
    with caplog.at_level(logging.INFO, "xenomask.train"):
        initialise(net, folder)
    assert "knows 19 classes (road, ...), this run 3 (road, ...): all of it is copied but the class" in caplog.text
    own, theirs = net.module.state_dict(), source.module.state_dict()
    assert torch.equal(own["class_predictor.weight"], fresh) and fresh.shape == (4, 32)
    differ = {k for k in own if not torch.equal(own[k], theirs[k])}
    assert differ == {"class_predictor.weight", "class_predictor.bias", "criterion.empty_weight"}
    caplog.clear()
    same = build("tiny")
    initialise(same, folder)
    assert caplog.text == ""
    assert all(torch.equal(v, theirs[k]) for k, v in same.module.state_dict().items())


def test_initialise__a_swin_is_none_for_the_nanos(tmp_path):
    folder = hub_folder(tmp_path / "timm", dict(timm_swin().state_dict()))
    with pytest.raises(XenomaskError, match="timm: a checkpoint folder is needed for preset nano-s"):
        initialise(build("nano-s"), folder)
