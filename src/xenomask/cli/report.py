"""Maps + labels -> a page to look at."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from xenomask.cli.common import (
    DatasetOption,
    IgnoreOption,
    JsonOption,
    KeyOption,
    PatternOption,
    ResizeOption,
    RootOption,
    SplitOption,
    check_threshold,
    early,
    load_dataset,
    map_folders,
    maps_there,
    named_region,
    out_console,
    progress,
    write_json,
)
from xenomask.cli.evaluate import ResamplesOption, SeedOption, TrackOption
from xenomask.errors import XenomaskError

app = typer.Typer()


def check_html(out: Path) -> None:
    """Raises XenomaskError for a name that a browser would not open as a page."""
    if not out.is_dir() and out.suffix.lower() not in (".html", ".htm"):  # a folder is refused as one
        raise XenomaskError(f"{out} does not end with .html: the report is one HTML page, which prints as PDF, too")


@app.command(rich_help_panel="Evaluate")
def report(
    maps: Annotated[
        list[Path], typer.Argument(metavar="MAPS", callback=maps_there, help="folders of maps, shown side by side")
    ],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(callback=early(check_html), help="HTML file to write")],
    track: TrackOption = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(callback=check_threshold, help="objects score more; once a folder; default: that of its detector"),
    ] = None,
    ignore: IgnoreOption = None,
    classes: Annotated[
        list[Path] | None,
        typer.Option(help="predicted classes (score --classes), once a folder: names the objects' nearest classes"),
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="frames whose pictures go in, the worst first")] = 40,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
) -> None:
    """One self-contained HTML page: numbers, curves, maps with a threshold slider, objects, what was missed.

    Example: xenomask report maps/maskomaly maps/max_logit --dataset anomaly-track --root data/smiyc --out report.html
    """
    from xenomask.evaluation.evaluate import track_of
    from xenomask.report.report import write_report

    region = named_region(ignore)
    folders = map_folders(maps, pattern, key)
    data = load_dataset(dataset, root, split, resize)
    track = track_of(dataset, track)
    with progress("report", 4 * len(maps) * len(data.labelled().frames)) as tick:
        write_report(
            folders, data, out, track, thresholds=threshold or None, ignore=region, classes=classes or None,
            images=images, resamples=resamples, seed=seed, tick=tick,
        )  # fmt: skip
    said = f"{out}: {out.stat().st_size / 1e6:.1f} MB, opens in a browser, offline"
    out_console.print(said, soft_wrap=True)


@app.command(rich_help_panel="Evaluate")
def diagrams(
    maps: Annotated[list[Path], typer.Argument(metavar="MAPS", callback=maps_there, help="folders of maps")],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder for the SVG files")],
    track: TrackOption = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
) -> None:
    """Vector pictures (SVG): PR and ROC with operating points and bootstrap bands, scores, reliability.

    Example: xenomask diagrams maps/maskomaly maps/max_logit --dataset anomaly-track --root data/smiyc --out diagrams
    """
    from xenomask.evaluation.evaluate import track_of
    from xenomask.report.report import write_diagrams

    folders = map_folders(maps, pattern, key)
    data = load_dataset(dataset, root, split, resize)
    track = track_of(dataset, track)
    with progress("diagrams", 2 * len(maps) * len(data.labelled().frames)) as tick:
        files = write_diagrams(folders, data, out, track, resamples=resamples, seed=seed, tick=tick)
    out_console.print(f"in {out}: {', '.join(f.name for f in files)}", soft_wrap=True)


@app.command(rich_help_panel="Evaluate")
def agreement(
    maps: Annotated[
        list[Path], typer.Argument(metavar="MAPS", callback=maps_there, help="folders of maps: methods, or members")
    ],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder for the pictures")],
    threshold: Annotated[
        list[float] | None,
        typer.Option(callback=check_threshold, help="once a folder; default: its best F1 on these frames"),
    ] = None,
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Draw where methods, or an ensemble's members, disagree: how many of them call each pixel anomalous.

    Example: xenomask agreement maps/nano-s maps/nano-l --dataset anomaly-track --root data/smiyc --out agreement
    """
    from xenomask.evaluation.agreement import draw_agreement

    folders = map_folders(maps, pattern, key)
    data = load_dataset(dataset, root, split, resize)
    with progress("agreement", (len(maps) + 1) * len(data.labelled().frames)) as tick:
        thresholds, rows = draw_agreement(folders, data, out, thresholds=threshold or None, tick=tick)
    table = Table("frame", "disputed", "anomaly seen by all", "by some", "by none", title_justify="left",
                  title=", ".join(f"{m.name} >= {t:.4g}" for m, t in zip(maps, thresholds, strict=True)))  # fmt: skip
    for r in rows:
        cells = (r.disputed, r.seen_by_all, r.seen_by_some, r.seen_by_none)
        table.add_row(r.frame, *("-" if v != v else f"{100 * v:.1f} %" for v in cells))
    out_console.print(table)
    out_console.print(f"{len(rows)} pictures in {out}", soft_wrap=True)
    write_json(json_file, {"thresholds": thresholds, "frames": [vars(r) for r in rows]})
