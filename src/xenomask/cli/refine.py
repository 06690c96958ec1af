"""Maps + segments, superpixels or boxes -> refined maps."""

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
    superpixels: Annotated[
        Path | None,
        typer.Option(callback=early(check_there), help="folder of the maps' photos, <id>.jpg or of another ending, "
                     "whose superpixels are the segments"),
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
    """Refine stored maps by given segments (SAM's), their photos' superpixels, or boxes (of any object).

    No network is run. What a detector can do by its own masks is --refine of detect, score and benchmark.

    Example: xenomask refine maps/at --segments sam/at --out maps/at-sam
    """
    if sum(given is not None for given in (segments, superpixels, boxes)) != 1 or (inliers and boxes is None):
        raise XenomaskError("give one of --segments, --superpixels and --boxes; --inliers is for boxes")
    from xenomask.refine import parse_refinement
    from xenomask.refine.maps import refine_by_boxes, refine_by_segments, refine_by_superpixels

    name = "segments" if boxes is None else "boxes"
    chosen = parse_refinement(f"{name}:{options}", needs=name)
    folder = map_folders([maps], pattern, key)[0]
    with progress("refine", len(folder.ids())) as tick:
        if boxes is not None:
            known = [c.strip() for c in inliers.split(",") if c.strip()]
            count, changed = refine_by_boxes(folder, chosen, boxes, out, inliers=known, tick=tick)
        elif superpixels is not None:
            count, changed = refine_by_superpixels(folder, chosen, superpixels, out, tick=tick)
        else:
            assert segments is not None
            count, changed = refine_by_segments(folder, chosen, segments, out, tick=tick)
    by = name if superpixels is None else "superpixels"
    text = f"{count} map{'s' * (count != 1)} in {out}, {changed} of them changed by {by}"
    out_console.print(text, soft_wrap=True)
