"""Maps + segments or boxes -> refined maps."""

from pathlib import Path
from typing import Annotated

import typer

from xenomask.cli.common import (
    KeyOption,
    PatternOption,
    check_there,
    early,
    map_folders,
    maps_there,
    out_console,
    progress,
)
from xenomask.errors import XenomaskError

app = typer.Typer()


@app.command(rich_help_panel="Predict")
def refine(
    maps: Annotated[
        Path, typer.Argument(callback=maps_there, help="folder of maps, one <id>.hdf5 a frame, or by --pattern")
    ],
    out: Annotated[Path, typer.Option(help="folder for the refined maps")],
    segments: Annotated[
        Path | None, typer.Option(callback=early(check_there), help="folder of <id>.png: a number a segment, 0 is none")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(callback=early(check_there), help="JSON of an object detector: COCO results, or {id: list of "
                     "rows x, y, width, height, score, class}"),
    ] = None,
    inliers: Annotated[str, typer.Option(help="classes of boxes that are no anomalies, with commas")] = "",
    options: Annotated[str, typer.Option(help="such as blend=.6,trim=.1 or add=1,score=.2,iou=.5")] = "",
    pattern: PatternOption = None,
    key: KeyOption = None,
) -> None:  # fmt: skip
    """Refine stored maps by given segments (SAM's, superpixels) or boxes (of any object); no network is run.

    What a detector can do by its own masks is --refine of detect, score and benchmark.

    Example: xenomask refine maps/at --segments sam/at --out maps/at-sam
    """
    if (segments is None) == (boxes is None) or (inliers and boxes is None):
        raise XenomaskError("give either --segments or --boxes; --inliers is for boxes")
    from xenomask.refine import parse_refinement
    from xenomask.refine.maps import refine_by_boxes, refine_by_segments

    name = "boxes" if segments is None else "segments"
    chosen = parse_refinement(f"{name}:{options}", needs=name)
    folder = map_folders([maps], pattern, key)[0]
    with progress("refine", len(folder.ids())) as tick:
        if boxes is not None:
            known = [c.strip() for c in inliers.split(",") if c.strip()]
            count, changed = refine_by_boxes(folder, chosen, boxes, out, inliers=known, tick=tick)
        else:
            assert segments is not None
            count, changed = refine_by_segments(folder, chosen, segments, out, tick=tick)
    text = f"{count} map{'s' * (count != 1)} in {out}, {changed} of them changed by {name}"
    out_console.print(text, soft_wrap=True)
