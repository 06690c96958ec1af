import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import naive
from helpers.places import TESTS
from xenomask.errors import XenomaskError
from xenomask.metrics import count
from xenomask.metrics.components import TRACKS, binarise, compare, tallies
from xenomask.metrics.components import numbers as component_numbers
from xenomask.metrics.frames import evaluate
from xenomask.metrics.official import curve, frame_bins, order_range
from xenomask.metrics.table import numbers

GOLDEN = TESTS / "golden" / "evaluation"
KINDS = ("clean", "noisy", "ties")
ORDER_FREE = ("fpr95", "best_f1", "best_f1_threshold", "pixels")


def golden(kind, track="anomaly"):
    frames = np.load(GOLDEN / f"{kind}.npz")
    expected = json.loads((GOLDEN / f"{kind}_expected_official_{track}_track.json").read_text())
    return list(zip(frames["score"], frames["label"], strict=True)), expected


@pytest.mark.parametrize("kind", KINDS)
def test_official__golden_pixel_numbers(kind):
    frames, expected = golden(kind)
    bins = [frame_bins(count(s, y)) for s, y in frames]
    found, span = numbers(curve(bins)), order_range(bins)
    for name in ORDER_FREE:
        assert found[name] == pytest.approx(expected[name], abs=1e-9), name
    for name, (low, high) in ((k, v) for k, v in span.items() if k in expected):
        assert low - 1e-9 <= expected[name] <= high + 1e-9, name
        if high - low < 1e-9:  # no two frames share the largest threshold
            assert found[name] == pytest.approx(expected[name], abs=1e-9), name
    assert (span["aupr_sum"][1] - span["aupr_sum"][0] > 1e-6) == (kind == "ties")


@pytest.mark.parametrize("track", ["anomaly", "obstacle"])
@pytest.mark.parametrize("kind", KINDS)
def test_components__golden_numbers(kind, track):
    frames, expected = golden(kind, track)
    compared = [compare(binarise(s, expected["thresh_p"]), y, TRACKS[track]) for s, y in frames]
    assert sum(len(c.ppv) for c in compared) == expected["pred_components"]
    found = component_numbers(np.sum([tallies(c) for c in compared], axis=0))
    for name, value in expected["component"].items():
        counts = name.startswith(("tp_", "fp_", "fn_")) and not name.endswith("mean")
        assert found[name] == (value if counts else pytest.approx(value, abs=1e-9)), name


@pytest.mark.parametrize("track", ["anomaly", "obstacle"])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluate__golden_whole_way(kind, track):
    frames, expected = golden(kind, track)
    named = {f"frame{i:04d}": f for i, f in enumerate(frames)}
    result = evaluate(list(named), named.__getitem__, track, resamples=20)
    assert set(result.numbers) == {"exact", "official", "components"}
    for name in ORDER_FREE:
        assert result.numbers["official"][name] == pytest.approx(expected[name], abs=1e-9)
    for name, value in expected["component"].items():
        assert result.numbers["components"][name] == pytest.approx(value, abs=1e-9), name
    assert result.warnings == ()
    low, high = result.intervals["exact"]["aupr_sum"]
    assert low < result.numbers["exact"]["aupr_sum"] < high


scores = st.one_of(
    st.integers(0, 3).map(lambda seed: ("levels", seed)), st.integers(0, 5).map(lambda seed: ("normal", seed))
)


@settings(max_examples=40, deadline=None)
@given(scores, st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_official__equals_the_pixels_way(kind, height, width, n):
    rng = np.random.default_rng(height * 1000 + width)
    frames = []
    for _ in range(n):
        s = rng.standard_normal((height, width)) * 10.0 ** rng.integers(-3, 1)
        s = np.round(s) + 0.0 if kind[0] == "levels" else s
        frames.append((s.astype(np.float16), rng.choice([0, 0, 1, 255], (height, width)).astype(np.uint8)))
    labels = np.concatenate([y.ravel() for _, y in frames])
    if not ((labels == 0).any() and (labels == 1).any()):
        with pytest.raises(XenomaskError, match="no pixel is labelled"):
            curve([frame_bins(count(s, y)) for s, y in frames])
        return
    usable = [(s, y) for s, y in frames if (y != 255).any()]
    found = curve([frame_bins(count(s, y)) for s, y in frames])
    assert list(zip(found.threshold, found.tp, found.fp, strict=True)) == naive.official_curve(usable)


def test_official__same_value_for_every_order_and_the_range_holds_each():
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(4):  # a third of the pixels saturates at 1
        s = np.minimum(rng.random((20, 20)) * 1.5, 1).astype(np.float16)
        frames.append(frame_bins(count(s, (rng.random((20, 20)) < s / 2).astype(np.uint8))))
    assert numbers(curve(frames)) == numbers(curve(frames[::-1]))
    low, high = order_range(frames)["aupr_trapz"]
    printed = []
    for first in frames:  # what the official code prints when this frame's top bin comes first
        c = curve(frames)
        recall = np.append([0, first.tp[-1] / c.tp[-1]], c.recall)
        precision = np.append([1, first.tp[-1] / (first.tp[-1] + first.fp[-1])], c.precision)
        printed.append(np.trapezoid(precision, recall))
    assert low == pytest.approx(min(printed), abs=1e-12)
    assert high == pytest.approx(max(printed), abs=1e-12)
    assert high - low > 1e-3


def test_official__scores_at_both_ends_of_float16():
    s = np.array([[65504, -65504, 0, 1]], np.float16)
    assert numbers(curve([frame_bins(count(s, np.array([[1, 0, 0, 0]], np.uint8)))]))["aupr_sum"] == 1


def test_official__a_constant_map_of_large_values_keeps_its_pixels():
    bins = frame_bins(count(np.full((1, 3), 1000, np.float16), np.array([[1, 0, 0]], np.uint8)))
    assert (bins.threshold.tolist(), bins.tp.tolist(), bins.fp.tolist()) == ([1000], [1], [2])
