"""What the web page shows: photo -> Seen -> Reading -> pictures, components, reasons; knows nothing of gradio."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xenomask.arrays import as_threshold
from xenomask.datasets import read_photo
from xenomask.datasets.read import photo_size
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.detector.fuse import ensemble
from xenomask.detector.prediction import default_threshold
from xenomask.errors import XenomaskError, unknown
from xenomask.masks import MaskOutput, PixelOutput, soft_masks
from xenomask.objects import AnomalyObject, find_objects, ignored_in
from xenomask.picture_files import check_scene
from xenomask.plots import coloured, draw_boxes, overlay
from xenomask.predict.frames import open_source
from xenomask.scores import get_score, score_all
from xenomask.scores.maskomaly import MIX
from xenomask.shapes import UInt8
from xenomask.types import ScoreMap, Size

if TYPE_CHECKING:  # torch, which is imported when someone asks why
    from xenomask.detector.explain import Answer

MAX_BYTES = 32 * 2**20
MAX_PIXELS, MAX_ASPECT = 24_000_000, 8
CLIPS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
OWN = "the detector's own"
# synthetic scenes that the page offers: name -> seed and number of anomalous objects
EXAMPLES = {"example 1": (1, 1), "example 2": (0, 2), "example 3": (2, 2)}
EXAMPLE_SIZE = (360, 640)
BOXES = 20  # components that get a box and a line in the table
MASKS = 6  # queries whose masks are shown

Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Seen:
    """One photo and what the network of each of a detector's members said of it: all that a session keeps."""

    name: str
    image: Picture
    detector: Detector
    outputs: tuple[MaskOutput | PixelOutput, ...]
    title: str  # under which the detector was chosen


@dataclass(frozen=True)
class Reading:
    """The same, scored with a score: its map, its colour range, and a threshold in that range."""

    seen: Seen
    detector: Detector
    score_map: ScoreMap
    scale: tuple[float, float]
    threshold: float
    mix: float | None  # lambda; None: the score has none


def read_upload(path: Path) -> Picture:
    """A photo, upright, or the first frame of a clip.

    Raises XenomaskError for what is neither or gone, and for files and pictures that are too large, too small or too
    long.
    """
    if not path.is_file():  # its session dropped others since, or an hour is over
        raise XenomaskError(f"{path.name} is no longer here: drop it again")
    if path.stat().st_size > MAX_BYTES:
        raise XenomaskError(f"{path.name} is larger than {MAX_BYTES >> 20} MB")
    if path.suffix.lower() in CLIPS:
        image = _first_frame(path)
        _check_size(image.shape[:2], path)
        return image
    _check_size(photo_size(path), path)  # from its header: what is too large is not decoded
    return read_photo(path)


def _first_frame(path: Path) -> Picture:
    frames = open_source(str(path)).frames
    image = next(frames, None)
    frames.close()
    if image is None:
        raise XenomaskError(f"{path.name} holds no frame")
    return image


def _check_size(size: Size, path: Path) -> None:
    height, width = size
    said = f"{path.name} is {width}x{height}"
    if height * width > MAX_PIXELS:
        raise XenomaskError(f"{said}: more than {MAX_PIXELS // 10**6} megapixels are too many for this page")
    check_scene(size, path.name)
    if max(size) > MAX_ASPECT * min(size):
        raise XenomaskError(f"{said}: more than {MAX_ASPECT} times as long as it is wide is no photo of a scene")


def example(name: str) -> Picture:
    """An example scene of EXAMPLES, synthetic and drawn anew; XenomaskError for another name."""
    if name not in EXAMPLES:
        raise unknown("example scene", name, EXAMPLES)
    seed, anomalies = EXAMPLES[name]
    return draw_scene(seed, EXAMPLE_SIZE, anomalies=anomalies).image


def choices(detectors: dict[str, Detector]) -> dict[str, Detector]:
    """What can be chosen: the detectors, and each member alone where one has several."""
    found = {}
    for name, detector in detectors.items():
        found[name] = detector
        if len(detector.members) > 1:
            found |= {f"{name}, {m.name} alone": detector.only(m.name) for m in detector.members}
    return found


def detect(name: str, image: Picture, detector: Detector, title: str = "") -> Seen:
    """Runs the detector's networks: the one step that takes long."""
    detector = replace(detector, members=detector.used)
    return Seen(name, image, detector, detector.infer([detector.prepare(image)])[0], title or detector.name)


def read(seen: Seen, score: str = OWN, mix: float | None = None, threshold: float | None = None) -> Reading:
    """Reads what was seen by a score, Maskomaly's with another lambda (`mix`), without running a network.

    The threshold, where none is given, is the detector's stored one for its own score and lambda, or else the middle
    of the range. Raises XenomaskError where the score is unknown or not defined for the networks.
    """
    detector = read_by(seen.detector, score)
    if mix is not None:
        if not 0 <= mix <= 1:
            raise XenomaskError(f"lambda {mix:g} is not from 0 to 1")
        detector = _with_mix(detector, mix)
    pairs = [(m, o) for m, o in zip(detector.members, seen.outputs, strict=True) if m.weight > 0]
    maps = [score_all(o, m.queries, [m.score])[m.score.name] for m, o in pairs]
    found = detector.refined(ensemble(maps, [m.weight for m, _ in pairs]), [o for _, o in pairs])
    low, high = detector.scale
    if threshold is None:
        stored = default_threshold(detector)
        threshold = (low + high) / 2 if stored is None else stored
    return Reading(seen, detector, found, (low, high), as_threshold(threshold), own_mix(detector))


