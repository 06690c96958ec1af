"""Folder of maps + data set -> EvalResult."""

from collections.abc import Callable
from pathlib import Path

from xenomask.errors import XenomaskError
from xenomask.metrics.counters import count, empty
from xenomask.metrics.curves import numbers
from xenomask.types import EvalResult


def check_frames(expected: set[str], known: set[str], present: set[str], where: Path) -> None:
    """Raises XenomaskError where a labelled frame has no map, or a map belongs to no frame of the data set."""
    if missing := sorted(expected - present):
        raise XenomaskError(
            f"{len(missing)} of {len(expected)} labelled frames have no map in {where}, the first is {missing[0]}; "
            "`xenomask score` goes on where it stopped"
        )
    if extra := sorted(present - known):
        raise XenomaskError(
            f"{where} holds {len(extra)} maps that belong to no frame of the data set, the first is {extra[0]}: "
            "wrong data set, split or folder"
        )


def evaluate(
    ids: list[str],
    read_value: Callable,
    read_label: Callable,
    tick: Callable[[], None] = lambda: None,
) -> EvalResult:
    """The `exact` numbers of the frames, pooled over pixels, and of each frame that has an anomaly and an inlier."""
    pooled, per_frame = empty(), {}
    for i in ids:
        try:
            own = count(read_value(i), read_label(i))
        except XenomaskError as e:
            raise XenomaskError(f"frame {i}: {e}") from e
        if own.positive.any() and own.negative.any():
            per_frame[i] = numbers(own)
        pooled = pooled.merge(own)
        tick()
    return EvalResult({"exact": numbers(pooled)}, tuple(ids), per_frame)
