"""OoDIS submissions: read back by a reader of its own, numbers by hand, and what is refused before it is packed."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from helpers.cli import fails, run, write_maps
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes

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
    packed = ("--zip", tmp_path / "o.zip", "--name", "mine", "--code", "https://example.org")
    code, said, err = run(
        capsys, *arguments(world, out), "--threshold", 0.5, "--smallest", 0, *packed, "--json", report
    )
    assert code == 0, err
    _, labels, _, last = world
    numbers = json.loads(report.read_text())
    assert numbers["images"] == 3 and numbers["lowered"] == 1 and "the benchmark's test set 100" in numbers["notes"][0]
    # two frames are right to the pixel, in the third all is missed and one pixel is false
    ap, ap50 = numbers["numbers"]["ap"], numbers["numbers"]["ap50"]
    assert 0 < ap < 1 and ap == pytest.approx(ap50)
    # boxes: the true ones are found, and the false pixel has the lowest score
    found = sum(ndimage.label(y == 1, np.ones((3, 3)))[1] for i, y in labels.items() if i != last)  # pyright: ignore
    missed = ndimage.label(labels[last] == 1, np.ones((3, 3)))[1]  # pyright: ignore
    expected = np.floor(100 * found / (found + missed) + 1e-9) + 1
    assert [numbers["numbers"][k] for k in ("box_ap", "box_ap50")] == pytest.approx([expected / 101] * 2)
    with zipfile.ZipFile(tmp_path / "o_detection.zip") as z:
        assert sorted(z.namelist()) == ["description.txt", "roadanomaly.json"]
        boxes = json.loads(z.read("roadanomaly.json"))
    assert {b["image_id"] for b in boxes} == {f"{i}.png" for i in labels} and {b["category_id"] for b in boxes} == {1}
    assert [b["bbox"] for b in boxes if b["image_id"] == f"{last}.png"] == [[7, 5, 1, 1]]
    with zipfile.ZipFile(tmp_path / "o.zip") as z:
        assert z.read("description.txt").decode() == "name: mine\npaper_link: \ncode_link: https://example.org\n"
        for i, label in labels.items():
            lines = z.read(f"roadanomaly/{i}_instanceIds_pred.txt").decode().splitlines()
            together = np.zeros(SIZE, int)
            for line in lines:
                first, *_, score = line.split()
                with z.open(f"roadanomaly/{first}") as f:
                    mask = np.array(Image.open(f))
                assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
                assert float(score) == pytest.approx(0.3 if i == last else 0.9, abs=1e-3)
                together += mask == 255
            expected = np.zeros(SIZE, int)
            expected[5, 7] = 1
            np.testing.assert_array_equal(together, expected if i == last else label == 1)


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


def test_zip__checks_each_image(world, tmp_path, capsys):
    from xenomask.errors import XenomaskError
    from xenomask.objects.oodis import zip_instances

    out = tmp_path / "oodis"
    with pytest.raises(XenomaskError, match="holds no track"):
        zip_instances(tmp_path, tmp_path / "o.zip", "mine")
    assert run(capsys, *arguments(world, out), "--threshold", 0.5)[0] == 0
    text = next((out / "roadanomaly").glob("*_instanceIds_pred.txt"))
    good = text.read_text()
    mask = text.parent / good.split()[0]
    for bad, said in (("", "names no instance"), ("../../x.png 1 0.5", "no mask beside it"), ("a.png 1 .5", "no mask")):
        text.write_text(bad)
        with pytest.raises(XenomaskError, match=said):
            zip_instances(out, tmp_path / "o.zip", "mine")
    text.write_text(good)
    Image.new("RGB", (96, 64)).save(mask)
    with pytest.raises(XenomaskError, match="not a PNG of 8-bit grey"):
        zip_instances(out, tmp_path / "o.zip", "mine")
    mask.write_bytes(b"no picture")
    with pytest.raises(XenomaskError):
        zip_instances(out, tmp_path / "o.zip", "mine")
    assert not (tmp_path / "o.zip").exists()
