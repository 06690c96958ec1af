"""However a step is computed (processes, parts, precision, interruptions), it is the same step."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from torch import nn

from helpers.engine_recipes import TOML, build_weights, command, recipe, same_run, weights
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.train import train
from xenomask.train.config import Engine
from xenomask.train.droppath import DropPath, draw_paths
from xenomask.train.engine import open_engine
from xenomask.train.optim import update_average
from xenomask.train.records import read_scalars


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 5, size=(64, 96))


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """Three steps of one process, in one part."""
    work_dir = tmp_path_factory.mktemp("whole")
    return train(recipe(scenes, work_dir)).parent


@pytest.mark.slow
def test_train__in_parts_is_the_whole_batch(scenes, tmp_path, whole):
    train(recipe(scenes, tmp_path, optim={"accumulate": 2}))
    same_run(whole, tmp_path)


@pytest.mark.slow
def test_train__activations_computed_again_change_nothing(scenes, tmp_path, whole):
    train(recipe(scenes, tmp_path, engine=Engine(checkpoint_activations=True)))
    same_run(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp"])
def test_train__two_processes_are_one(scenes, tmp_path, whole, shard):
    path = tmp_path / "c.toml"
    recipe = TOML.format(work=tmp_path / "w", scenes=scenes, iterations=3)
    path.write_text(f"{recipe}[engine]\nshard = {str(shard).lower()}\n")
    done = subprocess.run(command(path, 2), capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    same_run(whole, tmp_path / "w")
    assert len(list((tmp_path / "w").glob("2*"))) == 1  # one of them writes


def test_drop_path__draws_by_image_and_keeps_the_mean():
    layer = nn.Sequential(DropPath(0.3))
    x = torch.ones(1, 2)
    kept = []
    for seed in range(2000):
        draw_paths([layer[0]], [seed], x.device)  # pyright: ignore
        kept.append(float(layer(x)[0, 0]))
    assert {round(v, 4) for v in kept} == {0.0, round(1 / 0.7, 4)}
    assert np.mean(kept) == pytest.approx(1, abs=4 * (0.3 / 0.7 / 2000) ** 0.5)
    draw_paths([layer[0]], [5, 6], x.device)  # pyright: ignore
    assert layer(torch.ones(2, 2))[:, 0].tolist() == pytest.approx([kept[5], kept[6]])
    assert torch.equal(layer.eval()(x), x)


def checkpoints(work_dir):
    return {p.parent.name for p in work_dir.glob("iter_*/training.pt")}


@pytest.mark.slow
def test_train__a_signal_saves_and_the_run_goes_on_as_if_unbroken(scenes, tmp_path):
    (tmp_path / "warned.toml").write_text(TOML.format(work=tmp_path / "warned", scenes=scenes, iterations=30))
    unbroken = train(recipe(scenes, tmp_path / "unbroken", iterations=30, save_every=30))
    for number in (signal.SIGTERM, signal.SIGUSR1):
        before = checkpoints(tmp_path / "warned")
        with subprocess.Popen(command(tmp_path / "warned.toml"), stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                if checkpoints(tmp_path / "warned") - before:  # it is under way
                    process.send_signal(number)
                    break
                time.sleep(0.005)
            said = process.communicate()[1]
        assert process.returncode == 0 and "stopped by a signal" in said, said
    one, two = weights(unbroken), weights(train(recipe(scenes, tmp_path / "warned", iterations=30)))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.slow
def test_train__the_average_is_saved_and_survives_a_resume(scenes, tmp_path):
    """Against the formula on the weights of the same run without an average, whose steps are the same."""
    run = recipe(scenes, tmp_path / "raw", save_every=1, keep=3)
    raw = [weights(train(run).parent / f"iter_{i}") for i in (1, 2, 3)]
    resumed = recipe(scenes, tmp_path / "ema", save_every=1, keep=3, optim={"ema": 0.5})
    train(resumed)
    one, two, three = (weights(tmp_path / f"ema/iter_{i}") for i in (1, 2, 3))
    for k, v in one.items():
        if v.is_floating_point():
            expected = 0.5 * v + 0.5 * raw[1][k]
            assert torch.allclose(two[k], expected, atol=1e-7), k
            assert torch.allclose(three[k], 0.5 * expected + 0.5 * raw[2][k], atol=1e-7), k
    # killed after step 2: what is left is what a kill leaves
    shutil.rmtree(tmp_path / "ema/iter_3")
    (tmp_path / "ema/last_checkpoint").write_text("iter_2\n")
    train(resumed)
    again = weights(tmp_path / "ema/iter_3")
    assert all(torch.equal(again[k], three[k]) for k in three)


def test_update_average__is_the_formula():
    module = torch.nn.Linear(2, 1, bias=False)
    module.weight.data = torch.tensor([[1.0, 3.0]])
    average = {"weight": torch.tensor([[0.0, 1.0]])}
    update_average(average, module, 0.75)
    assert average["weight"].tolist() == [[0.25, 1.5]]


def test_train__in_bf16_the_loss_is_nearly_that_of_float32(scenes, tmp_path):
    losses = []
    for precision in ("no", "bf16"):
        train(recipe(scenes, tmp_path / precision, iterations=1, engine=Engine(precision=precision)))
        losses.append(read_scalars(tmp_path / precision)[-1]["loss"])
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)


def test_train__fp16_on_the_cpu_is_refused(scenes, tmp_path):
    """accelerate would compute in float32 and say nothing."""
    with pytest.raises(XenomaskError, match='precision = "fp16" needs a GPU: on the CPU take "bf16" or "no"'):
        train(recipe(scenes, tmp_path, engine=Engine(precision="fp16")))


@pytest.mark.slow
def test_train__the_loss_scale_survives_a_resume(scenes, tmp_path, monkeypatch):
    """accelerate's fp16, as it is on a GPU, on the CPU: a gradient that overflows is a step left out."""

    def half(config, device):
        engine = open_engine(config, device)
        own = engine.accelerator
        own.native_amp, own.state._mixed_precision = True, "fp16"
        # twice as large as it may be at the start, and doubled every second step
        own.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17, growth_interval=2)
        return engine

    monkeypatch.setattr("xenomask.train.loop.open_engine", half)
    own = recipe(scenes, tmp_path / "unbroken", iterations=9, save_every=1, keep=9)
    train(own)
    rows = read_scalars(tmp_path / "unbroken")
    left_out = [row["step"] for row in rows if row["grad_norm"] is None]
    assert 1 in left_out and len(left_out) < 9
    before = build_weights()
    for step in range(1, 10):
        now = weights(tmp_path / f"unbroken/iter_{step}")
        assert all(torch.equal(now[k], before[k]) for k in now) == (step in left_out)
        before = now
    scales = [torch.load(tmp_path / f"unbroken/iter_{i}/training.pt")["scaler"]["scale"] for i in range(1, 10)]
    assert [b < a for a, b in zip([2.0**17, *scales], scales, strict=False)] == [i in left_out for i in range(1, 10)]
    # killed after step 6, when the scale is no longer what it was at the start
    shutil.copytree(tmp_path / "unbroken", tmp_path / "killed")
    for i in (7, 8, 9):
        shutil.rmtree(tmp_path / f"killed/iter_{i}")
    (tmp_path / "killed/last_checkpoint").write_text("iter_6\n")
    assert scales[5] != 2.0**17
    train(own.model_copy(update={"work_dir": tmp_path / "killed"}))
    one, two = (torch.load(tmp_path / name / "iter_9/training.pt")["scaler"] for name in ("unbroken", "killed"))
    assert one == two
    one, two = (weights(tmp_path / name / "iter_9") for name in ("unbroken", "killed"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_train__a_batch_that_cannot_be_dealt_out(scenes, tmp_path):
    with pytest.raises(XenomaskError, match=r"optim.batch = 4 cannot be dealt to 1 processes in 3 parts: make it a"):
        train(recipe(scenes, tmp_path, optim={"accumulate": 3}))


def test_train__too_little_memory_names_the_settings(scenes, tmp_path, monkeypatch):
    def full(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")

    monkeypatch.setattr("xenomask.train.step._loss", full)
    with pytest.raises(XenomaskError, match="raise optim.accumulate, lower optim.batch or augment.crop"):
        train(recipe(scenes, tmp_path))


def test_train__a_damaged_or_foreign_training_state_is_said(scenes, tmp_path):
    train(recipe(scenes, tmp_path, iterations=2))
    state = torch.load(tmp_path / "iter_2/training.pt", weights_only=True)
    state["optimizer"]["state"].clear()
    torch.save(state, tmp_path / "iter_2/training.pt")
    with pytest.raises(XenomaskError, match="the optimizer's state is not that of this recipe"):
        train(recipe(scenes, tmp_path, iterations=4))
    for data in (b"x", b""):
        (tmp_path / "iter_2/training.pt").write_bytes(data)
        with pytest.raises(XenomaskError, match=r"iter_2 is damaged .* name an older iter_N in last_checkpoint"):
            train(recipe(scenes, tmp_path, iterations=4))
