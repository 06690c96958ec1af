"""Regions that do not count: parsed, stored, learnt, and then in no object."""

import json

import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails, run, write_maps
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.objects import find_objects
from xenomask.objects.ignore import learn_region, parse_region, read_region, region_of


def test_parse_region__of_each_side():
    for side, expected in (("bottom", np.s_[-25:, :]), ("top", np.s_[:25, :]), ("left", np.s_[:, :50]),
                           ("right", np.s_[:, -50:])):  # fmt: skip
        mask = np.zeros((100, 200), bool)
        mask[expected] = True
        assert (parse_region(f"{side}:25%").at((100, 200)) == mask).all()


def test_parse_region__of_a_picture(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[20:, 5:15] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    region = parse_region(str(tmp_path / "m.png"))
    assert (region.at((30, 40)) == (mask > 0)).all() and region.origin == "m.png"
    assert (region.at((60, 80)) == np.kron(mask > 0, np.ones((2, 2), bool))).all()


def test_parse_region__refuses(tmp_path):
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save(tmp_path / "all.png")
    for text, error in (("bottom:0%", "between 0 and 100"), ("bottom:100%", "between 0 and 100"),
                        ("lower:5%", "neither"),
                        ("bottom:-5%", "neither"), (str(tmp_path / "all.png"), "the whole photo")):  # fmt: skip
        with pytest.raises(XenomaskError, match=error):
            parse_region(text)


def test_region_of__a_thin_line_stays_and_nothing_is_refused(tmp_path):
    mask = np.zeros((2000, 4000), np.uint8)
    mask[1001] = 255  # of four rows that become one, the second
    Image.fromarray(mask).save(tmp_path / "line.png")
    assert np.flatnonzero(parse_region(str(tmp_path / "line.png")).mask.any(1)).tolist() == [250]
    Image.fromarray(0 * mask).save(tmp_path / "black.png")
    with pytest.raises(XenomaskError, match="black.png. has no pixel: a mask picture ignores what is not black"):
        parse_region(str(tmp_path / "black.png"))


def test_read_region__comes_back_and_refuses_what_is_damaged():
    mask = np.random.default_rng(0).random((40, 60)) < 0.3
    region = region_of(mask, "drawn")
    table = json.loads(json.dumps(region.to_json()))
    found = read_region(table)
    assert found is not None and (found.mask == mask).all() and found.origin == "drawn"
    assert read_region(None) is None
    for damage in ({"size": [10**6, 10**6]}, {"size": [40, 61]}, {"size": "ab"}, {"counts": "\x7f" * 9}, {"counts": 5},
                   {"counts": "o" * 20}):  # fmt: skip
        with pytest.raises((ValueError, KeyError, TypeError)):
            read_region({**table, "rle": {**table["rle"], **damage}})


def test_find_objects__leaves_the_region_out():
    value = np.zeros((100, 100), np.float32)
    value[10:20, 10:20] = value[90:, 30:50] = 1
    assert len(find_objects(value, 0.5)) == 2
    (left,) = find_objects(value, 0.5, ignored=parse_region("bottom:10%").at((100, 100)))
    assert left.box == (10, 10, 10, 10)


def drive(bonnet: bool, count: int = 24):
    """Photos whose scenery moves, with a bonnet in the lowest eighth or without."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        photo = np.kron(rng.integers(0, 255, (16, 32, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        if bonnet:
            photo[168:, 40:340] = (30, 30, 60)
            photo[168:172, 40:340] = (230, 230, 230)
        yield photo


def test_learn_region__finds_the_bonnet_and_nothing_else():
    region = learn_region(drive(True))
    truth = np.zeros((192, 384), bool)
    truth[168:, 40:340] = True
    found = region.at((192, 384))
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    with pytest.raises(XenomaskError, match="nothing stays in place"):
        learn_region(drive(False))
    with pytest.raises(XenomaskError, match="3 photos"):
        learn_region(drive(True, 3))
    with pytest.raises(XenomaskError, match="two sizes"):
        learn_region(iter([np.zeros((8, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)]))


def test_cli__a_detector_keeps_it_and_detect_uses_it(tmp_path, capsys):
    detector = Detector.load("nano-general").save(tmp_path / "mine")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    low = ("--threshold=-50", "--smallest", 0, "--out", tmp_path / "o", "--json", tmp_path / "x.json")
    code, out, err = run(capsys, "ignore", "bottom:25%", "--into", detector)
    assert code == 0 and "ignores 25.0 % of every photo (bottom:25%)" in out.replace("\n", " "), err
    stored = json.loads((detector / "detector.json").read_text())["ignore"]
    assert run(capsys, "detect", tmp_path / "a.png", "--detector", detector, *low)[0] == 0
    photo = json.loads((tmp_path / "x.json").read_text())["photos"][0]
    assert photo["share_above_threshold"] == 0.75 and [o["box"] for o in photo["objects"]] == [[0, 0, 96, 48]]
    assert run(capsys, "detect", tmp_path / "a.png", "--detector", detector, *low, "--ignore", "top:50%")[0] == 0
    assert json.loads((tmp_path / "x.json").read_text())["photos"][0]["objects"][0]["box"] == [0, 32, 96, 32]
    assert Detector.load(Detector.load(detector).save(tmp_path / "copy")).ignore is not None
    assert run(capsys, "ignore", "none", "--into", detector)[0] == 0 and Detector.load(detector).ignore is None
    assert "stays as it is" in fails(capsys, "ignore", "bottom:5%", "--into", "src/xenomask/detectors/nano-general")
    assert "neither a share" in fails(capsys, "detect", tmp_path / "a.png", "--ignore", "bonnet")
    maps = write_maps(tmp_path / "maps", a=np.ones((20, 20), np.float16))
    code, out, err = run(capsys, "components", maps, "--threshold", 0.5, "--out", tmp_path / "c.json", "--ignore",
                         "left:50%")  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "c.json").read_text())["annotations"][0]["bbox"] == [10, 0, 10, 20]
    (maps / "manifest.json").write_text(json.dumps({"ignore": stored}))  # as `score` writes a detector's
    assert run(capsys, "components", maps, "--threshold", 0.5, "--out", tmp_path / "c.json")[0] == 0
    assert json.loads((tmp_path / "c.json").read_text())["annotations"][0]["bbox"] == [0, 0, 20, 15]
    (maps / "manifest.json").write_text('{"ignore": {"rle": 3}}')
    assert "its ignore region cannot be read" in fails(
        capsys, "components", maps, "--threshold", 0.5, "--out", "c.json"
    )
