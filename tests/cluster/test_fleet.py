"""Many workers, one result: Ray's actors, Slurm's array, counters of shards."""

import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.cli import fails, run
from xenomask.cluster.ray import TRIES, Actor, Pool, choose_pool, connected, score_dataset
from xenomask.cluster.records import read_plan
from xenomask.datasets import Dataset, open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.metrics import count, measure, summarise
from xenomask.metrics.counters import empty
from xenomask.metrics.curves import curve
from xenomask.metrics.frames import Measured
from xenomask.metrics.table import numbers
from xenomask.predict.photos import open_maps, shard_of
from xenomask.predict.photos import score_dataset as score_here
from xenomask.store import ENDING, map_ids
from xenomask.types import ScoreMap

DATA = "--dataset", "anomaly-track", "--root"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("drawn"), "anomaly-track", 16, size=(64, 96))


@pytest.fixture
def data(drawn) -> Dataset:
    return open_dataset("anomaly-track", drawn)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")  # an actor would set it
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def one_thread():
    """Ray gives an actor of one CPU one thread; the network's sums round differently with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def maps_in(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# Counters


def test_counters__of_shards_merged_in_any_order_are_those_of_one_process():
    g = np.random.default_rng(5)
    labels = {f"f{i}": g.choice([0, 0, 0, 1, 255], (9, 14)).astype(np.uint8) for i in range(7)}
    maps = {i: (g.normal(size=(9, 14)) + (y == 1)).round(1).astype(np.float16) for i, y in labels.items()}

    def read(i):
        return maps[i], labels[i]

    whole = measure(sorted(maps), read, "anomaly")
    truth, pooled = summarise(whole, resamples=20), np.concatenate([maps[i].ravel() for i in maps])[None]
    expected = numbers(curve(count(pooled, np.concatenate([labels[i].ravel() for i in maps])[None])))
    shards = [sorted(maps)[i::3] for i in range(3)]
    # each shard counts by itself and sends what it counted
    sent = [pickle.dumps({i: count(*read(i)) for i in shard}) for shard in shards]
    for order in itertools.permutations(sent):
        frames = [f for part in order for f in pickle.loads(part).items()]
        total = empty()
        for _, counters in frames:
            total = total.merge(counters)
        assert numbers(curve(total.used())) == expected == truth.numbers["exact"]
        # the intervals draw frames by their number: those are put in order again
        found = summarise(Measured(dict(sorted(frames)), whole.tallies, whole.track, whole.threshold), resamples=20)
        assert repr(found) == repr(truth)  # some numbers are NaN, which equals nothing


# What is said before any work is done


def test_engine__options_that_do_not_fit(drawn, tmp_path, capsys):
    score = "score", *DATA, drawn, "--out", tmp_path / "maps"
    for words, message in (
        (["--engine", "rai"], "unknown engine 'rai'; did you mean 'ray'"),
        (["--workers", 2], "--workers is of --engine ray, not of --engine local"),
        (["--engine", "slurm", "--ray-address", "auto"], "--ray-address is of --engine ray, not of --engine slurm"),
        (["--engine", "ray", "--shards", 2], "--shards is of --engine slurm"),
        (["--dry-run"], "--dry-run is of --engine slurm"),
        (["--engine", "ray", "--shard", "1/2"], "--engine ray deals the work out"),
        (["--engine", "ray", "--detector", "hf:org/name"], 'Detector.from_hub("org/name").save(FOLDER)'),
    ):
        assert message in fails(capsys, *score, *words)
    assert not (tmp_path / "maps").exists()


def test_ray__that_is_not_installed(drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    text = fails(capsys, "score", *DATA, drawn, "--out", tmp_path / "maps", "--engine", "ray")
    assert "pip install 'xenomask[ray]'" in text


def test_address__where_no_cluster_answers(drawn, tmp_path, capsys):
    pytest.importorskip("ray", reason="needs Ray: pip install 'xenomask[ray]'")
    with socket.socket() as s:  # a port on which nobody listens
        s.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{s.getsockname()[1]}"
    score = "score", *DATA, drawn, "--out", tmp_path / "maps", "--engine", "ray", "--ray-address"
    began = time.monotonic()
    assert f"no Ray cluster answers at {closed}" in fails(capsys, *score, closed)
    assert f"no Ray cluster answers at {closed[:-1]}99999" in fails(capsys, *score, closed[:-1] + "99999")
    for wrong in ("head", "ray://head:10001", "http://head:8265", "6379"):
        assert f"Ray address '{wrong}' is not HOST:PORT" in fails(capsys, *score, wrong)
    assert time.monotonic() - began < 30


def test_import__loads_no_ray():
    code = (
        "import sys, xenomask.cluster.ray, xenomask.cli.fleet\n"
        "assert not {'ray', 'numba', 'torch'} & set(sys.modules), 'loaded'"  # numba: see Actor.__init__
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_pool__what_fits_the_cluster():
    def ray(**has):
        return SimpleNamespace(cluster_resources=lambda: has)

    assert choose_pool(ray(CPU=16.0), None, 4, True) == Pool(4, 4, 0)
    assert choose_pool(ray(CPU=16.0, GPU=2.0), None, 4, True) == Pool(2, 4, 1)
    assert choose_pool(ray(CPU=16.0, GPU=2.0), None, 4, False) == Pool(4, 4, 0)
    assert choose_pool(ray(CPU=16.0), 3, 1, True) == Pool(3, 1, 0)
    with pytest.raises(XenomaskError, match="5 workers of 4 CPUs each do not fit: the cluster has 16 CPUs; ask for"):
        choose_pool(ray(CPU=16.0), 5, 4, False)
    with pytest.raises(XenomaskError, match="3 workers of 1 CPUs and a GPU each do not fit: .* 16 CPUs and 2 GPUs"):
        choose_pool(ray(CPU=16.0, GPU=2.0), 3, 1, True)
    with pytest.raises(XenomaskError, match="1 workers of 2 CPUs each do not fit"):
        choose_pool(ray(CPU=1.0), None, 2, False)


# An actor, without Ray


def rows(data: Dataset) -> dict[str, np.ndarray]:
    texts = {"id": [f.id for f in data.frames], "image": [str(f.image or "") for f in data.frames]}
    texts["label"] = [str(f.label or "") for f in data.frames]
    return {k: np.array(v, object) for k, v in texts.items()}


@pytest.fixture
def few(data) -> Dataset:
    return replace(data, frames=data.frames[:3])


def test_actor__writes_what_one_process_writes_and_leaves_alone_what_is_there(few, tiny_detector, tmp_path):
    detector = Detector.from_folder(tiny_detector)
    score_here(detector, few, tmp_path / "here")
    open_maps(detector, few, tmp_path / "maps")
    actor = Actor(partial(Detector.from_folder, tiny_detector), replace(few, frames=()), tmp_path / "maps", False, 1)
    assert actor(rows(few)) == {"id": [f.id for f in few.frames], "error": [""] * 3}
    assert maps_in(tmp_path / "maps") == maps_in(tmp_path / "here")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "maps").iterdir()}
    assert actor(rows(few))["error"] == [""] * 3  # the task is run again
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "maps").iterdir()} == before


def test_actor__says_what_it_does_not_see(few, tiny_detector, tiny_checkpoint, tmp_path):
    here, shared = Detector.from_folder(tiny_detector), "must lie at paths that all machines of the cluster see"

    def first(out: str, opener, data: Dataset = few) -> str:
        return Actor(opener, replace(few, frames=()), tmp_path / out, False, 1)(rows(data))["error"][0]

    seen = partial(Detector.from_folder, tiny_detector)
    text = first("elsewhere", seen)
    assert f"no {tmp_path}/elsewhere/manifest.json" in text and shared in text and socket.gethostname() in text
    open_maps(here, few, tmp_path / "maps")
    text = first("maps", partial(Detector.from_folder, tmp_path / "gone"))
    assert f"unknown detector '{tmp_path}/gone'" in text and shared in text
    text = first("maps", lambda: here.only("a"))
    assert "holds maps of another run (its members" in text and shared in text
    moved = replace(few, frames=tuple(replace(f, image=tmp_path / "gone.jpg") for f in few.frames))
    text = first("maps", seen, moved)
    assert f"no such photo: {tmp_path}/gone.jpg" in text and shared in text
    assert map_ids(tmp_path / "maps") == [] and not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_actor__a_task_that_kills_every_worker_is_given_up(few, tiny_detector, tmp_path):
    open_maps(Detector.from_folder(tiny_detector), few, tmp_path)
    tries = tmp_path / f".{few.frames[0].id}.tries"
    actor = Actor(partial(Detector.from_folder, tiny_detector), replace(few, frames=()), tmp_path, False, 1)
    tries.write_bytes(b"." * TRIES)  # what as many dead workers leave
    (text,) = set(actor(rows(few))["error"])
    span = f"{few.frames[0].id} to {few.frames[2].id}"
    assert text.startswith(f"{TRIES} workers died one after the other at frame {span}: out of memory")
    assert not tries.exists() and map_ids(tmp_path) == []
    tries.write_bytes(b"." * (TRIES - 1))
    assert set(actor(rows(few))["error"]) == {""} and not tries.exists()


# Ray itself

needs_ray = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own


@pytest.fixture(scope="module")
def ray():
    """A Ray on this machine, of two CPUs; skips where it is not installed."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'xenomask[ray]'")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see this file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 2)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_worker_niceness", "0")  # 15 more than ours otherwise: they would starve on a busy machine
        with connected() as found:
            assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
            yield found
        assert "RAY_USAGE_STATS_ENABLED" not in os.environ


