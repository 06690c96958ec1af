"""The part of every photo that does not count: the own bonnet, a bracket of the camera, a logo."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xenomask.arrays import MaskLike, as_image, as_mask
from xenomask.errors import XenomaskError
from xenomask.objects.objects import decode_rle, encode_rle, run_lengths
from xenomask.picture_files import open_picture
from xenomask.pictures import read_rgb
from xenomask.shapes import Bool, UInt8
from xenomask.store.manifest import MANIFEST, read_manifest
from xenomask.types import Size

SIDE = re.compile(r"(bottom|top|left|right):(\d+(?:\.\d+)?)%")
STORED = 1000  # pixels of the longer side of a region in detector.json
WIDTH = 256  # pixels: photos are compared at this width
FEWEST = 10  # photos that a region is learnt from
COHERENT, EDGE = 0.7, 2.0  # of an edge that stays in place: see learn_region
DENSE, GAP = 0.08, 0.04  # share of a row that such edges take in the region, and of the height that may lie between


@dataclass(frozen=True)
class IgnoreRegion:
    """Pixels that belong to no object, at any size that has the photos' shape, and where that comes from."""

    mask: Bool[np.ndarray, "h w"]
    origin: str

    def at(self, size: Size) -> Bool[np.ndarray, "H W"]:
        """The region in a photo of (height, width)."""
        return cv2.resize(self.mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0

    def to_json(self) -> dict[str, Any]:
        """What detector.json holds of it."""
        return {"rle": encode_rle(self.mask), "origin": self.origin}


def region_of(mask: MaskLike, origin: str) -> IgnoreRegion:
    """A region from a mask (H, W) of a photo; raises XenomaskError for what is no mask, and for all and none of it."""
    mask = as_mask(mask, "ignore region")
    if mask.all():
        raise XenomaskError(f"the ignore region ({origin}) is the whole photo")
    factor = min(1.0, STORED / max(mask.shape))
    h, w = (max(1, round(n * factor)) for n in mask.shape)
    # by mean, so that a thin line is in it
    stored = cv2.resize(mask.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) > 0
    if not stored.any():
        raise XenomaskError(f"the ignore region ({origin}) has no pixel: a mask picture ignores what is not black")
    return IgnoreRegion(stored, origin)


def read_region(table: Any) -> IgnoreRegion | None:
    """The region that detector.json holds, None where it holds none; ValueError or KeyError where it is damaged."""
    if table is None:
        return None
    size, counts = table["rle"]["size"], table["rle"]["counts"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= STORED for n in size)):
        raise ValueError("the ignore region has no size")
    if not (isinstance(counts, str) and len(counts) <= 8 * STORED * STORED):
        raise ValueError("the ignore region has no run lengths")
    lengths = run_lengths(counts)
    if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        raise ValueError("the ignore region's run lengths do not fill it")
    return IgnoreRegion(decode_rle({"size": size, "counts": counts}), str(table["origin"]))


def region_of_maps(folder: Path) -> IgnoreRegion | None:
    """The ignore region of the detector that made the maps of a folder; None where the folder names none.

    Raises XenomaskError for a damaged manifest.
    """
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return read_region(read_manifest(folder / MANIFEST).get("ignore"))
    except (ValueError, KeyError, TypeError) as e:
        raise XenomaskError(f"{folder / MANIFEST} is damaged: its ignore region cannot be read ({e})") from e


def parse_region(text: str) -> IgnoreRegion:
    """'bottom:12%' (top, left, right likewise), or the file of a mask picture, in which what is not black is ignored.

    Raises XenomaskError for anything else, and for a region that is the whole photo.

    >>> parse_region("bottom:25%").at((4, 3)).astype(int).tolist()
    [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]]
    """
    if found := SIDE.fullmatch(text.strip()):
        side, percent = found[1], float(found[2])
        if not 0 < percent < 100:
            raise XenomaskError(f"ignore region {text!r}: the share lies between 0 and 100 %")
        line = np.zeros(STORED, bool)
        line[: max(1, round(STORED * percent / 100))] = True
        line = line[::-1] if side in ("bottom", "right") else line
        return region_of(line[:, None] if side in ("bottom", "top") else line[None], text.strip())
    path = Path(text)
    if not path.exists():
        raise XenomaskError(f"ignore region {text!r} is neither a share such as bottom:12% nor a mask picture")
    return region_of(read_rgb(open_picture(path, "mask picture")).max(2) > 0, path.name)


def ignored_in(region: IgnoreRegion | None, size: Size) -> Bool[np.ndarray, "H W"] | None:
    """The pixels of a photo of (height, width) that a region ignores; None for no region."""
    return None if region is None else region.at(size)


def learn_region(photos: Iterable[UInt8[np.ndarray, "_ _ 3"]]) -> IgnoreRegion:
    """What stays in place at the lower edge of a drive's photos (H, W, 3), all of one size: the own bonnet.

    An edge stays where the photos' mean gradient is more than .7 of their mean gradient magnitude: on what moves by,
    edges of all directions cancel. The region is the rows in the lowest quarter of which such edges take 8 %, and
    whatever lies below the first such edge. Raises XenomaskError for less than 10 photos, sizes that differ, and
    where nothing stays.
    """
    small: list[np.ndarray] = []
    sizes = set()
    for photo in photos:
        photo = as_image(photo)
        sizes.add(photo.shape)
        if len(sizes) > 1:
            raise XenomaskError(f"photos of two sizes ({' and '.join(map(str, sorted(sizes)))}) are of two cameras")
        grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
        size = (WIDTH, max(8, round(WIDTH * photo.shape[0] / photo.shape[1])))
        shrunk = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        small.append(cv2.GaussianBlur(shrunk, (0, 0), 1).astype(np.float32))
    if len(small) < FEWEST:
        raise XenomaskError(f"{len(small)} photos: what stays in place is learnt from {FEWEST} or more of a drive")
    dy, dx = np.gradient(np.stack(small), axis=(1, 2))
    mean, magnitude = np.hypot(dy.mean(0), dx.mean(0)), np.hypot(dy, dx).mean(0)
    stays = (mean > COHERENT * magnitude) & (mean > EDGE)
    dense = np.flatnonzero(stays.mean(1) >= DENSE)[::-1]
    lowest, gap = 3 * len(stays) // 4, max(2, round(GAP * len(stays)))
    first = int(dense[0]) if len(dense) else 0
    for row in dense:
        if first - row > gap:
            break
        first = int(row)
    if first < lowest:
        raise XenomaskError("nothing stays in place at the lower edge of these photos: give the region as bottom:12%")
    top = np.array([first + np.argmax(c) if c.any() else len(stays) for c in stays[first:].T])
    top = cv2.medianBlur(top.astype(np.uint8)[None], 5)[0] if len(stays) < 256 else top
    mask = np.arange(len(stays))[:, None] >= top[None]
    return region_of(mask, f"learnt from {len(small)} photos")
