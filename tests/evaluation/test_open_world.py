"""Predicted classes stored beside maps, read back, and what `evaluate --classes` makes of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import naive
from helpers.cli import fails, run
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.detector.classes import predicted_classes
from xenomask.errors import XenomaskError
from xenomask.masks import PixelOutput
from xenomask.store import read_map
from xenomask.store.classes import read_classes, write_classes
from xenomask.types import CITYSCAPES_CLASSES

SIZE = (24, 36)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """ISSU's folders: classes, 254 where an anomaly is."""
    root = tmp_path_factory.mktemp("issu") / "dataset_ISSUTrack"
    for folder in ("images", "labels_masks"):
        (root / folder).mkdir(parents=True)
    for i, name in enumerate(("static_0_1", "static_fog_2", "temporal_99_3")):
        scene = draw_scene(i, SIZE)
        Image.fromarray(scene.image).save(root / f"images/{name}.png")
        label = np.where(scene.anomaly == 1, 254, scene.semantic).astype(np.uint8)
        Image.fromarray(label).save(root / f"labels_masks/{name}.png")
    return root


@pytest.fixture(scope="module")
def scored(scenes, tiny_detector, tmp_path_factory):
    """Maps and classes by the command."""
    out = tmp_path_factory.mktemp("scored")
    command = ("score", "--dataset", "issu", "--root", scenes, "--detector", tiny_detector, "--device", "cpu")
    return command, out / "maps", out / "classes"


def test_score__writes_the_most_probable_class_and_resumes(scenes, scored, tiny_detector, capsys):
    command, maps, classes = scored
    code, _, err = run(capsys, *command, "--out", maps, "--classes", classes)
    assert code == 0, err
    detector = Detector.from_folder(tiny_detector)
    image = np.asarray(Image.open(scenes / "images/static_0_1.png"))
    total = np.zeros((19, *SIZE))
    for m in detector.members:
        o = m.network.predict(image)
        masks = 1 / (1 + np.exp(-naive.resized(o.mask_logits.numpy(), o.padded_size, o.input_size, SIZE)))  # pyright: ignore
        total += m.weight * naive.semantic(np.array([naive.softmax(r) for r in o.class_logits.tolist()]), masks)  # pyright: ignore
    found = np.asarray(Image.open(classes / "static_0_1.png"))
    assert found.dtype == np.uint8 and found.shape == SIZE
    best = total.max(0) - np.take_along_axis(total, found[None].astype(int), 0)[0]
    assert best.max() < 1e-5  # equal but where two classes are
    (classes / "static_fog_2.png").unlink()
    assert "3 maps" in run(capsys, *command, "--out", maps, "--classes", classes)[1]
    assert (classes / "static_fog_2.png").is_file()
    line = fails(capsys, *command, "--out", maps.parent / "m2", "--score", "eam", "--classes", classes)
    assert "holds predicted classes of another run" in line
    line = fails(capsys, *command, "--out", maps, "--classes", classes, "--engine", "slurm")
    assert "--classes is of --engine local" in line


def test_evaluate__adds_the_open_world_rows_of_png_and_of_npz_alike(scenes, scored, tmp_path, capsys):
    command, maps, classes = scored
    assert run(capsys, *command, "--out", maps, "--classes", classes)[0] == 0
    data = ("--dataset", "issu", "--root", scenes, "--resamples", 20)
    code, said, err = run(
        capsys, "evaluate", "--maps", maps, *data, "--classes", classes, "--json", tmp_path / "a.json"
    )
    assert code == 0 and "open IoU at FPR 5 %" in said and "no component sizes" not in err, err
    first = json.loads((tmp_path / "a.json").read_text())
    assert first["track"] == "issu" and 0 <= first["exact"]["oiou_fpr5"] <= first["exact"]["closed_iou"] <= 1
    (tmp_path / "npz").mkdir()
    for i in ("static_0_1", "static_fog_2", "temporal_99_3"):
        own = {"anomaly_scores": read_map(maps / f"{i}.hdf5"), "pred_id_labels": read_classes(classes, i)}
        np.savez_compressed(tmp_path / "npz" / f"{i}.npz", **own)  # pyright: ignore
    named = ("--pattern", "{id}.npz", "--classes", tmp_path / "npz", "--json", tmp_path / "b.json")
    assert run(capsys, "evaluate", "--maps", tmp_path / "npz", *data, *named)[0] == 0
    assert json.loads((tmp_path / "b.json").read_text()) == first
    assert run(capsys, "evaluate", "--maps", maps, *data)[0] == 0


