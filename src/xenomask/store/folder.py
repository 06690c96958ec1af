"""A folder of maps: how its files are called, and how a frame's map is found and read."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xenomask.errors import XenomaskError
from xenomask.files import MANIFEST, check_maps
from xenomask.shapes import Float, Float16
from xenomask.store.formats import FORMATS, HDF5, format_of, read_map, read_stored
from xenomask.store.provenance import check_one_detector, check_photo

if TYPE_CHECKING:
    from xenomask.datasets import Dataset

ENDING = ".hdf5"
ID = "{id}"
OWN = ID + ENDING
GUESSED_FROM = 20  # names


@dataclass(frozen=True)
class MapFolder:
    """A folder of maps, the pattern of its files' names, and the key of the array in each; by default our own.

    Raises XenomaskError for a pattern that does not hold {id} once, or ends like no known format.

    >>> MapFolder(Path("maps"), "{id}_score.npy").file("street").name
    'street_score.npy'
    """

    path: Path
    pattern: str = OWN
    # None: `value` of HDF5, the only array of .npz
    key: str | None = None

    def __post_init__(self) -> None:
        name = self.pattern.replace(ID, "")
        if self.pattern.count(ID) != 1 or "/" in name or "\\" in name or self.pattern.startswith("."):
            raise XenomaskError(f"pattern {self.pattern!r} is not the name of a file with one {ID}, such as {ID}.npy")
        if format_of(self.pattern.replace(ID, "id")) is None:
            raise XenomaskError(f"pattern {self.pattern!r} ends with no known map format: {', '.join(FORMATS)}")

    def __str__(self) -> str:
        return str(self.path if self.pattern == OWN else self.path / self.pattern)

    def ids(self) -> list[str]:
        """Return the frame ids of its maps, sorted.

        As a data set's ids they are in Unicode's composed form (NFC), in whichever a disk of macOS has named the files.
        Raises XenomaskError where there is no folder, an id twice, or maps of two detectors.
        """
        check_maps(self.path)
        first, last = map(_composed, self.pattern.split(ID))
        found: dict[str, str] = {}
        for name in sorted(p.name for p in self.path.iterdir() if not p.name.startswith(".")):
            same = _composed(name)
            if len(same) <= len(first + last) or not (same.startswith(first) and same.endswith(last)):
                continue
            frame = same[len(first) : len(same) - len(last)]
            if (other := found.setdefault(frame, name)) != name:
                files = f"{ascii(other)} and {ascii(name)}"
                raise XenomaskError(f"{self.path} holds two maps of frame {frame} ({files}): keep one")
        if self.hdf5 and not (self.path / MANIFEST).is_file():  # what `detect` wrote; a manifest speaks for all
            check_one_detector((self.path / name for name in found.values()), self.key)
        return sorted(found)

    def file(self, frame: str) -> Path:
        """Return where a frame's map lies: under its id, or under the same name in another of Unicode's forms."""
        path = self.path / self.pattern.replace(ID, frame)
        if path.name.isascii() or path.exists() or not self.path.is_dir():
            return path
        wanted = _composed(path.name)
        return next((p for p in sorted(self.path.iterdir()) if _composed(p.name) == wanted), path)

    def read(self, frame: str) -> Float16[np.ndarray, "H W"]:
        """Read a frame's map (H, W) as float16; raises XenomaskError as `store.read_map` does."""
        return read_map(self.file(frame), self.key)

    def read_stored(self, frame: str) -> Float[np.ndarray, "H W"]:
        """Read the same in the float type that it is stored in."""
        return read_stored(self.file(frame), self.key)

    @property
    def hdf5(self) -> bool:
        """Whether its files are HDF5, which may say what photo they were made from."""
        return self.pattern.lower().endswith(HDF5)

    def check_photo(self, frame: str, photo: Path | None) -> None:
        """Raise XenomaskError where the map says that it was made from another photo; only HDF5 can say so."""
        if self.hdf5:
            check_photo(self.file(frame), photo, self.key)

    def found_instead(self, frames: Iterable[str] = (), data: str = "") -> str:
        """Say which map files lie in the folder and which pattern fits the frames of a data set; "" where none do.

        >>> MapFolder(Path("nowhere")).found_instead(["street"], "folder")
        ''
        """
        names = sorted(p.name for p in self.path.glob("*") if format_of(p.name) and not p.name.startswith("."))
        if not names:
            return ""
        known = sorted(frames, key=lambda i: (-len(i), i))
        fits = [(n, next((i for i in known if i in _composed(n)), "")) for n in names[:GUESSED_FROM]]
        guesses = dict.fromkeys(_composed(n).replace(i, ID, 1) for n, i in fits if i)
        covered = {g: self._covered(g, known) for g in guesses}
        order = list(FORMATS)  # pictures come last: they may be photos
        best = max(covered, key=lambda g: (covered[g], -order.index(Path(g).suffix.lower())), default="")
        if best and covered[best]:
            ending, advice = Path(best).suffix, f"they look like {data}: give --pattern '{best}'"
        else:
            ending = Counter(Path(n).suffix for n in names).most_common(1)[0][0]
            no_frame = f"none is named like a frame of {data}, such as {min(known)}" if known else ""
            advice = no_frame or f"give --pattern '{ID}{ending}'"
        named = [n for n in names if n.endswith(ending)]
        shown = ", ".join(named[:2]) + ", ..." * (len(named) > 2)
        return f"{len(named)} {ending} files lie there, named {shown}; {advice}"

    def _covered(self, pattern: str, frames: Iterable[str]) -> int:
        """How many of the frames have a file by that pattern."""
        try:
            return len(set(MapFolder(self.path, pattern).ids()).intersection(frames))
        except XenomaskError:  # a name that no pattern can hold
            return 0


Maps = Path | MapFolder


def as_maps(maps: Maps) -> MapFolder:
    """Return the description of a folder; a path stands for maps that xenomask wrote."""
    return maps if isinstance(maps, MapFolder) else MapFolder(maps)


def map_ids(folder: Maps) -> list[str]:
    """Return the frame ids of the maps in a folder, sorted; raises XenomaskError as `MapFolder.ids` does."""
    return as_maps(folder).ids()


def map_path(folder: Maps, frame: str) -> Path:
    """Return where a frame's map lies."""
    return as_maps(folder).file(frame)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def check_complete(maps: Maps, data: "Dataset") -> None:
    """Raises XenomaskError where a labelled frame has no map in a folder, or a map belongs to no frame."""
    maps = as_maps(maps)
    known, present = {f.id for f in data.frames}, set(maps.ids())
    hint = "" if present & known else maps.found_instead(known, data.name)
    check_frames({f.id for f in data.labelled().frames}, known, present, maps.path, hint)


def check_frames(
    expected: set[str], known: set[str], present: set[str], where: Path, hint: str = ""
) -> None:  # fmt: skip
    """Raises XenomaskError where a labelled frame has no map, or a map belongs to no frame of the data set."""
    if missing := sorted(expected - present):
        raise XenomaskError(
            f"{len(missing)} of {len(expected)} labelled frames have no map in {where}, the first is {missing[0]}; "
            f"{hint or '`xenomask score` goes on where it stopped'}"
        )
    if extra := sorted(present - known):
        raise XenomaskError(
            f"{where} holds {len(extra)} maps that belong to no frame of the data set, the first is {extra[0]}: "
            "wrong data set, split or folder"
        )
