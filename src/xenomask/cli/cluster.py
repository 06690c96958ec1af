"""The whole way on a cluster."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from xenomask.cli.common import (
    DatasetOption,
    ResizeOption,
    RootOption,
    SplitOption,
    load_dataset,
    out_console,
)
from xenomask.errors import XenomaskError

app = typer.Typer(no_args_is_help=True, help="Run the whole way as Slurm jobs.")
RunArgument = Annotated[Path, typer.Argument(metavar="RUNDIR", help="folder of the run")]


@app.command()
def pipeline(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG", help="recipes, one a member of the ensemble")],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder of the run, seen by all nodes")],
    split: SplitOption = "val",
    resize: ResizeOption = None,
    score: Annotated[str, typer.Option(help="how the members are read")] = "maskomaly",
    weight: Annotated[list[float] | None, typer.Option(help="once a recipe; default: equal")] = None,
    leave_one_out: Annotated[bool, typer.Option(help="score with outlier queries chosen on the other frames")] = False,
    shards: Annotated[int, typer.Option(min=1, help="jobs that share the scoring")] = 1,
    partition: Annotated[str | None, typer.Option(help="of Slurm; default: the cluster's")] = None,
    cpu_partition: Annotated[str | None, typer.Option(help="for the steps that need no GPU")] = None,
    gres: Annotated[str | None, typer.Option(help="such as gpu:1; several GPUs train by torchrun")] = None,
    time: Annotated[str | None, typer.Option(help="limit of each job; a training goes on in the next")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="a job")] = None,
    mem: Annotated[str | None, typer.Option(help="a job, such as 32G")] = None,
    warn: Annotated[int, typer.Option(min=1, help="seconds before its end that a job is warned")] = 120,
    sbatch: Annotated[list[str] | None, typer.Option(help="further option, such as --sbatch=--qos=long")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the sbatch commands only")] = False,
) -> None:  # fmt: skip
    """Submit train, queries, assemble, score, evaluate, heatmaps; again: what is still missing.

    Example: xenomask slurm pipeline configs/nano-s.toml configs/nano-l.toml --dataset anomaly-track --root data/smiyc
    --out runs/nano --gres gpu:1 --time 8:00:00 --shards 4
    """
    from xenomask.cluster.plan import Options, plan
    from xenomask.cluster.records import finished
    from xenomask.cluster.slurm import Resources, need_slurm, prepare, submissions, submit
    from xenomask.scores import get_score
    from xenomask.train import read_config

    paths = {c.stem: c for c in configs}
    if len(paths) < len(configs):
        raise XenomaskError("two recipes have one name: a member is called what its recipe is, so rename one")
    get_score(score)
    out = out.absolute()
    options = Options(dataset, root.absolute(), split, resize, score, tuple(weight or ()), leave_one_out, shards)
    resources = Resources(partition, cpu_partition, gres, time, cpus, mem, warn, tuple(sbatch or ()))
    steps = plan({name: read_config(path) for name, path in paths.items()}, options, out)
    if dry_run:
        todo = submissions(steps, out, resources, done=finished(out, steps))
        for s in todo:
            words = shlex.join(s.command({name: f"<{name}>" for name in s.after}))
            after = f" (after {', '.join(s.after)})" if s.after else ""
            out_console.print(f"{s.step.name}{after}: {words}", highlight=False, soft_wrap=True)
        out_console.print(f"{len(todo)} jobs; nothing was submitted or written")
        return
    need_slurm()
    load_dataset(dataset, root, split, resize)  # a wrong folder is said now, not after the training
    prepare(steps, paths, out)
    count = submit(steps, out, resources, lambda s, job: out_console.print(f"{job}  {s.step.name}", highlight=False))
    said = f"{count} jobs submitted" if count else "nothing to submit: all steps are done, waiting or running"
    out_console.print(f"{said}; next: xenomask slurm status {out}", soft_wrap=True)


@app.command("status")
def status_command(run: RunArgument) -> None:
    """What became of a run's jobs; exit code 1 where one failed.

    Example: xenomask slurm status runs/nano
    """
    from xenomask.cluster.records import write_manifest
    from xenomask.cluster.slurm import status

    out = run.absolute()
    rows = status(out)
    table = Table("job", "state", "id", "restarts", "remark")
    colours = {"done": "green", "running": "blue", "pending": "none", "not started": "none"}
    for r in rows:
        table.add_row(r.name, Text(r.state, colours.get(r.state, "red")), r.job, str(r.restarts or ""), r.remark)
    out_console.print(table)
    write_manifest(out)
    if any(r.state not in colours for r in rows):
        raise typer.Exit(1)


@app.command()
def step(
    run: RunArgument,
    name: Annotated[str, typer.Argument(help="a step of its plan")],
    shard: Annotated[int | None, typer.Option(min=1, help="which shard of it")] = None,
) -> None:
    """What a job of the pipeline runs; by hand it does the same without Slurm.

    Example: xenomask slurm step runs/nano evaluate
    """
    from xenomask.cluster.work import run_step

    if code := run_step(run.absolute(), name, shard):
        raise typer.Exit(code)
