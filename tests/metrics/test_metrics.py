import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from helpers import naive
from helpers.places import TESTS
from xenomask.errors import XenomaskError
from xenomask.metrics import count, curve, evaluate, pool, table
from xenomask.metrics.counters import empty, keys, values
from xenomask.metrics.table import numbers as curve_numbers

GOLDEN = TESTS / "golden" / "evaluation"


def numbers(frame):
    """The exact numbers of one frame's counters."""
    return curve_numbers(curve(frame))


@pytest.mark.parametrize("kind", ["clean", "noisy", "ties"])
def test_numbers__golden_frames(kind):
    frames = np.load(GOLDEN / f"{kind}.npz")
    expected = json.loads((GOLDEN / f"{kind}_expected_exact.json").read_text())
    pooled = pool(count(score, label) for score, label in zip(frames["score"], frames["label"], strict=True))
    found = curve_numbers(curve(pooled))
    pairs = {
        "aupr_sum": "ap_sklearn", "aupr_trapz": "aupr_trapz_sklearn", "auroc": "auroc", "best_f1": "best_f1",
        "best_f1_threshold": "best_f1_threshold", "fpr95": "fpr95_first_ge_all_points",
        "pixels": "pixels", "positives": "positives",
    }  # fmt: skip
    for ours, theirs in pairs.items():
        assert found[ours] == pytest.approx(expected[theirs], abs=1e-12), ours
    assert found["prevalence"] == pytest.approx(expected["positives"] / expected["pixels"], abs=1e-15)


def frames(max_side=6):
    scores = hnp.arrays(
        np.float16,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=max_side),
        elements=st.one_of(
            st.sampled_from([0.0, -0.0, 1.0, 0.5, 6e-8, -6e-8, 65504.0, -65504.0]), st.floats(-2, 2, width=16)
        ),
    )
    return scores.flatmap(
        lambda s: st.tuples(st.just(s), hnp.arrays(np.uint8, s.shape, elements=st.sampled_from([0, 1, 255])))
    )


@settings(max_examples=200, deadline=None)
@given(frames())
def test_numbers__equal_scikit_learn(frame):
    score, label = frame
    valid = label != 255
    s, y = score[valid].astype(np.float64), label[valid]
    if not (y == 1).any() or not (y == 0).any():
        with pytest.raises(XenomaskError, match="no pixel is labelled"):
            numbers(count(score, label))
        return
    found = numbers(count(score, label))
    precision, recall, _ = precision_recall_curve(y, s)
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert found["aupr_sum"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert found["aupr_trapz"] == pytest.approx(auc(recall, precision), abs=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert found["fpr95"] == pytest.approx(fpr[tpr >= 0.95][0], abs=1e-12)
    assert found["best_f1"] == pytest.approx(f1.max(), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(frames(4))
def test_numbers__equal_the_loops(frame):
    score, label = frame
    if not (label == 1).any() or not (label == 0).any():
        return
    found = numbers(count(score, label))
    for name, value in naive.pixel_numbers(score.ravel().tolist(), label.ravel().tolist()).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(frames(), frames())
def test_counters__streamed_equal_pooled_and_lose_nothing(a, b):
    one, two = count(*a), count(*b)
    pooled = count(
        np.concatenate([a[0].ravel(), b[0].ravel()])[None], np.concatenate([a[1].ravel(), b[1].ravel()])[None]
    )
    whole = pooled.dense()
    for merged in (one.dense().merge(two), two.dense().merge(one.dense()), pool([one, two]), empty().merge(pooled)):
        assert np.array_equal(merged.positive, whole.positive)
        assert np.array_equal(merged.negative, whole.negative)
    assert pooled.positive.sum() == (a[1] == 1).sum() + (b[1] == 1).sum()
    assert pooled.negative.sum() == (a[1] == 0).sum() + (b[1] == 0).sum()


def test_keys__are_ordered_and_invertible_over_all_floats():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.sort(every[np.isfinite(every)].astype(np.float64))
    k = keys(finite.astype(np.float16)).astype(int)
    assert (np.diff(k)[np.diff(finite) > 0] > 0).all()
    assert np.array_equal(values(keys(finite.astype(np.float16))).astype(np.float64), finite)


@settings(max_examples=100, deadline=None)
@given(frames(9))
def test_count__equals_the_loop(frame):
    positive, negative = naive.count(frame[0].ravel().tolist(), frame[1].ravel().tolist())
    found = count(*frame)
    assert {float(v): int(n) for v, n in zip(values(found.key), found.positive, strict=True) if n} == positive
    assert {float(v): int(n) for v, n in zip(values(found.key), found.negative, strict=True) if n} == negative


def test_count__strided_and_transposed_views():
    score = np.arange(12, dtype=np.float16).reshape(3, 4)
    label = (np.arange(12) % 3 == 0).astype(np.uint8).reshape(3, 4)
    for view in (np.s_[::2, 1:], np.s_[:, ::-1]):
        plain = count(score[view].copy(), label[view].copy())
        assert np.array_equal(count(score[view], label[view]).positive, plain.positive)
    assert np.array_equal(count(score.T, label.T).key, count(score, label).key)


def test_count__refuses_bad_frames():
    half = np.zeros((2, 2), np.float16)
    with pytest.raises(XenomaskError, match="map is 2x2, its label 3x2"):
        count(half, np.zeros((2, 3), np.uint8))
    with pytest.raises(XenomaskError, match="other than 0 inlier"):
        count(half, np.full((2, 2), 2, np.uint8))
    for bad in (np.nan, np.inf, -np.inf):
        for label in (0, 1, 255):
            with pytest.raises(XenomaskError, match="NaN or infinity"):
                count(np.full((2, 2), bad, np.float16), np.full((2, 2), label, np.uint8))
    with pytest.raises(XenomaskError, match="NaN"):
        count(np.full((2, 2), np.nan, np.float16), np.zeros((2, 2), np.uint8))


def test_numbers__constant_map():
    label = np.array([[1, 0, 0, 0, 255]], np.uint8)
    found = numbers(count(np.ones((1, 5), np.float16), label))
    assert (found["aupr_sum"], found["aupr_trapz"], found["fpr95"], found["auroc"]) == (0.25, 0.625, 1.0, 0.5)


def test_evaluate__frames_without_anomaly_count_as_inliers_and_have_no_own_numbers():
    maps = {"a": np.array([[0.9, 0.1]], np.float16), "b": np.array([[0.95, 0.2]], np.float16)}
    labels = {"a": np.array([[1, 0]], np.uint8), "b": np.array([[0, 255]], np.uint8)}
    result = evaluate(["a", "b"], lambda i: (maps[i], labels[i]), resamples=0)
    assert result.numbers["exact"]["aupr_sum"] == 0.5
    assert list(result.per_frame) == ["a"]


def test_register__refuses_what_the_numbers_hold_already():
    for key in ("aupr_sum", "prevalence", "pixels", "positives"):
        with pytest.raises(XenomaskError, match="is a number already"):
            table.register(table.Number(key, "x", "higher", lambda c: 0.0))


def test_kernels__compile_where_nothing_can_be_cached():
    code = "import numpy as np; from xenomask.metrics import count; print(count(np.ones((1, 2), np.float16), " \
           "np.array([[0, 1]], np.uint8)).positive)"  # fmt: skip
    environment = {**os.environ, "NUMBA_CACHE_DIR": "/proc/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "[1]"), done.stderr
