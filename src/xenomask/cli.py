"""The command line: one command = one function of the same meaning, no logic of its own."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from xenomask import __version__
from xenomask.errors import XenomaskError

app = typer.Typer(no_args_is_help=True, add_completion=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
queries_app = typer.Typer(no_args_is_help=True, help="Find out what the queries of a checkpoint do.")
app.add_typer(queries_app, name="queries")
out_console, err_console = Console(), Console(stderr=True)

DetectorOption = Annotated[str, typer.Option("--detector", help="detector folder, or a shipped one's name")]
DatasetOption = Annotated[str, typer.Option("--dataset", help="anomaly-track, obstacle-track, fishyscapes-static, "
                                            "cityscapes, synthetic or folder")]  # fmt: skip
RootOption = Annotated[Path, typer.Option("--root", help="folder of the data set")]
SplitOption = Annotated[str, typer.Option("--split", help="split, where the data set's layout has them")]
ResizeOption = Annotated[str | None, typer.Option("--resize", help="WxH on loading, e.g. 512x256 for a squeezed copy")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; default: cuda where there is one")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="also write the numbers to this file")]
ScoreOption = Annotated[str | None, typer.Option("--score", help="read the networks by this score instead")]
MemberOption = Annotated[str | None, typer.Option("--member", help="use this member alone")]
CheckpointOption = Annotated[Path, typer.Option("--checkpoint", help="checkpoint folder")]


@contextmanager
def _progress(what: str, total: int) -> Iterator[Any]:
    """A bar on stderr where that is a terminal; yields the function that moves it one on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _size(text: str | None) -> tuple[int, int] | None:
    """'512x256' -> (256, 512)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise XenomaskError(f"size {text!r} is not WIDTHxHEIGHT, such as 512x256")
    return int(parts[1]), int(parts[0])


def _device(name: str | None) -> str:
    """Chooses once, says what; raises XenomaskError for a device that is not there."""
    import torch

    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as e:
        raise XenomaskError(f"device {chosen} cannot be used: {str(e).splitlines()[0]}") from e
    err_console.print(f"device {chosen}{'' if name else ' (choose with --device)'}", style="dim")
    return chosen


def _detector(detector: str, device: str | None, score: str | None = None, member: str | None = None):
    from xenomask.detector import Detector

    found = Detector.from_folder(detector, _device(device))
    if member:
        found = found.only(member)
    return found.with_score(score) if score else found


def _dataset(name: str, root: Path, split: str = "val", resize: str | None = None, coding: str | None = None):
    from xenomask.datasets import open_dataset

    return open_dataset(name, root, split=split, resize=_size(resize), coding=coding)


def _write_json(path: Path | None, numbers: Any) -> None:
    from xenomask.files import atomic, make_dir

    if path is not None:
        make_dir(path.parent)
        with atomic(path) as part:
            part.write_text(json.dumps(numbers, indent=1) + "\n")


def _print_numbers(title: str, numbers: dict[str, float]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("number")
    table.add_column("value", justify="right")
    for key, value in numbers.items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) else f"{value:.6f}")
    out_console.print(table)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Finds, per pixel, what a road scene's segmentation network was never taught.

    First steps: [bold]xenomask demo[/bold], then [bold]xenomask detect photo.jpg --out out[/bold].
    """
    if version:
        out_console.print(__version__)
        raise typer.Exit()


@app.command()
def detect(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="photos of any size")],
    out: Annotated[Path, typer.Option(help="folder for map, heatmap and overlay")] = Path("out"),
    detector: DetectorOption = "nano",
    score: ScoreOption = None,
    member: MemberOption = None,
    threshold: Annotated[float | None, typer.Option(help="draw this score's contour")] = None,
    device: DeviceOption = None,
    json_file: JsonOption = None,
) -> None:
    """Look at photos: a map (HDF5), a heatmap and an overlay for each.

    Example: xenomask detect street.jpg --out out
    """
    from xenomask.run import detect_photos

    found = _detector(detector, device, score, member)
    if threshold is None:
        threshold = found.thresholds.get("default", {}).get("value")
    with _progress("detect", len(photos)) as tick:
        rows = detect_photos(found, photos, out, threshold=threshold, tick=tick)
    table = Table("photo", "max", "mean", *(["above threshold"] if threshold is not None else []))
    for r in rows:
        share = [f"{100 * r['share_above_threshold']:.2f} %"] if threshold is not None else []
        table.add_row(r["photo"], f"{r['max']:.3f}", f"{r['mean']:.3f}", *share)
    out_console.print(table)
    limit = f", threshold {threshold:.3f}" if threshold is not None else ""
    out_console.print(f"score {found.score_name}{limit}; pictures in {out}")
    _write_json(json_file, {"score": found.score_name, "threshold": threshold, "photos": rows})


