"""ISSU (Laskar et al., CVPR 2025): anomalies and the 19 Cityscapes classes in one label, on Indian roads."""

from dataclasses import replace
from pathlib import Path

from xenomask.datasets.layout import IMAGES_AND_LABELS, Entry, Listing, images_and_labels
from xenomask.errors import XenomaskError

# an id is <static or temporal>_<folder>_<name>; these folders hold frames of low light, the others of normal light
LOW_LIGHT = {
    "static": {"rain", "fog", "lowlight"},
    "temporal": {"5", "15", "17", "20", "25", "31", "32", "33", "38", "39", "40", "41", "42", "45", "52", "54", "72",
                 "80", "83", "85", "88", "91", "93", "94", "96"},
}  # fmt: skip


def in_split(frame_id: str, split: str) -> bool:
    """Whether an official frame belongs to a split, by its id.

    >>> [in_split(i, "static-normal") for i in ("static_0_009599", "static_rain_12", "temporal_99_520")]
    [True, False, False]
    """
    part, _, rest = frame_id.partition("_")
    wanted, _, light = split.partition("-")
    low = rest.partition("_")[0] in LOW_LIGHT.get(part, ())
    return split == "all" or (part == wanted and (not light or low == (light == "low-light")))


def _listing(base: Path, split: str, stored: str) -> Listing:
    frames = images_and_labels("issu", base)
    if split != "all" and (other := next((f.id for f in frames if f.id.partition("_")[0] not in LOW_LIGHT), None)):
        raise XenomaskError(f"issu: frame {other} in {base} is not called static_... or temporal_...: take split all")
    return Listing(tuple(f for f in frames if in_split(f.id, split)), stored)


ISSU = Entry(
    name="issu",
    title="ISSU test sets, anomaly track: all 19 classes are inliers",
    listing=lambda base, split: _listing(base, split, "issu"),
    marks=IMAGES_AND_LABELS,
    folders=("dataset_ISSUTrack",),
    coding="issu",
    layout="dataset_ISSUTrack/images/<static or temporal>_<folder>_<name>.png, labels_masks/<same>.png",
    where="github.com/vojirt/benchmark_issu (composed by its scripts from IDD, IDD-AW and IDD-X)",
    licence="IDD's: research use (the site's agreement)",
    conventions="the official curve of SegmentMeIfYouCan, AP step-wise; TPR at the first threshold with FPR >= .05; "
    "open IoU at the thresholds of TPR 95 % and FPR 5 %, of score > threshold; components from 49 pixels on",
    splits=("all", "static", "temporal", *(f"{p}-{k}" for p in LOW_LIGHT for k in ("normal", "low-light"))),
    track="issu",
    counts={"all": 2118, "static": 980, "temporal": 1138, "static-normal": 848, "static-low-light": 132,
            "temporal-normal": 868, "temporal-low-light": 270},
)  # fmt: skip

OBSTACLE = replace(
    ISSU,
    name="issu-obstacle",
    title="ISSU test sets, obstacle track: road is inlier, the other classes are void",
    listing=lambda base, split: _listing(base, split, "issu_road"),
    coding="issu_road",
)
