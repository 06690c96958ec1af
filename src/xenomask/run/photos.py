"""Detector + photos or data set -> maps on disk."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xenomask.datasets import Dataset, read_photo
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.export import ExportedDetector
from xenomask.files import atomic, make_dir
from xenomask.plots import figure, overlay
from xenomask.run.common import MANIFEST, Tick, nothing, read_manifest, save_picture
from xenomask.store import ENDING, map_ids, write_map


def detect_photos(
    detector: Detector | ExportedDetector,
    photos: Sequence[Path],
    out: Path,
    *,
    threshold: float | None = None,
    tick: Tick = nothing,
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
        save_picture(out / f"{photo.stem}_overlay.jpg", overlay(image, found.value, detector.scale, threshold))
        row = {"photo": str(photo), "max": float(found.value.max()), "mean": float(found.value.mean())}
        if threshold is not None:
            row["share_above_threshold"] = float((found.value >= threshold).mean())
        rows.append(row)
        tick()
    return rows


def shard_of(data: Dataset, number: int, count: int) -> Dataset:
    """The frames of shard 1 <= number <= count: every count-th one, so that long drives are dealt out evenly.

    Raises XenomaskError for a shard that is not there; one without a frame is an empty data set.
    """
    if not 1 <= number <= count:
        raise XenomaskError(f"shard {number}/{count} does not exist: they are 1/{count} to {count}/{count}")
    return replace(data, frames=data.frames[number - 1 :: count])


def score_dataset(
    detector: Detector | ExportedDetector,
    data: Dataset,
    out: Path,
    *,
    leave_one_out: bool = False,
    tick: Tick = nothing,
) -> int:
    """Writes out/<id>.hdf5 for every frame that has none yet; returns how many were new.

    `leave_one_out` looks at each frame with outlier queries chosen on the others. Shards of one data set may be
    written into one folder at the same time. Raises XenomaskError where the folder already holds maps of another
    detector or data set.
    """
    done, new = open_maps(detector, data, out, leave_one_out), 0
    for frame in data.frames:
        if frame.id not in done:
            own = detector.without_frame(frame.id) if leave_one_out and frame.label else detector
            write_map(out / f"{frame.id}{ENDING}", own.detect(data.sample(frame).image))
            new += 1
        tick()
    return new


def open_maps(detector: Detector | ExportedDetector, data: Dataset, out: Path, leave_one_out: bool = False) -> set[str]:
    """Makes or opens a folder of maps for this detector and data set; returns the ids that it holds already.

    Raises XenomaskError where it holds maps of another detector or data set, or of unknown origin.
    """
    if leave_one_out and not chosen_on(detector, data.name):
        raise XenomaskError(
            f"the outlier queries were not chosen on {data.name}: there is nothing to leave out; score without it"
        )
    make_dir(out)
    made_by = {**detector.describe(), "dataset": data.name, "leave_one_out": leave_one_out}
    made_by = json.loads(json.dumps(made_by))
    manifest = out / MANIFEST
    # listed before the manifest is looked for: another shard writes that first and its maps then
    done = map_ids(out)
    if manifest.is_file() and (old := read_manifest(manifest)) != made_by:
        differs = sorted(k for k in made_by.keys() | old.keys() if made_by.get(k) != old.get(k))
        raise XenomaskError(
            f"{out} holds maps of another run (its {', '.join(differs)} differ): choose another folder or empty it"
        )
    if not manifest.is_file():
        if done:
            raise XenomaskError(
                f"{out} holds maps of unknown origin ({done[0]}{ENDING}, no {MANIFEST}): choose another"
            )
        with atomic(manifest) as part:
            part.write_text(json.dumps(made_by, indent=1) + "\n")
    return set(done)


def chosen_where(detector: Detector | ExportedDetector) -> set[str]:
    """The data sets on which the members' outlier queries were chosen."""
    if isinstance(detector, ExportedDetector):
        origins = [m["queries"]["origin"] for m in detector.metadata["members"]]
    else:
        origins = [m.queries.origin for m in detector.members]
    return {o["outlier"]["dataset"] for o in origins if "outlier" in o}


def chosen_on(detector: Detector | ExportedDetector, dataset: str) -> bool:
    """Whether any member's outlier queries were chosen on frames of this data set."""
    return dataset in chosen_where(detector)
