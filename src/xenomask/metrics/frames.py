"""Maps + labels -> EvalResult, in two passes: counters of every frame, then components at the threshold they give."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xenomask.arrays import LabelLike, LabelsLike, MapLike, MapsLike, NumbersLike, as_half, as_truth
from xenomask.errors import XenomaskError, unknown
from xenomask.metrics import components, official, openworld, resampling
from xenomask.metrics.components import TRACKS
from xenomask.metrics.conventions import with_anomaly
from xenomask.metrics.counters import count, pool
from xenomask.metrics.curves import curve
from xenomask.metrics.guards import warnings
from xenomask.metrics.result import CONVENTIONS, EvalResult, Measured
from xenomask.metrics.table import numbers
from xenomask.types import Tick, nothing

# (map, label 0 / 1 / 255) of a frame
Read = Callable[[str], tuple[MapLike, LabelLike]]
# (predicted classes 0..18, label of classes, 254 anomaly, 255 void) of a frame
ReadClasses = Callable[[str], tuple[LabelLike, LabelLike]]
T = TypeVar("T")


def evaluate(
    ids: Sequence[str],
    read: Read,
    track: str | None = None,
    *,
    classes: ReadClasses | None = None,
    resamples: int = 1000,
    seed: int = 0,
    threads: int = 2,
    tick: Tick = nothing,
) -> EvalResult:
    """All numbers of some frames' maps and labels, whose `read(id)` gives both: the one evaluation of xenomask.

    Two passes over the frames: counters of every frame, then its components at the threshold that these give. `track`
    ("anomaly", "obstacle", "issu") names the components' sizes; without one there are none. `classes(id)`, where given,
    adds the open-world numbers in one more pass. `tick` is called once a frame and pass. Raises XenomaskError that
    names the frame, and without an anomalous or an inlier pixel in all of them.

    >>> def read(frame):
    ...     return np.array([[0.1, 0.9, 0.8, 0.2]]), np.array([[0, 1, 0, 255]])
    >>> evaluate(["a"], read).numbers["exact"]["aupr_sum"]
    1.0
    """
    measured = measure(ids, read, track, classes=classes, threads=threads, tick=tick)
    return summarise(measured, resamples=resamples, seed=seed, threads=threads)


def evaluate_arrays(
    maps: MapsLike,
    labels: LabelsLike,
    *,
    track: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    threads: int = 2,
) -> EvalResult:
    """All numbers of maps and labels that are in memory; as `xenomask.evaluate`, the numbers of `xenomask evaluate`.

    `maps` and `labels` are one array (H, W) each, or (B, H, W), a list, a generator, or a dict {name: array}; photos
    may have different sizes; a ScoreMap is an array, too. Maps hold any real numbers, higher = more anomalous, and are
    compared as float16; labels are 0 inlier, 1 anomaly, 255 void, or bool. `track` ("anomaly", "obstacle") adds the
    numbers of components with the sizes of that SegmentMeIfYouCan track. `resamples` (0: none) and `seed` are those of
    the bootstrap over frames. What a generator gives is kept, as float16 and uint8. Raises XenomaskError for arrays
    that are no map or no label, for sizes and counts that differ, and without an anomalous or an inlier pixel in all
    of them.

    >>> result = evaluate_arrays([[0.1, 0.9], [0.8, 0.2]], [[0, 1], [0, 0]])
    >>> result.numbers["exact"]["aupr_sum"], result.frames
    (1.0, ('0',))
    """
    own, truth = _by_name(maps, "map", as_half), _by_name(labels, "label", as_truth)
    if isinstance(maps, Mapping) != isinstance(labels, Mapping):
        raise XenomaskError("maps and labels are given in two ways, one of them as a dict: give both alike")
    if isinstance(maps, Mapping) and (alone := set(own) ^ set(truth)):
        raise XenomaskError(f"{len(alone)} names have no map or no label, the first is {min(alone)!r}")
    if len(own) != len(truth):
        raise XenomaskError(f"{len(own)} maps and {len(truth)} labels: give as many of both")
    return evaluate(list(own), lambda i: (own[i], truth[i]), track, resamples=resamples, seed=seed, threads=threads)


def _by_name(given: Any, what: str, convert: Callable[[Any, str], np.ndarray]) -> dict[str, Any]:
    """{name: array}, from any of the forms that `evaluate_arrays` takes; names in the order of what was given."""
    if isinstance(given, str | Path):
        raise XenomaskError(f"{what}s is a path: give arrays; `xenomask evaluate` reads folders")
    if isinstance(given, Mapping):
        found = {str(k): v for k, v in given.items()}
        if len(found) < len(given):
            raise XenomaskError(f"two of the {what}s have one name, such as 1 and '1'")
        return found
    if isinstance(given, Iterator):
        given = [convert(v, f"{what} {k}") for k, v in enumerate(given)]
    elif not hasattr(given, "shape"):
        given = list(given) if isinstance(given, Sequence) else [given]
        if given and np.ndim(given[0]) == 1:  # one map as nested lists
            given = [given]
    elif len(given.shape) in (0, 2):  # a single number is refused as a map
        given = [given]
    digits = len(str(max(0, len(given) - 1)))
    return {f"{k:0{digits}d}": v for k, v in enumerate(given)}


def each_frame(ids: Sequence[str], work: Callable[[str], T], *, threads: int, tick: Tick = nothing) -> dict[str, T]:
    """{id: work(id)} on some threads; an error names its frame."""
    found = {}
    with ThreadPoolExecutor(max(1, threads)) as workers:
        jobs = {i: workers.submit(work, i) for i in ids}
        try:
            for i, job in jobs.items():
                found[i] = job.result()
                tick()
        except BaseException as e:  # Ctrl-C, too: it must not wait for all the other frames
            workers.shutdown(cancel_futures=True)
            if isinstance(e, XenomaskError):
                raise XenomaskError(f"frame {i}: {e}") from e
            raise
    return found


def measure(
    ids: Sequence[str],
    read: Read,
    track: str | None = None,
    *,
    classes: ReadClasses | None = None,
    threads: int = 2,
    tick: Tick = nothing,
) -> Measured:
    """Reads every frame once for its counters and, for a track's components and for `classes`, once more each.

    The components' threshold is the official one: the best F1's of the official curve of these very frames.
    `tick` is called once a frame and pass. Raises XenomaskError that names the frame.
    """
    if track is not None and track not in TRACKS:
        raise unknown("track", track, TRACKS)
    ids = sorted(ids)
    if not ids:
        raise XenomaskError("there is no frame to evaluate")
    if len(set(ids)) < len(ids):
        raise XenomaskError(f"frame {next(a for a, b in pairwise(ids) if a == b)} is named twice")
    counters = each_frame(ids, lambda i: count(*_pair(read(i))), threads=threads, tick=tick)
    bins = [official.frame_bins(f) for f in counters.values()]
    curves = [curve(pool(counters.values())), official.curve(bins)]  # of CONVENTIONS
    threshold = numbers(curves[1])["best_f1_threshold"]
    confusions = {}
    if classes is not None:
        own, points = classes, openworld.thresholds(curves)

        def confuse(i: str) -> np.ndarray:
            return openworld.frame_confusions(_pair(read(i))[0], *own(i), points)

        confusions = each_frame(ids, confuse, threads=threads, tick=tick)
    if track is None:
        return Measured(counters, {}, track, threshold, confusions=confusions)
    sizes = TRACKS[track]
    others = {numbers(c)["best_f1_threshold"] for c in official.orders(bins)}

    def tally(i: str) -> dict[float, np.ndarray]:
        value, label = _pair(read(i))
        masks = {t: components.binarise(value, t) for t in {threshold, *others}}
        return {t: components.tallies(components.compare(m, label, sizes)) for t, m in masks.items()}

    found = each_frame(ids, tally, threads=threads, tick=tick)
    at = {t: {i: own[t] for i, own in found.items()} for t in {threshold, *others}}
    by_order = {t: at[t] for t in others} if others != {threshold} else {}
    return Measured(counters, at[threshold], track, threshold, by_order, confusions)


def _pair(found: Any) -> tuple[MapLike, LabelLike]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise XenomaskError(f"read gave a {type(found).__name__}, not the pair of a map and its label")
    return found[0], found[1]


def summarise(measured: Measured, *, resamples: int = 1000, seed: int = 0, threads: int = 2) -> EvalResult:
    """All numbers, with bootstrap intervals over frames where `resamples` > 0.

    Raises XenomaskError without an anomalous or without an inlier pixel in all frames.
    """
    for name, number in (("resamples", resamples), ("seed", seed)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
            raise XenomaskError(f"{name} {number!r} is no whole number from 0 on")
    frames = list(measured.counters.values())
    pooled = pool(frames)
    bins = [official.frame_bins(f) for f in frames]
    found: dict[str, dict[str, float]] = {"exact": numbers(curve(pooled)), "official": numbers(official.curve(bins))}
    if measured.confusions:
        for c, own in openworld.numbers(np.sum(list(measured.confusions.values()), axis=0), CONVENTIONS).items():
            found[c] |= _plain(own)
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
    return EvalResult(found, measured, own, intervals, ranges, notes, resamples, seed)


def _plain(found: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in found.items()}


def resample(measured: Measured, weights: NumbersLike, threads: int = 2) -> dict[str, dict[str, np.ndarray]]:
    """{convention: {number: its value in each resample}}; weights (R, frames) say how often a frame is drawn.

    Thresholds of components and of open-world IoU stay those of all frames: their masks are not drawn anew.
    """
    frames = list(measured.counters.values())
    weights = resampling.as_weights(weights, len(frames))
    bins = [official.frame_bins(f) for f in frames]
    found = {
        "exact": resampling.curve_numbers(*resampling.exact_steps(frames), weights, threads),
        "official": resampling.curve_numbers(*resampling.official_steps(bins), weights, threads),
    }
    if measured.confusions:
        drawn = np.tensordot(weights, np.array(list(measured.confusions.values())), 1)
        for c, own in openworld.numbers(drawn, CONVENTIONS).items():
            found[c] |= own
    if measured.track:
        found["components"] = components.numbers(weights @ np.array(list(measured.tallies.values())))
    return found
