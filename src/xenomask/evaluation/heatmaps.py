"""Folder of maps + data set -> pictures on disk."""

import math
from collections.abc import Sequence
from pathlib import Path

from xenomask.datasets import Dataset
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.metrics import evaluate
from xenomask.pictures import save_picture
from xenomask.plots import contact_sheet, figure, frame_title, overlay, save_figure, tile
from xenomask.store import check_photo, map_ids, map_path, read_map
from xenomask.store.manifest import MANIFEST, read_manifest
from xenomask.types import Tick, nothing


def draw_heatmaps(
    maps: Path,
    data: Dataset,
    out: Path,
    *,
    threshold: float | None = None,
    scale: tuple[float, float] | None = None,
    tick: Tick = nothing,
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
    for i in ids:
        check_photo(map_path(maps, i), frames[i].image)
    labelled = [i for i in ids if frames[i].label]
    result = None
    if labelled:
        result = evaluate(labelled, lambda i: (read_map(map_path(maps, i)), data.label(frames[i])), resamples=0)
        threshold = result.numbers["exact"]["best_f1_threshold"] if threshold is None else threshold
    if scale is None:
        scale = scale_of_maps(maps, ids)
    files, tiles = [], []
    for i in ids:
        sample, value = data.sample(frames[i]), read_map(map_path(maps, i))
        if value.shape != sample.image.shape[:2]:
            raise XenomaskError(f"map {i} is {value.shape[1]}x{value.shape[0]}, its photo {sample.image.shape[1::-1]}")
        title = frame_title(i, result.per_frame.get(i) if result else None)
        picture = figure(sample.image, value, scale, title=title, label=sample.label, threshold=threshold)
        with atomic(out / f"{i}.png") as part:
            save_figure(picture, part)
        files.append(out / f"{i}.png")
        tiles.append(tile(overlay(sample.image, value, scale, threshold)))  # whole ones are 6 MB each
        tick()
    save_picture(out / "contact_sheet.jpg", contact_sheet(tiles))
    return [*files, out / "contact_sheet.jpg"]


def scale_of_maps(maps: Path, ids: Sequence[str]) -> tuple[float, float]:
    """The range of colours: that of the detector that made the maps, or else the range of all the maps.

    Raises XenomaskError where the manifest holds no such range.
    """
    if (maps / MANIFEST).is_file() and (stored := read_manifest(maps / MANIFEST).get("scale")):
        try:
            low, high = (float(v) for v in stored)
        except (TypeError, ValueError, OverflowError):
            low, high = 0.0, math.nan
        if not -math.inf < low < high < math.inf:
            raise XenomaskError(f"{maps / MANIFEST} is damaged: its scale is {str(stored)[:80]}, not [low, high]")
        return low, high
    ranges = [(v.min(), v.max()) for v in (read_map(map_path(maps, i)) for i in ids)]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return float(low), float(max(high, low + 1e-3))
