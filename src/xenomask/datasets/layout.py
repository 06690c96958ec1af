"""Folders -> frames: which photo belongs to which label, and what to say where something is missing."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from xenomask.datasets.codings import CODINGS, OPEN_WORLD, Coding
from xenomask.datasets.labelmap import LabelMap
from xenomask.datasets.read import decode, read_label, read_photo, read_stored, stored_values, upright_label
from xenomask.errors import XenomaskError
from xenomask.picture_files import FORMATS, is_picture
from xenomask.types import CITYSCAPES_CLASSES, VOID, Sample, Size

# Longest first: a label's id is its stem without one of these.
LABEL_ENDINGS = (
    "_labels_semantic", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelTrainIds", "_labelIds", "",
)  # fmt: skip


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
    # what a label that was read says: "anomaly" (0 / 1 / 255) or "train_ids"
    coding: str
    frames: tuple[Frame, ...]
    # (height, width) that photos and labels are resized to on loading, e.g. to undo a squeezed copy
    resize: Size | None = None
    # how the label files store it: a name of CODINGS; None: as `coding`
    stored: str | None = None
    # classes of one's own, by which the label files are read instead
    labels: LabelMap | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """What the numbers of a label that says classes stand for."""
        return self.labels.classes if self.labels else CITYSCAPES_CLASSES

    def labelled(self) -> "Dataset":
        """The frames that have a label; raises XenomaskError if there are none, or if all are masks of 0 and 255."""
        frames = tuple(f for f in self.frames if f.label)
        if not frames:
            masks = self.coding == "train_ids" and (self.root / "labels_masks").is_dir()
            hint = "; labels that name classes belong into labels/, not labels_masks/" if masks else ""
            raise XenomaskError(f"{self.name} at {self.root} has no labelled frame{hint}")
        if self._are_masks(f.label for f in frames if f.label):
            raise XenomaskError(
                f"all labels of {self.name} at {self.root} hold only 0 and 255, and 255 is void: no "
                "pixel is an anomaly (1). If 255 was meant so, save 1 in its place: (mask == 255).astype(numpy.uint8)"
            )
        return replace(self, frames=frames)

    def _are_masks(self, labels: Iterable[Path]) -> bool:
        """Whether labels that should say 0 / 1 / 255 hold 0 and 255 alone; mostly the first one settles it."""
        void = False
        for path in labels:
            if self.labels or self.stored_as(path) != "anomaly":
                return False
            held = stored_values(read_stored(path, CODINGS["anomaly"]))
            if any(v not in (0, VOID) for v in held):
                return False
            void = void or VOID in held
        return void

    def label(self, frame: Frame) -> np.ndarray:
        """The frame's label (H, W) uint8, upright as its photo is, its values checked."""
        return self._label(frame, self.labels.coding if self.labels else None)

    def open_label(self, frame: Frame) -> np.ndarray:
        """The same with classes and anomalies: train ids 0..18, 254 anomaly, 255 void.

        Raises XenomaskError for a data set whose labels do not name both.
        """
        stored = self.stored or self.coding
        if self.labels or stored not in OPEN_WORLD:
            raise XenomaskError(
                f"the labels of {self.name} do not name classes and anomalies both, which open-world IoU needs: data "
                "set issu's do (0..18, 254 anomaly, 255 void)"
            )
        return self._label(frame, OPEN_WORLD[stored])

    def _label(self, frame: Frame, coding: Coding | None) -> np.ndarray:
        if frame.label is None:
            raise XenomaskError(f"frame {frame.id} of {self.name} has no label")
        if coding:
            label = decode(read_stored(frame.label, coding), coding, frame.label)
        else:
            label = read_label(frame.label, self.stored_as(frame.label))
        if frame.image:
            label = upright_label(label, frame.image)
        if self.resize:
            label = _resized(label, self.resize, "INTER_NEAREST")
        return label

    def stored_as(self, label: Path) -> str:
        """The name of the coding of one label file."""
        stored = self.stored or self.coding
        # a training folder may mix both kinds of a Cityscapes label: the name says which it is
        return "cityscapes_ids" if stored == "train_ids" and label.stem.endswith("_labelIds") else stored

    def refuse_output(self, out: Path) -> None:
        """Raises XenomaskError for a folder in which a photo or label of this data set would be written over."""
        places = {p.parent.resolve() for f in self.frames for p in (f.image, f.label) if p}
        if out.resolve() in places:
            raise XenomaskError(f"{out} holds photos or labels of {self.name}, which pictures of the same names would "
                                "replace: choose another folder")  # fmt: skip

    def sample(self, frame: Frame) -> Sample:
        """Reads photo and, where there is one, label; raises XenomaskError where their sizes differ."""
        if frame.image is None:
            raise XenomaskError(f"frame {frame.id} of {self.name} has no photo (looked beside {self.root})")
        image = read_photo(frame.image)
        if self.resize:
            image = _resized(image, self.resize, "INTER_LINEAR")
        label = self.label(frame) if frame.label else None
        if label is not None and label.shape != image.shape[:2]:
            raise XenomaskError(sizes_differ(frame, image.shape[:2], label.shape))
        return Sample(image=image, label=label, id=frame.id, dataset=self.name)


