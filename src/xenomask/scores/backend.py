"""Which code gathers the rows of scores: the fused kernel for CPUs, the one for GPUs, NumPy, or plain PyTorch."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xenomask.errors import XenomaskError, first_line, unknown
from xenomask.jit import check_triton

KERNELS = ("auto", "numba", "numpy", "triton", "torch")


@dataclass(frozen=True)
class Backend:
    """A way to compute scores: its name, why it was taken, and add(output, plan, weight, onto), None for torch."""

    name: str
    why: str
    add: Callable[..., Any] | None = None


@lru_cache
def choose(kernel: str, device: str) -> Backend:
    """The way for a device ("cpu", "cuda"): "auto" takes numba on the CPU and else torch, saying why.

    Raises XenomaskError for an unknown path, one of another device, and a requested one that cannot be loaded.

    >>> choose("torch", "cpu").why
    'requested'
    """
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)
    if kernel == "torch":
        return Backend("torch", "requested")
    if kernel == "numpy" and device == "cpu":
        return Backend(kernel, "one photo is done before compiled code is loaded", _load(kernel))
    own = {"cpu": "numba", "cuda": "triton"}.get(device)
    if kernel not in ("auto", own):
        raise XenomaskError(
            f"kernel {kernel} is not for device {device}: take --kernel {own or 'torch'}, or leave it out"
        )
    if own is None:
        return Backend("torch", f"no compiled path for device {device}")
    if own == "triton" and kernel == "auto":  # NOTE: it has never run on a GPU
        return Backend("torch", "the default on cuda; the Triton kernel is experimental: --kernel triton")
    try:
        return Backend(own, "requested" if kernel == own else f"the default on {device}", _load(own))
    except Exception as e:  # whatever keeps a compiler from loading, PyTorch still works
        reason = f"{own} does not load: {type(e).__name__}: {first_line(e)}"
        if kernel == own:
            raise XenomaskError(f"{reason}; take --kernel torch") from e
        return Backend("torch", reason)


def _load(name: str) -> Callable[..., Any]:
    if name == "triton":
        check_triton()
    module = {"numba": "cpu", "numpy": "plain", "triton": "gpu"}[name]
    return importlib.import_module(f"xenomask.scores.{module}").add_scores
