"""Maps of a data set -> the folder that the SegmentMeIfYouCan benchmark's tool reads, checked before it is sent."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xenomask.datasets import Dataset, Frame
from xenomask.datasets.read import photo_size
from xenomask.errors import XenomaskError, unknown
from xenomask.files import atomic, make_dir
from xenomask.store import ENDING, MapFormat, check_photo, encode_map, map_format, map_ids, map_path, read_map
from xenomask.types import Size, Tick, nothing

UNVERIFIED = (
    "Checked: the folder and file layout, as the official tool's source (road_anomaly_benchmark) has it. "
    "NOT verified: the upload. The page of the competition (Codabench 5402, linked on segmentmeifyoucan.com/submit) "
    "could not be retrieved, so the layout of the zip file, its size limit and the number of uploads allowed are "
    "unknown here; read them there before you upload."
)


@dataclass(frozen=True)
class Track:
    """What the benchmark calls a data set, and how many photos it has in all."""

    folder: str
    frames: int
    parts: str


TRACKS: Mapping[str, Track] = {
    "anomaly-track": Track("AnomalyTrack-all", 110, "100 test and 10 validation"),
    "obstacle-track": Track("ObstacleTrack-all", 442, "327 test, 55 snowstorm, 30 night and 30 validation"),
}

# A tie at the top cannot be ranked: everything in it is found, or falsely found, together, and the official component
# metric, whose threshold is strict, finds nothing where the best one is the maximum. 1 % of the pixels is five hundred
# times the share of any real map here (2e-5 at most, two scores, 40 photos) and more than all the obstacles of
# ObstacleTrack together.
SATURATED = 0.01
# Real maps have 4,800 distinct values and more; 8-bit pictures saved as maps have 256.
FEW_VALUES = 257


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `fatal` ones make the submission unfit, the others are for you to judge."""

    frame: str
    kind: str
    text: str
    fatal: bool = True


@dataclass(frozen=True)
class Report:
    """What was found in one submission folder."""

    folder: Path
    frames: int
    maps: int
    bytes: int
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that make it unfit."""
        return tuple(p for p in self.problems if p.fatal)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that you have to judge."""
        return tuple(p for p in self.problems if not p.fatal)


@dataclass(frozen=True)
class _Look:
    """One map that could be read: its largest value and the share of its pixels there, its distinct values."""

    stored: MapFormat
    top: float
    share: float
    distinct: int


def track_of(data: Dataset) -> Track:
    """The benchmark's track of a data set.

    Raises XenomaskError for data sets that nothing can be submitted of.
    """
    if data.name not in TRACKS:
        raise unknown("track of the benchmark", data.name, TRACKS)
    return TRACKS[data.name]


def check_method(name: str) -> str:
    """The name itself, where it can be a folder's on every system; raises XenomaskError otherwise.

    >>> check_method("maskomaly_nano-1.0")
    'maskomaly_nano-1.0'
    >>> check_method("my method")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: method name 'my method': use up to 64 letters, digits, '-', '_' and '.', ...
    """
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?", name):
        raise XenomaskError(
            f"method name {name!r}: use up to 64 letters, digits, '-', '_' and '.', a letter or digit first and no "
            "'.' last"
        )
    return name


def submission_folder(out: Path, method: str, data: Dataset) -> Path:
    """Where the maps of that method and data set belong: out/anomaly_p/<method>/<track>."""
    return out / "anomaly_p" / check_method(method) / track_of(data).folder


def write(maps: Path, data: Dataset, out: Path, method: str, *, tick: Tick = nothing) -> Report:
    """Copies a data set's maps into out/anomaly_p/<method>/<track>; resumes where it stopped, then checks it.

    Maps that are float16 of the official kind are linked (copied on another disk), others are encoded anew. Raises
    XenomaskError, before anything is written, for all that `check` calls an error, and for a folder that holds
    different maps.
    """
    folder = submission_folder(out, method, data)
    report = _examine(maps, data, tick, source=True)
    if report.errors:
        raise XenomaskError(f"{maps} is no submission yet: {_summary(report.errors)}")
    make_dir(folder)
    for frame in data.frames:
        source, target = map_path(maps, frame.id), folder / f"{frame.id}{ENDING}"
        if target.exists():
            _check_same(source, target)
        else:
            _place(source, target)
        tick()
    return check(folder, data, tick=tick)


def _summary(errors: tuple[Problem, ...]) -> str:
    shown = "; ".join(f"{p.frame}: {p.text}" if p.frame else p.text for p in errors[:5])
    return shown if len(errors) <= 5 else f"{shown}; and {len(errors) - 5} more problems"


def _check_same(source: Path, target: Path) -> None:
    if target.samefile(source):
        return
    if not map_format(target).official or read_map(target).tobytes() != read_map(source).tobytes():
        raise XenomaskError(
            f"{target} is not the map that {source} is: choose another method name, or delete the folder"
        )


def _place(source: Path, target: Path) -> None:
    if not map_format(source).official:
        data = encode_map(read_map(source).astype(np.float32), None)
        with atomic(target) as part:
            part.write_bytes(data)
        return
    with atomic(target) as part:
        try:
            os.link(source.resolve(), part)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(source, part)


def check(folder: Path, data: Dataset, *, tick: Tick = nothing) -> Report:
    """Everything that is wrong with a submission folder (.../anomaly_p/<method>/<track>), found in one go.

    A folder above it will do, where it leads to one track of one method. Raises XenomaskError where there is no such
    folder or a photo, whose size counts, cannot be read; what is wrong with maps is in the report.
    """
    folder = _track_folder(folder, track_of(data))
    report = _examine(folder, data, tick, source=False)
    return replace(report, problems=report.problems + tuple(_place_problems(folder, track_of(data))))


