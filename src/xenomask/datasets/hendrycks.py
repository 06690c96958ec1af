"""The Combined Anomalous Object Segmentation benchmark: StreetHazards (simulated) and BDD-Anomaly (real)."""

from pathlib import Path

import numpy as np

from xenomask.datasets.layout import Entry, Frame, Listing, reach, trees
from xenomask.datasets.read import read_label
from xenomask.errors import XenomaskError

WHERE = "github.com/hendrycks/anomaly-seg"
CONVENTIONS = (
    "the paper averages step-wise AUPR, FPR95 (at the recall nearest .95) and AUROC over images; later papers "
    "mostly pool. State which"
)


def _street_hazards(base: Path, split: str) -> Listing:
    part = base / ("test" if split == "test" else "train")
    root = part if part.is_dir() else base
    photos, labels = f"images/{split}/*/*.*", f"annotations/{split}/*/*.*"
    frames, _ = trees("street-hazards", root, photos, [labels], after=1, labelled=True)
    return Listing(frames, "street_hazards")


STREET_HAZARDS = Entry(
    name="street-hazards",
    title="StreetHazards",
    listing=_street_hazards,
    marks=("test", "train", "annotations"),
    folders=("streethazards_test", "streethazards_train", "street_hazards", "StreetHazards"),
    coding="street_hazards",
    layout="test/images/test/<town>/<id>.png, test/annotations/test/<town>/<id>.png; "
    "train/images/{training,validation}/...",
    where=f"{WHERE} (streethazards_test.tar, streethazards_train.tar)",
    licence="none stated in its repository; the pictures are renderings of a simulator (CARLA)",
    conventions=CONVENTIONS + ". Unlabelled (stored 1) counts as inlier there, and so here",
    splits=("test", "validation", "training"),
    default="test",
    counts={"test": 1500, "validation": 1031, "training": 5125},
)

BDD = (
    ("seg/images/{}/*.*", ("seg/labels/{}/*_train_id.*", "seg/train_labels/{}/*_train_id.*")),
    ("images/10k/{}/*.*", ("labels/sem_seg/masks/{}/*.*",)),
)


def _bdd_split(base: Path, split: str) -> tuple[Frame, ...]:
    for photos, labels in BDD:
        if any(base.glob(photos.format(split))):
            return trees("bdd-anomaly", base, photos.format(split), [p.format(split) for p in labels], labelled=True)[0]
    photos = BDD[0][0].format(split)
    raise XenomaskError(f"bdd-anomaly: no photo {base / photos}; {reach(base, photos)}")


def _bdd(base: Path, split: str) -> Listing:
    if split in ("train", "val"):
        return Listing(_bdd_split(base, split), "bdd_anomaly")
    frames = sorted((*_bdd_split(base, "train"), *_bdd_split(base, "val")), key=lambda f: f.id)
    if split == "anomalous":
        frames = [f for f in frames if f.label and np.any(read_label(f.label, "bdd_anomaly") == 1)]
    return Listing(tuple(frames), "bdd_anomaly")


BDD_ANOMALY = Entry(
    name="bdd-anomaly",
    title="BDD-Anomaly (of BDD100K's 10K semantic segmentation)",
    listing=_bdd,
    marks=("seg", "images"),
    folders=("bdd100k", "bdd100k/bdd100k", "BDD100K"),
    coding="bdd_anomaly",
    layout="seg/images/{train,val}/<id>.jpg, seg/labels/{train,val}/<id>_train_id.png (or seg/train_labels); newer: "
    "images/10k/{train,val}, labels/sem_seg/masks/{train,val}/<id>.png",
    where=f"bdd-data.berkeley.edu (BDD100K); the choice of frames: {WHERE}",
    licence="BDD100K's: research and non-profit use",
    conventions=CONVENTIONS + ". Its test set is every frame, of train and val, with an anomaly: split anomalous, "
    "which reads all 8000 labels. A network that was trained on train, motorcycle or bicycle must not be judged on it",
    splits=("anomalous", "all", "train", "val"),
    default="val",
    counts={"all": 8000, "train": 7000, "val": 1000},
)
