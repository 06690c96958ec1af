"""Maps + labels -> EvalResult, in two passes: counters of every frame, then components at the threshold they give."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xenomask.arrays import LabelLike, MapLike, NumbersLike
from xenomask.errors import XenomaskError
from xenomask.metrics import components, official, resampling
from xenomask.metrics.components import TRACKS
from xenomask.metrics.conventions import with_anomaly
from xenomask.metrics.counters import FrameCounters, count, pool
from xenomask.metrics.curves import curve
from xenomask.metrics.guards import warnings
from xenomask.metrics.table import numbers
from xenomask.types import EvalResult

# (map, label 0 / 1 / 255) of a frame
Read = Callable[[str], tuple[MapLike, LabelLike]]
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What is kept of each frame once its pixels were seen; every number and interval follows from it."""

    counters: Mapping[str, FrameCounters]
    # sums of the component metric at `threshold`; empty where no track was asked for
    tallies: Mapping[str, np.ndarray]
    track: str | None
    threshold: float
    # the tallies at the other thresholds that the official code would take in some order of the frames: mostly none
    by_order: Mapping[float, Mapping[str, np.ndarray]] = field(default_factory=dict)


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


def _nothing() -> None:
    """The progress of somebody who does not want to see any."""


def each_frame(
    ids: Sequence[str], work: Callable[[str], T], *, threads: int, tick: Callable[[], None] = _nothing
) -> dict[str, T]:
    """{id: work(id)} on some threads; an error names its frame."""
    found = {}
    with ThreadPoolExecutor(max(1, threads)) as workers:
        jobs = {i: workers.submit(work, i) for i in ids}
        try:
            for i, job in jobs.items():
                found[i] = job.result()
                tick()
        except XenomaskError as e:
            workers.shutdown(cancel_futures=True)
            raise XenomaskError(f"frame {i}: {e}") from e
    return found


def measure(
    ids: Sequence[str],
    read: Read,
    track: str | None = None,
    *,
    threads: int = 2,
    tick: Callable[[], None] = _nothing,
) -> Measured:
    """Reads every frame once for its counters and, where a track is given, once more for its components.

    The components' threshold is the official one: the best F1's of the official curve of these very frames.
    `tick` is called once a frame and pass. Raises XenomaskError that names the frame.
    """
    ids = sorted(ids)
    counters = each_frame(ids, lambda i: count(*read(i)), threads=threads, tick=tick)
    bins = [official.frame_bins(f) for f in counters.values()]
    threshold = numbers(official.curve(bins))["best_f1_threshold"]
    if track is None:
        return Measured(counters, {}, track, threshold)
    sizes = TRACKS[track]
    others = {numbers(c)["best_f1_threshold"] for c in official.orders(bins)}

    def tally(i: str) -> dict[float, np.ndarray]:
        value, label = read(i)
        masks = {t: components.binarise(value, t) for t in {threshold, *others}}
        return {t: components.tallies(components.compare(m, label, sizes)) for t, m in masks.items()}

    found = each_frame(ids, tally, threads=threads, tick=tick)
    at = {t: {i: own[t] for i, own in found.items()} for t in {threshold, *others}}
    return Measured(
        counters, at[threshold], track, threshold, {t: at[t] for t in others} if others != {threshold} else {}
    )


def summarise(measured: Measured, *, resamples: int = 1000, seed: int = 0, threads: int = 2) -> EvalResult:
    """All numbers, with bootstrap intervals over frames where `resamples` > 0.

    Raises XenomaskError without an anomalous or without an inlier pixel in all frames.
    """
    frames = list(measured.counters.values())
    pooled = pool(frames)
    bins = [official.frame_bins(f) for f in frames]
    found: dict[str, dict[str, float]] = {"exact": numbers(curve(pooled)), "official": numbers(official.curve(bins))}
    if measured.track:
        found["components"] = _plain(components.numbers(np.sum(list(measured.tallies.values()), axis=0)))
    ranges = official.order_range(bins)
    if measured.by_order:
        sums = [np.sum(list(own.values()), axis=0) for own in measured.by_order.values()]
        ranges |= official.spans([_plain(components.numbers(s)) for s in sums])
    notes = warnings(measured.counters, pooled, found)
    intervals = {}
    if resamples and len(frames) > 1:
        drawn = resample(measured, resampling.draw(len(frames), resamples, seed), threads)
        intervals = {c: {k: resampling.interval(v) for k, v in own.items()} for c, own in drawn.items()}
    own = {i: numbers(curve(f)) for i, f in measured.counters.items() if with_anomaly([f])}
    return EvalResult(found, tuple(measured.counters), own, intervals, ranges, notes, measured.track)


def _plain(found: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in found.items()}


def resample(measured: Measured, weights: NumbersLike, threads: int = 2) -> dict[str, dict[str, np.ndarray]]:
    """{convention: {number: its value in each resample}}; weights (R, frames) say how often a frame is drawn.

    The components' threshold stays that of all frames: their masks are not drawn anew.
    """
    frames = list(measured.counters.values())
    weights = resampling.as_weights(weights, len(frames))
    bins = [official.frame_bins(f) for f in frames]
    found = {
        "exact": resampling.curve_numbers(*resampling.exact_steps(frames), weights, threads),
        "official": resampling.curve_numbers(*resampling.official_steps(bins), weights, threads),
    }
    if measured.track:
        found["components"] = components.numbers(weights @ np.array(list(measured.tallies.values())))
    return found


def evaluate(
    ids: Sequence[str],
    read: Read,
    track: str | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    threads: int = 2,
    tick: Callable[[], None] = _nothing,
) -> EvalResult:
    """`measure`, then `summarise`."""
    return summarise(measure(ids, read, track, threads=threads, tick=tick), resamples=resamples, seed=seed)
