"""What trackers are told is what the work folder's own files say."""

import json
import os
import sqlite3
import struct
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from helpers.engine_recipes import TOML, command, recipe
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.train import train
from xenomask.train.config import Engine
from xenomask.train.records import read_scalars

TRACKERS = get_args(get_args(Engine.model_fields["trackers"].annotation)[0])
BLOCK = 2**15  # of LevelDB's log format, in which wandb keeps an offline run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 5, size=(64, 96))


@pytest.fixture(scope="module")
def tracked(scenes, tmp_path_factory):
    """The work folder of three steps, two of them validated, told to all the trackers that are installed."""
    folder = tmp_path_factory.mktemp("tracked")
    toml = TOML.format(work=folder / "run", scenes=scenes, iterations=3).replace("val_every = 100", "val_every = 2")
    names = [name for name in TRACKERS if find_spec(name)]
    toml = toml.replace("[augment]", f'val = "{scenes}"\nval_frames = 1\n[augment]') + f"[engine]\ntrackers = {names}\n"
    (folder / "c.toml").write_text(toml)
    # nobody is told anything: wandb offline, trackio into a folder of the test's
    env = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(folder / "c.toml"), capture_output=True, text=True, cwd=folder, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in folder.iterdir()} <= {"c.toml", "run", "trackio"}
    return folder / "run"


def expected(work_dir: Path) -> dict[tuple[str, int], float]:
    """(name, step) -> number, from the work folder's own files."""
    names = {"loss": "train/loss", "grad_norm": "train/grad_norm", "lr": "train/lr", "base_lr": "train/base_lr",
             "mIoU": "val/mIoU"}  # fmt: skip
    rows = read_scalars(work_dir)
    assert len(rows) == 5
    return {(names[k], row["step"]): v for row in rows for k, v in row.items() if k in names}


def test_tensorboard__has_the_scalars(tracked):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore

    events = EventAccumulator(str(tracked / tracked.name)).Reload()
    found = {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
    assert found == pytest.approx(expected(tracked), rel=1e-6)  # it keeps float32


def wandb_records(path: Path) -> list[bytes]:
    """The records of LevelDB's log format behind wandb's header of 7 bytes: crc, length, kind, data."""
    data, at, records = path.read_bytes(), 7, []
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # the rest of a block is filled with zeros
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + 7 : at + 7 + length]
        if kind in (1, 2):  # whole, or the first part
            records.append(piece)
        elif kind in (3, 4):
            records[-1] += piece
        at += 7 + length
    return records


@pytest.mark.slow
def test_wandb__has_the_scalars_in_the_work_folder(tracked):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore

    (path,) = tracked.glob("wandb/offline-run-*/*.wandb")
    found = {}
    for record in map(Record.FromString, wandb_records(path)):
        row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        found |= {(k, row["_step"]): v for k, v in row.items() if not k.startswith("_")}
    assert found == pytest.approx(expected(tracked))


def test_trackio__has_the_scalars(tracked):
    pytest.importorskip("trackio")
    with sqlite3.connect(tracked.parent / "trackio" / f"{tracked.name}.db") as base:
        rows = base.execute("select step, metrics from metrics").fetchall()
    base.close()
    found = {(k, step): v for step, metrics in rows for k, v in json.loads(metrics).items()}
    assert found == pytest.approx(expected(tracked))


@pytest.mark.parametrize("name", TRACKERS)
def test_train__a_tracker_that_is_not_installed(name, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("xenomask.train.engine.find_spec", lambda module: None)
    with pytest.raises(XenomaskError, match=f"engine.trackers: {name} is not installed: pip install {name}"):
        train(recipe(scenes, tmp_path, engine=Engine(trackers=(name,))))


def test_train__a_tracker_that_does_not_start_is_one_line(scenes, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def no_account(**options):
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.\nmore")

    monkeypatch.setattr(wandb, "init", no_account)
    with pytest.raises(XenomaskError, match=r"engine.trackers \(wandb\): No API key .*WANDB_MODE=offline") as e:
        train(recipe(scenes, tmp_path, engine=Engine(trackers=("wandb",))))
    assert "\n" not in str(e.value)


def test_train__nothing_left_to_do_starts_no_tracker(scenes, tmp_path, monkeypatch):
    folder = train(recipe(scenes, tmp_path, iterations=1))
    monkeypatch.setattr("xenomask.train.engine.Engine.start_trackers", lambda *_: pytest.fail("started"))
    assert train(recipe(scenes, tmp_path, iterations=1)) == folder
