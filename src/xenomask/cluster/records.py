"""A run's folder: the plan, what was submitted, what each job recorded, and the manifest that is made of all of it.

plan.json and jobs.json are written by the submission, steps/<job>.json by that job alone, so that no two processes
write one file. manifest.json says nothing that is not in those: whoever writes it last writes all of it.
"""

import json
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from xenomask.cluster.plan import Step, from_json, shard_names
from xenomask.errors import XenomaskError
from xenomask.files import read_object, read_text, sha256, write_numbers
from xenomask.version import __version__

PLAN, JOBS, MANIFEST, METRICS = "plan.json", "jobs.json", "manifest.json", "evaluation.json"


def read_plan(out: Path) -> tuple[Step, ...]:
    """The steps of a run; raises XenomaskError where there is none."""
    if not (out / PLAN).is_file():
        raise XenomaskError(f"{out} is no run: it has no {PLAN}; `xenomask slurm pipeline` makes one")
    return from_json(read_object(out / PLAN), out / PLAN)


def read_jobs(out: Path) -> list[dict[str, Any]]:
    """What was submitted, in that order: step, job id, shards, time; raises XenomaskError where the file is damaged."""
    path = out / JOBS
    try:
        jobs = json.loads(read_text(path)) if path.is_file() else []
        return [{**j, "step": str(j["step"]), "job": str(j["job"]), "shards": list(j["shards"])} for j in jobs]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise XenomaskError(f"{path} is damaged: {e!r}; what was submitted is in `squeue` and `sacct`") from e


def record_path(out: Path, job: str) -> Path:
    return out / "steps" / f"{job}.json"


def read_record(out: Path, job: str) -> dict[str, Any]:
    """What a job last said of itself; {} for one that never started."""
    path = record_path(out, job)
    return read_object(path) if path.is_file() else {}


def missing_shards(out: Path, step: Step) -> tuple[int, ...]:
    """The shards (from 1) of a step that have not ended well, or whose files are gone."""
    if not all((out / f).is_file() for f in step.outputs):
        return tuple(range(1, step.shards + 1))
    names = shard_names(step)
    return tuple(i for i, job in enumerate(names, 1) if read_record(out, job).get("state") != "done")


def finished(out: Path, steps: Sequence[Step]) -> set[str]:
    """The steps that need not run again: done, their files there, and all that they waited for finished too."""
    done: set[str] = set()
    for step in steps:
        if done.issuperset(step.after) and not missing_shards(out, step):
            done.add(step.name)
    return done


def output_hashes(out: Path, step: Step) -> dict[str, str]:
    """The SHA-256 of each file that a step left."""
    return {f: sha256(out / f) for f in step.outputs}


def source_commit() -> str | None:
    """The commit of the git checkout that xenomask runs from, with -dirty where files differ; None outside of one."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    try:
        # an installed copy may lie, untracked, in somebody else's checkout
        for command in ("ls-files --error-unmatch __init__.py", "describe --always --dirty --abbrev=40 --exclude=*"):
            done = subprocess.run([*git, *command.split()], capture_output=True, text=True, timeout=60)
            if done.returncode:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()


def write_manifest(out: Path) -> None:
    """Gathers manifest.json: versions, recipes, checkpoints, query files, metrics, jobs and times, as far as known."""
    steps, jobs = read_plan(out), read_jobs(out)
    records = {job: read_record(out, job) for step in steps for job in shard_names(step)}
    write_numbers(
        out / MANIFEST,
        {
            "xenomask": __version__,
            "commit": source_commit(),
            "configs": {p.stem: sha256(p) for p in sorted((out / "configs").glob("*.toml"))},
            "members": {p.stem: _member(p.stem, records) for p in sorted((out / "configs").glob("*.toml"))},
            "metrics": _metrics(out),
            "jobs": jobs,
            "steps": {job: record for job, record in records.items() if record},
        },
    )


def _member(name: str, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A member's checkpoint and query files with their hashes, from the records of the steps that made them."""
    trained = records.get(f"train-{name}", {}).get("outputs", {})
    queries = records.get(f"outlier-{name}", {}).get("outputs", {})
    return {
        "checkpoint": [{"file": f, "sha256": h} for f, h in trained.items()],
        "queries": [{"file": f, "sha256": h} for f, h in queries.items()],
    }


def _metrics(out: Path) -> dict[str, Any] | None:
    if not (out / METRICS).is_file():
        return None
    found = read_object(out / METRICS)
    return {k: found[k] for k in ("exact", "official", "components") if k in found}


def ancestors(steps: Collection[Step], name: str) -> set[str]:
    """Every step that a step waits for, directly or not."""
    after = {s.name: s.after for s in steps}
    found: set[str] = set()
    todo = list(after[name])
    while todo:
        step = todo.pop()
        if step not in found:
            found.add(step)
            todo += after[step]
    return found
