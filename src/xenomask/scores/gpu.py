"""The fused kernel of a plan on a GPU: what `gpu_kernels.run` is given."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from xenomask.masks import MaskOutput, refuse_nan, row_groups, source
from xenomask.scores import gpu_kernels
from xenomask.scores.plan import Plan
from xenomask.shapes import Float32
from xenomask.types import Size

COLUMNS, ROWS = 32, 4  # a tile's pixels; a warp's thread holds ROWS of them, and for each the plan's sums and classes


def add_scores(
    output: MaskOutput, todo: Plan, weight: float, onto: Float32[np.ndarray, "t H W"] | Float32[Tensor, "t H W"]
) -> None:
    """Adds weight x each score of the plan to `onto`: a tensor on the masks' device, or an array of the host's.

    For the host's, the maps are written once on the device and copied once. Raises XenomaskError for NaN among the
    mask logits.
    """
    refuse_nan(output.mask_logits)
    if isinstance(onto, Tensor):
        run(output, todo, weight, onto, add=True)
        return
    maps = torch.empty(onto.shape, dtype=torch.float32, device=output.mask_logits.device)
    run(output, todo, weight, maps, add=False)
    onto += maps.cpu().numpy()


def run(output: MaskOutput, todo: Plan, weight: float, maps: Float32[Tensor, "t H W"], add: bool) -> None:
    """Writes weight x each score of the plan to `maps` (contiguous, on the masks' device), or adds it; nothing waits.

    The logits are read as they lie, whatever their strides, as float16, bfloat16 or float32 (others are copied); all
    arithmetic is in float32.
    """
    logits = output.mask_logits.detach()
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        logits = logits.float()
    assert maps.is_contiguous() and maps.device == logits.device  # the kernel would write elsewhere
    _, h, w = logits.shape
    H, W = output.image_size
    place = _place(output.image_size, (h, w), output.padded_size, output.input_size, logits.device)
    groups, rows = place[2], place[4]
    table, visits = _table(todo)
    on_device = torch.from_numpy(table).to(logits.device)
    mixes = on_device[len(table) - len(todo.mixes) :]
    counts = len(todo.peaks), len(todo.crowds), len(todo.sums), todo.classes.shape[1]
    steps = tuple(tuple(step) for step in todo.steps.tolist())
    launch: Any = gpu_kernels.run[triton.cdiv(W, COLUMNS), len(groups)]
    with torch.cuda.device_of(logits):
        launch(
            logits, on_device, mixes, *place[:4], maps, weight, visits, *logits.stride(), H, W,
            *counts, steps, add, rows, COLUMNS, num_warps=1,
        )  # fmt: skip


def _table(todo: Plan) -> tuple[np.ndarray, int]:
    """What the kernel reads of a plan, in one array, and how many queries are visited.

    For each of them its number and its weights, then the plan's mixes. A query with no weight anywhere is left out:
    of a trained network that is most of them for Maskomaly, which reads only those that are sure of a class or are in
    the query set, and counts only those that know one.
    """
    weights = np.concatenate([todo.peaks.T, todo.crowds.T, todo.sums.T, todo.classes], 1)
    first, last = len(todo.peaks), len(todo.peaks) + len(todo.crowds)
    idle = np.zeros(weights.shape[1], np.float32)
    idle[first:last] = np.inf  # a border that no logit passes
    picked = np.flatnonzero((weights != idle).any(1))
    rows = np.concatenate([picked[:, None].astype(np.float32), weights[picked]], 1)
    return np.concatenate([rows.ravel(), todo.mixes]), len(picked)


@lru_cache(maxsize=16)
def _place(
    image: Size, cells: Size, padded: Size, used: Size, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Where pixels read (see the kernel) for images of one size, kept on the device, and a tile's rows: 1, 2 or 4."""
    r0, r1, lower = source(image[0], cells[0], padded[0], used[0])
    c0, c1, share = source(image[1], cells[1], padded[1], used[1])
    groups = row_groups(r0, r1, ROWS)
    rows = triton.next_power_of_2(int((groups[:, 1] - groups[:, 0]).max()))
    parts = np.stack([c0, c1]).astype(np.int32), share, groups.astype(np.int32), lower
    return *(torch.from_numpy(part).to(device) for part in parts), rows  # pyright: ignore
