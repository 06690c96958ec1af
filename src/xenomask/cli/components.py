"""Maps -> instances and pictures for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from xenomask.cli.common import (
    IgnoreOption,
    KeyOption,
    PatternOption,
    check_threshold,
    map_folders,
    maps_there,
    named_region,
    out_console,
    progress,
)

app = typer.Typer()


@app.command(rich_help_panel="Predict")
def components(
    maps: Annotated[
        Path, typer.Argument(callback=maps_there, help="folder of maps, one <id>.hdf5 a frame, or by --pattern")
    ],
    threshold: Annotated[float, typer.Option(callback=check_threshold, help="components of score > threshold")],
    out: Annotated[Path, typer.Option(help="FILE.json: one COCO file; FILE.jsonl: a line an image")],
    smallest: Annotated[int, typer.Option(min=1, help="leave out components of fewer pixels")] = 1,
    ignore: IgnoreOption = None,
    ending: Annotated[str, typer.Option(help="of the photos' names in FILE, such as .jpg")] = "",
    png16: Annotated[Path | None, typer.Option(help="also write 16-bit PNGs of the maps into this folder")] = None,
    pattern: PatternOption = None,
    key: KeyOption = None,
) -> None:
    """Write the components of maps as COCO instances or JSON lines, and maps as plain 16-bit PNG.

    Example: xenomask components maps/at --threshold 0.5 --out at.json
    """
    from xenomask.objects.ignore import region_of_maps
    from xenomask.objects.objects import export_components, export_png16

    folder = map_folders([maps], pattern, key)[0]
    region = region_of_maps(folder.path) if ignore is None else named_region(ignore)
    with progress("components", len(folder.ids())) as tick:
        images, found = export_components(
            folder, threshold, out, smallest=smallest, ending=ending, ignore=region, tick=tick
        )
    out_console.print(f"{found} components of {images} maps in {out}", soft_wrap=True)
    if png16 is not None:
        with progress("png16", images) as tick:
            low, high = export_png16(folder, png16, tick=tick)
        out_console.print(f"{images} pictures in {png16}; 0 is {low:.6g}, 65535 is {high:.6g}", soft_wrap=True)
