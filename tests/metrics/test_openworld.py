"""Open-world IoU against a walk over pixels that shares nothing with it, and counts by hand."""

import math

import numpy as np
import pytest

from xenomask.errors import XenomaskError
from xenomask.metrics import evaluate, openworld
from xenomask.metrics.openworld import class_iou, frame_confusions

K = openworld.CLASSES


def first(frames, wanted):
    """The largest score at which the share of `wanted` pixels (0 inliers, 1 anomalies) scoring it or more is enough."""
    pixels = [(s, t == 254) for v, _, y in frames for s, t in zip(v.flat, y.flat, strict=True) if t != 255]
    own = [s for s, a in pixels if a == bool(wanted)]
    enough = 0.95 if wanted else 0.05
    return max(s for s, _ in pixels if sum(o >= s for o in own) / len(own) >= enough)


def slow(frames, threshold):
    """The mean over the 19 classes of their IoU, each counted by a walk over all pixels; None: of the closed set."""
    total = 0.0
    for k in range(K):
        both = either = 0
        for value, predicted, label in frames:
            for s, p, y in zip(value.flat, predicted.flat, label.flat, strict=True):
                if y == 255 or (threshold is None and y == 254):
                    continue
                said = p == k and (threshold is None or not s > threshold)
                both += said and y == k
                either += said or y == k
        total += both / either if either else 0
    return total / K


def drawn(seed):
    """One to three frames of blocks of few classes, with anomalies and void; scores with and without ties."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(rng.integers(1, 4)):
        size = (int(rng.integers(3, 9)), int(rng.integers(4, 11)))
        known = rng.choice(K, rng.integers(1, 6))
        label = rng.choice([*known, 254, 255], size).astype(np.uint8)
        label.flat[:2] = 254, known[0]
        predicted = np.where(rng.random(size) < 0.6, np.minimum(label, K - 1), rng.choice(K, size)).astype(np.uint8)
        value = rng.normal(0, 1, size) + (label == 254)
        frames.append(((value * 4).round() if seed % 2 else value, predicted, label))
    return [(v.astype(np.float16), p, y) for v, p, y in frames]


def found(frames, **options):
    pixels = [(v, np.where(y == 255, 255, y == 254).astype(np.uint8)) for v, _, y in frames]
    classes = [(p, y) for _, p, y in frames]
    ids = [str(i) for i in range(len(frames))]
    return evaluate(ids, lambda i: pixels[int(i)], classes=lambda i: classes[int(i)], **options)


@pytest.mark.parametrize("seed", range(60))
def test_open_iou__as_the_slow_walk(seed):
    frames = drawn(seed)
    numbers = found(frames, resamples=0).numbers["exact"]
    assert numbers["oiou_tpr95"] == pytest.approx(slow(frames, first(frames, 1)), abs=1e-12)
    assert numbers["oiou_fpr5"] == pytest.approx(slow(frames, first(frames, 0)), abs=1e-12)
    assert numbers["closed_iou"] == pytest.approx(slow(frames, None), abs=1e-12)
    at, pixels = first(frames, 0), [(s, y) for v, _, t in frames for s, y in zip(v.flat, t.flat, strict=True)]
    above = [s >= at for s, y in pixels if y == 254]
    assert numbers["tpr_fpr5"] == pytest.approx(sum(above) / len(above), abs=1e-12)


def test_open_iou__by_hand():
    # anomaly .9 and .2, inliers .5 .1 .1 .1: TPR 95 % at .2, FPR 5 % at .5; two classes of 19
    value, label = np.array([[0.9, 0.2, 0.5, 0.1, 0.1, 0.1]]), np.array([[254, 254, 0, 0, 1, 1]])
    numbers = found([(value, np.array([[0, 1, 0, 0, 1, 0]]), label)], resamples=0).numbers["exact"]
    # at .2: the anomaly .2 stays class 1, 0 at .5 is lost; IoU 1 / 3 of class 0, 1 / 3 of class 1
    assert numbers["oiou_tpr95"] == pytest.approx((1 / 3 + 1 / 3) / K)
    # at .5 nothing but .9 is above: 2 / 3 of class 0, 1 / 3 of class 1
    assert numbers["oiou_fpr5"] == pytest.approx((2 / 3 + 1 / 3) / K)
    assert numbers["closed_iou"] == pytest.approx((2 / 3 + 1 / 2) / K)
    assert numbers["tpr_fpr5"] == 0.5


def test_open_iou__intervals_are_of_frames_drawn_anew_and_printed():
    result = found(drawn(4) + drawn(6), resamples=200)
    for convention in ("exact", "official"):
        low, high = result.intervals[convention]["oiou_fpr5"]
        assert low <= result.numbers[convention]["oiou_fpr5"] <= high and low < high
    assert "open IoU at TPR 95 %" in str(result) and "closed IoU" in str(result)
    without = evaluate(["a"], lambda i: ([[0.1, 0.9]], [[0, 1]]), resamples=0)
    assert "open IoU" not in str(without) and "oiou_tpr95" not in without.numbers["exact"]


def test_refusals():
    value, label = np.zeros((1, 3)), np.array([[0, 254, 255]])
    frame_confusions(value, np.array([[0, 18, 255]]), label, [0.5])  # void pixels may hold anything
    with pytest.raises(XenomaskError, match=r"predicted classes: the values \[19\], and there are 19 classes"):
        frame_confusions(value, np.array([[0, 19, 0]]), label, [0.5])
    with pytest.raises(XenomaskError, match=r"label: the values \[19\]"):
        frame_confusions(value, np.zeros((1, 3), int), np.array([[19, 254, 255]]), [0.5])
    with pytest.raises(XenomaskError, match="the same pixels|native size"):
        frame_confusions(value, np.zeros((1, 2), int), label, [0.5])
    with pytest.raises(XenomaskError, match="the same pixels|native size"):
        frame_confusions(np.zeros((2, 3)), np.zeros((1, 3), int), label, [0.5])
    with pytest.raises(XenomaskError, match="NaN"):
        class_iou([[1.0, math.nan], [0, 1]])