@app.command()
def score(
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder of maps, one <id>.hdf5 a frame")],
    detector: DetectorOption = "nano",
    score: ScoreOption = None,
    member: MemberOption = None,
    leave_one_out: Annotated[bool, typer.Option(help="choose outlier queries on the other frames")] = False,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
) -> None:
    """Look at a data set; goes on where it stopped.

    Example: xenomask score --dataset anomaly-track --root data/smiyc --out maps/at
    """
    from xenomask.run import score_dataset

    data = _dataset(dataset, root, split, resize, coding=None)
    found = _detector(detector, device, score, member)
    with _progress("score", len(data.frames)) as tick:
        new = score_dataset(found, data, out, leave_one_out=leave_one_out, tick=tick)
    out_console.print(f"{len(data.frames)} maps in {out}, {new} of them new; score {found.score_name}")


@app.command()
def evaluate(
    maps: Annotated[Path, typer.Option(help="folder of maps, one <id>.hdf5 a frame")],
    dataset: DatasetOption,
    root: RootOption,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Pixel numbers of a folder of maps, pooled over all pixels but void, exact on the stored float16 values.

    Example: xenomask evaluate --maps maps/at --dataset anomaly-track --root data/smiyc --json at.json
    """
    from xenomask.run import evaluate_maps

    data = _dataset(dataset, root, split, resize)
    with _progress("evaluate", len(data.frames)) as tick:
        result = evaluate_maps(maps, data, tick=tick)
    for convention, numbers in result.numbers.items():
        _print_numbers(f"{dataset}, {len(result.frames)} frames, {convention}", dict(numbers))
    _write_json(json_file, {k: dict(v) for k, v in result.numbers.items()})


@app.command()
def heatmaps(
    maps: Annotated[Path, typer.Option(help="folder of maps, one <id>.hdf5 a frame")],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder for the pictures")],
    threshold: Annotated[float | None, typer.Option(help="contour; default: best F1 of these maps")] = None,
    scale: Annotated[tuple[float, float] | None, typer.Option(help="LOW HIGH of the colours")] = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
) -> None:
    """Draw photo, map, contours and void of every frame, and one contact sheet, on one fixed scale.

    Example: xenomask heatmaps --maps maps/at --dataset anomaly-track --root data/smiyc --out heatmaps
    """
    from xenomask.run import draw_heatmaps

    data = _dataset(dataset, root, split, resize)
    with _progress("draw", len(data.frames)) as tick:
        files = draw_heatmaps(maps, data, out, threshold=threshold, scale=scale, tick=tick)
    out_console.print(f"{len(files)} pictures in {out}, {files[-1].name} shows them all")


@app.command()
def benchmark(
    dataset: DatasetOption,
    root: RootOption,
    detector: DetectorOption = "nano",
    scores: Annotated[str, typer.Option(help="comma-separated names, or all")] = "all",
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
    json_file: JsonOption = None,
) -> None:
    """Every score's numbers for each member and the ensemble, as a Markdown table; each network looks once.

    Example: xenomask benchmark --dataset anomaly-track --root data/smiyc
    """
    from xenomask.run import benchmark as run_benchmark
    from xenomask.scores import SCORES, get_score

    chosen = [get_score(s.strip()) for s in (SCORES if scores == "all" else scores.split(","))]
    data = _dataset(dataset, root, split, resize).labelled()
    found = _detector(detector, device)
    empty = [s for s in chosen if any(not getattr(m.queries, part) for m in found.members for part in s.needs)]
    for s in empty:
        err_console.print(f"left out: {s.name}, a member has no {'/'.join(s.needs)} query", style="yellow")
    with _progress("benchmark", len(data.frames)) as tick:
        rows = run_benchmark(found, data, [s for s in chosen if s not in empty], tick=tick)
    print("| score | networks | outlier queries | AUPR-sum | AUPR-trapz | FPR95 | F1 | AUROC |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        n = r.numbers
        cells = (n[k] for k in ("aupr_sum", "aupr_trapz", "fpr95", "best_f1", "auroc"))
        print(f"| {r.score} | {r.member} | {r.queries} | {' | '.join(f'{v:.4f}' for v in cells)} |")
    _write_json(json_file, [{"score": r.score, "networks": r.member, "queries": r.queries, **r.numbers} for r in rows])


@app.command()
def scores() -> None:
    """List the scores with their formulas.

    Example: xenomask scores
    """
    from xenomask.scores import SCORES

    table = Table("score", "formula (higher = stranger)", "needs", show_lines=True)
    for s in SCORES.values():
        table.add_row(s.name, s.formula.replace("[", r"\["), ", ".join(s.needs) + (" queries" if s.needs else ""))
    out_console.print(table)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="recipe, such as configs/nano-s.toml")],
    work_dir: Annotated[Path | None, typer.Option(help="instead of the recipe's")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    device: DeviceOption = None,
) -> None:
    """Train a network by a recipe; goes on from the last checkpoint in the work folder.

    Example: xenomask train configs/nano-s.toml
    """
    from xenomask.train import read_config
    from xenomask.train import train as run_train

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("xenomask").setLevel(logging.INFO)
    recipe = read_config(config)
    changes: dict[str, Any] = {k: v for k, v in (("work_dir", work_dir), ("seed", seed)) if v is not None}
    if iterations:
        changes["optim"] = recipe.optim.model_copy(update={"iterations": iterations})
    folder = run_train(recipe.model_copy(update=changes), device=_device(device))
    out_console.print(f"trained: {folder}; next: xenomask queries inlier --checkpoint {folder} ...")


@queries_app.command("inlier")
def queries_inlier(
    checkpoint: CheckpointOption,
    dataset: DatasetOption,
    root: RootOption,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="a prediction counts as sure from here")] = 0.9,
    ratio: Annotated[float, typer.Option(min=0, max=1, help="share of sure predictions of one class")] = 0.9,
    min_predictions: Annotated[int, typer.Option(min=1, help="seldom used queries are left out")] = 1,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
) -> None:
    """Which queries are specialised on one class; ordinary scenes, no label needed.

    Example: xenomask queries inlier --checkpoint work_dirs/nano-s/iter_3000 --dataset folder
    --root data/cityscapes_256/val --resize 512x256
    """
    from xenomask.models import load
    from xenomask.queries import analyse_inlier, read_queries, write_inlier_csv, write_queries

    network = load(checkpoint, _device(device))
    data = _dataset(dataset, root, split, resize, coding="train_ids")
    before = read_queries(checkpoint, network.sha256)
    with _progress("inlier queries", len(data.frames)) as tick:
        after, counts = analyse_inlier(
            network, data, before, confidence=confidence, ratio=ratio, min_predictions=min_predictions, tick=tick
        )
    path = write_queries(checkpoint, after)
    names = [network.config.id2label[i] for i in range(network.config.num_labels)]  # pyright: ignore
    write_inlier_csv(path.parent, counts, after.inlier, names)
    for q, c in after.inlier.items():
        out_console.print(f"query {q:3d}  {names[c]}{'  (ground)' if q in after.ground else ''}")
    out_console.print(f"{len(after.inlier)} specialised queries on {len(data.frames)} frames; files in {path.parent}")
    if not after.inlier:
        err_console.print("no query is specialised: lower --confidence or --ratio", style="yellow")


@queries_app.command("outlier")
def queries_outlier(
    checkpoint: CheckpointOption,
    dataset: DatasetOption,
    root: RootOption,
    iou: Annotated[float, typer.Option(min=0, max=1, help="mean IoU with the anomalies above this")] = 0.25,
    mask_threshold: Annotated[float, typer.Option(min=0, max=1, help="a mask covers a pixel above this")] = 0.9,
    top_k: Annotated[int | None, typer.Option(min=1, help="instead of --iou: so many best queries")] = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
) -> None:
    """Which queries fire on anomalies; the numbers for leave-one-image-out are kept.

    Example: xenomask queries outlier --checkpoint work_dirs/nano-s/iter_3000 --dataset anomaly-track
    --root data/smiyc
    """
    from xenomask.models import load
    from xenomask.queries import analyse_outlier, read_queries, write_outlier_csv, write_queries

    network = load(checkpoint, _device(device))
    data = _dataset(dataset, root, split, resize).labelled()
    before = read_queries(checkpoint, network.sha256)
    with _progress("outlier queries", len(data.frames)) as tick:
        after = analyse_outlier(network, data, before, iou=iou, mask_threshold=mask_threshold, top_k=top_k, tick=tick)
    path = write_queries(checkpoint, after)
    write_outlier_csv(path.parent, after)
    for q, mean in after.outlier.items():
        out_console.print(f"query {q:3d}  mean IoU {mean:.3f}")
    out_console.print(f"{len(after.outlier)} outlier queries on {len(data.frames)} frames; files in {path.parent}")
    if not after.outlier:
        err_console.print(
            f"no query's mean IoU is above {iou}: Maskomaly's outlier branch will be empty (0 everywhere); lower "
            f"--iou, or take the best ones with --top-k (see {path.parent / 'outlier_iou.csv'})",
            style="yellow",
        )


@app.command()
def assemble(
    out: Annotated[Path, typer.Option(help="detector folder to write")],
    member: Annotated[list[str], typer.Option(help="NAME=CHECKPOINT_FOLDER, once a member")],
    weight: Annotated[list[float] | None, typer.Option(help="once a member; default: equal")] = None,
    score: Annotated[str, typer.Option(help="how the members are read")] = "maskomaly",
    half: Annotated[bool, typer.Option(help="store weights as float16")] = False,
    threshold: Annotated[float | None, typer.Option(help="contour that `detect` draws by default")] = None,
    threshold_origin: Annotated[str, typer.Option(help="where that threshold comes from")] = "",
) -> None:
    """Join checkpoints and their query analyses into a detector folder.

    Example: xenomask assemble --out my-detector --member s=work_dirs/nano-s/iter_3000 --score entropy
    """
    from xenomask.detector import assemble as run_assemble

    pairs = [m.partition("=") for m in member]
    if bad := [m for m, (name, _, path) in zip(member, pairs, strict=True) if not name or not path]:
        raise XenomaskError(f"member {bad[0]!r} is not NAME=CHECKPOINT_FOLDER")
    weights = weight or [1 / len(pairs)] * len(pairs)
    thresholds = {} if threshold is None else {"default": {"value": threshold, "origin": threshold_origin}}
    members = [(n, Path(p)) for n, _, p in pairs]
    folder = run_assemble(out, out.name, members, weights, score, thresholds=thresholds, half=half)
    out_console.print(f"detector in {folder}; next: xenomask detect PHOTO --detector {folder}")


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

    wanted = _size(size)
    assert wanted is not None
    with _progress("draw", frames) as tick:
        write_scenes(out, layout, frames, seed=seed, size=wanted, tick=tick)
    out_console.print(f"{frames} frames in {out}, layout {layout}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("demo_out"),
    detector: DetectorOption = "nano",
    frames: Annotated[int, typer.Option(min=1)] = 6,
    seed: Annotated[int, typer.Option()] = 7,
    device: DeviceOption = None,
) -> None:
    """The whole way on drawn street scenes: detect, evaluate, draw. Nothing is downloaded.

    Example: xenomask demo
    """
    from xenomask.run import demo as run_demo

    found = _detector(detector, device)
    with _progress("demo", 3 * frames) as tick:
        result = run_demo(found, out, frames=frames, seed=seed, tick=tick)
    _print_numbers(f"{frames} drawn scenes, score {found.score_name}, exact", dict(result.numbers["exact"]))
    out_console.print(
        "These scenes are drawings, and only their road and what lies on it is counted: the shipped networks know a "
        "drawn road,\nbut cars, trees and people that are drawn look strange to them. The README has real "
        "photos' numbers."
    )
    out_console.print(f"look at {out / 'heatmaps' / 'contact_sheet.jpg'}; maps in {out / 'maps'}")


def main() -> None:
    """Runs the command line; what the user can mend becomes one line on stderr and exit code 2."""
    # a Hub is asked only by commands that say so
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app()
    except XenomaskError as e:
        err_console.print(f"error: {e}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as e:  # a disk that filled up or went away between two checks
        err_console.print(f"error: {e}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
