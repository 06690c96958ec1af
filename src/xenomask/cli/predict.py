"""Detector + photos or data set -> maps and pictures."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from xenomask.cli.common import (
    DEFAULT_DETECTOR,
    AlarmsOption,
    AutoRuntimeOption,
    BatchOption,
    DatasetOption,
    DetectorOption,
    DeviceOption,
    IgnoreOption,
    JsonOption,
    KernelOption,
    KeyOption,
    MemberOption,
    PatternOption,
    PrecisionOption,
    ProfileOption,
    RefineOption,
    ResizeOption,
    RootOption,
    RuntimeOption,
    ScoreOption,
    SplitOption,
    ThresholdOption,
    TtaOption,
    beside_progress,
    check_json,
    check_there,
    check_threshold,
    choose_threshold,
    early,
    load_dataset,
    load_detector,
    map_folders,
    maps_there,
    named_region,
    one_of,
    out_console,
    parse_shard,
    print_error,
    print_numbers,
    print_profile,
    progress,
    refuse_both,
    with_region,
    write_json,
)
from xenomask.cli.completion import ENGINES, FILES
from xenomask.errors import XenomaskError, printable, unknown

if TYPE_CHECKING:
    from xenomask.detector.predictor import Predictor
    from xenomask.objects import AnomalyObject
    from xenomask.predict.photos import Detection

app = typer.Typer()
SMALLEST = 0.1  # percent of the photo, as objects.SMALLEST


@app.command(rich_help_panel="Predict")
def detect(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO", help="photos, folders of photos, quoted patterns; "
                                                "-: a list of paths on standard input")],
    out: Annotated[Path, typer.Option(help="folder for map, heatmap and overlay")] = Path("out"),
    detector: DetectorOption = DEFAULT_DETECTOR,
    score: ScoreOption = None,
    member: MemberOption = None,
    tta: TtaOption = None,
    refine: RefineOption = None,
    threshold: ThresholdOption = None,
    alarms: AlarmsOption = None,
    smallest: Annotated[float, typer.Option(min=0, max=100, help="smallest object, percent of the photo")] = SMALLEST,
    ignore: IgnoreOption = None,
    coco: Annotated[Path | None, typer.Option(help="also write the objects as one COCO file")] = None,
    only: Annotated[str | None, typer.Option(callback=one_of("file", FILES), help="write only map, heatmap or overlay "
                                             "(several with commas); objects: no file, it says what it found")] = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "float32",
    kernel: KernelOption = "auto",
    batch: BatchOption = 1,
    profile: ProfileOption = False,
    json_file: JsonOption = None,
) -> None:  # fmt: skip
    """Find anomalies in photos: says what it found, and writes a map (HDF5), a heatmap and an overlay for each.

    Example: xenomask detect street.jpg --out out
    """
    refuse_both(threshold, alarms)
    # before NumPy is loaded: OpenBLAS' idle threads would spin beside the networks
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from xenomask.predict.inputs import check_photos, list_photos, sizes_of

    paths = list_photos(photos, sys.stdin)
    check_photos(paths, out)
    check_json(coco)
    if coco and json_file and coco.resolve() == json_file.resolve():
        raise XenomaskError(f"--coco and --json both name {coco}: give each a file of its own")
    region = named_region(ignore)
    kept = {"sizes": sizes_of(paths) if batch == 1 else (), "once": len(paths) == 1}
    found = load_detector(
        detector, device, score, member, runtime, precision=precision, kernel=kernel, tta=tta, refine=refine, **kept
    )
    from xenomask.objects import write_coco
    from xenomask.predict.photos import detect_photos

    found = with_region(found, region)
    threshold, rate = choose_threshold(found, threshold, alarms)
    failed: list[XenomaskError] = []
    ignores = found.ignore is not None
    files = FILES[:3] if only is None else [w.strip() for w in only.split(",")]

    def tell(r: "Detection") -> None:
        console = beside_progress()
        with suppress(SystemExit):  # rich's, where the reader (`| head -1`) has gone: the maps are still wanted
            line = f"{printable(r.photo)}: {said(r, threshold, ignores)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            if r.objects and len(r.objects) > 1:
                console.print(objects_table(r.objects))

    with progress("detect", len(paths)) as tick:
        rows, times = detect_photos(
            found, paths, out, threshold=threshold, smallest=smallest / 100, batch=batch, failed=failed, tick=tick,
            tell=tell, only=files,
        )  # fmt: skip
    if rows:
        # the rate holds for what it was measured with
        print_footer(found, rows, threshold, rate if smallest == SMALLEST and region is None else "")
    written = [f"{f}s" for f in files if f != "objects"]
    if rows and written:
        listed = " and ".join(filter(None, (", ".join(written[:-1]), written[-1])))
        out_console.print(f"{listed} in {out}", soft_wrap=True)
    numbers = {"score": found.score_name, "threshold": threshold, "photos": [r.to_json() for r in rows]}
    if failed:
        numbers["failed"] = [str(e) for e in failed]
    if coco is not None:
        write_coco(coco, [(r.photo, r.size, r.objects or []) for r in rows], f"objects of score > {threshold!r}")
    if profile:
        print_profile(times)
        numbers["profile"] = times.table()
    write_json(json_file, numbers)
    for e in failed[:-1]:
        print_error(e)
    if failed:
        others = f" ({len(failed)} of {len(paths)} photos failed, the others are done)" if rows else ""
        raise XenomaskError(f"{failed[-1]}{others}")


def print_footer(found: "Predictor", rows: "Sequence[Detection]", threshold: float | None, rate: str) -> None:
    """What the printed numbers mean."""
    if threshold is None:
        out_console.print(
            f"no threshold is stored for {found.name} with score {found.score_name}, so no objects are named: give one "
            "by --threshold NUMBER, below the largest score that is printed above",
            soft_wrap=True,
        )
    limit = f"; an object scores above {threshold:.3g}{rate}" if threshold is not None else ""
    out_console.print(f"score: {found.score_name}, higher is more anomalous{limit}", soft_wrap=True)
    if any(o.nearest for r in rows for o in r.objects or ()):
        out_console.print(
            "nearest class: the training class that fits best, with its probability; a low one: no class fits",
            soft_wrap=True,
        )


def said(found: "Detection", threshold: float | None, ignores: bool) -> str:
    """One photo's result, as a sentence."""
    from xenomask.objects import sentence

    if found.objects is None or threshold is None:
        return f"scores up to {found.max:.3g}"
    return sentence(found.objects, threshold, found.max, ignores=ignores)


