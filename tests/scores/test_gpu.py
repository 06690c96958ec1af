"""The GPU's pass where there is no GPU: in Triton's interpreter, and through its compiler to machine code."""

import os
import subprocess
import sys

import numpy as np
import pytest

from helpers.places import ROOT, TESTS
from xenomask.errors import XenomaskError
from xenomask.scores import backend

MISSING = "Triton, which compiles the GPU's pass, is not installed"


def child(*arguments, cwd=ROOT, **environment):
    pytest.importorskip("triton", reason=MISSING)
    given = {"TRITON_INTERPRET": "0", "PYTHONPATH": f"{ROOT / 'src'}:{TESTS}", **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=os.environ | given, capture_output=True, text=True, cwd=cwd)


@pytest.mark.slow
def test_gpu__kernels_equal_torch_in_the_interpreter():
    triton = pytest.importorskip("triton", reason=MISSING)
    release = tuple(map(int, triton.__version__.split(".")[:2]))
    if release < (3, 8) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("Triton 3.6's interpreter cannot read a loop's bound with NumPy 2.4 (int of an array); 3.8's can")
    done = child("-m", "pytest", "tests/helpers/gpu_interpreted.py", "-p", "no:cacheprovider", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


# The types and values that a launch for a 1024 x 2048 image would give, and all eight often-used scores.
COMPILE = """
import subprocess
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from xenomask.scores import gpu, gpu_kernels
kernel = gpu_kernels.run
steps = ((0, 0, 1, 0), (1, 0, -1, -1), (9, -1, -1, -1), (2, -1, -1, -1), (4, -1, -1, -1), (6, -1, -1, -1),
         (5, -1, -1, -1), (1, 1, -1, -1))
fixed = dict(stride_x=1, A=2, C=1, S=2, K=19, STEPS=steps, ADD=False, ROWS=gpu.ROWS, COLUMNS=gpu.COLUMNS)
types = dict(logits="*bf16", table="*fp32", mixes="*fp32", columns="*i32", share="*fp32", groups="*i32", lower="*fp32",
             out="*fp32", weight="fp32", visits="i32", stride_q="i32", stride_y="i32", H="i32", W="i32")
names = kernel.arg_names
signature = {n: types.get(n, "constexpr") for n in names}
constants = {(names.index(n),): value for n, value in fixed.items()}
source = ASTSource(kernel, signature, constexprs=constants)
made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
cubin = Path("run.cubin")
cubin.write_bytes(made.asm["cubin"])
tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
used = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True)
print(made.metadata.shared, used.stdout)
"""


@pytest.mark.slow
def test_gpu__eight_scores_compile_for_an_h100_and_spill_nothing(tmp_path):
    done = child("-c", COMPILE, cwd=tmp_path, TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 ") and "STACK:0 SHARED:0 LOCAL:0" in done.stdout, done.stdout


def test_benchmark__without_a_gpu_says_so_in_one_line(tmp_path):
    done = child("benchmarks/postprocess_gpu.py", "--out", str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.strip().splitlines()[-1] == "no CUDA device: this benchmark times a GPU, and nothing was measured"
    )
    assert not any(tmp_path.iterdir())


def test_choose__a_gpu_without_a_driver_is_one_line(monkeypatch):
    def broken(name):
        raise RuntimeError("0 active drivers ([]). There should only be one.")

    monkeypatch.setattr(backend, "_load", broken)
    backend.choose.cache_clear()
    try:
        with pytest.raises(XenomaskError, match="triton does not load: .*; take --kernel torch"):
            backend.choose("triton", "cuda")
    finally:
        backend.choose.cache_clear()
