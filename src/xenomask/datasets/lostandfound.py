"""LostAndFound and SmallObstacle: lost cargo on the road, in folders as deep as Cityscapes'."""

from pathlib import Path

import numpy as np

from xenomask.datasets.codings import CODINGS
from xenomask.datasets.layout import Entry, Frame, Listing, trees
from xenomask.datasets.read import read_stored
from xenomask.errors import XenomaskError

# Of the 1203 test frames sorted by id, those whose labels are 0 everywhere (SMIYC's benchmark, datasets/tracks.py).
UNLABELLED = (17, 37, 55, 72, 91, 110, 129, 153, 174, 197, 218, 353, 490, 618, 686, 792, 793)
# Sequences whose "lost cargo" are children and bicycles, classes that a Cityscapes network knows (the same file).
KNOWN = (
    "15_Rechbergstr_Deckenpfronn",
    "01_Hanns_Klemm_Str_45_000006",
    "01_Hanns_Klemm_Str_45_000007",
    "10_Schlossberg_9_000004",
)
KINDS = {
    "gtCoarse/{}/*/*_gtCoarse_labelIds.*": "lost_and_found_ids",
    "gtCoarse/{}/*/*_gtCoarse_labelTrainIds.*": "lost_and_found_train_ids",
}


def _labelled(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Without the frames whose label is 0 throughout: by the official list if the test split is complete."""
    if len(frames) == 1203:
        return tuple(f for i, f in enumerate(frames) if i not in UNLABELLED)
    ids = CODINGS["lost_and_found_ids"]
    return tuple(f for f in frames if f.label is None or np.any(read_stored(f.label, ids)))


def _lost_and_found(base: Path, split: str) -> Listing:
    folder = {"train": "train", "all": "*"}.get(split, "test")
    patterns = [pattern.format(folder) for pattern in KINDS]
    frames, which = trees("lost-and-found", base, f"leftImg8bit/{folder}/*/*_leftImg8bit.*", patterns, labelled=True)
    if split in ("testValid", "testNoKnown"):
        frames = _labelled(frames)
    if split == "testNoKnown":
        frames = tuple(f for f in frames if not f.id.startswith(KNOWN))
    return Listing(frames, list(KINDS.values())[which])


LOST_AND_FOUND = Entry(
    name="lost-and-found",
    title="LostAndFound",
    listing=_lost_and_found,
    marks=("leftImg8bit", "gtCoarse"),
    folders=("dataset_LostAndFound", "LostAndFound", "lost_and_found"),
    coding="lost_and_found_ids",
    layout="leftImg8bit/{train,test}/<NN_scene>/<id>_leftImg8bit.png (or .webp, .jpg), "
    "gtCoarse/{train,test}/<NN_scene>/<id>_gtCoarse_labelIds.png (else labelTrainIds)",
    where="wwwlehre.dhbw-stuttgart.de/~sgehrig/lostAndFoundDataset (the link has been down at times)",
    licence="non-commercial research",
    conventions="SMIYC's obstacle track counts testNoKnown, inside the labelled road only; RbA reads labelTrainIds. "
    "SMIYC's LostAndFound-anomaly* variants (whole image minus ego vehicle) need its ROI picture and are not here",
    splits=("testNoKnown", "testValid", "test", "train", "all"),
    default="testNoKnown",
    track="obstacle",
    counts={"testNoKnown": 1043, "testValid": 1186, "test": 1203, "train": 1036, "all": 2239},
)


def _small_obstacle(base: Path, split: str) -> Listing:
    if not (base / split).is_dir():
        raise XenomaskError(f"small-obstacle: no folder {base / split}")
    photos, labels = f"{split}/*/image/*.*", f"{split}/*/labels/*.*"
    frames, _ = trees("small-obstacle", base, photos, [labels], labelled=True)
    return Listing(frames, "small_obstacle")


SMALL_OBSTACLE = Entry(
    name="small-obstacle",
    title="Small Obstacle Dataset",
    listing=_small_obstacle,
    marks=("train", "val", "test"),
    folders=("Small_Obstacle_Dataset",),
    coding="small_obstacle",
    layout="{train,val,test}/<sequence>/image/<id>.png, {train,val,test}/<sequence>/labels/<id>.png",
    where="small-obstacle-dataset.github.io (IIIT Hyderabad, 2020)",
    licence="not stated where it could be looked up; ask its authors",
    conventions="SMIYC's benchmark recodes the labels to 0 / 1 / 255 first; many photos have no label. Results "
    "are of split test",
    splits=("test", "val", "train"),
    default="val",
    track="obstacle",
)
