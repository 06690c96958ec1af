"""Everything that a report page shows, computed already: the page only lays it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xenomask.objects import AnomalyObject
from xenomask.shapes import Float64, UInt8
from xenomask.types import Size


@dataclass(frozen=True)
class Cell:
    """A table's cell: what is shown, what it is sorted by, and a remark in small type."""

    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A sortable table; the first column names the rows."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    # (name, how many columns) above the head, or none
    groups: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Diagram:
    """A vector picture with its caption and a description in words, for those who do not see it."""

    name: str
    caption: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Crop:
    """A component's picture (JPEG bytes) and its line of text."""

    picture: bytes
    text: str


@dataclass(frozen=True)
class Levels:
    """The thresholds that a map's slider knows, rising, and the pooled numbers at score >= each of them.

    A stored map's pixel holds its level: how many of the thresholds are at most its score, 0 .. 255.
    """

    threshold: Float64[np.ndarray, "k"]
    tpr: Float64[np.ndarray, "k"]
    fpr: Float64[np.ndarray, "k"]
    precision: Float64[np.ndarray, "k"]
    f1: Float64[np.ndarray, "k"]
    # of each level
    colours: UInt8[np.ndarray, "k1 3"]
    # of each level over a photo, in [0, 1]
    opacity: Float64[np.ndarray, "k1"]
    # name -> which threshold
    points: Mapping[str, int]


@dataclass(frozen=True)
class ObjectsView:
    """A method's anomalous objects above a threshold, in every evaluated frame, and how that threshold was chosen."""

    threshold: float
    origin: str
    found: Mapping[str, Sequence[AnomalyObject]]
    # overlay JPEGs with numbered boxes, in the embedded frames' order
    pictures: Sequence[bytes]
    # whether they have a nearest class, the one predicted for most of their pixels
    classes: bool = False


@dataclass(frozen=True)
class MethodView:
    """One folder of maps: `numbers` is what `evaluate --json` writes; maps and thumbs are in the frames' order."""

    name: str
    folder: str
    numbers: Mapping[str, Any]
    scale: tuple[float, float]
    levels: Levels
    # heading -> its components, and how many there are in all
    components: Mapping[str, tuple[int, Sequence[Crop]]]
    diagrams: Sequence[Diagram]
    remarks: Sequence[str]
    manifest: Mapping[str, Any] | None
    objects: ObjectsView
    # level PNGs and overlay JPEGs
    maps: Sequence[bytes]
    thumbs: Sequence[bytes]


@dataclass(frozen=True)
class FrameView:
    """One embedded frame: its size, the size that it is embedded at, photo (JPEG, or none) and label (PNG)."""

    id: str
    size: Size
    shown: Size
    photo: bytes | None
    label: bytes


@dataclass(frozen=True)
class ReportView:
    """The whole page."""

    title: str
    lead: Sequence[str]
    methods: Sequence[MethodView]
    frames: Sequence[FrameView]
    tables: Sequence[Table]
    # one row an evaluated frame, the embedded ones first and in their order
    frame_table: Table
    diagrams: Sequence[Diagram]
    # PNG, one row: from the scale's lower to its upper end
    colours: bytes
    version: str
