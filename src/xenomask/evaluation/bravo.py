"""Maps and predicted classes of the BRAVO challenge's folders -> its submission, and its numbers where labels are.

Beside each photo's place one file of classes (`_pred.png`, 8 bits) and one of confidence (`_conf.png`, 16 bits: the
challenge's README and its encoder; 65535 = sure). Its own tool samples and packs the folder for the upload.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xenomask.arrays import check_same_size
from xenomask.datasets import Dataset, Frame, open_dataset
from xenomask.datasets.bravo import BRAVO, mask_of
from xenomask.datasets.read import photo_size
from xenomask.errors import XenomaskError
from xenomask.files import make_dir
from xenomask.metrics import bravo
from xenomask.metrics.openworld import CLASSES
from xenomask.objects.objects import write_png16
from xenomask.picture_files import open_picture
from xenomask.pictures import read_numbers
from xenomask.store import as_maps
from xenomask.store.classes import read_classes, write_classes
from xenomask.types import VOID, Tick, nothing

KINDS = {"pred": ("L",), "conf": ("I;16", "I;16B", "I;16L")}


@dataclass(frozen=True)
class Submitted:
    """What lies in a submission: images of each split, the scores that confidence 1 and 0 stand for, and the numbers.

    `numbers` are by subset (ACDC has one a condition) and `summary` over all: empty where nothing has a label.
    """

    folder: Path
    images: dict[str, int]
    scales: dict[str, tuple[float, float]]
    numbers: dict[str, dict[str, float]]
    summary: dict[str, float]


def open_split(root: Path, split: str) -> Dataset:
    """The photos of one of the challenge's folders; errors as `open_dataset` has them."""
    return open_dataset("bravo", root, split=split)


def place(frame: Frame, split: str, kind: str) -> Path:
    """Where a photo's file belongs below the submission: bravo_<split>/<as the photo>_<kind>.png."""
    if frame.image is None:
        raise XenomaskError(f"frame {frame.id} has no photo: where its files belong is not known")
    parts = frame.image.parts
    below = len(parts) - 1 - parts[::-1].index(f"bravo_{split}")
    return Path(*parts[below:-1], f"{frame.image.stem}_{kind}.png")


def write_submission(
    maps: Path, classes: Path, root: Path, splits: Sequence[str], out: Path, *, tick: Tick = nothing
) -> dict[str, tuple[float, float]]:
    """Writes the files of the splits from maps/<split> and classes/<split>; returns the scores of confidence 1 and 0.

    Confidence falls linearly with the score, from the lowest to the highest of the split; of maps within [0, 1] from 0
    to 1. Raises XenomaskError for a frame without a map or classes, and as they are read.
    """
    scales = {}
    for split in splits:
        data, held = open_split(root, split), as_maps(maps / split)
        if lacking := sorted({f.id for f in data.frames} - set(held.ids())):
            raise XenomaskError(f"{held.path} has no map of {len(lacking)} of {len(data.frames)} frames: {lacking[0]}")
        ends = [(float(v.min()), float(v.max())) for v in (held.read(f.id) for f in data.frames)]
        low, high = min(a for a, _ in ends), max(b for _, b in ends)
        scales[split] = low, high = (0.0, 1.0) if 0 <= low and high <= 1 else (low, high)
        for frame in data.frames:
            held.check_photo(frame.id, frame.image)
            value, predicted = held.read(frame.id), read_classes(classes / split, frame.id, frame.image)
            pred, conf = (out / place(frame, split, kind) for kind in KINDS)
            make_dir(pred.parent)
            write_classes(pred, predicted)
            write_png16(conf, value, (high, low))
            tick()
    return scales


def check_submission(root: Path, splits: Sequence[str], out: Path, *, tick: Tick = nothing) -> Submitted:
    """Reads back what was written for the splits, whoever wrote it; computes the numbers of labelled photos.

    Raises XenomaskError for a missing file, another kind of picture or size, and classes beyond 18.
    """
    images, found = {}, {}
    for split in splits:
        data = open_split(root, split)
        images[split] = len(data.frames)
        for subset, frame, pred, conf in _files(data, split, out):
            if frame.label is not None:
                own = bravo.frame_counts(pred, conf, **_labels(data, frame, frame.label))
                found[subset] = found[subset] + own if subset in found else own
            tick()
    numbers = {s: bravo.numbers(c) for s, c in found.items()}
    return Submitted(out, images, {}, numbers, bravo.index(numbers) if numbers else {})


def _labels(data: Dataset, frame: Frame, path: Path) -> dict[str, np.ndarray]:
    """What `frame_counts` takes of a frame: the label of anomalies, or that of classes without the invalid pixels.

    synobjs counts both: its invalid pixels are the pasted objects, but where the label of classes is void.
    """
    label = data.label(frame)
    if data.coding == "anomaly":
        return {"truth": label}
    mask, objects = mask_of(path), path.stem.endswith("_gt")
    if not objects and not mask.is_file():
        return {"label": label}
    invalid = read_numbers(open_picture(mask, "mask of invalid pixels")) != 0
    check_same_size("mask of invalid pixels", invalid, "label", label)
    if objects:
        return {"label": label, "truth": np.where(label == VOID, VOID, invalid).astype(np.uint8)}
    return {"label": np.where(invalid, np.uint8(VOID), label)}


def _files(data: Dataset, split: str, out: Path) -> Iterator[tuple[str, Frame, np.ndarray, np.ndarray]]:
    """(subset, frame, classes, confidence) of every photo, as they are read back."""
    for frame in data.frames:
        pred, conf = (_read(out / place(frame, split, kind), kind) for kind in KINDS)
        if (size := photo_size(frame.image or out)) != pred.shape:
            raise XenomaskError(f"{out / place(frame, split, 'pred')} has {pred.shape}, its photo {size} pixels")
        check_same_size("_pred.png", pred, "_conf.png", conf)
        if pred.max() >= CLASSES:
            raise XenomaskError(f"{out / place(frame, split, 'pred')} holds class {pred.max()}, and they end at 18")
        condition = place(frame, split, "pred").parts[1] if split == "ACDC" else ""
        yield split + condition, frame, pred, conf


def _read(path: Path, kind: str) -> np.ndarray:
    picture = open_picture(path, "submitted file")
    if picture.image.format != "PNG" or picture.image.mode not in KINDS[kind]:
        bits = {"pred": 8, "conf": 16}[kind]
        raise XenomaskError(f"{path} is {picture.image.format} {picture.image.mode}, not a grey PNG of {bits} bits")
    return read_numbers(picture)


def splits_in(root: Path) -> list[str]:
    """The challenge's folders that lie below a root; raises XenomaskError where none does."""
    bases = (root, *(root / f for f in BRAVO.folders))
    found = [s for s in BRAVO.splits if any((b / f"bravo_{s}").is_dir() for b in bases)]
    if not found:
        raise XenomaskError(f"bravo: no folder bravo_SMIYC, bravo_ACDC, ... in {root}")
    return found
