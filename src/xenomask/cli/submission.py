"""Maps -> the folder that is submitted to the benchmark."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from xenomask.cli.common import (
    DatasetOption,
    IgnoreOption,
    JsonOption,
    RootOption,
    SplitOption,
    check_threshold,
    load_dataset,
    maps_there,
    marked,
    named_region,
    out_console,
    print_numbers,
    progress,
    write_json,
)
from xenomask.errors import XenomaskError

app = typer.Typer(help="Write and check submissions to SegmentMeIfYouCan, OoDIS and BRAVO.", no_args_is_help=True)

SHOWN = 30


@app.command()
def write(
    maps: Annotated[Path, typer.Option(callback=maps_there, help="folder of maps, one <id>.hdf5 a frame")],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder that anomaly_p/<method>/<track> is made in")],
    method: Annotated[str, typer.Option(help="name of the method: letters, digits, - _ .")],
    json_file: JsonOption = None,
) -> None:
    """Copy the maps of a track into the official layout, and check them; resumes where it stopped.

    Example: xenomask submission write --maps maps/at --dataset anomaly-track --root data/smiyc --out sub --method mine
    """
    from xenomask.store.submission import write as run_write

    data = load_dataset(dataset, root)
    with progress("write", 3 * len(data.frames)) as tick:
        report = run_write(maps, data, out, method, tick=tick)
    _show(report, json_file)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="anomaly_p/<method>/<track>, or a folder above it")],
    dataset: DatasetOption,
    root: RootOption,
    json_file: JsonOption = None,
) -> None:
    """List everything that is wrong with a submission; exit code 2 where something must be fixed.

    Example: xenomask submission check sub --dataset anomaly-track --root data/smiyc
    """
    from xenomask.store.submission import check as run_check

    data = load_dataset(dataset, root)
    with progress("check", len(data.frames)) as tick:
        report = run_check(folder, data, tick=tick)
    _show(report, json_file)


@app.command()
def instances(
    maps: Annotated[Path, typer.Option(callback=maps_there, help="folder of maps, one <id>.hdf5 a frame")],
    dataset: DatasetOption,
    root: RootOption,
    threshold: Annotated[float, typer.Option(callback=check_threshold, help="instances are regions of score > this")],
    out: Annotated[Path, typer.Option(help="folder that the track's own is made in")],
    smallest: Annotated[float, typer.Option(min=0, max=1, help="leave out smaller shares of the image")] = 0.001,
    ignore: IgnoreOption = None,
    archive: Annotated[Path | None, typer.Option("--zip", help="also check and pack the tracks of --out")] = None,
    name: Annotated[str, typer.Option(help="of the method, for --zip")] = "",
    paper: Annotated[str, typer.Option(help="its paper's address, for --zip")] = "",
    code: Annotated[str, typer.Option(help="its code's address, for --zip")] = "",
    split: SplitOption = "val",
    json_file: JsonOption = None,
) -> None:
    """Write anomaly instances for the OoDIS benchmark; where labels are, their average precision.

    Example: xenomask submission instances --maps maps/at --dataset anomaly-track --root data/smiyc --out oodis
    --threshold -0.3
    """
    from xenomask.objects.ignore import region_of_maps
    from xenomask.objects.oodis import write_instances, zip_instances

    if archive is not None and not name:
        raise XenomaskError("--zip needs the method's name: --name")
    data = load_dataset(dataset, root, split)
    region = region_of_maps(maps) if ignore is None else named_region(ignore)
    with progress("instances", len(data.frames)) as tick:
        done = write_instances(maps, data, threshold, out, smallest=smallest, ignore=region, tick=tick)
    table = Table("images", "instances", "below the threshold", *(k.upper() for k in done.numbers))
    table.add_row(
        str(done.images), str(done.instances), str(done.lowered), *(f"{v:.4f}" for v in done.numbers.values())
    )
    out_console.print(table)
    if done.lowered:
        text = f"{done.lowered} images had no instance above the threshold and got their highest region"
        out_console.print(text, soft_wrap=True)
    if done.numbers:
        out_console.print("true instances are connected regions of the label, which has no instances of its own")
    if archive is not None:
        zip_instances(out, archive, name, paper, code)
    out_console.print(f"written: {done.folder if archive is None else archive}; the upload itself is not verified",
                      soft_wrap=True)  # fmt: skip
    write_json(json_file, {**asdict(done), "folder": str(done.folder)})


@app.command()
def bravo(
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder that bravo_<split>/ are made in, or are checked in")],
    maps: Annotated[
        Path | None, typer.Option(callback=maps_there, help="folder of <split>/<id>.hdf5; none: only check --out")
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="folder of <split>/<id>.png, of score --classes")] = None,
    json_file: JsonOption = None,
) -> None:
    """Write classes and confidence for the BRAVO challenge, and check them; where labels are, its numbers and index.

    Example: xenomask submission bravo --root data/bravo --maps maps/bravo --classes classes/bravo --out sub
    """
    from dataclasses import replace

    from xenomask.evaluation.bravo import check_submission, splits_in, write_submission

    if (maps is None) != (classes is None):
        raise XenomaskError("--maps and --classes belong together: a confidence is of a predicted class")
    splits = [s for s in splits_in(root) if maps is None or (maps / s).is_dir()]
    if not splits:
        raise XenomaskError(f"{maps} holds no folder of maps called like a split, such as SMIYC or ACDC")
    with progress("bravo", None) as tick:
        scales = write_submission(maps, classes, root, splits, out, tick=tick) if maps and classes else {}
        done = replace(check_submission(root, splits, out, tick=tick), scales=scales)
    table = Table("split", "images", "score of confidence 1", "of 0")
    for split, count in done.images.items():
        table.add_row(split, str(count), *(f"{v:.4g}" for v in scales.get(split, ())))
    out_console.print(table)
    if done.numbers:
        for kind in ("_valid", "_ood"):
            keys = dict.fromkeys(k for n in done.numbers.values() for k in n if k.endswith(kind))
            table = Table(
                "subset", *(k.removesuffix(kind) for k in keys), title=f"numbers {kind}", title_justify="left"
            )
            for subset, n in done.numbers.items():
                if keys and n.keys() >= keys.keys():
                    table.add_row(subset, *(f"{n[k]:.4f}" for k in keys))
            if keys:
                out_console.print(table)
        print_numbers("harmonic means", done.summary)
        if "bravo_index" not in done.summary:
            out_console.print("the index needs labels of classes and of anomalies both", style="dim")
    out_console.print(f"{out}: no errors; packing by the challenge's own tool and the upload are not verified",
                      soft_wrap=True)  # fmt: skip
    write_json(json_file, {**asdict(done), "folder": str(done.folder)})


def _show(report: Any, json_file: Path | None) -> None:
    from xenomask.store.submission import UNVERIFIED

    if report.problems:
        table = Table("", "frame", "what", Column("problem", overflow="fold"))  # paths may be long
        for p in (*report.errors, *report.warnings)[:SHOWN]:
            level = marked("[red]error[/red]" if p.fatal else "[yellow]warning[/yellow]")
            table.add_row(level, p.frame, p.kind, p.text)
        out_console.print(table)
        if (more := len(report.problems) - SHOWN) > 0:
            out_console.print(f"and {more} more (--json lists them all)")
    table = Table("frames", "maps", "MB", "errors", "warnings")
    counts = (report.frames, report.maps, f"{report.bytes / 1e6:.1f}", len(report.errors), len(report.warnings))
    table.add_row(*map(str, counts))
    out_console.print(table)
    out_console.print(UNVERIFIED, highlight=False)
    numbers = {**asdict(report), "folder": str(report.folder), "unverified": UNVERIFIED}
    write_json(json_file, numbers)
    if report.errors:
        raise XenomaskError(f"{report.folder} is not fit to be submitted: mend the errors listed above")
    count = f"no errors, {len(report.warnings)} warnings"
    out_console.print(f"{report.folder}: {count}; the upload itself is not verified", soft_wrap=True)
