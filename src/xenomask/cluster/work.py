"""work: what a job of the pipeline does: run its step's command, hand signals on, record how it ended."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from xenomask.cluster.plan import Step, shard_names
from xenomask.cluster.records import output_hashes, read_plan, read_record, record_path, source_commit, write_manifest
from xenomask.errors import XenomaskError, unknown
from xenomask.files import make_dir, write_numbers

WARNING = signal.SIGUSR1
INTERRUPTED = 75  # sysexits' EX_TEMPFAIL: not 0, as what waits for the step must not start


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def launcher(step: Step, gpus: int) -> list[str]:
    """The words before a step's command: Python, and torchrun where a training was given several GPUs."""
    if step.command[0] == "train" and gpus > 1:
        many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"]
        return [sys.executable, *many, "-m", "xenomask.cli"]
    return [sys.executable, "-m", "xenomask.cli"]


def run_step(out: Path, name: str, shard: int | None = None) -> int:
    """Runs a step, or shard I of it, of the run in `out`; returns the exit code for Slurm.

    Slurm's warning (SIGUSR1, before the time is up or another job takes the node) is handed to the command, which may
    save what it has; the job is then put back into the queue. Raises XenomaskError for a step that is not there and
    for a command that ends well without its files.
    """
    steps = {s.name: s for s in read_plan(out)}
    if name not in steps:
        raise unknown("step", name, steps)
    step = steps[name]
    if (shard or 1) > step.shards or (shard is None) != (step.shards == 1):
        raise XenomaskError(f"step {name} has {step.shards} shards; {shard} is none of them")
    job = shard_names(step)[(shard or 1) - 1]
    share = ["--shard", f"{shard}/{step.shards}"] if shard else []
    command = [*launcher(step, int(os.environ.get("SLURM_GPUS_ON_NODE") or 1)), *step.command, *share]
    make_dir(out / "steps")
    record = {
        "state": "running",
        "job": os.environ.get("SLURM_JOB_ID"),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        "host": socket.gethostname(),
        "commit": source_commit(),
        "command": command,
        "first_started": read_record(out, job).get("first_started", now()),
        "started": now(),
    }
    write_numbers(record_path(out, job), record)
    code, warned, ended = run_command(command)
    record |= {"ended": now(), "exit": code}
    if code == 0 and all((out / f).is_file() for f in step.outputs):
        record |= {"state": "done", "outputs": output_hashes(out, step)}
    else:
        record["state"] = "interrupted" if warned or ended else "failed"
    write_numbers(record_path(out, job), record)
    write_manifest(out)
    if record["state"] == "done":
        return 0
    if warned:
        requeue()
    if warned or ended:
        return INTERRUPTED
    if code == 0:
        raise XenomaskError(f"step {name} ended without an error, but without {', '.join(step.outputs)} in {out}")
    return code


def run_command(command: list[str]) -> tuple[int, bool, bool]:
    """Runs a command; its exit code, whether Slurm's warning came, whether SIGTERM did.

    Both are handed on; under torchrun the warning goes to the processes that it started, as it would die of it.
    """
    print("+", *command, flush=True)
    got: set[int] = set()
    # before the command is there: a signal in between must not end this process
    child: list[subprocess.Popen] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        got.add(number)
        if child and number == WARNING and "torch.distributed.run" in command:
            subprocess.run(["pkill", "-USR1", "-P", str(child[0].pid)])
        elif child:
            child[0].send_signal(number)

    old = {s: signal.signal(s, hand_on) for s in (WARNING, signal.SIGTERM)}
    try:
        child.append(subprocess.Popen(command))
        for number in tuple(got):
            child[0].send_signal(number)
        code = child[0].wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return (code if code >= 0 else 128 - code), WARNING in got, signal.SIGTERM in got


def requeue() -> None:
    """Puts this job back into Slurm's queue.

    Slurm does that by itself only for a job that it had to end; one that ends by itself after the warning counts as
    completed, whatever it left undone. After SIGTERM it is not asked for: the user may have cancelled the job.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:
        return
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    print(f"scontrol requeue {job}: {done.stderr.strip() or 'ok'}", flush=True)
