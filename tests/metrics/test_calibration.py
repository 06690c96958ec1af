import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from xenomask.cli.thresholds import app
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.metrics import count, pool
from xenomask.metrics.calibration import (
    FITS,
    Sigmoid,
    get_fit,
    held_out,
    of_counters,
    read_fit,
    reliability,
)
from xenomask.metrics.operating import folds
from xenomask.predict.photos import score_dataset
from xenomask.types import ScoreMap


def ints(*x):
    return np.array(x, np.int64)


def test_reliability__four_values_to_count():
    # 10 pixels each; of those that say .1, .3, .5, .7 there are 2, 2, 5, 10 anomalous
    r = reliability(np.array([0.1, 0.3, 0.5, 0.7]), ints(2, 2, 5, 10), ints(8, 8, 5, 0), bins=2)
    assert r.p == pytest.approx([0.2, 0.6]) and r.observed.tolist() == [0.2, 0.75] and r.pixels.tolist() == [20, 20]
    assert r.ece == pytest.approx((0 + 0.15) / 2) and r.mce == pytest.approx(0.15)
    four = reliability(np.array([0.7, 0.1, 0.5, 0.3]), ints(10, 2, 5, 2), ints(0, 8, 5, 8), bins=4)  # in any order
    assert four.ece == pytest.approx((0.1 + 0.1 + 0 + 0.3) / 4) and four.mce == pytest.approx(0.3)
    brier = (2 * 0.81 + 8 * 0.01 + 2 * 0.49 + 8 * 0.09 + 10 * 0.25 + 10 * 0.09) / 40
    assert four.brier == r.brier == pytest.approx(brier)
    assert r.brier_constant == pytest.approx(19 / 40 * 21 / 40) and r.prevalence == 19 / 40


def test_reliability__ties_are_never_split():
    # 97 of 100 pixels hold .5: one bin, whatever is asked for
    r = reliability(np.array([0.1, 0.5, 0.9]), ints(0, 40, 1), ints(1, 57, 1), bins=4)
    assert r.pixels.tolist() == [1, 97, 2] and r.observed.tolist() == [0, 40 / 97, 0.5]
    same = reliability(np.array([0.5, 0.1, 0.5, 0.9]), ints(15, 0, 25, 1), ints(7, 1, 50, 1), bins=4)
    assert same.pixels.tolist() == [1, 97, 2] and same.ece == pytest.approx(r.ece)


def test_reliability__refuses_what_is_no_probability():
    label = np.array([[0, 1, 1, 255]], np.uint8)
    for score, span in (([0.1, 1.5, 0.5, 0], "0.1 .. 1.5"), ([-1, 0.5, 0.5, 0], "-1 .. 0.5")):
        rounded = span.replace("0.1", "0.099[0-9]*")
        with pytest.raises(XenomaskError, match=rf"{rounded}, not in \[0, 1\]: .*fit one first"):
            of_counters(count(np.array([score], np.float16), label).dense())
    with pytest.raises(XenomaskError, match="no pixel is labelled inlier"):
        reliability(np.array([0.5]), ints(1), ints(0))
    of_counters(count(np.array([[0, 1, 0.5, 2]], np.float16), label).dense())  # void may hold anything


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.sampled_from([3, 50]))
def test_reliability__equals_the_loop_over_pixels(seed, bins, levels):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(60) * levels) / levels * 0.98 + 0.01
    y = (rng.random(60) < 0.4).astype(int)
    y[:2] = 0, 1
    r = reliability(p, y.astype(np.int64), (1 - y).astype(np.int64), bins)
    of = {}  # bin -> its pixels
    for v in sorted(set(p)):
        before, mine = (p < v).sum(), (p == v).sum()
        of.setdefault(int((before + mine / 2) / len(p) * bins + 1e-12), []).extend(np.flatnonzero(p == v))
    gaps = [(len(i), abs(p[i].mean() - y[i].mean())) for i in of.values()]
    assert r.pixels.tolist() == [len(i) for i in of.values()]
    assert r.ece == pytest.approx(sum(n * g for n, g in gaps) / 60) and r.mce == pytest.approx(max(g for _, g in gaps))
    assert r.brier == pytest.approx(brier_score_loss(y, p)) and r.nll == pytest.approx(log_loss(y, p))


