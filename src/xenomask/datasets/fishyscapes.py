"""Fishyscapes LostAndFound and Static, the public validation sets."""

from pathlib import Path

from xenomask.datasets.layout import (
    IMAGES_AND_LABELS,
    Entry,
    Listing,
    by_id,
    files,
    images_and_labels,
    pair,
    tree,
)
from xenomask.errors import XenomaskError

TERMS = "labels for non-commercial research; the photos keep LostAndFound's and Cityscapes' terms"
CONVENTIONS = (
    "pooled over all pixels labelled 0 or 1; AUPR step-wise, FPR at the first TPR >= .95. The test sets are hidden: "
    "the server runs submitted programs"
)


def _laf_id(path: Path) -> str:
    """The LostAndFound id in `<id>_fishy-labels.png` or, as in Fishyscapes' own zip, `0000_<id>_labels.png`."""
    if path.stem.endswith("_fishy-labels"):
        return path.stem.removesuffix("_fishy-labels")
    return path.stem.removesuffix("_labels").split("_", 1)[-1]


def _lost_and_found(base: Path, split: str) -> Listing:
    name = "fishyscapes-lost-and-found"
    folders = (base / "labels" / "val", base / "labels", base / "fishyscapes_lostandfound")
    official = ((f, [p for p in files(f) if p.stem.endswith("labels")]) for f in folders if f.is_dir())
    folder, found = next(((f, paths) for f, paths in official if paths), (base, []))
    if not found:
        return Listing(images_and_labels(name, base), "anomaly")
    labels = by_id(found, _laf_id)
    # LostAndFound itself lies beside the labels, or its photos were copied into one folder
    laf = (base, base.parent, *(p / "dataset_LostAndFound" for p in (base, base.parent)), base / "leftImg8bit")
    photos: dict[str, Path] = {}
    for where in laf:
        for pattern in ("leftImg8bit/*/*/*_leftImg8bit.*", "images/*_leftImg8bit.*", "laf_images/*_leftImg8bit.*"):
            photos = photos or {i: p for i, p in tree(where, pattern).items() if i in labels}
    if photos and (without := sorted(labels.keys() - photos.keys())):
        raise XenomaskError(
            f"{name}: {len(without)} of {len(labels)} labels have no photo among LostAndFound's, the first is "
            f"{without[0]}: both its train and its test folder are needed"
        )
    return Listing(pair(name, photos, labels, folder), "anomaly")


LOST_AND_FOUND = Entry(
    name="fishyscapes-lost-and-found",
    title="Fishyscapes LostAndFound, validation",
    listing=_lost_and_found,
    marks=(*IMAGES_AND_LABELS, "fishyscapes_lostandfound"),
    folders=("dataset_FishyLAF", "FS_LostFound_full", "FS_LostAndFound"),
    coding="anomaly",
    layout="dataset_FishyLAF/labels/val/<LostAndFound id>_fishy-labels.png, or fishyscapes_lostandfound/"
    "NNNN_<id>_labels.png; photos from LostAndFound's leftImg8bit/{train,test}/*/ beside it; copies: "
    "FS_LostFound_full/images/N.png, labels_masks/N.png",
    where="fishyscapes.com/dataset (labels), LostAndFound's page (photos)",
    licence=TERMS,
    conventions=CONVENTIONS + ". SMIYC's benchmark evaluates it with the anomaly track's component sizes",
    track="anomaly",
    # LostAndFound's
    ids=r"\d\d_[A-Z].*_\d{6}_\d{6}",
    copies=((100, (1024, 2048)),),
    counts={"all": 100},
)


def _static(base: Path, split: str) -> Listing:
    return Listing(images_and_labels("fishyscapes-static", base), "anomaly")


STATIC = Entry(
    name="fishyscapes-static",
    title="Fishyscapes Static, validation",
    listing=_static,
    marks=IMAGES_AND_LABELS,
    folders=("fs_static", "FS_Static"),
    coding="anomaly",
    layout="fs_static/images/N.jpg, labels_masks/N.png (made from Fishyscapes' overlays on Cityscapes val)",
    where="fishyscapes.com/dataset (overlays to be put on Cityscapes val photos)",
    licence=TERMS,
    conventions=CONVENTIONS + ". 10 of the 30 frames have no anomaly (Mask2Anomaly leaves such frames out). Its photos "
    "are Cityscapes val scenes: never train on val",
    copies=((30, (1024, 2048)),),
    counts={"all": 30},
)
