"""What of the official numbers depends on the order of frames: computed by hand, order by order."""

import itertools
import json

import numpy as np
import pytest

from helpers.cli import run
from xenomask.evaluation.evaluate import rounding_note
from xenomask.metrics import evaluate
from xenomask.metrics.components import TRACKS, Sizes
from xenomask.store import write_map
from xenomask.types import ScoreMap


def saturated(right: int, wrong: int, missed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frame of 2 x 100: so many anomalous and inlier pixels at the largest score 1, the rest at 0."""
    value, label = np.zeros((2, 100), np.float16), np.zeros((2, 100), np.uint8)
    value[0, : right + wrong] = 1
    label[0, :right] = 1
    label[1, 50 : 50 + missed] = 1
    return value, label


def by_hand(frames: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, float]]:
    """(FPR95, best F1) of each order: the first frame's share of score 1, then all pixels at 1, then all."""
    P = sum(int((y == 1).sum()) for _, y in frames)
    N = sum(int((y == 0).sum()) for _, y in frames)
    shares = [(int(((s == 1) & (y == 1)).sum()), int(((s == 1) & (y == 0)).sum())) for s, y in frames]
    found = []
    for order in itertools.permutations(shares):
        points = [order[0], (sum(t for t, _ in shares), sum(f for _, f in shares)), (P, N)]
        fpr95 = next(f / N for t, f in points if t / P >= 0.95)
        found.append((fpr95, max(2 * t / (t + f + P) for t, f in points)))
    return found


# one frame has all anomalies and is right, the other is wrong: alone, the former's share is perfect
FRAMES = {"a": saturated(40, 0), "b": saturated(0, 90)}


def test_order_range__fpr95_and_best_f1_depend_on_the_order_as_counted_by_hand():
    result = evaluate(list(FRAMES), lambda i: FRAMES[i], resamples=0)
    fpr95, f1 = zip(*by_hand(list(FRAMES.values())), strict=True)
    assert min(fpr95) == 0 and max(fpr95) == 90 / 360 and max(f1) == 1  # 0 .. .25, from one set of maps
    assert result.order_range["fpr95"] == pytest.approx((min(fpr95), max(fpr95)), abs=1e-12)
    assert result.order_range["best_f1"] == pytest.approx((min(f1), max(f1)), abs=1e-12)
    # without that point: all at 1, whatever the order
    assert result.numbers["official"]["fpr95"] == 90 / 360
    assert result.numbers["official"]["best_f1"] == pytest.approx(2 * 40 / (40 + 90 + 40))


def test_order_range__is_of_no_width_where_no_order_matters():
    rng = np.random.default_rng(0)
    frames = {}
    for n, i in enumerate("abc"):
        value = (np.arange(400).reshape(20, 20) * 3 + n).astype(np.float16)  # the largest score is one frame's
        frames[i] = value, (rng.random((20, 20)) < 0.3).astype(np.uint8)
    result = evaluate(list(frames), lambda i: frames[i], "obstacle", resamples=0)
    assert all(low == high for low, high in result.order_range.values())
    pixel = {"aupr_sum", "aupr_trapz", "auroc", "fpr95", "tpr_fpr5", "best_f1", "best_f1_threshold"}
    assert set(result.order_range) == pixel


def test_order_range__the_components_follow_the_threshold(monkeypatch):
    """Frame a is perfect at score 1, but half of all anomalies score .5: the best threshold is 1's or .5's by order."""

    monkeypatch.setitem(TRACKS, "obstacle", Sizes(1, 1))
    a, b = np.zeros((2, 20, 20), np.float16)
    ya, yb = np.zeros((2, 20, 20), np.uint8)
    a[2:6, 2:12], ya[2:6, 2:12] = 1, 1  # 40 right at 1
    b[0:5, 0:12] = 1  # 60 wrong at 1
    b[10:12, 0:10], yb[10:12, 0:10] = 0.5, 1  # 20 right at .5
    frames = {"a": (a, ya), "b": (b, yb)}
    result = evaluate(list(frames), lambda i: frames[i], "obstacle", resamples=0)
    # a first: 2 * 40 / (40 + 60) = .8 at score 1; b first: 0 there, and 2 * 60 / (120 + 60) = .67 at .5 is the best
    assert result.order_range["best_f1"] == pytest.approx((2 / 3, 0.8))
    assert result.order_range["best_f1_threshold"] == (0.5, 1.0)
    # score > 1 is nowhere; score > .5 is a's object, found, and b's wrong one, while b's object is missed
    ours = {k: result.numbers["components"][k] for k in ("tp_50", "fp_50", "fn_50")}
    assert ours == {"tp_50": 1, "fp_50": 1, "fn_50": 1}
    found = {k: result.order_range[k] for k in ours}
    assert found == {"tp_50": (0, 1), "fp_50": (0, 1), "fn_50": (1, 2)}
    assert result.order_range["f1_50"] == (0, 0.5)


def test_evaluate__prints_the_range_of_what_moves(tmp_path, capsys):
    from PIL import Image

    for i, (value, label) in FRAMES.items():
        for folder in ("maps", "labels_masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        write_map(tmp_path / "maps" / f"{i}.hdf5", ScoreMap(value.astype(np.float32), "s"))
        Image.fromarray(label).save(tmp_path / "labels_masks" / f"{i}.png")
    out = tmp_path / "n.json"
    command = ("evaluate", "--maps", tmp_path / "maps", "--dataset", "folder", "--root", tmp_path, "--json", out)
    code, text, _ = run(capsys, *command, "--resamples", 0)
    assert code == 0
    said = " ".join(text.split())
    assert "prints FPR95 between 0.0000 and 0.2500, depending on the order of frames" in said
    assert "prints best F1 between 0.4706 and 1.0000" in said
    assert json.loads(out.read_text())["official_order_range"]["fpr95"] == [0.0, 0.25]


def test_rounding_note__says_who_rounds(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.hdf5", "w") as f:
        f["value"] = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    note = rounding_note(tmp_path, ["a"])
    assert note is not None and "its evaluator computes with what is stored" in note
