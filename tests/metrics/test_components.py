import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import naive
from xenomask.metrics.components import Sizes, _cells, binarise, compare, numbers, tallies


def mask_of(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def label_of(*rows):
    return np.array([[{".": 0, "#": 1, "x": 255}[c] for c in row] for row in rows], np.uint8)


ONE = Sizes(1, 1)


def test_compare__one_prediction_covers_half_of_an_object():
    c = compare(mask_of("##....."), label_of("####..."), ONE)
    assert c.siou_gt.tolist() == [0.5] and c.siou_pred.tolist() == [0.5] and c.ppv.tolist() == [1.0]


def test_compare__a_prediction_over_two_objects_is_not_held_against_either():
    # predicted 7 px: 3 on each object, 1 between; |k| + pixels on nothing = 3 + 1
    c = compare(mask_of("#######"), label_of("###.###"), ONE)
    assert c.siou_gt.tolist() == [0.75, 0.75]
    assert c.siou_pred.tolist() == [6 / 7] and c.ppv.tolist() == [6 / 7]


def test_compare__diagonal_neighbours_are_one_component():
    assert len(compare(mask_of("#.", ".#"), label_of("..", "..") * 0, ONE).ppv) == 1


def test_compare__void_cuts_predictions_before_their_size_is_tested():
    cut = compare(mask_of("###"), label_of("#x."), Sizes(2, 1))
    assert len(cut.ppv) == 0 and cut.siou_gt.tolist() == [0]


def test_compare__predictions_under_a_small_object_vanish_with_it():
    c = compare(mask_of("##...."), label_of("##...."), Sizes(1, 3))
    assert len(c.ppv) == len(c.siou_gt) == 0
    # what lies beside the small object stays
    assert compare(mask_of("###..."), label_of("##...."), Sizes(1, 3)).ppv.tolist() == [0]


def test_compare__the_background_is_size_tested_too():
    c = compare(mask_of("####."), label_of("###.."), Sizes(1, 3))  # two pixels of background: void
    assert c.ppv.tolist() == [1.0]


def test_numbers__a_false_positive_is_judged_by_ppv():
    n = numbers(tallies(compare(mask_of("##.#"), label_of("####") * 0 + label_of("#..."), ONE)))
    # predictions: 2 px with 1 true (PPV .5), 1 px with none
    assert (n["fp_50"], n["fp_55"], n["tp_50"], n["tp_55"]) == (1, 2, 1, 0)
    assert n["prec_pred"] == 0.25


def test_numbers__nothing_predicted_and_nothing_there():
    n = numbers(tallies(compare(mask_of("..."), label_of("#.."), ONE)))
    assert n["f1_mean"] == 0 and np.isnan(n["prec_pred"]) and n["sIoU_gt"] == 0
    assert np.isnan(numbers(tallies(compare(mask_of("..."), label_of("..."), ONE)))["f1_mean"])


def test_binarise__strict_and_in_float16():
    value = np.array([[0.5, 0.87353516, 0.874]], np.float16)
    assert binarise(value, 0.5).tolist() == [[False, True, True]]
    # rounds to the second value, which under NumPy 2's rule would be above it
    assert binarise(value, 0.873537706021537).tolist() == [[False, False, True]]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 14), st.integers(1, 14), st.floats(0.1, 0.9), st.floats(0.05, 0.9), st.integers(1, 6),
    st.integers(1, 6), st.integers(0, 10**6),
)  # fmt: skip
def test_compare__equals_the_loops(height, width, dense, anomalous, min_predicted, min_true, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < dense
    label = rng.choice([0, 1, 255], (height, width), p=[0.9 * (1 - anomalous), anomalous, 0.1 * (1 - anomalous)])
    label = label.astype(np.uint8)
    found = compare(mask, label, Sizes(min_predicted, min_true))
    for ours, theirs in zip((found.siou_gt, found.siou_pred, found.ppv),
                            naive.components(mask, label, min_predicted, min_true), strict=True):  # fmt: skip
        assert sorted(ours) == pytest.approx(sorted(theirs), abs=1e-12)


def test_cells__counting_and_sorting_agree():
    rng = np.random.default_rng(0)
    p, t = rng.integers(1, 40, 500), rng.integers(1, 9, 500)
    dense, sparse = _cells(p, t, 40, 9), _cells(p, t, 1 << 20, 9)
    for a, b in zip(dense, sparse, strict=True):
        assert np.array_equal(a, b)


@settings(max_examples=200, deadline=None)
@given(st.floats(-2, 2), st.sampled_from([0.0, -0.0, 1e-8, -1e-8, 65504.0, -65504.0, 0.5, -0.5]), st.integers(0, 99))
def test_binarise__equals_the_comparison_of_floats(a, b, seed):
    rng = np.random.default_rng(seed)
    value = np.append(rng.choice([-65504, -1, -6e-8, -0.0, 0.0, 6e-8, 1, 65504, 0.5, -0.5, a, b], 40), [a, b])
    value = value.astype(np.float16)[None]
    for threshold in (a, b):
        expected = [float(v) > float(np.float16(threshold)) for v in value[0]]
        assert binarise(value, threshold)[0].tolist() == expected


def test_binarise__thresholds_beyond_float16():
    value = np.array([[65504, -65504]], np.float16)
    assert binarise(value, 1e9).tolist() == [[False, False]] and binarise(value, -1e9).tolist() == [[True, True]]