def read_by(detector: Detector, score: str) -> Detector:
    """The detector with that score, or as it is for OWN."""
    return detector if score == OWN else detector.with_score(score)


def own_mix(detector: Detector) -> float | None:
    """Its lambda, of several members' the mean by weight; None where Maskomaly reads none of them."""
    found = [(m.weight, m.score.options.get("mix", MIX)) for m in detector.used if "mix" in m.score.known_options]
    return round(sum(w * x for w, x in found) / sum(w for w, _ in found), 6) if found else None


def _with_mix(detector: Detector, mix: float) -> Detector:
    """Its members that Maskomaly reads, mixed anew; a threshold of another mix would mean nothing, so it goes."""
    if own_mix(detector) in (None, mix):
        return detector
    members = tuple(
        replace(m, score=get_score(m.score.name, {**m.score.options, "mix": mix}))
        if "mix" in m.score.known_options
        else m
        for m in detector.members
    )
    return replace(detector, members=members, thresholds={}, calibration=None)


def found_in(reading: Reading, smallest: int = 50) -> list[AnomalyObject]:
    """The components above the threshold of `smallest` pixels or more: those of the map that is downloaded."""
    nearest = reading.detector.nearest(reading.seen.outputs)
    return find_objects(
        reading.score_map.value, reading.threshold, smallest, ignored=_ignored(reading), nearest=nearest
    )


def _ignored(reading: Reading) -> np.ndarray | None:
    return ignored_in(reading.detector.ignore, reading.score_map.value.shape)


def pictures(reading: Reading, found: Sequence[AnomalyObject]) -> tuple[Picture, Picture]:
    """The map in colours, and the photo with map, contour and the numbered boxes of the first components."""
    value = reading.score_map.value
    laid = overlay(reading.seen.image, value, reading.scale, reading.threshold, _ignored(reading))
    return coloured(value, reading.scale), draw_boxes(laid, [f.box for f in found[:BOXES]])


def summary(reading: Reading, found: Sequence[AnomalyObject]) -> dict[str, Any]:
    """What the JSON download and the HTTP API say: sizes, score, scale, threshold, components with their RLE."""
    value = reading.score_map.value
    return {
        "photo": reading.seen.name, "width": value.shape[1], "height": value.shape[0],
        **reading.detector.describe(), "score": reading.score_map.score, "threshold": reading.threshold,
        "max": float(value.max()), "mean": float(value.mean()), "components": [asdict(f) for f in found],
    }  # fmt: skip


def table(found: Sequence[AnomalyObject]) -> list[list[Any]]:
    """One row a component: number, mean and largest score, pixels, box."""
    return [
        [k, round(f.score, 4), round(f.peak, 4), f.area, "{} {} {}x{}".format(*f.box)]
        for k, f in enumerate(found[:BOXES], 1)
    ]


def why(reading: Reading, at: tuple[int, int]) -> "Answer":
    """What made the map at the pixel (x, y); XenomaskError outside of the photo."""
    from xenomask.detector.explain import explain

    return explain(reading.detector, reading.seen.outputs, at)


def reasons(answer: "Answer") -> list[list[Any]]:
    """One row a query that decided: member, part of the score, query, class, p, m, what it adds, roles."""
    return [
        [m.name, v.part, v.query, v.label, round(v.confidence, 3), round(v.mask, 3), round(v.adds, 4),
         " ".join(v.roles)]
        for m in answer.members for v in m.votes
    ]  # fmt: skip


def in_words(answer: "Answer") -> str:
    """The members' shares, parts and notes as a few lines of text."""
    lines = [f"score {answer.value:.4f} at {answer.at[0]},{answer.at[1]}"]
    for m in answer.members:
        parts = ", ".join(f"{k} {v:.3g}" for k, v in m.parts.items())
        masses = ", ".join(f"{c['label']} {c['mass']:.3f}" for c in m.classes[:4])
        lines.append(f"{m.name} ({m.score}): {m.weight:g} x {m.value:.4f} = {m.share:.4f}; {parts}; L: {masses}")
        lines += m.notes
    return "\n".join(lines)


def query_masks(reading: Reading, answer: "Answer") -> list[tuple[Picture, str]]:
    """The masks of the queries that decided, laid over the darkened photo, with captions."""
    shown = []
    members = {m.name: o for m, o in zip(reading.detector.members, reading.seen.outputs, strict=True)}
    for m in answer.members:
        output = members[m.name]
        if isinstance(output, PixelOutput):
            continue
        for q in list(dict.fromkeys(v.query for v in m.votes))[:MASKS]:
            v = next(v for v in m.votes if v.query == q)
            one = replace(output, class_logits=output.class_logits[[q]], mask_logits=output.mask_logits[[q]])
            mask = soft_masks(one)[0].numpy()[..., None]
            picture = np.clip(reading.seen.image * (0.25 + 0.75 * mask), 0, 255).astype(np.uint8)
            cv2.drawMarker(picture, answer.at, (25, 211, 162), cv2.MARKER_CROSS, max(11, picture.shape[1] // 40), 2)
            roles = f" ({' '.join(v.roles)})" if v.roles else ""
            shown.append((picture, f"{m.name} query {q}: {v.label} {v.confidence:.2f}, mask {v.mask:.2f}{roles}"))
    return shown
