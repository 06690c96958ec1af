"""`submission bravo` on a miniature of the challenge's folders: files read back by hand, numbers by another way."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import naive
from helpers.cli import fails, run, write_maps
from xenomask.store.classes import write_classes

SIZE = (12, 16)
SMIYC = ("airplane0000", "zebra0001")
ACDC = {"fog": "GOPR0475_frame_000247", "night": "GOPR0355_frame_000138"}


def save(path, array):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.fixture
def world(tmp_path):
    """(root, maps, classes, {id: (map, classes, label)}); SMIYC's labels are of anomalies, ACDC's of classes."""
    rng, root, kept = np.random.default_rng(0), tmp_path / "bravo", {}
    for split, ids in (("SMIYC", SMIYC), ("ACDC", tuple(ACDC.values()))):
        for i in ids:
            label = rng.choice([0, 1, 255] if split == "SMIYC" else [0, 5, 18, 255], SIZE).astype(np.uint8)
            predicted = np.where(rng.random(SIZE) < 0.7, label.clip(0, 18), rng.choice(19, SIZE)).astype(np.uint8)
            low = 0.0 if split == "SMIYC" else -3.0
            kept[i] = (rng.uniform(low, 1, SIZE).astype(np.float16), predicted, label)
            (tmp_path / "maps").mkdir(exist_ok=True)
            write_maps(tmp_path / "maps" / split, **{i: kept[i][0]})
            (tmp_path / "classes" / split).mkdir(parents=True, exist_ok=True)
            write_classes(tmp_path / "classes" / split / f"{i}.png", predicted)
    for i in SMIYC:
        save(root / f"bravo_SMIYC/RoadAnomaly21/images/{i}.jpg", np.zeros((*SIZE, 3)))
        save(root / f"bravo_SMIYC/RoadAnomaly21/images/{i}_labels_semantic.png", kept[i][2])
    for condition, i in ACDC.items():
        folder = root / f"bravo_ACDC/{condition}/test/{i[:8]}"
        save(folder / f"{i}_rgb_anon.png", np.zeros((*SIZE, 3)))
        save(folder / f"{i}_gt_labelTrainIds.png", kept[i][2])
    return root, tmp_path / "maps", tmp_path / "classes", kept


def command(world, out):
    root, maps, classes, _ = world
    return "submission", "bravo", "--root", root, "--maps", maps, "--classes", classes, "--out", out


def test_bravo__writes_checks_and_counts(world, tmp_path, capsys):
    out = tmp_path / "sub"
    code, said, err = run(capsys, *command(world, out), "--json", tmp_path / "x.json")
    assert code == 0 and "bravo_index" in said, err
    assert all(len(line) <= 80 for line in said.splitlines() if not line.startswith("/"))
    kept, found = world[3], json.loads((tmp_path / "x.json").read_text())
    assert found["images"] == {"SMIYC": 2, "ACDC": 2} and set(found["numbers"]) == {"SMIYC", "ACDCfog", "ACDCnight"}
    low = min(float(kept[i][0].min()) for i in ACDC.values())
    high = max(float(kept[i][0].max()) for i in ACDC.values())
    assert found["scales"] == {"SMIYC": [0.0, 1.0], "ACDC": [low, high]}
    pairs = []
    for i in SMIYC:
        base = out / f"bravo_SMIYC/RoadAnomaly21/images/{i}"
        pred, conf = (np.asarray(Image.open(f"{base}_{kind}.png")) for kind in ("pred", "conf"))
        value, predicted, label = kept[i]
        assert pred.dtype == np.uint8 and np.array_equal(pred, predicted)
        assert conf.dtype == np.uint16 and np.abs(conf - 65535 * (1 - value.astype(float))).max() <= 0.5
        pairs += [(65535 - int(c), int(t)) for c, t in zip(conf.flat, label.flat, strict=True) if t != 255]
    expected = naive.pixel_numbers(*zip(*pairs, strict=True))
    own = found["numbers"]["SMIYC"]
    assert [own[k] for k in ("auroc_ood", "auprc_ood", "fpr95_ood")] == pytest.approx(
        [expected[k] for k in ("auroc", "aupr_sum", "fpr95")], abs=1e-12
    )
    fog = ACDC["fog"]
    conf = np.asarray(Image.open(out / f"bravo_ACDC/fog/test/{fog[:8]}/{fog}_rgb_anon_conf.png")).astype(float)
    value = kept[fog][0].astype(float)
    assert np.abs(conf - 65535 * (high - value) / (high - low)).max() <= 0.5
    again = run(capsys, "submission", "bravo", "--root", world[0], "--out", out, "--json", tmp_path / "y.json")
    assert again[0] == 0 and json.loads((tmp_path / "y.json").read_text())["summary"] == found["summary"]


@pytest.mark.parametrize(
    ("split", "base", "photo", "ends", "ood"),
    [
        ("synobjs", "lion/7", "", ("_gt", "_mask"), {"auroc_ood": 9 / 10, "auprc_ood": 5 / 6, "fpr95_ood": 1 / 5}),
        ("synrain", "ulm/ulm_000000_000019", "_leftImg8bit", ("_gt_labelTrainIds", "_gt_invIds"), {}),
    ],
)
def test_bravo__invalid_pixels_count_for_no_class_and_are_synobjs_anomalies(
    split, base, photo, ends, ood, tmp_path, capsys
):
    # by hand: 5 valid pixels, of classes 0 and 1 two of three each are right or predicted so; the void one never counts
    at, out = tmp_path / f"bravo_{split}" / base, tmp_path / f"sub/bravo_{split}/{base}{photo}"
    save(f"{at}{photo}.png", np.zeros((2, 4, 3)))
    save(f"{at}{ends[0]}.png", [[0, 0, 0, 1], [1, 255, 0, 1]])
    save(f"{at}{ends[1]}.png", [[0, 0, 0, 0], [0, 7, 255, 255]])
    save(f"{out}_pred.png", [[0, 0, 1, 1], [1, 5, 5, 1]])
    conf = np.array([[60000, 60000, 20000, 60000], [60000, 65535, 10, 30000]], np.uint16)
    Image.fromarray(conf).save(f"{out}_conf.png")
    check = ("submission", "bravo", "--root", tmp_path, "--out", tmp_path / "sub")
    code, _, err = run(capsys, *check, "--json", tmp_path / "x.json")
    assert code == 0, err
    own = json.loads((tmp_path / "x.json").read_text())["numbers"][split]
    assert own["miou_valid"] == pytest.approx(2 / 3) and own["auroc_valid"] == 1
    assert {k: v for k, v in own.items() if k.endswith("_ood")} == pytest.approx(ood)
    if ood:
        (tmp_path / f"bravo_{split}/{base}_mask.png").unlink()
        assert "7_mask.png" in fails(capsys, *check)


def test_bravo__of_one_kind_of_label_has_no_index(world, tmp_path, capsys):
    root, maps, classes, _ = world
    (maps / "ACDC").rename(tmp_path / "elsewhere")
    code, said, err = run(capsys, *command(world, tmp_path / "sub"))
    assert code == 0 and "the index needs labels" in said and "bravo_index" not in said, err


def test_bravo__refusals(world, tmp_path, capsys):
    root, maps, classes, _ = world
    out = tmp_path / "sub"
    assert "belong together" in fails(capsys, "submission", "bravo", "--root", root, "--maps", maps, "--out", out)
    assert "no folder bravo_SMIYC" in fails(capsys, "submission", "bravo", "--root", tmp_path / "maps", "--out", out)
    assert run(capsys, *command(world, out))[0] == 0
    check = ("submission", "bravo", "--root", root, "--out", out)
    conf = out / f"bravo_SMIYC/RoadAnomaly21/images/{SMIYC[0]}_conf.png"
    kept = conf.read_bytes()
    for picture, words in (
        (np.zeros(SIZE, np.uint8), "not a grey PNG of 16 bits"), (np.zeros((3, 4), np.uint16), "the same pixels"),
    ):  # fmt: skip
        Image.fromarray(picture).save(conf)
        assert words in fails(capsys, *check)
    conf.unlink()
    assert str(conf) in fails(capsys, *check)
    conf.write_bytes(kept)
    save(conf.with_name(f"{SMIYC[0]}_pred.png"), np.full(SIZE, 19))
    assert "holds class 19" in fails(capsys, *check)
    (maps / "SMIYC" / f"{SMIYC[1]}.hdf5").unlink()
    assert f"no map of 1 of 2 frames: {SMIYC[1]}" in fails(capsys, *command(world, out))
