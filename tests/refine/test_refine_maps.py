"""`xenomask refine`: stored maps and what comes from outside."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.cli import fails, run, write_maps
from helpers.scenes import write
from xenomask.datasets.read import read_photo
from xenomask.detector import Detector
from xenomask.refine import get_refinement
from xenomask.refine.maps import read_segments
from xenomask.refine.regions import superpixels
from xenomask.store import map_photo, read_map

RNG = np.random.default_rng(1)


def maps(tmp_path, count=2):
    return {f"f{i}": RNG.uniform(-1, 0, (6, 8)).astype(np.float16) for i in range(count)}, tmp_path / "maps"


def save(path, ids, bits=8):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(ids.astype(np.uint8 if bits == 8 else np.uint16)).save(path)


def test_segments__of_8_and_16_bits_and_rgb(tmp_path, capsys):
    ids = RNG.integers(0, 3, (6, 8))
    save(tmp_path / "a.png", ids)
    save(tmp_path / "b.png", ids * 300, 16)
    rgb = np.stack([ids, ids * 2, ids * 0], -1).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "c.png")
    assert (read_segments(tmp_path / "a.png") == ids).all() and (read_segments(tmp_path / "b.png") == ids * 300).all()
    assert (read_segments(tmp_path / "c.png") == ids * 513).all()
    values, folder = maps(tmp_path)
    write_maps(folder, **values)
    save(tmp_path / "seg/f0.png", ids)
    command = ("refine", folder, "--segments", tmp_path / "seg", "--out", tmp_path / "out")
    assert "1 of 2 maps have no segments" in fails(capsys, *command)
    save(tmp_path / "seg/f1.png", ids * 300, 16)
    code, out, err = run(capsys, *command, "--options", "blend=1,trim=0")
    assert code == 0 and "2 maps in" in out, err
    for name, value in values.items():
        found = read_map(tmp_path / f"out/{name}.hdf5").astype(np.float32)
        for k in range(3):
            own = value.astype(np.float32)[ids == k]
            assert np.allclose(found[ids == k], own if k == 0 else own.mean(), atol=1e-3)
    assert "refine differ" in fails(capsys, *command)  # other options
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "seg/f1.png")
    error = fails(capsys, "refine", folder, "--segments", tmp_path / "seg", "--out", tmp_path / "other")
    assert "frame f1: " in error and "give segments as PNG" in error
    save(tmp_path / "seg/f1.png", ids[:5])
    error = fails(capsys, "refine", folder, "--segments", tmp_path / "seg", "--out", tmp_path / "third")
    assert "frame f1: map is 8x6, its segments 8x5" in error


def test_superpixels__are_segments_of_the_maps_own_photos(tiny_detector, tmp_path, capsys):
    data = write(tmp_path / "data", 0)
    files = {f.id: Path(str(f.image)) for f in data.frames}
    (photos,) = {p.parent for p in files.values()}
    named = ("--dataset", "folder", "--root", tmp_path / "data")
    assert run(capsys, "score", *named, "--detector", tiny_detector, "--device", "cpu", "--out", tmp_path / "m")[0] == 0
    command = ("refine", tmp_path / "m", "--superpixels", photos, "--out")
    code, out, err = run(capsys, *command, tmp_path / "out", "--options", "blend=1,trim=0")
    assert code == 0 and "changed by superpixels" in out, err
    for frame, file in files.items():
        ids = superpixels(read_photo(file))
        value, found = (read_map(tmp_path / f"{d}/{frame}.hdf5").astype(np.float32) for d in ("m", "out"))
        assert ids.max() >= 4 and ids.shape == value.shape
        for k in np.unique(ids):
            own = value[ids == k]
            assert np.allclose(found[ids == k], own if k == 0 else own.mean(), atol=2e-3)
    photo, other = list(files.values())[:2]
    (photos / f"{photo.stem}.bmp").write_bytes(photo.read_bytes())
    assert "two photos of one map" in fails(capsys, *command, tmp_path / "o")
    (photos / f"{photo.stem}.bmp").unlink()
    whole = photo.read_bytes()
    photo.write_bytes(other.read_bytes())
    assert "was made from another photo" in fails(capsys, *command, tmp_path / "o")
    photo.unlink()
    assert f"has no photo {photo.stem}.jpg" in fails(capsys, *command, tmp_path / "o")
    photo.write_bytes(whole)
    error = fails(capsys, *command, tmp_path / "o", "--segments", photos)
    assert "give one of --segments" in error and not (tmp_path / "o").exists()


def test_boxes__of_a_file_of_json(tmp_path, capsys):
    values, folder = maps(tmp_path)
    write_maps(folder, **values)
    boxes = tmp_path / "b.json"
    boxes.write_text(json.dumps({"f0": [[1, 1, 3, 2, 0.9, "thing"], [0, 0, 8, 6, 0.8, "road"]]}))
    command = ("refine", folder, "--boxes", boxes)
    code, _, err = run(capsys, *command, "--inliers", "road", "--options", "add=2", "--out", tmp_path / "out")
    assert code == 0, err
    change = read_map(tmp_path / "out/f0.hdf5").astype(np.float32) - values["f0"]
    inside = np.zeros((6, 8), bool)
    inside[1:3, 1:4] = True
    assert np.allclose(change, 2 * inside, atol=2e-3)
    assert np.array_equal(read_map(tmp_path / "out/f1.hdf5"), values["f1"])
    boxes.write_text(json.dumps({"f7": [[1, 1, 3, 2, 0.9]]}))
    assert "boxes of 1 frames that" in fails(capsys, *command, "--out", tmp_path / "new")
    boxes.write_text(json.dumps([{"image_id": "f0", "bbox": [1, 1, 3, 2], "score": 0.9, "category_id": 3}]))
    assert "b.json has no box of car, road: its classes are 3" in fails(
        capsys, *command, "--inliers", "road,car", "--out", tmp_path / "new"
    )
    for words, error in (
        (("--segments", folder), "give one of --segments, --superpixels and --boxes"),
        (("--options", "blend=.1"), "unknown option"),
        (("--out", folder), "holds the maps that are to be refined"),
    ):  # fmt: skip
        boxes.write_text("{}")
        assert error in fails(capsys, *command, "--out", tmp_path / "new", *words)


def test_maps__keep_their_photos_and_are_nobodys_thresholds(tiny_detector, tmp_path, capsys):
    data = write(tmp_path / "data", 0)
    own = Detector.from_folder(tiny_detector).save(tmp_path / "d")
    named = ("--dataset", "folder", "--root", tmp_path / "data")
    assert run(capsys, "score", *named, "--detector", own, "--device", "cpu", "--out", tmp_path / "m")[0] == 0
    (tmp_path / "b.json").write_text(json.dumps({"0": [[5, 5, 30, 30, 0.9]]}))
    code, _, err = run(capsys, "refine", tmp_path / "m", "--boxes", tmp_path / "b.json", "--out", tmp_path / "r")
    assert code == 0, err
    for f in data.frames:
        assert map_photo(tmp_path / f"r/{f.id}.hdf5") == map_photo(tmp_path / f"m/{f.id}.hdf5")
    code, _, err = run(capsys, "evaluate", "--maps", tmp_path / "r", *named, "--resamples", 0)
    assert code == 0, err
    made_by = json.loads((tmp_path / "r/manifest.json").read_text())
    assert "threshold" not in made_by and made_by["refine"][0]["options"] == get_refinement("boxes").defaults
    error = fails(capsys, "thresholds", "--maps", tmp_path / "r", *named, "--f1", "--into", own)
    assert "other refinements" in error


def test_refine__what_fails_leaves_nothing_and_what_changes_nothing_says_so(tmp_path, capsys):
    values, folder = maps(tmp_path)
    write_maps(folder, **values)
    out, segments = tmp_path / "out", tmp_path / "seg"
    save(segments / "f0.png", np.zeros((6, 8), int))
    save(segments / "f1.png", np.zeros((5, 8), int))  # of another size: found at the second map
    command = ("refine", folder, "--segments", segments, "--out", out)
    assert "frame f1" in fails(capsys, *command) and not list(out.iterdir())
    save(segments / "f1.png", np.zeros((6, 8), int))
    code, said, err = run(capsys, *command)
    assert code == 0 and "0 of them changed by segments" in said.replace("\n", " "), err
    (tmp_path / "empty").mkdir()
    assert "holds no maps" in fails(
        capsys, "refine", tmp_path / "empty", "--segments", segments, "--out", tmp_path / "o"
    )
