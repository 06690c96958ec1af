"""Folders of maps + data set -> numbers; loads no network."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xenomask.datasets import DATASETS, Dataset, Frame
from xenomask.errors import XenomaskError, unknown
from xenomask.metrics import EvalResult, evaluate
from xenomask.metrics.components import TRACKS, binarise, numbered, recall_by_size
from xenomask.metrics.conventions import CONVENTIONS, RESIZED, Convention, all_conventions, resized_counters
from xenomask.metrics.frames import Read, ReadClasses, each_frame, resample
from xenomask.metrics.guards import float16_loss
from xenomask.metrics.resampling import draw, interval
from xenomask.metrics.table import lower_is_better
from xenomask.metrics.temporal import clip_objects, flicker_numbers, half_mask, video_consistency
from xenomask.store import Maps, as_maps, check_complete, map_format
from xenomask.store.classes import class_ids, read_classes
from xenomask.types import VOID, Tick, nothing

THREADS = min(4, os.cpu_count() or 1)


def reader(maps: Maps, data: Dataset) -> tuple[list[str], Read]:
    """The labelled frames' ids and the function that reads a frame's map and label.

    Raises XenomaskError where a labelled frame has no map, or a map belongs to no frame; the function does for a map
    that was made from another photo than the frame's.
    """
    maps, labelled = as_maps(maps), {f.id: f for f in data.labelled().frames}
    check_complete(maps, data)
    checked: set[str] = set()  # each frame is read several times, its photo hashed once

    def read(i: str) -> tuple[np.ndarray, np.ndarray]:
        if i not in checked:
            maps.check_photo(i, labelled[i].image)
            checked.add(i)
        return maps.read(i), data.label(labelled[i])

    return sorted(labelled), read


def rounding_note(maps: Maps, ids: Sequence[str]) -> str | None:
    """What rounding to float16 does to maps that are stored in wider floats, seen on three of them; None if none is."""
    maps = as_maps(maps)
    if maps.hdf5:
        ids = [i for i in ids if map_format(maps.file(i), maps.key).dtype.itemsize > 2]
    losses = {i: float16_loss(maps.read_stored(i)) for i in ids[:3]}
    if not losses or not (maps.hdf5 or any(losses.values())):
        return None
    worst = max(losses, key=lambda i: losses[i])
    return (
        f"the maps are stored in wider floats (frame {worst}); they are evaluated as float16, which the official "
        "tool writes (its evaluator computes with what is stored): "
        f"{100 * losses[worst]:.1f} % of the distinct values of a frame fall together"
    )


def evaluate_maps(
    maps: Maps,
    data: Dataset,
    track: str | None = None,
    *,
    classes: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    tick: Tick = nothing,
) -> EvalResult:
    """The numbers of a folder of maps on the labelled frames of a data set; raises XenomaskError as `reader` does.

    `classes`, a folder of predicted classes, adds the open-world numbers.
    """
    ids, read = reader(maps, data)
    own = None if classes is None else classes_of(classes, data)
    return evaluate(ids, read, track, classes=own, resamples=resamples, seed=seed, threads=THREADS, tick=tick)


def classes_of(folder: Path, data: Dataset) -> ReadClasses:
    """The function that reads a frame's predicted classes and its label of classes and anomalies.

    Raises XenomaskError where a labelled frame has no predicted classes, or the labels do not name both.
    """
    frames = check_classes(folder, data)
    data.open_label(next(iter(frames.values())))  # said before the maps are read
    return lambda i: (read_classes(folder, i, frames[i].image), data.open_label(frames[i]))


def check_classes(folder: Path, data: Dataset) -> dict[str, Frame]:
    """The labelled frames by id; raises XenomaskError where one has no predicted classes."""
    frames = {f.id: f for f in data.labelled().frames}
    if lacking := sorted(frames.keys() - set(class_ids(folder))):
        raise XenomaskError(
            f"{folder} has no predicted classes of {len(lacking)} of {len(frames)} labelled frames, the first is "
            f"{lacking[0]}; write them with `xenomask score ... --classes {folder}`"
        )
    return frames


def clips_of(ids: Sequence[str]) -> list[list[str]]:
    """The frames of each clip in order, of two or more: their ids end in _ and the number of the frame in its clip.

    >>> clips_of(["02_road_000000_000010", "02_road_000000_000020", "temporal_9_1000", "temporal_9_520"])
    [['02_road_000000_000010', '02_road_000000_000020'], ['temporal_9_520', 'temporal_9_1000']]
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for i in sorted(ids):
        clip, _, number = i.rpartition("_")
        if clip and number.isascii() and number.isdigit():
            found.setdefault(clip, []).append((int(number), i))
    return [[i for _, i in sorted(frames)] for frames in found.values() if len(frames) > 1]