def objects_table(found: "Sequence[AnomalyObject]") -> Table:
    """One photo's objects, the first ten; their numbers are those of the boxes in the overlay."""
    from xenomask.objects import HEAD, MOST, cells

    columns = len(HEAD) - (not any(o.nearest for o in found))  # exported files name no class
    table = Table(*HEAD[:columns])
    for number, o in enumerate(found[:MOST], 1):
        table.add_row(*map(Text, cells(number, o)[:columns]))
    if len(found) > MOST:
        table.add_row("", "", f"and {len(found) - MOST} more")
    return table


@app.command(rich_help_panel="Predict")
def score(
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder of maps, one <id>.hdf5 a frame")],
    classes: Annotated[Path | None, typer.Option(help="also write predicted classes into this folder, one <id>.png a "
                                                 "frame, for evaluate --classes")] = None,
    detector: DetectorOption = DEFAULT_DETECTOR,
    score: ScoreOption = None,
    member: MemberOption = None,
    tta: TtaOption = None,
    refine: RefineOption = None,
    leave_one_out: Annotated[bool, typer.Option(help="choose outlier queries on the other frames")] = False,
    shard: Annotated[str | None, typer.Option(callback=early(parse_shard), help="I/N: only every N-th frame from the "
                                              "I-th on, between jobs that write into one folder")] = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
    runtime: AutoRuntimeOption = None,
    precision: PrecisionOption = "float32",
    kernel: KernelOption = "auto",
    batch: BatchOption = 1,
    profile: ProfileOption = False,
    engine: Annotated[str, typer.Option(callback=one_of("engine", ENGINES), help="local: this process; ray: a pool of "
                                        "workers; slurm: an array of jobs")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="ray: how many; default: as many as fit")] = None,
    worker_cpus: Annotated[int | None, typer.Option(min=1, help="ray: of each; default: 1")] = None,
    ray_address: Annotated[str | None, typer.Option(help="ray: HOST:PORT of a cluster, or auto; default: this "
                                                    "machine")] = None,
    shards: Annotated[int | None, typer.Option(min=1, help="slurm: how many jobs; default: 1")] = None,
    sbatch: Annotated[list[str] | None, typer.Option(help="slurm: further option: --sbatch=--gres=gpu:1")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="slurm: print the sbatch command only")] = False,
) -> None:  # fmt: skip
    """Score a data set; a second run resumes where the first stopped.

    Example: xenomask score --dataset anomaly-track --root data/smiyc --out maps/at
    """
    from xenomask.cli import fleet

    fleet.check_engine(
        engine, shard, {"--workers": workers, "--worker-cpus": worker_cpus, "--ray-address": ray_address,
                        "--shards": shards, "--sbatch": sbatch, "--dry-run": dry_run, "--batch": batch > 1,
                        "--precision": precision != "float32", "--profile": profile, "--kernel": kernel != "auto",
                         "--classes": classes is not None, "--refine": bool(refine)}
    )  # fmt: skip
    if engine != "local":
        root, out = root.absolute(), out.absolute()  # workers and jobs have working folders of their own
    data = load_dataset(dataset, root, split, resize, coding=None)
    from xenomask.predict.photos import score_timed, shard_of, work
    from xenomask.store.manifest import kept_maps

    if tta is not None:
        from xenomask.models.tta import parse_tta

        parse_tta(tta)  # said now, and not by each job
    opening = {"device": device, "score": score, "member": member, "runtime": runtime, "tta": tta}
    if engine == "ray":
        said = fleet.on_ray(detector, data, out, opening, leave_one_out, workers, worker_cpus or 1, ray_address)
        return out_console.print(said, soft_wrap=True)
    if engine == "slurm":
        if out.is_dir():
            kept_maps(out, data)  # said now, and not by each job
        options = {"dataset": dataset, "root": root, "split": split, "resize": resize, **opening}
        words = [w for k, v in options.items() if v is not None for w in (f"--{k}", str(v))]
        words += ["--leave-one-out"] if leave_one_out else []
        said = fleet.on_slurm(words, detector, out, shards or 1, sbatch or [], dry_run)
        return out_console.print(said, soft_wrap=True)
    if shard is not None:
        data = shard_of(data, *parse_shard(shard))
    todo = work(data, out, batch)
    found = load_detector(detector, device, score, member, runtime, precision=precision, work=todo, kernel=kernel,
                          tta=tta, sizes=[todo[0]] if todo[1] else None, refine=refine)  # fmt: skip
    with progress("score", len(data.frames)) as tick:
        times = score_timed(found, data, out, leave_one_out=leave_one_out, batch=batch, classes=classes, tick=tick)
    if profile:
        print_profile(times)
    said = f"{len(data.frames)} maps in {out}, {times.items} of them new; score {found.score_name}"
    out_console.print(said, soft_wrap=True)  # a path is not broken where it is to be copied from a log


