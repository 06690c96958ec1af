"""A run that goes on: a changed recipe takes effect and is told, or is refused; a user's own folders are left alone."""

import json
import logging
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.cli import fails
from helpers.cli import run as command
from helpers.recipes import TOML, recipe
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.models import Preprocess, load
from xenomask.train import TrainConfig, read_config, train
from xenomask.train.batches import Batches
from xenomask.train.config import Augment, Exposure, Optim
from xenomask.train.cutouts import Cutout, list_cutouts
from xenomask.train.engine import Engine
from xenomask.train.paste import paste
from xenomask.types import Sample


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 3, size=(64, 96))


@pytest.fixture(scope="module")
def half(scenes, tmp_path_factory) -> Path:
    """A run of four steps that stopped after its second."""
    folder = tmp_path_factory.mktemp("half") / "w"
    train(short(scenes, folder, iterations=2))
    # as a signal leaves it: the recipe says four
    card = folder / "iter_2/xenomask.json"
    table = json.loads(card.read_text())
    table["trained"]["optim"]["iterations"] = 4
    card.write_text(json.dumps(table))
    return folder


def short(scenes, folder, **changes) -> TrainConfig:
    own = {k: changes.pop(k) for k in list(changes) if k in Optim.model_fields}
    config = recipe(scenes, folder, val_every=100, **changes)
    config = config.model_copy(update={"data": config.data.model_copy(update={"val": None}), "log_every": 1})
    return config.model_copy(update={"optim": Optim(**{"iterations": 4, "batch": 2, "warmup": 0, **own})})


@pytest.fixture
def run(half, tmp_path) -> Path:
    return Path(shutil.copytree(half, tmp_path / "w"))


@pytest.fixture
def groups(monkeypatch) -> list[dict]:
    """The optimizer's parameter groups as they were after each resume."""
    seen, restore = [], Engine.restore

    def spied(self, module, optimizer, state):
        restore(self, module, optimizer, state)
        inner = getattr(optimizer, "optimizer", optimizer)
        seen.append([{k: g[k] for k in ("initial_lr", "weight_decay")} for g in inner.param_groups])
        assert all(len(inner.state[p]) for g in inner.param_groups for p in g["params"])

    monkeypatch.setattr(Engine, "restore", spied)
    return seen


@pytest.mark.parametrize(
    ("change", "rates", "decays"),
    [
        ({}, {4e-4, 1e-4}, {0, 0.05}), ({"lr": 2e-3}, {2e-3, 5e-4}, {0, 0.05}),
        ({"backbone_lr": 0.5}, {4e-4, 2e-4}, {0, 0.05}), ({"backbone_lr": 1.0}, {4e-4}, {0, 0.05}),
        ({"weight_decay": 0.2}, {4e-4, 1e-4}, {0, 0.2}), ({"weight_decay": 0.0}, {4e-4, 1e-4}, {0}),
    ],
)  # fmt: skip
def test_resume__rates_and_decay_are_the_recipes(run, scenes, groups, change, rates, decays):
    train(short(scenes, run, **change))
    ((*found,),) = groups
    assert sorted({g["initial_lr"] for g in found}) == pytest.approx(sorted(rates))
    assert {g["weight_decay"] for g in found} == decays


