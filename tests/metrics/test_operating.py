import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenomask.cli.thresholds import app
from xenomask.datasets.synthetic import write_scenes
from xenomask.detector import Detector
from xenomask.detector.folder import assemble, describe_folder, store_threshold
from xenomask.errors import XenomaskError
from xenomask.metrics import count, curve, numbers, pool
from xenomask.metrics.curves import Curve
from xenomask.metrics.operating import at_threshold, boundary, folds, held_out, operating_point
from xenomask.models import load

# scores 9, 8, ... 0: anomalies at 9, 8, 6, 3; inliers at 7, 5, 4, 2, 1, 0
TEN = curve(count(np.arange(10, dtype=np.float16)[None], np.array([[0, 0, 0, 1, 0, 0, 1, 0, 1, 1]], np.uint8)).dense())


def test_operating_point__wishes_on_ten_pixels():
    a = operating_point(TEN, "fpr", 0.2)  # one of six inliers may be called
    assert (a.threshold, a.tpr, a.fpr, a.precision) == (6, 0.75, 1 / 6, 0.75)
    b = operating_point(TEN, "fpr", 0)
    assert (b.threshold, b.tpr, b.fpr, b.precision) == (8, 0.5, 0, 1)
    c = operating_point(TEN, "tpr", 0.75)
    assert (c.threshold, c.tpr, c.fpr) == (6, 0.75, 1 / 6)
    d = operating_point(TEN, "precision", 0.7)
    assert (d.threshold, d.tpr, d.precision) == (6, 0.75, 0.75)
    e = operating_point(TEN, "f1")
    assert (e.threshold, e.f1) == (6, 0.75)  # 2 x 3 / (6 + 1 + 1)


def test_operating_point__precision_may_fall_and_rise_again():
    # walking down: fp, tp, tp, tp: precision 0, 1/2, 2/3, 3/4
    c = Curve(np.array([4.0, 3, 2, 1, 0]), np.array([0, 1, 2, 3, 3]), np.array([1, 1, 1, 1, 2]))
    assert operating_point(c, "precision", 0.7).threshold == 1
    assert operating_point(c, "precision", 0.6).threshold == 1  # 3 / 5 at the end, but no more recall


def test_operating_point__among_equals_the_cheapest():
    # two anomalies at the top, then inliers only, then one more anomaly
    c = Curve(np.array([4.0, 3, 2, 1]), np.array([2, 2, 2, 3]), np.array([0, 1, 2, 2]))
    assert operating_point(c, "fpr", 0.5).threshold == 4
    assert operating_point(c, "tpr", 0.5).threshold == 4
    # 2 and 1 both have FPR 1; 1 finds more
    assert operating_point(Curve(np.array([2.0, 1]), np.array([1, 2]), np.array([1, 1])), "tpr", 0.5).threshold == 1


def test_operating_point__says_what_is_reachable():
    c = Curve(np.array([4.0, 3, 2]), np.array([0, 1, 2]), np.array([1, 1, 4]))
    with pytest.raises(XenomaskError, match=r"no threshold has FPR <= 0.1: .* \(TPR 0.5\) come with FPR 0.25, at .* 3"):
        operating_point(c, "fpr", 0.1)
    with pytest.raises(
        XenomaskError, match="no threshold has precision >= 0.9: the best precision is 0.5, with TPR 0.5"
    ):
        operating_point(c, "precision", 0.9)
    for target, x in (("fpr", -0.1), ("tpr", 0), ("tpr", 1.1), ("precision", float("nan")), ("fpr", None)):
        with pytest.raises(XenomaskError, match="this must be"):
            operating_point(c, target, x)
    with pytest.raises(XenomaskError, match="unknown target 'tprr'; did you mean 'tpr'"):
        operating_point(c, "tprr", 0.5)


def pixels(seed, n=40, levels=4):
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 255], (1, n), p=[0.6, 0.3, 0.1]).astype(np.uint8)
    label[0, :2] = 0, 1
    return (np.round((rng.standard_normal((1, n)) + label) * levels) / levels).astype(np.float16), label