def _track_folder(folder: Path, track: Track) -> Path:
    if not folder.is_dir():
        raise XenomaskError(f"no folder {folder}; make one with `xenomask submission write`")
    if any(folder.glob(f"*{ENDING}")):
        return folder
    patterns = (track.folder, f"*/{track.folder}", f"anomaly_p/*/{track.folder}")
    below = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_dir()})
    if len(below) > 1:
        raise XenomaskError(f"{folder} holds {len(below)} submissions; name one of {', '.join(map(str, below))}")
    return below[0] if below else folder


def _place_problems(folder: Path, track: Track) -> list[Problem]:
    """What is odd about where the maps lie and what lies beside them."""
    found = []
    where = folder.absolute().parts[-3:]
    if len(where) < 3 or (where[0], where[2]) != ("anomaly_p", track.folder):
        wanted = f"anomaly_p/<method>/{track.folder}"
        found.append(Problem("", "folder", f"{folder} does not end in {wanted}, where the official tool looks", False))
    if strays := sorted(p.name for p in folder.iterdir() if p.is_dir() or p.suffix != ENDING or p.name[0] == "."):
        found.append(Problem("", "other files", f"{_some(strays)} in {folder}: no maps; do not send them", False))
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _examine(folder: Path, data: Dataset, tick: Tick, *, source: bool) -> Report:
    """Check every map; a `source` may hold other floats, and maps of other frames, which nobody copies."""
    track, wanted, found = track_of(data), [f.id for f in data.frames], map_ids(folder)
    problems = []
    if len(wanted) != track.frames:
        text = f"{data.root} has {len(wanted)} photos; {track.folder} has {track.frames} ({track.parts})"
        problems.append(Problem("", "photos", f"{text}: get them all before you submit", False))
    problems += [Problem(i, "missing", f"no map {i}{ENDING} in {folder}") for i in sorted(set(wanted) - set(found))]
    if not source:
        text = f"a map, but no photo of that name at {data.root}: remove it, or name the root that has it"
        problems += [Problem(i, "no such frame", text) for i in sorted(set(found) - set(wanted))]
    looks, size, present = {}, 0, set(found)
    for frame in data.frames:
        if frame.id in present:
            path = map_path(folder, frame.id)
            size += path.stat().st_size
            look, own = _look_at(path, frame, source)
            problems += own
            if look:
                looks[frame.id] = look
        tick()
    problems += _value_problems(looks)
    return Report(folder, len(wanted), len(present.intersection(wanted)), size, tuple(problems))


def _look_at(path: Path, frame: Frame, source: bool) -> tuple[_Look | None, list[Problem]]:
    photo = _photo_size(frame)
    try:
        check_photo(path, frame.image)
        look = _look(path)
    except XenomaskError as e:  # one of perhaps many problems
        return None, [Problem(frame.id, "unreadable", str(e))]
    return look, _form_problems(frame.id, look.stored, photo, source)


def _look(path: Path) -> _Look:
    stored, value = map_format(path), read_map(path)
    counts = np.bincount(value.view(np.uint16).reshape(-1), minlength=2**16)
    counts[0] += counts[0x8000]  # -0 is 0
    counts[0x8000] = 0
    top = float(value.max())
    share = float((value == top).mean())
    return _Look(stored, top, share, int(np.count_nonzero(counts)))


def _photo_size(frame: Frame) -> Size:
    """(height, width) from the file's header."""
    if frame.image is None:
        raise XenomaskError(f"frame {frame.id} has no photo: a map's size cannot be checked without")
    return photo_size(frame.image)


def _form_problems(frame: str, stored: MapFormat, photo: Size, source: bool) -> list[Problem]:
    found = []
    if stored.size != photo:
        (h, w), (height, width) = stored.size, photo
        found.append(Problem(frame, "size", f"map is {w}x{h}, its photo {width}x{height}: make it at the photo's size"))
    if not source and stored.dtype != np.dtype("<f2"):
        text = f"'value' is {stored.dtype.str}, not little-endian float16; `xenomask submission write` converts"
        found.append(Problem(frame, "type", text))
    elif not source and not stored.official:
        text = f"HDF5 filters {stored.filters}, not gzip; `xenomask submission write` converts"
        found.append(Problem(frame, "type", text))
    return found


def _value_problems(looks: Mapping[str, _Look]) -> list[Problem]:
    """Maps whose values rank nothing: constant, of two values, or tied at the top of all maps."""
    found = []
    ceiling = max((look.top for look in looks.values()), default=0.0)
    for frame, look in looks.items():
        tie = f"{100 * look.share:.1f} % of the pixels are at the maximum {look.top:g}"
        if look.distinct == 1:
            found.append(Problem(frame, "constant", f"every pixel is {look.top:g}"))
        elif look.distinct == 2:
            found.append(Problem(frame, "binary", "two distinct values; the benchmark wants a score, not a mask"))
        elif look.share > SATURATED and look.top == ceiling:
            text = f"{tie}, the largest of all maps: nothing ranks them; scale the score, or submit its logarithm"
            found.append(Problem(frame, "saturated", text))
        elif look.share > SATURATED:
            found.append(Problem(frame, "tie", f"{tie} of this map: nothing ranks them", False))
        if 2 < look.distinct < FEW_VALUES:
            text = f"{look.distinct} distinct values: was it rounded to 8 bits?"
            found.append(Problem(frame, "few values", text, False))
    return found
