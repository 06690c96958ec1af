"""A tiny copy of each data set of the catalogue, in its format on disk."""

from dataclasses import dataclass

VOID = 255
# coding: a row of stored values, and what it says; written out by hand from each set's own description
ROWS = {
    "anomaly": ([0, 1, 255], [0, 1, VOID]),
    "road_anomaly": ([0, 2, 255], [0, 1, VOID]),
    "lost_and_found_ids": ([1, 2, 200, 0, 201], [0, 1, 1, VOID, VOID]),
    "lost_and_found_train_ids": ([1, 2, 0, 255], [0, 1, VOID, VOID]),
    "street_hazards": ([1, 7, 13, 14], [0, 0, 0, 1]),
    "small_obstacle": ([1, 2, 254, 0], [0, 1, 1, VOID]),
    "bdd_anomaly": ([0, 15, 16, 17, 18, 255], [0, 0, 1, 1, 1, VOID]),
    "issu": ([0, 7, 18, 254, 255], [0, 0, 0, 1, VOID]),
    "issu_road": ([0, 7, 18, 254, 255], [0, VOID, VOID, 1, VOID]),
    "sos": ([0, 254, 255], [0, 1, VOID]),
    "train_ids": ([0, 13, 18, 255], [0, 13, 18, VOID]),
    "cityscapes_ids": ([7, 26, 33, 0, 9], [0, 13, 18, VOID, VOID]),
    "idd_ids": ([0, 12, 32, 10, 11, 39], [0, 13, 8, 18, VOID, VOID]),
    "vistas_ids": ([13, 55, 27, 2, 1, 65], [0, 13, 10, 1, VOID, VOID]),
    "camvid_numbers": ([17, 5, 21, 0, 30], [0, 13, 10, VOID, VOID]),
    "camvid_segnet": ([3, 8, 0, 10, 11], [0, 13, 10, VOID, VOID]),
}


@dataclass(frozen=True)
class Copy:
    """Where a copy's files lie ("{}" is a frame's id), what opens it, and what is said once it is damaged."""

    name: str
    photo: str
    label: str
    coding: str
    ids: tuple[str, ...]
    split: str = "val"
    # this folder is taken away, and this is said ({} is the root)
    lost: str = ""
    said: str = ""
    # this value is written into the first label
    foreign: int = 3
    # which is said to look like
    like: str = "it looks like train_ids: Cityscapes train ids 0..18, 255 void"

    def __str__(self) -> str:
        return f"{self.name}-{self.coding}-{self.split}"


def laf(part: str) -> str:
    return f"leftImg8bit/{part}/01_Hanns_Klemm_Str_45/{{}}_leftImg8bit.png"


def laf_label(part: str, kind: str = "labelIds") -> str:
    return f"gtCoarse/{part}/01_Hanns_Klemm_Str_45/{{}}_gtCoarse_{kind}.png"