@dataclass(frozen=True)
class Slow:
    """A detector that takes its time."""

    detector: Detector
    seconds: float

    def __getattr__(self, name: str):
        if name.startswith("__") or name == "detector":  # of a copy that is being unpickled
            raise AttributeError(name)
        return getattr(self.detector, name)

    def detect(self, image) -> ScoreMap:
        time.sleep(self.seconds)
        return self.detector.detect(image)


def open_mortal(folder: Path, seconds: float, last_words: Path) -> Slow:
    """In a worker: the slow detector; and the first worker that gives a map its name is killed just before it."""
    rename = os.replace

    def replace_or_die(source, target) -> None:
        if str(target).endswith(ENDING) and last_words.with_suffix(".armed").is_file() and not last_words.exists():
            last_words.write_text(Path(source).name)
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = replace_or_die
    return Slow(Detector.from_folder(folder), seconds)


def workers_of_ray() -> list:
    """The actors' processes, which this process has started through Ray."""
    psutil = pytest.importorskip("psutil")
    return [p for p in psutil.Process().children(recursive=True) if " ".join(p.cmdline()).startswith("ray::MapWorker")]


@needs_ray
@pytest.mark.slow
def test_ray__workers_killed_twice_give_the_maps_and_numbers_of_the_unbroken_run(
    ray, data, tiny_detector, tmp_path, one_thread
):
    """One SIGKILL amid a frame, from outside; one after a map was written and before it has its name."""
    detector, out, last_words = Detector.from_folder(tiny_detector), tmp_path / "killed", tmp_path / "last_words"
    score_here(detector, data, tmp_path / "unbroken")
    amid, seen = [], []

    def tick() -> None:
        seen.append(len(map_ids(out)))
        if not amid:
            victim = workers_of_ray()[0]
            victim.send_signal(signal.SIGKILL)
            amid.append(victim.pid)
            last_words.with_suffix(".armed").touch()  # now the next one to write

    opened: Any = partial(open_mortal, tiny_detector, 0.2, last_words)
    assert score_dataset(ray, detector, opened, data, out, Pool(2), tick=tick) == len(data.frames) == len(seen)
    assert seen[0] < len(data.frames), "the first kill came too late to mean anything"
    assert ".part." in last_words.read_text(), "the second did not come"
    assert maps_in(out) == maps_in(tmp_path / "unbroken")  # no half, no litter, not one byte
    found, expected = (evaluate_maps(folder, data, resamples=50) for folder in (out, tmp_path / "unbroken"))
    assert repr(found) == repr(expected)


