"""Folders of maps -> folders of refined maps, by segments, superpixels or boxes; no network is run."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from xenomask.datasets.read import read_photo
from xenomask.errors import XenomaskError
from xenomask.files import make_dir, sha256
from xenomask.picture_files import check_scene, is_picture, open_picture
from xenomask.pictures import read_numbers, read_rgb
from xenomask.refine.boxes import read_boxes
from xenomask.refine.definition import Refinement
from xenomask.refine.regions import STEP, superpixels
from xenomask.shapes import Int32, Integer
from xenomask.store import ENDING, MapFolder, Maps, as_maps, map_photo, write_map
from xenomask.store.manifest import MANIFEST, claim, read_manifest
from xenomask.store.provenance import check_photo
from xenomask.types import ScoreMap, Tick, nothing

OWN = ("threshold", "runtime")  # of a manifest, what belongs to the maps as they were
GREY = ("L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


def refine_by_segments(
    maps: Maps, refinement: Refinement, segments: Path, out: Path, *, tick: Tick = nothing
) -> tuple[int, int]:
    """Write out/<id>.hdf5 for every map, refined by segments/<id>.png; returns how many, and how many it changed.

    Raises XenomaskError for no map at all, a map without segments, what `read_segments` refuses, and a folder of other
    maps.
    """
    maps = as_maps(maps)
    files = {frame: segments / f"{frame}.png" for frame in _ids(maps)}
    if lacking := [p for p in files.values() if not p.is_file()]:
        raise XenomaskError(f"{len(lacking)} of {len(files)} maps have no segments, the first is {lacking[0]}")
    digest = hashlib.sha256("".join(sha256(p) for p in files.values()).encode()).hexdigest()
    return _write(maps, refinement, lambda frame: read_segments(files[frame]), {"segments": digest}, out, tick)


def refine_by_superpixels(
    maps: Maps, refinement: Refinement, photos: Path, out: Path, *, tick: Tick = nothing
) -> tuple[int, int]:
    """Write out/<id>.hdf5 for every map, refined by the superpixels of its photo, photos/<id>.jpg or of another ending.

    Returns how many, and how many it changed. Raises XenomaskError for no map at all, a map without a photo or with
    several, a photo that the map was not made from, and a folder of other maps.
    """
    maps = as_maps(maps)
    files = {frame: photo_of(photos, frame) for frame in _ids(maps)}
    if maps.hdf5:
        for frame, photo in files.items():
            check_photo(maps.file(frame), photo, maps.key)
    digest = hashlib.sha256("".join(sha256(p) for p in files.values()).encode()).hexdigest()
    made_of = {"superpixels": STEP, "photos": digest}
    return _write(maps, refinement, lambda frame: _superpixels(files[frame]), made_of, out, tick)


def _superpixels(photo: Path) -> Int32[np.ndarray, "H W"]:
    image = read_photo(photo)
    check_scene((image.shape[0], image.shape[1]), str(photo))
    return superpixels(image)


def photo_of(folder: Path, frame: str) -> Path:
    """The picture of a folder that is called as a frame; raises XenomaskError where there is none, or several."""
    path = folder / frame
    found = sorted(p for p in path.parent.glob(f"{escape(path.name)}.*") if p.stem == path.name and is_picture(p))
    if len(found) == 1:
        return found[0]
    if found:
        raise XenomaskError(f"{' and '.join(map(str, found[:2]))}: two photos of one map; leave one of them")
    raise XenomaskError(
        f"{folder} has no photo {frame}.jpg (or .png, ...) for the map {frame}: name the photos' folder"
    )


def refine_by_boxes(
    maps: Maps, refinement: Refinement, boxes: Path, out: Path, *, inliers: Collection[str] = (), tick: Tick = nothing
) -> tuple[int, int]:
    """Write out/<id>.hdf5 for every map, refined by its boxes in a JSON file (`boxes.read_boxes`).

    Returns how many, and how many it changed: a map that the file names no box of stays as it is. Raises XenomaskError
    for no map at all, a file of other frames, and a folder of other maps.
    """
    maps, found = as_maps(maps), read_boxes(boxes, inliers)
    if foreign := sorted(found.keys() - set(_ids(maps))):
        raise XenomaskError(
            f"{boxes} has boxes of {len(foreign)} frames that {maps} has no map of, the first is {foreign[0][:80]}"
        )
    none = np.empty((0, 5))
    made_of = {"boxes": sha256(boxes), "inliers": sorted(inliers)}
    return _write(maps, refinement, lambda frame: found.get(frame, none), made_of, out, tick)


def read_segments(path: Path) -> Integer[np.ndarray, "H W"]:
    """The segment ids of a PNG: of 8 or 16 bits grey or a palette as they are, of RGB R + 256 G + 65536 B (COCO's).

    Raises XenomaskError for other pictures.
    """
    picture = open_picture(path, "segments")
    if picture.format == "PNG" and picture.image.mode in GREY:
        return read_numbers(picture)
    if picture.format == "PNG" and picture.image.mode == "RGB" and not picture.deep:
        return read_rgb(picture).astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    raise XenomaskError(
        f"{path} is {picture.format} {picture.image.mode}: give segments as PNG, 8- or 16-bit grey or 8-bit RGB"
    )


def _ids(maps: MapFolder) -> list[str]:
    if ids := maps.ids():
        return ids
    raise XenomaskError(f"{maps} holds no maps (<id>{ENDING}); of another tool's, say how they are called: --pattern")


def _write(
    maps: MapFolder,
    refinement: Refinement,
    given: Callable[[str], Any],
    made_of: Mapping[str, Any],
    out: Path,
    tick: Tick,
) -> tuple[int, int]:
    """Refine every map of a folder into another, whose manifest names what made it; what fails leaves nothing new."""
    stored = maps.path / MANIFEST
    old = read_manifest(stored) if stored.is_file() else {"maps": str(maps)}
    if out.resolve() == maps.path.resolve():
        raise XenomaskError(f"{out} holds the maps that are to be refined: choose another folder")
    step = {**refinement.table(), **made_of}
    made_by = {**{k: v for k, v in old.items() if k not in OWN}, "refine": [*old.get("refine", []), step]}
    make_dir(out)
    fresh = not (out / MANIFEST).exists()
    claim(out, made_by, MapFolder(out).ids(), of="another run")
    ids, changed = maps.ids(), 0
    for number, frame in enumerate(ids):
        photo = map_photo(maps.file(frame), maps.key) if maps.hdf5 else None
        try:
            before = maps.read_stored(frame)
            value = refinement(before, given(frame))
            write_map(out / f"{frame}{ENDING}", ScoreMap(value, refinement.name), photo=photo)
        except XenomaskError as e:
            for own in [*(f"{i}{ENDING}" for i in ids[:number]), MANIFEST] if fresh else []:
                (out / own).unlink(missing_ok=True)
            raise XenomaskError(f"frame {frame}: {e}") from e
        changed += not np.array_equal(value, before)
        tick()
    return len(ids), changed
