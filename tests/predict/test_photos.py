"""Photos and data sets through the pipeline: what a loop writes, byte by byte."""

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import naive
from helpers.cli import fails
from helpers.cli import run as command
from xenomask.datasets import open_dataset, read_photo
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.masks import with_queries
from xenomask.objects import find_objects
from xenomask.plots import draw_boxes, overlay
from xenomask.predict.photos import detect_photos, score_dataset, score_timed, work
from xenomask.store import read_map, write_map

STAGES = ["decode", "preprocess", "network", "score", "write"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return open_dataset(
        "anomaly-track", write_scenes(tmp_path_factory.mktemp("at"), "anomaly-track", 5, size=(64, 100))
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Photos of two sizes, in turn."""
    folder, out = tmp_path_factory.mktemp("photos"), []
    for i, size in enumerate([(48, 70), (48, 70), (60, 50), (48, 70), (60, 50)]):
        out.append(folder / f"{i}.png")
        Image.fromarray(draw_scene(i, size).image).save(out[-1])
    return out


def files(folder: Path, ending: str = ".hdf5") -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ending}


def test_score_dataset__writes_the_bytes_of_a_loop(tiny_detector, scenes, tmp_path):
    pair = Detector.from_folder(tiny_detector)
    (tmp_path / "loop").mkdir()
    naive.scored(
        pair, scenes.frames, lambda f: scenes.sample(f).image,
        lambda f, found: write_map(tmp_path / "loop" / f"{f.id}.hdf5", found, photo=sha256(f.image)),
    )  # fmt: skip
    profile = score_timed(pair, scenes, tmp_path / "maps")
    assert files(tmp_path / "maps") == files(tmp_path / "loop") and len(files(tmp_path / "maps")) == 5
    assert [s.name for s in profile.stages] == STAGES and {s.items for s in profile.stages} == {5}


def test_detect_photos__writes_the_bytes_of_a_loop(tiny_detector, photos, tmp_path):
    pair = Detector.from_folder(tiny_detector)
    rows, profile = detect_photos(pair, photos, tmp_path / "out", threshold=0.9, smallest=0.01)
    assert [Path(r.photo) for r in rows] == photos and profile.stages[-1].name == "draw and write"
    (tmp_path / "loop").mkdir()
    told = json.dumps({**pair.describe(), "precision": "float32"}, sort_keys=True).encode()
    for photo, row in zip(photos, rows, strict=True):
        image = read_photo(photo)
        found = pair.detect(image)
        by = f"{pair.name}, {pair.score_name}, {hashlib.sha256(told).hexdigest()[:12]}"
        write_map(tmp_path / "loop" / f"{photo.stem}.hdf5", found, photo=sha256(photo), detector=by)
        objects = find_objects(found.value, 0.9, math.ceil(0.01 * found.value.size))
        assert [o.box for o in row.objects or []] == [o.box for o in objects]
        Image.fromarray(draw_boxes(overlay(image, found.value, pair.scale, 0.9), [o.box for o in objects])).save(
            tmp_path / "loop" / f"{photo.stem}_overlay.jpg", quality=90
        )
        expected = (found.value.max(), found.value.mean(), (found.value >= 0.9).mean())
        assert (row.max, row.mean, row.share_above_threshold) == tuple(map(float, expected))
    for ending in (".hdf5", ".jpg"):
        assert files(tmp_path / "out", ending) == files(tmp_path / "loop", ending)
    assert len(files(tmp_path / "out", ".png")) == 5


@pytest.mark.slow
@pytest.mark.parametrize("batch", [2, 3])
def test_batches__of_one_size_change_maps_by_rounding_alone(tiny_detector, photos, tmp_path, batch):
    pair = Detector.from_folder(tiny_detector)
    seen = []

    def look(x, member=pair.members[0].network):
        seen.append(tuple(x.shape))
        return member(x)

    spied = replace(pair.members[0], network=replace(pair.members[0].network, run=look))
    detect_photos(replace(pair, members=(spied, pair.members[1])), photos, tmp_path / "batch", batch=batch)
    detect_photos(pair, photos, tmp_path / "single")
    assert [s[0] for s in seen] == [2, 1, 1, 1]  # what follows each other and is of one size
    for photo in photos:
        a, b = (read_map(tmp_path / d / f"{photo.stem}.hdf5").astype(np.float32) for d in ("batch", "single"))
        assert np.abs(a - b).max() < 2e-3


def test_detect__is_prepare_infer_fuse(tiny_detector):
    pair, images = Detector.from_folder(tiny_detector), [draw_scene(i, (48, 70)).image for i in range(2)]
    outputs = pair.infer([pair.prepare(i) for i in images])
    for image, own in zip(images, outputs, strict=True):
        for member, output in zip(pair.members, own, strict=True):
            alone = with_queries(member.network.predict(image))
            assert np.allclose(with_queries(output).mask_logits, alone.mask_logits, atol=1e-4)
            assert (output.image_size, output.input_size) == (alone.image_size, alone.input_size)
        assert np.allclose(pair.fuse(own).value, pair.detect(image).value, atol=1e-4)


def test_score_dataset__a_damaged_photo_leaves_the_maps_before_it_whole(tiny_detector, tmp_path):
    root = write_scenes(tmp_path / "at", "anomaly-track", 5, size=(64, 100))
    data = open_dataset("anomaly-track", root)
    bad = data.frames[3]
    assert bad.image
    bad.image.write_bytes(bad.image.read_bytes()[:300])
    pair = Detector.from_folder(tiny_detector)
    with pytest.raises(XenomaskError, match=bad.id):
        score_dataset(pair, data, tmp_path / "maps")
    assert sorted(files(tmp_path / "maps")) == [f"{f.id}.hdf5" for f in data.frames[:3]]
    assert not [p for p in (tmp_path / "maps").iterdir() if "part" in p.name]
    for name in files(tmp_path / "maps"):
        assert read_map(tmp_path / "maps" / name).shape == (64, 100)


def test_detect__a_damaged_photo_is_named_and_the_others_are_done(tiny_detector, photos, tmp_path, capsys):
    many = tmp_path / "many"
    many.mkdir()
    for i, photo in enumerate(photos):
        (many / f"{i}.png").write_bytes(b"" if i == 1 else photo.read_bytes()[: -60 if i == 3 else None])
    line = ("detect", many, "--detector", tiny_detector, "--out", tmp_path / "out", "--json", tmp_path / "n.json")
    code, said, err = command(capsys, *line, "--coco", tmp_path / "c.json")
    numbers, last = json.loads((tmp_path / "n.json").read_text()), err.splitlines()[-1]
    assert code == 2 and "1.png is empty" in err and "3.png is damaged" in last
    assert last.endswith("(2 of 5 photos failed, the others are done)")
    assert [Path(p["photo"]).name for p in numbers["photos"]] == ["0.png", "2.png", "4.png"]
    assert len(numbers["failed"]) == 2 and len(json.loads((tmp_path / "c.json").read_text())["images"]) == 3
    assert sorted(files(tmp_path / "out")) == ["0.hdf5", "2.hdf5", "4.hdf5"] and said.count("many/") == 3


@pytest.mark.slow
def test_detect__goes_on_where_nobody_reads_what_it_prints(tiny_detector, photos, tmp_path):
    words = [str(photos[0].parent), "--detector", str(tiny_detector), "--out", str(tmp_path), "--only", "map"]
    command_line = [sys.executable, "-m", "xenomask.cli", "detect", *words, "--json", str(tmp_path / "n.json")]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE) as process:
        process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
        assert process.wait() == 0
    assert len(files(tmp_path)) == len(json.loads((tmp_path / "n.json").read_text())["photos"]) == 5


def test_detect__maps_of_two_detectors_in_one_folder_are_not_evaluated(tiny_detector, scenes, tmp_path, capsys):
    first, *others = [str(f.image) for f in scenes.frames]
    line = ("--detector", tiny_detector, "--only", "map", "--out", tmp_path / "out")
    judge = ("evaluate", "--maps", tmp_path / "out", "--dataset", "anomaly-track", "--root", scenes.root)
    assert command(capsys, "detect", *others, *line)[0] == 0
    assert command(capsys, "detect", first, *line, "--score", "entropy")[0] == 0
    for words in (judge, ("components", tmp_path / "out", "--threshold", 0.5, "--out", tmp_path / "c.json")):
        assert "holds maps of 2 detectors" in fails(capsys, *words)
    assert command(capsys, "detect", first, *line)[0] == 0
    assert command(capsys, *judge, "--resamples", 0)[0] == 0


def test_manifest__says_the_runtime_and_goes_on_with_another_but_not_with_another_precision(
    tiny_detector, scenes, tmp_path
):
    pair, first = Detector.from_folder(tiny_detector), replace(scenes, frames=scenes.frames[:1])
    score_dataset(pair, first, tmp_path / "maps")
    assert json.loads((tmp_path / "maps/manifest.json").read_text())["runtime"] == "torch"
    members = tuple(
        replace(m, network=replace(m.network, run=m.network.__call__, runtime="openvino")) for m in pair.members
    )
    assert score_dataset(replace(pair, members=members), scenes, tmp_path / "maps") == 4
    with pytest.raises(XenomaskError, match="its precision differ"):
        score_dataset(pair.with_precision("bfloat16"), scenes, tmp_path / "maps")
    assert score_dataset(pair.with_precision("bfloat16"), first, tmp_path / "half") == 1
    assert json.loads((tmp_path / "half/manifest.json").read_text())["precision"] == "bfloat16"


def test_work__is_what_has_no_map_yet(scenes, tmp_path):
    assert work(scenes, tmp_path / "none") == ((64, 100), 5, 1)
    (tmp_path / f"{scenes.frames[0].id}.hdf5").touch()
    assert work(replace(scenes, resize=(30, 40)), tmp_path, 2) == ((30, 40), 4, 2)
    assert work(replace(scenes, frames=scenes.frames[:1]), tmp_path) == ((0, 0), 0, 1)


@pytest.mark.slow
def test_profile__is_printed_and_written(tiny_detector, photos, scenes, tmp_path, capsys):
    code, out, _ = command(
        capsys, "detect", *photos, "--detector", tiny_detector, "--out", tmp_path / "o", "--batch", 2,
        "--profile", "--json", tmp_path / "n.json",
    )  # fmt: skip
    assert code == 0 and "is the slowest stage, busy" in out
    table = json.loads((tmp_path / "n.json").read_text())["profile"]
    assert [s["name"] for s in table["stages"]] == [*STAGES[:-1], "draw and write"]
    assert table["slowest"] in [s["name"] for s in table["stages"]] and table["wall"] > 0
    arguments = ("score", "--dataset", "anomaly-track", "--root", scenes.root, "--out", tmp_path / "m", "--detector")
    code, out, _ = command(capsys, *arguments, tiny_detector, "--profile")
    assert code == 0 and all(name in out for name in STAGES) and "is the slowest stage" in out
    assert "float16 is for GPUs" in fails(
        capsys, "detect", photos[0], "--detector", tiny_detector, "--precision", "float16", "--device", "cpu"
    )


def test_score__says_which_runtime_and_why(tiny_detector, scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XENOMASK_CACHE", str(tmp_path / "cache"))  # other tests' graphs would be taken
    import sys

    from xenomask.cli import main

    old = sys.argv
    sys.argv = ["xenomask", "score", "--dataset", "anomaly-track", "--root", str(scenes.root), "--out",
                str(tmp_path / "m"), "--detector", str(tiny_detector)]  # fmt: skip
    try:
        main()
    except SystemExit as e:
        assert not e.code
    finally:
        sys.argv = old
    err = capsys.readouterr().err
    assert "runtime torch: 5 photos are not worth building openvino's graphs (choose with --runtime)" in err
