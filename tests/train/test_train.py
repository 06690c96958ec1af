import os
import signal
import subprocess
import sys
import time
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.places import ROOT
from helpers.recipes import TOML, recipe
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.models import Preprocess, build, load
from xenomask.train import read_config, train
from xenomask.train.batches import Batch, Batches, indices
from xenomask.train.config import Augment, Optim
from xenomask.train.cutouts import list_cutouts
from xenomask.train.droppath import own_paths
from xenomask.train.engine import open_engine
from xenomask.train.init import load_imagenet_lite
from xenomask.train.optim import parameter_groups
from xenomask.train.paste import _place, paste
from xenomask.train.records import Records, read_scalars
from xenomask.train.state import last_step, save_state
from xenomask.train.step import Run, train_step
from xenomask.types import OUTLIER, Sample


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 3, size=(64, 96))


def test_train__ends_with_a_checkpoint_log_and_scalars(scenes, tmp_path):
    folder = train(recipe(scenes, tmp_path / "w"))
    assert folder == tmp_path / "w" / "iter_6"
    *named, launch = sorted((p.name for p in (tmp_path / "w").iterdir()), key=lambda n: (n[:2] == "20", n))
    assert named[0] in ("best_mIoU_iter_4", "best_mIoU_iter_6")
    assert named[1:] == ["iter_4", "iter_6", "last_checkpoint"]
    files = sorted(str(p.relative_to(tmp_path / "w" / launch)) for p in (tmp_path / "w" / launch).rglob("*.*"))
    assert files == [f"{launch}.log", f"vis_data/{launch}.json", "vis_data/config.json", "vis_data/scalars.json"]
    network = load(folder)
    assert network.facts["preset"] == "tiny" and 0 <= network.facts["val_miou"] <= 1
    assert network.facts["trained"]["optim"]["iterations"] == 6
    assert [r["step"] for r in read_scalars(tmp_path / "w") if "mIoU" in r] == [4, 6]
    assert train(recipe(scenes, tmp_path / "w")) == folder  # nothing left to do


def test_train__as_many_queries_as_the_recipe_says(scenes, tmp_path):
    few = recipe(scenes, tmp_path / "w", queries=3, optim=Optim(iterations=2, batch=2))
    network = load(train(few))
    class_logits, mask_logits = network(torch.zeros(1, 3, 32, 64))
    assert class_logits.shape[1] == mask_logits.shape[1] == 3
    on = recipe(scenes, tmp_path / "on", init=tmp_path / "w" / "iter_2", optim=Optim(iterations=2, batch=2))
    with pytest.raises(XenomaskError, match="shape"):
        train(on)
    assert train(on.model_copy(update={"queries": 3})).is_dir()


