"""Scores of one image -> the plan of the fused kernel: what is gathered, and how each score is finished."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xenomask.arrays import NumbersLike, Tensor, as_array
from xenomask.scores.codes import MASKOMALY, SUM
from xenomask.scores.definition import Gather, Score
from xenomask.shapes import Float, Float32, Int64


@dataclass(frozen=True)
class Plan:
    """What the fused kernel gathers of the masks m_q for some scores of one image, and how each score is finished.

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


def has_twin(score: Score) -> bool:
    """Whether the fused kernels finish a score: what gathers sums alone, and what has a compiled finish."""
    return score.twin is not None or (score.gather is not None and score.finish is None)


def plan(p: Float[Tensor, "q n"], scores: Sequence[tuple[Score, Gather | None]]) -> Plan:
    """The plan of scores that `has_twin` holds of, each with what it gathers (None: class masses), of P (Q, N)."""
    P = _array(p)
    peaks, crowds, sums, steps, mixes = [], [], [], [], []
    classes = P[:, :0]
    for score, what in scores:
        if what is None:
            assert isinstance(score.twin, int)
            classes = P[:, :-1]
            step, mix = (score.twin, -1, -1, -1), 0.0
        elif callable(score.twin):
            t = score.with_own(score.twin, what)
            rows = ((peaks, t.inside), (peaks, t.outlier), (crowds, None if t.crowd is None else logits_of(t.crowd)))
            places = (-1 if row is None else _place(into, _array(row)) for into, row in rows)
            step, mix = (t.code, *places), t.mix
        else:
            assert not what.peaks and not what.counts
            step, mix = (SUM, _place(sums, sum_of(what)), -1, -1), what.constant
        steps.append(step)
        mixes.append(mix)
    return _plan(len(P), peaks, crowds, sums, classes, steps, mixes)


def handing_out(q: int, rows: Sequence[Float[Tensor, " q"]], peaks: Sequence[Float[Tensor, " q"]] = ()) -> Plan:
    """The plan that hands out sums (rows) and then peaks themselves, a map each, for a score without a twin."""
    steps = [(SUM, i, -1, -1) for i in range(len(rows))] + [(MASKOMALY, -1, i, -1) for i in range(len(peaks))]
    given = [[_array(x) for x in part] for part in (peaks, rows)]
    return _plan(q, given[0], [], given[1], np.zeros((q, 0), np.float32), steps, [0.0] * len(steps))


def sum_of(what: Gather) -> Float32[np.ndarray, " q"]:
    """The weights of the sum of all that is summed."""
    return np.sum([_array(w) for w in what.sums.values()], axis=0)


def logits_of(masks: NumbersLike) -> Float32[np.ndarray, " q"]:
    """Thresholds of masks as thresholds of their logits; infinite ones stay."""
    masks = _array(masks).astype(np.float64)
    share = masks.clip(0, 1)
    with np.errstate(divide="ignore"):
        return np.where(np.isfinite(masks), np.log(share / (1 - share)), np.inf).astype(np.float32)


def _plan(q: int, peaks: list, crowds: list, sums: list, classes: np.ndarray, steps: list, mixes: list) -> Plan:
    table = {"peaks": peaks, "crowds": crowds, "sums": sums}
    gathered = {k: np.stack(v) if v else np.empty((0, q), np.float32) for k, v in table.items()}
    return Plan(
        **gathered,
        classes=np.ascontiguousarray(classes),
        steps=np.array(steps, np.int64),
        mixes=np.array(mixes, np.float32),
    )


def _place(rows: list[np.ndarray], row: np.ndarray) -> int:
    """The row's index; scores that gather the same share it."""
    for i, other in enumerate(rows):
        if np.array_equal(row, other):
            return i
    rows.append(row)
    return len(rows) - 1


def _array(x: NumbersLike) -> np.ndarray:
    return np.ascontiguousarray(as_array(x, "row"), np.float32)