def by_loop(score, label, target, x):
    """(recall, -FPR) of the best threshold that grants the target, trying each; None where none does."""
    s, y = score[label != 255].tolist(), label[label != 255].tolist()
    granted = []
    for t in set(s):
        tp = sum(v >= t and k == 1 for v, k in zip(s, y, strict=True))
        fp = sum(v >= t and k == 0 for v, k in zip(s, y, strict=True))
        recall, fpr, precision = tp / y.count(1), fp / y.count(0), tp / (tp + fp)
        if tp and {"fpr": fpr <= x, "tpr": recall >= x, "precision": precision >= x}[target]:
            granted.append((-fpr, recall) if target == "tpr" else (recall, -fpr))
    if not granted:
        return None
    best = max(granted)
    return best[::-1] if target == "tpr" else best


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["fpr", "tpr", "precision"]), st.integers(1, 20))
def test_operating_point__equals_the_loop(seed, target, twentieths):
    frame, x = pixels(seed), twentieths / 20
    c, expected = curve(count(*frame).dense()), by_loop(*frame, target, x)
    if expected is None:
        with pytest.raises(XenomaskError, match="no threshold has"):
            operating_point(c, target, x)
        return
    found = operating_point(c, target, x)
    assert (found.tpr, -found.fpr) == expected
    assert at_threshold(c, found.threshold) == found


def test_operating_point__agrees_with_the_evaluation():
    c = curve(pool(count(*pixels(seed)) for seed in range(5)))
    n = numbers(c)
    assert operating_point(c, "tpr", 0.95).fpr == n["fpr95"]
    best = operating_point(c, "f1")
    assert (best.threshold, best.f1) == (n["best_f1_threshold"], n["best_f1"])


def test_at_threshold__between_and_beyond_the_scores():
    assert at_threshold(TEN, 5.5).tpr == at_threshold(TEN, 6).tpr == 0.75
    assert (at_threshold(TEN, -1).tpr, at_threshold(TEN, -1).fpr) == (1, 1)
    nothing = at_threshold(TEN, 10)
    assert (nothing.tpr, nothing.fpr, nothing.precision, nothing.f1) == (0, 0, 1, 0)


@settings(max_examples=300, deadline=None)
@given(st.floats(width=16, allow_nan=False, allow_infinity=False), st.integers(0, 10**6))
def test_boundary__raw_and_stored_maps_agree(t, seed):
    b = np.float32(boundary(t))
    assert b == boundary(t)  # it is a float32
    assert np.float16(b) == np.float16(t)
    near = np.nextafter(b, np.array([-np.inf, np.inf], np.float32))
    scores = np.append(near, np.float32(t) + np.random.default_rng(seed).normal(0, 1e-3, 20).astype(np.float32))
    scores = scores[np.abs(scores) <= 65504]
    with np.errstate(over="ignore"):
        stored = scores.astype(np.float16)
    assert np.array_equal(scores >= b, stored.astype(np.float64) >= t)
    assert np.array_equal(stored >= boundary(t), stored.astype(np.float64) >= t)  # as NumPy compares with a float


def test_boundary__of_the_smallest_score_warns_of_nothing():
    assert boundary(-65504.0) == -65504


def test_folds__leave_every_frame_out_once():
    assert folds(3) == [[0], [1], [2]]
    assert [len(f) for f in folds(25)] == [3] * 5 + [2] * 5
    assert sorted(sum(folds(25), [])) == list(range(25))
    for frames, k in ((1, None), (5, 0), (5, 1), (5, 6)):
        with pytest.raises(XenomaskError, match="cannot be split"):
            folds(frames, k)