@pytest.mark.slow
def test_resume__of_the_same_recipe_ends_with_the_unbroken_runs_weights(scenes, tmp_path):
    whole = train(short(scenes, tmp_path / "a", save_every=2, keep=2))
    (tmp_path / "b").mkdir()
    shutil.copytree(tmp_path / "a/iter_2", tmp_path / "b/iter_2")
    (tmp_path / "b/last_checkpoint").write_text("iter_2\n")
    resumed = train(short(scenes, tmp_path / "b", save_every=2, keep=2))
    a, b = (load(folder).module.state_dict() for folder in (whole, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert load(resumed).facts["history"] == [{"from_step": 0}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("optim.lr", {"lr": 1e-2}), ("optim.iterations", {"iterations": 3}), ("optim.iterations", {"iterations": 6}),
        ("optim.weight_decay", {"weight_decay": 0.3}), ("seed", {"seed": 9}), ("optim.power", {"power": 2.0}),
    ],
)  # fmt: skip
def test_resume__a_change_takes_effect_is_logged_and_recorded(run, scenes, tmp_path, caplog, key, change):
    (tmp_path / "same").mkdir()
    same = train(short(scenes, shutil.copytree(run, tmp_path / "same", dirs_exist_ok=True)))
    with caplog.at_level(logging.INFO):
        folder = train(short(scenes, run, **change))
    assert f"from step 2 on: {key} = " in caplog.text
    facts = load(folder).facts
    assert facts["history"][0] == {"from_step": 0} and facts["history"][1]["from_step"] == 2
    assert list(facts["history"][1]["changed"]) == [key]
    old = load(same)
    assert old.facts["history"] == [{"from_step": 0}]
    weights = [n.module.state_dict() for n in (old, load(folder))]
    assert any(not torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_resume__changes_of_several_launches_are_kept(run, scenes):
    train(short(scenes, run, lr=1e-3, iterations=3))
    folder = train(short(scenes, run, lr=1e-3, iterations=4, batch=1))
    history = load(folder).facts["history"]
    assert [h["from_step"] for h in history] == [0, 2, 3]
    assert history[1]["changed"] == {"optim.lr": [4e-4, 1e-3], "optim.iterations": [4, 3]}
    assert history[2]["changed"] == {"optim.iterations": [3, 4], "optim.batch": [2, 1]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "nano-s"}, ['preset = "nano-s", was "tiny"']), ({"queries": 5}, ["queries = 5, was none"]),
        ({"init": Path("x")}, ['init = "x", was none']),
        ({"preset": "nano-s", "queries": 5}, ["preset", "queries = 5"]),
        ({"exposure": Exposure(tune=("class_predictor",))}, ["exposure.tune = ['class_predictor'], was none"]),
        ({"iterations": 1}, ["optim.iterations = 1, was 4"]),
        ({"iterations": 2}, ["is at its end", "optim.iterations = 2, was 4"]),
    ],
)  # fmt: skip
def test_resume__what_cannot_take_effect_is_refused_in_one_line(run, scenes, change, said):
    before = sorted(run.iterdir())
    with pytest.raises(XenomaskError) as e:
        train(short(scenes, run, **change))
    text = str(e.value)
    assert "\n" not in text and all(s in text for s in said) and "iter_2" in text, text
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize(
    "change", [{"preset": "nano-s"}, {"lr": 1e-2}, {"seed": 5}, {"iterations": 3}, {"preset": "nano-l", "queries": 7}]
)
def test_finished__another_recipe_does_not_say_trained(run, scenes, change):
    train(short(scenes, run))
    assert train(short(scenes, run, log_every=7, keep=9, workers=1)).name == "iter_4"  # decides no number
    with pytest.raises(XenomaskError, match="is at its end"):
        train(short(scenes, run, **change))


def test_finished__other_classes_do_not_say_trained(run, scenes, tmp_path):
    train(short(scenes, run))
    (tmp_path / "map.toml").write_text('classes = ["a", "b"]\n[ids]\n0 = "a"\n1 = "b"\n')
    own = short(scenes, run)
    with pytest.raises(XenomaskError, match="knows 19 classes, this run 2"):
        train(own.model_copy(update={"data": own.data.model_copy(update={"labels": tmp_path / "map.toml"})}))


def test_work_dir__a_users_own_folders_and_files_do_no_harm_and_come_to_none(run, scenes):
    own = ["iter_10.bak", "iter_x", "iter_", "iter_02", "best_mIoU_iter_5.bak", ".notes.old", ".mine.part.txt"]
    for name in own:
        (run / name).mkdir()
        (run / name / "keep").write_text("mine")
    (run / "iter_99").write_text("a file")
    config = short(scenes, run, save_every=1, keep=1)
    train(config.model_copy(update={"data": config.data.model_copy(update={"val": scenes, "val_frames": 1})}))
    assert all((run / name / "keep").read_text() == "mine" for name in own) and (run / "iter_99").is_file()
    assert sorted(p.name for p in run.glob("iter_?")) == ["iter_4", "iter_x"]


def test_work_dir__litter_of_a_killed_run_is_removed(run, scenes):
    for path in (run / ".0123abcd.part.iter_3", run / "iter_2/.0123abcd.part.training.pt", run / ".iter_1.old"):
        path.mkdir()
        (path / "x").touch()
    train(short(scenes, run))
    assert not [p for p in run.rglob(".*")]


