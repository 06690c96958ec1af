"""Diagrams, galleries, agreement and query sheets: what is drawn is what the pixels and masks say."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from helpers.cli import fails, run, write_maps
from helpers.outputs import make_output
from helpers.report_pages import Page
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.masks import soft_masks
from xenomask.metrics import count
from xenomask.metrics.component_list import judge
from xenomask.metrics.components import TAUS, Sizes, binarise, compare, tallies
from xenomask.metrics.curve_bands import bands
from xenomask.metrics.resampling import draw
from xenomask.plots import svg
from xenomask.plots.agreement import shades, votes
from xenomask.plots.curves import Line, Mark, precision_recall, roc
from xenomask.plots.distribution import histogram, reliability_diagram
from xenomask.plots.gallery import SIDE, crop
from xenomask.report.queries import query_page
from xenomask.report.query_sheet import Seen, grouped, look
from xenomask.store import read_map
from xenomask.types import QuerySet

SVG = "{http://www.w3.org/2000/svg}"


def some(n=4, seed=0, size=(40, 50)):
    """Float16 maps with their labels, void too."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        label = rng.choice(np.array([0, 1, 255], np.uint8), size, p=(0.7, 0.2, 0.1))
        frames.append(((rng.random(size) + rng.uniform(0, 1) * (label == 1)).astype(np.float16), label))
    return frames


def test_bands__of_one_resample_are_the_curve_of_its_pixels():
    frames = some()
    weights = np.array([[2.0, 0, 1, 1]])
    found = bands([count(*f) for f in frames], weights, points=11)
    drawn_frames = [frames[i] for i in (0, 0, 2, 3)]
    score, label = (np.concatenate([f[k].ravel() for f in drawn_frames]) for k in (0, 1))
    score, label = score[label != 255].astype(float), label[label != 255]
    precision, recall, _ = precision_recall_curve(label, score)
    fpr, tpr, _ = roc_curve(label, score)
    inner = slice(1, None)  # at recall 0, a curve's precision is a convention
    expected = np.interp(found.at, recall[::-1], precision[::-1])
    assert found.precision[0][inner] == pytest.approx(expected[inner], abs=1e-2)
    assert found.recall[1] == pytest.approx(np.interp(found.at, fpr, tpr), abs=1e-2)


def test_bands__hold_the_pooled_curve_and_vanish_where_all_frames_are_alike():
    frames = [count(*f) for f in some(6)]
    found, whole = bands(frames, draw(6, 200, 0), 21), bands(frames, np.ones((1, 6)), 21)
    assert (found.precision[0][1:] <= whole.precision[0][1:] + 1e-9).all()
    assert (found.recall[1] >= whole.recall[1] - 1e-9).all()
    alike = bands(frames[:1] * 3, draw(3, 20, 0), 21)
    assert np.ptp(alike.precision, axis=0).max() < 1e-12


def test_judge__counts_are_those_of_the_component_metric():
    rng = np.random.default_rng(0)
    at, seen = int(np.argmin(np.abs(TAUS - 0.5))), np.zeros(3)
    for seed in range(40):
        label = np.kron(rng.choice([0, 0, 0, 1], (6, 8)), np.ones((5, 5))).astype(np.uint8)
        label[rng.random(label.shape) < 0.02] = 255
        value = (0.8 * label.clip(0, 1) * rng.random(label.shape) + rng.random(label.shape) / 2).astype(np.float16)
        sizes = Sizes(3, 30)
        found = judge("a", value, label, 0.4, sizes)
        own = tallies(compare(binarise(value, 0.4), label, sizes))
        counts = [sum(j.kind == k for j in found) for k in ("found", "missed", "false")]
        assert counts == [own[at], own[11 + at], own[22 + at]], seed
        seen += counts
        for j in found:
            top, bottom, left, right = j.box
            assert 0 <= top < bottom <= label.shape[0] and 0 <= left < right <= label.shape[1]
            assert j.pixels <= (bottom - top) * (right - left) and j.mean_score <= j.largest_score
            if j.kind != "false":
                assert j.pixels <= (label[top:bottom, left:right] == 1).sum()
    assert seen.min() > 0  # every kind was there


