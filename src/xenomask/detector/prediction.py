"""A detector's output for one photo, with objects, mask and pictures: what `detector("street.jpg")` gives."""

import io
import os
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xenomask.arrays import ImageLike, as_threshold
from xenomask.datasets.photos import as_photo
from xenomask.detector.nearest import Nearest
from xenomask.errors import XenomaskError
from xenomask.files import make_dir, refuse_folder
from xenomask.objects import SMALLEST, AnomalyObject, find_objects, ignored_in, smallest_area
from xenomask.picture_files import check_scene
from xenomask.pictures import save_picture
from xenomask.plots import draw_boxes, overlay
from xenomask.shapes import Bool, UInt8
from xenomask.types import ScoreMap

if TYPE_CHECKING:
    from xenomask.detector.predictor import Predictor

TOGETHER = 8  # photos of one size that go through the networks at a time
# false objects in an ordinary photo that a threshold may raise, at most; "normal" is a detector's default
ALARMS = {"low": 0.1, "normal": 0.5, "high": 2.0}
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Prediction:
    """One photo's anomaly map, with the detector's threshold and what it needs to draw and to name objects."""

    image: UInt8[np.ndarray, "H W 3"] = field(repr=False)
    score_map: ScoreMap
    # the fixed range in which the detector's maps are displayed
    scale: tuple[float, float]
    # the detector's stored one; None where it has none for its score
    threshold: float | None
    # share of the photo that an object takes at least
    smallest: float = SMALLEST
    # the pixels that belong to no object
    ignored: Bool[np.ndarray, "H W"] | None = field(default=None, repr=False)
    nearest: Nearest | None = field(default=None, repr=False, compare=False)

    @cached_property
    def objects(self) -> list[AnomalyObject]:
        """The objects above the threshold, of .1 % of the photo or more, the most anomalous first.

        Raises XenomaskError where the detector holds no threshold for its score: `objects_above` takes one.
        """
        return self.objects_above(self._threshold(None))

    def objects_above(self, threshold: float, smallest: float | None = None) -> list[AnomalyObject]:
        """The objects above another threshold, of at least `smallest` (a share) of the photo's pixels.

        Raises XenomaskError for a threshold that is no finite number, and a share that is not in 0..1.
        """
        smallest = self.smallest if smallest is None else smallest
        if not 0 <= smallest <= 1:
            raise XenomaskError(f"smallest {smallest} is no share of the photo: it lies in 0..1")
        pixels = smallest_area(smallest, self.score_map.value.size)
        return find_objects(self.score_map.value, threshold, pixels, ignored=self.ignored, nearest=self.nearest)

    def mask(self, threshold: float | None = None) -> Bool[np.ndarray, "H W"]:
        """The pixels that score at least the threshold, or the detector's own; XenomaskError as for `objects`."""
        above = self.score_map.value >= self._threshold(threshold)
        return above if self.ignored is None else above & ~self.ignored

    def overlay(self) -> UInt8[np.ndarray, "H W 3"]:
        """The photo with the map over it, the threshold's contour, and the objects' numbered boxes."""
        laid = overlay(self.image, self.score_map.value, self.scale, self.threshold, self.ignored)
        return laid if self.threshold is None else draw_boxes(laid, [o.box for o in self.objects])

    def save(self, path: str | Path) -> Path:
        """Writes the overlay as a picture, whose name says the format (.jpg, .png, .webp); returns the path.

        Raises XenomaskError for another ending, and where the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in PICTURES:
            raise XenomaskError(f"{path}: the overlay is written as {', '.join(PICTURES)}")
        refuse_folder(path)
        make_dir(path.parent)
        save_picture(path, self.overlay())
        return path

    def show(self) -> None:
        """Shows the overlay: in a notebook below its cell, else in the system's picture viewer.

        Raises XenomaskError where there is neither.
        """
        from PIL import Image, ImageShow

        # a notebook has loaded IPython already; IPython in a terminal has no kernel, and can draw nothing
        ipython = sys.modules.get("IPython")
        if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
            return ipython.display.display(self)
        screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if not screen or not ImageShow.show(Image.fromarray(self.overlay())):
            raise XenomaskError('no display, or no picture viewer on it: write the overlay by .save("out.jpg")')

    def _repr_png_(self) -> bytes:
        """The overlay, for notebooks."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.overlay()).save(buffer, "png")
        return buffer.getvalue()

    def _threshold(self, given: float | None) -> float:
        threshold = self.threshold if given is None else given
        if threshold is None:
            raise XenomaskError(
                f"the detector holds no threshold for score {self.score_map.score}: give one, as in "
                "objects_above(threshold) and mask(threshold)"
            )
        return as_threshold(threshold)


def default_threshold(detector: "Predictor") -> float | None:
    """The threshold that a detector holds for its own maps."""
    value = detector.thresholds.get("default", {}).get("value")
    return None if value is None else float(value)


def predict(detector: "Predictor", photos: Any) -> Any:
    """A Prediction of one photo (path, PIL image, array, tensor), or a list of them of a list; batched by size.

    Raises XenomaskError for what is no photo, or too small for a scene, before a network is run.
    """
    if not isinstance(photos, list | tuple):
        return predict(detector, [photos])[0]
    images = [as_photo(photo) for photo in photos]
    for image in images:
        check_scene((image.shape[0], image.shape[1]), "the photo")
    prepared = [detector.prepare(image) for image in images]
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, image in enumerate(images):
        groups.setdefault(image.shape, []).append(k)
    found: list[Prediction | None] = [None] * len(images)
    most = min(TOGETHER, detector.largest_batch or TOGETHER)
    for group in groups.values():
        for start in range(0, len(group), most):
            together = group[start : start + most]
            for k, outputs in zip(together, detector.infer([prepared[k] for k in together]), strict=True):
                found[k] = prediction(detector, images[k], detector.fuse(outputs), outputs)
    return found


def prediction(detector: "Predictor", image: ImageLike, found: ScoreMap, outputs: Any) -> Prediction:
    """The Prediction of a photo whose networks have run."""
    return Prediction(
        as_photo(image), found, detector.scale, default_threshold(detector),
        ignored=ignored_in(detector.ignore, found.value.shape), nearest=detector.nearest(outputs),
    )  # fmt: skip
