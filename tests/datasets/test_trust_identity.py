"""A data set is told by its own signs: another one's folder, or anybody's, is not opened under its name."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails, run
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError

PLAIN = ("anomaly-track", "obstacle-track", "fishyscapes-lost-and-found", "fishyscapes-static", "road-anomaly")


def write(root: Path, ids, size=(4, 6), photos=True) -> Path:
    """A folder of images/ and labels_masks/ with an inlier, an anomaly and void in each label."""
    label = np.zeros(size, np.uint8)
    label[0, :3] = 0, 1, 255
    for d in ("images", "labels_masks"):
        (root / d).mkdir(parents=True)
    for i in ids:
        if photos:
            Image.fromarray(np.full((*size, 3), 99, np.uint8)).save(root / f"images/{i}.jpg")
        Image.fromarray(label).save(root / f"labels_masks/{i}.png")
    return root


def refusal(name: str, root: Path) -> str:
    with pytest.raises(XenomaskError) as e:
        open_dataset(name, root)
    assert "\n" not in str(e.value) and str(e.value).startswith(f"{name}: ")
    return str(e.value)


@pytest.mark.parametrize("name", PLAIN)
def test_anybodys_folder__is_none_of_them(tmp_path, name):
    root = write(tmp_path / "mine", ["a", "b"])
    said = refusal(name, root)
    assert "looks like a folder of your own: --dataset folder" in said and "call it " in said
    assert len(open_dataset("folder", root).frames) == 2
    (named,) = re.findall(r"call it (\S+)$", said)  # how to insist
    assert len(open_dataset(name, root.rename(tmp_path / named)).frames) == 2
    assert len(open_dataset(name, (tmp_path / named).rename(tmp_path / name)).frames) == 2


@pytest.mark.parametrize("name", [n for n in PLAIN if n != "anomaly-track"])
@pytest.mark.parametrize("called", ["dataset_AnomalyTrack", "copy", "dataset_ObstacleTrack", "fs_static"])
def test_official_ids__say_whose_they_are_whatever_the_folder_is_called(tmp_path, name, called):
    root = write(tmp_path / called, ["validation0000", "validation0001"])
    said = refusal(name, root)
    assert "looks like anomaly-track (its frames are called validation0000, ...)" in said
    assert "--dataset anomaly-track; to use it all the same: --dataset folder" in said
    assert len(open_dataset("anomaly-track", root).frames) == 2


@pytest.mark.parametrize("photos", [True, False], ids=["photos", "labels alone"])
@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("anomaly-track", 10, (720, 1280)),
        ("obstacle-track", 30, (1080, 1920)),
        ("fishyscapes-static", 30, (1024, 2048)),
        ("road-anomaly", 60, (720, 1280)),
    ],
)
def test_renamed_copies__are_told_by_count_and_size(tmp_path, name, count, size, photos):
    root = write(tmp_path / "copy", map(str, range(count)), size, photos)
    assert len(open_dataset(name, root).frames) == count
    for other in set(PLAIN) - {name}:
        assert f"looks like {name} (it has {count} frames of {size[1]}x{size[0]})" in refusal(other, root)
    wrong = root.rename(tmp_path / ("fs_static" if name != "fishyscapes-static" else "RoadObsticle21"))
    assert len(open_dataset(name, wrong).frames) == count
    assert f"looks like {name}" in refusal(
        "fishyscapes-static" if wrong.name == "fs_static" else "obstacle-track", wrong
    )


def test_folder_names__tell_where_nothing_else_does(tmp_path):
    pack = tmp_path / "pack"
    for folder in ("RoadAnomaly21", "RoadObsticle21", "FS_LostFound_full", "fs_static", "RoadAnomaly"):
        write(pack / folder, "01")
    for name in PLAIN:
        assert len(open_dataset(name, pack).frames) == 2
    assert "looks like fishyscapes-lost-and-found (by its folder's name)" in refusal(
        "fishyscapes-static", pack / "FS_LostFound_full"
    )
    (tmp_path / "fs_static").symlink_to(write(tmp_path / "anything", "01"))
    assert len(open_dataset("fishyscapes-static", tmp_path / "fs_static").frames) == 2


def test_two_sets_in_one_folder__are_neither(tmp_path):
    root = write(tmp_path / "both", ["validation0000", "validation_1"])
    assert "holds frames of anomaly-track and of obstacle-track" in refusal("anomaly-track", root)


def test_wrong_root__is_not_sent_to_another_sets_folder(tmp_path):
    write(tmp_path / "FS_LostFound_full", "01")
    said = refusal("fishyscapes-static", tmp_path)
    assert "it looks as if" not in said
    write(tmp_path / "deeper/fs_static", "01")
    assert f"it looks as if {tmp_path / 'deeper'} were the root" in refusal("fishyscapes-static", tmp_path)


@pytest.mark.slow
def test_drawn_scenes__open_as_what_they_are_drawn_as(tmp_path):
    for layout in ("anomaly-track", "obstacle-track", "fishyscapes-static"):
        root = write_scenes(tmp_path / layout, layout, 10, size=None if layout == "fishyscapes-static" else (64, 96))
        assert len(open_dataset(layout, root).frames) == 10


def test_suite__prints_no_row_of_another_sets_frames(tmp_path, capsys):
    root = write(tmp_path / "dataset_AnomalyTrack", ["validation0000"])
    said = fails(capsys, "benchmark", "--suite", "smiyc-val", "--root", root, "--out", tmp_path / "bench")
    assert "obstacle-track: " in said and "looks like anomaly-track" in said
    assert not (tmp_path / "bench").exists()
    assert run(capsys, "datasets", "--dataset", "anomaly-track", "--root", root)[0] == 0
    said = fails(capsys, "datasets", "--dataset", "road-anomaly", "--root", root)
    assert "looks like anomaly-track" in said


def test_real_data__still_opens_and_is_nobody_elses(real_data, tmp_path):
    own = {
        "anomaly-track": "smiyc/dataset_AnomalyTrack",
        "obstacle-track": "smiyc/dataset_ObstacleTrack",
        "fishyscapes-static": "Validation_Dataset/fs_static",
    }
    for name, folder in own.items():
        count = {"anomaly-track": 10}.get(name, 30)
        for root in (real_data / folder, (real_data / folder).parent):
            assert len(open_dataset(name, root).labelled().frames) == count
        for other in set(PLAIN) - {name}:
            assert f"looks like {name}" in refusal(other, real_data / folder)
        copy = tmp_path / name
        for d in ("images", "labels_masks"):
            (copy / d).mkdir(parents=True)
            for i, path in enumerate(sorted((real_data / folder / d).iterdir())):
                shutil.copy(path, copy / d / f"{i}{path.suffix}")
        assert len(open_dataset(name, copy).labelled().frames) == count
        shutil.rmtree(copy)
