"""What the documentation's commands take for their reader's: photos, data sets, networks, maps, small and drawn."""

import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from helpers.catalogue import COPIES, ROWS
from helpers.detectron2 import Checkpoint, plain, written
from helpers.detectron2_config import DUMPED
from helpers.places import ROOT
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.detector.folder import assemble
from xenomask.models import build, load
from xenomask.models.network import with_outlier_class
from xenomask.predict.photos import score_dataset
from xenomask.queries import analyse_inlier, analyse_outlier, write_queries
from xenomask.store import MapFolder, map_ids
from xenomask.types import QuerySet

MMSEG = ROOT / "tests/golden/mmseg"
SIZE = (64, 96)
RECIPE = """
preset = "tiny"
work_dir = "trained/{name}"
threads = 1
[data]
dataset = "folder"
train = "cityscapes_256/val"
resize = [64, 96]
[augment]
short_edge = [48, 80]
crop = [32, 64]
[optim]
iterations = 2
batch = 2
"""


def build_stage(root: Path) -> Path:
    """Fills the folder with everything that a page's commands may name; takes seconds."""
    _photos(root)
    _data_sets(root)
    _networks(root)
    _recipes(root)
    _foreign(root)
    _maps(root)
    return root


def copy_for(page: Path, stage: Path, made: set[str]) -> None:
    """The stage again in `page`, as links: files are replaced, never changed. What the page makes is left out."""
    shutil.copytree(stage, page, copy_function=os.link, dirs_exist_ok=True)
    for name in made:
        shutil.rmtree(page / name, ignore_errors=True)
        (page / name).unlink(missing_ok=True)


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _photos(root: Path) -> None:
    for i, name in enumerate(("street.jpg", "photo.jpg")):
        _save(root / name, draw_scene(i, (410, 650)).image)
    for i in range(3):
        _save(root / f"photos/{i}.jpg", draw_scene(i, SIZE).image)
        _save(root / f"frames/{i}.png", draw_scene(i, SIZE).image)
    clip = cv2.VideoWriter(str(root / "drive.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10.0, SIZE[::-1])
    for i in range(3):
        clip.write(draw_scene(i, SIZE).image)
    clip.release()


def _data_sets(root: Path) -> None:
    for layout in ("anomaly-track", "obstacle-track"):
        write_scenes(root / "data/smiyc", layout, 3, size=SIZE)
    write_scenes(root / "smiyc", "anomaly-track", 3, size=SIZE)
    write_scenes(root / "cityscapes_256/val", "train-ids", 2, size=SIZE)
    # every other data set with its own file names and label values, a frame's rows made as large as a drawing
    for copy in COPIES:
        base = root / "data" / copy.name
        row = np.array(ROWS[copy.coding][0], np.uint8)
        # what the tests of the catalogue have in "test" alone is in "val", the default, too
        for split in {"test", "val" if copy.name == "small-obstacle" else "test"}:
            for i, name in enumerate(copy.ids):
                photo, label = (p.format(name).replace("test/", f"{split}/", 1) for p in (copy.photo, copy.label))
                _save(base / photo, draw_scene(i, SIZE).image)
                _save(base / label, np.tile(np.repeat(row, 96 // len(row) + 1)[:96], (64, 1)))
    shutil.copytree(root / "smiyc", root / "data/Validation_Dataset")


def _networks(root: Path) -> None:
    inside = open_dataset("folder", root / "cityscapes_256/val", coding="train_ids")
    outside = open_dataset("anomaly-track", root / "data/smiyc")
    for seed, name in enumerate(("CK_S", "CK_L")):
        torch.manual_seed(seed)
        network = load(build("tiny").save(root / name))
        queries, _ = analyse_inlier(network.predict, inside, QuerySet(network.sha256), confidence=0.0, ratio=0.1)
        write_queries(root / name, analyse_outlier(network.predict, outside, queries, mask_threshold=0.5, top_k=2))
    copies = {
        "CK": "CK_S",
        "checkpoints/swin-s": "CK_S",
        "checkpoints/swin-l": "CK_L",
        "work_dirs/nano-s/iter_3000": "CK_S",
    }
    for name, source in copies.items():
        shutil.copytree(root / source, root / name)
    members = [("nano-s", root / "CK_S"), ("nano-l", root / "CK_L")]
    # a folder of that name is taken before the shipped detector
    for name in ("nano", "nano-general", "nano-int8", "my-detector"):
        thresholds = {k: {"value": v, "origin": ""} for k, v in (("default", 0.4), ("low", 0.6))}
        assemble(root / name, name, members, [0.5, 0.5], "maskomaly", thresholds=thresholds)
    with_outlier_class(build("tiny")).save(root / "CK_U")
    assemble(root / "my-uno-detector", "my-uno-detector", [("u", root / "CK_U")], [1.0], "uno")


def _recipes(root: Path) -> None:
    for path in (ROOT / "configs").glob("*.toml"):
        (root / "configs").mkdir(exist_ok=True)
        (root / "configs" / path.name).write_text(RECIPE.format(name=path.stem))


def _foreign(root: Path) -> None:
    """Other projects' files, as convert takes them."""
    for path in (ROOT / "configs").glob("mask2former*.toml"):
        run = root / "work_dirs" / path.stem
        run.mkdir(parents=True)
        shutil.copy(MMSEG / "random_micro.pth", run / "iter_6.pth")
        shutil.copy(MMSEG / "config.py", run / f"{path.stem}.py")
        (run / "last_checkpoint").write_text("/its/own/machine/iter_6.pth")
    shutil.copy(MMSEG / "random_micro.pth", root / "mask2former_swin-l.pth")
    (root / "configs/mask2former").mkdir()
    shutil.copy(MMSEG / "config.py", root / "configs/mask2former/swin-l.py")
    for name in ("model_final.pkl", "model_final_17c1ee.pkl"):
        written(root / name, plain(Checkpoint(queries=100)))
    (root / "config.yaml").write_text(re.sub(r"(NUM_OBJECT_QUERIES:) \d+", r"\1 100", DUMPED))


def _maps(root: Path) -> None:
    detector, data = Detector.from_folder(root / "nano"), open_dataset("anomaly-track", root / "data/smiyc")
    for name in ("at", "ours", "maskomaly"):
        score_dataset(detector, data, root / "maps" / name)
    for name in ("theirs", "max_logit"):
        score_dataset(detector.with_score("max_logit"), data, root / "maps" / name)
    (root / "maps/mine").mkdir()
    for i in map_ids(root / "maps/at"):
        np.save(root / f"maps/mine/{i}_score.npy", MapFolder(root / "maps/at").read(i))
    (root / "at.json").write_text(json.dumps({"exact": {"aupr_sum": 0.5}}))
