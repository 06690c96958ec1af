import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from xenomask.errors import XenomaskError
from xenomask.metrics import count
from xenomask.metrics.components import Sizes
from xenomask.metrics.conformal import (
    Targets,
    component_targets,
    control,
    held_out_loss,
    losses,
    pixel_targets,
)
from xenomask.metrics.counters import keys, values


def found_at(scores):
    """A frame whose things are found from these scores down."""
    key, n = np.unique(keys(np.asarray(scores, np.float16)), return_counts=True)
    return Targets(key, n)


def targets(*scores):
    return found_at(scores)


def test_control__three_frames_to_count():
    # at 3: 1/2 + 0 + 0 missed, and (1/2 + 1) / 4 <= .4; at 4: 1/2 + 1/2 + 0, and 2 / 4 > .4
    frames = [targets(1, 4), targets(3, 4), targets(4, 4)]
    found = control(frames, 0.4)
    assert (found.threshold, found.risk, found.bound, found.n) == (3, 0.5 / 3, 1.5 / 4, 3)
    assert control(frames, 0.5).threshold == 4  # exactly 2 / 4
    assert control(frames, 0.25).threshold == 1  # nothing may be missed


def test_control__decimals_are_meant_as_typed():
    # 1/3 + 2/3 + 0 ... and one: 2 / 20 is .1, although .1 is no binary fraction; so for every multiple of 1/20
    frames = [targets(1, 5, 5), targets(1, 1, 5), *[targets(5)] * 17]
    assert control(frames, 0.1).threshold == 5
    assert control(frames, 0.0999).threshold == 1
    for n, alpha in ((9, 0.3), (9, 0.7), (19, 0.15), (99, 0.07)):
        allowed = round(alpha * (n + 1)) - 1
        frames = [*[targets(1)] * allowed, *[targets(2)] * (n - allowed)]
        assert control(frames, alpha).threshold == 2, (n, alpha)
        if allowed < n:
            assert control([targets(1), *frames[:-1]], alpha).threshold == 1, (n, alpha)


def test_control__frames_without_an_anomaly_are_left_out():
    frames = [targets(1, 4), targets(), targets(3, 4), targets(), targets(4, 4)]
    assert control(frames, 0.4) == control([f for f in frames if f.total], 0.4)
    found = losses(frames, 3)
    assert found[[0, 2, 4]].tolist() == [0.5, 0, 0] and np.isnan(found[[1, 3]]).all()


def test_control__too_few_frames_say_how_many_it_takes():
    with pytest.raises(
        XenomaskError, match=r"alpha 0.05 needs at least 19 frames with an anomaly, there are 3: .* 0.25"
    ):
        control([targets(1)] * 3 + [targets()], 0.05)
    assert control([targets(1)] * 19, 0.05).threshold == 1
    with pytest.raises(XenomaskError, match="at least 19 frames"):
        control([targets(1)] * 18, 0.05)
    with pytest.raises(XenomaskError, match="there are 0"):
        control([], 0.5)
    for alpha in (0, 1, -1, math.nan):
        with pytest.raises(XenomaskError, match="lies between 0 and 1"):
            control([targets(1)], alpha)


def test_control__all_scores_tied():
    found = control([targets(7, 7, 7)] * 5, 0.3)
    assert (found.threshold, found.risk) == (7, 0)


def test_losses__between_two_float16_values():
    frame = targets(1, 1.001)
    assert losses([frame], 1.0).tolist() == [0.0]
    assert losses([frame], 1.0001).tolist() == losses([frame], 1.0009765625).tolist() == [0.5]
    assert losses([frame], 2).tolist() == losses([frame], 65504.5).tolist() == losses([frame], 1e6).tolist() == [1.0]


levels = st.lists(st.lists(st.integers(-3, 3), max_size=6), min_size=1, max_size=7)


@settings(max_examples=200, deadline=None)
@given(levels, st.integers(1, 99))
def test_control__equals_trying_every_threshold_on_pixels(frames, percent):
    kept = [f for f in frames if f]
    alpha, n = percent / 100, len(kept)
    if not n or percent * (n + 1) < 100:
        with pytest.raises(XenomaskError, match="needs at least"):
            control([targets(*f) for f in frames], alpha)
        return
    allowed = [
        t for t in range(-3, 5)
        if sum(Fraction(sum(s < t for s in f), len(f)) for f in kept) + 1 <= Fraction(percent, 100) * (n + 1)
    ]  # fmt: skip
    found = control([targets(*f) for f in frames], alpha)
    grid = {s for f in kept for s in f}
    assert found.threshold == max(t for t in allowed if t in grid)
    assert found.bound <= alpha + 1e-12
    assert found.risk == pytest.approx(np.mean([sum(s < found.threshold for s in f) / len(f) for f in kept]))


@settings(max_examples=100, deadline=None)
@given(levels, st.integers(1, 98), st.integers(1, 98))
def test_control__a_larger_alpha_never_lowers_the_threshold(frames, a, b):
    a, b = sorted((a, b))
    own = [targets(*f) for f in frames]
    if a * (sum(map(bool, frames)) + 1) >= 100:
        assert control(own, a / 100).threshold <= control(own, b / 100).threshold


def test_pixel_targets__are_the_anomaly_pixels():
    value = np.array([[1, 2, 2, 3, -0.0, 0.0]], np.float16)
    found = pixel_targets(count(value, np.array([[0, 1, 1, 255, 1, 1]], np.uint8)))
    assert values(found.key).tolist() == [0, 2] and found.count.tolist() == [2, 2]


