import numpy as np
import pytest

from xenomask.metrics import count, curve, measure, pool
from xenomask.metrics.frames import resample, summarise
from xenomask.metrics.official import curve as official_curve
from xenomask.metrics.official import frame_bins
from xenomask.metrics.resampling import BLOCK, curve_numbers, draw, exact_steps, interval, official_steps
from xenomask.metrics.table import numbers


def some_frames(n=7, seed=0, levels=None):
    rng = np.random.default_rng(seed)
    frames = {}
    for i in range(n):
        y = rng.choice([0, 1, 255], (23, 31), p=[0.7, 0.2, 0.1]).astype(np.uint8)
        if i == 0:
            y[y == 1] = 0  # a frame without an anomaly
        s = rng.standard_normal(y.shape) + (y == 1) + i / 10
        s = np.round(s * levels) / levels if levels else s
        frames[f"f{i}"] = s.astype(np.float16), y
    return frames


@pytest.mark.parametrize("levels", [None, 2])
def test_curve_numbers__equal_those_of_the_drawn_frames(levels):
    frames = [count(*f) for f in some_frames(levels=levels).values()]
    bins = [frame_bins(f) for f in frames]
    weights = draw(len(frames), 25, seed=3)
    exact, official = curve_numbers(*exact_steps(frames), weights), curve_numbers(*official_steps(bins), weights)
    for r, row in enumerate(weights.astype(int)):
        drawn = [i for i, times in enumerate(row) for _ in range(times)]
        for found, truth in (
            (exact, numbers(curve(pool(frames[i] for i in drawn)))),
            (official, numbers(official_curve([bins[i] for i in drawn]))),
        ):
            for name, values in found.items():
                assert values[r] == pytest.approx(truth[name], abs=1e-12), name


def test_curve_numbers__any_number_of_threads_and_any_block_border():
    frames = [count(*f) for f in some_frames().values()]
    weights = draw(len(frames), 9, seed=0)
    steps, thresholds = exact_steps(frames)
    one = curve_numbers(steps, thresholds, weights, threads=1)
    for threads in (2, 5, 20):
        many = curve_numbers(steps, thresholds, weights, threads=threads)
        assert all(np.array_equal(one[k], many[k]) for k in one)
    assert thresholds > BLOCK  # several blocks were walked through


def test_curve_numbers__nan_where_no_anomaly_was_drawn():
    frames = [count(*f) for f in some_frames(3).values()]
    found = curve_numbers(*exact_steps(frames), np.array([[3.0, 0, 0], [1, 1, 1]]))
    assert np.isnan(found["aupr_sum"]).tolist() == [True, False]


def test_draw__is_seeded_and_keeps_the_number_of_frames():
    a = draw(10, 50, seed=1)
    assert np.array_equal(a, draw(10, 50, seed=1)) and not np.array_equal(a, draw(10, 50, seed=2))
    assert (a.sum(1) == 10).all()


def test_interval__central_95_percent_of_what_there_is():
    assert interval(np.append(np.arange(1001) / 1000, np.nan)) == pytest.approx((0.025, 0.975))
    assert np.isnan(interval(np.full(3, np.nan))).all()


@pytest.mark.slow
def test_interval__covers_the_truth_about_as_often_as_it_says():
    """60 data sets of 30 frames each: the mean AUROC of the whole population lies in about 95 % of the intervals."""
    rng = np.random.default_rng(0)

    def frame():
        y = (rng.random((8, 8)) < 0.3).astype(np.uint8)
        return count((rng.standard_normal(y.shape) + y * (1 + rng.standard_normal())).astype(np.float16), y)

    truth = numbers(curve(pool(frame() for _ in range(4000))))["auroc"]
    hits = 0
    for seed in range(60):
        found = curve_numbers(*exact_steps([frame() for _ in range(30)]), draw(30, 200, seed))
        low, high = interval(found["auroc"])
        hits += low <= truth <= high
    assert 51 <= hits <= 60  # binomial(60, .95): fewer than 51 has probability 1e-3


def test_summarise__same_seed_same_intervals_and_components_too():
    frames = some_frames()
    measured = measure(list(frames), frames.__getitem__, "obstacle")
    a, b = (summarise(measured, resamples=50, seed=5) for _ in range(2))
    assert str(a.intervals) == str(b.intervals)  # nan-safe
    assert set(a.intervals) == {"exact", "official", "components"}
    everything_once = resample(measured, np.ones((1, len(frames))))
    for convention, own in everything_once.items():
        for name, values in own.items():
            assert values[0] == pytest.approx(a.numbers[convention][name], abs=1e-12, nan_ok=True)
