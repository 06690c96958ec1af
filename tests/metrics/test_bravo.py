"""BRAVO's numbers against loops over pixels that share nothing with them, and counts by hand."""

import math
import statistics

import numpy as np
import pytest

from helpers import naive
from xenomask.errors import XenomaskError
from xenomask.metrics import bravo


def slow_ece(pixels):
    """[(level, right)]: bin by bin."""
    total = 0.0
    for b in range(15):
        low, high = round(65536 * b / 15), round(65536 * (b + 1) / 15)
        own = [(v, r) for v, r in pixels if low <= v < high]
        if own:
            said = sum((v + 0.5) / 65536 for v, _ in own) / len(own)
            total += len(own) / len(pixels) * abs(said - sum(r for _, r in own) / len(own))
    return total


def slow_miou(pairs):
    found = []
    for k in range(19):
        either = [p for p in pairs if k in p]
        if either:
            found.append(sum(p == (k, k) for p in either) / len(either))
    return sum(found) / len(found)


def slow(frames):
    """All numbers of frames (predicted, level, label, truth), each pixel on its own."""
    semantic, doubt = [], []
    for predicted, level, label, truth in frames:
        for p, v, y, t in zip(*(a.ravel().tolist() for a in (predicted, level, label, truth)), strict=True):
            if y != 255 and t != 1:
                semantic.append((p, v, y))
            if t != 255:
                doubt.append((-v, t))
    right = [(v, int(p == y)) for p, v, y in semantic]
    success = naive.pixel_numbers(*zip(*right, strict=True))
    error = naive.pixel_numbers([-v for v, _ in right], [1 - r for _, r in right])
    ood = naive.pixel_numbers(*zip(*doubt, strict=True))
    return {
        "miou_valid": slow_miou([(p, y) for p, _, y in semantic]), "ece_valid": slow_ece(right),
        "auroc_valid": success["auroc"], "auprc_success_valid": success["aupr_sum"],
        "auprc_error_valid": error["aupr_sum"], "fpr95_valid": success["fpr95"],
        "auroc_ood": ood["auroc"], "auprc_ood": ood["aupr_sum"], "fpr95_ood": ood["fpr95"],
    }  # fmt: skip


def drawn(seed):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(rng.integers(1, 4)):
        size = (int(rng.integers(3, 7)), int(rng.integers(4, 9)))
        label = rng.choice([0, 3, 18, 255], size).astype(np.uint8)
        predicted = np.where(rng.random(size) < 0.6, np.minimum(label, 18), rng.choice(19, size)).astype(np.uint8)
        truth = rng.choice([0, 0, 1, 255], size).astype(np.uint8)
        levels = [0, 4369, 30000, 65535] if seed % 2 else np.arange(65536)
        label.flat[:2], predicted.flat[:2], truth.flat[:3] = 3, (3, 0), (0, 0, 1)
        frames.append((predicted, rng.choice(levels, size).astype(np.uint16), label, truth))
    return frames


@pytest.mark.parametrize("seed", range(60))
def test_numbers__as_the_slow_loops(seed):
    frames = drawn(seed)
    counts = [bravo.frame_counts(*f) for f in frames]
    total = counts[0]
    for c in counts[1:]:
        total = total + c
    assert bravo.numbers(total) == pytest.approx(slow(frames), abs=1e-12)


def test_numbers__of_one_kind_of_label_alone():
    predicted, level, label, truth = drawn(3)[0]
    valid = np.where(truth == 1, 255, label).astype(np.uint8)
    both, alone = (bravo.numbers(bravo.frame_counts(predicted, level, *x)) for x in ((label, truth), (valid,)))
    assert alone == {k: both[k] for k in both if "valid" in k}
    assert set(bravo.numbers(bravo.frame_counts(predicted, level, truth=truth))) == {
        "auroc_ood",
        "auprc_ood",
        "fpr95_ood",
    }


def test_index__is_the_harmonic_mean_of_two():
    rng = np.random.default_rng(0)
    keys = ("miou_valid", "ece_valid", "auroc_valid", "auprc_success_valid", "auprc_error_valid", "fpr95_valid")
    subsets = {s: dict(zip(keys, rng.uniform(0.1, 0.9, 6).tolist(), strict=True)) for s in ("ACDCfog", "synrain")}
    subsets["SMIYC"] = {"auroc_ood": 0.9, "auprc_ood": 0.5, "fpr95_ood": 0.2}  # pyright: ignore
    subsets["synrain"] |= {"auroc_ood": 0.7, "auprc_ood": 0.6, "fpr95_ood": 0.4}  # pyright: ignore
    flat = [(k, 1 - v if "ece" in k or "fpr95" in k else v) for n in subsets.values() for k, v in n.items()]
    semantic, ood = (statistics.harmonic_mean([v for k, v in flat if end in k]) for end in ("_valid", "_ood"))
    found = bravo.index(subsets)  # pyright: ignore
    assert found["semantic_hmean"] == pytest.approx(semantic, abs=1e-12)
    assert found["ood_hmean"] == pytest.approx(ood, abs=1e-12)
    assert found["bravo_index"] == pytest.approx(2 / (1 / semantic + 1 / ood), abs=1e-12)
    assert found["SMIYC_hmean"] == pytest.approx(3 / (1 / 0.9 + 1 / 0.5 + 1 / 0.8), abs=1e-12)
    assert "bravo_index" not in bravo.index({"SMIYC": subsets["SMIYC"]})
    assert bravo.index({"nothing counted": {}}) == {}
    assert bravo.index(subsets | {"nothing counted": {}}) == found  # pyright: ignore
    assert bravo.index({"a": {"auroc_ood": 1.0, "fpr95_ood": 1.0}})["ood_hmean"] == 0


def test_ece__by_hand():
    right, pixels = np.zeros(65536), np.zeros(65536)
    pixels[[0, 65535]] = 2, 2
    right[[0, 65535]] = 0, 1  # sure, and half of them right
    assert bravo.ece(right, pixels) == pytest.approx(0.5 * 0.5 / 65536 + 0.5 * (0.5 - 0.5 / 65536))


def test_refusals():
    predicted, level, label, truth = drawn(0)[0]
    for bad, words in ((level / 65535, "not whole numbers"), (level.astype(int) - 70000, "not whole numbers")):
        with pytest.raises(XenomaskError, match=words):
            bravo.frame_counts(predicted, bad, label)
    with pytest.raises(XenomaskError, match="there are 19 classes"):
        bravo.frame_counts(predicted * 0 + 19, level, label)
    with pytest.raises(XenomaskError, match=r"not \(H, W\)"):
        bravo.frame_counts(predicted, level[..., None], label)
    with pytest.raises(XenomaskError, match="the same pixels"):
        bravo.frame_counts(predicted[:-1], level, label)
    with pytest.raises(XenomaskError, match="no curve"):
        bravo.numbers(bravo.frame_counts(label.clip(0, 18), level, np.where(label == 255, 255, label)))
    assert bravo.numbers(bravo.frame_counts(predicted, level)) == {}
    assert math.isfinite(bravo.index({"a": {"auroc_ood": 0.5}})["ood_hmean"])
