"""Thresholds that are no numbers, JSON over files that are something else, thresholds of a changed detector."""

import json
import shutil

import numpy as np
import pytest

from helpers.cli import fails, run, write_maps
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.pictures import save_picture

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("targets")
    save_picture(root / "street.png", draw_scene(1, (40, 60)).image)
    write_maps(root / "maps", a=RNG.random((9, 9)).astype(np.float16))
    (root / "maps/manifest.json").write_text('{"name": "m"}')
    return root


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "command",
    [
        ["detect", "{root}/street.png", "--out", "{root}/o"],
        ["video", "{root}/street.png", "--out", "{root}/o.mp4"],
        ["components", "{root}/maps", "--out", "{root}/c.json"],
        ["agreement", "{root}/maps", "{root}/maps", "--dataset", "folder", "--root", "{root}", "--out", "{root}/o"],
        ["heatmaps", "--maps", "{root}/maps", "--dataset", "folder", "--root", "{root}", "--out", "{root}/o"],
        ["assemble", "--out", "{root}/d", "--member", "a={root}/none"],
    ],
    ids=lambda c: c[0],
)
def test_threshold__must_be_a_number(world, capsys, command, wrong):
    said = fails(capsys, *(c.format(root=world) for c in command), f"--threshold={wrong}")
    assert "is not a finite number" in said and not (world / "o").exists()


def test_json__never_replaces_what_is_no_json(world, capsys):
    before = sha256(world / "street.png")
    assert "not JSON" in fails(capsys, "detect", world / "street.png", "--json", world / "street.png")
    assert "not JSON" in fails(capsys, "detect", world / "street.png", "--coco", world / "street.png")
    assert sha256(world / "street.png") == before
    manifest = world / "maps/manifest.json"
    said = fails(capsys, "components", world / "maps", "--threshold", 0.5, "--out", manifest)
    assert "a folder's own description" in said and manifest.read_text() == '{"name": "m"}'
    for _ in range(2):  # its own may be written again
        assert run(capsys, "components", world / "maps", "--threshold", 0.5, "--out", world / "again.json")[0] == 0


def test_pictures__never_replace_photos_labels_or_foreign_folders(tmp_path, capsys):
    root = write_scenes(tmp_path / "scenes", "folder", 2, size=(64, 96))
    photos = sorted((root / "images").iterdir())
    write_maps(tmp_path / "maps", **{p.stem: RNG.random((64, 96)).astype(np.float16) for p in photos})
    files = {p: sha256(p) for p in root.rglob("*.*") if p.is_file()}
    data = ("--dataset", "folder", "--root", root)
    labels = next(f.label for f in open_dataset("folder", root).frames if f.label).parent
    for folder in (root / "images", labels):
        for words in (("heatmaps", "--maps", tmp_path / "maps"), ("agreement", tmp_path / "maps", tmp_path / "more")):
            if words[0] == "agreement" and not (tmp_path / "more").exists():
                shutil.copytree(tmp_path / "maps", tmp_path / "more")
            assert "holds photos or labels of folder" in fails(capsys, *words, *data, "--out", folder)
        if any(p.suffix == ".png" for p in folder.iterdir()):
            out = ("--threshold", 0.5, "--out", tmp_path / "c.json", "--png16", folder)
            assert "is another picture" in fails(capsys, "components", tmp_path / "maps", *out)
    assert {p: sha256(p) for p in files} == files
    for _ in range(2):  # its own may be written again
        assert run(capsys, "components", tmp_path / "maps", *out[:-1], tmp_path / "png")[0] == 0
    (tmp_path / "maps" / "notes.txt").touch()
    assert "no earlier demo made it" in fails(capsys, "demo", "--out", tmp_path)
    assert (tmp_path / "maps" / "notes.txt").is_file()


def test_json__names_are_those_of_the_files(world, capsys, tmp_path):
    odd = tmp_path / "a\nb.png"
    shutil.copy(world / "street.png", odd)
    code, _, err = run(capsys, "detect", odd, "--out", tmp_path / "o", "--detector", "nano-general", "--json",
                       tmp_path / "x.json")  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "x.json").read_text())["photos"][0]["photo"] == str(odd)


@pytest.fixture
def stored(tmp_path, capsys):
    """A copy of a detector that holds a threshold which was chosen for its maps."""
    root, detector = write_scenes(tmp_path / "scenes", "folder", 2, size=(64, 96)), tmp_path / "detector"
    Detector.load("nano-general").save(detector)
    data = ("--dataset", "folder", "--root", root)
    for words in (("score", *data, "--out", tmp_path / "maps", "--detector", detector),
                  ("thresholds", "--maps", tmp_path / "maps", *data, "--f1", "--into", detector)):  # fmt: skip
        code, _, err = run(capsys, *words)
        assert code == 0, err
    return detector


def test_threshold__of_other_weights_or_score_is_left_out(stored, caplog):
    assert isinstance(Detector.load(stored).thresholds["default"]["origin"], dict)
    table = json.loads((stored / "detector.json").read_text())
    table["members"][0]["score"] = "entropy"
    (stored / "detector.json").write_text(json.dumps(table))
    changed = Detector.load(stored)
    assert "default" not in changed.thresholds and "was changed since its threshold 'default' was stored" in caplog.text


def test_python__evaluate_refuses_what_it_cannot_mean():
    from xenomask.metrics import evaluate

    def read(_):
        return np.array([[0.1, 0.9]]), np.array([[0, 1]])

    with pytest.raises(XenomaskError, match="unknown track 'anomalytrack'"):
        evaluate(["a", "b"], read, "anomalytrack")
    with pytest.raises(XenomaskError, match="resamples -5 is no whole number"):
        evaluate(["a", "b"], read, resamples=-5)
    with pytest.raises(XenomaskError, match="seed -1 is no whole number"):
        evaluate(["a", "b"], read, seed=-1)
    with pytest.raises(XenomaskError, match="frame a is named twice"):
        evaluate(["a", "a"], read)
    with pytest.raises(XenomaskError, match="no frame"):
        evaluate([], read)
    with pytest.raises(XenomaskError, match="not the pair"):
        evaluate(["a"], lambda i: np.ones((2, 2)))  # pyright: ignore