EXPOSED = """
[exposure]
loss = "mask2anomaly"
tune = ["transformer_module", "class_predictor"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["plain", "exposed"])
def test_train__killed_and_resumed_gives_the_unbroken_weights(stage, scenes, tmp_path):
    toml = TOML
    if stage == "exposed":
        cutout = np.full((20, 20, 4), 255, np.uint8)
        Image.fromarray(cutout).save(tmp_path / "thing.png")
        toml = TOML.replace("crop =", f'paste = "{tmp_path}"\ncrop =') + EXPOSED
    runs = {}
    for name in ("unbroken", "killed"):
        (tmp_path / f"{name}.toml").write_text(toml.format(work=tmp_path / name, scenes=scenes))
        runs[name] = [sys.executable, "-m", "xenomask.cli", "train", str(tmp_path / f"{name}.toml")]
    subprocess.run(runs["unbroken"], check=True, capture_output=True)
    # three times: started, killed with SIGKILL as soon as a further checkpoint is there
    for _ in range(3):
        before = set(tmp_path.glob("killed/iter_*"))
        with subprocess.Popen(runs["killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                if len(set(tmp_path.glob("killed/iter_*")) - before) >= 1:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.005)
    subprocess.run(runs["killed"], check=True, capture_output=True)
    one, two = (load_file(tmp_path / name / "iter_12/model.safetensors") for name in runs)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    steps = [row["step"] for row in read_scalars(tmp_path / "killed")]
    assert len(steps) == len(set(steps))
    assert os.listdir(tmp_path / "killed").count("last_checkpoint") == 1


def test_batches__depend_on_seed_and_step_alone(scenes):
    data = open_dataset("folder", scenes, coding="train_ids")
    batches = Batches(data, Augment(short_edge=(48, 64, 80), crop=(32, 64)), Preprocess(), 2, seed=1)
    torch.manual_seed(123)
    one = batches[5]
    torch.rand(7)
    two = batches[5]
    assert torch.equal(one["pixel_values"], two["pixel_values"])
    assert not torch.equal(one["pixel_values"], batches[6]["pixel_values"])
    assert one["pixel_values"].shape == (2, 3, 32, 64)
    assert one["labels"].shape == (2, 32, 64) and one["labels"].dtype == torch.uint8
    assert torch.equal(one["labels"], two["labels"])
    assert ((one["labels"] < 19) | (one["labels"] == 255)).all() and (one["labels"] != 255).any()


def test_indices__each_epoch_holds_every_frame_once():
    drawn = [i for step in range(7) for i in indices(0, step, batch=3, frames=7)]
    assert [sorted(drawn[e * 7 : e * 7 + 7]) for e in range(3)] == [list(range(7))] * 3
    assert drawn[:7] != drawn[7:14]


@pytest.mark.parametrize("name", ["tiny", "nano-s"])
def test_parameter_groups__hold_every_parameter_once(name):
    network = build(name)
    o = Optim(iterations=1, lr=1e-3, backbone_lr=0.1, weight_decay=0.05)
    groups = parameter_groups(network.module, o)
    ids = [id(p) for g in groups for p in g["params"]]
    assert len(ids) == len(set(ids)) == len(list(network.module.parameters()))
    where = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    for full, p in network.module.named_parameters():
        backbone = full.startswith("model.pixel_level_module.encoder.")
        assert where[id(p)][0] == pytest.approx(1e-4 if backbone else 1e-3), full
        assert where[id(p)][1] == 0.05 or p.ndim == 1 or "embed" in full or "queries" in full or "table" in full, full


def test_parameter_groups__of_swin_s_count_as_in_the_recipe():
    """Counted by hand from the architecture: Swin-S, six pixel decoder layers, nine decoder layers, 256 wide."""
    o = Optim(iterations=1, lr=1e-4, backbone_lr=0.1, weight_decay=0.05)
    groups = {(g["lr"], g["weight_decay"]): g["params"] for g in parameter_groups(build("swin-s").module, o)}
    assert sorted(groups) == [(1e-5, 0.0), (1e-5, 0.05), (1e-4, 0.0), (1e-4, 0.05)]
    widths, depths, heads = (96, 192, 384, 768), (2, 2, 18, 2), (3, 6, 12, 24)
    norms = 2 * 96  # after the patches
    norms += sum(d * 2 * 2 * w for d, w in zip(depths, widths, strict=True))  # two a block
    norms += sum(2 * 4 * w for w in widths[:3])  # before each patch merging
    norms += sum(2 * w for w in widths)  # on the four outputs
    norms += 2 * widths[-1]  # transformers' last one, which nothing calls
    tables = sum(d * 13 * 13 * h for d, h in zip(depths, heads, strict=True))
    assert sum(p.numel() for p in groups[1e-5, 0.0]) == norms + tables
    # head: GroupNorms of three projections, one adapter, one output layer; two LayerNorms an encoder layer, three a
    # decoder layer, one on the outputs; query features and positions, levels of encoder and decoder
    norms = 2 * 256 * (3 + 1 + 1) + 6 * 2 * 2 * 256 + 9 * 3 * 2 * 256 + 2 * 256
    embeddings = 2 * 100 * 256 + 3 * 256 + 3 * 256
    assert sum(p.numel() for p in groups[1e-4, 0.0]) == norms + embeddings


def test_train_step__a_crop_without_any_label_still_trains(scenes, tmp_path):
    config = recipe(scenes, tmp_path)
    engine = open_engine(config, "cpu")
    network = build("tiny")
    module, optimizer = engine.prepare(network.module, config)
    run = Run(config, engine, network, module, optimizer, None, own_paths(network.module), Records(None))
    batch: Batch = {
        "pixel_values": torch.zeros(2, 3, 32, 64),
        "labels": torch.stack(
            [torch.full((32, 64), 255, dtype=torch.uint8), torch.full((32, 64), 4, dtype=torch.uint8)]
        ),
        "places": [0, 1],
        "ids": ["a", "b"],
    }
    loss, norm, stop = train_step(run, batch, 0)
    engine.close()
    assert not stop
    assert np.isfinite([loss, norm]).all()


@pytest.mark.slow
def test_train__loss_falls(scenes, tmp_path):
    config = recipe(scenes, tmp_path, optim=Optim(iterations=40, batch=2, lr=3e-3, warmup=2), val_every=1000)
    train(config.model_copy(update={"data": config.data.model_copy(update={"val": None}), "save_every": 1000}))
    losses = [row["loss"] for row in read_scalars(tmp_path)]
    torch.manual_seed(0)
    assert losses[-1] < 35 < 50  # transformers' loss of this network starts near 50


def test_train__divergence_stops_and_keeps_the_last_checkpoint(scenes, tmp_path, monkeypatch):
    calls = []

    def poisoned(run, batch, step):
        calls.append(step)
        if step == 3:
            batch["pixel_values"] *= torch.nan
        return train_step(run, batch, step)

    monkeypatch.setattr("xenomask.train.loop.train_step", poisoned)
    with pytest.raises(XenomaskError, match=r"step 3, frames 000\d, 000\d: training diverged"):
        train(recipe(scenes, tmp_path))
    assert load(tmp_path / "iter_2").facts["preset"] == "tiny"
    assert not (tmp_path / "iter_4").exists()


def test_read_config__the_recipes_in_the_repository():

    for path in sorted((ROOT / "configs").glob("*.toml")):
        assert read_config(path).preset in path.stem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sed = 3", r"unknown key 'sed'; did you mean 'seed'\?"),
        ("batch = 2", "batchsize = 2", r"unknown key in \[optim\] 'batchsize'; did you mean 'batch'\?"),
        ("batch = 2", "batch = 0", "optim.batch: Input should be greater than or equal to 1"),
        ("iterations = 12", "", "optim.iterations: Field required"),
        ("seed = 3", "seed =", "not valid TOML"),
        ("[optim]", "[exposure]\nlos = 1\n[optim]", r"unknown key in \[exposure\] 'los'; did you mean 'loss'\?"),
    ],
)
def test_read_config__misspelt_and_impossible(tmp_path, old, new, message):
    path = tmp_path / "c.toml"
    path.write_text(TOML.replace(old, new))
    with pytest.raises(XenomaskError, match=message):
        read_config(path)
    with pytest.raises(XenomaskError, match="no such recipe"):
        read_config(tmp_path / "nowhere.toml")


def test_train__labels_outside_the_classes_are_named(tmp_path):
    root = write_scenes(tmp_path / "d", "train-ids", 1, size=(64, 96))
    Image.fromarray(np.full((64, 96), 19, np.uint8)).save(root / "labels/0000.png")
    with pytest.raises(XenomaskError, match=r"0000.png holds the values \[19\]"):
        train(recipe(root, tmp_path / "w"))


def test_load_imagenet_lite__matches_by_order_and_shape(tmp_path):
    backbone: Any = build("nano-s").module.get_submodule("model.pixel_level_module.encoder._backbone")
    own = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    g = torch.Generator().manual_seed(0)
    theirs = {f"_{i}.weight": torch.rand(v.shape, generator=g) for i, v in enumerate(own.values())}
    theirs["_fc.weight"] = torch.rand(1000, 1280)
    torch.save(theirs, tmp_path / "lite.pth")
    load_imagenet_lite(backbone, tmp_path / "lite.pth")
    assert all(torch.equal(a, b) for a, b in zip(own.values(), theirs.values(), strict=False))
    torch.save(dict(reversed(theirs.items())), tmp_path / "other.pth")
    with pytest.raises(XenomaskError, match="does not fit this backbone"):
        load_imagenet_lite(backbone, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("x")
    with pytest.raises(XenomaskError, match="text.pth is no file of torch.save"):
        load_imagenet_lite(backbone, tmp_path / "text.pth")
    with (
        zipfile.ZipFile(tmp_path / "lite.pth") as whole,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in whole.namelist():
            packed.writestr(entry, whole.read(entry))
    with pytest.raises(XenomaskError, match="packed.pth is a compressed zip"):  # forty megabytes of zeros in forty KB
        load_imagenet_lite(backbone, tmp_path / "packed.pth")
    for value in (torch.nan, torch.inf, 1e300):  # the last is infinite in float32
        first = next(iter(theirs.values())).double()
        torch.save(theirs | {"_0.weight": first.fill_(value)}, tmp_path / "nan.pth")
        with pytest.raises(XenomaskError, match="nan.pth: tensor .* holds NaN or infinity"):
            load_imagenet_lite(backbone, tmp_path / "nan.pth")
    for content in ([torch.ones(2)], {"state_dict": {"a": torch.ones(2)}}):
        torch.save(content, tmp_path / "list.pth")
        with pytest.raises(XenomaskError, match="holds no plain tensors by name"):
            load_imagenet_lite(backbone, tmp_path / "list.pth")


def test_paste__what_is_transparent_lends_no_colour_to_the_edge():
    """A white object, whose file is black where it is transparent, is invisible on white at any size."""
    cutout = np.zeros((200, 200, 4), np.uint8)
    cutout[50:150, 50:150] = 255
    for seed, size in enumerate((0.3, 0.77, 1.9)):  # of 100 rows: smaller than the file, larger than the file's half
        image, label = np.full((300, 300, 3), 255, np.uint8), np.zeros((300, 300), np.uint8)
        _place(image, label, cutout, Augment(paste_least=size, paste_largest=size), np.random.default_rng(seed))
        assert image.min() >= 254 and (label == OUTLIER).any()
    image = np.zeros((300, 300, 3), np.uint8)
    _place(image, label, cutout, Augment(paste_least=0.3, paste_largest=0.3), np.random.default_rng(0))
    assert image.max() == 255 and (image[..., 0] == image[..., 2]).all()


def test_save_state__drops_older_ones_and_never_the_one_it_wrote(tmp_path):
    """A run that begins anew beside the checkpoints of a longer one, as the advice of a damaged one has it."""
    network = build("tiny")
    for step in (2900, 3000):
        save_state(network, network.module.state_dict(), {}, tmp_path, step, keep=2)
    (tmp_path / "last_checkpoint").unlink()
    for step, kept in ((100, [100, 2900, 3000]), (200, [100, 200, 2900, 3000]), (300, [200, 300, 2900, 3000])):
        save_state(network, network.module.state_dict(), {}, tmp_path, step, keep=2)
        assert last_step(tmp_path) == step
        assert sorted(int(p.name.removeprefix("iter_")) for p in tmp_path.glob("iter_*")) == kept


def test_paste__labels_the_strangers_and_depends_on_its_seed_alone(tmp_path):
    cutout = np.zeros((40, 30, 4), np.uint8)
    cutout[..., 0] = 255
    cutout[5:35, 5:25, 3] = 255
    Image.fromarray(cutout).save(tmp_path / "thing_0.png")
    sample = Sample(np.full((64, 128, 3), 90, np.uint8), np.full((64, 128), 3, np.uint8), "a", "drawn")
    files = list_cutouts(tmp_path)
    for seed in range(20):
        one, two = paste(sample, files, seed), paste(sample, files, seed)
        assert one.label is not None and sample.label is not None
        assert np.array_equal(one.image, two.image)
        assert set(np.unique(one.label)) <= {3, 254}
        # red where strange, untouched elsewhere but for the blended edge
        red = (one.image == (255, 0, 0)).all(-1)
        assert (one.label[red] == 254).all()
        assert (one.image[one.label == 254][:, 0] > 150).all()
        assert (sample.label == 3).all() and (sample.image == 90).all()
    with pytest.raises(XenomaskError, match="no cut-out"):
        list_cutouts(tmp_path / "nowhere")
