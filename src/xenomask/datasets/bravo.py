"""The BRAVO challenge's six folders: photos; their labels are held by its server."""

from pathlib import Path

from xenomask.datasets.layout import Entry, Listing, trees

# split: (photos below bravo_<split>, labels if somebody has them, their coding, folder names that an id needs)
SUBSETS = {
    "ACDC": ("*/test/*/*_rgb_anon.*", "*/test/*/*_gt_labelTrainIds.*", "train_ids", 0),
    "SMIYC": ("RoadAnomaly21/images/*.jpg", "RoadAnomaly21/images/*_labels_semantic.*", "anomaly", 0),
    "outofcontext": ("*/*_leftImg8bit.*", "*/*_gt_labelTrainIds.*", "train_ids", 0),
    "synflare": ("*/*_leftImg8bit.*", "*/*_gt_labelTrainIds.*", "train_ids", 0),
    "synrain": ("*/*_leftImg8bit.*", "*/*_gt_labelTrainIds.*", "train_ids", 0),
    "synobjs": ("*/*[0-9].*", "*/*_gt.*", "train_ids", 1),
}
# a label's ending -> that of the mask beside it, 0 where a pixel is valid (bravo_tarfile.py and eval_script.py)
MASKS = {"_gt_labelTrainIds": "_gt_invIds", "_gt": "_mask"}


def _listing(base: Path, split: str) -> Listing:
    photos, labels, stored, after = SUBSETS[split]
    below = base if base.name == f"bravo_{split}" else base / f"bravo_{split}"
    frames, _ = trees("bravo", below, photos, [labels], after=after)
    return Listing(frames, stored)


def mask_of(label: Path) -> Path:
    """Where the mask of invalid pixels belongs, beside the label of classes.

    >>> mask_of(Path("bravo_synobjs/lion/7_gt.png")).name
    '7_mask.png'
    """
    ending = next(e for e in MASKS if label.stem.endswith(e))
    return label.with_name(label.stem.removesuffix(ending) + MASKS[ending] + ".png")


BRAVO = Entry(
    name="bravo",
    title="BRAVO challenge",
    listing=_listing,
    marks=tuple(f"bravo_{s}" for s in SUBSETS),
    folders=("bravo", "BRAVO"),
    coding="anomaly",
    layout="bravo_ACDC/<condition>/test/<sequence>/<id>_rgb_anon.png, bravo_SMIYC/RoadAnomaly21/images/<id>.jpg, "
    "bravo_synobjs/<object>/N.png, bravo_{outofcontext,synflare,synrain}/<city>/<id>_leftImg8bit.png",
    where="github.com/valeoai/bravo_challenge (links to each folder)",
    licence="each source's own: ACDC, SegmentMeIfYouCan, Cityscapes (non-commercial)",
    conventions="100,000 sampled non-void pixels an image, confidence in 65,536 steps, AUPR step-wise, FPR at the "
    "first TPR >= .95, harmonic means over subsets; its toolkit encodes submissions. The labels are hidden",
    splits=("SMIYC", "ACDC", "synobjs", "synrain", "synflare", "outofcontext"),
    default="SMIYC",
    counts={"synobjs": 656, "synrain": 500, "synflare": 308, "outofcontext": 329},
)
