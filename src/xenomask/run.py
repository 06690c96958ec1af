"""What the commands do, as plain functions: detector + data set -> maps, pictures, numbers on disk."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xenomask.datasets import Dataset, Frame, open_dataset, read_photo
from xenomask.datasets.synthetic import write_scenes
from xenomask.detector import Detector
from xenomask.ensemble import ensemble
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.metrics import check_frames, count, evaluate, numbers
from xenomask.metrics.counters import Counters, empty
from xenomask.plots import contact_sheet, figure, frame_title, overlay
from xenomask.queries import without_frame
from xenomask.scores import Score, score_all
from xenomask.store import ENDING, map_ids, read_map, write_map
from xenomask.types import EvalResult, ScoreMap

MANIFEST = "manifest.json"
Tick = Callable[[], None]


def _nothing() -> None:
    """The progress of somebody who does not want to see any."""


def _save_picture(path: Path, pixels: np.ndarray) -> None:
    with atomic(path) as part:
        Image.fromarray(pixels).save(part, quality=90)


def detect_photos(
    detector: Detector, photos: Sequence[Path], out: Path, *, threshold: float | None = None, tick: Tick = _nothing
) -> list[dict[str, Any]]:
    """Writes <stem>.hdf5 (the map), <stem>_heatmap.png and <stem>_overlay.jpg for every photo.

    Returns one row a photo: the map's largest value and mean and, with a threshold, the share above it.
    Raises XenomaskError for a photo that cannot be read and for two photos of one name.
    """
    stems = [p.stem for p in photos]
    if twice := sorted({s for s in stems if stems.count(s) > 1}):
        raise XenomaskError(f"two photos are named {twice[0]}: their maps would overwrite each other; run them apart")
    make_dir(out)
    rows = []
    for photo in photos:
        image = read_photo(photo)
        found = detector.detect(image)
        write_map(out / f"{photo.stem}{ENDING}", found)
        picture = figure(image, found.value, detector.scale, title=photo.name, threshold=threshold)
        with atomic(out / f"{photo.stem}_heatmap.png") as part:
            picture.savefig(part)
        _save_picture(out / f"{photo.stem}_overlay.jpg", overlay(image, found.value, detector.scale, threshold))
        row = {"photo": str(photo), "max": float(found.value.max()), "mean": float(found.value.mean())}
        if threshold is not None:
            row["share_above_threshold"] = float((found.value >= threshold).mean())
        rows.append(row)
        tick()
    return rows


def score_dataset(
    detector: Detector, data: Dataset, out: Path, *, leave_one_out: bool = False, tick: Tick = _nothing
) -> int:
    """Writes out/<id>.hdf5 for every frame that has none yet; returns how many were new.

    `leave_one_out` looks at each frame with outlier queries chosen on the others. Raises XenomaskError where the
    folder already holds maps of another detector or data set.
    """
    if leave_one_out and not _chosen_on(detector, data.name):
        raise XenomaskError(
            f"the outlier queries were not chosen on {data.name}: there is nothing to leave out; score without it"
        )
    make_dir(out)
    made_by = {**detector.describe(), "dataset": data.name, "leave_one_out": leave_one_out}
    made_by = json.loads(json.dumps(made_by))
    manifest = out / MANIFEST
    if manifest.is_file() and (old := _read_manifest(manifest)) != made_by:
        differs = sorted(k for k in made_by.keys() | old.keys() if made_by.get(k) != old.get(k))
        raise XenomaskError(
            f"{out} holds maps of another run (its {', '.join(differs)} differ): choose another folder or empty it"
        )
    if not manifest.is_file() and (strays := map_ids(out)):
        raise XenomaskError(f"{out} holds maps of unknown origin ({strays[0]}{ENDING}, no {MANIFEST}): choose another")
    with atomic(manifest) as part:
        part.write_text(json.dumps(made_by, indent=1) + "\n")
    done, new = set(map_ids(out)), 0
    for frame in data.frames:
        if frame.id not in done:
            own = detector.without_frame(frame.id) if leave_one_out and frame.label else detector
            write_map(out / f"{frame.id}{ENDING}", own.detect(data.sample(frame).image))
            new += 1
        tick()
    return new


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise XenomaskError(f"{path} is damaged: {e}; delete it together with its maps") from e


def evaluate_maps(maps: Path, data: Dataset, *, tick: Tick = _nothing) -> EvalResult:
    """The numbers of a folder of maps on the labelled frames of a data set."""
    labelled = {f.id: f for f in data.labelled().frames}
    check_frames(set(labelled), {f.id for f in data.frames}, set(map_ids(maps)), maps)
    return evaluate(
        sorted(labelled), lambda i: read_map(maps / f"{i}{ENDING}"), lambda i: data.label(labelled[i]), tick
    )


def draw_heatmaps(
    maps: Path,
    data: Dataset,
    out: Path,
    *,
    threshold: float | None = None,
    scale: tuple[float, float] | None = None,
    tick: Tick = _nothing,
) -> list[Path]:
    """One figure a frame and contact_sheet.jpg, all on one scale; returns the files.

    The scale is the given one, that of the detector that made the maps, or else the range of all the maps. The
    threshold is the given one, or else the pooled best-F1 one of the labelled frames (an oracle's).
    """
    ids = map_ids(maps)
    frames = {f.id: f for f in data.frames}
    if strays := sorted(set(ids) - set(frames)):
        raise XenomaskError(f"{maps} holds a map {strays[0]} that belongs to no frame of {data.name}")
    if not ids:
        raise XenomaskError(f"{maps} holds no map; make some with `xenomask score`")
    make_dir(out)
    labelled = [i for i in ids if frames[i].label]
    result = None
    if labelled:
        result = evaluate(labelled, lambda i: read_map(maps / f"{i}{ENDING}"), lambda i: data.label(frames[i]))
        threshold = result.numbers["exact"]["best_f1_threshold"] if threshold is None else threshold
    if scale is None:
        scale = _scale_of(maps, ids)
    files, tiles = [], []
    for i in ids:
        sample, value = data.sample(frames[i]), read_map(maps / f"{i}{ENDING}")
        if value.shape != sample.image.shape[:2]:
            raise XenomaskError(f"map {i} is {value.shape[1]}x{value.shape[0]}, its photo {sample.image.shape[1::-1]}")
        title = frame_title(i, result.per_frame.get(i) if result else None)
        picture = figure(sample.image, value, scale, title=title, label=sample.label, threshold=threshold)
        with atomic(out / f"{i}.png") as part:
            picture.savefig(part)
        files.append(out / f"{i}.png")
        tiles.append(overlay(sample.image, value, scale, threshold))
        tick()
    _save_picture(out / "contact_sheet.jpg", contact_sheet(tiles))
    return [*files, out / "contact_sheet.jpg"]


def _scale_of(maps: Path, ids: Sequence[str]) -> tuple[float, float]:
    if (maps / MANIFEST).is_file() and (stored := _read_manifest(maps / MANIFEST).get("scale")):
        low, high = stored
        return float(low), float(high)
    ranges = [(v.min(), v.max()) for v in (read_map(maps / f"{i}{ENDING}") for i in ids)]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return float(low), float(max(high, low + 1e-3))


@dataclass(frozen=True)
class Row:
    """One line of the benchmark's table."""

    score: str
    member: str
    # "in-sample" or "leave-one-out" where the outlier queries were chosen on this data set, "of <data set>" where on
    # another, "-" where the score reads none
    queries: str
    numbers: dict[str, float]


def benchmark(detector: Detector, data: Dataset, scores: Sequence[Score], *, tick: Tick = _nothing) -> list[Row]:
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
    return [Row(*key, numbers(c)) for key, c in counters.items()]


def _frame_maps(detector: Detector, data: Dataset, frame: Frame, scores: Sequence[Score]):
    """{(score, member, queries): float16 map} of one frame."""
    image = data.sample(frame).image
    leaks = _chosen_on(detector, data.name)
    chosen = "in-sample" if leaks else f"of {', '.join(sorted(_chosen_where(detector))) or 'none'}"
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


def _chosen_where(detector: Detector) -> set[str]:
    """The data sets on which the members' outlier queries were chosen."""
    return {m.queries.origin["outlier"]["dataset"] for m in detector.members if "outlier" in m.queries.origin}


def _chosen_on(detector: Detector, dataset: str) -> bool:
    """Whether any member's outlier queries were chosen on frames of this data set."""
    return dataset in _chosen_where(detector)


def demo(detector: Detector, out: Path, *, frames: int = 6, seed: int = 7, tick: Tick = _nothing) -> EvalResult:
    """Draws street scenes with strangers, looks at them, evaluates and draws.

    Counted is the drawn road with what lies on it, as in the obstacle track: a network taught on photos knows a drawn
    road, but a drawn car, tree or person is strange to it, and rightly so.
    """
    for old in ("scenes", "maps", "heatmaps"):  # of an earlier run, perhaps with other frames
        shutil.rmtree(out / old, ignore_errors=True)
    data = write_scenes(out / "scenes", "obstacle-track", frames, seed=seed, tick=tick)
    drawn = open_dataset("obstacle-track", data)
    score_dataset(detector, drawn, out / "maps", tick=tick)
    result = evaluate_maps(out / "maps", drawn)
    draw_heatmaps(out / "maps", drawn, out / "heatmaps", tick=tick)
    return result