def clip_numbers(result: EvalResult, maps: Maps, data: Dataset) -> dict[str, float]:
    """Numbers over time of the evaluated frames: VC* (mean over clips) and those of `temporal.flicker_numbers`.

    Objects are components of score > the threshold of the result's own components, with its track's sizes. Raises
    XenomaskError where no clip has two frames.
    """
    _, read = reader(maps, data)
    clips = clips_of(result.frames)
    if not clips:
        raise XenomaskError(
            f"{data.name}: no two frames are of one clip: their ids do not end in _ and a frame's number"
        )
    sizes, consistency, objects = TRACKS[result.track or "anomaly"], [], []
    for ids in clips:
        found = [read(i) for i in ids]
        labels = [y for _, y in found]
        objects.append(clip_objects([binarise(v, result.measured.threshold) for v, _ in found], labels, sizes))
        # as the released scripts have it, void is neither predicted nor true
        masks = [half_mask(v) & (y != VOID) for v, y in found]
        consistency.append(video_consistency(masks, [np.where(y == VOID, 0, y) for y in labels]))
    known = [v for v in consistency if v == v]
    mean = sum(known) / len(known) if known else float("nan")
    return {"clips": len(clips), "vc_star": mean, **flicker_numbers(objects)}


def size_numbers(result: EvalResult, maps: Maps, data: Dataset) -> dict[str, dict[str, float]]:
    """`recall_by_size` of the evaluated frames, at the threshold and with the sizes of the result's own components."""
    _, read = reader(maps, data)

    def of_frame(i: str) -> tuple[np.ndarray, np.ndarray]:
        value, label = read(i)
        n = numbered(binarise(value, result.measured.threshold), label, TRACKS[result.track or "anomaly"])
        return np.bincount(n.true.ravel())[n.truths], n.values.siou_gt

    found = each_frame(result.frames, of_frame, threads=THREADS).values()
    return recall_by_size(*(np.concatenate(x) for x in zip(*found, strict=True)))


def track_of(dataset: str, track: str | None) -> str:
    """The given track, or the one whose component sizes the official benchmark uses for the data set."""
    if track is not None and track not in TRACKS:
        raise unknown("track", track, TRACKS)
    return track or DATASETS[dataset].track or "anomaly"


def conventions_of(result: EvalResult, maps: Maps, data: Dataset) -> list[tuple[Convention, dict[str, float]]]:
    """Every convention with its numbers; the pixels are read once more for the one that resizes."""
    ids, read = reader(maps, data)
    resized = each_frame(ids, lambda i: resized_counters(*read(i)), threads=THREADS)
    found = all_conventions(list(result.measured.counters.values()), list(resized.values()))
    return [(c, dict(found[c.name])) for c in (*CONVENTIONS.values(), RESIZED)]


@dataclass(frozen=True)
class Difference:
    """One number of method A held against B's on the same resamples of the same frames."""

    a: str
    b: str
    convention: str
    number: str
    value_a: float
    value_b: float
    difference: float
    interval: tuple[float, float]
    # share of resamples in which A is better; ties count half
    wins: float


def compare_maps(
    maps: Sequence[Maps],
    data: Dataset,
    track: str | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    tick: Tick = nothing,
) -> list[Difference]:
    """The first folder of maps against each other one, once, by a paired bootstrap over frames.

    Raises XenomaskError as `evaluate_maps` does, and for less than two frames and no resample: without them there is no
    interval.
    """
    maps = [maps[0], *dict.fromkeys(maps[1:])]
    if resamples < 1 or len(data.labelled().frames) < 2:
        raise XenomaskError("a paired bootstrap needs two labelled frames and one resample at least")
    found = [evaluate_maps(m, data, track, resamples=0, tick=tick) for m in maps]
    weights = draw(len(found[0].frames), resamples, seed)
    drawn = [resample(f.measured, weights, THREADS) for f in found]
    rows = []
    for i in range(1, len(maps)):
        for convention, own in drawn[0].items():
            for number, a in own.items():
                delta = a - drawn[i][convention][number]
                sign = -1 if lower_is_better(number) else 1
                usable = delta[~np.isnan(delta)]
                wins = float(np.mean(np.sign(usable * sign) / 2 + 0.5)) if len(usable) else float("nan")
                va, vb = (f.numbers[convention][number] for f in (found[0], found[i]))
                rows.append(
                    Difference(
                        str(maps[0]), str(maps[i]), convention, number, va, vb, va - vb, interval(delta), wins
                    )
                )  # fmt: skip
    return rows
