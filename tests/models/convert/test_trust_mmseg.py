"""Every entry of MMSegmentation's config is honoured, harmless for a reason, or refused: held against the real one.

golden/mmseg/leaves.json has what the real MMSegmentation answered after each change (mmseg_leaves.py made it).
"""

import copy
import json
import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from transformers import Mask2FormerConfig, ResNetConfig

from helpers import mmseg_leaves
from helpers.mmseg_leaves import CHANGED, GOLDEN, PARTS, STAYED, mutations
from xenomask.errors import XenomaskError
from xenomask.models.convert.architecture import read_architecture
from xenomask.models.convert.checkpoint import read_torch
from xenomask.models.convert.common import recognised
from xenomask.models.convert.entries import USED, Entries, dotted, equal, plain
from xenomask.models.convert.mmseg import class_names, convert_mmseg, settings
from xenomask.models.convert.names import MMSEG
from xenomask.models.convert.pyconfig import read_config_text
from xenomask.models.preprocess import Preprocess, network_input

MICRO = GOLDEN / "random_micro.pth"
BASE = mmseg_leaves.base()
REAL: dict[str, dict[str, str]] = json.loads((GOLDEN / "leaves.json").read_text())


@pytest.fixture(scope="module")
def swin() -> Mask2FormerConfig:
    return read_architecture(recognised(read_torch(MICRO)["state_dict"], MMSEG))


def resnet(swin: Mask2FormerConfig) -> Mask2FormerConfig:
    return Mask2FormerConfig.from_dict({**swin.to_dict(), "backbone_config": ResNetConfig().to_dict()})


def read(config: Any, a: Mask2FormerConfig) -> tuple[Any, Entries]:
    entries = Entries(config)
    return settings(entries, a), entries


def refused(config: Any, a: Mask2FormerConfig) -> str:
    with pytest.raises(XenomaskError) as e:
        read(config, a)
    assert "\n" not in str(e.value) and len(str(e.value)) < 400
    return str(e.value)


def reason(entries: Entries, path: tuple[Any, ...]) -> str:
    """Why an entry has no effect; "" for one that is used."""
    whole = [entries.accounts[path[:n]] for n in range(1, len(path) + 1) if path[:n] in entries.accounts]
    return whole[0] if whole else ""


# what is taken over from the config; the tests below hold each against an independent computation
HONOURED = ("mean", "std", "size_divisor", "scale", "max_size", "test_cfg", "rgb_to_bgr", "drop_path_rate", "pipeline",
            "test_pipeline", "test_dataloader", "dataset")  # fmt: skip


@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_config__every_entry_changed_in_turn(swin, kind):
    config, a = (BASE, swin) if kind == "swin" else (mmseg_leaves.resnet(), resnet(swin))
    usual, _ = read(config, a)
    counts = {"refused": 0, "honoured": 0, "harmless": 0}
    wrong, asked = [], set()
    for name, path, new in mutations(config, mmseg_leaves.ADDED if kind == "swin" else {}):
        if kind == "resnet" and path[:2] != ("model", "backbone"):
            continue
        if path[0] not in PARTS:  # not of the network or its photos: the real one was not asked, one change of each
            if path in asked:
                continue
            asked.add(path)
        real = REAL[kind][name] if path[0] in PARTS else STAYED
        try:
            found, entries = read(new, a)
        except XenomaskError as e:
            counts["refused"] += 1
            near = {dotted(p).replace("test_pipeline", "test_dataloader.dataset.pipeline") for p in (path, path[:-1])}
            if "\n" in str(e) or not any(p in str(e) for p in near if p):
                wrong.append(f"{name}: refused without its name: {e}")
            continue
        if found != usual:
            counts["honoured"] += 1
            if not any(k in HONOURED for k in path):
                wrong.append(f"{name}: honoured, and not tested below")
        elif real == CHANGED:
            wrong.append(f"{name}: accepted, and the real MMSegmentation answers otherwise")
        else:
            counts["harmless"] += 1
            if real != STAYED and not reason(entries, path):
                wrong.append(f"{name}: accepted without a reason, and the real MMSegmentation fails")
    assert not wrong, "\n".join(wrong)
    assert min(counts["refused"], counts["harmless"]) > 40 and (counts["honoured"] > 10 or kind == "resnet"), counts


