"""Data sets whose labels are classes, for training: Cityscapes, ACDC, Mapillary Vistas, IDD, CamVid."""

from pathlib import Path

from xenomask.datasets.layout import Entry, Frame, Listing, by_id, contents, files, pair, reach, trees
from xenomask.errors import XenomaskError

MIOU = "mean IoU over the 19 classes, pooled over all pixels but void"


def _cityscapes(base: Path, split: str) -> Listing:
    kinds = {"train_ids": "_gtFine_labelTrainIds", "cityscapes_ids": "_gtFine_labelIds"}
    photos = f"leftImg8bit/{split}/*/*_leftImg8bit.*"
    patterns = [f"gtFine/{split}/*/*{kind}.*" for kind in kinds.values()]
    frames, which = trees("cityscapes", base, photos, patterns)
    if which < 0 and (other := next((base / "gtFine" / split).glob("*/*_gtFine_*.png"), None)):
        raise XenomaskError(f"cityscapes: no label {base / patterns[0]}; found {other} (IDD's labels: data set idd)")
    return Listing(frames, list(kinds)[max(which, 0)])


CITYSCAPES = Entry(
    name="cityscapes",
    title="Cityscapes, fine labels",
    listing=_cityscapes,
    marks=("leftImg8bit",),
    folders=("cityscapes", "Cityscapes"),
    coding="train_ids",
    layout="leftImg8bit/{train,val,test}/<city>/<id>_leftImg8bit.png, gtFine/<split>/<city>/"
    "<id>_gtFine_labelTrainIds.png (else labelIds)",
    where="cityscapes-dataset.com (registration)",
    licence="non-commercial; not to be passed on. What that means for weights trained on it is not settled",
    conventions=MIOU + " of val",
    splits=("train", "val", "test"),
    default="val",
    use="training",
    counts={"train": 2975, "val": 500, "test": 1525},
)

CONDITIONS = ("fog", "night", "rain", "snow")


def _acdc(base: Path, split: str) -> Listing:
    part, _, condition = split.partition("-")
    frames: list[Frame] = []
    seen = set()
    kinds = {"train_ids": "labelTrainIds", "cityscapes_ids": "labelIds"}
    for where in [condition] if condition else [c for c in CONDITIONS if (base / "rgb_anon" / c).is_dir()]:
        patterns = [f"gt/{where}/{part}/*/*_gt_{kind}.*" for kind in kinds.values()]
        own, which = trees("acdc", base, f"rgb_anon/{where}/{part}/*/*_rgb_anon.*", patterns)
        frames += own
        seen |= {list(kinds)[which]} if which >= 0 else set()
    if not frames:
        folder = base / "rgb_anon"
        raise XenomaskError(f"acdc: none of {', '.join(CONDITIONS)} in {folder}; found {contents(folder)}")
    if len(seen) > 1:
        raise XenomaskError(f"acdc: some conditions of {base / 'gt'} have labelTrainIds, others labelIds alone")
    return Listing(tuple(sorted(frames, key=lambda f: f.id)), next(iter(seen), "train_ids"))


ACDC = Entry(
    name="acdc",
    title="ACDC (adverse conditions), and sets of its layout",
    listing=_acdc,
    marks=("rgb_anon",),
    folders=("ACDC", "acdc"),
    coding="train_ids",
    layout="rgb_anon/<condition>/<split>/<sequence>/<id>_rgb_anon.png, gt/<condition>/<split>/<sequence>/"
    "<id>_gt_labelTrainIds.png (else labelIds); conditions fog, night, rain, snow",
    where="acdc.vision.ee.ethz.ch (registration)",
    licence="non-commercial (ACDC's own licence)",
    conventions=MIOU + "; the test labels are hidden. No anomaly labels: it shows how a score behaves in bad weather",
    splits=("train", "val", "test", *(f"{s}-{c}" for s in ("train", "val", "test") for c in CONDITIONS)),
    default="val",
    use="training",
    counts={"train": 1600, "val": 406, "test": 2000},
)


def _vistas(base: Path, split: str) -> Listing:
    part = {"train": "training", "val": "validation"}[split]
    labels = (f"{part}/v1.2/labels/*.*", f"{part}/labels/*.*")
    if (base / part / "v2.0").is_dir() and not (base / part / "v1.2").is_dir():
        raise XenomaskError(f"vistas: no folder {base / part / 'v1.2'}: the 124 classes of v2.0/ are not read")
    frames, _ = trees("vistas", base, f"{part}/images/*.*", labels, labelled=True)
    return Listing(frames, "vistas_ids")


