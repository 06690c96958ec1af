"""Every data set by its name, and how one is opened."""

from dataclasses import replace
from pathlib import Path

from xenomask.datasets import bravo, driving, fishyscapes, hendrycks, issu, lostandfound, roadanomaly, smiyc, sos
from xenomask.datasets.codings import CODINGS
from xenomask.datasets.identity import is_own, refuse_other
from xenomask.datasets.layout import (
    IMAGES_AND_LABELS,
    Dataset,
    Entry,
    Listing,
    images_and_labels,
    locate,
    missing,
)
from xenomask.errors import XenomaskError, refuse_taken, unknown
from xenomask.types import Size


def _folder(base: Path, split: str) -> Listing:
    return Listing(images_and_labels("folder", base), "anomaly")


def _synthetic(base: Path, split: str) -> Listing:
    return Listing(images_and_labels("synthetic", base), "anomaly")


FOLDER = Entry(
    name="folder",
    title="a folder of your own",
    listing=_folder,
    marks=IMAGES_AND_LABELS,
    folders=(),
    coding="anomaly",
    layout="images/<id>.*, labels_masks/<id>.png (0 / 1 / 255), or labels/<id>.png (train ids, for training); photos "
    "may be missing where only maps are evaluated",
    where="yours",
    licence="yours",
    conventions="none; `--split` is ignored",
    free=True,
)

SYNTHETIC = replace(
    FOLDER,
    name="synthetic",
    title="synthetic scenes",
    listing=_synthetic,
    folders=("dataset_AnomalyTrack",),
    layout="as AnomalyTrack, written by xenomask synthetic",
    where="xenomask synthetic --out DIR",
    licence="Apache-2.0, as this package",
    conventions="none: they are synthetic, for tests and for trying a pipeline out",
)

DATASETS: dict[str, Entry] = {
    e.name: e
    for e in (
        smiyc.ANOMALY_TRACK,
        smiyc.OBSTACLE_TRACK,
        lostandfound.LOST_AND_FOUND,
        fishyscapes.LOST_AND_FOUND,
        fishyscapes.STATIC,
        roadanomaly.ROAD_ANOMALY,
        hendrycks.STREET_HAZARDS,
        lostandfound.SMALL_OBSTACLE,
        sos.SOS,
        hendrycks.BDD_ANOMALY,
        issu.ISSU,
        issu.OBSTACLE,
        bravo.BRAVO,
        driving.ACDC,
        driving.CITYSCAPES,
        driving.VISTAS,
        driving.IDD,
        driving.CAMVID,
        FOLDER,
        SYNTHETIC,
    )
}


def register(entry: Entry) -> Entry:
    """Add a data set to the catalogue; returns it. Raises XenomaskError for a name that is taken."""
    refuse_taken("data set", entry.name, DATASETS)
    DATASETS[entry.name] = entry
    return entry


def get_entry(name: str) -> Entry:
    """The catalogue's entry; raises XenomaskError with the nearest name for an unknown one."""
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return DATASETS[name]


def choose_split(entry: Entry, split: str) -> str:
    """The data set's split of that name; "val", every command's default, is its default split if it has no val.

    >>> choose_split(DATASETS["anomaly-track"], "val"), choose_split(DATASETS["cityscapes"], "val")
    ('all', 'val')
    """
    if split in entry.splits:
        return split
    if entry.free or split == "val":
        return entry.default
    raise unknown(f"split of {entry.name}", split, entry.splits)


def _stored(entry: Entry, listed: str, coding: str | None) -> str:
    """The coding of the label files: as listed, or, of a user's folder, as the caller says.

    Raises XenomaskError where the caller expects labels of the other kind, e.g. for training.
    """
    if coding is None:
        return listed
    if coding not in CODINGS:
        raise unknown("coding", coding, CODINGS)
    if entry.free:
        return coding
    says, wanted = CODINGS[listed].says, CODINGS[coding].says
    if says != wanted:
        raise XenomaskError(f"{entry.name}'s labels say {says} ({CODINGS[listed].meaning}), not {wanted}")
    # "train_ids" and "anomaly" say what the caller wants to hear, not how this copy stores it
    return listed if coding in ("train_ids", "anomaly") else coding


def open_dataset(
    name: str, root: str | Path, *, split: str = "val", coding: str | None = None, resize: Size | None = None
) -> Dataset:
    """Lists the frames of a data set (a name of DATASETS) below `root`: its own folder, or the one above.

    `split` is one of the entry's; "val" is also its default split. `coding` says how a `folder`'s labels are stored:
    "anomaly" (0 / 1 / 255), "train_ids", or any other name of CODINGS; of the others it may say what is expected.
    Raises XenomaskError that says what is missing, where, and what was found instead, and for a folder that is another
    data set's by its own signs.
    """
    entry, root = get_entry(name), Path(root)
    if split not in entry.splits:  # "train" of an evaluation set: say what is wrong rather than which splits it has
        _stored(entry, entry.coding, coding)
    chosen = choose_split(entry, split)
    base = locate(entry, root)
    if base is None:
        raise missing(entry, root, lambda p: is_own(entry, p, DATASETS.values()))
    if entry.free and CODINGS[_stored(entry, entry.coding, coding)].says == "train_ids":
        # a folder may have both: labels_masks/ says what is an anomaly, and its 0 and 1 would be read as classes
        listing = Listing(images_and_labels(name, base, ("labels",)), entry.coding)
    else:
        listing = entry.listing(base, chosen)
    stored = _stored(entry, listing.stored, coding)
    if not listing.frames:
        raise XenomaskError(f"{name}: no frame of split {chosen} in {base}; its splits: {', '.join(entry.splits)}")
    refuse_other(entry, base, listing.frames, DATASETS.values())
    return Dataset(name, root, CODINGS[stored].says, listing.frames, resize, stored)
