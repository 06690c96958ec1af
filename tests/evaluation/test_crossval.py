import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from helpers.outputs import from_probabilities
from xenomask.datasets import open_dataset
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.evaluation.crossval import crossval, make_folds, weight_grid
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.files import sha256
from xenomask.masks import with_queries
from xenomask.metrics import count, curve, numbers, pool
from xenomask.models.network import Network
from xenomask.predict.cache import ENDING, cache_outputs, read_output, write_output
from xenomask.predict.photos import score_dataset
from xenomask.queries import analyse_outlier
from xenomask.store.manifest import MANIFEST
from xenomask.types import QuerySet


@pytest.fixture
def scenes(tmp_path):
    """Three 8x8 photos; frame i has its anomaly in row i."""
    for folder in ("images", "labels_masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i in range(3):
        label = np.zeros((8, 8), np.uint8)
        label[i] = 1
        Image.fromarray(label).save(tmp_path / "data" / "labels_masks" / f"street_{i}.png")
        photo = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / "data" / "images" / f"street_{i}.png")
    return open_dataset("folder", tmp_path / "data")


def fill(cache: Path, detector: Detector, data, outputs):
    """Puts made-up outputs where `cache_outputs` would put the networks' own."""
    for member in detector.members:
        n = member.network
        network = {"sha256": n.sha256, "settings": n.settings, "preprocess": asdict(n.preprocess)}
        made_by = {**network, "dataset": data.name, "resize": None}
        (cache / member.name).mkdir(parents=True)
        (cache / member.name / MANIFEST).write_text(json.dumps(made_by))
        for frame in data.frames:
            write_output(
                cache / member.name / f"{frame.id}{ENDING}", outputs[member.name][frame.id], sha256(frame.image)
            )


def lonely_queries(rows: bool):
    """Outputs in which query i covers row i, whatever the frame, if `rows`; else nothing is seen anywhere.

    Query 3 is sure of a class and covers everything, so that the rejection branch is the same everywhere.
    """
    p = np.full((4, 5), 0.0125)
    p[:, 4] = 0.95  # no object
    p[3] = [0.96, 0.01, 0.01, 0.01, 0.01]
    m = np.full((4, 8, 8), 0.01)
    m[3] = 0.5
    return {
        f"street_{i}": from_probabilities(p, np.where(np.arange(8)[:, None] == i, _one(i, m), m) if rows else m)
        for i in range(3)
    }


def _one(i, m):
    own = m.copy()
    own[i] = 0.99
    return own


def test_crossval__a_query_that_only_its_own_frame_would_choose(tiny_detector, scenes, tmp_path):
    """Query i fires on frame i alone: mean IoU 1/3 over all three (chosen), 0 over the other two (not chosen)."""
    detector = Detector.from_folder(tiny_detector).with_score("maskomaly_no_border")
    outputs = {m.name: lonely_queries(rows=m.name == "a") for m in detector.members}
    fill(tmp_path / "cache", detector, scenes, outputs)
    found = crossval(detector, scenes, tmp_path / "cache", what=["queries"])
    assert found.choice.queries == ((0, 1, 2), ())
    assert [f.choice.queries[0] for f in found.folds] == [(1, 2), (0, 2), (0, 1)]
    assert found.in_sample["aupr_sum"] == 1 and found.held_out["aupr_sum"] < 0.2
    assert found.optimism["aupr_sum"] == found.in_sample["aupr_sum"] - found.held_out["aupr_sum"]
    # the blind member b costs nothing but is never better: all weight goes to a, or anywhere that ranks the same
    weighted = crossval(detector, scenes, tmp_path / "cache", what=["queries", "weights"], step=0.5)
    assert weighted.in_sample["aupr_sum"] == 1 and weighted.choice.weights != (0.0, 1.0)


def test_crossval__a_frame_without_an_anomaly_has_no_iou(tiny_detector, scenes, tmp_path):
    """Query 0 covers half of the anomaly of frames 0 and 2: mean IoU 1/2; counted as 0 in frame 1 it were 1/3."""
    for i in range(3):
        label = np.zeros((8, 8), np.uint8)
        label[:, 0] = i != 1
        Image.fromarray(label).save(scenes.root / "labels_masks" / f"street_{i}.png")
    p, m = np.full((4, 5), 0.0125), np.full((4, 8, 8), 0.01)
    p[:, 4], p[3] = 0.95, [0.96, 0.01, 0.01, 0.01, 0.01]
    m[0, :4, 0], m[3] = 0.99, 0.5
    detector = Detector.from_folder(tiny_detector).with_score("maskomaly_no_border")
    outputs = {f.id: from_probabilities(p, m) for f in scenes.frames}
    fill(tmp_path / "cache", detector, scenes, {k.name: outputs for k in detector.members})
    found = crossval(detector, scenes, tmp_path / "cache", what=["queries"], iou=0.4)
    assert found.choice.queries == ((0,), (0,)) == found.folds[1].choice.queries
    looked = iter([outputs[f.id] for f in scenes.frames])
    assert analyse_outlier(lambda _: next(looked), scenes, QuerySet(), iou=0.4).outlier == {0: 0.5}


