"""What is particular to one data set: sub-splits, second formats, ambiguity, packs; and the command that checks."""

import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from xenomask.cli.common import out_console
from xenomask.cli.datasets import app
from xenomask.datasets import CODINGS, open_dataset, read_label
from xenomask.datasets.check import check, check_all, find
from xenomask.datasets.read import decode
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import clips_of

PHOTO = np.full((2, 3, 3), 99, np.uint8)
ANOMALY = np.array([[0, 1, 255]] * 2, np.uint8)


def save(path: Path, array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def write_pair(
    base: Path, i: str, label: Any = ANOMALY, photo: str = "images/{}.png", kind: str = "labels_masks/{}.png"
) -> None:
    save(base / photo.format(i), PHOTO)
    save(base / kind.format(i), label)


def ids(name: str, root: Path, split: str = "val") -> list[str]:
    return [f.id for f in open_dataset(name, root, split=split).frames]


def write_pack(root: Path) -> Path:
    """The five sets that lie side by side in a `Validation_Dataset`, two frames each, with its names and codings."""
    for name, ending in (
        ("RoadAnomaly21", "png"), ("RoadObsticle21", "webp"), ("FS_LostFound_full", "png"), ("fs_static", "jpg"),
        ("RoadAnomaly", "jpg"),
    ):  # fmt: skip
        for i in "01":
            label = [[0, 2, 0]] * 2 if name == "RoadAnomaly" else ANOMALY
            write_pair(root / name, i, label, f"images/{{}}.{ending}")
    return root


PACK = ["anomaly-track", "fishyscapes-lost-and-found", "fishyscapes-static", "obstacle-track", "road-anomaly"]


def test_obstacle_track__sub_splits_follow_the_scene(tmp_path):
    scenes = ("validation_1", "snowstorm1_00_03_05.185", "snowstorm2_00_02_32.753", "driveway_7", "gravel_bag_3")
    for i in scenes:
        save(tmp_path / f"dataset_ObstacleTrack/images/{i}.webp", PHOTO)
    save(tmp_path / "dataset_ObstacleTrack/labels_masks/validation_1_labels_semantic.png", ANOMALY)
    assert ids("obstacle-track", tmp_path) == sorted(scenes)
    assert ids("obstacle-track", tmp_path, "snowstorm") == list(scenes[1:3])
    assert ids("obstacle-track", tmp_path, "night") == ["driveway_7"]
    assert ids("obstacle-track", tmp_path, "test") == ["gravel_bag_3"]
    assert ids("obstacle-track", tmp_path, "validation") == ["validation_1"]
    assert [f.id for f in open_dataset("obstacle-track", tmp_path).labelled().frames] == ["validation_1"]
    for i in (2, 19, 20, 21, 29, 30, 40):
        save(tmp_path / f"dataset_ObstacleTrack/images/validation_{i}.webp", PHOTO)
    kept = ["validation_1", "validation_2", "validation_20", "validation_30", "validation_40"]
    assert ids("obstacle-track", tmp_path, "validation-listed") == kept
    assert len(ids("obstacle-track", tmp_path, "validation")) == 8
    with pytest.raises(XenomaskError, match="unknown split of obstacle-track 'nigth'; did you mean 'night'"):
        open_dataset("obstacle-track", tmp_path, split="nigth")


def test_anomaly_track__without_frames_of_a_split(tmp_path):
    write_pair(tmp_path, "validation0000")
    assert ids("anomaly-track", tmp_path, "validation") == ["validation0000"]
    with pytest.raises(XenomaskError, match="no frame of split test in .*; its splits: all, validation, test"):
        open_dataset("anomaly-track", tmp_path, split="test")


LAF = ("leftImg8bit/test/s/{}_leftImg8bit.png", "gtCoarse/test/s/{}_gtCoarse_labelIds.png")


def test_lost_and_found__no_known_leaves_out_children_bicycles_and_what_has_no_label(tmp_path):
    known = ("15_Rechbergstr_Deckenpfronn_000001_000100", "10_Schlossberg_9_000004_000010")
    for i in (*known, "02_Hanns_Klemm_Str_44_000000_000020", "02_Hanns_Klemm_Str_44_000001_000020"):
        write_pair(tmp_path, i, np.zeros((2, 3)) if "000001_000020" in i else [[0, 1, 2]] * 2, *LAF)
    assert len(ids("lost-and-found", tmp_path, "test")) == 4
    assert ids("lost-and-found", tmp_path, "testValid") == sorted((*known, "02_Hanns_Klemm_Str_44_000000_000020"))
    assert ids("lost-and-found", tmp_path) == ["02_Hanns_Klemm_Str_44_000000_000020"]


def test_lost_and_found__of_the_whole_test_split_the_official_list_decides(tmp_path, monkeypatch):
    from xenomask.datasets import lostandfound
    from xenomask.datasets.layout import Frame

    frames = tuple(Frame(f"{i:04d}", None, tmp_path / "never_read.png") for i in range(1203))
    monkeypatch.setattr(lostandfound, "trees", lambda *a, **k: (frames, 0))
    (tmp_path / "gtCoarse").mkdir()
    valid = ids("lost-and-found", tmp_path, "testValid")
    assert len(valid) == 1186 and not {"0017", "0793"} & set(valid)


@pytest.mark.parametrize("label", ["labels/val/{}_fishy-labels.png", "fishyscapes_lostandfound/0007_{}_labels.png"])
def test_fishyscapes_lost_and_found__takes_the_photos_from_lost_and_found(tmp_path, label):
    name, other = "04_Maurener_Weg_8_000000_000030", "04_Maurener_Weg_8_000001_000030"
    save(tmp_path / label.format(name), ANOMALY)
    assert [(f.id, f.image) for f in open_dataset("fishyscapes-lost-and-found", tmp_path).frames] == [(name, None)]
    for i in (name, other):
        save(tmp_path / f"leftImg8bit/train/04_Maurener_Weg_8/{i}_leftImg8bit.png", PHOTO)
    data = open_dataset("fishyscapes-lost-and-found", tmp_path)
    assert data.sample(data.frames[0]).label is not None and len(data.frames) == 1
    save(tmp_path / label.format("13_Elly_Beinhorn_Str_000000_000050"), ANOMALY)
    with pytest.raises(XenomaskError, match="1 of 2 labels have no photo .*, the first is 13_Elly.*both its train and"):
        open_dataset("fishyscapes-lost-and-found", tmp_path)


def test_road_anomaly__copies_with_1_are_read_and_both_are_refused(tmp_path):
    write_pair(tmp_path / "RoadAnomaly", "0", [[0, 1, 0]] * 2)
    data = open_dataset("road-anomaly", tmp_path)
    assert data.stored == "anomaly" and data.label(data.frames[0]).tolist() == [[0, 1, 0]] * 2
    write_pair(tmp_path / "RoadAnomaly", "1", [[0, 2, 0]] * 2)
    with pytest.raises(XenomaskError, match="0.png holds 1 and .*1.png holds 2: ambiguous, for 1 is the road"):
        open_dataset("road-anomaly", tmp_path)
    write_pair(tmp_path / "RoadAnomaly", "0", [[0, 1, 2]] * 2)
    with pytest.raises(XenomaskError, match="0.png holds 1 and 2: ambiguous"):
        open_dataset("road-anomaly", tmp_path)


def test_renamed_copies__have_lost_their_splits(tmp_path):
    write_pair(tmp_path / "RoadObsticle21", "0")
    with pytest.raises(XenomaskError, match="only official names say what is of split validation; take split all"):
        open_dataset("obstacle-track", tmp_path, split="validation")


def test_lost_and_found__label_values_beyond_8_bits(tmp_path):
    path = tmp_path / "l.png"
    Image.fromarray(np.array([[1, 300]], np.uint16)).save(path)
    with pytest.raises(XenomaskError, match=r"holds the values \[300\], .*; no coding known here has such values"):
        read_label(path, "lost_and_found_ids")


def test_small_obstacle__labels_that_are_colours(tmp_path):
    path = save(tmp_path / "l.png", [[[128, 0, 0], [0, 0, 0], [0, 7, 200]]])
    assert read_label(path, "small_obstacle").tolist() == [[0, 255, 1]]


@pytest.mark.parametrize("coding", CODINGS.values(), ids=lambda c: c.name)
def test_decode__equals_a_look_up_pixel_by_pixel(coding):
    rng = np.random.default_rng(0)
    for table in (coding.table, coding.colours):
        if table:
            stored = np.array([list(table)[i] for i in rng.integers(0, len(table), 35)], np.uint8)
            says = [table[v if isinstance(v, int) else tuple(v)] for v in stored.tolist()]
            label = decode(stored.reshape(5, 7, *stored.shape[1:]), coding, Path("label.png"))
            assert label.tolist() == np.array(says).reshape(5, 7).tolist()


def test_read_label__palettes_are_numbers_or_colours_but_never_guessed(tmp_path):
    path = tmp_path / "l.png"
    image = Image.fromarray(np.array([[1, 2, 0]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 64, 0, 128, 128, 64, 128])
    image.save(path)
    assert read_label(path, "train_ids").tolist() == [[1, 2, 0]]
    assert read_label(path, "camvid").tolist() == [[13, 0, 255]]
    with pytest.raises(XenomaskError, match="has a palette: save it as RGB colours or"):
        read_label(path, "small_obstacle")
    with pytest.raises(XenomaskError, match="has colour mode L; camvid needs RGB colours"):
        read_label(save(path, [[1, 2, 0]]), "camvid")


def test_street_hazards__the_root_may_be_the_unpacked_tar_or_what_is_in_it(tmp_path):
    photo, label = "test/images/test/t5/{}.png", "test/annotations/test/t5/{}.png"
    write_pair(tmp_path / "streethazards_test", "7", [[1, 7, 14]] * 2, photo, label)
    for root in (tmp_path, tmp_path / "streethazards_test", tmp_path / "streethazards_test/test"):
        assert ids("street-hazards", root) == ["t5_7"]


def test_camvid__labels_that_are_colours(tmp_path):
    car, road, void = [64, 0, 128], [128, 64, 128], [0, 0, 0]
    save(tmp_path / "701_StillsRaw_full/0001TP_006690.png", PHOTO)
    label = save(tmp_path / "LabeledApproved_full/0001TP_006690_L.png", [[car, road, void]] * 2)
    data = open_dataset("camvid", tmp_path)
    assert data.label(data.frames[0]).tolist() == [[13, 0, 255]] * 2
    save(label, [[car, road, [1, 2, 3]]] * 2)
    with pytest.raises(XenomaskError, match=r"holds the values \[\(1, 2, 3\)\], .*; no such colour is known"):
        data.label(data.frames[0])
    with pytest.raises(XenomaskError, match="no folders train/ and trainannot/ .*; found 701_StillsRaw_full/, Labeled"):
        open_dataset("camvid", tmp_path, split="train")


def test_bdd_anomaly__its_test_set_is_every_frame_with_an_anomaly(tmp_path):
    for part, i, klass in (("train", "a", 17), ("train", "b", 13), ("val", "c", 18), ("val", "d", 0)):
        kind = f"seg/labels/{part}/{{}}_train_id.png"
        write_pair(tmp_path, i, [[0, klass, 255]] * 2, f"seg/images/{part}/{{}}.jpg", kind)
    assert ids("bdd-anomaly", tmp_path, "anomalous") == ["a", "c"]
    assert ids("bdd-anomaly", tmp_path, "all") == list("abcd")
    write_pair(tmp_path / "new", "e", [[0, 16, 255]] * 2, "images/10k/val/{}.jpg", "labels/sem_seg/masks/val/{}.png")
    assert ids("bdd-anomaly", tmp_path / "new") == ["e"]


def test_acdc__conditions_are_sub_splits_and_label_ids_do(tmp_path):
    for where, i, kind in (("fog", "A_1", "labelIds"), ("snow", "B_1", "labelIds")):
        photo, label = f"rgb_anon/{where}/train/A/{{}}_rgb_anon.png", f"gt/{where}/train/A/{{}}_gt_{kind}.png"
        write_pair(tmp_path, i, [[7, 26, 0]] * 2, photo, label)
    data = open_dataset("acdc", tmp_path, split="train")
    assert [f.id for f in data.frames] == ["A_1", "B_1"] and data.coding == "train_ids"
    assert data.label(data.frames[0]).tolist() == [[0, 13, 255]] * 2
    assert ids("acdc", tmp_path, "train-snow") == ["B_1"]
    with pytest.raises(
        XenomaskError, match=r"acdc: no photo .*rgb_anon/fog/val/\*/\*_rgb_anon.\*; found in .*fog: train/"
    ):
        open_dataset("acdc", tmp_path)


def test_sos__every_frame_is_a_photo_and_few_have_labels(tmp_path):
    kinds = ("raw_data/sequence_002/{}_raw_data.jpg", "semantic_ood/sequence_002/{}_semantic_ood.png")
    write_pair(tmp_path, "000008", [[0, 254, 255]] * 2, *kinds)
    save(tmp_path / kinds[0].format("000009"), PHOTO)
    data = open_dataset("sos", tmp_path)
    assert data.label(data.frames[0]).tolist() == [[0, 1, 255]] * 2
    assert [f.id for f in data.frames] == ["sequence_002_000008"]
    assert clips_of(ids("sos", tmp_path, "all")) == [["sequence_002_000008", "sequence_002_000009"]]


def test_bravo__photos_alone(tmp_path):
    save(tmp_path / "bravo_synobjs/armchair/1.png", PHOTO)
    save(tmp_path / "bravo_synrain/lindau/lindau_000000_000019_leftImg8bit.png", PHOTO)
    assert ids("bravo", tmp_path, "synobjs") == ["armchair_1"]
    assert ids("bravo", tmp_path, "synrain") == ["lindau_000000_000019"]
    with pytest.raises(XenomaskError, match="has no labelled frame"):
        open_dataset("bravo", tmp_path, split="synrain").labelled()


def test_cityscapes_and_idd__are_told_apart_by_their_labels(tmp_path):
    for i in ("1", "2"):  # IDD's frame numbers repeat from drive to drive
        photo, label = f"leftImg8bit/val/{i}/f_leftImg8bit.png", f"gtFine/val/{i}/f_gtFine_labelcsTrainIds.png"
        write_pair(tmp_path, i, [[0, 13, 255]] * 2, photo, label)
    assert ids("idd", tmp_path) == ["1_f", "2_f"]
    assert [e.name for e, _ in find(tmp_path)] == ["idd"]
    (tmp_path / "leftImg8bit/val/2/f_leftImg8bit.png").unlink()
    with pytest.raises(
        XenomaskError, match=r"cityscapes: no label .*labelTrainIds.\*; found .*\(IDD's labels: data set idd\)"
    ):
        (tmp_path / "gtFine/val/2/f_gtFine_labelcsTrainIds.png").unlink()
        open_dataset("cityscapes", tmp_path)


def test_vistas__of_version_2_alone_is_not_read(tmp_path):
    write_pair(tmp_path, "a", [[0, 1, 2]] * 2, "validation/images/{}.jpg", "validation/v2.0/labels/{}.png")
    with pytest.raises(XenomaskError, match="vistas: no folder .*v1.2: the 124 classes of v2.0/ are not read"):
        open_dataset("vistas", tmp_path)


def test_folder__may_hold_any_known_coding_and_others_only_their_own(tmp_path):
    write_pair(tmp_path, "a", [[1, 2, 0]] * 2)
    data = open_dataset("folder", tmp_path, coding="lost_and_found_ids")
    assert data.coding == "anomaly" and data.label(data.frames[0]).tolist() == [[0, 1, 255]] * 2
    with pytest.raises(XenomaskError, match="anomaly-track's labels say anomaly .*, not train_ids"):
        open_dataset("anomaly-track", tmp_path, split="train", coding="train_ids")
    with pytest.raises(XenomaskError, match="unknown coding 'anomly'; did you mean 'anomaly'"):
        open_dataset("folder", tmp_path, coding="anomly")


def test_wrong_root__says_which_folder_would_do(tmp_path):
    write_pair(tmp_path / "data/fs_static", "0")
    pack = tmp_path.resolve() / "data"
    for root, right in ((tmp_path, tmp_path / "data"), (pack / "fs_static/images", pack / "fs_static")):
        with pytest.raises(XenomaskError, match=f"; it looks as if {re.escape(str(right))} were the root$"):
            open_dataset("fishyscapes-static", root)
    with pytest.raises(XenomaskError, match=f"; it looks as if {re.escape(str(tmp_path / 'data'))} were the root"):
        check_all(tmp_path)


def test_hidden_files__are_no_frames(tmp_path):
    write_pair(tmp_path, "0")
    for name in ("images/._0.png", "labels_masks/._0.png"):
        (tmp_path / name).write_bytes(b"Mac OS X")
    assert ids("folder", tmp_path) == ["0"]


def test_empty_folders__are_named(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(XenomaskError, match="no frame in .*: images/ holds nothing: it is empty"):
        open_dataset("folder", tmp_path)
    (tmp_path / "images/readme.txt").touch()
    with pytest.raises(XenomaskError, match="images/ holds readme.txt"):
        open_dataset("folder", tmp_path)


def test_pack__its_five_sets_are_found_and_read(tmp_path):
    found = check_all(write_pack(tmp_path))
    assert sorted(f.name for f in found) == PACK
    assert all((f.frames, f.labelled, f.anomalous, f.problems) == (2, 2, 2, ()) for f in found)
    assert {f.name: list(f.values) for f in found}["road-anomaly"] == ["0", "2"]
    for name, folder in (("road-anomaly", "RoadAnomaly"), ("anomaly-track", "RoadAnomaly21")):
        assert [e.name for e, _ in find(tmp_path / folder)] == [name]  # the set's own folder will do as well


def test_check__collects_what_is_wrong_with_single_files(tmp_path):
    root = write_pack(tmp_path) / "fs_static"
    save(root / "images/2.jpg", PHOTO)
    save(root / "labels_masks/1.png", ANOMALY[:1])
    found = check("fishyscapes-static", root)
    assert (found.frames, found.labelled, found.labels_read) == (3, 2, 1)
    assert found.notes == ("3 frames, officially 30", "1 photos without label")
    assert len(found.problems) == 1 and "is 3x2, its label" in found.problems[0]
    assert check("fishyscapes-static", root, quick=1).problems == ()


def run(*args: str):
    with mock.patch.object(out_console, "_width", 250):  # whatever COLUMNS was when it was made
        return CliRunner().invoke(app, ["datasets", *args])


def test_command__lists_every_set_and_tells_all_about_one(tmp_path):
    listed = run("--json", str(tmp_path / "all.json"))
    facts = json.loads((tmp_path / "all.json").read_text())
    assert listed.exit_code == 0 and all(f["name"] in listed.stdout for f in facts) and len(facts) == 20
    assert "0 inlier, 2 anomaly, 255 void" in run("--dataset", "road-anomaly").stdout
    for ignored in (("--quick", "5"), ("--dataset", "cityscapes", "--split", "train")):
        failed = run(*ignored)
        assert isinstance(failed.exception, XenomaskError) and "are for the data sets of --root" in str(
            failed.exception
        )


def test_command__checks_a_root_and_refuses_a_named_set_that_does_not_fit(tmp_path):
    root = write_pack(tmp_path / "pack")
    done = run("--root", str(root), "--json", str(tmp_path / "found.json"))
    assert done.exit_code == 0 and "0, 1, 255" in done.stdout
    assert sorted(f["name"] for f in json.loads((tmp_path / "found.json").read_text())) == PACK
    save(root / "fs_static/labels_masks/0.png", [[0, 2, 0]] * 2)
    assert "holds the values [2]" in run("--root", str(root)).stdout
    failed = run("--root", str(root), "--dataset", "fishyscapes-static")
    assert isinstance(failed.exception, XenomaskError) and "1 of its files are wrong, the first: label" in str(
        failed.exception
    )
    missing = run("--root", str(root), "--dataset", "street-hazards")
    assert isinstance(missing.exception, XenomaskError) and "neither test/ nor train/" in str(missing.exception)


def test_real_sets__pass_the_check(real_data):
    static, *others = check_all(real_data / "Validation_Dataset")
    assert others == [] and (static.frames, static.labelled, static.anomalous, static.problems) == (30, 30, 20, ())
    smiyc = {f.name: f for f in check_all(real_data / "smiyc", split="validation")}
    assert [(f.frames, f.anomalous, f.notes, f.problems) for f in smiyc.values()] == [
        (10, 10, (), ()),
        (30, 30, (), ()),
    ]
    assert all(list(f.values) == ["0", "1", "255"] for f in smiyc.values())
    squeezed = open_dataset("folder", real_data / "cityscapes_256" / "val", coding="train_ids", resize=(256, 512))
    assert len(squeezed.labelled().frames) == 500
    label = squeezed.sample(squeezed.frames[0]).label
    assert label is not None and label.shape == (256, 512)