@needs_ray
@pytest.mark.slow
def test_ray__command_connects_to_a_cluster_and_goes_on(ray, data, drawn, tiny_detector, tmp_path, one_thread):
    """By the command, in a process of its own; a damaged photo is one line, and what was seen is kept."""
    root = Path(shutil.copytree(drawn, tmp_path / "data"))
    broken = next(f.image for f in open_dataset("anomaly-track", root).frames if f.id == data.frames[9].id)
    assert broken is not None
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    command = [
        sys.executable, "-m", "xenomask.cli", "score", *DATA, str(root), "--detector", str(tiny_detector),
        "--out", "maps", "--engine", "ray", "--workers", "1", "--ray-address", ray.get_runtime_context().gcs_address,
    ]  # fmt: skip
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    quiet = "device ", "ray: 1 workers of 1 CPU"
    said = [x for x in failed.stderr.splitlines() if not x.startswith(quiet) and "Set ray log level" not in x]
    assert failed.returncode == 2 and len(said) == 1, failed.stderr
    assert said[0].startswith("error: ") and broken.name in said[0], failed.stderr
    kept = map_ids(tmp_path / "maps")
    assert 0 < len(kept) < len(data.frames) and data.frames[9].id not in kept
    broken.write_bytes(whole)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"16 maps in {tmp_path}/maps, {16 - len(kept)} of them new; score entropy" in done.stdout, done.stderr
    score_here(Detector.from_folder(tiny_detector), data, tmp_path / "here")
    assert maps_in(tmp_path / "maps") == maps_in(tmp_path / "here")


