"""Folder of maps + data set -> pictures on disk."""

import math
from collections.abc import Sequence
from pathlib import Path

from xenomask.datasets import Dataset
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import THREADS
from xenomask.files import atomic, make_dir
from xenomask.metrics import count, curve, numbers, pool
from xenomask.metrics.conventions import with_anomaly
from xenomask.metrics.frames import each_frame
from xenomask.metrics.table import best_f1_threshold
from xenomask.pictures import save_picture
from xenomask.plots import contact_sheet, figure, frame_title, overlay, save_figure, tile
from xenomask.store import Maps, as_maps
from xenomask.store.manifest import MANIFEST, read_manifest
from xenomask.types import Tick, nothing


def draw_heatmaps(
    maps: Maps,
    data: Dataset,
    out: Path,
    *,
    threshold: float | None = None,
    scale: tuple[float, float] | None = None,
    tick: Tick = nothing,
) -> list[Path]:
    """One figure a frame and contact_sheet.jpg, all on one scale; returns the files.

    The scale is the given one, that of the detector that made the maps, or else the range of all the maps. The
    threshold is the given one, or else the pooled best-F1 one of the labelled frames (an oracle's), where they hold
    anomalies and inliers.
    """
    maps = as_maps(maps)
    ids = maps.ids()
    frames = {f.id: f for f in data.frames}
    hint = "" if set(ids) & set(frames) else maps.found_instead(frames, data.name)
    if strays := sorted(set(ids) - set(frames)):
        raise XenomaskError(
            f"{maps} holds a map {strays[0]} that belongs to no frame of {data.name}" + (f"; {hint}" if hint else "")
        )
    if not ids:
        raise XenomaskError(f"{maps} holds no map; {hint or 'make some with `xenomask score`'}")
    data.refuse_output(out)
    make_dir(out)
    for i in ids:
        maps.check_photo(i, frames[i].image)
    labelled = [i for i in ids if frames[i].label]
    seen = each_frame(labelled, lambda i: count(maps.read(i), data.label(frames[i])), threads=THREADS)
    own = {i: numbers(curve(f)) for i, f in seen.items() if with_anomaly([f])}
    total = pool(seen.values())
    if threshold is None and total.positive.any() and total.negative.any():  # else there is no best F1
        threshold = best_f1_threshold(curve(total))
    if scale is None:
        scale = scale_of_maps(maps, ids)
    files, tiles = [], []
    for i in ids:
        sample, value = data.sample(frames[i]), maps.read(i)
        if value.shape != sample.image.shape[:2]:
            raise XenomaskError(f"map {i} is {value.shape[1]}x{value.shape[0]}, its photo {sample.image.shape[1::-1]}")
        title = frame_title(i, own.get(i))
        picture = figure(sample.image, value, scale, title=title, label=sample.label, threshold=threshold)
        with atomic(out / f"{i}.png") as part:
            save_figure(picture, part)
        files.append(out / f"{i}.png")
        tiles.append(tile(overlay(sample.image, value, scale, threshold)))  # whole ones are 6 MB each
        tick()
    save_picture(out / "contact_sheet.jpg", contact_sheet(tiles))
    return [*files, out / "contact_sheet.jpg"]


def scale_of_maps(maps: Maps, ids: Sequence[str]) -> tuple[float, float]:
    """The range of colours: that of the detector that made the maps, or else the range of all the maps.

    Raises XenomaskError where the manifest holds no such range.
    """
    maps = as_maps(maps)
    manifest = maps.path / MANIFEST
    if manifest.is_file() and (stored := read_manifest(manifest).get("scale")):
        try:
            low, high = (float(v) for v in stored)
        except (TypeError, ValueError, OverflowError):
            low, high = 0.0, math.nan
        if not -math.inf < low < high < math.inf:
            raise XenomaskError(f"{manifest} is damaged: its scale is {str(stored)[:80]}, not [low, high]")
        return low, high
    # as floats: 100 + .001 is 100 in float16
    ranges = [(float(v.min()), float(v.max())) for v in map(maps.read, ids)]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return low, max(high, low + 1e-3)
