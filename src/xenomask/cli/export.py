"""Detector -> one file for other runtimes."""

import re
from pathlib import Path
from typing import Annotated

import typer

from xenomask.cli.common import (
    DatasetOption,
    MemberOption,
    RefineOption,
    ResizeOption,
    RootOption,
    ScoreOption,
    early,
    load_dataset,
    one_of,
    out_console,
    parse_size,
    say,
    with_refine,
)
from xenomask.cli.completion import FORMATS
from xenomask.detector.find import check_name, is_exported
from xenomask.errors import XenomaskError

app = typer.Typer()


def check_source(detector: str) -> None:
    """Raises XenomaskError for what holds no networks to be written anew."""
    check_name(detector)
    if is_exported(detector):
        raise XenomaskError(f"{detector} is an exported file already: name the detector that it was made from")


SourceArgument = Annotated[
    str, typer.Argument(callback=early(check_source), help="detector folder, or a shipped one's name")
]


@app.command(rich_help_panel="Share")
def export(
    detector: SourceArgument,
    out: Annotated[Path, typer.Option(help="file to write: .onnx, or .xml with its .bin")],
    format: Annotated[str, typer.Option(callback=one_of("format", FORMATS), help="onnx or openvino")] = "onnx",
    size: Annotated[str | None, typer.Option(help="WxH of the photos, e.g. 1280x720")] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="photos of any size, scaled to fit; enlarged ones' maps differ visibly")
    ] = False,
    queries: Annotated[bool, typer.Option("--queries", help="one network's class and mask logits, no score")] = False,
    score: ScoreOption = None,
    member: MemberOption = None,
    batch: Annotated[
        str, typer.Option(help="photos that go through the networks together: a number, or dynamic")
    ] = "1",
    half: Annotated[bool, typer.Option("--half", help="store the weights in float16: half the file")] = False,
    serving: Annotated[
        Path | None, typer.Option(help="also write this folder, for Triton and for OpenVINO Model Server")
    ] = None,
    refine: RefineOption = None,
) -> None:
    """Write a detector as one ONNX or OpenVINO file: photo in, score map out, all between inside.

    Example: xenomask export nano --size 1280x720 --out nano.onnx
    """
    photo = parse_size(size)
    if photo is None:
        raise XenomaskError("give --size WxH, the size of your photos")
    if batch != "dynamic" and not (batch.isdecimal() and 1 <= int(batch) <= 64):
        raise XenomaskError(f"--batch {batch}: give a number from 1 to 64, or dynamic")
    from xenomask.export.content import check_request

    together = None if batch == "dynamic" else int(batch)
    check_request(out, format, photo, queries=queries, dynamic=dynamic, batch=together)
    from xenomask.detector import Detector
    from xenomask.detector.find import find
    from xenomask.export import export_detector, not_in_file, write_serving

    if serving is not None and (queries or serving.exists()):
        raise XenomaskError(f"--serving is for maps and a new folder: {'leave --queries out' if queries else serving}")
    found = Detector.from_folder(detector)
    if member:
        found = found.only(member)
    if score:
        found = found.with_score(score)
    found = with_refine(found, refine)
    if (left := not_in_file(found, queries=queries, dynamic=dynamic)) is not None:
        of = " for photos of any size" * dynamic
        say(f"note: no graph{of} holds the refinement {left.name} of {found.name}: the file gives the map before it, "
            "with that map's own threshold")  # fmt: skip
        found = found.with_refine(found.refine[: found.refine.index(left)])
    metadata = export_detector(
        found, out, format, size=photo, queries=queries, dynamic=dynamic,
        batch=together, half=half, terms=_terms(find(detector) / "README.md"),
    )  # fmt: skip
    files = f"{out} and {out.with_suffix('.bin').name}" if format == "openvino" else str(out)
    if serving is not None:
        write_serving(out, metadata, serving)
    what = "class and mask logits" if queries else f"score {metadata['score']}"
    out_console.print(f"written: {files}; {what}; next: xenomask detect PHOTO --detector {out}", soft_wrap=True)


@app.command(rich_help_panel="Share")
def quantize(
    detector: SourceArgument,
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder to write")],
    size: Annotated[str, typer.Option(help="WxH of the photos that it will see, e.g. 1280x720")],
    frames: Annotated[int, typer.Option(min=5, help="photos to look at; a fifth of them to compare")] = 100,
    split: Annotated[str, typer.Option("--split", help="split; not one that you evaluate on")] = "train",
    resize: ResizeOption = None,
    member: MemberOption = None,
    refine: RefineOption = None,
) -> None:
    """Write a detector's networks in int8, for OpenVINO on CPUs, and say what that does to the maps.

    Example: xenomask quantize nano --dataset cityscapes --root data/cityscapes --size 1280x720 --out nano-int8
    """
    from xenomask.detector import Detector
    from xenomask.detector.find import find
    from xenomask.export import quantize_detector

    photo = parse_size(size)
    assert photo is not None
    # as for training: data sets whose labels show anomalies are for evaluation, and refused
    data = load_dataset(dataset, root, split, resize, coding="train_ids")
    found = Detector.from_folder(detector)
    found = with_refine(found.only(member) if member else found, refine)
    seen = quantize_detector(
        found, out, data, size=photo, frames=frames, terms=_terms(find(detector) / "README.md")
    )  # fmt: skip
    out_console.print(
        f"{seen['photos']} photos that the calibration did not see: int8 maps differ from float32 ones by "
        f"{seen['mean']:.4f} on average, {seen['max']:.3f} at most, by more than .01 in {100 * seen['share']:.2f} % "
        "of the pixels",
        soft_wrap=True,
    )
    out_console.print(
        f"written: {out}; what it costs in accuracy: xenomask score --detector {out}, then xenomask evaluate",
        soft_wrap=True,
    )


def _terms(card: Path) -> str | None:
    """What a model card says under "Terms", if there is one: a shipped one's paragraph, or `detector.card`'s list."""
    from xenomask.files import read_text

    if not card.is_file():
        return None
    found = re.search(r"^(?:\*\*Terms\.\*\*|## Terms\n)\s*(.+?)(?:\n\s*\n|\Z)", read_text(card), re.M | re.S)
    return " ".join(re.sub(r"^- ", "", found[1], flags=re.M).split()) if found else None