LAF_IDS = ("01_Hanns_Klemm_Str_45_000000_000080", "01_Hanns_Klemm_Str_45_000001_000060")
PAIRS = "neither images/ nor labels_masks/ in ROOT or, in it,"
LAF_IDS_LIKE = "it looks like lost_and_found_ids: 0 void, 1 road: inlier, 2..200 obstacle: anomaly, 201..255 void"
CITYSCAPES_LIKE = "it looks like cityscapes_ids: Cityscapes label ids 0..33 (19 of them classes, the rest void)"
VISTAS_LIKE = "it looks like vistas_ids: Mapillary Vistas 1.2 ids 0..65 (what no Cityscapes class covers is void)"
NOTHING_LEFT = "found nothing: it is empty"
COPIES = (
    Copy(
        "anomaly-track", "dataset_AnomalyTrack/images/{}.jpg",
        "dataset_AnomalyTrack/labels_masks/{}_labels_semantic.png",
        "anomaly", ("validation0000", "validation0001"), lost="dataset_AnomalyTrack",
        said=f"anomaly-track: {PAIRS} dataset_AnomalyTrack or RoadAnomaly21; {NOTHING_LEFT}", foreign=2,
        like="it holds 2 and never 1: RoadAnomaly's coding (road_anomaly)",
    ),
    Copy(
        "obstacle-track", "RoadObsticle21/images/{}.webp", "RoadObsticle21/labels_masks/{}.png",
        "anomaly", ("0", "1"), lost="RoadObsticle21/images",
        said="frame 0 of obstacle-track has no photo (looked beside ROOT)",
    ),
    Copy(
        "lost-and-found", laf("test"), laf_label("test"), "lost_and_found_ids", LAF_IDS, lost="gtCoarse",
        said="lost-and-found: no label ROOT/gtCoarse/test/*/*_gtCoarse_labelIds.* or "
        "ROOT/gtCoarse/test/*/*_gtCoarse_labelTrainIds.*; found in ROOT: leftImg8bit/",
    ),
    Copy(
        "lost-and-found", laf("train"), laf_label("train", "labelTrainIds"), "lost_and_found_train_ids", LAF_IDS,
        "train", lost="leftImg8bit/train",
        said="lost-and-found: no photo ROOT/leftImg8bit/train/*/*_leftImg8bit.*; found in ROOT/leftImg8bit: "
        "nothing: it is empty",
    ),
    Copy(
        "fishyscapes-lost-and-found", "dataset_LostAndFound/" + laf("train"),
        "dataset_FishyLAF/labels/val/{}_fishy-labels.png", "anomaly", LAF_IDS, lost="dataset_FishyLAF",
        said=f"fishyscapes-lost-and-found: {PAIRS} dataset_FishyLAF or FS_LostFound_full or FS_LostAndFound; "
        "found dataset_LostAndFound/",
    ),
    Copy(
        "fishyscapes-static", "fs_static/images/{}.jpg", "fs_static/labels_masks/{}.png", "anomaly", ("0", "1"),
        lost="fs_static/labels_masks", said="fishyscapes-static at ROOT has no labelled frame",
    ),
    Copy(
        "road-anomaly", "frames/{}.jpg", "frames/{}.labels/labels_semantic.png", "road_anomaly",
        ("animals01", "zebra02"), lost="frames",
        said="road-anomaly: neither frames/ nor images/ in ROOT or, in it, RoadAnomaly or RoadAnomaly_jpg or "
        f"dataset_RoadAnomaly or road_anomaly; {NOTHING_LEFT}",
    ),
    Copy(
        "street-hazards", "test/images/test/t5/{}.png", "test/annotations/test/t5/{}.png", "street_hazards", ("1", "2"),
        lost="test/annotations",
        said="street-hazards: no label ROOT/test/annotations/test/*/*.*; found in ROOT/test: images/",
        foreign=15,
    ),
    Copy(
        "small-obstacle", "test/stadium_3/image/{}.png", "test/stadium_3/labels/{}.png", "small_obstacle",
        ("stadium_3_10", "stadium_3_11"), "test", lost="test/stadium_3/labels",
        said="small-obstacle: no label ROOT/test/*/labels/*.*; found in ROOT/test/stadium_3: image/",
        foreign=255, like="it looks like anomaly: 0 inlier, 1 anomaly, 255 void",
    ),
    Copy(
        "sos", "street_obstacle_sequences/raw_data/sequence_001/{}_raw_data.jpg",
        "street_obstacle_sequences/semantic_ood/sequence_001/{}_semantic_ood.png", "sos", ("000000", "000008"),
        lost="street_obstacle_sequences/semantic_ood",
        said="sos: no label ROOT/street_obstacle_sequences/semantic_ood/*/*_semantic_ood.*; found in "
        "ROOT/street_obstacle_sequences: raw_data/",
        foreign=1, like="it looks like anomaly: 0 inlier, 1 anomaly, 255 void",
    ),
    Copy(
        "bdd-anomaly", "bdd100k/seg/images/val/{}.jpg", "bdd100k/seg/labels/val/{}_train_id.png", "bdd_anomaly",
        ("7d06fefd-f7be05a6", "7d128593-0ccfea4c"), lost="bdd100k/seg/labels",
        said="bdd-anomaly: no label ROOT/bdd100k/seg/labels/val/*_train_id.* or "
        "ROOT/bdd100k/seg/train_labels/val/*_train_id.*; found in ROOT/bdd100k/seg: images/",
        foreign=20, like=CITYSCAPES_LIKE,
    ),
    Copy(
        "issu", "dataset_ISSUTrack/images/{}.png", "dataset_ISSUTrack/labels_masks/{}.png", "issu",
        ("static_0_009599", "temporal_99_520"), lost="dataset_ISSUTrack",
        said=f"issu: {PAIRS} dataset_ISSUTrack; {NOTHING_LEFT}", foreign=19, like=CITYSCAPES_LIKE,
    ),
    Copy(
        "issu-obstacle", "dataset_ISSUTrack/images/{}.png", "dataset_ISSUTrack/labels_masks/{}.png", "issu_road",
        ("static_fog_1", "static_rain_2"), "static-low-light", lost="dataset_ISSUTrack",
        said=f"issu-obstacle: {PAIRS} dataset_ISSUTrack; {NOTHING_LEFT}", foreign=19, like=CITYSCAPES_LIKE,
    ),
    Copy(
        "bravo", "bravo_SMIYC/RoadAnomaly21/images/{}.jpg", "bravo_SMIYC/RoadAnomaly21/images/{}_labels_semantic.png",
        "anomaly", ("airplane0000", "zebra0001"), lost="bravo_SMIYC",
        said="bravo: neither bravo_ACDC/ nor bravo_SMIYC/ in ROOT or, in it, bravo or BRAVO; "
        "found nothing: it is empty",
    ),
    Copy(
        "acdc", "rgb_anon/fog/val/GOPR0475/{}_rgb_anon.png", "gt/fog/val/GOPR0475/{}_gt_labelTrainIds.png", "train_ids",
        ("GOPR0475_frame_000247", "GOPR0475_frame_000248"), lost="rgb_anon/fog",
        said="acdc: none of fog, night, rain, snow in ROOT/rgb_anon; found nothing: it is empty",
        foreign=20, like=CITYSCAPES_LIKE,
    ),
    Copy(
        "cityscapes", "leftImg8bit/val/lindau/{}_leftImg8bit.png", "gtFine/val/lindau/{}_gtFine_labelTrainIds.png",
        "train_ids", ("lindau_000000_000019", "lindau_000001_000019"), lost="leftImg8bit",
        said="cityscapes: no leftImg8bit/ in ROOT or, in it, cityscapes or Cityscapes; found gtFine/",
        foreign=33, like=CITYSCAPES_LIKE,
    ),
    Copy(
        "cityscapes", "leftImg8bit/train/ulm/{}_leftImg8bit.png", "gtFine/train/ulm/{}_gtFine_labelIds.png",
        "cityscapes_ids", ("ulm_000000_000019",), "train", foreign=40,
        like=VISTAS_LIKE,
    ),
    Copy(
        "vistas", "validation/images/{}.jpg", "validation/v1.2/labels/{}.png", "vistas_ids",
        ("-0C1J9CvgFP4BTVLXNeNZA",), lost="validation/v1.2",
        said="vistas: no label ROOT/validation/v1.2/labels/*.* or ROOT/validation/labels/*.*; found in "
        "ROOT/validation: images/",
        foreign=66, like=LAF_IDS_LIKE,
    ),
    Copy(
        "idd", "leftImg8bit/val/119/{}_leftImg8bit.jpg", "gtFine/val/119/{}_gtFine_labelids.png", "idd_ids",
        ("903127", "917274"), lost="gtFine",
        said="idd: no label ROOT/gtFine/val/*/*_gtFine_labelcsTrainIds.* or ..._labelids.png; found in ROOT: "
        "leftImg8bit/. They are made from the polygons by AutoNUE/public-code, preperation/createLabels.py --id-type "
        "csTrainId (or id)",
        foreign=40,
        like=VISTAS_LIKE,
    ),
    Copy(
        "camvid", "images/{}.png", "labels/{}_P.png", "camvid_numbers", ("0001TP_006690", "Seq05VD_f05100"),
        lost="labels",
        said="camvid: neither 701_StillsRaw_full/ nor trainannot/ in ROOT or, in it, CamVid or camvid; found images/",
        foreign=32, like=CITYSCAPES_LIKE,
    ),
    Copy(
        "camvid", "CamVid/test/{}.png", "CamVid/testannot/{}.png", "camvid_segnet", ("0001TP_008550",), "test",
        foreign=12,
    ),
    Copy(
        "folder", "images/{}.jpg", "labels_masks/{}.png", "anomaly", ("a", "b"), lost="images",
        said="frame a of folder has no photo (looked beside ROOT)",
    ),
    Copy(
        "synthetic", "dataset_AnomalyTrack/images/{}.jpg", "dataset_AnomalyTrack/labels_masks/{}_labels_semantic.png",
        "anomaly", ("validation0000",), lost="dataset_AnomalyTrack",
        said=f"synthetic: {PAIRS} dataset_AnomalyTrack; {NOTHING_LEFT}",
    ),
)  # fmt: skip
