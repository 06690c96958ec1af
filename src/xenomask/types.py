"""The named types that flow through xenomask; frozen, and validated once, when they are made.

Letters, the same everywhere: B batch, Q queries, K classes, N = K + 1 logits, h w mask pixels,
H W image pixels. Sizes are (height, width). The types that hold tensors, MaskOutput and PixelOutput, are in
xenomask.masks: what deals with maps and labels alone need not load torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xenomask import arrays
from xenomask.shapes import Float32, UInt8

Size = tuple[int, int]
Tick = Callable[[], None]  # what moves a progress bar one on


def nothing() -> None:
    """Move no progress bar: for callers who do not want to see any."""


CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
VOID = arrays.VOID
OUTLIER = 254  # a pasted object's label while training, and an annotated anomaly's; ISSU's files store it


@dataclass(frozen=True)
class Sample:
    """One photo with what is known of it: image RGB, label or None (its coding is its data set's).

    Raises XenomaskError for arrays that are no photo or no label, and for sizes that differ.
    """

    image: UInt8[np.ndarray, "H W 3"]
    label: UInt8[np.ndarray, "H W"] | None
    id: str
    dataset: str

    def __post_init__(self):
        object.__setattr__(self, "image", arrays.as_image(self.image))
        if self.label is not None:
            object.__setattr__(self, "label", arrays.as_label(self.label))
            arrays.check_same_size("photo", self.image, "label", self.label)


@dataclass(frozen=True)
class QuerySet:
    """Which queries of one checkpoint are specialised on a class, which fire on anomalies, and where that comes from.

    `inlier` maps a specialised query to its class, `outlier` an outlier query to its mean IoU with the
    anomalies (nan where it was not published), `ground` holds the queries of Maskomaly's ground fix; `origin`
    holds, per analysis, the data, the split and the thresholds.
    """

    checkpoint_sha256: str = ""
    inlier: Mapping[int, int] = field(default_factory=dict)
    outlier: Mapping[int, float] = field(default_factory=dict)
    ground: tuple[int, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreMap:
    """A raw anomaly map of an image, higher = more anomalous; nobody may guess its range from its values.

    Raises XenomaskError for an array that is no finite map (H, W).
    """

    value: Float32[np.ndarray, "H W"]
    score: str

    def __post_init__(self):
        object.__setattr__(self, "value", arrays.as_single(self.value))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Its values, so that it is taken wherever a map is: `xenomask.evaluate([detector.detect(p) for p in photos])`.

        >>> np.asarray(ScoreMap(np.ones((1, 2), np.float32), "rba")).tolist()
        [[1.0, 1.0]]
        """
        return np.array(self.value, dtype, copy=copy)
