"""Predicted classes beside maps: one 8-bit PNG a frame, Cityscapes train ids, or ISSU's .npz; what they are read by."""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from xenomask.arrays import LabelLike, as_label
from xenomask.errors import XenomaskError
from xenomask.files import atomic
from xenomask.picture_files import open_picture
from xenomask.pictures import read_numbers
from xenomask.shapes import UInt8
from xenomask.store.folder import ID, MapFolder
from xenomask.store.npy import read_npz
from xenomask.store.provenance import PHOTO, photo_digest

ENDING = ".png"
ISSU = ".npz"  # holds `anomaly_scores`, the map, too
ISSU_KEY = "pred_id_labels"


def class_ids(folder: Path) -> list[str]:
    """The frames whose predicted classes lie in a folder, sorted; raises XenomaskError where there is none."""
    if not folder.is_dir():
        raise XenomaskError(f"no folder of predicted classes {folder}; make one with `xenomask score --classes`")
    return sorted({frame for files in _files(folder) for frame in files.ids()})


def _files(folder: Path) -> tuple[MapFolder, MapFolder]:
    """Its files by frame, of either kind: found in whichever of Unicode's forms they are named, as maps are."""
    return MapFolder(folder, f"{ID}{ENDING}"), MapFolder(folder, f"{ID}{ISSU}")


def write_classes(path: Path, predicted: LabelLike, *, photo: str | None = None) -> None:
    """Write the predicted classes (H, W), 0..255, as 8-bit PNG; `photo` is the SHA-256 of the photo's file."""
    info = PngInfo()
    if photo is not None:
        info.add_text(PHOTO, photo)
    with atomic(path) as part:
        Image.fromarray(as_label(predicted, "predicted classes")).save(part, "png", pnginfo=info)


def read_classes(folder: Path, frame: str, photo: Path | None = None) -> UInt8[np.ndarray, "H W"]:
    """Read a frame's predicted classes (H, W) from <id>.png, or from `pred_id_labels` of <id>.npz.

    Raises XenomaskError for a missing or damaged file, another kind of picture, and classes of another photo.
    """
    path, other = (files.file(frame) for files in _files(folder))
    if other.is_file() and not path.is_file():
        return as_label(read_npz(other, ISSU_KEY), f"predicted classes {other}")
    picture = open_picture(path, "predicted classes")
    if (picture.image.format, picture.image.mode) != ("PNG", "L"):
        found = f"{picture.image.format} {picture.image.mode}"
        raise XenomaskError(f"predicted classes {path} are {found}, not an 8-bit grey PNG of class numbers")
    made_from = picture.image.info.get(PHOTO)
    if photo is not None and made_from is not None and made_from != photo_digest(photo):
        raise XenomaskError(
            f"predicted classes {path} were made from another photo than {photo} is now: score it again"
        )
    return read_numbers(picture)


def classes_photo(folder: Path, frame: str) -> str | None:
    """The SHA-256 of the photo that a frame's predicted classes were made from; None where they do not say (.npz)."""
    path = _files(folder)[0].file(frame)
    return open_picture(path, "predicted classes").image.info.get(PHOTO) if path.is_file() else None
