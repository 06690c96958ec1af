import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import naive
from helpers.cli import run
from helpers.outputs import make_output
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.masks import soft_masks
from xenomask.models import load
from xenomask.queries import (
    analyse_inlier,
    analyse_outlier,
    read_queries,
    without_frame,
    write_inlier_csv,
    write_outlier_csv,
    write_queries,
)
from xenomask.queries.inlier import InlierCounts, count_predictions, merge, specialised
from xenomask.queries.outlier import anomaly_iou, choose, mean_iou
from xenomask.types import CITYSCAPES_CLASSES, QuerySet


def test_count_predictions__by_eye():
    # query 0: class 0 surely; query 1: class 1 unsurely; query 2: no object
    p = torch.tensor([[0.95, 0.03, 0.02], [0.1, 0.6, 0.3], [0.02, 0.03, 0.95]])
    counts = merge(count_predictions(p, 0.9), count_predictions(p, 0.9))
    assert counts.times_predicted.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert counts.high_conf.tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 2]]
    assert specialised(counts, 0.9) == {0: 0}


def test_specialised__needs_the_ratio_of_one_class_and_enough_predictions():
    times = np.array([[10, 0, 90], [9, 1, 0], [5, 5, 0], [1, 0, 0]])
    high = np.array([[9, 0, 90], [9, 0, 0], [5, 5, 0], [1, 0, 0]])
    counts = InlierCounts(times, high)
    assert specialised(counts, 0.9) == {0: 0, 1: 0, 3: 0}  # query 2 is sure of two classes, half the time each
    assert specialised(counts, 0.9, min_predictions=2) == {0: 0, 1: 0}
    assert specialised(counts, 0.95) == {3: 0}
    # exactly the ratio, which is .55 * 100 = 55.00000000000001; and never without one confident prediction
    counts = InlierCounts(np.array([[45, 55, 0], [0, 3, 0]]), np.array([[0, 55, 0], [0, 0, 0]]))
    assert specialised(counts, 0.55) == {0: 1} and specialised(counts, 0) == {0: 1}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_anomaly_iou__equals_the_loops_with_void_on_neither_side(threshold):
    output = make_output(q=4)
    label = np.random.default_rng(0).choice([0, 1, 255], output.image_size).astype(np.uint8)
    expected = [naive.iou_without_void(m > threshold, label) for m in soft_masks(output).numpy()]
    assert anomaly_iou(output, label, threshold) == pytest.approx(expected, abs=1e-12)


def test_anomaly_iou__a_mask_full_of_void_is_not_punished():
    output = make_output(q=1, h=1, w=4, padded=(1, 4), used=(1, 4), image=(1, 4))
    output.mask_logits[:] = 50.0
    assert anomaly_iou(output, np.array([[1, 255, 255, 255]], np.uint8), 0.5).tolist() == [1.0]


def test_choose__above_the_threshold_or_the_best():
    mean = mean_iou({"a": np.array([0.2, 0.6, 0.1]), "b": np.array([0.3, 0.4, 0.1])})
    assert choose(mean, 0.25) == {1: 0.5}
    assert list(choose(mean, 0.25, top_k=2)) == [1, 0]


def test_without_frame__chooses_on_the_others():
    per_frame = {"a": [0.9, 0.0], "b": [0.0, 0.3], "c": [0.0, 0.3]}
    origin = {"outlier": {"per_frame_iou": per_frame, "iou": 0.25, "top_k": None}}
    queries = QuerySet(outlier={0: 0.3}, origin=origin)
    assert without_frame(queries, "a").outlier == {1: 0.3}
    assert list(without_frame(queries, "b").outlier) == [0]
    assert list(without_frame(queries, "unknown").outlier) == [0]
    with pytest.raises(XenomaskError, match="run `xenomask queries outlier`"):
        without_frame(QuerySet(), "a")


