"""`xenomask evaluate`, `compare` and the guards, as a user meets them."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from helpers.places import TESTS
from xenomask.cli import main
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.evaluation.benchmark import open_suite
from xenomask.evaluation.evaluate import clips_of, compare_maps, evaluate_maps
from xenomask.evaluation.heatmaps import draw_heatmaps
from xenomask.metrics import evaluate, guards
from xenomask.metrics.components import NAMES
from xenomask.metrics.temporal import video_consistency
from xenomask.store import read_map, write_map
from xenomask.types import ScoreMap

GOLDEN = TESTS / "golden" / "evaluation"
PIXEL = {
    "aupr_sum", "aupr_trapz", "auroc", "fpr95", "best_f1", "best_f1_threshold", "prevalence", "pixels", "positives",
    "tpr_fpr5",
}  # fmt: skip


def run(capsys, *arguments):
    sys.argv = ["xenomask", *map(str, arguments)]
    with pytest.raises(SystemExit) as done:
        main()
    out, err = capsys.readouterr()
    return done.value.code or 0, out, err


def lay_out(root: Path, frames, maps="maps"):
    """<root>/labels_masks/<id>.png and <root>/<maps>/<id>.hdf5, nothing else."""
    (root / "labels_masks").mkdir(parents=True, exist_ok=True)
    (root / maps).mkdir(exist_ok=True)
    for name, (score, label) in frames.items():
        Image.fromarray(label).save(root / "labels_masks" / f"{name}.png")
        with h5py.File(root / maps / f"{name}.hdf5", "w") as f:
            f["value"] = score
    return root / maps


@pytest.fixture
def golden(tmp_path):
    loaded = np.load(GOLDEN / "ties.npz")
    frames = {f"frame{i:04d}": (s, y) for i, (s, y) in enumerate(zip(loaded["score"], loaded["label"], strict=True))}
    return lay_out(tmp_path, frames)


@pytest.mark.parametrize("track", ["anomaly", "obstacle"])
def test_evaluate__the_contract(golden, tmp_path, capsys, track):
    out = tmp_path / "numbers.json"
    command = ("evaluate", "--maps", golden, "--dataset", "folder", "--root", tmp_path, "--track", track, "--json", out)
    code, _, err = run(capsys, *command)
    assert code == 0 and "warning" not in err, err
    found = json.loads(out.read_text())
    assert set(found["exact"]) == set(found["official"]) == PIXEL
    assert {f"{n}_{tau}" for n in ("tp", "fp", "fn", "f1") for tau in NAMES} <= set(found["components"])
    assert {"f1_mean", "sIoU_gt", "sIoU_pred", "prec_pred"} <= set(found["components"])
    expected = json.loads((GOLDEN / f"ties_expected_official_{track}_track.json").read_text())
    assert found["official"]["fpr95"] == pytest.approx(expected["fpr95"], abs=1e-9)
    low, high = found["official_order_range"]["aupr_trapz"]
    assert low <= expected["aupr_trapz"] <= high and low <= found["official"]["aupr_trapz"] <= high
    for name, value in expected["component"].items():
        assert found["components"][name] == pytest.approx(value, abs=1e-9)
    low, high = found["intervals"]["exact"]["fpr95"]
    assert low < found["exact"]["fpr95"] < high


def test_evaluate__all_conventions_in_one_table(golden, tmp_path, capsys):
    out = tmp_path / "numbers.json"
    code, text, _ = run(
        capsys, "evaluate", "--maps", golden, "--dataset", "folder", "--root", tmp_path, "--conventions", "all",
        "--resamples", "0", "--json", out,
    )  # fmt: skip
    assert code == 0 and "rba_720x1280" in text and "Mask2Anomaly" in text
    found = json.loads(out.read_text())
    expected = json.loads((GOLDEN / "ties_expected_exact.json").read_text())
    assert found["conventions"]["maskomaly"]["fpr"] == pytest.approx(expected["fpr90_first_gt(maskomaly)"], abs=1e-12)
    assert found["intervals"] == {}


def test_compare__a_method_beats_its_noisier_copy_and_ties_with_itself(golden, tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "noisy").mkdir()
    for path in golden.iterdir():
        value = read_map(path).astype(np.float32)
        noisy = value + rng.normal(0, 0.3, value.shape).astype(np.float32)
        write_map(tmp_path / "noisy" / path.name, ScoreMap(noisy, "noisy"))
    out = tmp_path / "c.json"
    data = ("--dataset", "folder", "--root", tmp_path)
    code, text, err = run(
        capsys, "compare", golden, tmp_path / "noisy", golden, *data, "--json", out, "--resamples", 200
    )
    assert code == 0 and "A better" in text, err
    rows = {(r["b"], r["convention"], r["number"]): r for r in json.loads(out.read_text())}
    better = rows[str(tmp_path / "noisy"), "exact", "aupr_sum"]
    assert better["difference"] > 0 and better["interval"][0] > 0 and better["wins"] > 0.95
    lower = rows[str(tmp_path / "noisy"), "exact", "fpr95"]  # lower is better there
    assert lower["difference"] < 0 and lower["wins"] > 0.5
    same = rows[str(golden), "official", "aupr_sum"]
    assert (same["difference"], same["wins"], same["interval"]) == (0, 0.5, [0, 0])
    command = ("compare", golden, *[tmp_path / "noisy"] * 2, *data, "--json", out, "--resamples", 20)
    assert run(capsys, *command)[0] == 0
    numbers = [(r["convention"], r["number"]) for r in json.loads(out.read_text())]
    assert len(set(numbers)) == len(numbers)  # a folder that is named twice is compared once


def test_compare__differences_are_those_of_paired_resamples(golden, tmp_path):
    from xenomask.metrics.frames import resample
    from xenomask.metrics.resampling import draw, interval

    data = open_dataset("folder", tmp_path)
    measured = evaluate_maps(golden, data, "anomaly", resamples=0).measured
    drawn = resample(measured, draw(6, 40, seed=3))
    row = next(r for r in compare_maps([golden, golden], data, "anomaly", resamples=40, seed=3) if r.number == "fpr95")
    assert row.interval == interval(drawn["exact"]["fpr95"] - drawn["exact"]["fpr95"])


def test_compare__needs_frames_and_resamples_for_an_interval(tmp_path, capsys):
    maps = lay_out(tmp_path, dict([next(iter(some().items()))]))
    code, _, err = run(capsys, "compare", maps, maps, "--dataset", "folder", "--root", tmp_path)
    assert code == 2 and "two labelled frames" in err
    maps = lay_out(tmp_path, some())
    code, _, err = run(capsys, "compare", maps, maps, "--dataset", "folder", "--root", tmp_path, "--resamples", 0)
    assert code == 2 and "--resamples" in err


def two(score, label):
    """A frame beside a harmless one."""
    rng = np.random.default_rng(1)
    y = (rng.random((12, 12)) < 0.3).astype(np.uint8)
    return {"a": (score, label), "b": ((rng.random((12, 12)) + y).astype(np.float16), y)}


HALF = np.full((4, 4), 0.5, np.float16)
ONE = np.eye(4, dtype=np.uint8)


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (two(np.full((4, 4), np.nan, np.float32), ONE), "NaN"),
        (two(np.zeros((4, 5), np.float16), ONE), "frame a: map is 5x4, its label 4x4"),
        (two(HALF, ONE * 7), "holds the values [7]"),
        ({"a": (HALF, ONE * 0)}, "no pixel is labelled anomaly"),
        ({"a": (HALF, ONE * 0 + 1)}, "no pixel is labelled inlier"),
        ({"a": (HALF, ONE * 0 + 255)}, "only 0 and 255, and 255 is void"),
    ],
)
def test_evaluate__refuses_what_cannot_be_counted(frames, error, tmp_path, capsys):
    maps = lay_out(tmp_path, frames)
    code, _, err = run(capsys, "evaluate", "--maps", maps, "--dataset", "folder", "--root", tmp_path)
    assert code == 2 and error in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err


def test_evaluate__missing_and_extra_frames_and_unknown_track(golden, tmp_path, capsys):
    data = ("--dataset", "folder", "--root", tmp_path)
    code, _, err = run(capsys, "evaluate", "--maps", golden, *data, "--track", "anomoly")
    assert code == 2 and "did you mean 'anomaly'?" in err
    (golden / "frame0003.hdf5").rename(golden / "other.hdf5")
    code, _, err = run(capsys, "evaluate", "--maps", golden, *data)
    assert code == 2 and "1 of 6 labelled frames have no map" in err and "frame0003" in err
    (tmp_path / "labels_masks" / "frame0003.png").unlink()
    code, _, err = run(capsys, "evaluate", "--maps", golden, *data)
    assert code == 2 and "1 maps that belong to no frame" in err and "other" in err


def test_evaluate__says_what_rounding_to_float16_costs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    frames = {k: (rng.random(y.shape) + y, y) for k, (_, y) in some().items()}
    maps = lay_out(tmp_path, frames)
    code, _, err = run(capsys, "evaluate", "--maps", maps, "--dataset", "folder", "--root", tmp_path)
    assert code == 0 and "stored in wider floats (frame f0)" in err and "% of the distinct values" in err
    (tmp_path / "npy").mkdir()
    for k, (s, _) in frames.items():
        np.save(tmp_path / f"npy/{k}.npy", s if k == "f2" else s.astype(np.float16))
    words = ("--dataset", "folder", "--root", tmp_path, "--pattern", "{id}.npy")
    assert "wider floats (frame f2)" in run(capsys, "evaluate", "--maps", tmp_path / "npy", *words)[2]


def test_evaluate__clips_add_numbers_over_time(tmp_path, capsys):
    frames = {}
    for i in range(12):  # one clip of ten frames, one of two; the object of the first is lost in frame 4
        y = np.zeros((40, 60), np.uint8)
        y[10:22, 5 + i : 17 + i] = 1
        s = np.where((y == 1) & (i != 4), 0.9, 0.1) + np.arange(60) / 1e4
        y[30:, :4] = 255
        s[30:, :4] = (i + 1) % 2  # which VC* must not see
        frames[f"{'a' if i < 10 else 'b'}_{i}"] = s.astype(np.float16), y
    maps = lay_out(tmp_path, frames)
    command = ("evaluate", "--maps", maps, "--dataset", "folder", "--root", tmp_path, "--track", "obstacle", "--clips")
    code, out, err = run(capsys, *command, "--json", tmp_path / "x.json")
    assert code == 0 and "over time" in out, err
    found = json.loads((tmp_path / "x.json").read_text())["clips"]
    assert found["clips"] == 2 and found["found"] == 1 and found["lost_again"] == 0.5
    true = [y == 1 for _, y in list(frames.values())[:10]]
    expected = video_consistency([m & (i != 4) for i, m in enumerate(true)], [m.astype(np.uint8) for m in true])
    assert 0 < found["vc_star"] < 1 and found["vc_star"] == pytest.approx(expected, abs=1e-12)
    assert found["false_lifetime"] is None and found["false_per_frame"] == 0
    for k, name in enumerate(frames):  # one of these names has a _, and no number behind it
        for path in (maps / f"{name}.hdf5", tmp_path / "labels_masks" / f"{name}.png"):
            path.rename(path.with_name(f"street_{'abcdefghijkl'[k]}{path.suffix}"))
    code, _, err = run(capsys, *command)
    assert code == 2 and "no two frames are of one clip" in err


def test_clips_of__numbers_count_whatever_their_zeros():
    assert clips_of(["v_10", "v_0002", "v_0001", "w_3", "lone", "a_left", "a_right"]) == [["v_0001", "v_0002", "v_10"]]


def test_evaluate__recall_by_size_counts_true_components_alone(tmp_path, capsys):
    y = np.zeros((80, 120), np.uint8)
    y[:12, :12] = y[:16, 50:66] = y[20:70, :50] = 1  # 144, 256 and 2500 pixels; the second is missed
    s = np.where((y == 1) & (np.arange(120) < 50), 0.9, 0.1) + np.arange(120) / 1e4
    s[60:, 100:] = 0.95  # a false object, which no range has
    maps = lay_out(tmp_path, {"a": (s.astype(np.float16), y)})
    command = ("evaluate", "--maps", maps, "--dataset", "folder", "--root", tmp_path, "--track", "obstacle")
    code, out, err = run(capsys, *command, "--by-size", "--json", tmp_path / "x.json")
    assert code == 0 and "true components by size" in out, err
    found = json.loads((tmp_path / "x.json").read_text())["by_size"]
    assert {k: (n["objects"], n["recall"]) for k, n in found.items()} == {
        "0 .. 255": (1, 1), "256 .. 2303": (1, 0), "2304 .. 12543": (1, 1), "from 12544": (0, None)
    }  # fmt: skip


def warned(frames, track="anomaly"):
    return " | ".join(evaluate(list(frames), frames.__getitem__, track, resamples=0).warnings)


def some(seed=0, n=3):
    rng = np.random.default_rng(seed)
    frames = {}
    for i in range(n):
        y = (rng.random((30, 30)) < 0.2).astype(np.uint8)
        frames[f"f{i}"] = (rng.random((30, 30)) + y * 0.8).astype(np.float16), y
    return frames


def test_guards__silent_where_nothing_is_wrong():
    assert warned(some()) == ""


def test_guards__flipped_polarity():
    assert "upside down" in warned({k: (-s, y) for k, (s, y) in some().items()})


def test_guards__binary_maps_give_an_empty_official_mask():
    assert "mask, score > threshold, is empty" in warned({k: (y.astype(np.float16), y) for k, (_, y) in some().items()})


def test_guards__masks_instead_of_scores():
    frames = some()
    few, many = ({k: ((s * n).round(), y) for k, (s, y) in frames.items()} for n in (8, 40))
    assert len(np.unique([s for s, _ in few.values()])) <= guards.FEW_VALUES
    assert "distinct values: they are masks" in warned(few)
    assert "distinct values: they are masks" not in warned(many)
    half = {k: (np.where(s > 1.2, s, 0.5), y) for k, (s, y) in frames.items()}  # FPR jumps from almost 0 to 1
    assert "has FPR 100.0 %" in warned(half) and "TPR at FPR 5 % is too good" not in warned(frames)


def test_guards__constant_maps():
    assert "single value 0.5" in warned({k: (s * 0 + np.float16(0.5), y) for k, (s, y) in some().items()})


def test_guards__scores_that_saturate_in_float16():
    # as a product of masks does: what lies above .9998 becomes 1, anomalous or not
    frames = {k: (np.where(s > 0.6, 1 - 1e-5 * s, s).astype(np.float16), y) for k, (s, y) in some().items()}
    assert "hold the largest score" in warned(frames) or "is empty" in warned(frames)
    assert guards.float16_loss(np.linspace(0.9999, 1, 1000)) > 0.99


def test_guards__void_frames_and_a_single_anomalous_one():
    frames = some(n=2)
    s, y = frames["f0"]
    assert "1 frames are wholly void" in warned({**frames, "v": (s, y * 0 + 255)})
    assert "only frame f0 has an anomaly" in warned({"f0": (s, y), "f1": (s, y * 0)})


def test_evaluate__loads_no_torch():
    code = "import sys, xenomask.evaluation.evaluate, xenomask.store.submission; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_tables__the_same_numbers_in_every_format(tiny_detector):
    from xenomask.detector import Detector
    from xenomask.evaluation.benchmark import Entry, Method
    from xenomask.evaluation.tables import latex, markdown, table_csv, table_json

    frames = some()
    result = evaluate(list(frames), frames.__getitem__, "obstacle", resamples=30)
    detector = Detector.from_folder(tiny_detector)
    entries = [Entry("anomaly-track", Method(detector, "max_logit", "ensemble", "-"), result)]
    aupr = result.numbers["exact"]["aupr_sum"]
    low, high = result.intervals["exact"]["aupr_sum"]
    text = markdown(entries)
    assert f"{aupr:.4f} ({low:.3f} .. {high:.3f})" in text and "Mask2Anomaly | 0.9450" in text
    assert rf"max\_logit & - & exact & ${100 * aupr:.2f}_{{{100 * low:.1f}}}^{{{100 * high:.1f}}}$" in latex(entries)
    assert latex(entries).count(r" \\") == 3
    lines = {(r["data_set"], r["convention"], r["number"]): r for r in csv.DictReader(table_csv(entries).splitlines())}
    assert float(lines["anomaly-track", "exact", "aupr_sum"]["value"]) == aupr
    assert any(r["convention"] == "published" and r["source"] for r in lines.values())
    assert table_json(entries)["rows"][0]["numbers"]["exact"]["aupr_sum"] == aupr


def test_suite__all_is_every_labelled_evaluation_set_that_is_found(tmp_path):
    with pytest.raises(XenomaskError, match="no labelled evaluation set"):
        open_suite("all", tmp_path)
    write_scenes(tmp_path / "smiyc", "anomaly-track", 2, size=(64, 96))
    write_scenes(tmp_path / "smiyc", "obstacle-track", 1, size=(64, 96))
    assert [(d.name, len(d.frames)) for d in open_suite("all", tmp_path)] == [
        ("anomaly-track", 2),
        ("obstacle-track", 1),
    ]
    assert [d.name for d in open_suite("all", tmp_path / "smiyc")] == ["anomaly-track", "obstacle-track"]
    write_scenes(tmp_path / "copy", "anomaly-track", 1, size=(64, 96))
    with pytest.raises(XenomaskError, match="anomaly-track lies in .* and in"):
        open_suite("all", tmp_path)
    with pytest.raises(XenomaskError, match="no such folder"):
        open_suite("all", tmp_path / "nowhere")


def test_benchmark__counts_the_labelled_of_own_maps_as_evaluate_does(tmp_path, capsys):
    frames = some()
    maps = lay_out(tmp_path, frames)
    (tmp_path / "images").mkdir()
    for name in frames:
        Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels_masks/f1.png").unlink()
    words = ("--dataset", "folder", "--root", tmp_path, "--resamples", 0, "--json", tmp_path / "x.json")
    assert run(capsys, "evaluate", "--maps", maps, *words)[0] == 0
    expected = json.loads((tmp_path / "x.json").read_text())["exact"]
    code, _, err = run(capsys, "benchmark", "--maps", f"mine={maps}", *words, "--out", tmp_path / "b")
    assert code == 0, err
    (row,) = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert row["numbers"]["exact"] == expected and row["frames"] == 2


def test_heatmaps__are_drawn_of_frames_without_an_anomaly(tmp_path):
    maps = lay_out(tmp_path, {k: (s, y * 0) for k, (s, y) in some().items()})
    (tmp_path / "images").mkdir()
    for name in some():
        Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    found = draw_heatmaps(maps, open_dataset("folder", tmp_path), tmp_path / "out")
    assert [p.name for p in found] == ["f0.png", "f1.png", "f2.png", "contact_sheet.jpg"]


@pytest.fixture
def hostile(tiny_detector, tmp_path):
    """A detector from elsewhere, whose name leads out of a folder and is markup in every table."""
    folder = shutil.copytree(tiny_detector, tmp_path / "hostile")
    table = json.loads((folder / "detector.json").read_text())
    name = f"{tmp_path}/escaped|\n\\input{{x}}^~"
    members = [{**m, "weight": 0.5} for m in table["members"]]
    (folder / "detector.json").write_text(json.dumps({**table, "name": name, "members": members}))
    return folder


def test_benchmark__a_detectors_name_leads_nowhere_and_is_text(hostile, tmp_path, capsys):
    root = write_scenes(tmp_path / "data", "folder", 2, size=(64, 96))
    words = ("benchmark", "--dataset", "folder", "--root", root, "--resamples", 0, "--out", tmp_path / "b")
    code, _, err = run(capsys, *words, "--detector", hostile, "--scores", "own,entropy", "--layout", "paper")
    assert code == 0, err  # entropy is its own score: one method
    assert not list(tmp_path.glob("escaped*"))
    (maps,) = [p for p in (tmp_path / "b/folder").iterdir() if p.is_dir()]
    assert len(list(maps.glob("*.hdf5"))) == 2
    for name in ("table.md", "paper.md"):
        lines = [line for line in (tmp_path / "b" / name).read_text().splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1 and "escaped\\|" in lines[-1]
    for name in ("table.tex", "paper.tex"):
        lines = [line for line in (tmp_path / "b" / name).read_text().splitlines() if line[0] != "%"]
        (line, *_) = [line for line in lines if "escaped" in line]
        assert "\\textbackslash{}input\\{x\\}\\textasciicircum{}\\textasciitilde{}" in line
        assert not any(line.startswith("\\input") for line in lines)