def test_crossval__a_networks_name_leads_out_of_no_cache(tiny_detector, scenes, tmp_path):
    """A file of `export --queries` from elsewhere names its network itself."""
    detector = Detector.from_folder(tiny_detector)
    members = (replace(detector.members[0], name="../elsewhere"), detector.members[1])
    with pytest.raises(XenomaskError, match="no name that a folder can have"):
        crossval(replace(detector, members=members), scenes, tmp_path / "cache", what=["weights"])
    assert not (tmp_path / "elsewhere").exists()


def test_crossval__nothing_chosen_is_the_detector_itself(tiny_detector, scenes, tmp_path):
    detector = Detector.from_folder(tiny_detector)
    score_dataset(detector, scenes, tmp_path / "maps")
    expected = evaluate_maps(tmp_path / "maps", scenes, resamples=0).numbers["exact"]
    found = crossval(detector, scenes, what=[])
    assert {k: found.in_sample[k] for k in expected} == {k: found.held_out[k] for k in expected} == expected
    assert found.choice.weights == (0.25, 0.75) and found.choice.mix is None


@pytest.mark.slow
def test_crossval__lambda_and_weights_equal_a_plain_search(tiny_detector, scenes, tmp_path):
    detector = Detector.from_folder(tiny_detector).with_score("maskomaly_no_border")
    found = crossval(detector, scenes, what=["weights", "lambda"], step=0.5, mixes=(0.0, 0.3, 1.0))
    assert len(found.folds) == 3
    from xenomask.scores import get_score, score_all

    def aupr(weights, mix, frames):
        counted = []
        for f in frames:
            sample = scenes.sample(f)
            score = get_score("maskomaly_no_border", {"mix": mix})
            maps = [
                score_all(m.network.predict(sample.image), m.queries, [score])[score.name].value
                for m in detector.members
            ]
            joined = sum(np.float32(w) * v for w, v in zip(weights, maps, strict=True))
            counted.append(count(np.asarray(joined).astype(np.float16), scenes.label(f)))
        return numbers(curve(pool(counted)))["aupr_sum"]

    grid = [(w, mix) for w in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)) for mix in (0.0, 0.3, 1.0)]
    assert found.in_sample["aupr_sum"] == pytest.approx(max(aupr(w, x, scenes.frames) for w, x in grid), abs=1e-6)
    for fold in found.folds:
        rest = [f for f in scenes.frames if f.id not in fold.frames]
        best = max(aupr(w, x, rest) for w, x in grid)
        assert aupr(fold.choice.weights, fold.choice.mix, rest) == pytest.approx(best, abs=1e-6)


def test_cache_outputs__the_network_never_looks_twice(tiny_detector, scenes, tmp_path, monkeypatch):
    looks = []
    look = Network.predict
    monkeypatch.setattr(Network, "predict", lambda self, image: looks.append(1) or look(self, image))
    detector = Detector.from_folder(tiny_detector)
    first = crossval(detector, scenes, tmp_path / "cache", what=["queries", "weights"])
    assert len(looks) == 2 * 3
    assert crossval(detector, scenes, tmp_path / "cache", what=["queries", "weights"]) == first
    assert len(looks) == 2 * 3
    with pytest.raises(XenomaskError, match="another network or data set"):
        cache_outputs(Detector.from_folder(tiny_detector).only("a"), _renamed(scenes), tmp_path / "cache")


def _renamed(data):
    from dataclasses import replace

    return replace(data, name="elsewhere")


def test_outputs__round_trip_and_damage(tmp_path):
    output = from_probabilities(np.full((2, 3), 1 / 3), np.full((2, 4, 5), 0.25))
    write_output(tmp_path / "o.safetensors", output)
    again = with_queries(read_output(tmp_path / "o.safetensors"))
    assert torch.equal(again.mask_logits, output.mask_logits) and again.image_size == output.image_size
    (tmp_path / "o.safetensors").write_bytes((tmp_path / "o.safetensors").read_bytes()[:40])
    with pytest.raises(XenomaskError, match="is damaged"):
        read_output(tmp_path / "o.safetensors")
    said = {"padded_size": "[32,32]", "input_size": "[32,32]", "image_size": "[0,9]"}
    tensors = {k: getattr(output, k) for k in ("class_logits", "mask_logits")}
    (tmp_path / "o.safetensors").write_bytes(save(tensors, metadata=said))
    with pytest.raises(XenomaskError, match="o.safetensors is damaged: .* sizes that cannot be"):
        read_output(tmp_path / "o.safetensors")


def test_folds__partition_the_frames():
    ids = [f"{s}_{i:06d}_{i:06d}" for s in ("01_A", "02_B", "03_C") for i in range(4)]
    for folds, by_scene, n in ((None, False, 12), (5, False, 5), (None, True, 3), (2, True, 2), (40, False, 12)):
        parts = make_folds(ids, folds, by_scene, seed=0)
        assert len(parts) == n and sorted(i for p in parts for i in p) == sorted(ids)
        if by_scene:
            assert all(sum(i.startswith(s) for i in p) in (0, 4) for p in parts for s in ("01_A", "02_B", "03_C"))
    with pytest.raises(XenomaskError, match="only 1 group"):
        make_folds(["validation_1", "validation_2"], None, True, 0)


def test_weight_grid__sums_to_one_and_refuses_odd_steps():
    assert len(weight_grid(3, 0.25)) == 15
    assert all(sum(w) == pytest.approx(1) for w in weight_grid(3, 0.1))
    with pytest.raises(XenomaskError, match="does not divide 1"):
        weight_grid(2, 0.3)
