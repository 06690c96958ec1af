"""RoadAnomaly of 2019, whose anomalies are stored as 2; not SegmentMeIfYouCan's RoadAnomaly21."""

from pathlib import Path

from xenomask.datasets.codings import CODINGS
from xenomask.datasets.layout import Entry, Frame, Listing, by_id, files, images_and_labels, pair
from xenomask.datasets.read import read_stored, stored_values
from xenomask.errors import XenomaskError

NAME = "road-anomaly"


def _stored(frames: tuple[Frame, ...]) -> str:
    """How this copy stores its anomalies, found by reading all labels (60 small files).

    Copies exist with 2 (official) and with 1. Raises XenomaskError for a set that holds both: the authors' own
    loader calls 1 the road, some copies' loaders call it an anomaly.
    """
    coding = CODINGS["road_anomaly"]
    ones: Path | None = None
    twos: Path | None = None
    for label in (f.label for f in frames if f.label):
        held = stored_values(read_stored(label, coding))
        ones = ones or (label if 1 in held else None)
        twos = twos or (label if 2 in held else None)
    if ones and twos:
        both = f"{ones} holds 1" + (" and 2" if ones == twos else f" and {twos} holds 2")
        raise XenomaskError(
            f"{NAME}: {both}: ambiguous, for 1 is the road to the set's authors and an anomaly in some copies; "
            "recode the labels to 0 / 1 / 255 and open them as data set folder"
        )
    return "anomaly" if ones else "road_anomaly"


def _listing(base: Path, split: str) -> Listing:
    if (base / "frames").is_dir():
        photos = by_id(files(base / "frames"), lambda p: p.stem)
        found = sorted((base / "frames").glob("*.labels/labels_semantic.*"))
        labels = by_id(found, lambda p: p.parent.name.removesuffix(".labels"))
        if not photos:
            raise XenomaskError(f"{NAME}: no photo in {base / 'frames'}")
        frames = pair(NAME, photos, labels, base / "frames")
    else:
        frames = images_and_labels(NAME, base)
    return Listing(frames, _stored(frames))


ROAD_ANOMALY = Entry(
    name=NAME,
    title="RoadAnomaly (2019)",
    listing=_listing,
    marks=("frames", "images", "labels_masks", "labels"),
    folders=("RoadAnomaly", "RoadAnomaly_jpg", "dataset_RoadAnomaly", "road_anomaly"),
    coding="road_anomaly",
    layout="frames/<id>.jpg (or .webp), frames/<id>.labels/labels_semantic.png; copies: RoadAnomaly/images/N.jpg, "
    "labels_masks/N.png",
    where="www.epfl.ch/labs/cvlab/data/road-anomaly (datasets-cvlab.epfl.ch/2019-road-anomaly/RoadAnomaly_jpg.zip)",
    licence="for research; the authors do not own the images (credits.txt names each source)",
    conventions="pooled, step-wise AUPR and FPR95; no void in the official labels, so every other pixel is inlier. Its "
    "60 images are none of RoadAnomaly21's. Its paper reports AUROC; Maskomaly, RbA and Mask2Anomaly AP and FPR95",
    # no track: SMIYC's benchmark has no component sizes for it
    copies=((60, (720, 1280)),),
    counts={"all": 60},
)
