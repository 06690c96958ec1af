"""Data sets: drawn ones."""

from pathlib import Path
from typing import Annotated

import typer

from xenomask.cli.common import (
    out_console,
    parse_size,
    progress,
)

app = typer.Typer()


@app.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="folder to write")],
    layout: Annotated[str, typer.Option(help="anomaly-track, obstacle-track, fishyscapes-static, folder, cityscapes "
                                        "or train-ids")] = "anomaly-track",
    frames: Annotated[int, typer.Option(min=1)] = 10,
    size: Annotated[str, typer.Option(help="WxH")] = "1280x720",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:  # fmt: skip
    """Draw street scenes with strangers, in a real data set's on-disk format.

    Example: xenomask synthetic --out drawn --layout anomaly-track --frames 10
    """
    from xenomask.datasets.synthetic import write_scenes

    wanted = parse_size(size)
    assert wanted is not None
    with progress("draw", frames) as tick:
        write_scenes(out, layout, frames, seed=seed, size=wanted, tick=tick)
    out_console.print(f"{frames} frames in {out}, layout {layout}")
