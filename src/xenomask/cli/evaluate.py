"""Maps + labels -> numbers."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from xenomask.cli.common import (
    DatasetOption,
    JsonOption,
    KeyOption,
    PatternOption,
    ResizeOption,
    RootOption,
    SplitOption,
    err_console,
    load_dataset,
    map_folders,
    maps_there,
    marked,
    one_of,
    out_console,
    print_numbers,
    progress,
    write_json,
)
from xenomask.cli.completion import TRACKS, names
from xenomask.errors import XenomaskError

app = typer.Typer()

MapsOption = Annotated[
    Path, typer.Option("--maps", callback=maps_there, help="folder of maps, one <id>.hdf5 a frame, or by --pattern")
]
TrackOption = Annotated[
    str | None,
    typer.Option("--track", autocompletion=names(TRACKS), callback=one_of("track", TRACKS), help="anomaly, obstacle "
                 "or issu: whose component sizes; default: the data set's"),
]  # fmt: skip
ResamplesOption = Annotated[int, typer.Option("--resamples", min=0, help="of the bootstrap over frames; 0: none")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of the bootstrap")]


@app.command(rich_help_panel="Evaluate")
def evaluate(
    maps: MapsOption,
    dataset: DatasetOption,
    root: RootOption,
    track: TrackOption = None,
    classes: Annotated[
        Path | None, typer.Option(help="folder of predicted classes (score --classes): adds open-world IoU")
    ] = None,
    clips: Annotated[bool, typer.Option("--clips", help="frames are of video clips: also numbers over time")] = False,
    by_size: Annotated[bool, typer.Option("--by-size", help="also recall of true components by their size")] = False,
    conventions: Annotated[Literal["two", "all"], typer.Option(help="all: everybody else's too, in one table")] = "two",
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Pixel and component numbers of a folder of maps, pooled over all pixels but void, with intervals.

    "exact" is exact on the stored float16 values, "official" is what the SegmentMeIfYouCan code computes.

    Example: xenomask evaluate --maps maps/at --dataset anomaly-track --root data/smiyc --json at.json
    """
    data, given = load_dataset(dataset, root, split, resize), track
    folder = map_folders([maps], pattern, key)[0]
    from xenomask.store import check_complete

    check_complete(folder, data)
    from xenomask.datasets import DATASETS
    from xenomask.evaluation.evaluate import (
        clip_numbers,
        conventions_of,
        evaluate_maps,
        rounding_note,
        size_numbers,
        track_of,
    )

    track = track_of(dataset, track)
    with progress("evaluate", (2 + (classes is not None)) * len(data.labelled().frames)) as tick:
        result = evaluate_maps(folder, data, track, classes=classes, resamples=resamples, seed=seed, tick=tick)
    out_console.print(f"{dataset}, {maps}", soft_wrap=True)  # no title of a table, which would break the path
    for part in result.tables():
        out_console.print(part)
    for line in result.warnings:
        err_console.print(f"warning: {line}", style="yellow", highlight=False, soft_wrap=True)
    if note := rounding_note(folder, result.frames):
        err_console.print(f"note: {note}", style="yellow", soft_wrap=True)
    if given is None and DATASETS[dataset].track is None:
        note = (
            f"no component sizes are official for {dataset}: those of the {track} track are used; --track names another"
        )
        err_console.print(f"note: {note}", style="yellow", soft_wrap=True)
    if unlabelled := len(data.frames) - len(result.frames):
        err_console.print(f"note: {unlabelled} frames have no label and were not counted", style="yellow")
    found = result.to_json()
    if conventions == "all":
        others = conventions_of(result, folder, data)
        table = Table("convention", "used by", "AUPR", "FPR95", "F1", title="the same maps, everybody's way")
        for c, n in others:
            table.add_row(c.name, marked("{}\n[dim]{}[/dim]", c.used_by, c.text), *_cells(n))
        out_console.print(table)
        found["conventions"] = {c.name: {"used_by": c.used_by, "text": c.text, **n} for c, n in others}
    if clips:
        found["clips"] = clip_numbers(result, folder, data)
        print_numbers("over time", found["clips"])
    if by_size:
        found["by_size"] = size_numbers(result, folder, data)
        table = Table(
            "pixels",
            "objects",
            "recall",
            "sIoU",
            title="true components by size (recall: mean over the taus of sIoU)",
            title_justify="left",
        )
        for name, n in found["by_size"].items():
            table.add_row(
                name, str(n["objects"]), *(f"{n[k]:.4f}" if n["objects"] else "-" for k in ("recall", "siou"))
            )
        out_console.print(table)
    write_json(json_file, found)


def _cells(n: dict[str, float]) -> list[str]:
    values = (n.get(k, float("nan")) for k in ("aupr", "fpr", "f1"))
    return ["-" if v != v else f"{v:.4f}" for v in values]


@app.command(rich_help_panel="Evaluate")
def compare(
    maps: Annotated[
        list[Path], typer.Argument(metavar="MAPS", callback=maps_there, help="folders of maps; the first against each")
    ],
    dataset: DatasetOption,
    root: RootOption,
    track: TrackOption = None,
    resamples: Annotated[int, typer.Option("--resamples", min=1, help="of the bootstrap over frames")] = 1000,
    seed: SeedOption = 0,
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Paired bootstrap between methods on the same frames: difference, its interval, how often the first wins.

    Example: xenomask compare maps/maskomaly maps/entropy --dataset anomaly-track --root data/smiyc
    """
    if len(maps) < 2:
        raise XenomaskError("compare needs two folders of maps or more")
    from xenomask.evaluation.evaluate import compare_maps, track_of
    from xenomask.metrics.table import NUMBERS

    folders = map_folders(maps, pattern, key)
    data = load_dataset(dataset, root, split, resize)
    track = track_of(dataset, track)
    with progress("read", 2 * len(maps) * len(data.labelled().frames)) as tick:
        rows = compare_maps(folders, data, track, resamples=resamples, seed=seed, tick=tick)
    for other in dict.fromkeys(r.b for r in rows):
        out_console.print(f"A {folders[0]}  B {other}", soft_wrap=True)
        table, convention = Table("number", "A", "B", "A - B", "95 % interval", "A better"), ""
        for r in rows:
            if r.b == other and r.number in NUMBERS:
                if r.convention != convention:  # a row instead of a column: 80 columns hold the rest
                    table.add_section()
                    table.add_row(convention := r.convention, style="dim")
                span = f"{r.interval[0]:+.4f} .. {r.interval[1]:+.4f}"
                clear = "bold" if r.interval[0] > 0 or r.interval[1] < 0 else "none"
                cells = (f"{r.value_a:.4f}", f"{r.value_b:.4f}", f"{r.difference:+.4f}", span, f"{100 * r.wins:.1f} %")
                table.add_row(NUMBERS[r.number].label, *cells, style=clear)
        out_console.print(table)
    out_console.print(
        f"{resamples:,} resamples of the frames, the same for all; bold: the interval leaves zero out. It tells of "
        "other frames like these, not of other data sets",
        style="dim",
    )
    write_json(json_file, [vars(r) for r in rows])