@pytest.mark.parametrize("box", [(0, 3, 0, 3), (38, 40, 47, 50), (0, 40, 0, 50)])
def test_crop__is_square_wherever_the_component_lies(box):
    image, label = np.full((40, 50, 3), 90, np.uint8), np.zeros((40, 50), np.uint8)
    assert crop(image, label, label == 1, box).shape == (SIDE, SIDE, 3)


def test_svg__is_vector_text_with_names_as_they_are_and_the_same_each_time():
    x = np.linspace(0, 1, 20)
    line = Line("_$a_b$<script>", x, 1 - x / 2, x**2, [Mark("best F1", 0.5, 0.75, 0.25)], x, np.array([x / 3, x]))
    text = svg(precision_recall([line], 0.1))
    texts = [(t.text or "").strip() for t in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert "_$a_b$<script>" in texts and "precision" in texts and "<script" not in text and "<image" not in text
    assert text == svg(precision_recall([line], 0.1))


@pytest.mark.parametrize("name", ["W" * 150, "/home/me/experiments/" * 5 + "maps", "地图"])
def test_diagrams__long_and_foreign_names_neither_shrink_nor_warn(name):
    """Two folders of one name are called by their whole paths; warnings are errors here."""
    steps = np.array([[0.5, 1.0], [1.0, 0.5], [0.0, 1.0]])
    line = Line(name, steps[0], steps[1], steps[2])
    column = ([0.1, 0.9], [0.2, 0.8], [5, 5])
    figures = (
        precision_recall([line]), roc([line]), reliability_diagram({name: column}),
        histogram([1.0, 2.0], [1, 0], [0, 1], title=name, marks={}),
    )  # fmt: skip
    for figure in figures:
        assert name[-20:] in svg(figure)
        assert figure.axes[0].get_position().width > 0.8


def test_diagrams__writes_every_diagram(drawn, tmp_path, capsys):  # noqa: F811
    command = ("--dataset", "folder", "--root", drawn, "--resamples", 20, "--out", tmp_path)
    code, _, err = run(capsys, "diagrams", drawn / "good", drawn / "poor", *command)
    assert code == 0, err
    names = {"pr", "roc", "histogram_good", "histogram_poor", "reliability_good", "reliability_poor"}
    assert {p.stem for p in tmp_path.glob("*.svg")} == names
    for path in tmp_path.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"


def test_agreement__counts_what_the_maps_say(drawn, tmp_path, capsys):  # noqa: F811
    maps = [drawn / "good", drawn / "poor"]
    command = ("--dataset", "folder", "--root", drawn, "--out", tmp_path / "a", "--json", tmp_path / "a.json")
    code, _, err = run(capsys, "agreement", *maps, *command)
    assert code == 0, err
    found, data = json.loads((tmp_path / "a.json").read_text()), open_dataset("folder", drawn)
    for frame, row in zip(data.frames, found["frames"], strict=True):
        a, b = (read_map(m / f"{frame.id}.hdf5") >= t for m, t in zip(maps, found["thresholds"], strict=True))
        label = data.label(frame)
        assert row["disputed"] == pytest.approx((a != b)[label != 255].mean())
        assert row["seen_by_all"] == pytest.approx((a & b)[label == 1].mean())
        assert row["seen_by_all"] + row["seen_by_some"] + row["seen_by_none"] == pytest.approx(1)
        assert (tmp_path / "a" / f"{frame.id}.png").stat().st_size > 1000
    assert "two folders" in fails(capsys, "agreement", maps[0], *command)
    assert "3 thresholds" in fails(capsys, "agreement", *maps, *command, *("--threshold", "1") * 3)


def test_agreement__counts_by_thresholds_between_two_float16(tmp_path, capsys):
    """.4778 and .4780 are neighbours in float16; NumPy rounds .4779 to the former."""
    value = np.array([[0.4778, 0.478, 0.1, 0.9]] * 4, np.float16)
    (tmp_path / "labels_masks").mkdir()
    Image.fromarray(np.array([[0, 0, 0, 1]] * 4, np.uint8)).save(tmp_path / "labels_masks/a.png")
    maps = [write_maps(tmp_path / name, a=value) for name in ("one", "two")]
    words = ("--dataset", "folder", "--root", tmp_path, "--out", tmp_path / "o", "--json", tmp_path / "a.json")
    assert run(capsys, "agreement", *maps, *words, "--threshold", 0.4779, "--threshold", 0.5)[0] == 0
    (row,) = json.loads((tmp_path / "a.json").read_text())["frames"]
    assert row["disputed"] == 0.25  # .4780 alone


def test_votes__of_more_masks_than_a_byte_counts():
    assert votes([np.ones((1, 2), bool)] * 257).tolist() == [[257, 257]]


def test_shades__differ_for_every_number_of_members():
    for members in (2, 3, 6):
        found = shades(members).astype(int)
        assert len(found) == members + 1 and len({tuple(c) for c in found.tolist()}) == members + 1


def seen(name, predicted, confidence, sharpness) -> Seen:
    q = len(predicted)
    photo = np.zeros((9, 16, 3), np.uint8)
    masks = np.full((q, 72, 128), 100, np.uint8)
    return Seen(name, photo, 2, np.array(predicted), np.array(confidence), np.array(sharpness), masks)


def test_query_sheet__groups_counts_and_best_images_by_eye():
    photos = [
        seen("a", [0, 2, 1, 2], [0.9, 0.1, 0.5, 0.0], [0.5, 0.6, 0.8, 0.0]),
        seen("b", [0, 2, 0, 2], [0.2, 0.9, 0.6, 0.0], [0.9, 0.9, 0.8, 0.0]),
        seen("c", [1, 2, 0, 2], [0.5, 0.1, 0.9, 0.0], [0.6, 0.7, 0.9, 0.0]),
    ]
    queries = QuerySet("", {0: 1}, {1: 0.31}, (0,))
    groups = {g.name: g.queries for g in grouped(photos, queries, ["road", "<b>sky"])}
    assert [[q.number for q in groups[k]] for k in ("outlier", "specialised", "others", "unused")] == [
        [1],
        [0],
        [2],
        [3],
    ]
    outlier, special = groups["outlier"][0], groups["specialised"][0]
    assert outlier.marks == ["outlier query, mean IoU with anomalies 0.310"] and outlier.classes == []
    assert [c.text[0] for c in outlier.images] == ["b", "c", "a"]  # by the mask alone
    assert special.marks == ["specialised on <b>sky (ground)"] and special.classes == [("road", 2), ("<b>sky", 1)]
    assert [c.text[0] for c in special.images] == ["a", "c", "b"]  # .45, .30, .18
    assert groups["unused"][0].images == []
    page = Page(query_page("t", ["l"], grouped(photos, queries, ["road", "<b>sky"])).decode())
    assert not page.of("b") and len(page.of("article")) == 4
    assert page.of("svg")[1][1]["aria-label"] == "Classes of query 0 in 3 photos: road 2, <b>sky 1, no object 0"


def test_look__keeps_the_mean_of_the_mask_where_it_is_sure():
    output = make_output(q=3, image=(72, 128))
    found = look("a", np.zeros((72, 128, 3), np.uint8), output)
    for q, mask in enumerate(soft_masks(output).numpy()):
        assert found.sharpness[q] == pytest.approx(mask[mask > 0.5].mean() if (mask > 0.5).any() else 0, abs=1e-5)
    assert found.classes == 4 and found.predicted.tolist() == output.class_logits.argmax(1).tolist()


def test_queries_sheet__the_command(tiny_checkpoint, tmp_path, capsys):
    torch.manual_seed(0)
    root = write_scenes(tmp_path / "s", "folder", 3, size=(64, 96))
    command = ("queries", "sheet", "--checkpoint", tiny_checkpoint, "--dataset", "folder", "--root", root)
    code, said, err = run(capsys, *command, "--photos", 2, "--out", tmp_path / "q.html", "--device", "cpu")
    assert code == 0 and "2 photos" in said, err
    page = Page((tmp_path / "q.html").read_text("utf-8"))
    assert page.of("h1")[0][2] == f"Queries of {tiny_checkpoint.name}" and page.of("article") and not page.open
    assert all(e[1]["src"].startswith("data:image/") and e[1]["alt"] for e in page.of("img"))
