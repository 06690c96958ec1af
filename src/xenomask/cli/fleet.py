"""score --engine ray and slurm: the same maps, by many workers."""

import os
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.cli.common import err_console, load_detector, out_console, progress
from xenomask.errors import XenomaskError, unknown

if TYPE_CHECKING:
    from xenomask.datasets import Dataset

ENGINES = ("local", "ray", "slurm")
OPTIONS = {
    "local": ("--batch", "--precision", "--profile", "--kernel", "--classes", "--refine"),
    "ray": ("--workers", "--worker-cpus", "--ray-address"),
    "slurm": ("--shards", "--sbatch", "--dry-run"),
}


def check_engine(engine: str, shard: str | None, given: Mapping[str, Any]) -> None:
    """Raises XenomaskError for an unknown engine and for options that it has not; `given` are all of OPTIONS."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    for owner, names in OPTIONS.items():
        if stray := [n for n in names if given[n] and engine != owner]:
            raise XenomaskError(f"{stray[0]} is of --engine {owner}, not of --engine {engine}")
    if shard is not None and engine != "local":
        raise XenomaskError(f"--shard is for processes that you start yourself; --engine {engine} deals the work out")


def everywhere(detector: str) -> str:
    """A detector's name as it is meant on another machine: folders and files by their absolute path."""
    return str(Path(detector).absolute()) if Path(detector).exists() else detector


def wants_gpu(detector: str, device: str | None, runtime: str | None) -> bool:
    """Whether a worker is given a GPU where the cluster has some.

    >>> wants_gpu("nano", None, None), wants_gpu("nano", "cpu", None), wants_gpu("nano.onnx", None, None)
    (True, False, False)
    """
    from xenomask.detector.find import is_exported
    from xenomask.models.runtimes.sessions import CPU_ONLY

    return runtime not in CPU_ONLY and not is_exported(detector) and (device or "cuda").startswith("cuda")


def on_ray(
    detector: str, data: "Dataset", out: Path, opening: Mapping[str, str | None], leave_one_out: bool,
    workers: int | None, cpus: int, address: str | None,
) -> str:  # fmt: skip
    """Scores on Ray; returns what the last line says. `opening`: device, score, member, runtime, tta."""
    from xenomask.cluster.ray import choose_pool, connected, score_dataset
    from xenomask.detector.hub import is_remote
    from xenomask.opening import open_detector

    if is_remote(detector):
        raise XenomaskError(
            f"--engine ray wants a folder that all workers see: save {detector} into one, in Python: "
            f'Detector.from_hub("{detector.removeprefix("hf:")}").save(FOLDER)'
        )
    device, runtime, detector = opening["device"], opening["runtime"], everywhere(detector)
    with connected(address) as ray:
        pool = choose_pool(ray, workers, cpus, wants_gpu(detector, device, runtime))
        if (device or "").startswith("cuda") and not pool.gpus:
            raise XenomaskError(f"--device {device}: no machine of the Ray cluster has a GPU for it; leave it out")
        tta = opening["tta"]
        # says what the maps are made by
        on_head = "torch" if pool.gpus and runtime in (None, "auto") else runtime
        here = load_detector(detector, "cpu", opening["score"], opening["member"], on_head, tta=tta)
        own = "cuda" if pool.gpus else device or "cpu"  # of several GPUs Ray shows an actor its own alone
        kept = None if here.runtime == "openvino" else ()  # workers do as the manifest says
        opened = partial(
            open_detector, detector, own, opening["score"], opening["member"], runtime, tta=tta, sizes=kept
        )
        machines = sum(n["Alive"] for n in ray.nodes())
        each = f"{pool.cpus} CPUs{' and a GPU' if pool.gpus else ''}"
        err_console.print(f"ray: {pool.actors} workers of {each} each, {machines} machines", style="dim")
        with progress("score", len(data.frames)) as tick:
            new = score_dataset(ray, here, opened, data, out, pool, leave_one_out=leave_one_out, tick=tick)
    return f"{len(data.frames)} maps in {out}, {new} of them new; score {here.score_name}"


def on_slurm(words: Sequence[str], detector: str, out: Path, shards: int, sbatch: Sequence[str], dry_run: bool) -> str:
    """Submits `xenomask score WORDS` as an array of jobs; returns what the last line says.

    What was submitted and what became of it is kept beside the maps, in OUT.slurm.
    """
    from xenomask.cluster.plan import score_alone
    from xenomask.cluster.records import finished
    from xenomask.cluster.slurm import Resources, need_slurm, prepare, submissions, submit
    from xenomask.detector.find import find, is_exported
    from xenomask.detector.hub import is_remote

    run, resources = out.with_name(f"{out.name}.slurm"), Resources(extra=tuple(sbatch))
    if is_exported(detector) and not os.path.isfile(detector):
        raise XenomaskError(f"no such file: {detector}")
    if not is_exported(detector) and not is_remote(detector):
        find(detector)  # said now, and not by each job
    steps = score_alone((*words, "--detector", everywhere(detector), "--out", str(out)), out, shards)
    if dry_run:
        for s in submissions(steps, run, resources, done=finished(run, steps)):
            out_console.print(shlex.join(s.command({})), soft_wrap=True, highlight=False)
        return "nothing was submitted or written"
    need_slurm()
    prepare(steps, {}, run)
    count = submit(steps, run, resources, lambda s, job: out_console.print(f"{job}  {s.step.name}", highlight=False))
    said = f"{shards} jobs submitted" if count else "nothing to submit: all shards are done, waiting or running"
    return f"{said}; next: xenomask slurm status {run}"