VISTAS = Entry(
    name="vistas",
    title="Mapillary Vistas 1.2 (also as it lies in 2.0)",
    listing=_vistas,
    marks=("training", "validation"),
    folders=("mapillary", "mapillary_vistas", "mapillary-vistas-dataset_public_v1.1"),
    coding="vistas_ids",
    layout="{training,validation}/images/<id>.jpg, {training,validation}/v1.2/labels/<id>.png (1.x: labels/)",
    where="www.mapillary.com/dataset/vistas (registration)",
    licence="research use (CC BY-NC-SA)",
    conventions="RbA's Swin-L was trained on it and Cityscapes. Read by our own table, for none is official",
    splits=("train", "val"),
    default="val",
    use="training",
    counts={"train": 18000, "val": 2000},
)


def _idd(base: Path, split: str) -> Listing:
    kinds = {"train_ids": "_gtFine_labelcsTrainIds", "idd_ids": "_gtFine_labelids"}
    patterns = [f"gtFine/{split}/*/*{kind}.*" for kind in kinds.values()]
    frames, which = trees("idd", base, f"leftImg8bit/{split}/*/*_leftImg8bit.*", patterns, after=1)
    if which < 0 and split != "test":
        raise XenomaskError(
            f"idd: no label {base / patterns[0]} or ..._labelids.png; {reach(base, patterns[0])}. They are made from "
            "the polygons by AutoNUE/public-code, preperation/createLabels.py --id-type csTrainId (or id)"
        )
    return Listing(frames, list(kinds)[max(which, 0)])


IDD = Entry(
    name="idd",
    title="India Driving Dataset, segmentation",
    listing=_idd,
    marks=("gtFine", "leftImg8bit"),
    folders=("IDD_Segmentation", "idd", "IDD"),
    coding="idd_ids",
    layout="leftImg8bit/<split>/<drive>/<id>_leftImg8bit.png (or .jpg), gtFine/<split>/<drive>/"
    "<id>_gtFine_labelcsTrainIds.png (else labelids)",
    where="idd.insaan.iiit.ac.in (registration)",
    licence="research use (the site's agreement)",
    conventions=MIOU + ", or over IDD's own 26 classes (level3Ids, not read here)",
    splits=("train", "val", "test"),
    default="val",
    use="training",
)


def _camvid(base: Path, split: str) -> Listing:
    if any((base / f"{s}annot").is_dir() for s in ("train", "val", "test")):
        there = [p for p in ("train", "val", "test") if split in ("all", p) and (base / p).is_dir()]
        photos = by_id((f for p in there for f in files(base / p)), lambda p: p.stem)
        folders = [base / f"{p}annot" for p in there if (base / f"{p}annot").is_dir()]
        labels = by_id((f for d in folders for f in files(d)), lambda p: p.stem)
        return Listing(pair("camvid", photos, labels, base), "camvid_segnet")
    if split not in ("all", "val"):  # val is every command's default, and of a copy without splits its whole
        wanted = f"no folders {split}/ and {split}annot/ (SegNet's; the other copies are not split)"
        raise XenomaskError(f"camvid: {wanted} in {base}; found {contents(base)}")
    if (base / "701_StillsRaw_full").is_dir():
        photos_at, labels_at, stored = "701_StillsRaw_full/*.*", "LabeledApproved_full/*_L.*", "camvid"
    else:
        photos_at, labels_at, stored = "images/*.*", "labels/*_P.*", "camvid_numbers"
    frames, _ = trees("camvid", base, photos_at, [labels_at], labelled=True)
    return Listing(frames, stored)


CAMVID = Entry(
    name="camvid",
    title="CamVid",
    listing=_camvid,
    marks=("701_StillsRaw_full", "trainannot", "testannot", "valannot", "labels"),
    folders=("CamVid", "camvid"),
    coding="camvid",
    layout="701_StillsRaw_full/<id>.png, LabeledApproved_full/<id>_L.png (colours); fastai: images/<id>.png, "
    "labels/<id>_P.png; SegNet: {train,val,test}/<id>.png, {train,val,test}annot/<id>.png",
    where="mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
    licence="not stated on its page; research use by custom",
    conventions="mean IoU over 11 classes in its papers, on SegNet's split; here as Cityscapes train ids, where a "
    "class has one. A copy without splits is, for every command's default, all of it val",
    splits=("all", "train", "val", "test"),
    default="val",
    use="training",
    counts={"all": 701},
)
