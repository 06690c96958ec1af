from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import naive
from helpers.outputs import from_probabilities, make_output, make_pixel_output
from xenomask.errors import XenomaskError
from xenomask.masks import class_probabilities, soft_masks
from xenomask.scores import SCORES, as_released, get_score, score_all, score_of
from xenomask.types import QuerySet

ON_LOGITS = ["msp", "max_logit", "entropy_softmax", "energy"]
BASELINES = [s for s in SCORES if "maskomaly" not in s and s not in ("rejection", "uno")]


def hand_vector():
    """Four pixels A..D, four queries: road, car, the outlier query (void), the ground query (road)."""
    rows = {"road": 0, "car": 13, "void": 19}
    p = np.full((4, 20), 1e-9)
    for q, (name, top) in enumerate((("road", 0.9), ("car", 0.6), ("void", 0.8), ("road", 0.5))):
        # the rest goes to classes of which none comes near the top
        p[q] = (1 - top) / 19
        p[q, rows[name]] = top
    m = np.array([[0.9, 0.05, 0.2, 0], [0.05, 0.05, 0.2, 0], [0, 0.9, 0.3, 0], [0.5, 0, 0, 0]])
    return from_probabilities(p, m[:, None, :]), QuerySet(outlier={2: 0.5}, ground=(3,))


def test_maskomaly__hand_vector():
    output, queries = hand_vector()
    assert score_of(output, queries, "maskomaly").value[0].tolist() == pytest.approx([0, 0.861, 0.096, 0.6], abs=1e-6)


def test_maskomaly__hand_vector_without_the_border_rule():
    output, queries = hand_vector()
    found = score_of(output, queries, "maskomaly_no_border").value[0]
    # R after step 2 is [.19, .955, .82, 1]; the ground query (.5 * .5 at A) lowers nothing further
    expected = [0.6 * 0.19, 0.6 * 0.955 + 0.4 * 0.72, 0.6 * 0.82 + 0.4 * 0.24, 0.6]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    q=st.integers(1, 9),
    policy=st.sampled_from(["confident", "specialised"]),
    border=st.sampled_from([0.1, 0.3, None]),
)
def test_maskomaly__pair_loop_equals_count(seed, q, policy, border):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(4, 0.3), q)
    m = rng.choice([0.0, 0.05, 0.0999, 0.1001, 0.5, 0.99], (q, 3, 4))
    picked = [int(i) for i in np.flatnonzero(rng.random(q) < 0.4)]
    queries = QuerySet(inlier={i: 0 for i in picked}, outlier={i: 0.5 for i in picked[:2]}, ground=tuple(picked[-1:]))
    rows = SCORES["maskomaly"].rows
    found = rows(torch.tensor(p), torch.tensor(m), queries, inlier=policy, border=border).numpy()
    specialised = picked if policy == "specialised" else None
    expected = naive.maskomaly(p, m, picked[:2], picked[-1:], specialised, border=border)
    assert np.abs(found - expected).max() < 1e-12


def test_maskomaly__no_eligible_query_is_strange_everywhere():
    p = np.full((3, 20), 0.05)
    output = from_probabilities(p, np.full((3, 2, 2), 0.05))
    assert (score_of(output, None, "maskomaly").value >= 0.6 - 1e-6).all()


def test_maskomaly__specialised_needs_the_analysis():
    with pytest.raises(XenomaskError, match="needs inlier queries .* run `xenomask queries inlier`"):
        score_of(make_output(), QuerySet(), "maskomaly_specialised")


@pytest.mark.parametrize("name", BASELINES)
def test_baseline__equals_its_formula(name):
    output = make_output(q=7, n=6)
    p, m = class_probabilities(output).double().numpy(), soft_masks(output).double().numpy()
    assert np.abs(score_of(output, None, name).value - naive.scores(p, m)[name]).max() < 2e-6


