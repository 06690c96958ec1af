"""Data sets: which there are, whether they lie where they should, drawn ones."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from xenomask.cli import completion
from xenomask.cli.common import (
    JsonOption,
    SplitOption,
    a_data_set,
    err_console,
    marked,
    out_console,
    parse_size,
    progress,
    write_json,
)
from xenomask.errors import XenomaskError

if TYPE_CHECKING:
    from xenomask.datasets import Entry
    from xenomask.datasets.check import Finding

app = typer.Typer()


@app.command(rich_help_panel="Evaluate")
def datasets(
    root: Annotated[Path | None, typer.Option(help="look here: a data set's folder, or one that holds several")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.names(completion.DATASETS),
            callback=a_data_set,
            help="this one alone; without --root: all about it",
        ),
    ] = None,
    split: SplitOption = "val",
    quick: Annotated[int | None, typer.Option(min=1, help="read only the first so many labels of each")] = None,
    json_file: JsonOption = None,
) -> None:
    """List the data sets; with --root, check which are there: counts, label values, sizes, what is missing.

    Example: xenomask datasets --root data/Validation_Dataset --quick 5
    """
    from xenomask.datasets import DATASETS
    from xenomask.datasets.catalogue import get_entry
    from xenomask.datasets.check import check, check_all

    if root is None:
        if quick is not None or split != "val":
            raise XenomaskError("--quick and --split are for the data sets of --root: name it")
        entries = [get_entry(dataset)] if dataset else list(DATASETS.values())
        _print_entry(entries[0]) if dataset else _print_entries(entries)
        write_json(json_file, [_facts(e) for e in entries])
        return
    with err_console.status(marked("reading labels in {}", root)):
        if dataset:
            found = [check(dataset, root, split=split, quick=quick)]
        else:
            found = check_all(root, split=split, quick=quick)
    _print_findings(found)
    write_json(json_file, [asdict(f) for f in found])
    problems = [p for f in found for p in f.problems]
    if dataset and problems:
        raise XenomaskError(f"{dataset} at {root}: {len(problems)} of its files are wrong, the first: {problems[0]}")
    for problem in problems:
        out_console.print(marked("[red]wrong[/red] {}", problem), highlight=False, soft_wrap=True)


def _facts(entry: "Entry") -> dict[str, object]:
    """What a user must know of a data set, ready for JSON."""
    from xenomask.datasets import CODINGS

    names = (
        "name",
        "title",
        "use",
        "track",
        "coding",
        "splits",
        "default",
        "layout",
        "where",
        "licence",
        "conventions",
    )
    return {n: getattr(entry, n) for n in names} | {"meaning": CODINGS[entry.coding].meaning, "counts": entry.counts}


def _print_entry(entry: "Entry") -> None:
    for name, value in _facts(entry).items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        text = ", ".join(value) if isinstance(value, tuple) else str(value or "-")
        out_console.print(marked("[bold]{}[/bold]{}", f"{name:12}", text), highlight=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i < len(columns) - 2)  # names whole, what is long in lines
    return table


def _print_entries(entries: list["Entry"]) -> None:
    table = _table("data sets (--dataset NAME: all about one)", "name", "use", "track", "splits")
    for e in entries:
        splits = ", ".join(s + "*" * (s == e.default and len(e.splits) > 1) for s in e.splits)
        table.add_row(e.name, e.use, e.track or "-", splits)
    out_console.print(table)


def _print_findings(found: list["Finding"]) -> None:
    table = _table("found", "data set", "split", "frames and labels", "notes")
    for f in found:
        frames = f"{f.photos} photos, {f.labelled} labels"
        if f.anomalous:
            frames += f", {f.anomalous} of {f.labels_read} read have an anomaly"
        values = f"{f.coding}: {', '.join(f.values)}" if f.values else f.coding
        sizes = ", ".join(f"{size} ({n})" for size, n in f.sizes.items())
        notes = "; ".join((*f.notes, *([f"{len(f.problems)} wrong"] if f.problems else [])))
        table.add_row(f.name, f.split, "\n".join(filter(None, (frames, values, sizes))), notes)
    out_console.print(table)


@app.command(rich_help_panel="Tools")
def synthetic(
    out: Annotated[Path, typer.Option(help="folder to write")],
    layout: Annotated[str, typer.Option(help="anomaly-track, obstacle-track, fishyscapes-static, folder, cityscapes "
                                        "or train-ids")] = "anomaly-track",
    frames: Annotated[int, typer.Option(min=1, max=10_000)] = 10,
    size: Annotated[str | None, typer.Option(help="WxH; default: 1280x720, fishyscapes-static 2048x1024")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:  # fmt: skip
    """Draw synthetic street scenes with anomalous objects, in a real data set's on-disk format.

    Example: xenomask synthetic --out drawn --layout anomaly-track --frames 10
    """
    from xenomask.datasets.synthetic import write_scenes

    wanted = parse_size(size)
    with progress("draw", frames) as tick:
        write_scenes(out, layout, frames, seed=seed, size=wanted, tick=tick)
    out_console.print(f"{frames} frames in {out}, layout {layout}")
