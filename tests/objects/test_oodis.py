"""OoDIS submissions: read back by a reader of its own, numbers by hand, and what is refused before it is packed."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from helpers.cli import fails, run, write_maps
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.objects import oodis
from xenomask.objects.ignore import parse_region
from xenomask.objects.oodis import measure_instances, write_instances

SIZE = (64, 96)


@pytest.fixture
def world(tmp_path):
    """Scenes in AnomalyTrack's layout, and maps that are right but for the last one, which is flat but for a pixel."""
    root = write_scenes(tmp_path / "scenes", "anomaly-track", 3, size=SIZE)
    data = open_dataset("anomaly-track", root)
    labels = {f.id: data.label(f) for f in data.frames}
    values = {i: np.where(label == 1, 0.9, 0.1).astype(np.float16) for i, label in labels.items()}
    last = sorted(values)[-1]
    values[last] = np.full(SIZE, 0.1, np.float16)
    values[last][5, 7] = 0.3
    return root, labels, write_maps(tmp_path / "maps", **values), last


def arguments(world, out):
    root, _, maps, _ = world
    return ("submission", "instances", "--maps", maps, "--dataset", "anomaly-track", "--root", root, "--out", out)


def test_instances__are_the_labels_components_and_a_flat_map_gets_its_highest_region(world, tmp_path, capsys):
    out, report = tmp_path / "oodis", tmp_path / "x.json"
    code, _, err = run(capsys, *arguments(world, out), "--threshold", 0.5, "--smallest", 0, "--json", report)
    assert code == 0, err
    _, labels, _, last = world
    numbers = json.loads(report.read_text())
    assert numbers["images"] == 3 and numbers["lowered"] == 1
    # two frames are right to the pixel, in the third all is missed and one pixel is false
    ap, ap50 = numbers["numbers"]["ap"], numbers["numbers"]["ap50"]
    assert 0 < ap < 1 and ap == pytest.approx(ap50)
    # boxes: the true ones are found, and the false pixel has the lowest score
    found = sum(ndimage.label(y == 1, np.ones((3, 3)))[1] for i, y in labels.items() if i != last)  # pyright: ignore
    missed = ndimage.label(labels[last] == 1, np.ones((3, 3)))[1]  # pyright: ignore
    expected = np.floor(100 * found / (found + missed) + 1e-9) + 1
    assert [numbers["numbers"][k] for k in ("box_ap", "box_ap50")] == pytest.approx([expected / 101] * 2)
    boxes = json.loads((out / "roadanomaly.json").read_text())
    assert {b["image_id"] for b in boxes} == {f"{i}.png" for i in labels} and {b["category_id"] for b in boxes} == {1}
    assert [b["bbox"] for b in boxes if b["image_id"] == f"{last}.png"] == [[7, 5, 1, 1]]
    for i, label in labels.items():
        together = np.zeros(SIZE, int)
        for line in (out / f"roadanomaly/{i}_instanceIds_pred.txt").read_text().splitlines():
            first, *_, score = line.split()
            mask = np.array(Image.open(out / "roadanomaly" / first))
            assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
            assert float(score) == pytest.approx(0.3 if i == last else 0.9, abs=1e-3)
            together += mask == 255
        expected = np.zeros(SIZE, int)
        expected[5, 7] = 1
        np.testing.assert_array_equal(together, expected if i == last else label == 1)


