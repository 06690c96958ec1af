"""Detector + data sets -> tables."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from xenomask.cli.common import (
    DEFAULT_DETECTOR,
    OUTSIDE,
    DatasetOption,
    DetectorOption,
    DeviceOption,
    JsonOption,
    KeyOption,
    MemberOption,
    PatternOption,
    RefineOption,
    ResizeOption,
    RootOption,
    RuntimeOption,
    ScoreOption,
    SplitOption,
    TtaOption,
    a_data_set,
    a_detector,
    err_console,
    load_dataset,
    load_detector,
    load_folder,
    map_folders,
    one_of,
    out_console,
    parse_size,
    progress,
    write_json,
)
from xenomask.cli.completion import CHOICES, DATASETS, SCORES, SUITES, names, several
from xenomask.errors import XenomaskError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenomask.evaluation.benchmark import Entry, OwnMaps

app = typer.Typer()


@app.command(rich_help_panel="Evaluate")
def benchmark(
    root: RootOption,
    suite: Annotated[
        str | None,
        typer.Option(
            callback=one_of("suite", SUITES),
            help="several data sets: smiyc-val, road-val; all: whatever is found in --root",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(autocompletion=names(DATASETS), callback=a_data_set, help="or one data set, as in score"),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            callback=a_detector,
            help=f"folder or shipped name; again for more. Default: {DEFAULT_DETECTOR}; none with --maps",
        ),
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(help="NAME=DIR: maps of another method, in DIR or DIR/<data set>; again for more"),
    ] = None,
    pattern: PatternOption = None,
    key: KeyOption = None,
    scores: Annotated[
        str,
        typer.Option(
            autocompletion=several(("own", "all", *SCORES)),
            callback=one_of("score", ("own", "all", *SCORES), *OUTSIDE),
            help="comma-separated names, all, or own: as each detector is read",
        ),
    ] = "own",
    members: Annotated[bool, typer.Option("--members", help="also each member alone")] = False,
    tta: TtaOption = None,
    refine: RefineOption = None,
    layout: Annotated[
        Literal["all", "paper"],
        typer.Option(help="paper: also paper.{md,tex}, methods x data sets with AUPR, FPR95, F1*, the best in bold"),
    ] = "all",
    out: Annotated[Path, typer.Option(help="folder for maps and table.{md,csv,tex,json}; resumes there")] = Path(
        "bench"
    ),
    resamples: Annotated[int, typer.Option(min=0, help="of the bootstrap over frames; 0: none")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="of the bootstrap")] = 0,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
    json_file: JsonOption = None,
) -> None:
    """One table over data sets x methods x conventions, with intervals, and published numbers for reference.

    Scores that read outlier queries stand there twice where those were chosen on the data set: in-sample, and with
    each frame's queries chosen on the others.

    Example: xenomask benchmark --suite smiyc-val --root data/smiyc --detector nano --scores own,max_logit
    """
    if (suite is None) == (dataset is None):
        raise XenomaskError("give either --suite (" + ", ".join(SUITES) + ") or --dataset")
    pairs = _pairs(maps or [])
    if not pairs and (pattern or key):
        raise XenomaskError("--pattern and --key are of --maps: give NAME=DIR, too")
    from xenomask.evaluation.benchmark import benchmark as run_benchmark
    from xenomask.evaluation.benchmark import open_suite
    from xenomask.evaluation.evaluate import track_of
    from xenomask.evaluation.paper import write_paper
    from xenomask.evaluation.tables import table_json, write_tables
    from xenomask.files import make_dir
    from xenomask.scores import SCORES, get_score

    scored = [s.strip() for s in (SCORES if scores == "all" else scores.split(","))]
    chosen = [None if s == "own" else get_score(s) for s in scored]
    data = (
        open_suite(suite, root, split, parse_size(resize))
        if suite
        else [load_dataset(dataset or "", root, split, resize)]
    )
    others = _own_maps(pairs, pattern, key)
    make_dir(out)
    default = [] if others else [DEFAULT_DETECTOR]
    found = [load_detector(d, device, runtime=runtime, tta=tta, refine=refine, sizes=()) for d in detector or default]
    networks = [m for d in found for m in d.members]
    lacking = [s for s in chosen if s and any(not getattr(m.queries, n) for m in networks for n in s.needs)]
    for s in lacking:
        err_console.print(f"left out: {s.name}, a member has no {'/'.join(s.needs)} query", style="yellow")
    masks_only = [s for s in chosen if s and not s.logit_scale and any(m.network.per_pixel for m in networks)]
    for s in masks_only:
        err_console.print(f"left out: {s.name}, a member is a per-pixel network", style="yellow")
    chosen = [s for s in chosen if s not in (*lacking, *masks_only)]
    no_class = [s for s in chosen if s and s.outlier_class and not all(m.network.outlier_class for m in networks)]
    if scores == "all":  # asked for by name, the score says itself what it lacks
        for s in no_class:
            err_console.print(f"left out: {s.name}, a member has no outlier class", style="yellow")
        chosen = [s for s in chosen if s not in no_class]
    if not chosen:
        raise XenomaskError("no score is left that these detectors' networks and queries offer")
    with progress("benchmark", sum(len(d.labelled().frames) for d in data)) as tick:
        entries = run_benchmark(
            found, chosen, [(d, track_of(d.name, None)) for d in data], out, maps=others, members=members,
            resamples=resamples, seed=seed, tick=tick,
        )  # fmt: skip
    write_tables(entries, out)
    write_json(json_file, table_json(entries))
    if layout == "paper":
        write_paper(entries, out)
    _print_entries(entries)
    for e in entries:
        for line in e.result.warnings:
            err_console.print(f"warning: {e.dataset}, {e.method.folder}: {line}", style="yellow", soft_wrap=True)
    also = "paper.md, .tex, " if layout == "paper" else ""
    err_console.print(f"maps, {also}table.md, .csv, .tex, .json in {out}")


SHOWN = ("AUPR-sum", "FPR95", "F1", "F1*")


def _print_entries(entries: "Sequence[Entry]") -> None:
    """The main numbers, a table each data set: 80 columns hold no more, table.md has all, with intervals."""
    from xenomask.evaluation.tables import head, published, rows

    found = [dict(zip(head(), r, strict=True)) for r in rows(entries, lambda value, _: f"{value:.4f}")]
    for data_set in dict.fromkeys(e.dataset for e in entries):
        table = Table("method", "convention", *SHOWN, title=data_set, title_justify="left")
        for r in (r for r in found if r["data set"] == data_set):
            method = [
                r[k] for k in ("detector", "networks", "score", "outlier queries") if r[k] not in ("-", "ensemble")
            ]
            table.add_row(", ".join(method), r["convention"], *(r[k] for k in SHOWN))
        out_console.print(table)
    if others := published(entries):
        table = Table("published, not measured here", "AUPR", "FPR95", "source")
        for data_set, p in others:
            fpr = "-" if p["fpr95"] is None else f"{p['fpr95']:.4f}"
            table.add_row(f"{p['method']} on {data_set}", f"{p['aupr']:.4f}", fpr, p["source"])
        out_console.print(table)


def _pairs(given: list[str]) -> list[tuple[str, str]]:
    """'mine=maps/theirs' -> what is called mine, and its folder."""
    pairs = [m.partition("=") for m in given]
    if bad := [m for m, (name, _, path) in zip(given, pairs, strict=True) if not name or not path]:
        raise XenomaskError(f"maps {bad[0]!r} is not NAME=DIR, such as mine=maps/mine")
    return [(name, path) for name, _, path in pairs]


def _own_maps(pairs: list[tuple[str, str]], pattern: str | None, key: str | None) -> "list[OwnMaps]":
    from xenomask.evaluation.benchmark import OwnMaps

    folders = map_folders([Path(path) for _, path in pairs], pattern, key)
    return [OwnMaps(name, folder) for (name, _), folder in zip(pairs, folders, strict=True)]


@app.command(rich_help_panel="Evaluate")
def crossval(
    dataset: DatasetOption,
    root: RootOption,
    detector: DetectorOption = "nano",
    choose: Annotated[
        str, typer.Option(callback=one_of("choice", CHOICES), help="of queries, weights, lambda; comma-separated")
    ] = "queries,weights",
    folds: Annotated[int | None, typer.Option(min=2, help="default: each frame (or scene) alone")] = None,
    by_scene: Annotated[bool, typer.Option(help="hold out whole scenes, told by the frame ids")] = False,
    step: Annotated[float, typer.Option(min=0.01, max=1, help="of the weight grid")] = 0.1,
    objective: Annotated[
        str, typer.Option(help="aupr_sum, aupr_trapz, auroc, fpr95, tpr_fpr5 or best_f1")
    ] = "aupr_sum",
    iou: Annotated[float | None, typer.Option(help="outlier queries: mean IoU above; default: as analysed")] = None,
    mask_threshold: Annotated[
        float | None, typer.Option(help="outlier queries: masks above; default: as analysed")
    ] = None,
    score: ScoreOption = None,
    member: MemberOption = None,
    refine: RefineOption = None,
    cache: Annotated[Path | None, typer.Option(help="keep the networks' outputs here, for the next try")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of dealing frames into --folds")] = 0,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Choose outlier queries, weights and lambda inside leave-one-out folds; each network looks once at a frame.

    Example: xenomask crossval --dataset anomaly-track --root data/smiyc --cache outputs/at
    """
    from xenomask.evaluation.crossval import OBJECTIVES
    from xenomask.evaluation.crossval import crossval as run_crossval

    what = [c.strip() for c in choose.split(",") if c.strip()]
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if "queries" not in what and (iou, mask_threshold) != (None, None):
        raise XenomaskError("--iou and --mask-threshold choose queries: let --choose name them")
    data = load_dataset(dataset, root, split, resize).labelled()
    found = load_folder(detector, device, score, member, runtime, refine=refine, sizes=())
    if "lambda" in what and any("mix" not in m.score.known_options for m in found.members):
        raise XenomaskError(f"score {found.score_name} has no lambda to choose: take a maskomaly score")
    with progress("networks", len(found.members) * len(data.frames)) as tick:
        result = run_crossval(
            found, data, cache, what=what, folds=folds, by_scene=by_scene, step=step, objective=objective, iou=iou,
            mask_threshold=mask_threshold, seed=seed, tick=tick,
        )  # fmt: skip
    names = [m.name for m in found.members]
    title = f"{dataset}, {found.score_name}, chosen: {choose}"
    table = Table("number", "in-sample", "held out", "optimism", title=title, title_justify="left")
    for key, gap in result.optimism.items():
        table.add_row(key, f"{result.in_sample[key]:.4f}", f"{result.held_out[key]:.4f}", f"{gap:+.4f}")
    out_console.print(table)
    out_console.print(
        f"{len(data.frames)} frames, {len(result.folds)} folds; chosen on all frames: {_describe(result.choice, names)}"
    )
    choices = [f.choice for f in result.folds]
    for c in sorted(set(choices), key=choices.count, reverse=True):
        out_console.print(f"  in {choices.count(c)} of {len(choices)} folds: {_describe(c, names)}", style="dim")
    write_json(json_file, asdict(result))


def _describe(choice, members) -> str:
    parts = [
        f"{n} queries {list(q)} weight {w:g}" for n, q, w in zip(members, choice.queries, choice.weights, strict=True)
    ]
    return "; ".join(parts) + (f"; lambda {choice.mix:g}" if choice.mix is not None else "")