def test_outlier_class__is_none_of_the_known_ones():
    output = make_output(q=7, n=6, outlier_class=True)
    z, m = output.class_logits.double().numpy(), soft_masks(output).double().numpy()
    p = np.array([naive.softmax(row) for row in z.tolist()])
    known = np.concatenate([p[:, :4], p[:, 4:].sum(1, keepdims=True)], 1)  # K = 4; outlier and no object: nothing known
    expected = naive.scores(known, m)
    found = score_all(output, None, [SCORES[s] for s in (*BASELINES, "maskomaly", "uno")])
    for name in BASELINES:
        assert np.abs(found[name].value - expected[name]).max() < 2e-6, name
    assert np.abs(found["maskomaly"].value - naive.maskomaly(known, m)).max() < 1e-6
    assert np.abs(found["uno"].value - naive.uno(p, m)).max() < 2e-6
    assert found["uno"].value.min() < 0


def test_uno__is_refused_where_there_is_no_outlier_class():
    with pytest.raises(XenomaskError, match="score uno reads a class for outliers, .*choose .*rba, eam"):
        score_of(make_output(), None, "uno")


def test_per_pixel__scores_equal_their_formulas_on_the_resized_logits(monkeypatch):
    monkeypatch.setattr("xenomask.masks.BLOCK_PIXELS", 31 * 4)  # four blocks
    output = make_pixel_output()
    L = naive.resized(output.class_map_logits.double().numpy(), (20, 28), (18, 25), (13, 31))
    assert (L < 0).any() and (L > 0).any()
    expected = naive.logit_scores(L)
    found = score_all(output, None, [SCORES[s] for s in ON_LOGITS])
    assert list(found) == ON_LOGITS == list(expected)
    for name, value in expected.items():
        assert np.abs(found[name].value - value).max() < 1e-5, name


@pytest.mark.parametrize("name", sorted(set(SCORES) - set(ON_LOGITS)))
def test_per_pixel__other_scores_are_refused_with_the_reason(name):
    why = "may be negative" if SCORES[name].on_classes else "queries' masks, and it has none"
    with pytest.raises(XenomaskError, match=f"score {name} is not defined for a per-pixel network .*{why}") as e:
        score_all(make_pixel_output(), QuerySet(inlier={0: 1}), [SCORES["msp"], SCORES[name]])
    assert str(e.value).endswith("choose one of " + ", ".join(ON_LOGITS))


def test_per_pixel__extreme_logits_stay_finite_and_nan_is_refused():
    output = make_pixel_output()
    output.class_map_logits[0] = torch.inf
    output.class_map_logits[1] = -torch.inf
    for name, found in score_all(output, None, [SCORES[s] for s in ON_LOGITS]).items():
        assert np.isfinite(found.value).all(), name
    output.class_map_logits[2, 0, 0] = torch.nan
    with pytest.raises(XenomaskError, match="NaN"):
        score_of(output, None, "energy")


def test_scores__class_map_is_summed_once_a_block(monkeypatch):
    from xenomask.scores import score as scores

    sums = []
    plain = scores.class_masses
    monkeypatch.setattr(scores, "class_masses", lambda p, m: sums.append(1) or plain(p, m))
    monkeypatch.setattr("xenomask.masks.BLOCK_PIXELS", 31 * 4)
    score_all(make_output(outlier_class=True), QuerySet(inlier={0: 1}), SCORES.values(), "torch")
    assert len(sums) == 4  # blocks, though eight scores read it
    score_all(make_output(), None, [SCORES["eam"]])
    assert len(sums) == 4


def test_scores__of_one_image_in_one_pass_equal_single_calls():
    output, queries = make_output(outlier_class=True), QuerySet(inlier={0: 1}, outlier={1: 0.4})
    together = score_all(output, queries, SCORES.values())
    for name, s in SCORES.items():
        assert np.array_equal(together[name].value, score_of(output, queries, s).value)
        assert together[name].value.shape == output.image_size