def test_held_out__equals_choosing_on_the_others():
    frames = [pixels(seed) for seed in range(6)]
    found = held_out([count(*f) for f in frames], lambda c: operating_point(c, "f1"), k=3)
    tp = fp = positives = negatives = 0
    for fold, t in zip(folds(6, 3), found.thresholds, strict=True):
        rest = curve(pool(count(*frames[i]) for i in range(6) if i not in fold))
        assert t == operating_point(rest, "f1").threshold
        for score, label in (frames[i] for i in fold):
            tp, fp = tp + ((score >= t) & (label == 1)).sum(), fp + ((score >= t) & (label == 0)).sum()
            positives, negatives = positives + (label == 1).sum(), negatives + (label == 0).sum()
    assert (found.tpr, found.fpr, found.precision) == (tp / positives, fp / negatives, tp / (tp + fp))


@pytest.fixture(scope="module")
def scored(tiny_checkpoint, tmp_path_factory):
    """A detector folder of one member, drawn frames and its maps, as `xenomask score` leaves them."""
    from xenomask.datasets import open_dataset
    from xenomask.predict.photos import score_dataset

    root = tmp_path_factory.mktemp("scored")
    write_scenes(root / "data", "anomaly-track", 4, size=(64, 64))
    assemble(root / "one", "one", [("m", tiny_checkpoint)], [1.0], "entropy")
    score_dataset(Detector.from_folder(root / "one"), open_dataset("anomaly-track", root / "data"), root / "maps")
    return root


@pytest.fixture
def detector(scored, tmp_path):
    """A copy of its detector that a test may write to."""
    return Path(shutil.copytree(scored / "one", tmp_path / "copy"))


def cli(scored, command, *arguments):
    where = ("--maps", scored / "maps", "--dataset", "anomaly-track", "--root", scored / "data")
    app([command, *map(str, (*where, *arguments))], standalone_mode=False)


def test_describe_folder__says_what_the_loaded_detector_says(tiny_detector):
    assert describe_folder(tiny_detector) == Detector.from_folder(tiny_detector).describe()
    assert describe_folder(tiny_detector)["members"][0]["sha256"] == load(tiny_detector / "a").sha256


def test_thresholds__stores_a_threshold_with_its_origin(scored, detector, tmp_path, capsys):
    cli(scored, "thresholds", "--f1", "--tpr", 0.9, "--json", tmp_path / "o.json")
    assert "best F1" in capsys.readouterr().out
    best = json.loads((tmp_path / "o.json").read_text())[1]
    assert best["wish"] == "best F1"
    cli(scored, "thresholds", "--f1", "--into", detector)
    stored = Detector.from_folder(detector).thresholds["default"]
    assert stored["value"] == boundary(best["point"]["threshold"])
    origin = stored["origin"]
    assert (origin["dataset"], origin["frames"], origin["wish"]) == ("anomaly-track", 4, "best F1")
    assert origin["there"]["f1"] == best["point"]["f1"] and origin["threshold_float16"] == best["point"]["threshold"]
    cli(scored, "thresholds", "--tpr", 0.9, "--into", detector, "--name", "careful")
    cli(scored, "thresholds", "--conformal-components", 0.5, "--into", detector, "--name", "conformal")
    found = Detector.from_folder(detector).thresholds
    assert set(found) == {"default", "careful", "conformal"}
    assert found["conformal"]["origin"]["conformal"]["n"] == origin["frames_with_anomaly"]
    capsys.readouterr()
    cli(scored, "thresholds", "--tpr", 0.9, "--into", detector)
    # without its spaces: a long folder's name may break the line anywhere
    assert "(bestF1onanomaly-track)" in "".join(capsys.readouterr().out.split())