@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_config__nothing_is_left_unaccounted_and_an_unknown_entry_is_refused_anywhere(swin, kind):
    config, a = (BASE, swin) if kind == "swin" else (mmseg_leaves.resnet(), resnet(swin))
    _, entries = read(config, a)
    for path, value in mmseg_leaves.entries(config):
        assert reason(entries, path) or path[0] in PARTS
        if not isinstance(value, dict) and not (isinstance(value, list) and isinstance(value[0], dict)):
            assert any(path[:n] in entries.accounts for n in range(1, len(path) + 1))
    for path, value in mmseg_leaves.entries(config):
        inside = path[0] in ("model", "test_pipeline") and not any(reason(entries, path[:n]) for n in range(1, 20))
        if isinstance(value, dict) and inside:
            new = mmseg_leaves.changed(config, (*path, "surprise"), 1)
            assert f"{dotted(path)}.surprise = 1 is not supported" in refused(new, a)


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("decode_head.pixel_decoder.encoder.layer_cfg.ffn_cfg", "add_identity", False),
        ("decode_head.positional_encoding", "temperature", 20),
        ("decode_head.pixel_decoder.positional_encoding", "offset", -0.5),
        ("decode_head.pixel_decoder.norm_cfg", "eps", 1e-6),
        ("backbone", "norm_cfg", {"type": "LN", "eps": 1e-6}),
        ("decode_head.transformer_decoder", "post_norm_cfg", {"type": "LN", "eps": 1e-6}),
        ("decode_head.transformer_decoder.layer_cfg", "norm_cfg", {"type": "LN", "eps": 1e-6}),
    ],
)
def test_config__those_of_the_issue(tmp_path, path, key, value):
    config = mmseg_leaves.changed(BASE, ("model", *path.split("."), key), value)
    file = tmp_path / "a.py"
    file.write_text("\n".join(f"{k} = {v!r}" for k, v in config.items()))
    with pytest.raises(XenomaskError, match=re.escape(f"model.{path}.{key}")) as e:
        convert_mmseg(MICRO, file)
    assert "is not supported, only" in str(e.value)


# --- what is honoured ------------------------------------------------------------------------------------------------