def test_reliability__without_ties_bins_are_equal():
    p = np.linspace(0, 1, 150)
    ones = np.ones(150, np.int64)
    assert reliability(p, ones, ones).pixels.tolist() == [20] * 15


def test_reliability__true_probabilities_are_reliable():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = (rng.random(len(p)) < p).astype(np.int64)
    r = reliability(p, y, 1 - y)
    assert r.ece < 0.006 and r.brier == pytest.approx(1 / 6, abs=0.002)  # E[p (1 - p)]; a bin's error is about .004
    certain = reliability(np.array([0.0, 1.0]), ints(1, 5), ints(9, 0))
    assert certain.nll == math.inf and certain.brier == pytest.approx(1 / 15)


def frame(seed, n=400, slope=2.0, bias=-1.0, scale=1.0):
    """Pixels whose labels are drawn with p = sigmoid(slope x + bias)."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((1, n)) * scale).astype(np.float16)
    return x, (rng.random((1, n)) < 1 / (1 + np.exp(-(slope * x.astype(float) + bias)))).astype(np.uint8)


def test_fit_sigmoid__finds_what_the_labels_were_drawn_with():
    x, y = frame(0, 200_000)
    found = get_fit("platt")(count(x, y).dense())
    assert isinstance(found, Sigmoid)
    assert (found.slope, found.bias) == pytest.approx((2, -1), abs=0.03)
    p = (1 / (1 + np.exp(-x.astype(float)))).astype(np.float16)
    found = get_fit("temperature-bias")(count(p, y).dense())
    assert isinstance(found, Sigmoid) and found.log_odds
    assert (found.temperature, found.bias) == pytest.approx((0.5, -1), abs=0.03)
    y = frame(0, 200_000, slope=0.5, bias=0)[1]
    found = get_fit("temperature")(count(p, y).dense())
    assert isinstance(found, Sigmoid)
    assert found.temperature == pytest.approx(2, abs=0.1) and found.bias == 0


def test_fit_sigmoid__equals_scikit_learn():
    x, y = frame(1, 3000, scale=100, slope=0.01)  # far from unit scale
    found = get_fit("platt")(count(x, y).dense())
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(x.reshape(-1, 1).astype(float), y.ravel())
    assert isinstance(found, Sigmoid)
    # Platt's targets pull by about 1 / 3000
    assert (found.slope, found.bias) == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), rel=5e-3, abs=5e-3)


def test_fit_sigmoid__separable_saturated_and_upside_down():
    label = np.tile(np.array([[0, 0, 1, 1]], np.uint8), 100)

    def counters(*scores):
        return count(np.tile(np.array([scores], np.float16), 100), label).dense()

    for name in ("platt", "temperature", "temperature-bias"):
        found = get_fit(name)(counters(0, 0.2, 0.8, 1))
        p = found(np.array([0, 0.2, 0.8, 1]))
        assert np.isfinite(p).all() and (p[:2] < 0.5).all() and (p[2:] > 0.5).all(), name
        with pytest.raises(XenomaskError, match="upside down"):
            get_fit(name)(counters(1, 0.8, 0.2, 0))
    with pytest.raises(
        XenomaskError, match="temperature reads scores as probabilities.* -1 .. 1: fit platt or isotonic"
    ):
        get_fit("temperature")(counters(-1, 0.2, 0.8, 1))
    constant = counters(0.3, 0.3, 0.3, 0.3)
    with pytest.raises(XenomaskError, match="slope"):
        get_fit("platt")(constant)
    assert get_fit("isotonic")(constant)(np.array([0.0, 0.3, 1.0])).tolist() == [0.5] * 3


def test_fit_isotonic__to_count():
    # 1: 1 of 2, 2: 0 of 2 -> together 1/4; 3: 1 of 2; 4: 2 of 2
    score = np.array([[1, 1, 2, 2, 3, 3, 4, 4]], np.float16)
    label = np.array([[0, 1, 0, 0, 0, 1, 1, 1]], np.uint8)
    found = get_fit("isotonic")(count(score, label).dense())
    assert found.table() == {"kind": "isotonic", "start": [1, 3, 4], "p": [0.25, 0.5, 1.0]}
    assert found(np.array([-5, 1, 2.9, 3, 100])).tolist() == [0.25, 0.25, 0.25, 0.5, 1]
    assert found(np.array([[2.9999]], np.float32)).tolist() == [[0.5]]  # which is stored as 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_fit_isotonic__equals_scikit_learn_and_is_the_best_rising_map(seed):
    x, y = frame(seed, 60)
    x = np.round(x * 4) / 4
    y[0, :2] = 0, 1
    counters = count(x.astype(np.float16), y).dense()
    found = get_fit("isotonic")(counters)
    own = found(x.ravel())
    theirs = IsotonicRegression().fit(x.ravel().astype(float), y.ravel()).predict(x.ravel().astype(float))
    assert own == pytest.approx(theirs, abs=1e-6)
    best = of_counters(counters, found)
    assert best.ece == pytest.approx(0, abs=1e-9) and best.brier <= best.brier_constant + 1e-12
    slope, bias = np.random.default_rng(seed).random(2) * 3
    assert best.brier <= of_counters(counters, Sigmoid("platt", slope, bias, False)).brier + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(FITS)))
def test_fits__survive_json_rise_and_stay_in_0_1(seed, name):
    x, y = frame(seed, 80, bias=0)
    x = (1 / (1 + np.exp(-x.astype(float)))).astype(np.float16)
    y[0, :2] = 0, 1
    try:
        found = get_fit(name)(count(x, y).dense())
    except XenomaskError as e:  # so few pixels can be upside down
        assert "upside down" in str(e)
        return
    again = read_fit(json.loads(json.dumps(found.table())))
    grid = np.linspace(0, 1, 333).astype(np.float32).reshape(9, 37)
    p = found(grid)
    assert again == found and p.shape == grid.shape and np.array_equal(p, again(grid))
    assert (p >= 0).all() and (p <= 1).all() and (np.diff(p.ravel()) >= -1e-12).all()


def test_read_fit__refuses_damaged_tables():
    with pytest.raises(XenomaskError, match="unknown calibration 'isotonik'"):
        read_fit({"kind": "isotonik"})
    nan = float("nan")
    for start, p in (
        ([], []), ([1, 1], [0, 1]), ([1, 2], [1, 0]), ([1], [0, 1]), ([1, nan], [0, 1]), ([1, 2], [0, 7]), ([1], [-3]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="do not rise"):
            read_fit({"kind": "isotonic", "start": start, "p": p})
    for slope, bias in ((nan, 0), (-1, 0), (0, 0), (1, nan)):
        with pytest.raises(ValueError, match="no rising fit"):
            read_fit({"kind": "platt", "slope": slope, "bias": bias})
    with pytest.raises(XenomaskError, match="unknown calibration"):
        read_fit({"kind": ["platt"]})


@pytest.mark.parametrize("name", ["isotonic", "platt"])
def test_held_out__equals_fitting_on_the_other_frames(name):
    frames = [frame(seed, 90) for seed in range(5)]
    found = held_out([count(*f) for f in frames], name, k=3)
    p, y = [], []
    for fold in folds(5, 3):
        fit = get_fit(name)(pool(count(*frames[i]) for i in range(5) if i not in fold))
        p += [fit(frames[i][0]).ravel() for i in fold]
        y += [frames[i][1].ravel() for i in fold]
    p, y = np.concatenate(p), np.concatenate(y).astype(np.int64)
    plain = reliability(p, y, 1 - y)
    assert found.brier == pytest.approx(plain.brier) == pytest.approx(brier_score_loss(y, p))
    assert found.ece == pytest.approx(plain.ece) and found.pixels.tolist() == plain.pixels.tolist()
    in_sample = of_counters(pool(count(*f) for f in frames), get_fit(name)(pool(count(*f) for f in frames)))
    assert found.brier > in_sample.brier


def test_calibrate__is_stored_and_applied_only_when_asked_for(tiny_detector, tmp_path, capsys):
    folder = shutil.copytree(tiny_detector, tmp_path / "pair")
    root = write_scenes(tmp_path / "data", "anomaly-track", 3, size=(64, 64))
    detector = Detector.from_folder(folder)
    score_dataset(detector, open_dataset("anomaly-track", root), tmp_path / "maps")
    image = draw_scene(0, (40, 50)).image
    before = detector.detect(image)
    with pytest.raises(XenomaskError, match="holds no calibration, and a raw map is no probability"):
        detector.probability(before)
    where = ("--maps", tmp_path / "maps", "--dataset", "anomaly-track", "--root", root)

    def calibrate(*arguments):
        app(["calibrate", *map(str, (*where, *arguments))], standalone_mode=False)
        return capsys.readouterr().out

    assert "raw" in calibrate("--json", tmp_path / "r.json")
    assert set(json.loads((tmp_path / "r.json").read_text())["raw"]) >= {"ece", "brier", "p", "observed", "pixels"}
    with pytest.raises(XenomaskError, match="choose one with --fit"):
        calibrate("--into", folder)
    with pytest.raises(XenomaskError, match="unknown fit 'isotonik'; did you mean 'isotonic'"):
        calibrate("--fit", "isotonik")
    assert "stored in" in calibrate("--fit", "isotonic", "--into", folder)
    calibrated = Detector.from_folder(folder)
    assert np.array_equal(calibrated.detect(image).value, before.value)  # detect does not apply it
    p = calibrated.probability(before)
    assert p.dtype == np.float32 and p.shape == before.value.shape and 0 <= p.min() <= p.max() <= 1
    assert calibrated.calibration is not None
    origin = calibrated.calibration.origin
    assert (origin["dataset"], origin["frames"], origin["folds"]) == ("anomaly-track", 3, 3)
    assert origin["held_out"]["brier"] >= origin["in_sample"]["brier"]
    with pytest.raises(XenomaskError, match="is for its entropy maps, this is a rba map"):
        calibrated.probability(ScoreMap(before.value, "rba"))
    tuned = replace(calibrated, members=tuple(replace(m, weight=0.5) for m in calibrated.members))
    with pytest.raises(XenomaskError, match="not those that it was calibrated with"):
        tuned.probability(before)
    for other in (calibrated.with_score("rba"), calibrated.only("a")):
        assert other.calibration is None
    (folder / "detector.json").write_text((folder / "detector.json").read_text().replace('"isotonic"', '"platt"'))
    with pytest.raises(XenomaskError, match="detector.json is damaged"):
        Detector.from_folder(folder)


def test_fits__of_maps_with_one_score():
    frame = count(np.full((2, 2), 0.5, np.float16), np.array([[0, 0], [0, 1]], np.uint8)).dense()
    assert get_fit("isotonic")(frame)(np.array([0.2, 0.5])).tolist() == [0.25, 0.25]
    for name in ("platt", "temperature", "temperature-bias"):
        with pytest.raises(XenomaskError, match="single score 0.5"):
            get_fit(name)(frame)


@pytest.mark.parametrize("bins", [0, 65537, 10**30])
def test_reliability__takes_so_many_bins_as_there_are_scores(bins):
    with pytest.raises(XenomaskError, match="1 to 65536"):
        reliability([0.1, 0.9], [1, 1], [1, 0], bins)