@dataclass(frozen=True)
class Listing:
    """The frames of one split, sorted by id, and the coding (a name of CODINGS) that their labels are stored in."""

    frames: tuple[Frame, ...]
    stored: str


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue: how its frames are listed, and what a user must know of it."""

    name: str
    title: str
    # (folder that holds one of `marks`, split) -> its frames
    listing: Callable[[Path, str], Listing]
    # folders of which the data set's own folder holds at least one
    marks: tuple[str, ...]
    # what its folder is called where several data sets lie side by side
    folders: tuple[str, ...]
    # the coding of the official labels
    coding: str
    layout: str
    where: str
    licence: str
    conventions: str
    splits: tuple[str, ...] = ("all",)
    # what "val", the default of every command, means; it is "val" where a split is called so
    default: str = "all"
    # which component sizes the official benchmark uses: "anomaly" 500 / 100 px, "obstacle" 50 / 10, "issu" 49 / 49
    track: Literal["anomaly", "obstacle", "issu"] | None = None
    use: Literal["evaluation", "training"] = "evaluation"
    # official number of frames of a split, where known
    counts: Mapping[str, int] = field(default_factory=dict)
    # of a set that may lie as images/ and labels_masks/, by what it is told from others (`identity`): a pattern that
    # matches official ids and nobody else's, and the number and the one (height, width) of the photos of renamed copies
    ids: str = ""
    copies: tuple[tuple[int, Size], ...] = ()
    # a folder of one's own: its labels are whatever the caller says
    free: bool = False

    @property
    def says(self) -> str:
        """What the decoded labels say: "anomaly" or "train_ids"."""
        return CODINGS[self.coding].says


def _resized(pixels: np.ndarray, size: Size, how: str) -> np.ndarray:
    import cv2  # a mistyped path is refused without it

    return cv2.resize(pixels, size[::-1], interpolation=getattr(cv2, how))


def sizes_differ(frame: Frame, photo: tuple[int, ...], label: tuple[int, ...]) -> str:
    """The error of a frame whose photo and label have different (height, width)."""
    return (
        f"photo {frame.image} is {photo[1]}x{photo[0]}, its label {frame.label} {label[1]}x{label[0]}: "
        "they must be of one size"
    )


def contents(folder: Path) -> str:
    """What lies in a folder, in a few words.

    >>> contents(Path("/nowhere"))
    'nothing: no such folder'
    """
    if not folder.is_dir():
        return "a file, not a folder" if folder.exists() else "nothing: no such folder"
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir() if not p.name.startswith("."))
    more = f" and {len(names) - 6} more" if len(names) > 8 else ""
    return ", ".join(names[:6] if more else names) + more or "nothing: it is empty"


def files(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted."""
    return sorted(p for p in folder.iterdir() if is_picture(p))