def test_analyses__write_the_files_beside_the_checkpoint_and_read_them_back(tiny_checkpoint, tmp_path):
    network = load(load(tiny_checkpoint).save(tmp_path / "c"))
    data = open_dataset("anomaly-track", write_scenes(tmp_path / "d", "anomaly-track", 2, size=(64, 96)))
    first = read_queries(tmp_path / "c", network.sha256)
    assert first == QuerySet(network.sha256)
    inlier, counts = analyse_inlier(network.predict, data, first, confidence=0.0, ratio=0.5)
    both = analyse_outlier(network.predict, data, inlier, top_k=2, mask_threshold=0.5)
    path = write_queries(tmp_path / "c", both)
    write_inlier_csv(path.parent, counts, both.inlier, CITYSCAPES_CLASSES)
    write_outlier_csv(path.parent, both)
    again = read_queries(tmp_path / "c", network.sha256)
    assert (again.inlier, again.ground, again.origin) == (both.inlier, both.ground, both.origin)
    assert list(again.outlier) == list(both.outlier) and len(both.outlier) == 2
    assert counts.times_predicted.sum() == 2 * 8
    stored = json.loads(path.read_text())["origin"]
    assert stored["inlier"]["confidence"] == 0.0 and stored["inlier"]["frames"] == 2
    assert list(stored["outlier"]["per_frame_iou"]) == ["validation0000", "validation0001"]
    with (path.parent / "times_predicted_stats.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 8 and list(rows[0]) == ["query", *CITYSCAPES_CLASSES, "no object"]
    assert {p.name for p in path.parent.iterdir()} == {
        "queries.json", "times_predicted_stats.csv", "high_conf_stats.csv", "specialized.csv", "outlier_iou.csv",
    }  # fmt: skip


def test_inlier__needs_no_label_so_those_of_other_classes_do_not_matter(tiny_checkpoint, tmp_path, capsys):
    root = write_scenes(tmp_path / "d", "train-ids", 1, size=(64, 96))
    for path in (root / "labels").iterdir():
        Image.fromarray(np.full((64, 96), 77, np.uint8)).save(path)
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "c"))
    code, out, err = run(
        capsys, "queries", "inlier", "--checkpoint", checkpoint, "--dataset", "folder", "--root", root
    )  # fmt: skip
    assert code == 0 and "specialised queries on 1 frames" in out, err


def test_read_queries__of_another_checkpoint_or_damaged(tmp_path):
    write_queries(tmp_path, QuerySet("a" * 64))
    with pytest.raises(XenomaskError, match="belongs to another checkpoint .*aaaaaaaaaaaa.* these weights are bbbb"):
        read_queries(tmp_path, "b" * 64)
    (tmp_path / "query_analysis/queries.json").write_text('{"inlier": []}')
    with pytest.raises(XenomaskError, match="damaged"):
        read_queries(tmp_path, "b" * 64)


@pytest.mark.parametrize("top_k", ["2", -1, 2.0, True])
def test_read_queries__top_k_is_a_whole_number(tmp_path, top_k):
    origin = {"iou": 0.25, "top_k": top_k, "per_frame_iou": {"a": [0.5, 0.1], "b": [0.3, 0.2]}}
    write_queries(tmp_path, QuerySet("a" * 64, origin={"outlier": origin}))
    with pytest.raises(XenomaskError, match="damaged"):
        read_queries(tmp_path, "a" * 64)


def test_read_queries__a_hash_of_two_lines_or_half_a_character_is_told_in_one_line(tmp_path):
    for sha in ("a\nb", "a\ud800b"):
        write_queries(tmp_path, QuerySet(sha))
        with pytest.raises(XenomaskError, match="belongs to another checkpoint .sha256 a\ufffdb"):
            read_queries(tmp_path, "b" * 64)


def test_analyse_outlier__without_any_anomaly(tiny_checkpoint, tmp_path):
    write_scenes(tmp_path, "train-ids", 1, size=(64, 96))
    data = open_dataset("folder", tmp_path, coding="train_ids")
    path = data.frames[0].label
    assert path is not None
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(path)
    with pytest.raises(XenomaskError, match="no frame of folder has an anomaly"):
        analyse_outlier(load(tiny_checkpoint).predict, open_dataset("folder", tmp_path), QuerySet())
