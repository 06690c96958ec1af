"""Detector + photos or data set -> maps on disk."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xenomask.datasets import Dataset, Frame, read_photo
from xenomask.datasets.read import photo_size
from xenomask.detector.prediction import default_threshold, prediction
from xenomask.detector.predictor import Predictor
from xenomask.errors import XenomaskError, printable
from xenomask.files import make_dir
from xenomask.objects import SMALLEST, AnomalyObject
from xenomask.picture_files import check_scene
from xenomask.pictures import save_picture
from xenomask.plots import panels
from xenomask.predict.inputs import HEATMAP, OVERLAY, check_photos
from xenomask.predict.pipeline import DROPPED, Profile, Stage, run
from xenomask.store import ENDING, map_ids, map_path, write_map
from xenomask.store.classes import ENDING as PNG
from xenomask.store.classes import class_ids, classes_photo, write_classes
from xenomask.store.manifest import check_kept, claim, frame_digest, keep_map, kept_maps, made_of
from xenomask.store.provenance import photo_digest, signature
from xenomask.types import Size, Tick, nothing

FILES = ("map", "heatmap", "overlay")  # what is written for a photo


@dataclass(frozen=True)
class Photo:
    """A photo on its way; `state` is what the last stage made of it, at the end its ScoreMap."""

    source: Any
    image: Any
    detector: Predictor
    # the SHA-256 of its file
    digest: str
    state: Any = None
    outputs: Any = None


@dataclass(frozen=True)
class Detection:
    """What was found in one photo: the map's largest value and mean; above the threshold, if any, share and objects."""

    photo: str
    # height, width
    size: Size
    max: float
    mean: float
    share_above_threshold: float | None
    objects: list[AnomalyObject] | None

    def to_json(self) -> dict[str, Any]:
        """What `detect --json` writes of the photo."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def inference(detector: Predictor, batch: int = 1, *, keep: bool = False) -> list[Stage]:
    """Return `detector.detect` as stages, from a Photo to the Photo with its map; `keep`: and the networks' outputs.

    A photo is scored by its own detector: only the networks must be `detector`'s. Raises XenomaskError for batches
    larger than the detector takes.
    """
    if detector.largest_batch is not None and batch > detector.largest_batch:
        n = detector.largest_batch
        raise XenomaskError(f"{detector.name} is an exported file that takes {n} photo{'s' * (n != 1)} together, not "
                            f"{batch}: leave --batch out, or export it with --batch {batch}")  # fmt: skip

    def infer(photos: list[Photo]) -> list[Photo]:
        found = detector.infer([p.state for p in photos])
        return [replace(p, state=s) for p, s in zip(photos, found, strict=True)]

    def sizes(p: Photo) -> list[tuple[int, ...]]:
        return [tuple(prepared.x.shape) for prepared in p.state] if batch > 1 else []

    return [
        Stage("preprocess", lambda p: replace(p, state=detector.prepare(p.image))),
        Stage("network", infer, batch, sizes),
        Stage("score", lambda p: replace(p, state=p.detector.fuse(p.state), outputs=p.state if keep else None)),
    ]


def detect_photos(
    detector: Predictor,
    photos: Sequence[Path],
    out: Path,
    *,
    threshold: float | None = None,
    smallest: float = SMALLEST,
    batch: int = 1,
    only: Sequence[str] = FILES,
    failed: list[XenomaskError] | None = None,
    tick: Tick = nothing,
    tell: Callable[[Detection], object] = lambda found: None,
) -> tuple[list[Detection], Profile]:
    """Writes <stem>.hdf5 (the map), <stem>_heatmap.png and <stem>_overlay.jpg for every photo, or `only` some of FILES.

    Returns what was found in each, and how long the stages took. Objects are the map's components above the threshold
    that take `smallest` of the photo's pixels or more (a share); without a threshold there are none. Up to `batch`
    photos of one size go through the networks together. `tell` is given each result as soon as it is there. Raises
    XenomaskError for two photos of one name, and for one that cannot be read, unless `failed` is given: then its error
    is put there and the others go on.
    """
    check_photos(photos, out)

    def read(photo: Path) -> Any:
        try:
            image = read_photo(photo)
            check_scene((image.shape[0], image.shape[1]), str(photo))
            return Photo(photo, image, detector, photo_digest(photo))
        except XenomaskError as e:
            if failed is None:
                raise
            failed.append(e)
            return DROPPED

    made_by = {**detector.describe(), "precision": detector.precision}
    by = signature(detector.name, detector.score_name, made_by)

    def draw(seen: Photo) -> Detection:
        return _draw(seen, out, threshold, smallest, only, by)

    stages = [Stage("decode", read), *inference(detector, batch, keep=True), Stage("draw and write", draw)]
    return run(photos, stages, tick=tick, tell=tell)


def _draw(seen: Photo, out: Path, threshold: float | None, smallest: float, only: Sequence[str], by: str) -> Detection:
    """Writes one photo's files; returns what was found."""
    photo, image, found, scale = seen.source, seen.image, seen.state, seen.detector.scale
    said = replace(prediction(seen.detector, image, found, seen.outputs), threshold=threshold, smallest=smallest)
    if "map" in only:
        write_map(out / f"{photo.stem}{ENDING}", found, photo=seen.digest, detector=by)
    if "heatmap" in only:
        title = Path(printable(str(photo))).name
        picture = panels(image, found.value, scale, title=title, threshold=threshold)
        save_picture(out / f"{photo.stem}{HEATMAP}", picture)
    if "overlay" in only:
        save_picture(out / f"{photo.stem}{OVERLAY}", said.overlay())
    share, objects = (None, None) if threshold is None else (float(said.mask().mean()), said.objects)
    return Detection(str(photo), found.value.shape, float(found.value.max()), float(found.value.mean()), share, objects)


