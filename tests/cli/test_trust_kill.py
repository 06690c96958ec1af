"""Killed at any place, a command leaves what was there before or all that it writes; the next run mends the rest."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from helpers.places import TESTS
from helpers.world import SET, TRAIN

COMMANDS = {
    "assemble": ("out", ["assemble", "--out", "{out}", "--member", "a={checkpoint}", "--score", "entropy"]),
    "convert": ("out", ["convert", "{golden}/random_micro.pth", "--config", "{golden}/config.py", "--out", "{out}"]),
    "diagrams": ("out", ["diagrams", "{maps}", *SET, "--out", "{out}"]),
    "export": ("out.onnx", ["export", "{detector}", "--size", "96x64", "--out", "{out}"]),
    "export-openvino": ("o.xml", ["export", "{detector}", "--size", "96x64", "--format", "openvino", "--out", "{out}"]),
    "heatmaps": ("out", ["heatmaps", "--maps", "{maps}", *SET, "--out", "{out}"]),
    "inlier": ("copy/query_analysis", ["queries", "inlier", "--checkpoint", "{copy}", *TRAIN]),
    "outlier": ("copy/query_analysis", ["queries", "outlier", "--checkpoint", "{copy}", *SET, "--top-k", "2"]),
    "report": ("out.html", ["report", "{maps}", *SET, "--out", "{out}"]),
    "sheet": ("out.html", ["queries", "sheet", "--checkpoint", "{checkpoint}", *SET, "--out", "{out}"]),
    "submission": ("out", ["submission", "write", "--maps", "{maps}", *SET, "--out", "{out}", "--method", "mine"]),
}  # fmt: skip

FILE_BY_FILE = ("heatmaps", "diagrams", "inlier", "outlier", "submission")  # whose folder fills up, each file whole
LONG = ("assemble", "diagrams", "export", "export-openvino", "heatmaps", "convert", "inlier")  # a minute or more each
ALL = "XENOMASK_KILL_ALL"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed__anywhere_leaves_the_old_or_the_new(world, tmp_path, name):
    if name in LONG and not os.environ.get(ALL):
        pytest.skip(f"takes minutes: set {ALL}=1")
    output, command = COMMANDS[name]
    out, copy = tmp_path / output, tmp_path / "copy"
    if out.parent == copy:
        shutil.copytree(world["checkpoint"], copy)
    words = [word.format(out=out, copy=copy, **world) for word in command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)]),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(TESTS / "helpers/kills.py"), str(out), *words],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    unharmed = [line for line in lines if line["code"] != -signal.SIGKILL]
    assert [line["code"] for line in unharmed] == [0, 0] and len(lines) > 4
    for before, whole in zip((False, True), unharmed, strict=True):
        for line in lines:
            if line["before"] == before and line["code"] == -signal.SIGKILL:
                # what was there before is the same command's output: a digest, and never nothing, a half or a mixture
                found, good = line["found"], whole["found"]
                if name in FILE_BY_FILE and not before:
                    assert found is None or found.items() <= good.items(), line
                else:
                    assert found == good or (found is None and not before), line
                assert line["after"] == 0 and line["whole"] == whole["found"] and not line["litter"], line