def test_entropy__is_highest_where_no_mask_reaches():
    output = make_output()
    output.mask_logits[:] = -200.0
    assert score_of(output, None, "entropy").value.min() == pytest.approx(1.0, abs=1e-6)


def test_scores__extreme_logits_stay_finite():
    output = make_output(outlier_class=True)
    output.mask_logits[0] = 1e4
    output.mask_logits[1] = -torch.inf
    output.mask_logits[2, :2] = torch.inf
    output.class_logits[0] *= 1e4
    for name, found in score_all(output, QuerySet(inlier={0: 1}), SCORES.values()).items():
        assert np.isfinite(found.value).all(), name


def test_scores__nan_is_refused():
    output = make_output()
    output.mask_logits[0, 0, 0] = torch.nan
    with pytest.raises(XenomaskError, match="NaN"):
        score_of(output, None, "eam")


def test_scores__foreign_query_index_is_refused():
    with pytest.raises(XenomaskError, match=r"names query 77, the network has 0\.\.5"):
        score_of(make_output(), QuerySet(outlier={77: 0.5}), "maskomaly")


def test_scores__options():
    assert get_score("maskomaly", {"mix": 1.0}).options == {"mix": 1.0}
    with pytest.raises(XenomaskError, match="did you mean 'mix'"):
        get_score("maskomaly", {"mixx": 1.0})
    with pytest.raises(XenomaskError, match="option of score rba"):
        get_score("rba", {"mix": 1.0})
    assert get_score("maskomaly", {"border": None, "mix": 1, "inlier": "specialised"}).options["mix"] == 1
    for key, value, wanted in (
        ("inlier", "confidant", "'confidant', not confident or specialised"), ("mix", "a", "'a', not a finite number"),
        ("mix", None, "None, not a finite number"), ("border", True, "True, not a finite number or null"),
        ("confidence", float("nan"), "nan, not a finite number"),
    ):  # fmt: skip
        with pytest.raises(XenomaskError, match=f"score maskomaly: the option {key} is {wanted}$"):
            get_score("maskomaly", {key: value})


def test_as_released__keeps_the_padding_and_stretches():
    output = make_output(h=6, w=8, padded=(24, 32), used=(20, 28), image=(40, 56))
    p, m = class_probabilities(output), torch.nn.functional.interpolate(
        output.mask_logits[None], (24, 32), mode="bilinear", align_corners=False
    )[0].sigmoid()  # fmt: skip
    whole = naive.maskomaly(p.double().numpy(), m.double().numpy(), [1]).astype(np.float32)
    expected = cv2.resize(whole, (56, 40), interpolation=cv2.INTER_AREA)
    found = as_released(output, QuerySet(outlier={1: 0.5}), SCORES["maskomaly"]).value
    assert np.abs(found - expected).max() < 1e-5


def test_scores__scale_holds_what_a_pixel_can_be():
    """The drawing range of each score covers a pixel that one class owns and one that nothing claims, K = 19."""
    p = np.zeros((1, 20))
    p[0, 3] = 1
    output = from_probabilities(p + 1e-30, np.array([[[1 - 1e-12, 1e-12]]]))
    for name in BASELINES:
        low, high = SCORES[name].scale
        owned, unclaimed = score_of(output, None, name).value[0]
        assert low - 1e-3 <= owned <= high + 1e-3, name
        assert low - 1e-3 <= unclaimed <= high + 1e-3, name
        assert unclaimed >= owned - 1e-6, name


@pytest.mark.parametrize("name", SCORES)
def test_scores__of_arrays_are_those_of_tensors(name):
    output = make_output(outlier_class=name == "uno", seed=3)
    arrays = replace(output, class_logits=output.class_logits.numpy(), mask_logits=output.mask_logits.numpy())
    queries = QuerySet("", {0: 1, 2: 0}, {1: 0.5}, (2,))
    found, true = (score_of(o, queries, name).value for o in (arrays, output))
    assert isinstance(arrays.mask_logits, np.ndarray) and np.abs(found - true).max() < 1e-6