@app.command(rich_help_panel="Evaluate")
def heatmaps(
    maps: Annotated[
        Path, typer.Option(callback=maps_there, help="folder of maps, one <id>.hdf5 a frame, or by --pattern")
    ],
    dataset: DatasetOption,
    root: RootOption,
    out: Annotated[Path, typer.Option(help="folder for the pictures")],
    threshold: Annotated[
        float | None, typer.Option(callback=check_threshold, help="contour; default: best F1 of these maps")
    ] = None,
    scale: Annotated[tuple[float, float] | None, typer.Option(help="LOW HIGH of the colours")] = None,
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
) -> None:
    """Draw photo, map, contours and void of every frame, and one contact sheet, in one colour range.

    Example: xenomask heatmaps --maps maps/at --dataset anomaly-track --root data/smiyc --out heatmaps
    """
    from xenomask.evaluation.heatmaps import draw_heatmaps

    folder = map_folders([maps], pattern, key)[0]
    data = load_dataset(dataset, root, split, resize)
    with progress("draw", len(data.frames)) as tick:
        files = draw_heatmaps(folder, data, out, threshold=threshold, scale=scale, tick=tick)
    out_console.print(f"{len(files)} pictures in {out}, {files[-1].name} shows them all")


@app.command(rich_help_panel="Predict")
def demo(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("demo_out"),
    detector: DetectorOption = DEFAULT_DETECTOR,
    frames: Annotated[int, typer.Option(min=1, max=10_000)] = 6,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    device: DeviceOption = None,
    runtime: RuntimeOption = None,
) -> None:
    """The whole pipeline on synthetic street scenes: detect, evaluate, draw. Nothing is downloaded.

    Example: xenomask demo
    """
    from xenomask.evaluation.demo import demo as run_demo
    from xenomask.objects import sentence

    found = load_detector(detector, device, runtime=runtime, sizes=())
    with progress("demo", 3 * frames) as tick:
        result, first = run_demo(found, out, frames=frames, seed=seed, tick=tick)
    print_numbers(f"{frames} synthetic scenes, score {found.score_name}, exact", dict(result.numbers["exact"]))
    out_console.print(
        "The numbers hold for synthetic scenes alone (the default detector was trained with some); the README has real "
        "photos'.", soft_wrap=True,
    )  # fmt: skip
    if first.threshold is not None:
        out_console.print(f"first scene: {sentence(first.objects, first.threshold)}", highlight=False, soft_wrap=True)
        if len(first.objects) > 1:
            out_console.print(objects_table(first.objects))
    out_console.print(
        f"open {out / 'overlay.jpg'} (the first scene) or {out / 'heatmaps' / 'contact_sheet.jpg'} (all of them); maps "
        f"in {out / 'maps'}", soft_wrap=True,
    )  # fmt: skip


