"""Label maps: classes of one's own, from numbers and from colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.places import ROOT
from xenomask.datasets.codings import CAMVID, CODINGS
from xenomask.datasets.labelmap import read_label_map
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.models import load
from xenomask.train import TrainConfig, train
from xenomask.train.config import Augment, Data, Optim
from xenomask.train.loop import _open, validate
from xenomask.types import CITYSCAPES_CLASSES, VOID

SHIPPED = ROOT / "configs" / "labels"
# three classes of one's own for what is drawn: train ids of Cityscapes -> class
GROUPS = {"ground": (0, 1, 9), "thing": (2, 3, 4, 5, 8, 13), "sky": (10,)}
IDS = """
classes = ["ground", "thing", "sky"]
{other}
[ids]
100 = "ground"
101 = "ground"
109 = "ground"
102 = "thing"
103 = "thing"
104 = "thing"
105 = "thing"
108 = "thing"
113 = "thing"
110 = "sky"
"""


@pytest.fixture
def scenes(tmp_path) -> Path:
    return write_scenes(tmp_path / "scenes", "train-ids", 3, size=(64, 96))


def expected(train_ids: np.ndarray) -> np.ndarray:
    """Slowly, pixel by pixel."""
    out = np.full(train_ids.shape, VOID, np.uint8)
    for at in np.ndindex(out.shape):
        for i, members in enumerate(GROUPS.values()):
            if train_ids[at] in members:
                out[at] = i
    return out


def recoloured(root: Path, kind: str) -> list[np.ndarray]:
    """Rewrites the labels: numbers above 100, or a colour a class; returns what the map should make of each."""
    want = []
    rng = np.random.default_rng(0)
    colours = rng.permutation(256**3)[:256]  # a different one for each number
    for path in sorted((root / "labels").iterdir()):
        stored = np.array(Image.open(path))
        want.append(expected(stored))
        if kind == "numbers":
            Image.fromarray(np.where(stored == VOID, 7, stored + 100).astype(np.uint8)).save(path)
            continue
        rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8)[stored]
        image = Image.fromarray(rgb)
        (image if kind == "colours" else image.quantize(256)).save(path)
    if kind != "numbers":
        lines = [f'"{c >> 16}, {c >> 8 & 255},{c & 255}" = "{name}"'
                 for name, members in GROUPS.items() for c in colours[list(members)]]  # fmt: skip
        (root / "map.toml").write_text('classes = ["ground", "thing", "sky"]\n[colours]\n' + "\n".join(lines))
    else:
        (root / "map.toml").write_text(IDS.format(other=""))
    return want


def recipe(root: Path, work_dir: Path, **changes) -> TrainConfig:
    config = TrainConfig(
        preset="tiny", work_dir=work_dir, save_every=2, val_every=2, threads=1,
        data=Data(dataset="folder", labels=root / "map.toml", train=root, val=root, val_frames=2),
        augment=Augment(short_edge=(48, 64), crop=(32, 64)), optim=Optim(iterations=2, batch=2, warmup=1),
    )  # fmt: skip
    return config.model_copy(update=changes)


@pytest.mark.parametrize("kind", ["numbers", "colours", "palette"])
def test_label_map__recoloured_scenes_say_the_same(scenes, tmp_path, kind):
    want = recoloured(scenes, kind)
    data = _open(recipe(scenes, tmp_path / "w"), scenes, "train")
    assert data is not None and data.classes == ("ground", "thing", "sky")
    for frame, label in zip(data.frames, want, strict=True):
        assert np.array_equal(data.label(frame), label)
        assert len(np.unique(label)) == 4


@pytest.mark.slow
def test_train__on_classes_of_its_own(scenes, tmp_path):
    recoloured(scenes, "numbers")
    config = recipe(scenes, tmp_path / "w")
    folder = train(config)
    network = load(folder)
    assert network.config.id2label == {0: "ground", 1: "thing", 2: "sky"}  # pyright: ignore
    assert network.module.state_dict()["class_predictor.weight"].shape[0] == 4
    assert network.facts["trained"]["data"]["labels"] == str(scenes / "map.toml")
    # gone on with, it is the same run; with other classes it is refused, also where their number is the same
    longer = config.model_copy(update={"optim": Optim(iterations=4, batch=2, warmup=1)})
    text = (scenes / "map.toml").read_text()
    for changed, message in (
        (text.replace("sky", "air"), "iter_2 knows 3 classes, this run 3: class 2 is 'sky' there and 'air' here"),
        (text.replace('"sky"]', '"sky", "more"]'), "iter_2 knows 3 classes, this run 4: class 3 is none .* 'more'"),
    ):
        (scenes / "map.toml").write_text(changed)
        with pytest.raises(XenomaskError, match=message + ".*choose another work_dir"):
            train(longer)
    (scenes / "map.toml").write_text(text)
    assert train(longer).name == "iter_4"


def test_validate__another_networks_classes_are_refused(scenes, tmp_path, tiny_checkpoint):
    recoloured(scenes, "numbers")
    data = _open(recipe(scenes, tmp_path / "w"), scenes, "val")
    assert data is not None
    with pytest.raises(XenomaskError, match="the network knows 19 classes, folder 3: class 0 is 'road' there and"):
        validate(load(tiny_checkpoint), data)


def test_label_map__what_it_lacks_is_void_or_an_error_with_file_and_values(scenes, tmp_path):
    recoloured(scenes, "numbers")
    config = recipe(scenes, tmp_path / "w")
    (scenes / "map.toml").write_text(IDS.format(other='other = "error"'))
    data = _open(config, scenes, "train")
    assert data is not None
    with pytest.raises(
        XenomaskError, match=r"0000.png holds the values \[7, 107, 111\], which .*map.toml has not.*lis"
    ):
        data.label(data.frames[0])
    # a value may be said to be void
    void = "".join(f'{i} = "void"\n' for i in (7, 106, 107, 111))
    (scenes / "map.toml").write_text(IDS.format(other='other = "error"') + void)
    data = _open(config, scenes, "train")
    assert data is not None and VOID in data.label(data.frames[0])
    # sixteen bits hold more than any map
    Image.fromarray(np.full((64, 96), 300, np.uint16)).save(scenes / "labels/0000.png")
    with pytest.raises(XenomaskError, match=r"0000.png holds the values \[300\]"):
        data.label(data.frames[0])
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(scenes / "labels/0000.png")
    with pytest.raises(XenomaskError, match="has colour mode RGB; .*map.toml needs one channel of class numbers"):
        data.label(data.frames[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('classes = ["a", "b", "a"]\n[ids]\n1 = "a"', "class 'a' is named twice"),
        ('classes = ["road", "car"]\n[ids]\n1 = "raod"', r"unknown class of 1 'raod'; did you mean 'road'\?"),
        ('classes = ["a"]\n[ids]\n256 = "a"', r"value '256' in \[ids\] is no whole number of 0..255"),
        ('classes = ["a"]\n[ids]\n-1 = "a"', r"value '-1' in \[ids\]"),
        ('classes = ["a"]\n[ids]\nx = "a"', r"value 'x' in \[ids\]"),
        ('classes = ["a"]\n[ids]\n7 = "a"\n07 = "a"', r"07 is listed twice in \[ids\]"),
        ('classes = ["a"]\n[ids]\n7 = "a"\n7 = "a"', "is not valid TOML"),
        ('classes = ["a"]\n[ids]\n7 = 3', "unknown class of 7 '3'"),
        ('classes = ["a"]\n[ids]\n7 = ["a"]', r"unknown class of 7"),
        ('classes = ["a"]\n[colours]\n"1,2" = "a"', """colour '1,2' in .colours. is not "red,green,blue\""""),
        ('classes = ["a"]\n[colours]\n"1,2,256" = "a"', "colour '1,2,256'"),
        ('classes = ["a"]\n[colours]\n"1,2,3" = "a"\n"1, 2, 3" = "a"', "is listed twice"),
        ('classes = ["a"]\n[ids]\n1 = "a"\n[colours]\n"1,2,3" = "a"', r"needs either \[ids\] or \[colours\], and not"),
        ('classes = ["a"]', r"needs either \[ids\] or \[colours\]"),
        ('classes = ["a"]\nids = 3', r"\[ids\] is no table such as 7 = \"a\""),
        ('classes = ["a"]\n[ids]', r"\[ids\] is no table"),
        ('classes = []\n[ids]\n1 = "a"', "classes must be a list of 1 to 254 names"),
        ('[ids]\n1 = "a"', "classes must be a list"),
        ('classes = ["a", 2]\n[ids]\n1 = "a"', "classes must be a list"),
        ('classes = ["a", "void"]\n[ids]\n1 = "a"', "'void' stands for no class"),
        ('classes = ["a", "outlier"]\n[ids]\n1 = "a"', "'outlier' stands for no class"),
        ('classes = ["a"]\nother = "eror"\n[ids]\n1 = "a"', "other = 'eror' is neither"),
        ('classes = ["a"]\ncolors = "a"\n[ids]\n1 = "a"', r"unknown key 'colors'; did you mean 'colours'\?"),
        ("classes = ", "is not valid TOML"),
    ],
)
def test_read_label_map__each_mistake_is_named(tmp_path, text, message):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(XenomaskError, match=f"label map .*m.toml.*{message}") as e:
        read_label_map(path)
    assert "\n" not in str(e.value)


