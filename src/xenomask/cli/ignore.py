"""A part of every photo that does not count -> a detector's folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from xenomask.cli.common import early, out_console, progress
from xenomask.detector.find import check_folder

app = typer.Typer()


@app.command(rich_help_panel="Tools")
def ignore(
    what: Annotated[list[str], typer.Argument(metavar="REGION|PHOTO", help="bottom:12% (top, left, right), a mask "
                                              "picture, photos of one drive, or none")],
    into: Annotated[Path, typer.Option(callback=early(check_folder), help="detector folder that keeps the region")],
) -> None:  # fmt: skip
    """Keep a part of every photo from counting: the own bonnet, a bracket, a logo. Maps stay as they are.

    One REGION is taken as it is; of several photos, or a folder, the region is learnt: what stays in place at the lower
    edge. "none" takes a region out again. detect, video, app and exported files use it.

    Example: xenomask ignore bottom:12% --into my-detector
    """
    from xenomask.detector.folder import store_region
    from xenomask.objects.ignore import learn_region, parse_region

    if what == ["none"]:
        store_region(into, None)
        out_console.print(f"{into} ignores nothing", soft_wrap=True)
        return
    if len(what) == 1 and what[0] != "-" and not Path(what[0]).is_dir() and not any(c in what[0] for c in "*?["):
        region = parse_region(what[0])
    else:
        from xenomask.datasets import read_photo
        from xenomask.predict.inputs import list_photos

        photos = list_photos(what, sys.stdin)
        with progress("read", len(photos)) as tick:

            def each():
                for p in photos:
                    yield read_photo(p)
                    tick()

            region = learn_region(each())
    store_region(into, region)
    out_console.print(
        f"{into} ignores {100 * region.mask.mean():.1f} % of every photo ({region.origin})", soft_wrap=True
    )