@app.command(rich_help_panel="Train")
def assemble(
    out: Annotated[Path, typer.Option(help="detector folder to write")],
    member: Annotated[
        list[str] | None, typer.Option(help="NAME=CHECKPOINT_FOLDER, once a member; none: see below")
    ] = None,
    weight: Annotated[list[float] | None, typer.Option(help="once a member; default: equal")] = None,
    score: Annotated[
        list[str] | None, typer.Option(help="how the members are read; NAME=SCORE: that member. Default: maskomaly")
    ] = None,
    half: Annotated[bool, typer.Option(help="store weights as float16")] = False,
    threshold: Annotated[
        float | None, typer.Option(callback=check_threshold, help="contour that `detect` draws by default")
    ] = None,
    threshold_origin: Annotated[str, typer.Option(help="where that threshold comes from")] = "",
) -> None:
    """Assemble checkpoints and their query analyses into a detector folder.

    Its detector.json names each file with its SHA-256. Without --member: writes these anew into the detector folder
    OUT that is there, for one that has none, or whose files were changed on purpose.

    Example: xenomask assemble --out my-detector --member s=work_dirs/nano-s/iter_3000 --score entropy
    """
    if not member and (weight or score or half or threshold is not None or threshold_origin):
        raise XenomaskError("assemble without --member only records the files of OUT: leave the rest out")
    if threshold_origin and threshold is None:
        raise XenomaskError("--threshold-origin says where --threshold comes from: give that, too")
    pairs = [m.partition("=") for m in member or []]
    if bad := [m for m, (name, _, path) in zip(member or [], pairs, strict=True) if not name or not path]:
        raise XenomaskError(f"member {bad[0]!r} is not NAME=CHECKPOINT_FOLDER")
    for _, _, path in pairs:
        check_there(Path(path))
    from xenomask.detector.folder import assemble as run_assemble
    from xenomask.detector.folder import record_files

    if not member:
        out_console.print(f"the files of {record_files(out)} are recorded in its detector.json", soft_wrap=True)
        return
    weights = weight or [1 / len(pairs)] * len(pairs)
    thresholds = {} if threshold is None else {"default": {"value": threshold, "origin": threshold_origin}}
    members = [(n, Path(p)) for n, _, p in pairs]
    scores = _scores_of(score or [], [n for n, _ in members])
    folder = run_assemble(out, out.name, members, weights, scores, thresholds=thresholds, half=half)
    out_console.print(f"detector in {folder}; next: xenomask detect PHOTO --detector {folder}")


def _scores_of(given: list[str], members: list[str]) -> dict[str, str]:
    """The score of each member: its own (NAME=SCORE), else the one for all."""
    own = dict(g.split("=", 1) for g in given if "=" in g)
    common = [g for g in given if "=" not in g]
    if foreign := [n for n in own if n not in members]:
        raise unknown("member", foreign[0], members)
    if len(common) > 1 or len(own) + len(common) < len(given):
        raise XenomaskError(f"--score {' --score '.join(given)}: give one for all, and NAME=SCORE once a member")
    return {n: own.get(n, common[0] if common else "maskomaly") for n in members}


@app.command(rich_help_panel="Predict")
def scores() -> None:
    """List the scores with their formulas and what they read.

    Example: xenomask scores
    """
    from xenomask.scores import SCORES

    table = Table("score", "formula (higher = more anomalous)", "reads", show_lines=True)
    for s in SCORES.values():
        reads = "classes of any network" if s.logit_scale else "classes by queries" if s.on_classes else "queries"
        reads += " with an outlier class" if s.outlier_class else ""
        needs = f"; needs {', '.join(s.needs)} queries" if s.needs else ""
        table.add_row(s.name, s.formula, reads + needs)
    out_console.print(table)
    out_console.print("queries: of mask transformers alone; any network: per-pixel ones (SegFormer, UPerNet) too")