def changed_photos(preprocessor: dict[str, Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    config = copy.deepcopy(BASE)
    del config["test_dataloader"]
    config["model"]["data_preprocessor"] |= preprocessor
    config["test_pipeline"] = [{"type": "LoadImageFromFile"}, *steps, {"type": "PackSegInputs"}]
    return config


def expected_input(image: np.ndarray, size: tuple[int, int], mean: Any, std: Any, divisor: int) -> np.ndarray:
    """mmcv's formula: OpenCV's bilinear to (width, height), RGB normalised, zeros right and below."""
    x = (cv2.resize(image, size).astype(np.float64) - mean) / std
    h, w = x.shape[:2]
    padded = np.zeros((-(-h // divisor) * divisor, -(-w // divisor) * divisor, 3))
    padded[:h, :w] = x
    return padded.transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("steps", "size"),  # of a photo of 61x47
    [
        ([{"type": "Resize", "scale": (160, 96), "keep_ratio": True}], (125, 96)),
        ([{"type": "Resize", "scale": [96, 160], "keep_ratio": True}], (125, 96)),
        ([{"type": "Resize", "scale": 100, "keep_ratio": True}], (100, 77)),
        ([{"type": "ResizeShortestEdge", "scale": 94, "max_size": 500}], (122, 94)),
        ([{"type": "ResizeShortestEdge", "scale": (94, 200), "max_size": 100}], (100, 77)),
        ([], (61, 47)),
    ],
)
@pytest.mark.parametrize("divisor", [1, 48])
def test_honoured__size_mean_std_and_padding(swin, steps, size, divisor):
    image = np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    mean, std = (10.0, 20.5, 30.0), (1.0, 2.0, 3.5)
    config = changed_photos({"mean": list(mean), "std": std, "test_cfg": {"size_divisor": divisor}}, steps)
    (preprocess, _, sized), _ = read(config, swin)
    x, _ = network_input(preprocess, image)
    assert sized and np.allclose(x[0].numpy(), expected_input(image, size, mean, std, divisor), atol=1e-4)


def test_honoured__no_padding_either_way_to_rgb_and_no_size(swin):
    (p, _, sized), _ = read(changed_photos({"test_cfg": None, "bgr_to_rgb": False, "rgb_to_bgr": True}, []), swin)
    assert p == Preprocess("none", 0, 0, p.mean, p.std, 1) and sized
    config = copy.deepcopy(BASE)
    del config["test_dataloader"], config["test_pipeline"]
    (p, _, sized), _ = read(config, swin)
    assert (p.policy, p.size, p.longest, sized) == ("fit", 1024, 2048, False)


def test_refused__pipelines_that_disagree(swin):
    config = copy.deepcopy(BASE)
    config["test_pipeline"][1]["scale"] = (2048, 1024)
    assert "test_dataloader.dataset.pipeline and test_pipeline resize photos differently" in refused(config, swin)
    config = copy.deepcopy(BASE)
    inner = config["test_dataloader"]["dataset"]
    config["test_dataloader"]["dataset"] = {"type": "ConcatDataset", "datasets": [inner, copy.deepcopy(inner)]}
    assert read(config, swin)[0] == read(BASE, swin)[0]
    inner["pipeline"][1]["scale"] = (320, 192)
    assert "datasets[" in refused(config, swin)
    config = changed_photos({}, [BASE["test_pipeline"][1]] * 2)
    assert "test_pipeline resizes 2 times" in refused(config, swin)


def test_refused__a_network_without_its_data_preprocessor(swin):
    config = copy.deepcopy(BASE)
    outer = config.pop("data_preprocessor")
    inner = config["model"].pop("data_preprocessor")
    assert "leaves out data_preprocessor" in refused(config, swin)
    assert read({**config, "data_preprocessor": inner}, swin)[0] == read(BASE, swin)[0]
    assert outer["size"] != inner["size"]  # the model's own goes before the other
    assert "leaves out model, which" in refused({"data_preprocessor": inner}, swin)


# --- what configs look like ------------------------------------------------------------------------------------------

# as MMEngine 0.10.7 dumped the same config, written in Python with imported classes
DUMPED = {
    "EncoderDecoder": "mmseg.models.EncoderDecoder",
    "SegDataPreProcessor": "mmseg.models.SegDataPreProcessor",
    "SwinTransformer": "mmseg.models.backbones.SwinTransformer",
    "Mask2FormerHead": "mmseg.models.decode_heads.mask2former_head.Mask2FormerHead",
    "mmdet.MSDeformAttnPixelDecoder": "mmdet.models.layers.MSDeformAttnPixelDecoder",
    "ReLU": "torch.nn.modules.activation.ReLU",
    "GN": "torch.nn.GroupNorm",
    "LoadImageFromFile": "mmcv.transforms.loading.LoadImageFromFile",
    "Resize": "mmcv.transforms.processing.Resize",
    "LoadAnnotations": "mmseg.datasets.transforms.LoadAnnotations",
    "PackSegInputs": "mmseg.datasets.transforms.PackSegInputs",
    "CityscapesDataset": "mmseg.datasets.CityscapesDataset",
}


def with_types(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: names.get(v, v) if k == "type" else with_types(v, names) for k, v in value.items()}
    return [with_types(v, names) for v in value] if isinstance(value, list) else value


def test_dumped__dotted_names_of_classes(tmp_path, swin):
    dumped = with_types(BASE, DUMPED) | {"default_scope": None}
    assert read(dumped, swin)[0] == read(BASE, swin)[0]
    (tmp_path / "a.py").write_text("\n".join(f"{k} = {v!r}" for k, v in dumped.items()))
    assert convert_mmseg(MICRO, tmp_path / "a.py").network.preprocess.longest == 160


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Resize", "mine.Resize"),
        ("Resize", "mmdet.datasets.transforms.Resize"),
        ("SwinTransformer", "mmdet.models.backbones.swin.SwinTransformer"),
        ("SwinTransformer", "mmseg.mod.SwinTransformer"),
        ("SwinTransformer", "mmseg.models.backbones.swin.ASwinTransformer"),
        ("ReLU", "torch.nn.modules.activation.LeakyReLU"),
    ],
)
def test_dumped__other_peoples_classes_are_refused(swin, old, new):
    assert f"type = {new!r} is not supported" in refused(with_types(BASE, {old: new}), swin)


def old_layout(config: dict[str, Any]) -> dict[str, Any]:
    """The head's config as it was written before mmdet's DETR refactor."""
    config = copy.deepcopy(config)
    head = config["model"]["decode_head"]
    encoder, decoder = head["pixel_decoder"]["encoder"], head["transformer_decoder"]
    for e, kind, layer, attention, order in (
        (encoder, "DetrTransformerEncoder", "BaseTransformerLayer", "MultiScaleDeformableAttention",
         ("self_attn", "norm", "ffn", "norm")),
        (decoder, "DetrTransformerDecoder", "DetrTransformerDecoderLayer", "MultiheadAttention",
         ("cross_attn", "norm", "self_attn", "norm", "ffn", "norm")),
    ):  # fmt: skip
        new = e.pop("layer_cfg")
        e["type"] = f"mmdet.{kind}"
        e["transformerlayers"] = {
            "type": f"mmdet.{layer}",
            "attn_cfgs": {**new["self_attn_cfg"], "type": f"mmdet.{attention}", "batch_first": False},
            "ffn_cfgs": new["ffn_cfg"],
            "operation_order": order,
        }
    decoder["transformerlayers"]["feedforward_channels"] = 192
    for e in (head, head["pixel_decoder"]):
        e["positional_encoding"]["type"] = "mmdet.SinePositionalEncoding"
    return config


def test_old_layout__read_and_refused_alike(swin):
    old = old_layout(BASE)
    assert read(old, swin)[0] == read(BASE, swin)[0]
    layers = {
        ("decode_head", "pixel_decoder", "encoder", "transformerlayers"): {"norm_cfg": {"type": "LN", "eps": 1e-3}},
        ("decode_head", "transformer_decoder", "transformerlayers"): {
            "operation_order": ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm"), "feedforward_channels": 64,
        },
        ("decode_head", "transformer_decoder", "transformerlayers", "ffn_cfgs"): {"add_identity": False, "num_fcs": 3},
        ("decode_head", "transformer_decoder", "transformerlayers", "attn_cfgs"): {"num_heads": 4, "bias": False},
    }  # fmt: skip
    for path, changes in layers.items():
        for key, value in changes.items():
            assert f"{'.'.join(path)}.{key}" in refused(mmseg_leaves.changed(old, ("model", *path, key), value), swin)


def test_entries__values_that_mean_the_same():
    assert equal(plain([1, [2.0]]), (1.0, (2,))) and equal(6.283185307179586, 6.28318530718)
    assert not equal(True, 1) and not equal(0, None) and not equal(float("nan"), float("nan"))
    assert not equal(10**400, 1.0) and equal(10**400, 10**400) and not equal("1", 1)
    long = {"a" * 500: ["x" * 500]}
    e = Entries(long)
    with pytest.raises(XenomaskError) as error:
        e.finish()
    assert len(str(error.value)) < 400
    e.take("a" * 500)
    e.finish()
    assert list(e.accounts.values()) == [USED]


def test_comprehensions__are_refused_where_they_matter_alone(swin):
    text = "\n".join(f"{k} = {v!r}" for k, v in BASE.items())
    assert read(read_config_text(text + "\nimg_ratios = [r / 2 for r in (1, 2)]", "a.py"), swin)[0]
    assert "test_pipeline is computed" in refused(
        read_config_text(text + "\ntest_pipeline = [x for x in (1, 2)]", "a.py"), swin
    )
    text += "\nmodel.update(dict(surprise=[x for x in (1, 2)]))"
    assert "model.surprise is computed" in refused(read_config_text(text, "a.py"), swin)


# --- the classes' names ----------------------------------------------------------------------------------------------

NAMES = [f"kind {i}" for i in range(19)]


@pytest.mark.parametrize("names", [NAMES, tuple(NAMES)])
@pytest.mark.parametrize("key", ["classes", "CLASSES"])
@pytest.mark.parametrize("place", ["dataset_meta", "", "metainfo", "dataset_meta.metainfo"])
def test_classes__wherever_the_checkpoint_names_them(place, key, names):
    meta: Any = {key: names}
    for part in reversed(place.split(".") if place else []):
        meta = {part: meta}
    assert class_names(meta, {}, 19) == tuple(NAMES)
    for wrong in ({key: names[:-1]}, {key: "road"}, {key: [*names[:-1], 5]}, {key: {"a": 1}}):
        with pytest.raises(XenomaskError, match=rf"{key} (names 18 classes|is no list of names)"):
            class_names({place.split(".")[0]: wrong} if place else wrong, {}, 19)


def test_classes__in_a_checkpoint_of_mmsegmentation_0(tmp_path):
    content = dict(read_torch(MICRO))
    torch.save({**content, "meta": {"CLASSES": tuple(NAMES), "PALETTE": [[0, 0, 0]] * 19}}, tmp_path / "a.pth")
    labels: Any = convert_mmseg(tmp_path / "a.pth").network.config.id2label
    assert list(labels.values()) == NAMES


def test_classes__of_the_config_and_of_none():
    for config in (
        {"metainfo": {"classes": NAMES}},
        {"train_dataloader": {"dataset": {"metainfo": {"CLASSES": NAMES}}}},
    ):
        assert class_names({}, config, 19) == tuple(NAMES)
        assert class_names({"dataset_meta": {"classes": NAMES[::-1]}}, config, 19) == tuple(NAMES[::-1])
    assert class_names({"dataset_meta": {"classes": None}}, {}, 3) == ("class 0", "class 1", "class 2")
    assert class_names({"dataset_meta": []}, {}, 19)[:2] == ("road", "sidewalk")
    with pytest.raises(XenomaskError, match="names different classes in dataset_meta.classes and CLASSES"):
        class_names({"dataset_meta": {"classes": NAMES}, "CLASSES": NAMES[::-1]}, {}, 19)
