"""SegFormer and UPerNet: networks that classify pixels, have no queries, and offer the scores on classes alone."""

import json
import shutil
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import (
    ConvNextConfig,
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from helpers import naive
from helpers.cli import fails, run
from xenomask import load_model
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.detector.folder import assemble, describe_folder
from xenomask.errors import XenomaskError
from xenomask.evaluation.crossval import crossval
from xenomask.masks import PixelOutput
from xenomask.models import load
from xenomask.predict.cache import read_output, write_output
from xenomask.queries import analyse_inlier, analyse_outlier
from xenomask.scores import score_of
from xenomask.types import QuerySet

IMAGE = draw_scene(0, (60, 92)).image
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SMALL: dict[str, Any] = dict(
    depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
    num_labels=19,
)  # fmt: skip
STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
BACKBONES = {
    "convnext": ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], **STAGES),
    "swin": SwinConfig(image_size=32, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, **STAGES),
}


def randomise(module):
    """Every parameter and statistic random, so that no tensor that is left out goes unseen."""
    g = torch.Generator().manual_seed(0)
    for k, v in module.state_dict().items():
        if v.is_floating_point():
            v += 0.2 * torch.randn(v.shape, generator=g)
        if "running_var" in k:
            v.abs_().add_(0.1)
    return module.eval()


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """A folder as the Hub has it: weights, config and the image processor's settings."""
    module = randomise(SegformerForSemanticSegmentation(SegformerConfig(**SMALL)))
    folder = tmp_path_factory.mktemp("hf") / "segformer"
    module.save_pretrained(folder)
    settings = {"image_mean": MEAN.tolist(), "image_std": STD.tolist(), "size": 512, "do_reduce_labels": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder, module


@pytest.fixture(scope="module")
def detector(segformer, tmp_path_factory):
    return assemble(tmp_path_factory.mktemp("d") / "seg", "seg", [("s", segformer[0])], [1.0], "msp")


def upernet(kind):
    sizes: dict[str, Any] = dict(hidden_size=16, auxiliary_channels=8, num_labels=5)
    return randomise(UperNetForSemanticSegmentation(UperNetConfig(backbone_config=BACKBONES[kind], **sizes)))


def normalised(image):
    return torch.tensor((image / 255 - MEAN) / STD, dtype=torch.float32).permute(2, 0, 1)[None]


def test_segformer__map_equals_transformers_and_interpolate(segformer):
    folder, module = segformer
    network = load_model(folder)
    with torch.inference_mode():
        logits = module(pixel_values=normalised(IMAGE)).logits
    assert logits.shape == (1, 19, 15, 23)
    output = network.predict(IMAGE, size_policy="native")
    assert isinstance(output, PixelOutput)
    assert (output.padded_size, output.input_size, output.image_size) == ((60, 92), (60, 92), (60, 92))
    assert torch.allclose(output.class_map_logits, logits[0], atol=1e-4)
    whole = F.interpolate(logits, (60, 92), mode="bilinear", align_corners=False)[0]
    for name, expected in (
        ("msp", 1 - whole.softmax(0).amax(0)),
        ("max_logit", -whole.amax(0)),
        ("entropy_softmax", torch.distributions.Categorical(logits=whole.permute(1, 2, 0)).entropy() / np.log(19)),
        ("energy", -whole.exp().sum(0).log()),
    ):
        assert np.abs(score_of(output, None, name).value - expected.numpy()).max() < 1e-4, name
        assert expected.std() > 1e-3


def test_segformer__a_photo_resized_as_stored_equals_the_loops(segformer):
    folder, module = segformer
    network = load(folder)
    assert (network.preprocess.policy, network.preprocess.size, network.preprocess.divisor) == ("fixed", 512, 1)
    network = replace(
        network, preprocess=replace(network.preprocess, policy="shortest", size=64, longest=128, resample="opencv")
    )
    small = draw_scene(0, (16, 25)).image
    with torch.inference_mode():
        seen = cv2.resize(small, (100, 64), interpolation=cv2.INTER_LINEAR)
        logits = module(pixel_values=normalised(seen)).logits[0].double().numpy()
    assert logits.shape == (19, 16, 25)
    expected = naive.logit_scores(naive.resized(logits, (64, 100), (64, 100), (16, 25)))
    output = network.predict(small)
    for name, value in expected.items():
        assert np.abs(score_of(output, None, name).value - value).max() < 1e-4, name


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_upernet__equals_transformers_without_its_training_head(kind, tmp_path):
    module = upernet(kind)
    module.save_pretrained(tmp_path)
    assert any(k.startswith("auxiliary_head.") for k in load_file(tmp_path / "model.safetensors"))
    network = load(tmp_path)
    assert not any(k.startswith("auxiliary_head.") for k in network.module.state_dict())
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = module(pixel_values=x).logits
    assert expected.shape == (2, 5, 64, 96)
    assert torch.allclose(network.class_maps(x), expected, atol=1e-4)
    tensors = {k: v for k, v in load_file(tmp_path / "model.safetensors").items() if "auxiliary" not in k}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.allclose(load(tmp_path).class_maps(x), expected, atol=1e-4)


def test_network__a_batch_has_no_queries_logits(segformer, tiny_checkpoint):
    network, x = load(segformer[0]), torch.zeros(1, 3, 64, 64)
    with pytest.raises(XenomaskError, match=r"a segformer has no queries.* `class_maps\(batch\)`"):
        network(x)
    assert network.class_maps(x).shape == (1, 19, 16, 16)
    with pytest.raises(XenomaskError, match="a mask2former is a mask transformer"):
        load(tiny_checkpoint).class_maps(x)
    with pytest.raises(XenomaskError, match="use its own folder as it is"):
        network.save(segformer[0].parent / "again")


def test_load__refuses_damage_and_other_heads(segformer, tmp_path):
    own = shutil.copytree(segformer[0], tmp_path / "s")
    tensors = load_file(own / "model.safetensors")
    bias = tensors.pop("decode_head.classifier.bias")
    save_file(tensors, own / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(XenomaskError, match=r"lacks 1 tensors \(decode_head.classifier.bias\)"):
        load(own)
    save_file(
        {**tensors, "decode_head.classifier.bias": bias[:3]}, own / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(XenomaskError, match="has other shapes for 1 tensors"):
        load(own)
    (own / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(XenomaskError, match="is damaged or no safetensors file"):
        load(own)
    SegformerForImageClassification(SegformerConfig(**SMALL)).save_pretrained(tmp_path / "classifier")
    with pytest.raises(XenomaskError, match="lacks .* tensors .*decode_head"):
        load(tmp_path / "classifier")


def test_outputs__of_a_per_pixel_network_round_trip(segformer, tmp_path):
    output = load(segformer[0]).predict(IMAGE, size_policy="native")
    write_output(tmp_path / "o.safetensors", output)
    again = read_output(tmp_path / "o.safetensors")
    assert isinstance(again, PixelOutput) and isinstance(output, PixelOutput)
    assert torch.equal(again.class_map_logits, output.class_map_logits)
    assert (again.padded_size, again.input_size, again.image_size) == ((60, 92),) * 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = write_scenes(tmp_path_factory.mktemp("at"), "anomaly-track", 2, size=(64, 96))
    return open_dataset("anomaly-track", root)


def native(folder):
    """The detector of that folder, looking at photos in their own size, for speed."""
    detector = Detector.from_folder(folder)
    own = [replace(m, network=replace(m.network, preprocess=replace(m.network.preprocess, policy="none")))
           for m in detector.members]  # fmt: skip
    return replace(detector, members=tuple(own))


def test_queries__of_a_per_pixel_network_are_refused(segformer, scenes):
    def look(image):
        return load(segformer[0]).predict(image, size_policy="native")

    for analyse in (analyse_inlier, analyse_outlier):
        with pytest.raises(XenomaskError, match="has no queries: it classifies pixels"):
            analyse(look, scenes, QuerySet())


def test_detector__with_a_score_that_its_network_does_not_offer(segformer, detector, tmp_path):
    with pytest.raises(XenomaskError, match="score maskomaly is not defined for a per-pixel network"):
        assemble(tmp_path / "d", "d", [("s", segformer[0])], [1.0], "maskomaly")
    assert not (tmp_path / "d").exists()
    seg = Detector.from_folder(detector)
    assert seg.scale == (0.0, 18 / 19) and seg.with_score("max_logit").scale == (-15.0, 0.0)
    with pytest.raises(XenomaskError, match="score rba is not defined .* choose one of msp, max_logit"):
        seg.with_score("rba")
    own = shutil.copytree(detector, tmp_path / "own")
    (own / "detector.json").write_text((detector / "detector.json").read_text().replace("msp", "eam"))
    with pytest.raises(XenomaskError, match="score eam is not defined"):
        Detector.from_folder(own)
    with pytest.raises(XenomaskError, match="score eam is not defined"):
        describe_folder(own)
    assert describe_folder(detector) == seg.describe()


def test_detector__joins_a_mask_transformer_and_a_per_pixel_network(segformer, tiny_checkpoint, scenes, tmp_path):
    pairs = [("m", tiny_checkpoint), ("s", segformer[0])]
    folder = assemble(tmp_path / "d", "d", pairs, [0.25, 0.75], {"m": "maskomaly", "s": "energy"})
    both = native(folder)
    parts = [both.only(n).detect(IMAGE) for n in ("m", "s")]
    found = both.detect(IMAGE)
    assert found.score == "maskomaly+energy" and [p.score for p in parts] == ["maskomaly", "energy"]
    assert np.allclose(found.value, 0.25 * parts[0].value + 0.75 * parts[1].value, atol=1e-5)
    assert both.scale == (0.75 * -15.0, 0.25)
    assert describe_folder(folder) == Detector.from_folder(folder).describe() != both.describe()


def test_crossval__chooses_queries_of_the_members_that_have_some(
    segformer, tiny_checkpoint, detector, scenes, tmp_path
):
    pairs = [("m", tiny_checkpoint), ("s", segformer[0])]
    folder = assemble(tmp_path / "d", "d", pairs, [0.5, 0.5], {"m": "maskomaly", "s": "msp"})
    found = crossval(native(folder), scenes, step=0.5, iou=-1.0)
    assert found.choice.queries == (tuple(range(8)), ())
    alone = native(detector)
    with pytest.raises(XenomaskError, match="seg has no queries to choose.*--choose weights"):
        crossval(alone, scenes)
    assert crossval(alone, scenes, what=["weights"]).choice.queries == ((),)


def test_cli__per_pixel_networks(segformer, tiny_checkpoint, detector, scenes, tmp_path, capsys):
    data = "--dataset", "anomaly-track", "--root", scenes.root
    assert "has no queries" in fails(capsys, "queries", "outlier", "--checkpoint", segformer[0], *data)
    make = "assemble", "--member", f"m={tiny_checkpoint}", "--member", f"s={segformer[0]}"
    assert "score maskomaly is not defined" in fails(capsys, *make, "--out", tmp_path / "x")
    text = fails(capsys, *make, "--out", tmp_path / "x", "--score", "t=msp")
    assert "unknown member 't'" in text
    text = fails(capsys, *make, "--out", tmp_path / "x", "--score", "msp", "--score", "energy")
    assert "one for all, and NAME=SCORE once a member" in text
    assert run(capsys, *make, "--out", tmp_path / "x", "--score", "s=msp")[0] == 0
    assert [m["score"] for m in json.loads((tmp_path / "x/detector.json").read_text())["members"]] == [
        "maskomaly", "msp",
    ]  # fmt: skip
    bench = "benchmark", "--detector", detector, *data, "--resamples", 0
    code, out, err = run(capsys, *bench, "--scores", "msp,rba", "--out", tmp_path / "b")
    assert code == 0 and "left out: rba, a member is a per-pixel network" in err and "msp" in out
    assert "no score is left" in fails_last(capsys, *bench, "--scores", "rba", "--out", tmp_path / "c")


def fails_last(capsys, *arguments) -> str:
    """The last line of what must fail, after remarks."""
    code, _, err = run(capsys, *arguments)
    assert code == 2
    return err.splitlines()[-1]