def by_id(paths: Iterable[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    """Paths by frame id; raises XenomaskError where two have one id.

    An id is in Unicode's composed form (NFC): macOS writes names in the other, and the labels may come from there.
    """
    found: dict[str, Path] = {}
    for path in paths:
        name = unicodedata.normalize("NFC", key(path))
        if (other := found.setdefault(name, path)) != path:
            raise XenomaskError(f"two files for frame {name}: {other} and {path}; keep one")
    return found


def tree(root: Path, pattern: str, *, after: int = 0) -> dict[str, Path]:
    """The pictures that match a glob such as "gt/*/*_gt.*", by id.

    The id is the name without what follows the last "*" of the pattern's name, and the last `after` folder names are
    put before it (where names repeat from folder to folder).
    """
    ending = pattern.rsplit("*", 2)[1].removesuffix(".")
    paths = sorted(p for p in root.glob(pattern) if is_picture(p))
    return by_id(paths, lambda p: "_".join([*p.parts[len(p.parts) - 1 - after : -1], p.stem.removesuffix(ending)]))


def trees(
    name: str, root: Path, photos: str, labels: Sequence[str], *, after: int = 0, labelled: bool = False
) -> tuple[tuple[Frame, ...], int]:
    """The frames of a data set of deep folders, and which of the label globs has files (the first one; -1: none).

    Raises XenomaskError where there is no photo, a label has none, for a set that must be `labelled`, there is no label
    at all, and where photos have labels of a later glob alone: they would count as unlabelled.
    """
    images = tree(root, photos, after=after)
    if not images:
        raise XenomaskError(f"{name}: no photo {root / photos}; {reach(root, photos)}")
    found = [tree(root, pattern, after=after) for pattern in labels]
    which, there = next(((i, t) for i, t in enumerate(found) if t), (-1, {}))
    for other in found[which + 1 :]:  # none of which has any, where the first has none
        if alone := sorted(images.keys() & (other.keys() - there.keys())):
            raise XenomaskError(
                f"{name}: {len(alone)} frames have no label {root / labels[which]}, but another, the first is "
                f"{other[alone[0]]}: make the missing ones, or put aside those of the first kind"
            )
    if labelled and not there:
        wanted = " or ".join(str(root / pattern) for pattern in labels)
        raise XenomaskError(f"{name}: no label {wanted}; {reach(root, labels[0])}")
    return pair(name, images, there, root), which


def reach(root: Path, pattern: str) -> str:
    """How far a glob's folders exist below the root, and what is there instead."""
    at = root
    for part in Path(pattern).parts[:-1]:
        below = [p for p in sorted(at.glob(part)) if p.is_dir()] if at.is_dir() else []
        if not below:
            break
        at = below[0]
    return f"found in {at}: {contents(at)}"


def pair(name: str, images: Mapping[str, Path], labels: Mapping[str, Path], where: Path) -> tuple[Frame, ...]:
    """Frames of photos and labels; raises XenomaskError for labels without a photo, unless there is no photo at all."""
    if images and (orphans := sorted(labels.keys() - images.keys())):
        raise XenomaskError(f"{name}: {len(orphans)} labels in {where} have no photo, the first is {orphans[0]}")
    return tuple(Frame(i, images.get(i), labels.get(i)) for i in sorted(images.keys() | labels.keys()))


def _label_id(path: Path) -> str:
    return next(path.stem.removesuffix(e) for e in LABEL_ENDINGS if path.stem.endswith(e))


IMAGES_AND_LABELS = ("images", "labels_masks", "labels")


def images_and_labels(name: str, base: Path, labels_in: Sequence[str] = IMAGES_AND_LABELS[1:]) -> tuple[Frame, ...]:
    """`images` with the first of the folders `labels_in`, official names or copies; without photos the labels alone.

    The pictures of a label's colours that the official sets have beside it, <id>..._color.png, are passed over.
    """
    images = by_id(files(base / "images"), lambda p: p.stem) if (base / "images").is_dir() else {}
    folder = next((base / d for d in labels_in if (base / d).is_dir()), None)
    found = files(folder) if folder else []
    labels = by_id((p for p in found if not p.stem.endswith("_color") or _label_id(p) in images), _label_id)
    if not images and not labels:
        held = "; ".join(f"{d}/ holds {contents(base / d)}" for d in IMAGES_AND_LABELS if (base / d).is_dir())
        raise XenomaskError(f"{name}: no frame in {base} (photos are {', '.join(FORMATS)}): {held}")
    return pair(name, images, labels, folder or base)


def locate(entry: Entry, root: Path) -> Path | None:
    """The data set's own folder: the root, or the folder below it that has one of the data set's names."""
    tried = (root, *(root / f for f in entry.folders))
    return next((t for t in tried if any((t / m).is_dir() for m in entry.marks)), None)


def missing(entry: Entry, root: Path, own: Callable[[Path], bool]) -> XenomaskError:
    """The error of a root where the data set is not: what was looked for, what is there, where it may be.

    `own` decides for a folder with the data set's marks whether it is the data set's.
    """
    below = f" or, in it, {' or '.join(entry.folders)}" if entry.folders else ""
    marks = [f"{m}/" for m in entry.marks[:2]]
    wanted = f"neither {' nor '.join(marks)}" if len(marks) > 1 else f"no {marks[0]}"
    hint = elsewhere(root, lambda p: (base := locate(entry, p)) is not None and own(base))
    return XenomaskError(f"{entry.name}: {wanted} in {root}{below}; found {contents(root)}{hint}")


def elsewhere(root: Path, fits: Callable[[Path], bool]) -> str:
    """The end of an error: which folder above or below the root would fit, if any."""
    if not root.is_dir():
        return ""
    below = sorted(p for p in root.iterdir() if p.is_dir())[:50]
    better = next((p for p in (*root.resolve().parents[:2], *below) if fits(p)), None)
    return f"; it looks as if {better} were the root" if better else ""