def shard_of(data: Dataset, number: int, count: int) -> Dataset:
    """The frames of shard 1 <= number <= count: every count-th one, so that long drives are split evenly.

    Raises XenomaskError for a shard that is not there; one without a frame is an empty data set.
    """
    if not 1 <= number <= count:
        raise XenomaskError(f"shard {number}/{count} does not exist: they are 1/{count} to {count}/{count}")
    return replace(data, frames=data.frames[number - 1 :: count])


def score_dataset(
    detector: Predictor,
    data: Dataset,
    out: Path,
    *,
    leave_one_out: bool = False,
    batch: int = 1,
    tick: Tick = nothing,
) -> int:
    """Writes out/<id>.hdf5 for every frame that has none yet; returns how many were new.

    `leave_one_out` scores each frame with outlier queries chosen on the others. Shards of one data set may be
    written into one folder at the same time. Up to `batch` frames of one size go through the networks together; a
    batch's maps differ from single ones by rounding, about 1e-6. Raises XenomaskError where the folder already holds
    maps of another detector, data set or resize, or a map that was made from another photo than the frame's is now.
    """
    return score_timed(detector, data, out, leave_one_out=leave_one_out, batch=batch, tick=tick).items


def score_timed(
    detector: Predictor,
    data: Dataset,
    out: Path,
    *,
    leave_one_out: bool = False,
    batch: int = 1,
    classes: Path | None = None,
    tick: Tick = nothing,
) -> Profile:
    """`score_dataset`, and how long its stages took; into `classes` go predicted classes, one <id>.png a frame."""
    done = open_maps(detector, data, out, leave_one_out)
    if classes is not None:
        done &= open_classes(detector, data, classes, leave_one_out)
    frames = [f for f in data.frames if f.id not in done]

    def read(frame: Frame) -> Photo:
        held_out = leave_one_out and frame.label
        own = detector.opened("queries").without_frame(frame.id) if held_out else detector
        image = data.sample(frame).image
        return Photo(frame, image, own, frame_digest(frame))  # its bytes were just read

    def write(seen: Photo) -> None:
        if classes is not None:
            write_classes(classes / f"{seen.source.id}{PNG}", seen.detector.classes(seen.outputs), photo=seen.digest)
        keep_map(out, seen.source, seen.state, seen.digest)

    for _ in range(len(data.frames) - len(frames)):
        tick()
    stages = [Stage("decode", read), *inference(detector, batch, keep=classes is not None), Stage("write", write)]
    return run(frames, stages, name=lambda frame: frame.id, tick=tick)[1]


def work(data: Dataset, out: Path, batch: int = 1) -> tuple[Size, int, int]:
    """What `score_dataset` has to do: the first photo's size, how many have no map yet, how many go together.

    Raises XenomaskError where the first of them is no image.
    """
    frames = [f for f in data.frames if f.image and not map_path(out, f.id).is_file()]
    if not frames:
        return (0, 0), 0, batch
    return data.resize or photo_size(frames[0].image or out), len(frames), batch


def open_maps(detector: Predictor, data: Dataset, out: Path, leave_one_out: bool = False) -> set[str]:
    """Makes or opens a folder of maps for this detector and data set; returns the ids that it holds already.

    Raises XenomaskError where it holds maps of another detector, data set or resize, of other photos, or of unknown
    origin.
    """
    if leave_one_out and data.name not in detector.chosen_on:
        raise XenomaskError(
            f"the outlier queries were not chosen on {data.name}: there is nothing to leave out; score without it"
        )
    make_dir(out)
    made_by = _made_by(detector, data, leave_one_out)
    # what decides no pixel, but how the maps are shown: `xenomask report` finds objects as `detect` does
    ignore = None if detector.ignore is None else detector.ignore.to_json()
    also = {"runtime": detector.runtime, "threshold": default_threshold(detector), "ignore": ignore}
    # listed before the manifest is looked for: another shard writes that first and its maps then
    claim(out, made_by, map_ids(out), also=also)
    return kept_maps(out, data)


def _made_by(detector: Predictor, data: Dataset, leave_one_out: bool) -> dict[str, Any]:
    made_by = {**detector.describe(), **made_of(data), "leave_one_out": leave_one_out}
    # runtimes differ by rounding (4e-6), so maps of several may lie in one folder: said, not compared
    return made_by if detector.precision == "float32" else {**made_by, "precision": detector.precision}


def open_classes(detector: Predictor, data: Dataset, folder: Path, leave_one_out: bool = False) -> set[str]:
    """`open_maps` for a folder of predicted classes, with the same errors."""
    held = class_ids(make_dir(folder))
    claim(folder, _made_by(detector, data, leave_one_out), held, kind="predicted classes")
    done = set(class_ids(folder))
    check_kept(folder, (f for f in data.frames if f.id in done), lambda f: classes_photo(folder, f.id))
    return done