# Slurm


def test_slurm__dry_run_shows_the_command_and_writes_nothing(drawn, tiny_detector, tmp_path, capsys):
    score = "score", *DATA, drawn, "--detector", tiny_detector, "--out", tmp_path / "maps", "--engine", "slurm"
    code, out, err = run(capsys, *score, "--shards", 3, "--sbatch=--gres=gpu:1", "--dry-run")
    assert code == 0 and out.startswith("sbatch --parsable --job-name=score "), err
    assert "--array=1,2,3" in out and "--gres=gpu:1" in out and "--signal=B:USR1@120" in out
    assert f"slurm step {tmp_path}/maps.slurm score --shard" in out and "SLURM_ARRAY_TASK_ID" in out
    assert list(tmp_path.glob("maps*")) == []
    code, out, _ = run(capsys, *score, "--dry-run")
    assert code == 0 and "--array" not in out


def test_slurm__says_what_is_wrong_before_a_job_has_to(drawn, tiny_detector, tmp_path, capsys, monkeypatch):
    score = "score", *DATA, drawn, "--out", tmp_path / "maps", "--engine", "slurm", "--detector"
    monkeypatch.setenv("PATH", "")
    assert "no sbatch on PATH" in fails(capsys, *score, tiny_detector)
    assert f"unknown detector '{tmp_path}/gone'" in fails(capsys, *score, tmp_path / "gone")
    assert "no such file: gone.onnx" in fails(capsys, *score, "gone.onnx")
    assert list(tmp_path.glob("maps*")) == []


@pytest.mark.slow
def test_slurm__shards_of_the_submitted_plan_make_the_folder_of_one_process(
    drawn, data, tiny_detector, tmp_path, capsys, monkeypatch
):
    """A stand-in takes the submission; what its jobs would run is run here."""
    for name, answer in (("sbatch", "echo 17"), ("squeue", ":"), ("scontrol", ":")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tiny_detector.parent)
    score = "score", *DATA, drawn, "--detector", tiny_detector.name, "--out", tmp_path / "maps", "--member", "a"
    code, out, err = run(capsys, *score, "--engine", "slurm", "--shards", 3)
    assert code == 0 and f"next: xenomask slurm status {tmp_path}/maps.slurm" in out, err
    (job,) = json.loads((tmp_path / "maps.slurm/jobs.json").read_text())
    assert (job["job"], job["shards"]) == ("17", [1, 2, 3])
    (step,) = read_plan(tmp_path / "maps.slurm")
    monkeypatch.chdir(tmp_path)  # a job starts where Slurm likes
    for i in (2, 3, 1):
        assert run(capsys, *step.command, "--shard", f"{i}/3")[0] == 0
    assert all((tmp_path / "maps.slurm" / name).is_file() for name in step.outputs)
    score_here(Detector.from_folder(tiny_detector).only("a"), data, tmp_path / "here")
    assert maps_in(tmp_path / "maps") == maps_in(tmp_path / "here")
    assert len(shard_of(data, 1, 3).frames) == 6
    monkeypatch.chdir(tiny_detector.parent)
    text = fails(capsys, *score, "--engine", "slurm", "--score", "msp")
    assert "is the run of another plan (step score differs)" in text
