"""The recipe whose steps are compared, and the comparison."""

import sys

import pytest
import torch
from safetensors.torch import load_file

from xenomask.models import build
from xenomask.train import TrainConfig
from xenomask.train.config import Augment, Data, Optim
from xenomask.train.records import read_scalars

TOML = """
preset = "tiny"
work_dir = "{work}"
seed = 3
save_every = 2
log_every = 1
threads = 1
val_every = 100
[data]
dataset = "folder"
train = "{scenes}"
[augment]
short_edge = [48, 64, 80]
crop = [32, 64]
[optim]
iterations = {iterations}
batch = 4
"""


def recipe(scenes, work_dir, iterations=3, optim=None, **changes) -> TrainConfig:
    return TrainConfig(
        preset="tiny", work_dir=work_dir, seed=3, save_every=2, threads=1, val_every=100, log_every=1,
        data=Data(dataset="folder", train=scenes),
        augment=Augment(short_edge=(48, 64, 80), crop=(32, 64)),
        optim=Optim(iterations=iterations, batch=4, **(optim or {})),
    ).model_copy(update=changes)  # fmt: skip


def weights(folder):
    return load_file(folder / "model.safetensors")


def build_weights():
    """Those that every run of `recipe` starts with."""
    torch.manual_seed(3)
    return build("tiny").module.state_dict()


def command(config, processes=1):
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    return [sys.executable, *launch, "-m", "xenomask.cli", "train", str(config), "--device", "cpu"]


def same_run(one, two):
    """Losses and gradients agree to float32 rounding, and so do the weights, but for a few.

    AdamW divides a gradient by its own size: where it is 0 but for rounding (the biases of attention's keys), the
    weights' steps are arbitrary. So the distance is taken over all weights, relative to the way that they went.
    """
    for a, b in zip(read_scalars(one), read_scalars(two), strict=True):
        assert a["step"] == b["step"]
        # later steps differ by what the arbitrary ones did
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-6 if a["step"] == 1 else 1e-3)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4 if a["step"] == 1 else 1e-2)
    start = build_weights()
    w, v = weights(one / "iter_3"), weights(two / "iter_3")
    assert w.keys() == v.keys() == start.keys()
    gone = sum(float((w[k] - start[k]).double().square().sum()) for k in w if w[k].is_floating_point())
    apart = sum(float((w[k] - v[k]).double().square().sum()) for k in w)
    assert gone > 0 and (apart / gone) ** 0.5 < 0.03
