"""One pixel of a photo -> why it has its score."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from xenomask.cli.common import (
    DEFAULT_DETECTOR,
    DetectorOption,
    DeviceOption,
    JsonOption,
    MemberOption,
    RefineOption,
    RuntimeOption,
    ScoreOption,
    TtaOption,
    load_folder,
    marked,
    out_console,
    parse_point,
    write_json,
)

app = typer.Typer()
CLASSES_SHOWN = 4


@app.command(rich_help_panel="Predict")
def explain(
    photo: Annotated[Path, typer.Argument(help="a photo of any size")],
    at: Annotated[str, typer.Option(help="X,Y in pixels from the top left of the upright photo")],
    detector: DetectorOption = DEFAULT_DETECTOR,
    score: ScoreOption = None,
    member: MemberOption = None,
    tta: TtaOption = None,
    refine: RefineOption = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Why a pixel has its score: the members' shares, the branches, the queries and classes that decided.

    Example: xenomask explain street.jpg --at 640,400
    """
    point = parse_point(at)
    from xenomask.datasets import read_photo

    image = read_photo(photo)
    from xenomask.detector.explain import check_point, explain, in_words
    from xenomask.detector.prediction import default_threshold

    check_point(point, (image.shape[0], image.shape[1]))
    found = load_folder(detector, device, score, member, runtime, tta, refine, sizes=())
    answer = explain(found, [m.network.predict(image) for m in found.members], point)
    out_console.print(f"{found.name} at {at}: {answer.value:.6f}", highlight=False)
    for m in answer.members:
        _print_member(m)
    if found.refine:
        names = ", ".join(r.name for r in found.refine)
        out_console.print(f"\nrefined by {names}: {answer.refined:+.6f}", highlight=False)
    out_console.print(f"\n{in_words(answer, default_threshold(found))}", highlight=False, soft_wrap=True)
    write_json(json_file, {"photo": str(photo), "detector": found.name, **asdict(answer)})


def _print_member(m) -> None:
    sum_ = f"{m.weight:g} x {m.value:.6f} = {m.share:.6f}"
    out_console.print(marked("\n[bold]{}[/bold]: {}", m.name, sum_), highlight=False)
    out_console.print(f"{m.score} = {m.formula}", highlight=False)
    out_console.print("   ".join(f"{k} {v:.4g}" for k, v in m.parts.items()), highlight=False)
    for note in m.notes:
        out_console.print(note, highlight=False)
    largest = ", ".join(
        f"{c['label']} {c['mass']:.3f}" + (f" (adds {c['term']:.3f})" if "term" in c else "")
        for c in m.classes[:CLASSES_SHOWN]
    )
    more = ", ..." if len(m.classes) > CLASSES_SHOWN else ""
    out_console.print(f"L: {largest}{more}", highlight=False)
    if m.votes:
        table = Table("part", "query", "class", "confidence p", "mask m", "adds", "roles")
        for v in m.votes:
            numbers = (f"{v.confidence:.3f}", f"{v.mask:.3f}", f"{v.adds:.4f}")
            table.add_row(v.part, str(v.query), v.label, *numbers, " ".join(v.roles))
        out_console.print(table)