def test_read_label_map__no_file(tmp_path):
    with pytest.raises(XenomaskError, match="cannot read label map .*nowhere.toml: No such file"):
        read_label_map(tmp_path / "nowhere.toml")


def test_shipped__vistas_is_the_table_that_the_data_set_is_read_by():
    found = read_label_map(SHIPPED / "vistas.toml")
    assert found.classes == CITYSCAPES_CLASSES
    table = CODINGS["vistas_ids"].table
    assert {i: found.coding.table.get(i, found.coding.other_numbers) for i in table} == dict(table)


def test_shipped__camvid_groups_every_colour():
    found = read_label_map(SHIPPED / "camvid.toml")
    assert len(found.classes) == 11 and set(found.coding.colours) == {colour for _, colour, _ in CAMVID}
    assert found.coding.other_colours is None
    # SegNet's copy calls them so, in this order, where Cityscapes has a like
    like = {"road": "road", "sidewalk": "pavement", "building": "building", "pole": "pole", "sky": "sky",
            "vegetation": "tree", "traffic sign": "sign symbol", "traffic light": "sign symbol", "fence": "fence",
            "car": "car", "person": "pedestrian", "train": "car", "wall": "building"}  # fmt: skip
    for name, colour, cityscapes in CAMVID:
        if cityscapes and name not in ("LaneMkgsDriv",):
            assert found.classes[found.coding.colours[colour]] == like[cityscapes], name


def test_shipped__idd_level3_has_every_value_once():
    found = read_label_map(SHIPPED / "idd_level3.toml")
    assert len(found.classes) == 26
    assert dict(found.coding.table) == {**{i: i for i in range(26)}, VOID: VOID}
