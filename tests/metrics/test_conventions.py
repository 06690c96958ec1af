import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from helpers.places import TESTS
from xenomask.metrics import count, curve, pool
from xenomask.metrics.conventions import (
    CONVENTIONS,
    all_conventions,
    fpr_above,
    fpr_interpolated,
    fpr_nearest,
    resized_counters,
)

GOLDEN = TESTS / "golden" / "evaluation"


@pytest.fixture(params=["clean", "noisy", "ties"])
def frames(request):
    loaded = np.load(GOLDEN / f"{request.param}.npz")
    expected = json.loads((GOLDEN / f"{request.param}_expected_exact.json").read_text())
    return list(zip(loaded["score"], loaded["label"], strict=True)), expected


def flat(score, label):
    valid = label != 255
    return (label[valid] == 1).astype(int), score[valid].astype(np.float64)


def test_conventions__golden_fpr_of_each_kind(frames):
    pairs, expected = frames
    counted = [count(*f) for f in pairs]
    found = all_conventions(counted)
    c = curve(pool(counted))
    assert found["exact"]["fpr"] == pytest.approx(expected["fpr95_first_ge(openood,fishyscapes)"], abs=1e-12)
    assert found["rba"]["fpr"] == pytest.approx(expected["fpr95_first_gt(rba,maskomaly@0.9)"], abs=1e-12)
    assert found["maskomaly"]["fpr"] == pytest.approx(expected["fpr90_first_gt(maskomaly)"], abs=1e-12)
    assert fpr_interpolated(c) == pytest.approx(expected["fpr95_interp(ood_metrics:mask2anomaly)"], abs=1e-12)
    assert found["trapezoid"]["aupr"] == pytest.approx(expected["aupr_trapz_sklearn"], abs=1e-12)


def test_conventions__per_image_and_skipped_frames_as_scikit_learn_gives_them(frames):
    pairs, _ = frames
    found = all_conventions([count(*f) for f in pairs])
    aupr, fpr, steps, nearest = [], [], [], []
    for f in pairs:
        y, s = flat(*f)
        if y.any():
            precision, recall, _ = precision_recall_curve(y, s)
            f_, t_, _ = roc_curve(y, s, drop_intermediate=False)
            aupr.append(auc(recall, precision))
            fpr.append(f_[t_ >= 0.95][0])
            steps.append(average_precision_score(y, s))
            nearest.append(f_[1:][np.abs(t_[1:] - 0.95).argmin()])
    assert found["per_image"] == pytest.approx({"aupr": np.mean(aupr), "fpr": np.mean(fpr)}, abs=1e-12)
    assert found["per_image_nearest"] == pytest.approx({"aupr": np.mean(steps), "fpr": np.mean(nearest)}, abs=1e-12)
    kept = [flat(*f) for f in pairs if (f[1] == 1).any()]
    y, s = (np.concatenate(part) for part in zip(*kept, strict=True))
    assert found["mask2anomaly"]["aupr"] == pytest.approx(average_precision_score(y, s), abs=1e-12)


def test_conventions__binned_ones_are_near_the_exact_and_need_scores_in_0_1(frames):
    pairs, _ = frames
    found = all_conventions([count(*f) for f in pairs])
    assert found["official_uniform"]["aupr"] == pytest.approx(found["exact"]["aupr"], abs=2e-4)
    assert found["bravo"]["aupr"] == pytest.approx(found["exact"]["aupr"], abs=5e-3)
    negative = all_conventions([count(s - np.float16(2), y) for s, y in pairs[:1]])
    assert np.isnan(negative["bravo"]["aupr"]) and np.isnan(negative["official_uniform"]["fpr"])


def test_fpr__strict_nearest_and_interpolated_by_hand():
    # thresholds down: tp 9, 10 of 10; fp 1, 2 of 4
    s = np.array([[0.9] * 9 + [0.9] + [0.5] + [0.5] + [0.1] * 2], np.float16)
    y = np.array([[1] * 9 + [0] + [1] + [0] + [0] * 2], np.uint8)
    c = curve(count(s, y))
    assert fpr_above(c, 0.9) == 0.5 and fpr_above(c, 0.89) == 0.25
    assert fpr_interpolated(c, 0.95) == pytest.approx(0.375)
    assert fpr_nearest(c, 0.92) == 0.25


def test_conventions__of_frames_of_one_kind_are_nan():
    frames = [count(np.array([[0.1, 0.9]], np.float16), np.array([[y, y]], np.uint8)) for y in (0, 1)]
    found = all_conventions(frames)
    assert all(np.isnan(list(found[k].values())).all() for k in ("per_image", "mask2anomaly"))
    assert found["exact"]["aupr"] == found["exact"]["aupr"]


def test_resized_counters__identity_at_the_same_size():
    s, y = np.random.default_rng(0).random((9, 12)).astype(np.float16), np.eye(9, 12).astype(np.uint8)
    same = resized_counters(s, y, (9, 12))
    assert np.array_equal(same.key, count(s, y).key)
    assert resized_counters(s, y, (18, 24)).positive.sum() == 4 * count(s, y).positive.sum()


def test_conventions__each_says_whose_it_is():
    assert all(c.used_by and c.text for c in CONVENTIONS.values())


def test_conventions__anomalies_that_sampling_or_resizing_loses_are_nan():
    rng, y = np.random.default_rng(0), np.zeros((1440, 2560), np.uint8)
    y[1, 1] = 1  # nearest neighbour at half the size takes rows and columns 0, 2, 4, ...
    value = rng.random(y.shape).astype(np.float16)
    frame, small = count(value, y), resized_counters(value, y)
    assert frame.positive.sum() == 1 and small.positive.sum() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = all_conventions([frame], [small])
    assert all(np.isnan([found[k]["aupr"], found[k]["fpr"]]).all() for k in ("bravo", "rba_720x1280"))
    assert found["rba"]["fpr"] == pytest.approx((value > value[1, 1]).sum() / (y.size - 1), abs=1e-3)
