"""A folder of maps, or of networks' outputs, knows what made it: nothing in it is ever taken for another run's."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xenomask.datasets import Dataset, Frame
from xenomask.errors import XenomaskError
from xenomask.files import MANIFEST as MANIFEST
from xenomask.files import create, read_object, remove_litter
from xenomask.store import MapFolder, map_ids, map_path, map_photo, write_map
from xenomask.store.provenance import photo_digest
from xenomask.types import ScoreMap

THREADS = 4  # hashing lets others run
_OTHER = "choose another folder or empty it"


def read_manifest(path: Path) -> dict[str, Any]:
    """Return what made the maps beside this file; raises XenomaskError if it is damaged."""
    try:
        return read_object(path)
    except XenomaskError as e:
        raise XenomaskError(f"{e}; delete it together with its maps") from e


def made_of(data: Dataset) -> dict[str, Any]:
    """What a manifest says of a data set. Where it lies is not among it: a data set may move.

    The photos themselves are told by the SHA-256 that each map holds.
    """
    return {"dataset": data.name, "resize": None if data.resize is None else list(data.resize)}


def folder_by(path: Path, pattern: str | None, key: str | None) -> MapFolder:
    """Return how the maps of a folder are named: as given; but as our own where its manifest says that they are.

    A pattern that names files there holds all the same. Raises XenomaskError for a pattern that names no file.
    """
    given = MapFolder(path, pattern or MapFolder.pattern, key)
    own = (path / MANIFEST).is_file() and not (pattern and given.ids())
    return MapFolder(path) if own else given


def claim(
    folder: Path, made_by: Mapping[str, Any], held: Iterable[str], *, also: Mapping[str, Any] | None = None,
    kind: str = "maps", of: str = "another run",
) -> None:  # fmt: skip
    """Makes a folder this run's, or checks that it is: of several processes at once, exactly one is the first.

    `held` are the ids of what lay there before this was called; `also` is written, but not compared. Raises
    XenomaskError where the folder is another run's, or holds something and does not say whose it is.
    """
    also = also or {}
    remove_litter(folder)
    made_by, path = json.loads(json.dumps(made_by)), folder / MANIFEST
    if not path.is_file():
        if first := next(iter(held), None):
            raise XenomaskError(f"{folder} holds {kind} of unknown origin ({first}, no {MANIFEST}): {_OTHER}")
        if create(path, json.dumps({**made_by, **also}, indent=1) + "\n"):
            return
    old = {k: v for k, v in read_manifest(path).items() if k not in also}
    if "resize" in made_by and "resize" not in old:
        raise XenomaskError(f"{folder} does not say which photos it was made from (an older version's): {_OTHER}")
    if differs := sorted(k for k in made_by.keys() | old.keys() if made_by.get(k) != old.get(k)):
        raise XenomaskError(f"{folder} holds {kind} of {of} (its {', '.join(differs)} differ): {_OTHER}")


def frame_digest(frame: Frame) -> str:
    """The SHA-256 of a frame's photo; raises XenomaskError where it has none or it cannot be read."""
    if frame.image is None:
        raise XenomaskError(f"frame {frame.id} has no photo")
    return photo_digest(frame.image)


def check_kept(folder: Path, frames: Iterable[Frame], made_from: Callable[[Frame], str | None]) -> None:
    """Raises XenomaskError where what is kept of a frame was made from another photo than the frame's."""

    def other(frame: Frame) -> bool:
        return frame.image is not None and made_from(frame) != frame_digest(frame)

    with ThreadPoolExecutor(THREADS) as pool:
        frames = list(frames)
        changed = [f for f, o in zip(frames, pool.map(other, frames), strict=True) if o]
    if changed:
        raise XenomaskError(
            f"{folder} holds maps of other photos than these: {len(changed)} of {len(frames)} differ, the first is "
            f"{changed[0].id} ({changed[0].image}): choose another folder, or delete what was made from photos that "
            "were replaced"
        )


def kept_maps(out: Path, data: Dataset) -> set[str]:
    """The ids of the maps in a folder.

    Raises XenomaskError where a frame's map was made from another photo than the frame's is now.
    """
    done = set(map_ids(out))
    check_kept(out, (f for f in data.frames if f.id in done), lambda f: map_photo(map_path(out, f.id)))
    return done


def keep_map(out: Path, frame: Frame, found: ScoreMap, photo: str) -> None:
    """Writes the map of a frame, whose photo had that SHA-256.

    Raises XenomaskError where another run, of another photo, has written it meanwhile.
    """
    path = map_path(out, frame.id)
    if path.is_file() and map_photo(path) != photo:
        raise XenomaskError(f"{path} was written meanwhile from another photo than {frame.image}: {_OTHER}")
    write_map(path, found, photo=photo)
