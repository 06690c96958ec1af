"""What the first photo would otherwise wait for."""

from typing import Annotated

import typer
from rich.table import Table

from xenomask.cli.common import (
    DEFAULT_DETECTOR,
    JsonOption,
    a_detector,
    load_detector,
    out_console,
    parse_size,
    say,
    write_json,
)
from xenomask.errors import XenomaskError

app = typer.Typer()
SIZES = ["1280x720", "2048x1024"]  # 16:9 and 2:1: for the shipped detectors 640x360 and 1920x1080 are as 1280x720


@app.command(rich_help_panel="Tools")
def warmup(
    detector: Annotated[str, typer.Argument(callback=a_detector, help="detector folder, or a shipped one's name")] = (
        DEFAULT_DETECTOR
    ),
    size: Annotated[list[str], typer.Option(help="WxH of your photos; may be given several times")] = SIZES,
    json_file: JsonOption = None,
) -> None:
    """Build and keep what the first photo would wait for: OpenVINO's graphs, about half a minute each, and kernels.

    `detect`, `score`, `video`, `app` and `serve` then start without torch.

    Example: xenomask warmup --size 1280x720
    """
    sizes = [found for text in size if (found := parse_size(text))]
    from xenomask.detector.find import is_exported

    if is_exported(detector):
        raise XenomaskError(f"{detector} is a graph already: name the detector's folder")
    found = load_detector(detector, "cpu", runtime="torch").opened("queries")
    from xenomask.predict.warmup import compile_kernels, keep_graphs

    compile_kernels(found)
    say("kernels are compiled for this processor")
    made = keep_graphs(found, sizes, lambda w: say(f"{w.network}: {'kept before' if w.kept_before else 'built'}"))
    table = Table("network", "input", "for photos of", "graph", "MB")
    table.columns[-1].justify = "right"
    for w in made:
        photos = ", ".join(f"{wide}x{high}" for high, wide in w.photos)
        state = "kept before" if w.kept_before else "built"
        table.add_row(w.network, f"{w.input[1]}x{w.input[0]}", photos, state, f"{w.megabytes:.0f}")
    out_console.print(table)
    write_json(json_file, {"graphs": [vars(w) for w in made]})