def test_checkpoint__is_on_the_disk_with_its_folder_before_it_is_named(scenes, tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def spied(handle):
        events.append(("sync", os.path.realpath(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def renamed(a, b):
        events.append(("name", str(b)))
        replace(a, b)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to know which file a descriptor is of")
    monkeypatch.setattr(os, "fsync", spied)
    monkeypatch.setattr(os, "replace", renamed)
    work = tmp_path / "w"
    train(short(scenes, work, iterations=1))
    last = events.index(("name", str(work / "last_checkpoint")))
    before = [Path(p).name if "iter_1" in p else p for kind, p in events[:last] if kind == "sync"]
    assert any("model.safetensors" in p for p in before) and any(p.endswith("training.pt") for p in before)
    assert ("sync", str(work / "iter_1")) in events[:last] and ("sync", str(work)) in events[:last]
    assert ("sync", str(work)) in events[last:]


# --- recipes ---------------------------------------------------------------------------------------------------------

BAD = [
    ("augment", "short_edge", []), ("augment", "short_edge", [0]), ("augment", "short_edge", [-64]),
    ("augment", "short_edge", [64, 10**6]), ("augment", "short_edge", ["64"]), ("augment", "short_edge", [True]),
    ("augment", "crop", [1, 1]), ("augment", "crop", [0, 64]), ("augment", "crop", [32]), ("augment", "crop", [32, -1]),
    ("augment", "crop", [10**6, 64]), ("augment", "longest", 0), ("augment", "longest", 10**9),
    ("augment", "crop_cap", float("nan")), ("data", "resize", [0, 0]), ("data", "resize", [-1, 64]),
    ("data", "val_frames", 0), ("data", "val_frames", True), ("optim", "iterations", 0), ("optim", "iterations", 2**62),
    ("optim", "batch", 0), ("optim", "batch", "2"), ("optim", "batch", 10**9), ("optim", "accumulate", -1),
    ("optim", "lr", float("inf")), ("optim", "lr", float("nan")), ("optim", "lr", 0), ("optim", "lr", 40),
    ("optim", "backbone_lr", -0.1), ("optim", "weight_decay", float("inf")), ("optim", "weight_decay", -1),
    ("optim", "clip", 0), ("optim", "clip", float("inf")), ("optim", "power", float("nan")), ("optim", "warmup", -1),
    ("optim", "ema", 1.0), ("exposure", "weight", float("inf")), ("exposure", "margin", float("nan")),
    ("exposure", "margin", True), (None, "seed", -1), (None, "seed", 2**63), (None, "seed", True), (None, "seed", 1.5),
    (None, "workers", -1), (None, "workers", 10**6), (None, "threads", 0), (None, "keep", 0), (None, "save_every", 0),
    (None, "queries", 0),
]  # fmt: skip


@pytest.mark.parametrize(("table", "key", "value"), BAD, ids=str)
def test_recipe__numbers_that_no_run_has_are_refused_in_one_line(scenes, tmp_path, table, key, value):
    def toml(v):
        return f"[{', '.join(map(toml, v))}]" if isinstance(v, list) else json.dumps(v) if v == v else "nan"

    tables = {"data": {"train": str(scenes)}, "optim": {"iterations": 2}, "augment": {}, "exposure": {}}
    top = {"preset": "tiny", "work_dir": str(tmp_path / "w")}
    (tables[table] if table else top)[key] = value
    lines = [f"{k} = {toml(v)}" for k, v in top.items()]
    for name, own in tables.items():
        lines += [f"[{name}]", *(f"{k} = {toml(v)}".replace("Infinity", "inf") for k, v in own.items())]
    (tmp_path / "r.toml").write_text("\n".join(lines))
    where = f"{table}.{key}" if table else key
    with pytest.raises(XenomaskError, match=where.replace(".", r"\.")) as e:
        read_config(tmp_path / "r.toml")
    assert "\n" not in str(e.value) and str(tmp_path / "r.toml") in str(e.value)


def test_recipe__changed_in_python_is_checked_too(scenes, tmp_path):
    with pytest.raises(XenomaskError, match="seed: .* not -1"):
        train(short(scenes, tmp_path / "w").model_copy(update={"seed": -1}))


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_photo__that_is_damaged_is_one_line_also_from_a_worker(tmp_path, workers):
    root = write_scenes(tmp_path / "scenes", "train-ids", 2, size=(64, 96))
    for path in (root / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(XenomaskError) as e:
        train(short(root, tmp_path / "w", workers=workers))
    assert "\n" not in str(e.value) and "images/" in str(e.value) and "Traceback" not in str(e.value)


def voided(root: Path, keep: int) -> Path:
    """The training folder with all labels but the first `keep` void everywhere."""
    labels = sorted((root / "labels").iterdir())
    for path in labels[keep:]:
        Image.fromarray(np.full((64, 96), 255, np.uint8)).save(path)
    return root


def test_labels__all_void_are_refused(tmp_path):
    root = voided(write_scenes(tmp_path / "scenes", "train-ids", 3, size=(64, 96)), 0)
    with pytest.raises(XenomaskError, match=r"no label of folder at .* \(3 frames\) holds a class"):
        train(short(root, tmp_path / "w"))
    good = write_scenes(tmp_path / "good", "train-ids", 2, size=(64, 96))
    config = short(good, tmp_path / "w")
    with pytest.raises(XenomaskError, match="no label of folder"):
        train(config.model_copy(update={"data": config.data.model_copy(update={"val": root})}))


def test_crops__without_a_labelled_pixel_are_left_out(tmp_path):
    root = voided(write_scenes(tmp_path / "scenes", "train-ids", 3, size=(64, 96)), 1)
    source = Batches(open_dataset("folder", root, coding="train_ids"), Augment(short_edge=(64,), crop=(32, 64)),
                     Preprocess(), 3, seed=1)  # fmt: skip
    for step in range(4):
        batch = source[step]
        assert (batch["labels"] < 254).flatten(1).any(1).all() and len(set(batch["ids"])) == 1
        assert torch.equal(batch["labels"], source[step]["labels"])


def test_crops__that_never_hold_a_label_are_an_error(tmp_path):
    root = write_scenes(tmp_path / "scenes", "train-ids", 1, size=(640, 960))
    label = np.full((640, 960), 255, np.uint8)
    label[0, 0] = 1  # nearly no crop holds it
    Image.fromarray(label).save(next((root / "labels").iterdir()))
    source = Batches(open_dataset("folder", root, coding="train_ids"), Augment(short_edge=(640,), crop=(16, 16)),
                     Preprocess(), 1, seed=1)  # fmt: skip
    with pytest.raises(XenomaskError, match="20 crops in a row hold no labelled pixel"):
        source[0]


def test_cutouts__oversized_ones_are_refused_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("xenomask.train.cutouts.MOST", 100 * 100)
    Image.new("RGBA", (101, 100)).save(tmp_path / "big.png")
    with pytest.raises(XenomaskError, match="big.png is 101x100, too large for a cut-out"):
        list_cutouts(tmp_path)
    (tmp_path / "big.png").write_bytes(b"none")
    with pytest.raises(XenomaskError, match="big.png is not an image"):
        list_cutouts(tmp_path)


@pytest.mark.parametrize("limit", ["ours", "Pillow's"])
def test_cutouts__a_photo_with_an_outlined_object_that_is_oversized(tmp_path, monkeypatch, limit):
    Image.new("RGB", (200, 150)).save(tmp_path / "bomb.png")
    monkeypatch.setattr("xenomask.train.cutouts.MOST" if limit == "ours" else "PIL.Image.MAX_IMAGE_PIXELS", 100)
    with pytest.raises(XenomaskError) as e:
        Cutout(tmp_path / "bomb.png", ((0.0, 0.0, 9.0, 0.0, 9.0, 9.0),)).read()
    assert "\n" not in str(e.value) and "bomb.png" in str(e.value)


def test_paste__a_strip_takes_no_more_memory_than_the_photo_is_worth(tmp_path, monkeypatch):
    Image.new("RGBA", (4000, 2), (255, 0, 0, 255)).save(tmp_path / "strip.png")
    sizes, resize = [], cv2.resize

    def spied(image, size, **options):
        sizes.append(size)
        return resize(image, size, **options)

    monkeypatch.setattr("xenomask.train.paste.cv2.resize", spied)
    sample = Sample(np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8), "a", "d")
    for seed in range(5):
        paste(sample, list_cutouts(tmp_path), seed)
    assert max(w for w, _ in sizes) <= 2000 and sizes


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_train__labels_beyond_a_byte_are_void_as_the_map_says(dtype, scenes, tmp_path, capsys):
    """Cityscapes' instance ids: trained on the same numbers, step by step, as with the void of 8-bit labels."""
    maps = 'classes = ["a", "b", "c"]\nother = "void"\n[ids]\n7 = "a"\n26 = "b"\n11 = "c"\n'
    (tmp_path / "map.toml").write_text(maps)
    weights = {}
    for kind in ("bytes", "wide"):
        root = Path(shutil.copytree(scenes, tmp_path / kind))
        for path in (root / "labels").iterdir():
            label = np.array(Image.open(path)).astype(np.int64)
            ids = np.choose(label % 4, [7, 26, 11, 0 if kind == "bytes" else 26001])
            path.unlink()
            Image.fromarray(ids.astype(np.uint8 if kind == "bytes" else dtype)).save(path.with_suffix(".tif"))
        recipe_text = TOML.format(work=tmp_path / f"w-{kind}", scenes=root).replace("iterations = 12", "iterations = 2")
        recipe_text = recipe_text.replace("[augment]", f'labels = "{tmp_path}/map.toml"\n[augment]')
        (tmp_path / "recipe.toml").write_text(recipe_text)
        code, _, err = command(capsys, "train", tmp_path / "recipe.toml", "--device", "cpu")
        assert code == 0, err
        weights[kind] = load_file(tmp_path / f"w-{kind}/iter_2/model.safetensors")
    assert all(torch.equal(v, weights["wide"][k]) for k, v in weights["bytes"].items())
    # without that word they are refused, by name and number
    (tmp_path / "map.toml").write_text(maps.replace('other = "void"\n', 'other = "error"\n'))
    (tmp_path / "recipe.toml").write_text(recipe_text.replace("w-wide", "w-strict"))
    said = fails(capsys, "train", tmp_path / "recipe.toml", "--device", "cpu")
    assert "holds the values [26001]" in said and 'other = "void"' in said
