"""Detector + data set -> the numbers of every score, member and ensemble; each network looks once at a frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xenomask.datasets import Dataset, Frame
from xenomask.detector import Detector
from xenomask.ensemble import ensemble
from xenomask.metrics import Counters, count, curve, numbers
from xenomask.metrics.counters import empty
from xenomask.queries import without_frame
from xenomask.run.common import Tick, nothing
from xenomask.run.photos import chosen_on, chosen_where
from xenomask.scores import Score, score_all
from xenomask.types import ScoreMap


@dataclass(frozen=True)
class Row:
    """One line of the benchmark's table."""

    score: str
    member: str
    # "in-sample" or "leave-one-out" where the outlier queries were chosen on this data set, "of <data set>" where on
    # another, "-" where the score reads none
    queries: str
    numbers: dict[str, float]


def benchmark(detector: Detector, data: Dataset, scores: Sequence[Score], *, tick: Tick = nothing) -> list[Row]:
    """The exact numbers of every score, for each member and the ensemble; each network looks once at a frame.

    Scores that read outlier queries appear twice where those were chosen on this very data set: with all of
    them (in-sample), and with each frame's chosen on the others (leave-one-out). Maps are rounded to float16
    before they are counted, as stored ones are.
    """
    counters: dict[tuple[str, str, str], Counters] = {}
    for frame in data.labelled().frames:
        label = data.label(frame)
        for key, value in _frame_maps(detector, data, frame, scores).items():
            own = count(value, label)
            counters[key] = counters.get(key, empty()).merge(own)
        tick()
    return [Row(*key, numbers(curve(c))) for key, c in counters.items()]


def _frame_maps(detector: Detector, data: Dataset, frame: Frame, scores: Sequence[Score]):
    """{(score, member, queries): float16 map} of one frame."""
    image = data.sample(frame).image
    leaks = chosen_on(detector, data.name)
    chosen = "in-sample" if leaks else f"of {', '.join(sorted(chosen_where(detector))) or 'none'}"
    reads = {s.name: s.name.startswith("maskomaly") for s in scores}
    maps: dict[tuple[str, str], dict[str, ScoreMap]] = {}
    for m in detector.members:
        output = m.network(image)
        for name, found in score_all(output, m.queries, scores).items():
            maps.setdefault((name, chosen if reads[name] else "-"), {})[m.name] = found
        if leaks:
            held_out = without_frame(m.queries, frame.id)
            for name, found in score_all(output, held_out, [s for s in scores if reads[s.name]]).items():
                maps.setdefault((name, "leave-one-out"), {})[m.name] = found
    weights = [m.weight for m in detector.members]
    values = {}
    for (name, queries), own in maps.items():
        if len(own) > 1:
            own = {**own, "ensemble": ensemble(list(own.values()), weights)}
        for member, found in own.items():
            values[name, member, queries] = found.value.astype(np.float16)
    return values
