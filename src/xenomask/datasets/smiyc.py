"""SegmentMeIfYouCan's two tracks, in the official layout and in renamed copies."""

from collections.abc import Callable
from pathlib import Path

from xenomask.datasets.layout import IMAGES_AND_LABELS, Entry, Listing, images_and_labels
from xenomask.errors import XenomaskError

WHERE = "segmentmeifyoucan.com/datasets; mirrors: zenodo.org records 5270237 (anomaly) and 5281633 (obstacle)"
LICENCE = "each frame its own (images from the web, some CC); the benchmark's code has no licence"
CONVENTIONS = (
    "pooled over all pixels but void; AUPR step-wise, FPR at the first TPR >= .95, F1 the best; components sIoU, PPV, "
    "F1* at the best pixel threshold. RbA resizes RoadAnomaly21 to 1280x720; Mask2Anomaly leaves out "
    "frames without anomaly"
)
# an ObstacleTrack id begins with its scene; the other scenes are the test split
SCENES = {"validation": ("validation",), "snowstorm": ("snowstorm1", "snowstorm2"), "night": ("driveway",)}

# The benchmark's code leaves these out of validation and expects 30 frames: the archive's are 1..18, 20 and 30..40.
# NOTE: a copy with the names 1..30 was renamed, so the list would drop ten of the thirty: it is a split of its own.
LEFT_OUT = tuple(f"validation_{n}" for n in (19, *range(21, 30)))
LISTED = "validation-listed"


def obstacle_split(frame_id: str) -> str:
    """The sub-split that an official ObstacleTrack frame belongs to, by its scene.

    >>> [obstacle_split(i) for i in ("validation_1", "snowstorm2_00_01", "driveway_3", "gravel_bag_3")]
    ['validation', 'snowstorm', 'night', 'test']
    """
    scene = frame_id.split("_")[0]
    return next((split for split, scenes in SCENES.items() if scene in scenes), "test")


def anomaly_split(frame_id: str) -> str:
    """The sub-split that an official AnomalyTrack frame belongs to."""
    return "validation" if frame_id.startswith("validation") else "test"


def _of_split(name: str, base: Path, split: str, of: Callable[[str], str]) -> Listing:
    """The frames whose id says that they are of that split; all of them for "all"."""
    frames = images_and_labels(name, base)
    if split == "all":
        return Listing(frames, "anomaly")
    if all(f.id.isdecimal() for f in frames):
        renamed = f"the frames in {base} are called {frames[0].id}, ... {frames[-1].id}"
        raise XenomaskError(f"{name}: {renamed}: only official names say what is of split {split}; take split all")
    return Listing(tuple(f for f in frames if of(f.id) == split), "anomaly")


def _anomaly(base: Path, split: str) -> Listing:
    return _of_split("anomaly-track", base, split, anomaly_split)


def _obstacle(base: Path, split: str) -> Listing:
    found = _of_split("obstacle-track", base, "validation" if split == LISTED else split, obstacle_split)
    return found if split != LISTED else Listing(tuple(f for f in found.frames if f.id not in LEFT_OUT), found.stored)


ANOMALY_TRACK = Entry(
    name="anomaly-track",
    title="SegmentMeIfYouCan AnomalyTrack (RoadAnomaly21)",
    listing=_anomaly,
    marks=IMAGES_AND_LABELS,
    folders=("dataset_AnomalyTrack", "RoadAnomaly21"),
    coding="anomaly",
    layout="dataset_AnomalyTrack/images/<id>.jpg, labels_masks/<id>_labels_semantic.png; copies: images/N.*, "
    "labels_masks/N.png",
    where=WHERE,
    licence=LICENCE,
    conventions=CONVENTIONS,
    splits=("all", "validation", "test"),
    track="anomaly",
    ids=r"validation\d{4}",
    copies=((10, (720, 1280)),),
    counts={"all": 110, "validation": 10, "test": 100},
)

OBSTACLE_TRACK = Entry(
    name="obstacle-track",
    title="SegmentMeIfYouCan ObstacleTrack (RoadObstacle21)",
    listing=_obstacle,
    marks=IMAGES_AND_LABELS,
    folders=("dataset_ObstacleTrack", "RoadObstacle21", "RoadObsticle21"),
    coding="anomaly",
    layout="dataset_ObstacleTrack/images/<scene>_<...>.webp, labels_masks/<id>_labels_semantic.png; "
    "copies: images/N.*, labels_masks/N.png",
    where=WHERE,
    licence=LICENCE,
    conventions=CONVENTIONS + ". Everything off the road is void",
    splits=("all", "validation", "test", "snowstorm", "night", LISTED),
    track="obstacle",
    ids=r"(validation|snowstorm[12]|driveway)_\d+.*",
    copies=((30, (1080, 1920)),),
    counts={"all": 442, "validation": 30, "test": 327, "snowstorm": 55, "night": 30, LISTED: 30},
)