def test_evaluate__refuses_what_gives_no_number(scenes, scored, tmp_path, capsys):
    command, maps, classes = scored
    assert run(capsys, *command, "--out", maps, "--classes", classes)[0] == 0
    data = ("--dataset", "issu", "--root", scenes)
    assert "no folder of predicted classes" in fails(
        capsys, "evaluate", "--maps", maps, *data, "--classes", tmp_path / "x"
    )
    (tmp_path / "few").mkdir()
    write_classes(tmp_path / "few/static_0_1.png", np.zeros(SIZE, np.uint8), photo="0" * 64)
    line = fails(capsys, "evaluate", "--maps", maps, *data, "--classes", tmp_path / "few")
    assert "no predicted classes of 2 of 3 labelled frames, the first is static_fog_2" in line
    for i in ("static_fog_2", "temporal_99_3"):
        write_classes(tmp_path / f"few/{i}.png", np.zeros(SIZE, np.uint8))
    line = fails(capsys, "evaluate", "--maps", maps, *data, "--classes", tmp_path / "few")
    assert "were made from another photo" in line and "frame static_0_1" in line
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "few/static_0_1.png")  # pyright: ignore
    assert "PNG RGB, not an 8-bit grey PNG" in fails(
        capsys, "evaluate", "--maps", maps, *data, "--classes", tmp_path / "few"
    )
    data = ("--dataset", "issu-obstacle", "--root", scenes)
    line = fails(capsys, "evaluate", "--maps", maps, *data, "--classes", classes)
    assert "do not name classes and anomalies both" in line


def test_issu__splits_and_both_protocols(scenes):
    ids = {s: [f.id for f in open_dataset("issu", scenes, split=s).frames] for s in ("all", "static", "static-normal")}
    assert ids["all"] == ["static_0_1", "static_fog_2", "temporal_99_3"]
    assert ids["static"] == ids["all"][:2] and ids["static-normal"] == ids["all"][:1]
    assert [f.id for f in open_dataset("issu", scenes, split="static-low-light").frames] == ["static_fog_2"]
    assert [f.id for f in open_dataset("issu", scenes, split="temporal-normal").frames] == ["temporal_99_3"]
    frame = open_dataset("issu", scenes).frames[0]
    stored = np.asarray(Image.open(frame.label))  # pyright: ignore
    anomaly, road = (open_dataset(n, scenes).label(frame) for n in ("issu", "issu-obstacle"))
    for y, x in np.ndindex(SIZE):
        s = stored[y, x]
        assert anomaly[y, x] == (255 if s == 255 else int(s == 254))
        assert road[y, x] == (1 if s == 254 else 0 if s == 0 else 255)
    assert np.array_equal(open_dataset("issu", scenes).open_label(frame), stored)


def test_predicted_classes__of_per_pixel_networks_and_of_none():
    logits = torch.zeros(19, 2, 2)
    logits[3, 0], logits[11, 1] = 2.0, 3.0
    output = PixelOutput(logits, (4, 4), (4, 4), (4, 4))
    other = PixelOutput(logits[:2].flip(0), (4, 4), (4, 4), (4, 4))
    found = predicted_classes([(0.5, ["a", "b"], other), (0.5, list(CITYSCAPES_CLASSES), output)])
    assert found.dtype == np.uint8 and found[0].tolist() == [3] * 4 and found[-1].tolist() == [11] * 4
    with pytest.raises(XenomaskError, match="no member's network has these 19 classes"):
        predicted_classes([(1.0, ["a", "b"], other)])