def test_component_targets__to_count():
    value = np.array([[9, 8, 0, 5], [7, 6, 0, 0], [0, 0, 0, 1]], np.float16)
    label = np.array([[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 255]], np.uint8)
    find = [(1.0, [5, 6]), (0.5, [5, 8]), (0.75, [5, 7]), (0.01, [5, 9])]
    for cover, critical in find:
        assert values(component_targets(value, label, Sizes(1, 1), cover).key).tolist() == critical
    assert values(component_targets(value, label, Sizes(1, 2)).key).tolist() == [8]  # one pixel is too small
    assert component_targets(value, np.zeros_like(label), Sizes(1, 1)).total == 0
    assert component_targets(value, np.ones_like(label), Sizes(1, 1)).total == 1
    with pytest.raises(XenomaskError, match="cover 0"):
        component_targets(value, label, Sizes(1, 1), 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0]), st.integers(1, 4))
def test_component_targets__equal_the_loop(seed, cover, smallest):
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 255], (9, 11), p=[0.6, 0.3, 0.1]).astype(np.uint8)
    value = (rng.integers(-4, 5, label.shape) / 2).astype(np.float16)
    found = component_targets(value, label, Sizes(1, smallest), cover)
    found_by_scipy: Any = ndimage.label(label == 1, np.ones((3, 3)))
    number, n = found_by_scipy
    own = [value[number == i].tolist() for i in range(1, n + 1)]
    own = [s for s in own if len(s) >= smallest]
    for t in np.arange(-2.5, 3, 0.5):
        missed = sum(sum(s >= t for s in c) < Fraction(str(cover)) * len(c) for c in own)
        share = losses([found], float(t))[0]
        assert share == pytest.approx(missed / len(own)) if own else math.isnan(share)


def test_held_out_loss__equals_leaving_each_frame_out():
    assert math.isnan(held_out_loss([targets(1)], 0.9))
    frames = [targets(*range(i, i + 5)) for i in (0, 3, 1, 4, 2)] + [targets()]
    own = []
    for i in range(5):
        t = control([f for j, f in enumerate(frames) if j != i], 0.4).threshold
        own.append(sum(s < t for s in values(frames[i].key)) / 5)
    assert held_out_loss(frames, 0.4) == pytest.approx(np.mean(own))
    assert control(frames[:3], 0.25).n == 3 and math.isnan(held_out_loss(frames[:3], 0.25))  # 2 frames are too few


# Coverage: fresh calibration and test frames in each trial. How hard a frame is varies between frames, and small
# anomalies are harder than large ones, as on the road.
CALIBRATION, TEST, TRIALS = 24, 12, 200


def drawn_pixels(rng, levels=None):
    """A frame of 1 to 300 anomaly pixels."""
    size = int(np.exp(rng.uniform(0, np.log(300))))
    scores = rng.standard_normal(size) + rng.normal(np.log(size), 1)
    return found_at(np.round(scores * levels) / levels if levels else scores)


def drawn_components(rng):
    """A frame of 1 to 4 components of 3 x 3 pixels, through the real function."""
    value = rng.standard_normal((5, 20)).astype(np.float16)
    label = np.zeros((5, 20), np.uint8)
    hard = rng.standard_normal()
    for x in range(1, 1 + 5 * int(rng.integers(1, 5)), 5):
        label[1:4, x : x + 3] = 1
        value[1:4, x : x + 3] += np.float16(hard + rng.standard_normal())
    return component_targets(value, label, Sizes(1, 1))


def trials(draw, choose, seed, n=TRIALS):
    """Mean loss of fresh frames at the threshold chosen on others, and its standard error over trials."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        t = choose([draw(rng) for _ in range(CALIBRATION)])
        found.append(losses([draw(rng) for _ in range(TEST)], t).mean())
    return np.mean(found), np.std(found) / math.sqrt(n)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_control__coverage_of_pixels(alpha):
    """E[loss] lies in [alpha - 2 / (n + 1), alpha] (theorems 1 and 2), give or take 3 standard errors."""
    mean, error = trials(drawn_pixels, lambda f: control(f, alpha).threshold, seed=0)
    assert error < 0.01
    assert alpha - 2 / (CALIBRATION + 1) - 3 * error <= mean <= alpha + 3 * error


@pytest.mark.slow
def test_control__coverage_of_components():
    mean, error = trials(drawn_components, lambda f: control(f, 0.2).threshold, seed=1, n=90)
    assert error < 0.014
    assert 0.2 - 2 / (CALIBRATION + 1) - 3 * error <= mean <= 0.2 + 3 * error


def test_control__coverage_holds_with_ties():
    """Scores of one level a unit: the upper bound needs no distinct scores, the lower one does."""
    mean, error = trials(lambda rng: drawn_pixels(rng, 1), lambda f: control(f, 0.2).threshold, seed=2, n=120)
    assert mean <= 0.2 + 3 * error


def test_coverage__the_test_can_fail():
    """A threshold that misses 20 % of all pooled pixels misses more than 20 % of the average frame."""

    def pooled(frames):
        scores = np.concatenate([np.repeat(values(f.key), f.count) for f in frames])
        return float(np.quantile(scores, 0.2, method="lower"))

    mean, error = trials(drawn_pixels, pooled, seed=3, n=100)
    assert mean > 0.2 + 10 * error
