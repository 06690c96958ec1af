"""The truth here is `Original`: detectron2's Mask2Former in plain PyTorch, by its sources' formulas and names alone."""

import io
import math
import os
import pickle
import resource
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.detectron2 import HEAD, HEADS, PIXEL, QUERY, Checkpoint, plain, positions, written
from helpers.refusals import WRONG, one_wrong, refused
from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.masks import with_queries
from xenomask.models import load, network
from xenomask.models.convert import arrays
from xenomask.models.convert.arrays import read_arrays
from xenomask.models.convert.detectron2 import convert_detectron2
from xenomask.models.convert.names import DETECTRON2, OPTIONAL, fits, theirs

F64 = torch.float64


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small spend their time on waking threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Original:
    """What detectron2's Mask2Former computes, in float64."""

    def __init__(self, checkpoint: Checkpoint):
        self.how = checkpoint.how
        self.w = {k: torch.from_numpy(v).double() for k, v in checkpoint.items()}

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def conv(self, x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), **how)

    def ln(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def gn(self, x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | float = 0.0) -> Tensor:
        """(..., n, C) each, already projected; the channels of a head lie together."""
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(-3, -2) for t in (q, k, v))
        a = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
        return (a @ v).transpose(-3, -2).flatten(-2)

    def swin_attention(self, x: Tensor, name: str, mask: Tensor | float = 0.0) -> Tensor:
        """Windows (..., w*w, C)."""
        table = self.w[f"{name}.relative_position_bias_table"]
        bias = table[positions(self.how["window"])].permute(2, 0, 1) + mask
        q, k, v = self.linear(x, f"{name}.qkv").chunk(3, -1)
        return self.linear(self.attend(q, k, v, table.shape[1], bias), f"{name}.proj")

    def block(self, x: Tensor, name: str, shift: int) -> Tensor:
        """(H, W, C); in a window that wraps around, each part attends to itself."""
        H, W, C = x.shape
        w = self.how["window"]
        h = F.pad(self.ln(x, f"{name}.norm1"), (0, 0, 0, -W % w, 0, -H % w))
        h = h.roll((-shift, -shift), (0, 1))
        part = torch.zeros(h.shape[:2], dtype=torch.long)
        if shift:
            for axis, n in enumerate(h.shape[:2]):
                i = torch.arange(n)
                region = (i >= n - w).long() + (i >= n - shift).long()
                part = 3 * part + (region[:, None] if axis == 0 else region[None])
        out = torch.empty_like(h)
        for y in range(0, h.shape[0], w):
            for x0 in range(0, h.shape[1], w):
                tokens = h[y : y + w, x0 : x0 + w].reshape(-1, C)
                same = part[y : y + w, x0 : x0 + w].flatten()
                a = self.swin_attention(tokens, f"{name}.attn", -100.0 * (same[:, None] != same[None]))
                out[y : y + w, x0 : x0 + w] = a.reshape(w, w, C)
        x = x + out.roll((shift, shift), (0, 1))[:H, :W]
        return x + self.linear(F.gelu(self.linear(self.ln(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")

    def merge(self, x: Tensor, name: str) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
        x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], -1)
        return self.linear(self.ln(x, f"{name}.norm"), f"{name}.reduction")

    def swin(self, image: Tensor) -> list[Tensor]:
        image = F.pad(image, (0, -image.shape[3] % 4, 0, -image.shape[2] % 4))
        x = self.conv(image, "backbone.patch_embed.proj", stride=4)[0].permute(1, 2, 0)
        x, found = self.ln(x, "backbone.patch_embed.norm"), []
        for i, depth in enumerate(self.how["depths"]):
            for j in range(depth):
                x = self.block(x, f"backbone.layers.{i}.blocks.{j}", (j % 2) * (self.how["window"] // 2))
            found.append(self.ln(x, f"backbone.norm{i}").permute(2, 0, 1)[None])
            if i < 3:
                x = self.merge(x, f"backbone.layers.{i}.downsample")
        return found

    def bn(self, x: Tensor, name: str) -> Tensor:
        w, b, m, v = (self.w[f"{name}.norm.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
        return ((x - m[:, None, None]) / (v[:, None, None] + 1e-5).sqrt()) * w[:, None, None] + b[:, None, None]

    def resnet(self, image: Tensor) -> list[Tensor]:
        x = self.bn(self.conv(image, "backbone.stem.conv1", stride=2, padding=3), "backbone.stem.conv1").relu()
        x, found = F.max_pool2d(x, 3, 2, 1), []
        for i, depth in enumerate(self.how["depths"]):
            for j in range(depth):
                b = f"backbone.res{i + 2}.{j}"
                stride = 2 if i and not j else 1
                y = self.bn(self.conv(x, f"{b}.conv1"), f"{b}.conv1").relu()
                y = self.bn(self.conv(y, f"{b}.conv2", stride=stride, padding=1), f"{b}.conv2").relu()
                y = self.bn(self.conv(y, f"{b}.conv3"), f"{b}.conv3")
                x = (y + (x if j else self.bn(self.conv(x, f"{b}.shortcut", stride=stride), f"{b}.shortcut"))).relu()
            found.append(x)
        return found

    def sine(self, h: int, w: int, channels: int) -> Tensor:
        """(h*w, channels): where a place lies, rows first."""
        n = channels // 2
        t = 10000 ** (2 * torch.div(torch.arange(n), 2, rounding_mode="floor").double() / n)

        def along(size: int) -> Tensor:
            a = (torch.arange(1, size + 1).double() / (size + 1e-6) * 2 * math.pi)[:, None] / t
            return torch.stack((a[:, 0::2].sin(), a[:, 1::2].cos()), 2).flatten(1)

        y, x = along(h)[:, None].expand(h, w, n), along(w)[None].expand(h, w, n)
        return torch.cat((y, x), -1).flatten(0, 1)

    def deformable(self, query: Tensor, tokens: Tensor, sizes: list[tuple[int, int]], name: str) -> Tensor:
        """(n, C) each: every token looks at 4 places around its own, on every level, per head."""
        n, levels = len(tokens), len(sizes)
        value = self.linear(tokens, f"{name}.value_proj")
        offsets = self.linear(query, f"{name}.sampling_offsets").view(n, HEADS, levels, 4, 2)
        weights = self.linear(query, f"{name}.attention_weights").view(n, HEADS, levels * 4).softmax(-1)
        places = [((x + 0.5) / w, (y + 0.5) / h) for h, w in sizes for y in range(h) for x in range(w)]
        own = torch.tensor(places, dtype=F64)
        seen, start = [], 0
        for i, (h, w) in enumerate(sizes):
            plane = value[start : start + h * w].view(h, w, HEADS, -1).permute(2, 3, 0, 1)  # head, channel, h, w
            place = own[:, None, None] + offsets[:, :, i] / torch.tensor([w, h]).double()
            grid = (2 * place - 1).transpose(0, 1)  # head, n, 4, xy
            seen.append(F.grid_sample(plane, grid, align_corners=False))
            start += h * w
        out = (torch.cat(seen, -1) * weights.transpose(0, 1)[:, None]).sum(-1)  # head, channel, n
        return self.linear(out.permute(2, 0, 1).flatten(1), f"{name}.output_proj")

    def pixels(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        levels, t = self.how["levels"], f"{PIXEL}.transformer"
        coarse = features[::-1][:levels]
        sizes = [(f.shape[2], f.shape[3]) for f in coarse]
        tokens = torch.cat(
            [
                self.gn(self.conv(f, f"{PIXEL}.input_proj.{i}.0"), f"{PIXEL}.input_proj.{i}.1")[0].flatten(1).T
                for i, f in enumerate(coarse)
            ]
        )
        where = torch.cat(
            [self.sine(h, w, tokens.shape[1]) + self.w[f"{t}.level_embed"][i] for i, (h, w) in enumerate(sizes)]
        )
        for i in range(self.how["encoder"]):
            e = f"{t}.encoder.layers.{i}"
            tokens = self.ln(tokens + self.deformable(tokens + where, tokens, sizes, f"{e}.self_attn"), f"{e}.norm1")
            y = self.linear(self.linear(tokens, f"{e}.linear1").relu(), f"{e}.linear2")
            tokens = self.ln(tokens + y, f"{e}.norm2")
        parts = tokens.split([h * w for h, w in sizes])
        out = [p.T.reshape(1, -1, h, w) for p, (h, w) in zip(parts, sizes, strict=True)]
        for i in range(4 - levels, 0, -1):
            x = self.gn(self.conv(features[i - 1], f"{PIXEL}.adapter_{i}"), f"{PIXEL}.adapter_{i}.norm")
            x = x + F.interpolate(out[-1], size=x.shape[2:], mode="bilinear", align_corners=False)
            out.append(self.gn(self.conv(x, f"{PIXEL}.layer_{i}", padding=1), f"{PIXEL}.layer_{i}.norm").relu())
        return self.conv(out[-1], f"{PIXEL}.mask_features"), out[:levels]

    def multihead(self, q: Tensor, k: Tensor, v: Tensor, name: str, bias: Tensor | float = 0.0) -> Tensor:
        weights = zip(self.w[f"{name}.in_proj_weight"].chunk(3), self.w[f"{name}.in_proj_bias"].chunk(3), strict=True)
        q, k, v = (F.linear(x, *wb) for x, wb in zip((q, k, v), weights, strict=True))
        return self.linear(self.attend(q, k, v, HEADS, bias), f"{name}.out_proj")

    def predict(self, x: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.ln(x, f"{QUERY}.decoder_norm")
        m = x
        for i in range(3):
            m = self.linear(m, f"{QUERY}.mask_embed.layers.{i}")
            m = m.relu() if i < 2 else m
        return self.linear(x, f"{QUERY}.class_embed"), torch.einsum("qc,chw->qhw", m, pixels[0])

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W), normalised -> class logits (Q, K + 1), mask logits (Q, h, w)."""
        image = image.double()
        features = self.resnet(image) if self.how["resnet"] else self.swin(image)
        pixels, scales = self.pixels(features)
        x, where = self.w[f"{QUERY}.query_feat.weight"], self.w[f"{QUERY}.query_embed.weight"]
        for i in range(self.how["layers"]):
            level = i % len(scales)
            f, (h, w) = scales[level], scales[level].shape[2:]
            if f"{QUERY}.input_proj.0.weight" in self.w:
                f = self.conv(f, f"{QUERY}.input_proj.{level}")
            memory = f[0].flatten(1).T + self.w[f"{QUERY}.level_embed.weight"][level]
            masks = F.interpolate(self.predict(x, pixels)[1][None], size=(h, w), mode="bilinear", align_corners=False)
            blocked = masks[0].flatten(1).sigmoid() < 0.5
            blocked &= ~blocked.all(1, keepdim=True)
            bias = torch.zeros(blocked.shape).double().masked_fill(blocked, -math.inf)
            a = f"{QUERY}.transformer_cross_attention_layers.{i}"
            key = memory + self.sine(h, w, memory.shape[1])
            x = self.ln(x + self.multihead(x + where, key, memory, f"{a}.multihead_attn", bias), f"{a}.norm")
            a = f"{QUERY}.transformer_self_attention_layers.{i}"
            x = self.ln(x + self.multihead(x + where, x + where, x, f"{a}.self_attn"), f"{a}.norm")
            a = f"{QUERY}.transformer_ffn_layers.{i}"
            y = self.linear(self.linear(x, f"{a}.linear1").relu(), f"{a}.linear2")
            x = self.ln(x + y, f"{a}.norm")
        return self.predict(x, pixels)


def compare(checkpoint: Checkpoint, path: Path, size: tuple[int, int]) -> None:
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        classes, masks = Original(checkpoint)(image)
        out = convert_detectron2(path).network.module.double()(pixel_values=image.double())
    torch.testing.assert_close(out.class_queries_logits[0], classes, rtol=0, atol=1e-9)
    torch.testing.assert_close(out.masks_queries_logits[0], masks, rtol=0, atol=1e-9)
    assert classes.abs().max() > 0.5 and masks.std() > 0.5  # there is something to compare


@pytest.mark.parametrize(
    ("how", "size"),
    [
        ({"window": 4}, (96, 128)),
        ({"window": 7, "layers": 9, "encoder": 2}, (75, 109)),  # odd: padded inside
        ({"window": 4, "depths": (1, 2, 4, 2), "hidden": 64, "classes": 20, "layers": 2}, (64, 101)),
        ({"resnet": True, "depths": (1, 2, 1, 3), "layers": 3}, (96, 65)),
    ],
    ids=["window-4", "window-7-nine-layers-odd", "projected-outlier-class", "resnet"],
)
def test_converted__computes_what_the_original_computes(how, size, tmp_path):
    c = Checkpoint(**how)
    compare(c, written(tmp_path / "a.pkl", plain(c)), size)


def test_rba__attends_on_the_coarsest_level_only(tmp_path):
    c = Checkpoint(levels=1, encoder=2)  # RbA's config: DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES: [res5]
    path = written(tmp_path / "rba.pkl", plain(c))
    compare(c, path, (75, 109))
    compare(c, path, (96, 160))
    made = convert_detectron2(path).network
    same(load(made.save(tmp_path / "rba")), made)


def test_rba__is_refused_where_load_could_not_build_it_again(monkeypatch, tmp_path):
    monkeypatch.setattr("xenomask.models.convert.common.mask2former", three_levels)
    with pytest.raises(XenomaskError, match="stride 32 only, as RbA's"):
        convert_detectron2(written(tmp_path / "rba.pkl", plain(Checkpoint(levels=1))))


def three_levels(config):
    with network.without_warnings():
        return network.Mask2FormerForUniversalSegmentation(config)


def same(a: network.Network, b: network.Network) -> None:
    ours, theirs = a.module.state_dict(), b.module.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert a.preprocess == b.preprocess and a.config.to_dict() == b.config.to_dict()
    photo = np.random.default_rng(0).integers(0, 256, (45, 67, 3), np.uint8)  # odd: resized and padded
    small = [network.Network(n.module, n.config, replace(n.preprocess, size=45, longest=90)) for n in (a, b)]
    x, y = (with_queries(n.predict(photo)) for n in small)
    assert torch.equal(x.class_logits, y.class_logits) and torch.equal(x.mask_logits, y.mask_logits)


def test_saved_and_loaded__is_the_same_network(tmp_path):
    made = convert_detectron2(written(tmp_path / "a.pkl", plain(Checkpoint()))).network
    again = load(made.save(tmp_path / "out"))
    same(again, made)
    assert again.facts["converted"]["kind"] == "detectron2"
    assert again.facts["converted"]["file"] == "a.pkl"
    assert again.facts["converted"]["sha256"] == sha256(tmp_path / "a.pkl")


def test_swin_attention__thirds_of_qkv(tmp_path):
    c = Checkpoint()
    made = convert_detectron2(written(tmp_path / "a.pkl", plain(c))).network.module.double()
    x = torch.randn(5, 16, 32, dtype=F64)
    ours: Any = made.get_submodule("model.pixel_level_module.encoder.swin.encoder.layers.2.blocks.1.attention")
    truth = Original(c).swin_attention(x, "backbone.layers.2.blocks.1.attn")
    torch.testing.assert_close(ours(x)[0], truth, rtol=0, atol=1e-12)


def test_patch_merging__order_of_the_four(tmp_path):
    c = Checkpoint()
    made = convert_detectron2(written(tmp_path / "a.pkl", plain(c))).network.module.double()
    x = torch.randn(5, 7, 16, dtype=F64)  # odd sides: padded
    ours: Any = made.get_submodule("model.pixel_level_module.encoder.swin.encoder.layers.1.downsample")
    truth = Original(c).merge(x, "backbone.layers.1.downsample").flatten(0, 1)
    torch.testing.assert_close(ours(x.view(1, 35, 16), (5, 7))[0], truth, rtol=0, atol=1e-12)


# --- files -------------------------------------------------------------------------------------------------------


def state(path: Path) -> dict[str, Tensor]:
    return convert_detectron2(path).network.module.state_dict()


@pytest.fixture(scope="module")
def small() -> Checkpoint:
    return Checkpoint(depths=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def reference(small, tmp_path_factory) -> dict[str, Tensor]:
    return state(written(tmp_path_factory.mktemp("d2") / "a.pkl", plain(small)))


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    skip = "criterion.empty_weight"
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if k != skip)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles__of_every_protocol(protocol, small, reference, tmp_path):
    assert equal(state(written(tmp_path / "a.pkl", OrderedDict(small), protocol)), reference)


def test_pickles__of_numpy_1(small, reference, tmp_path):
    path = written(tmp_path / "a.pkl", plain(small), 2)
    assert path.read_bytes().count(b"cnumpy._core.") == 1
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core."))
    assert equal(state(path), reference)


def tensors(checkpoint: Checkpoint) -> OrderedDict[str, Tensor]:
    return OrderedDict({k: torch.from_numpy(v) for k, v in checkpoint.items()})


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("bare", [True, False])
def test_torch_files__of_a_trainer_or_bare(prefix, bare, small, reference, tmp_path):
    model = OrderedDict({prefix + k: v for k, v in tensors(small).items()})
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save(model if bare else {"model": model, "optimizer": optimizer, "iteration": 90000}, tmp_path / "m.pth")
    assert equal(state(tmp_path / "m.pth"), reference)


def test_names_of_older_code(small, reference, tmp_path):
    old = {k.replace(PIXEL, HEAD).replace("query_feat", "static_query"): v for k, v in small.items()}
    assert "sem_seg_head.adapter_1.weight" in old and "sem_seg_head.predictor.static_query.weight" in old
    assert equal(state(written(tmp_path / "a.pkl", old)), reference)


def test_dropped__is_named_with_its_reason(small, tmp_path):
    mean = np.array([1, 2, 3.25], np.float32).reshape(3, 1, 1)
    made = convert_detectron2(written(tmp_path / "a.pkl", {**small, "pixel_mean": mean, "pixel_std": mean}))
    indices = [f"backbone.layers.{i}.blocks.0.attn.relative_position_index" for i in range(4)]
    assert set(made.dropped) == {"criterion.empty_weight", "pixel_mean", "pixel_std", *indices}
    assert all(made.dropped.values())
    assert {n for names in made.network.facts["converted"]["dropped"].values() for n in names} == set(made.dropped)
    p = made.network.preprocess
    assert (p.policy, p.size, p.longest, p.divisor, p.mean, p.std) == (
        "shortest", 1024, 2048, 32, (1, 2, 3.25), (1, 2, 3.25),
    )  # fmt: skip


@pytest.mark.parametrize("std", [[1, 2], [1, 2, 0], [1, 2, math.nan]])
def test_impossible_deviation__is_refused(std, small, tmp_path):
    with pytest.raises(XenomaskError, match="pixel_std must be three numbers"):
        convert_detectron2(written(tmp_path / "a.pkl", {**small, "pixel_std": np.array(std, np.float32)}))


@pytest.mark.parametrize(
    ("classes", "told", "last", "fact"),
    [
        (19, None, "bicycle", None),
        (20, None, "outlier", 19),
        (20, False, "class 19", None),
        (65, None, "class 64", None),
        (66, True, "outlier", 65),
    ],
)
def test_classes__and_the_one_for_outliers(classes, told, last, fact, tmp_path):
    path = written(tmp_path / "a.pkl", plain(Checkpoint(depths=(1, 1, 1, 1), classes=classes)))
    made = convert_detectron2(path, outlier_class=told).network
    config: Any = made.config
    assert config.num_labels == classes and config.id2label[classes - 1] == last
    assert made.facts["converted"]["outlier_class"] == fact
    assert made.outlier_class == (fact is not None)


NAMES = [
    "backbone.patch_embed.proj.weight",
    "backbone.patch_embed.norm.bias",
    "backbone.layers.2.blocks.0.attn.qkv.weight",
    "backbone.layers.0.downsample.reduction.weight",
    "backbone.norm3.weight",
    f"{PIXEL}.transformer.level_embed",
    f"{PIXEL}.adapter_1.norm.bias",
    f"{QUERY}.query_embed.weight",
    f"{QUERY}.transformer_self_attention_layers.0.self_attn.in_proj_bias",
    f"{QUERY}.class_embed.bias",
]


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("name", NAMES)
def test_one_wrong_tensor__is_refused_by_name(name, how, small, tmp_path):
    path = written(tmp_path / "a.pkl", one_wrong(small, name, how))
    line = refused(convert_detectron2, path, names=path)
    # the sizes that the architecture is read from make all others of that size wrong
    read = how == "reshaped" and name.endswith(("patch_embed.proj.weight", "level_embed"))
    assert name in line or read


@pytest.mark.parametrize("how", [{}, {"resnet": True}, {"hidden": 64, "layers": 9, "encoder": 6}], ids=str)
def test_every_tensor__is_used_or_dropped(how, tmp_path):
    c = Checkpoint(**how)
    made = convert_detectron2(written(tmp_path / "a.pkl", plain(c)))
    own = [k for k in made.network.module.state_dict() if not fits(k, OPTIONAL)]
    used = [theirs(k, DETECTRON2.table) for k in own]
    assert len(set(used)) == len(own)
    assert {name for name, _ in used} | set(made.dropped) == set(c)
    assert not {name for name, _ in used} & set(made.dropped)


def test_window_in_another_order__is_refused(small, tmp_path):
    name = "backbone.layers.1.blocks.0.attn.relative_position_index"
    with pytest.raises(XenomaskError, match=f"{name} is not the usual order"):
        convert_detectron2(written(tmp_path / "a.pkl", {**small, name: small[name].T.copy()}))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.layers.9000.blocks.0.norm1.weight", (1,)),
        ("backbone.layers.0.blocks.4000000000.norm1.weight", (1,)),
        (f"{QUERY}.transformer_ffn_layers.70.norm.weight", (1,)),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", (999**2, 1)),
        ("backbone.patch_embed.proj.weight", (50_000, 3, 1, 1)),
        (f"{PIXEL}.transformer.level_embed", (2, 32)),
        (f"{QUERY}.query_feat.weight", (0, 32)),
    ],
)
def test_absurd_shapes__build_nothing(name, shape, small, tmp_path):
    with pytest.raises(XenomaskError), limited():
        convert_detectron2(written(tmp_path / "a.pkl", {**small, name: np.ones(shape, np.float32)}))


# --- hostile files -----------------------------------------------------------------------------------------------


@contextmanager
def limited(megabytes: int = 1000):
    """Fails where the block needs more memory than that; only Linux tells and bounds it."""
    if not sys.platform.startswith("linux"):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Calls:
    def __init__(self, what: Callable[..., Any], *args: Any):
        self.what, self.args = what, args

    def __reduce__(self):
        return self.what, self.args


CANARY = "canary"


def header(shape: tuple[int, ...], raw: bytes = b"1234", kind: str = "f4") -> bytes:
    """An array that claims a shape."""
    array = np.zeros(1, np.float32).__reduce__()
    state = (1, shape, np.dtype(kind), False, raw)

    class Claims:
        def __reduce__(self):
            return array[0], array[1], state

    return pickle.dumps({"model": {"x": Claims()}}, protocol=4)


def nested(depth: int) -> bytes:
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def shared(n: int) -> bytes:
    """Many arrays over the same megabyte."""
    raw, array = bytes(1 << 20), np.zeros(1, np.uint8).__reduce__()
    state = (1, (1 << 20,), np.dtype("u1"), False, raw)

    class Claims:
        def __reduce__(self):
            return array[0], array[1], state

    return pickle.dumps({"model": {str(i): Claims() for i in range(n)}}, protocol=4)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: pickle.dumps({"model": {"x": Calls(os.system, f"touch {CANARY}")}}),
    "os.system, protocol 2": lambda: pickle.dumps({"model": {"x": Calls(os.system, f"touch {CANARY}")}}, 2),
    "builtins.eval": lambda: pickle.dumps(Calls(eval, f"open('{CANARY}', 'w')")),
    "builtins.exec, text opcodes": lambda: b"\x80\x02c__builtin__\nexec\n(Vopen('canary','w')\ntR.",
    "INST": lambda: b"\x80\x02(S'touch canary'\nios\nsystem\n.",
    "OBJ": lambda: b"\x80\x02(cos\nsystem\nVtouch canary\no.",
    "NEWOBJ": lambda: b"\x80\x02csubprocess\nPopen\nVtouch canary\n\x85\x81.",
    "extension registry": lambda: b"\x80\x02\x82\x01.",
    "persistent id": lambda: b"\x80\x02Pcanary\n.",
    "dotted name": lambda: b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93.",
    "numpy's own exec": lambda: pickle.dumps(Calls(np.load, CANARY)),
    "nothing but ndarray": lambda: pickle.dumps({"model": {"x": Calls(np.ndarray, (1 << 40,))}}),
    "BUILD on a function": lambda: b"\x80\x02cnumpy\ndtype\n}X\x04\x00\x00\x00nameK\x01sb.",
    "call of a string": lambda: b"\x80\x02X\x02\x00\x00\x00os)R.",
    "deep lists": lambda: nested(20_000),
    "memo bomb": lambda: b"\x80\x02]r\xff\xff\xff\x7f.",
    "memo of memos": lambda: b"\x80\x04]\x94" + b"h\x00h\x00e" * 1000 + b".",
    "list of itself": lambda: b"\x80\x04]\x94h\x00a.",
    "terabytes claimed": lambda: header((1 << 20, 1 << 20)),
    "more than any integer claimed": lambda: header((1 << 62, 1 << 62, 4)),
    "negative shape": lambda: header((-1, -1)),
    "a thousand sides": lambda: header((1,) * 1000),
    "objects": lambda: pickle.dumps({"model": {"x": np.array([None])}}),
    "structures": lambda: pickle.dumps({"model": {"x": np.zeros(1, "f4,f4")}}),
    "strings": lambda: pickle.dumps({"model": {"x": np.array(["abc"])}}),
    "shared bytes": lambda: shared(3000),
    "bytes claimed": lambda: b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
    "text claimed": lambda: b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.",
    "frame claimed": lambda: b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"].",
    "integer claimed": lambda: b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "text integer": lambda: b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
    "stack underflow": lambda: b"\x80\x02\x86.",
    "no mark": lambda: b"\x80\x02e.",
    "unhashable key": lambda: b"\x80\x02}]K\x01s.",
    "empty": lambda: b"",
    "only a header": lambda: b"\x80\x04",
    "no dict": lambda: pickle.dumps([1, 2]),
    "no tensors": lambda: pickle.dumps({"model": {"x": [1, 2]}}),
    "empty model": lambda: pickle.dumps({"model": {}}),
    "text": lambda: b"hello",
    "safetensors": lambda: (8).to_bytes(8, "little") + b"{}      ",
}


def nothing_runs(path: Path, content: bytes, monkeypatch) -> str:
    """The one line that refuses the file, after nothing happened."""
    monkeypatch.chdir(path.parent)
    path.write_bytes(content)
    before = sorted(path.parent.iterdir())
    with limited():
        line = refused(convert_detectron2, path, names=path, longest=500)
    assert sorted(path.parent.iterdir()) == before and not (path.parent / CANARY).exists()
    return line


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle__is_refused_and_nothing_runs(name, tmp_path, monkeypatch):
    nothing_runs(tmp_path / "a.pkl", HOSTILE[name](), monkeypatch)


def test_hostile_pickle__of_endless_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_STEPS", 100)
    assert "more than 100 steps" in nothing_runs(tmp_path / "a.pkl", nested(60), monkeypatch)


def test_hostile_pickle__the_canary_can_sing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["os.system"]())
    assert (tmp_path / CANARY).exists()


def test_cut_off_anywhere__is_refused(small, tmp_path, monkeypatch):
    whole = written(tmp_path / "whole.pkl", plain(small)).read_bytes()
    (tmp_path / "whole.pkl").unlink()
    for n in (*range(2, 60), *range(60, len(whole), len(whole) // 40), len(whole) - 1):
        nothing_runs(tmp_path / "a.pkl", whole[:n], monkeypatch)


def torch_file(content: Any, **how: Any) -> bytes:
    f = io.BytesIO()
    torch.save(content, f, **how)
    return f.getvalue()


def compressed(content: bytes) -> bytes:
    f = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return f.getvalue()


def claiming(content: bytes, number: bytes, instead: bytes) -> bytes:
    """The archive with another number in its pickle."""
    f = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(f, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(number, instead) if name.endswith("data.pkl") else old.read(name))
    return f.getvalue()


HOSTILE_TORCH: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: torch_file({"model": {"x": Calls(os.system, f"touch {CANARY}")}}),
    "eval": lambda: torch_file({"model": Calls(eval, f"open('{CANARY}', 'w')")}),
    "a module": lambda: torch_file(torch.nn.Linear(2, 2)),
    "zip bomb": lambda: compressed(torch_file({"model": {"x": torch.zeros(1 << 22)}})),
    "stretched": lambda: torch_file({"model": {"x": torch.zeros(1).expand(1 << 20, 1 << 20)}}),
    "gigabytes claimed": lambda: claiming(
        torch_file({"model": {"x": torch.zeros(1000)}}), b"M\xe8\x03", b"J\xff\xff\xff\x3f"
    ),
    "shared": lambda: torch_file({"model": dict.fromkeys("abc", torch.zeros(100_000))}),
    "cut off": lambda: torch_file({"model": {"x": torch.zeros(10_000)}})[:-1000],
    "other zip": lambda: compressed(torch_file({})),
    "complex": lambda: torch_file({"model": {"x": torch.zeros(3, dtype=torch.complex64)}}),
    "sparse": lambda: torch_file({"model": {"x": torch.zeros(3, 3).to_sparse()}}),
    "format of torch 1.5": lambda: torch_file({"model": {"x": torch.zeros(3)}}, _use_new_zipfile_serialization=False),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("name", HOSTILE_TORCH)
def test_hostile_torch_file__is_refused_and_nothing_runs(name, tmp_path, monkeypatch):
    nothing_runs(tmp_path / "a.pth", HOSTILE_TORCH[name](), monkeypatch)


def test_arrays__are_read_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    written_arrays = {
        "large": rng.standard_normal((40, 50)).astype(np.float32),
        "fortran": np.asfortranarray(rng.standard_normal((40, 50))),
        "big-endian": rng.standard_normal(700).astype(">f8"),
        "half": rng.standard_normal(3).astype(np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "bool": np.array([True, False]),
        "zero-d": np.array(2.5),
        "scalar": np.float32(1.5),
        "int64": np.int64(-7),
    }
    others = [(1, 2.5, "x", None, True)]
    for protocol in range(2, 6):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": written_arrays, "others": others}, protocol))
        found = read_arrays(tmp_path / "a.pkl")
        assert found["others"] == others and found["a"].keys() == written_arrays.keys()
        for name, value in written_arrays.items():
            assert found["a"][name].dtype == value.dtype and np.array_equal(found["a"][name], value), name
