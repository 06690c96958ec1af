"""Objects to be pasted: a folder of RGBA files, or the instances of COCO, as RGBA arrays."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xenomask.datasets.read import read_photo, upright_label
from xenomask.errors import XenomaskError, first_line
from xenomask.files import read_text
from xenomask.picture_files import is_picture, open_picture, read_header
from xenomask.pictures import read_rgba
from xenomask.shapes import UInt8
from xenomask.types import Size

# COCO's names of what Cityscapes has a class for: no anomalies
KNOWN = ("person", "bicycle", "car", "motorcycle", "bus", "train", "truck", "traffic light", "stop sign")
MOST = 2**25  # pixels of a cut-out, or of the photo that it is a part of
LEAST = 32  # pixels, square root of a COCO instance's area: smaller ones show nothing when enlarged


@dataclass(frozen=True)
class Cutout:
    """One object: an RGBA file, or the part of a photo inside of polygons (x, y, x, y, ... in pixels)."""

    image: Path
    polygons: tuple[tuple[float, ...], ...] = ()
    # (height, width) that the polygons are meant for; None: the photo's
    size: Size | None = None

    def read(self) -> UInt8[np.ndarray, "h w 4"]:
        """The object as RGBA, upright; raises XenomaskError for a file that is no picture, or far too large a one."""
        header = read_header(self.image, "cut-out")
        check_size(self.image, header.stored)
        if not self.polygons:
            return read_rgba(open_picture(self.image, "cut-out"))
        rgb = read_photo(self.image)
        size = self.size or header.upright
        if size not in (header.upright, header.stored):
            (h, w), (height, width) = header.upright, size
            raise XenomaskError(f"{self.image} is {w}x{h}, but its outlines are said to be of {width}x{height}")
        alpha = np.zeros(size, np.uint8)
        for polygon in self.polygons:  # one by one: together, cv2 leaves out where they overlap
            cv2.fillPoly(alpha, [np.round(np.reshape(polygon, (-1, 1, 2))).astype(np.int32)], 255)
        alpha = upright_label(alpha, self.image)
        rows, columns = (np.flatnonzero(alpha.any(axis)) for axis in (1, 0))
        if not len(rows):
            raise XenomaskError(f"{self.image}: an instance of it lies outside of the picture")
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return np.dstack([rgb[box], alpha[box]])


def check_size(path: Path, size: Size) -> None:
    """Raises XenomaskError for a picture of which pasting would take far too much memory."""
    height, width = size
    if width * height > MOST:
        raise XenomaskError(
            f"{path} is {width}x{height}, too large for a cut-out (at most {MOST >> 20} megapixels): scale it down"
        )


def list_cutouts(folder: Path, instances: Path | None = None) -> tuple[Cutout, ...]:
    """The RGBA files of a folder, sorted, or the objects in its photos that a COCO `instances` file outlines.

    Raises XenomaskError if there are none, for a file that is no image or too large, and where the first has no alpha.
    """
    if instances:
        return _coco(folder, instances)
    files = sorted(p for p in folder.glob("*") if is_picture(p))
    if not files:
        raise XenomaskError(f"no cut-out (RGBA, such as .webp or .png) in {folder}")
    for path in files:  # from their headers alone: now, not at some step
        check_size(path, read_header(path, "cut-out").stored)
    first = open_picture(files[0], "cut-out").image
    if "A" not in first.mode.upper() and "transparency" not in first.info:
        raise XenomaskError(
            f"cut-out {files[0]} has no transparency (mode {first.mode}), so all of the picture would be pasted: save "
            "it as RGBA; COCO's photos need augment.paste_coco"
        )
    return tuple(Cutout(p) for p in files)


def _coco(folder: Path, path: Path) -> tuple[Cutout, ...]:
    """The instances of classes that Cityscapes lacks, by their numbers; no crowds, none below 32 x 32 pixels."""
    try:
        said = json.loads(read_text(path))
        names = {c["id"]: str(c["name"]) for c in said["categories"]}
        files = {i["id"]: (folder / str(i["file_name"]), _size(i)) for i in said["images"]}
        chosen = [
            (int(a["id"]), _cutout(*files[a["image_id"]], a, path))
            for a in said["annotations"]
            if names[a["category_id"]] not in KNOWN and not a.get("iscrowd") and float(a["area"]) >= LEAST**2
        ]
    except FileNotFoundError:
        raise XenomaskError(f"no such file: {path}") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
        raise XenomaskError(f"{path} is no COCO instances file: {type(e).__name__} {first_line(e)}") from e
    if not chosen:
        raise XenomaskError(f"{path} has no instance of a class that Cityscapes lacks, of {LEAST} x {LEAST} pixels")
    there = {p.name for p in folder.glob("*")}
    missing = sorted({c.image.name for _, c in chosen} - there)
    if missing:
        raise XenomaskError(f"{folder} lacks {len(missing)} of the photos that {path} names, {missing[0]} first")
    return tuple(c for _, c in sorted(chosen, key=lambda pair: pair[0]))


def _size(image: Mapping[str, Any]) -> Size | None:
    return (int(image["height"]), int(image["width"])) if "height" in image and "width" in image else None


def _cutout(image: Path, size: Size | None, annotation: Mapping[str, Any], path: Path) -> Cutout:
    outlines = annotation["segmentation"]
    if not isinstance(outlines, list):
        raise XenomaskError(f"{path}: instance {annotation['id']} is run-length coded; give polygons, as COCO does")
    polygons = tuple(tuple(float(v) for v in p) for p in outlines)
    if not polygons or any(len(p) < 6 or len(p) % 2 or not np.isfinite(p).all() for p in polygons):
        raise XenomaskError(f"{path}: instance {annotation['id']} has an outline of fewer than three points")
    return Cutout(image, polygons, size)
