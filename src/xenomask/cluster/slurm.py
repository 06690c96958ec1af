"""slurm: the steps of a plan -> sbatch, and what became of them.

NOTE: submitit (1.5.4) is not used. It submits pickled Python functions; a plain command it would wrap in one, with a
Python process of its own between Slurm and the command that swallows SIGTERM and keeps the warning to itself, so that a
training could not save in time. A dozen words of sbatch do without pickles, and `--dry-run` can show them.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xenomask.cluster.plan import Step, shard_names, to_json
from xenomask.cluster.records import (
    JOBS,
    PLAN,
    ancestors,
    finished,
    missing_shards,
    read_jobs,
    read_plan,
    read_record,
    write_manifest,
)
from xenomask.cluster.work import now
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir, write_numbers

LIVE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "STOPPED",
        "PREEMPTED", "RESIZING", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT")  # fmt: skip


@dataclass(frozen=True)
class Resources:
    """What each job asks Slurm for; None leaves it to the cluster."""

    partition: str | None = None
    cpu_partition: str | None = None  # for the steps without a network; None: as the others
    gres: str | None = None  # such as gpu:1, for the steps with a network
    time: str | None = None
    cpus: int | None = None
    mem: str | None = None
    # seconds before the end of the time, or of the grace of a preempted job, at which the job is warned
    warn: int = 120
    extra: tuple[str, ...] = ()  # further words for sbatch, as they are


@dataclass(frozen=True)
class Submission:
    """One sbatch: the step, the shards of it that are missing, the words, and whom it waits for by step name."""

    step: Step
    shards: tuple[int, ...]
    words: tuple[str, ...]
    after: tuple[str, ...]

    def command(self, job_ids: Mapping[str, str]) -> list[str]:
        """The whole command, once the job ids of the steps that it waits for are known."""
        ids = [job_ids[name] for name in self.after]
        return ["sbatch", *([f"--dependency=afterok:{':'.join(ids)}"] if ids else []), *self.words]


def submissions(
    steps: Sequence[Step], out: Path, resources: Resources, *, done: Collection[str] = (), live: Collection[str] = ()
) -> tuple[Submission, ...]:
    """What has to be submitted: the steps that are neither done nor waiting or running (live) already."""
    found = []
    for step in steps:
        if step.name in done or step.name in live:
            continue
        redo = not set(step.after).issubset(done)
        shards = tuple(range(1, step.shards + 1)) if redo else missing_shards(out, step)
        after = tuple(name for name in step.after if name not in done)
        found.append(Submission(step, shards, tuple(_words(step, shards, out, resources)), after))
    return tuple(found)


def _words(step: Step, shards: Sequence[int], out: Path, r: Resources) -> list[str]:
    partition = r.partition if step.gpu else r.cpu_partition or r.partition
    asked = {
        "partition": partition, "gres": r.gres if step.gpu else None, "time": r.time, "cpus-per-task": r.cpus,
        "mem": r.mem,
    }  # fmt: skip
    array = step.shards > 1
    job = [sys.executable, "-m", "xenomask.cli", "slurm", "step", str(out), step.name]
    # exec: the warning goes to the shell alone (B:), which then is the Python that hands it on
    script = f"exec {shlex.join(job)}" + (' --shard "$SLURM_ARRAY_TASK_ID"' if array else "")
    return [
        "--parsable", f"--job-name={step.name}", f"--output={out}/logs/{step.name}{'-%a' if array else ''}.out",
        "--open-mode=append", "--requeue", f"--signal=B:USR1@{r.warn}", "--kill-on-invalid-dep=yes",
        *([f"--array={','.join(map(str, shards))}"] if array else []),
        *(f"--{k}={v}" for k, v in asked.items() if v is not None),
        *r.extra,
        f"--wrap={script}",
    ]  # fmt: skip


def need_slurm() -> None:
    """Raises XenomaskError where jobs cannot be submitted."""
    if missing := [p for p in ("sbatch", "squeue", "scontrol") if shutil.which(p) is None]:
        raise XenomaskError(f"no {missing[0]} on PATH: submit from a Slurm login node, or look with --dry-run")


def prepare(steps: Sequence[Step], configs: Mapping[str, Path], out: Path) -> None:
    """Makes the run's folder: the plan and copies of the recipes, which are what is trained.

    Raises XenomaskError where the folder is that of another plan, or of recipes that were edited since.
    """
    if (out / PLAN).is_file():
        old = {s.name: (s.command, s.after) for s in read_plan(out)}
        new = {s.name: (s.command, s.after) for s in steps}
        if differs := sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k)):
            raise XenomaskError(f"{out} is the run of another plan (step {differs[0]} differs): choose another folder")
    for name, path in configs.items():
        copy = out / "configs" / f"{name}.toml"
        if copy.is_file() and copy.read_bytes() != path.read_bytes():
            raise XenomaskError(f"{path} is not the recipe that {out} was started with ({copy}): choose another folder")
        make_dir(copy.parent)
        with atomic(copy) as part:
            part.write_bytes(path.read_bytes())
    make_dir(out / "logs")
    write_numbers(out / PLAN, to_json(steps))


def submit(steps: Sequence[Step], out: Path, resources: Resources, tell: Callable[[Submission, str], None]) -> int:
    """Submits what is missing, in order; `tell` hears each submission and its job id; returns how many there were.

    Raises XenomaskError where sbatch refuses one; those before it stay submitted.
    """
    need_slurm()
    jobs = read_jobs(out)
    states = job_states([j["job"] for j in jobs])
    live = {j["step"]: j["job"] for j in jobs if any(s in LIVE for s, _ in states.get(j["job"], {}).values())}
    todo = submissions(steps, out, resources, done=finished(out, steps), live=live)
    ids = dict(live)
    for s in todo:
        command = s.command(ids)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise XenomaskError(f"sbatch refuses step {s.step.name}: {reason}")
        ids[s.step.name] = done.stdout.strip().split(";")[0]  # ;CLUSTER may follow
        jobs.append({"step": s.step.name, "job": ids[s.step.name], "shards": s.shards, "submitted": now()})
        write_numbers(out / JOBS, jobs)
        tell(s, ids[s.step.name])
    write_manifest(out)
    return len(todo)


def _ask(*command: str) -> str:
    """What a program of Slurm's prints; "" where it cannot say (accounting off, controller away)."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def job_states(job_ids: Collection[str]) -> dict[str, dict[int, tuple[str, str]]]:
    """Of each job that Slurm still knows: (state, reason) by shard, 1 where it is no array.

    squeue knows what waits, runs or ended lately; for the rest sacct is asked, where accounting is on.
    """
    if not job_ids:
        return {}
    ids = ",".join(job_ids)
    past = _ask("sacct", "-X", "--noheader", "--parsable2", f"--jobs={ids}", "--format=JobID,State")
    lines = [f"{line}|" for line in past.splitlines()]
    lines += _ask("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r").splitlines()
    return _parse(lines, set(job_ids))


