"""Folders of maps of one data set -> pictures of where the methods (an ensemble's members, say) disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xenomask.arrays import LabelLike, as_label, as_threshold, as_truth, check_same_size
from xenomask.datasets import Dataset
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.files import atomic, make_dir
from xenomask.metrics import curve, pool
from xenomask.metrics.operating import operating_point
from xenomask.plots import save_figure
from xenomask.plots.agreement import agreement_figure, votes
from xenomask.store import Maps, as_maps
from xenomask.types import VOID, Tick, nothing


@dataclass(frozen=True)
class Votes:
    """One frame's shares, in [0, 1], of the pixels that are not void; nan where there are none of that kind."""

    frame: str
    # some methods, but not all, call the pixel anomalous
    disputed: float
    # of the anomalous pixels: seen by all, by some, by none
    seen_by_all: float
    seen_by_some: float
    seen_by_none: float


def draw_agreement(
    maps: Sequence[Maps], data: Dataset, out: Path, *, thresholds: Sequence[float] | None = None, tick: Tick = nothing
) -> tuple[list[float], list[Votes]]:
    """Writes out/<id>.png for every labelled frame; returns the thresholds and each frame's shares.

    A method calls a pixel anomalous from its threshold on: the given ones or each one's pooled best-F1 threshold (an
    oracle's). Raises XenomaskError for less than two folders, and as `evaluate` does.
    """
    maps = [as_maps(m) for m in maps]
    if len(maps) < 2:
        raise XenomaskError("agreement needs two folders of maps or more, such as `xenomask score --member` makes")
    thresholds = None if thresholds is None else [as_threshold(t) for t in thresholds]
    if thresholds is not None and len(thresholds) != len(maps):
        raise XenomaskError(f"{len(thresholds)} thresholds for {len(maps)} folders of maps; give one each")
    data.refuse_output(out)
    make_dir(out)
    results = [evaluate_maps(m, data, resamples=0, tick=tick) for m in maps]
    if thresholds is None:
        curves = [curve(pool(r.measured.counters.values())) for r in results]
        thresholds = [operating_point(c, "f1").threshold for c in curves]
    rows = []
    for frame in data.labelled().frames:
        label = data.label(frame)
        # as float64: NumPy would round a plain float to the map's float16, to above or below
        count = votes([m.read(frame.id) >= np.float64(t) for m, t in zip(maps, thresholds, strict=True)])
        own = shares(frame.id, count, label, len(maps))
        title = f"{frame.id}   disputed {100 * own.disputed:.1f} %"
        image = data.sample(frame).image if frame.image else None
        picture = agreement_figure(image, count, [m.path.name for m in maps], title=title, label=label)
        with atomic(out / f"{frame.id}.png") as part:
            save_figure(picture, part)
        rows.append(own)
        tick()
    return list(thresholds), rows


def shares(frame: str, count: LabelLike, label: LabelLike, members: int) -> Votes:
    """What the votes of a frame (H, W) come to; XenomaskError for what is no label, and for sizes that differ.

    >>> shares("a", np.array([[0, 1, 2, 2]]), np.array([[0, 1, 1, 255]]), 2)
    Votes(frame='a', disputed=0.333..., seen_by_all=0.5, seen_by_some=0.5, seen_by_none=0.0)
    """
    count, label = as_label(count, "votes"), as_truth(label)
    check_same_size("votes", count, "label", label)
    some = (count > 0) & (count < members)
    valid, true = label != VOID, label == 1

    def share(of: np.ndarray, among: np.ndarray) -> float:
        return float((of & among).sum() / among.sum()) if among.any() else float("nan")

    return Votes(
        frame, share(some, valid), share(count == members, true), share(some, true), share(count == 0, true)
    )  # fmt: skip
