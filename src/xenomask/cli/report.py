"""Maps + labels -> a page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from xenomask.cli.common import (
    DatasetOption,
    ResizeOption,
    RootOption,
    SplitOption,
    load_dataset,
    out_console,
    progress,
)
from xenomask.cli.evaluation import ResamplesOption, SeedOption, TrackOption

app = typer.Typer()


@app.command()
def report(
    maps: Annotated[list[Path], typer.Argument(metavar="MAPS...", help="folders of maps, shown side by side")],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="HTML file to write")],
    track: TrackOption = None,
    images: Annotated[int, typer.Option(min=0, help="frames whose pictures go in, the worst first")] = 40,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    split: SplitOption = "val",
    resize: ResizeOption = None,
) -> None:
    """One self-contained HTML page: numbers, curves, maps with a threshold slider, what was missed.

    Example: xenomask report maps/maskomaly maps/max_logit --dataset anomaly-track --root data/smiyc --out report.html
    """
    from xenomask.run.evaluation import track_of
    from xenomask.run.report import write_report

    data = load_dataset(dataset, root, split, resize)
    track = track_of(dataset, track)
    with progress("report", 3 * len(maps) * len(data.labelled().frames)) as tick:
        write_report(maps, data, out, track, images=images, resamples=resamples, seed=seed, tick=tick)
    said = f"{out}: {out.stat().st_size / 1e6:.1f} MB, opens in a browser without a network"
    out_console.print(said, soft_wrap=True, markup=False)
