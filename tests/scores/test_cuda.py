"""What chooses ways of a GPU, where there is none; the benchmark for one, tried on the CPU."""

import json
import os
import subprocess
import sys

import pytest

from helpers.places import ROOT
from xenomask.models import deformable
from xenomask.scores import backend


def test_code_that_never_ran_on_a_gpu__is_no_default(monkeypatch):
    chosen = backend.choose("auto", "cuda")
    assert chosen.name == "torch" and "experimental: --kernel triton" in chosen.why
    monkeypatch.delenv("XENOMASK_TRITON", raising=False)
    deformable._on_cuda.cache_clear()
    assert deformable._on_cuda() is None


@pytest.mark.slow
def test_benchmark__dry_run_compares_the_ways_that_a_cpu_has(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1 and "no CUDA device: this benchmark times a GPU" in refused.stderr
    assert not any(tmp_path.iterdir())
    done = subprocess.run([*command, "--dry"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {r["name"]: r for r in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    assert found["float32"]["largest_difference"] < 1e-5 < found["bfloat16"]["largest_difference"] < 0.1
    assert "kernel triton is not for device cpu" in found["bfloat16, triton"]["failed"]
    assert (tmp_path / "gpu.md").read_text() in done.stdout
