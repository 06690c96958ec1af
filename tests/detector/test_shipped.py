"""What the shipped detector must hold; its numbers are in its model card, with the commands."""

import json

import numpy as np
import pytest

from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.detector.folder import SHIPPED
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.metrics import count, curve, numbers
from xenomask.predict.photos import score_dataset


@pytest.fixture(scope="module")
def nano() -> Detector:
    return Detector.from_folder("nano")


def test_nano__is_small_and_says_what_it_is(nano):
    assert [m.name for m in nano.members] == ["nano-s", "nano-l"]
    for member in nano.members:
        folder = SHIPPED / "nano" / member.name
        assert (folder / "model.safetensors").stat().st_size <= 20e6
        assert sum(p.numel() for p in member.network.module.parameters()) <= 10e6
        origin = json.loads((folder / "query_analysis/queries.json").read_text())["origin"]
        assert origin["inlier"]["frames"] == 500 and origin["outlier"]["frames"] == 10
    card = (SHIPPED / "nano" / "README.md").read_text()
    assert "non-commercial" in card and "xenomask train" in card


def test_nano__finds_the_stranger_on_a_drawn_road(nano):
    scene = draw_scene(1, (360, 640))
    road = np.where((scene.semantic == 0) | (scene.anomaly == 1), scene.anomaly, 255).astype(np.uint8)
    found = numbers(curve(count(nano.detect(scene.image).value.astype(np.float16), road).dense()))
    assert found["auroc"] > 0.8


@pytest.mark.slow
def test_nano__is_above_the_first_draft_on_real_photos(nano, real_data, tmp_path):
    """The draft: a single 4.3 M parameter network, AUPR .703, FPR95 .363 on AnomalyTrack validation."""
    data = open_dataset("anomaly-track", real_data / "smiyc")
    score_dataset(nano, data, tmp_path)
    found = evaluate_maps(tmp_path, data).numbers["exact"]
    assert found["aupr_sum"] > 0.703
    assert found["fpr95"] < 0.363
