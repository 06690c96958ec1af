"""Methods' maps -> the anomalous objects that `detect` finds in them at the same threshold, and their pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from xenomask.arrays import HALF_MAX, ImageLike, MapLike, as_map, as_threshold, check_same_size
from xenomask.datasets import Dataset
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import THREADS, check_classes, reader
from xenomask.metrics.frames import each_frame
from xenomask.objects import SMALLEST, AnomalyObject, IgnoreRegion, find_objects, ignored_in, smallest_area
from xenomask.objects.objects import Nearest
from xenomask.plots import coloured, draw_boxes, overlay
from xenomask.plots.heatmap import LONG, fitted
from xenomask.report.methods import Method
from xenomask.report.slider import jpeg
from xenomask.store.classes import read_classes
from xenomask.store.manifest import MANIFEST
from xenomask.types import CITYSCAPES_CLASSES, Tick, nothing

WIDE = 480  # pixels of a picture


def threshold_of(m: Method, given: float | None) -> tuple[float, str]:
    """The given threshold, or the one of the detector that made the maps, or the best-F1 one; and which it is.

    Objects score more than it, and best F1 counts what scores as much: of that, it is the next smaller float16. Raises
    XenomaskError for a manifest whose threshold is no finite number.
    """
    if given is not None:
        return as_threshold(given), "given"
    stored = (m.manifest or {}).get("threshold")
    if stored is None:
        below = float(np.nextafter(np.float16(m.threshold), np.float16(-HALF_MAX)))
        return (
            below,
            "just below that of best F1, chosen on these frames, because the maps name none of their detector's",
        )
    try:
        return as_threshold(stored), "the detector's"
    except XenomaskError as e:
        raise XenomaskError(f"{m.folder.path / MANIFEST} is damaged: {e}") from e


def _most_predicted(predicted: np.ndarray, what: str = "predicted classes") -> Nearest:
    """A function from a mask (H, W) to the class that is predicted for most of its pixels, and their share of it.

    `predicted` (H, W) holds Cityscapes train ids; raises XenomaskError for others, the function for another size.

    >>> _most_predicted(np.array([[0, 13, 13]]))(np.array([[True, True, True]]))
    ('car', 0.6666666666666666)
    """
    if predicted.max() >= len(CITYSCAPES_CLASSES):
        raise XenomaskError(f"{what} hold {predicted.max()}: they are Cityscapes train ids, 0 to 18")

    def nearest(mask: np.ndarray) -> tuple[str, float]:
        check_same_size("map", mask, what, predicted)
        counts = np.bincount(predicted[mask])
        return CITYSCAPES_CLASSES[int(counts.argmax())], float(counts.max() / counts.sum())

    return nearest


def objects_of(
    m: Method, data: Dataset, threshold: float, ignore: IgnoreRegion | None, classes: Path | None = None,
    *, tick: Tick = nothing,
) -> Mapping[str, list[AnomalyObject]]:  # fmt: skip
    """Each evaluated frame's objects, of .1 % of it or more, as `detect` finds them; `classes` is a folder of them."""
    ids, read = reader(m.folder, data)
    frames = {} if classes is None else check_classes(classes, data)

    def find(i: str) -> list[AnomalyObject]:
        value, _ = read(i)
        smallest = smallest_area(SMALLEST, value.size)
        nearest = None
        if classes is not None:
            predicted = read_classes(classes, i, frames[i].image)
            nearest = _most_predicted(predicted, f"predicted classes {classes / i}")
        return find_objects(value, threshold, smallest, ignored=ignored_in(ignore, value.shape), nearest=nearest)

    return each_frame(ids, find, threads=THREADS, tick=tick)


def boxed(
    value: MapLike, image: ImageLike | None, scale: tuple[float, float], threshold: float,
    ignore: IgnoreRegion | None, found: Sequence[AnomalyObject], width: int = WIDE,
) -> bytes:  # fmt: skip
    """The overlay of `detect`, or the map alone where there is no photo, with numbered boxes: a JPEG `width` wide.

    It is never wider than the map, nor than 480 pixels.
    """
    value = as_map(value)
    ignored = ignored_in(ignore, (value.shape[0], value.shape[1]))
    laid = coloured(value, scale) if image is None else overlay(image, value, scale, threshold, ignored)
    picture = draw_boxes(laid, [o.box for o in found])
    width = min(WIDE, width, picture.shape[1])
    size = fitted((picture.shape[0], picture.shape[1]), (LONG * width, width))
    return jpeg(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA))
