"""Scores of one image -> the plan of one pass over its masks: what is gathered, and how each score is finished."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from xenomask.masks import MaskOutput, class_probabilities, outlier_probabilities
from xenomask.scores import mask, semantic
from xenomask.scores.maskomaly import maskomaly, roles
from xenomask.types import QuerySet

# How a score is finished: the first number of its step.
MASKOMALY, SUM, MAX_LOGIT, MAX_SHARE, MSP, ENERGY, ENTROPY, ENTROPY_SOFTMAX, NOT_COVERED, RBA = range(10)
CLASSES: dict[Callable, int] = {
    semantic.msp: MSP,
    semantic.max_logit: MAX_LOGIT,
    semantic.max_share: MAX_SHARE,
    semantic.entropy: ENTROPY,
    semantic.entropy_softmax: ENTROPY_SOFTMAX,
    semantic.energy: ENERGY,
    semantic.not_covered: NOT_COVERED,
    semantic.rba: RBA,
}
# (constant, weights): constant + sum_q weights_q m_q
SUMS: dict[Callable, Callable[[Tensor, MaskOutput], tuple[float, Tensor]]] = {
    mask.void_mass: lambda p, _: (0.0, p[:, -1]),
    mask.eam: lambda p, _: (1.0, -p[:, :-1].amax(1)),
    mask.uno: lambda p, output: (0.0, outlier_probabilities(output).cpu() - p[:, :-1].amax(1)),
}


@dataclass(frozen=True)
class Plan:
    """What one pass gathers of the masks m_q for some scores of one image, and how each score is finished.

    Gathered: for each row a of `peaks`, max_q peaks[a, q] m_q; for each row c of `crowds`, how many q have a logit
    above crowds[c, q] (infinite: not counted); for each row j of `sums`, sum_q sums[j, q] m_q; and, if `classes` has
    columns, L_k = sum_q classes[q, k] m_q. `steps`, a row a score: its code, and for MASKOMALY the rows of the peaks of
    the rejection and the outlier branch and of the crowd (-1: none), for SUM the row of the sum. `mixes`: Maskomaly's
    mix, or the constant that is added to a sum.
    """

    peaks: Float32[np.ndarray, "a q"]
    crowds: Float32[np.ndarray, "c q"]
    sums: Float32[np.ndarray, "s q"]
    classes: Float32[np.ndarray, "q k"]
    steps: Int64[np.ndarray, "t 4"]
    mixes: Float32[np.ndarray, " t"]


def plan(output: MaskOutput, queries: QuerySet, scores: Sequence[Any]) -> Plan | None:
    """The pass that gathers what these scores (`Score`s) read; None where one of them has no form of this kind.

    Raises XenomaskError for UNO without an outlier class.
    """
    p = class_probabilities(output).cpu()
    peaks, crowds, sums, steps, mixes = [], [], [], [], []
    classes = p[:, :0]
    for s in scores:
        if s.rows in CLASSES:
            classes = p[:, :-1]
            step, mix = (CLASSES[s.rows], -1, -1, -1), 0.0
        elif s.rows is maskomaly:
            o = {k: v.default for k, v in inspect.signature(maskomaly).parameters.items()} | dict(s.options)
            top, known, sure, outlier, ground = roles(p, queries, o["inlier"], o["confidence"])
            # Ground queries lower what the rule of borders left of R, and its 0 cannot be lowered: so one peak of the
            # inlier and ground queries together gives the same.
            inside = _place(peaks, top * (sure | ground))
            strange = _place(peaks, top * outlier) if outlier.any() else -1
            crowd = -1
            if o["border"] is not None:
                border = torch.logit(torch.tensor(float(o["border"]), dtype=torch.float64).clamp(0, 1))
                crowd = _place(crowds, torch.where(known, border, torch.inf))
            step, mix = (MASKOMALY, inside, strange, crowd), o["mix"]
        elif s.rows in SUMS:
            constant, weights = SUMS[s.rows](p, output)
            step, mix = (SUM, _place(sums, weights), -1, -1), constant
        else:
            return None
        steps.append(step)
        mixes.append(mix)
    table = {"peaks": peaks, "crowds": crowds, "sums": sums}
    gathered = {k: _table(v, len(p)) for k, v in table.items()}
    return Plan(**gathered, classes=_array(classes), steps=np.array(steps, np.int64), mixes=np.array(mixes, np.float32))


def _place(rows: list[Tensor], row: Tensor) -> int:
    """The row's index; scores that gather the same share it."""
    for i, other in enumerate(rows):
        if torch.equal(row, other):
            return i
    rows.append(row)
    return len(rows) - 1


def _table(rows: list[Tensor], q: int) -> np.ndarray:
    return _array(torch.stack(rows)) if rows else np.empty((0, q), np.float32)


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.numpy(), np.float32)
