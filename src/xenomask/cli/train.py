"""Recipe -> checkpoint -> query analysis."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from xenomask.cli.common import (
    CheckpointOption,
    DatasetOption,
    DeviceOption,
    ResizeOption,
    RootOption,
    SplitOption,
    choose_device,
    early,
    err_console,
    load_dataset,
    out_console,
    progress,
)
from xenomask.errors import XenomaskError, unknown
from xenomask.offline import asking_hub

ENGINES = ("xenomask", "mmseg")
app = typer.Typer()
queries_app = typer.Typer(no_args_is_help=True, help="Find out what the queries of a checkpoint do.")
app.add_typer(queries_app, name="queries", rich_help_panel="Train")


def _check_recipe(path: Path) -> None:
    """Refuse a recipe that is not there; those of configs/ come with the package, too."""
    if path.suffix == ".toml" and path.parent != Path("configs") and not path.is_file():
        raise XenomaskError(f"no such recipe: {path}")


@app.command(rich_help_panel="Train")
def train(
    config: Annotated[
        Path,
        typer.Argument(
            callback=early(_check_recipe), help="recipe, such as configs/nano-s.toml; mmseg: a .py, or its name"
        ),
    ],  # fmt: skip
    engine: Annotated[
        str, typer.Option(help="xenomask, or mmseg: MMSegmentation's own runner on its own config")
    ] = "xenomask",
    python: Annotated[Path | None, typer.Option(help="mmseg: the interpreter that has it, if not this one")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="instead of the recipe's")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="instead of the recipe's")] = None,
    device: DeviceOption = None,
) -> None:
    """Train a network by a recipe; resumes from the last checkpoint in the work folder.

    Example: xenomask train configs/nano-s.toml
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine == "mmseg":
        _train_mmseg(config, python, work_dir, {"--iterations": iterations, "--seed": seed, "--device": device})
        return
    if python is not None:
        raise XenomaskError("--python is for --engine mmseg")
    from xenomask.train import read_config
    from xenomask.train import train as run_train
    from xenomask.train.init import is_remote, locate
    from xenomask.train.state import last_step

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("xenomask").setLevel(logging.INFO)
    recipe = read_config(config)
    changes: dict[str, Any] = {k: v for k, v in (("work_dir", work_dir), ("seed", seed)) if v is not None}
    if iterations:
        changes["optim"] = recipe.optim.model_copy(update={"iterations": iterations})
    recipe = recipe.model_copy(update=changes)
    if recipe.init and is_remote(recipe.init) and last_step(recipe.work_dir) is None:
        with asking_hub():  # the recipe names a repository: that is the request
            locate(recipe.init)
    folder = run_train(recipe, device=choose_device(device))
    out_console.print(f"trained: {folder}; next: xenomask queries inlier --checkpoint {folder} ...")


def _train_mmseg(config: Path, python: Path | None, work_dir: Path | None, ours: Mapping[str, Any]) -> None:
    from xenomask.train.mmseg import train_mmseg

    if given := [name for name, value in ours.items() if value is not None]:
        raise XenomaskError(f"{', '.join(given)}: not with --engine mmseg, whose config says all that")
    if folder := train_mmseg(str(config), python or Path(sys.executable), work_dir):
        out_console.print(
            f"trained and converted: {folder}; next: xenomask queries inlier --checkpoint {folder} ...", soft_wrap=True
        )


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
    from xenomask.files import make_dir
    from xenomask.models import load
    from xenomask.queries import analyse_inlier, read_queries, write_inlier_csv, write_queries

    network = load(checkpoint, choose_device(device))
    data = load_dataset(dataset, root, split, resize, coding="train_ids")
    # no label is needed, so none is read: they may be of other classes than Cityscapes', as a recipe's label map says
    data = replace(data, frames=tuple(replace(f, label=None) for f in data.frames))
    before = read_queries(checkpoint, network.sha256)
    make_dir(checkpoint)
    with progress("inlier queries", len(data.frames)) as tick:
        after, counts = analyse_inlier(
            network.predict, data, before, confidence=confidence, ratio=ratio, min_predictions=min_predictions,
            tick=tick,
        )  # fmt: skip
    path = write_queries(checkpoint, after)
    names = [network.config.id2label[i] for i in range(network.config.num_labels)]  # pyright: ignore
    write_inlier_csv(path.parent, counts, after.inlier, names)
    for q, c in after.inlier.items():
        out_console.print(f"query {q:3d}  {names[c]}{'  (ground)' if q in after.ground else ''}")
    out_console.print(f"{len(after.inlier)} specialised queries on {len(data.frames)} frames; files in {path.parent}")
    _tell_detector(checkpoint)
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
    from xenomask.files import make_dir
    from xenomask.models import load
    from xenomask.queries import analyse_outlier, read_queries, write_outlier_csv, write_queries

    network = load(checkpoint, choose_device(device))
    data = load_dataset(dataset, root, split, resize).labelled()
    before = read_queries(checkpoint, network.sha256)
    make_dir(checkpoint)
    with progress("outlier queries", len(data.frames)) as tick:
        after = analyse_outlier(
            network.predict, data, before, iou=iou, mask_threshold=mask_threshold, top_k=top_k, tick=tick
        )
    path = write_queries(checkpoint, after)
    write_outlier_csv(path.parent, after)
    for q, mean in after.outlier.items():
        out_console.print(f"query {q:3d}  mean IoU {mean:.3f}")
    out_console.print(f"{len(after.outlier)} outlier queries on {len(data.frames)} frames; files in {path.parent}")
    _tell_detector(checkpoint)
    if not after.outlier:
        err_console.print(
            f"no query's mean IoU is above {iou}: Maskomaly's outlier branch will be empty (0 everywhere); lower "
            f"--iou, or take the best ones with --top-k (see {path.parent / 'outlier_iou.csv'})",
            style="yellow",
        )


def _tell_detector(checkpoint: Path) -> None:
    """Says what is to be done where the queries of a detector's member were written anew."""
    detector = checkpoint.resolve().parent
    if (detector / "detector.json").is_file():
        out_console.print(f"to use them in {detector}: xenomask assemble --out {detector}", soft_wrap=True)


@queries_app.command("sheet")
def queries_sheet(
    checkpoint: CheckpointOption,
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="HTML file to write")],
    photos: Annotated[int, typer.Option(min=1, help="how many to look at, evenly chosen")] = 20,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
) -> None:
    """Draw what each query does: its classes, its mean mask, its best images; specialised and outlier ones marked.

    Example: xenomask queries sheet --checkpoint work_dirs/nano-s/iter_3000 --dataset anomaly-track --root data/smiyc
    --out queries.html
    """
    from xenomask.models import load
    from xenomask.queries import read_queries
    from xenomask.report.query_sheet import write_query_sheet

    network = load(checkpoint, choose_device(device))
    data = load_dataset(dataset, root, split, resize)
    own = read_queries(checkpoint, network.sha256)
    with progress("queries", min(photos, len(data.frames))) as tick:
        n = write_query_sheet(network, own, data, out, name=checkpoint.resolve().name, photos=photos, tick=tick)
    out_console.print(f"{out}: what {n} photos made the queries do", soft_wrap=True)
