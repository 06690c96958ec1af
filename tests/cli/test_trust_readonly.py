"""Where a command may not write, it says so in one line before it works, and ends with exit code 2."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.places import TESTS
from helpers.world import SET, TRAIN, run
from xenomask.datasets.synthetic import write_scenes

DROP, DAC_OVERRIDE = 24, 1  # PR_CAPBSET_DROP of Linux' prctl, and the right to write where the file's mode forbids it

EACH = """
import contextlib, io, json, sys
from xenomask.cli import main
for words in json.loads(sys.stdin.read()):
    sys.argv, err, code = ["xenomask", "--quiet", *words], io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            main()
    except SystemExit as e:
        code = e.code or 0
    except BaseException as e:
        code = repr(e)
    print(json.dumps([code, err.getvalue()]))
"""


def without_root_rights() -> None:
    """Root writes anywhere but for this; others may drop nothing, and need not."""
    ctypes.CDLL(None).prctl(DROP, DAC_OVERRIDE, 0, 0, 0)


DETECTOR = ["--detector", "{detector}"]
# "{new}" is a name in a folder that may not be written, "{folder}" such a folder with whole files of that command
COMMANDS = {
    "agreement": ["agreement", "{maps}", "{other}", *SET, "--out", "{new}"],
    "assemble": ["assemble", "--out", "{new}", "--member", "a={checkpoint}", "--score", "entropy"],
    "benchmark": ["benchmark", *SET, *DETECTOR, "--out", "{new}"],
    "benchmark, there": ["benchmark", *SET, *DETECTOR, "--out", "{folder}"],
    "calibrate": ["calibrate", "--maps", "{plain}", *SET, "--fit", "isotonic", "--into", "{folder}/detector"],
    "components": ["components", "{maps}", "--threshold", "0.1", "--out", "{new}.json"],
    "components, pictures": ["components", "{maps}", "--threshold", "0.1", "--out", "{free}/c.json", "--png16",
                             "{folder}"],
    "convert": ["convert", "{golden}/random_micro.pth", "--config", "{golden}/config.py", "--out", "{new}"],
    "crossval": ["crossval", *SET, *DETECTOR, "--choose", "weights", "--cache", "{new}"],
    "datasets": ["datasets", "--json", "{new}.json"],
    "demo": ["demo", "--out", "{new}"],
    "detect": ["detect", "{photo}", *DETECTOR, "--out", "{new}"],
    "detect, there": ["detect", "{photo}", *DETECTOR, "--out", "{folder}"],
    "diagrams": ["diagrams", "{maps}", *SET, "--out", "{folder}"],
    "evaluate": ["evaluate", "--maps", "{maps}", *SET, "--json", "{folder}/file.json"],
    "export": ["export", "{detector}", "--size", "96x64", "--out", "{new}.onnx"],
    "export, there": ["export", "{detector}", "--size", "96x64", "--format", "openvino", "--out", "{folder}/file.xml"],
    "heatmaps": ["heatmaps", "--maps", "{maps}", *SET, "--out", "{folder}"],
    "inlier": ["queries", "inlier", "--checkpoint", "{folder}/checkpoint", *TRAIN],
    "thresholds": ["thresholds", "--maps", "{plain}", *SET, "--f1", "--into", "{folder}/detector"],
    "outlier": ["queries", "outlier", "--checkpoint", "{folder}/checkpoint", *SET, "--top-k", "2"],
    "quantize": ["quantize", "{detector}", "--dataset", "folder", "--root", "{five}", "--size", "96x64", "--frames",
                 "5", "--out", "{new}"],
    "report": ["report", "{maps}", *SET, "--out", "{new}.html"],
    "report, there": ["report", "{maps}", *SET, "--out", "{folder}/file.html"],
    "score": ["score", *SET, *DETECTOR, "--out", "{new}"],
    "score, there": ["score", *SET, *DETECTOR, "--out", "{folder}"],
    "score, its own": ["score", *SET, *DETECTOR, "--score", "max_logit", "--out", "{half}"],
    "sheet": ["queries", "sheet", "--checkpoint", "{checkpoint}", *SET, "--out", "{new}.html"],
    "submission": ["submission", "write", "--maps", "{maps}", *SET, "--out", "{new}", "--method", "mine"],
    "synthetic": ["synthetic", "--out", "{new}", "--frames", "1", "--size", "96x64"],
    "train": ["train", "{recipe}"],
    "video": ["video", "{video}", *DETECTOR, "--out", "{new}.avi"],
    "video, maps": ["video", "{video}", *DETECTOR, "--out", "{free}/out.avi", "--maps", "{new}"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are dropped in Linux' way")
def test_commands__where_they_may_not_write(world, tmp_path):  # noqa: F811
    shut, free, plain = tmp_path / "shut", tmp_path / "free", tmp_path / "plain"
    free.mkdir()
    run([word.format(**world) for word in ("score", *SET, *DETECTOR, "--out", str(plain))])  # of its own score
    shutil.copytree(world["detector"], shut / "detector")
    shutil.copytree(world["checkpoint"], shut / "checkpoint")
    shutil.copytree(world["maps"], shut / "half")  # the same run's, one map of two: the other cannot be added
    next((shut / "half").glob("*.hdf5")).unlink()
    for name in ("file.html", "file.json", "file.xml", "file.bin"):
        (shut / name).write_text("old")
    written = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (96, 64))
    for level in (0, 200):
        written.write(np.full((64, 96, 3), level, np.uint8))
    written.release()
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f'preset = "tiny"\nwork_dir = "{shut}/work"\n[data]\ndataset = "folder"\ntrain = "{world["train"]}"\n'
        f'val = "{world["train"]}"\n[augment]\nshort_edge = [48, 80]\ncrop = [32, 64]\n'
        "[optim]\niterations = 1\n"
    )
    names = {
        **world, "new": str(shut / "new"), "folder": str(shut), "half": str(shut / "half"), "free": str(free),
        "plain": str(plain), "five": str(write_scenes(tmp_path / "five", "train-ids", 5, size=(64, 96))),
        "other": world["maps"], "video": str(tmp_path / "v.avi"), "recipe": str(recipe),
        "photo": str(next(Path(world["root"]).rglob("*.jpg"))),
    }  # fmt: skip
    before = {p: p.stat().st_mtime_ns for p in shut.rglob("*")}
    for folder in (shut, *(p for p in shut.rglob("*") if p.is_dir())):
        folder.chmod(0o555)
    commands = [[word.format(**names) for word in words] for words in COMMANDS.values()]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), "OMP_NUM_THREADS": "1"}
    try:
        probe = f"open({str(shut / 'probe')!r}, 'w')"
        drop = without_root_rights if os.geteuid() == 0 else None
        if subprocess.run([sys.executable, "-c", probe], capture_output=True, preexec_fn=drop).returncode == 0:
            pytest.skip("this user may write everywhere, and the right to cannot be dropped")
        done = subprocess.run(
            [sys.executable, "-c", EACH], input=json.dumps(commands), capture_output=True, text=True, env=environment,
            preexec_fn=drop,
        )  # fmt: skip
    finally:
        for folder in (shut, *(p for p in shut.rglob("*") if p.is_dir())):
            folder.chmod(0o755)
    assert done.returncode == 0, done.stderr[-2000:]
    wrong = {}
    for name, line in zip(COMMANDS, done.stdout.splitlines(), strict=True):
        code, err = json.loads(line)
        if code != 2 or err.count("\n") != 1 or not err.startswith("error: cannot write"):
            wrong[name] = (code, err[-300:])
    assert not wrong, "\n".join(f"{n}: {w}" for n, w in wrong.items())
    assert {p: p.stat().st_mtime_ns for p in shut.rglob("*")} == before
