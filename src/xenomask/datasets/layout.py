"""Folders -> frames: which photo belongs to which label, in the official layouts and in renamed copies."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from xenomask.datasets.read import read_label, read_label_ids, read_photo
from xenomask.errors import XenomaskError, unknown
from xenomask.types import Sample, Size

PHOTO_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Longest first: a label's id is its stem without one of these.
LABEL_ENDINGS = ("_labels_semantic", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelTrainIds", "")


@dataclass(frozen=True)
class Frame:
    """Where one frame's files are; either may be missing."""

    id: str
    image: Path | None
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """A list of frames, sorted by id, and how to read them."""

    name: str
    root: Path
    coding: str
    frames: tuple[Frame, ...]
    # (height, width) that photos and labels are resized to on loading, e.g. to undo a squeezed copy
    resize: Size | None = None

    def labelled(self) -> "Dataset":
        """The frames that have a label; raises XenomaskError if there are none."""
        frames = tuple(f for f in self.frames if f.label)
        if not frames:
            raise XenomaskError(f"{self.name} at {self.root} has no labelled frame")
        return replace(self, frames=frames)

    def label(self, frame: Frame) -> np.ndarray:
        """The frame's label (H, W) uint8, its values checked."""
        if frame.label is None:
            raise XenomaskError(f"frame {frame.id} of {self.name} has no label")
        if frame.label.stem.endswith("_labelIds"):
            label = read_label_ids(frame.label)
        else:
            label = read_label(frame.label, self.coding)
        if self.resize:
            label = cv2.resize(label, self.resize[::-1], interpolation=cv2.INTER_NEAREST)
        return label

    def sample(self, frame: Frame) -> Sample:
        """Reads photo and, where there is one, label; raises XenomaskError where their sizes differ."""
        if frame.image is None:
            raise XenomaskError(f"frame {frame.id} of {self.name} has no photo (looked beside {self.root})")
        image = read_photo(frame.image, upright=False)
        if self.resize:
            image = cv2.resize(image, self.resize[::-1], interpolation=cv2.INTER_LINEAR)
        label = self.label(frame) if frame.label else None
        if label is not None and label.shape != image.shape[:2]:
            raise XenomaskError(
                f"photo {frame.image} is {image.shape[1]}x{image.shape[0]}, its label {frame.label} "
                f"{label.shape[1]}x{label.shape[0]}: they must be of one size"
            )
        return Sample(image=image, label=label, id=frame.id, dataset=self.name)


def _label_id(path: Path) -> str:
    return next(path.stem.removesuffix(e) for e in LABEL_ENDINGS if path.stem.endswith(e))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_ENDINGS and p.is_file())


def _by_id(paths: Iterable[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(key(path), path)) != path:
            raise XenomaskError(f"two files for frame {key(path)}: {other} and {path}; keep one")
    return found


def _pair(images: dict[str, Path], labels: dict[str, Path]) -> tuple[Frame, ...]:
    return tuple(Frame(i, images.get(i), labels.get(i)) for i in sorted(images.keys() | labels.keys()))


def _images_and_labels(name: str, root: Path, candidates: tuple[str, ...]) -> tuple[Frame, ...]:
    """`<root>/images` with `<root>/labels_masks` or `labels`; the root may also be the folder above."""
    tried = [root, *(root / c for c in candidates)]
    base = next((t for t in tried if any((t / d).is_dir() for d in ("images", "labels_masks", "labels"))), None)
    if base is None:
        here = ", ".join(sorted(p.name for p in root.iterdir())[:8]) if root.is_dir() else "nothing: no such folder"
        raise XenomaskError(
            f"{name}: neither images/ nor labels_masks/ in {' or '.join(map(str, tried))}; found {here}"
        )
    images = _by_id(_files(base / "images"), lambda p: p.stem) if (base / "images").is_dir() else {}
    folder = next((base / d for d in ("labels_masks", "labels") if (base / d).is_dir()), None)
    labels = _by_id((p for p in _files(folder) if not p.stem.endswith("_color")), _label_id) if folder else {}
    if images and (orphans := sorted(labels.keys() - images.keys())):
        raise XenomaskError(f"{name}: {len(orphans)} labels in {folder} have no photo, the first is {orphans[0]}")
    return _pair(images, labels)


def _cityscapes(root: Path, split: str) -> tuple[Frame, ...]:
    """leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelTrainIds.png."""
    photos = root / "leftImg8bit" / split
    if not photos.is_dir():
        raise XenomaskError(f"cityscapes: no folder {photos}; the root holds leftImg8bit/ and gtFine/")
    images = _by_id(sorted(photos.glob("*/*_leftImg8bit.png")), lambda p: p.stem.removesuffix("_leftImg8bit"))
    kinds = ("_gtFine_labelTrainIds", "_gtFine_labelIds")
    found = ((k, sorted((root / "gtFine" / split).glob(f"*/*{k}.png"))) for k in kinds)
    _, labels = next(((k, f) for k, f in found if f), ("", []))
    return _pair(images, _by_id(labels, _label_id))


# name: (coding, folders to look in below the root, default split)
LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "anomaly-track": ("anomaly", ("dataset_AnomalyTrack", "RoadAnomaly21", "RoadAnomaly")),
    "obstacle-track": ("anomaly", ("dataset_ObstacleTrack", "RoadObstacle21", "RoadObsticle21")),
    "fishyscapes-static": ("anomaly", ("fs_static", "FS_Static")),
    "folder": ("anomaly", ()),
    "synthetic": ("anomaly", ("dataset_AnomalyTrack",)),
    "cityscapes": ("train_ids", ()),
}


def open_dataset(
    name: str, root: Path, *, split: str = "val", coding: str | None = None, resize: Size | None = None
) -> Dataset:
    """Lists the frames of a data set without reading any.

    `split` matters for cityscapes alone. `coding` overrides the data set's own for `folder`, whose labels
    are "anomaly" (0 / 1 / 255) in evaluation and "train_ids" in training. Raises XenomaskError that says what is
    missing and what was found instead.
    """
    if name not in LAYOUTS:
        raise unknown("data set", name, LAYOUTS)
    own, candidates = LAYOUTS[name]
    frames = _cityscapes(root, split) if name == "cityscapes" else _images_and_labels(name, root, candidates)
    if not frames:
        raise XenomaskError(f"{name}: no frame in {root} (photos end in {', '.join(PHOTO_ENDINGS)})")
    return Dataset(name, root, coding or own, frames, resize)