def test_instances__outside_of_what_is_ignored_at_the_sets_size_and_in_a_folder_of_its_own(world, tmp_path):
    root, _, maps, last = world
    data = open_dataset("anomaly-track", root)
    written = write_instances(maps, data, 2.0, tmp_path / "o", ignore=parse_region("top:50%"))
    assert written.lowered == 3  # without the region the last one's is the pixel at (7, 5)
    boxes = {b["image_id"]: b["bbox"] for b in json.loads((tmp_path / "o/roadanomaly.json").read_text())}
    assert boxes[f"{last}.png"][1] >= SIZE[0] // 2
    half = (SIZE[0] // 2, SIZE[1] // 2)
    small = write_maps(tmp_path / "small", **{f.id: np.full(half, 0.1, np.float16) for f in data.frames})
    assert measure_instances(small, replace(data, resize=half), 0.5)["ap"] == 0
    with pytest.raises(XenomaskError, match="its photo"):
        measure_instances(small, data, 0.5)
    with pytest.raises(XenomaskError, match="holds images that are not of anomaly-track, such as"):
        write_instances(maps, replace(data, frames=data.frames[:2]), 0.5, tmp_path / "o")


def test_instances__incomplete_ones_are_refused(world, tmp_path, capsys):
    root, _, maps, last = world
    out = tmp_path / "oodis"
    given = (*arguments(world, out), "--threshold", 0.5)
    assert "--zip needs the method's name" in fails(capsys, *given, "--zip", tmp_path / "o.zip")
    assert run(capsys, *given)[0] == 0
    before = sorted(p.name for p in (out / "roadanomaly").iterdir())
    write_maps(maps, **{last: np.zeros((8, 8), np.float16)})
    assert f"the map of {last} has (8, 8)" in fails(capsys, *given)
    (maps / f"{last}.hdf5").unlink()
    assert "has no map of 1 of 3 frames" in fails(capsys, *given)
    assert sorted(p.name for p in (out / "roadanomaly").iterdir()) == before
    other = (*given[:4], "--dataset", "folder", "--root", root / "dataset_AnomalyTrack", *given[8:])
    assert "track of OoDIS" in fails(capsys, *other)


LAF = "01_Hanns_Klemm_Str_45_000000"
PHOTOS = {
    "anomaly-track": [f"dataset_AnomalyTrack/images/{i}.jpg" for i in ("cow0001", "hay0000", "validation0000")],
    "obstacle-track": [f"dataset_ObstacleTrack/images/{i}.webp" for i in ("gravel_boot_2", "driveway_1")],
    "lost-and-found": [f"leftImg8bit/{p}_leftImg8bit.png" for p in (f"train/s/{LAF}_000000", f"test/s/{LAF}_000010")],
}  # fmt: skip


@pytest.fixture
def tracks(tmp_path, monkeypatch, capsys):
    """The three tracks of a benchmark of two test images each, and a validation image that is no part of it."""
    monkeypatch.setattr(oodis, "IMAGES", dict.fromkeys(oodis.IMAGES, 2))
    for k, (name, photos) in enumerate(PHOTOS.items()):
        for photo in (tmp_path / name / p for p in photos):
            photo.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 8)).save(photo)
            write_maps(tmp_path / f"maps-{name}", **{photo.stem.removesuffix("_leftImg8bit"): np.eye(8, 12) * (k + 1)})
            if k == 2:
                label = str(photo).replace("leftImg8bit/", "gtCoarse/").replace("leftImg8bit.", "gtCoarse_labelIds.")
                Path(label).parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (12, 8), 1).save(label)
        given = ("--maps", tmp_path / f"maps-{name}", "--dataset", name, "--root", tmp_path / name, "--split", "all")
        assert run(capsys, "submission", "instances", *given, "--threshold", 0.5, "--out", tmp_path / "out")[0] == 0
    return tmp_path / "out"


def test_zip__holds_what_the_benchmarks_own_check_wants(tracks, tmp_path):
    # kumuji/anomaly-benchmark-suite, verify_submission.py: entries of the folders, its list of images and no other box
    oodis.zip_instances(tracks, tmp_path / "o.zip", "mine", code="https://example.org")
    names = {"roadanomaly": ["cow0001", "hay0000"], "roadobstacle": ["driveway_1", "gravel_boot_2"],
             "fishyscapes": [f"{LAF}_0000{n}_gtCoarse" for n in ("00", "10")]}  # fmt: skip
    files = [f"{t}/{i}_instanceIds_{e}" for t, own in names.items() for i in own for e in ("0_1.png", "pred.txt")]
    with zipfile.ZipFile(tmp_path / "o.zip") as z:
        assert sorted(z.namelist()) == sorted(["description.txt", *(f"{t}/" for t in names), *files])
        assert z.read("description.txt").decode() == "name: mine\npaper_link: \ncode_link: https://example.org\n"
        assert z.read("roadanomaly/cow0001_instanceIds_pred.txt") == b"cow0001_instanceIds_0_1.png 1 1.000000\n"
    with zipfile.ZipFile(tmp_path / "o_detection.zip") as z:
        assert sorted(z.namelist()) == [f"{t}.json" for t in sorted(names)]
        boxes = [json.loads(z.read(f"{t}.json")) for t in names]
    photos = [f"{i}.png".replace("gtCoarse", "leftImg8bit") for own in names.values() for i in own]
    assert [(b["image_id"], b["bbox"]) for own in boxes for b in own] == [(i, [0, 0, 8, 8]) for i in photos]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t, m, out: t.unlink(), "roadanomaly has 1 of the benchmark's 2 test images"),
        (lambda t, m, out: shutil.rmtree(out / "fishyscapes"), "has 0 of .* --dataset lost-and-found --split all"),
        (lambda t, m, out: t.write_text(""), "names no instance"),
        (lambda t, m, out: t.write_text("../../x.png 1 0.5"), "no mask beside it"),
        (lambda t, m, out: t.write_text("a.png 1 .5"), "no mask"),
        (lambda t, m, out: Image.new("RGB", (12, 8)).save(m), "not a PNG of 8-bit grey"),
        (lambda t, m, out: Image.new("L", (24, 16), 255).save(m), "have other boxes: write the track again"),
        (lambda t, m, out: m.write_bytes(b"no picture"), "is not an image"),
        (lambda t, m, out: (out / "roadobstacle.json").unlink(), "roadobstacle.json does not hold the track's boxes"),
        (lambda t, m, out: (out / "roadobstacle.json").write_text("[1]"), "does not hold the track's boxes"),
    ],
)
def test_zip__refuses_what_is_not_whole(tracks, tmp_path, damage, said):
    text = tracks / "roadanomaly/cow0001_instanceIds_pred.txt"
    damage(text, text.with_name("cow0001_instanceIds_0_1.png"), tracks)
    with pytest.raises(XenomaskError, match=said):
        oodis.zip_instances(tracks, tmp_path / "o.zip", "mine")
    assert not list(tmp_path.glob("*.zip"))