def _parse(lines: Sequence[str], wanted: Collection[str]) -> dict[str, dict[int, tuple[str, str]]]:
    """Lines that name no job and no state of it are passed over: of several clusters squeue names each.

    >>> _parse(["7_2|RUNNING|None", "8|PENDING|Dependency", "9|FAILED|x", "7_[3-4]|CANCELLED by 0|"], {"7", "8"})
    {'7': {2: ('RUNNING', '')}, '8': {1: ('PENDING', 'Dependency')}}
    >>> _parse(["CLUSTER: alpha", "", "7||", "7|COMPLETED|"], {"7"})
    {'7': {1: ('COMPLETED', '')}}
    """
    found: dict[str, dict[int, tuple[str, str]]] = {}
    for line in lines:
        name, state, reason = (*line.split("|", 2), "", "")[:3]
        job, _, shard = name.partition("_")
        if job in wanted and state.strip() and (not shard or shard.isdecimal()):
            found.setdefault(job, {})[int(shard or 1)] = (state.split()[0], "" if reason == "None" else reason)
    return found


@dataclass(frozen=True)
class Row:
    """A line of `xenomask slurm status`."""

    name: str
    state: str
    job: str
    restarts: int
    remark: str


def status(out: Path) -> list[Row]:
    """Every job of a run: done, pending, running, failed, ..., or stopped because a step that it waited for failed."""
    steps, jobs = read_plan(out), read_jobs(out)
    states = job_states([j["job"] for j in jobs])
    done, rows = finished(out, steps), []
    broken: set[str] = set()
    for step in steps:
        for shard, name in enumerate(shard_names(step), 1):
            job = next((j["job"] for j in reversed(jobs) if j["step"] == step.name and shard in j["shards"]), "")
            record = read_record(out, name)
            state, remark = _state(record, *states.get(job, {}).get(shard, ("", "")))
            if step.name in done or (state == "done" and not missing_shards(out, step)):
                state, remark = "done", ""
            blame = sorted(ancestors(steps, step.name) & broken)
            if blame and state not in ("pending", "running", "failed"):
                state, remark = "stopped", f"waits for {', '.join(blame)}"
            elif state in ("failed", "lost", "timeout", "cancelled", "out_of_memory", "node_fail", "interrupted"):
                broken.add(step.name)
                remark = remark or f"see {out / 'logs'}/{step.name}{f'-{shard}' if step.shards > 1 else ''}.out"
            rows.append(Row(name, state, job, int(record.get("restarts", 0)), remark))
    return rows


def _state(record: Mapping[str, object], state: str, reason: str) -> tuple[str, str]:
    """One word for a job and a remark: Slurm's word while it lives, else its own record's, else Slurm's again.

    >>> _state({"state": "running"}, "TIMEOUT", "")
    ('timeout', '')
    >>> _state({"state": "running"}, "", "")
    ('lost', 'ended without a word, and Slurm remembers nothing')
    >>> _state({"state": "interrupted"}, "", "")
    ('interrupted', 'ended by a signal, and not put back into the queue')
    """
    if state in LIVE:
        return ("running" if state in ("RUNNING", "COMPLETING") else "pending"), reason
    own = record.get("state")
    if own in ("done", "failed"):
        return str(own), f"exit code {record.get('exit')}" if own == "failed" else ""
    if state and state != "COMPLETED":
        return state.lower(), ""
    if own is None:
        return "not started", ""
    if own == "interrupted":
        return "interrupted", "ended by a signal, and not put back into the queue"
    return "lost", "ended without a word, and Slurm remembers nothing"