def test_thresholds__refuses_other_detectors_and_the_shipped_one(scored, detector, tmp_path):
    table = json.loads((detector / "detector.json").read_text())
    for change, word in (({"score": "rba"}, "score"), ({"score": "maskomaly", "options": {"mix": 1.0}}, "options")):
        (detector / "detector.json").write_text(json.dumps({**table, "members": [{**table["members"][0], **change}]}))
        with pytest.raises(XenomaskError, match=f"did not make the maps .*{word}"):
            cli(scored, "thresholds", "--f1", "--into", detector)
    (detector / "detector.json").write_text(json.dumps({**table, "name": "renamed"}))
    cli(scored, "thresholds", "--f1", "--into", detector)  # a name decides no pixel
    with (detector / "m/model.safetensors").open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x00")
    with pytest.raises(XenomaskError, match="model.safetensors is not the file that detector.json names"):
        cli(scored, "thresholds", "--f1", "--into", detector)
    import xenomask

    shipped = Path(xenomask.__file__).parent / "detectors" / "nano"
    before = (shipped / "detector.json").read_bytes()
    with pytest.raises(XenomaskError, match="is a shipped detector"):
        cli(scored, "thresholds", "--f1", "--into", shipped)
    (tmp_path / "link").symlink_to(shipped)
    with pytest.raises(XenomaskError, match="is a shipped detector"):
        store_threshold(tmp_path / "link", "default", 0.5, {})
    assert (shipped / "detector.json").read_bytes() == before


def test_thresholds__refuses_maps_of_unknown_origin_and_unclear_wishes(scored, detector, tmp_path):
    maps = shutil.copytree(scored / "maps", tmp_path / "maps")
    where = ("--dataset", "anomaly-track", "--root", scored / "data", "--into", detector)
    manifest = json.loads((maps / "manifest.json").read_text())
    (maps / "manifest.json").write_text(json.dumps({**manifest, "dataset": "obstacle-track"}))
    with pytest.raises(XenomaskError, match="maps of obstacle-track, not of anomaly-track"):
        app(["thresholds", "--maps", str(maps), "--f1", *map(str, where)], standalone_mode=False)
    (maps / "manifest.json").unlink()
    with pytest.raises(XenomaskError, match="has no manifest.json"):
        app(["thresholds", "--maps", str(maps), "--f1", *map(str, where)], standalone_mode=False)
    (maps / "manifest.json").write_text(json.dumps({**manifest, "members": 5}))
    with pytest.raises(XenomaskError, match=r"did not make the maps in .* \(other members\)"):
        app(["thresholds", "--maps", str(maps), "--f1", *map(str, where)], standalone_mode=False)
    with pytest.raises(XenomaskError, match="what threshold"):
        cli(scored, "thresholds")
    for words, said in (
        (("--f1", "--name", "mine"), "--name says what --into stores"),
        (("--f1", "--name", "rba:default", "--into", detector), "'rba:default' is no name"),
        (("--f1", "--name", "", "--into", detector), "'' is no name"),
        (("--f1", "--cover", 0.9), "--cover is of --conformal-components"),
    ):
        with pytest.raises(XenomaskError, match=said):
            cli(scored, "thresholds", *words)
    with pytest.raises(XenomaskError, match="--folds is for a fit"):
        cli(scored, "calibrate", "--folds", 3)
    with pytest.raises(XenomaskError, match="stores one threshold"):
        cli(scored, "thresholds", "--f1", "--tpr", 0.5, "--into", detector)
    with pytest.raises(XenomaskError, match="is no detector folder"):
        cli(scored, "thresholds", "--f1", "--into", tmp_path)
    for into, said in (("nano", "is a shipped detector"), ("nanoo", "did you mean 'nano'")):
        with pytest.raises(XenomaskError, match=said):
            cli(scored, "thresholds", "--f1", "--into", into)


def test_from_folder__thresholds_of_older_files_and_damaged_ones(detector):
    table = json.loads((detector / "detector.json").read_text())
    old = {"default": {"value": 0.5, "origin": "best F1 on something"}}
    (detector / "detector.json").write_text(json.dumps({**table, "thresholds": old}))
    assert Detector.from_folder(detector).thresholds == old
    (detector / "detector.json").write_text(json.dumps({**table, "thresholds": {"default": {}}}))
    with pytest.raises(XenomaskError, match="damaged"):
        Detector.from_folder(detector)
