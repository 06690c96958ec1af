"""Maps + labels -> a threshold, a calibration; into a detector's folder where asked."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

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
    one_of,
    out_console,
    progress,
    write_json,
)
from xenomask.cli.completion import FITS
from xenomask.cli.evaluate import MapsOption, TrackOption
from xenomask.errors import XenomaskError

app = typer.Typer()

IntoOption = Annotated[Path | None, typer.Option("--into", help="store it in this detector's folder, which made the "
                                                 "maps")]  # fmt: skip
COVER = 0.5
CHOSEN_HERE = "the outlier queries were chosen on these very frames: new photos will do worse; make the maps with "


@app.command(rich_help_panel="Evaluate")
def thresholds(
    maps: MapsOption,
    dataset: DatasetOption,
    root: RootOption,
    fpr: Annotated[float | None, typer.Option(help="largest TPR with FPR at most this")] = None,
    tpr: Annotated[float | None, typer.Option(help="smallest FPR with TPR at least this")] = None,
    precision: Annotated[float | None, typer.Option(help="largest TPR with precision at least this")] = None,
    f1: Annotated[bool, typer.Option("--f1", help="best F1")] = False,
    conformal_pixels: Annotated[
        float | None, typer.Option(help="expected share of a frame's anomaly pixels that is missed, at most")
    ] = None,
    conformal_components: Annotated[
        float | None, typer.Option(help="expected share of a frame's anomalies (components) that is missed, at most")
    ] = None,
    cover: Annotated[float, typer.Option(help="a component is found from this share of its pixels on")] = COVER,
    track: TrackOption = None,
    into: IntoOption = None,
    name: Annotated[str, typer.Option(help="what it is stored as; `detect` draws the default one")] = "default",
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Thresholds for a wanted FPR, TPR, precision or F1, or for a bound on what is missed (conformal risk control).

    Example: xenomask thresholds --maps maps/at --dataset anomaly-track --root data/smiyc --tpr .95 --f1
    """
    from xenomask.evaluation.evaluate import track_of
    from xenomask.evaluation.thresholds import check_maker, choose, choose_conformal, see, store_choice

    targets = {"fpr": fpr, "tpr": tpr, "precision": precision}
    asked = [(k, x) for k, x in targets.items() if x is not None] + ([("f1", None)] if f1 else [])
    losses = {"pixels": conformal_pixels, "components": conformal_components}
    bounds = [(k, x) for k, x in losses.items() if x is not None]
    if not asked and not bounds:
        raise XenomaskError(
            "what threshold? say --fpr, --tpr, --precision, --f1, --conformal-pixels or --conformal-components"
        )
    if into and len(asked) + len(bounds) > 1:
        raise XenomaskError("--into stores one threshold: ask for one")
    if not name.strip() or not name.isprintable() or ":" in name:
        raise XenomaskError(
            f"--name {name!r} is no name such as careful; one with : is read as a threshold of its other maps"
        )
    if name != "default" and into is None:
        raise XenomaskError("--name says what --into stores: give --into, too")
    if cover != COVER and conformal_components is None:
        raise XenomaskError("--cover is of --conformal-components: give that, too")
    folder = map_folders([maps], pattern, key)[0]
    data = load_dataset(dataset, root, split, resize)
    maker = check_maker(into, folder, data) if into else None
    with progress("thresholds", len(data.labelled().frames)) as tick:
        seen = see(
            folder, data, components=conformal_components is not None, track=track_of(dataset, track), cover=cover,
            tick=tick,
        )  # fmt: skip
    choices = [choose(seen, k, x) for k, x in asked] + [choose_conformal(seen, k, x) for k, x in bounds]
    _print_choices(choices, len(seen.counters), f"{dataset}, {maps}")
    write_json(json_file, [asdict(c) for c in choices])
    if maker:
        if maker.queries_chosen_here and not maker.leave_one_out:
            _warn(f"{CHOSEN_HERE}`xenomask score --leave-one-out`")
        old = store_choice(maker, name, choices[0], seen)
        instead = f"; it was {old['value']:.4g} before ({_brief(old.get('origin'))})" if old else ""
        out_console.print(f"threshold {name!r} stored in {into}{instead}")


def _warn(text: str) -> None:
    err_console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True)


def _brief(origin: Any) -> str:
    """The origin of a threshold in a few words; older ones are plain text."""
    return f"{origin['wish']} on {origin['dataset']}" if isinstance(origin, dict) else str(origin)


def _print_choices(choices, frames: int, title: str) -> None:
    out_console.print(title, soft_wrap=True)
    table = Table("threshold for", "score >=", "TPR", "FPR", "precision", "F1")
    for c in choices:
        p = c.point
        table.add_row(c.wish, f"{p.threshold:.4f}", *(f"{v:.4f}" for v in (p.tpr, p.fpr, p.precision, p.f1)))
        if h := c.held_out:
            span = f"{min(h.thresholds):.4f} .. {max(h.thresholds):.4f}"
            numbers = (f"{v:.4f}" for v in (h.tpr, h.fpr, h.precision, h.f1))
            table.add_row(f"  chosen on other frames ({len(h.thresholds)} folds)", span, *numbers, style="dim")
        elif not c.control:
            table.add_row("  chosen on other frames: not possible", *"-----", style="dim")
    out_console.print(table)
    for c in (c for c in choices if c.control):
        k = c.control
        what = "anomaly pixels" if c.loss == "pixels" else "components"
        out_console.print(
            f"{what} missed, mean over the {k.n} of {frames} frames that have any: {k.risk:.4f} here, bound "
            f"{k.bound:.4f} <= {k.alpha:g}"
            + (f"; {c.held_out_loss:.4f} at thresholds from the other frames" if math.isfinite(c.held_out_loss) else "")
        )
    if any(c.control for c in choices):
        out_console.print(
            "the bound is on the average over new frames like these (exchangeable) that have an anomaly; it says "
            "nothing of one scene, nor of other data",
            style="dim",
        )


@app.command(rich_help_panel="Evaluate")
def calibrate(
    maps: MapsOption,
    dataset: DatasetOption,
    root: RootOption,
    fit: Annotated[
        str | None, typer.Option(callback=one_of("fit", FITS), help="isotonic, platt, temperature or temperature-bias")
    ] = None,
    bins: Annotated[int, typer.Option(min=1, max=65536, help="of equal mass, as far as ties allow")] = 15,
    folds: Annotated[
        int | None, typer.Option(min=2, help="of frames; default: leave-one-out up to 20, else 10")
    ] = None,
    into: IntoOption = None,
    pattern: PatternOption = None,
    key: KeyOption = None,
    split: SplitOption = "val",
    resize: ResizeOption = None,
    json_file: JsonOption = None,
) -> None:
    """How far maps are probabilities, and optionally a fit that makes them so, judged on frames it has not seen.

    A stored fit is applied by `Detector.probability` alone: no command does so silently.

    Example: xenomask calibrate --maps maps/at --dataset anomaly-track --root data/smiyc --fit isotonic
    """
    from xenomask.evaluation.thresholds import calibrate_frames, check_maker, see, store_fit

    for option, given in (("--into", into), ("--folds", folds)):
        if given is not None and fit is None:
            raise XenomaskError(f"{option} is for a fit: choose one with --fit")
    folder = map_folders([maps], pattern, key)[0]
    data = load_dataset(dataset, root, split, resize)
    maker = check_maker(into, folder, data) if into else None
    with progress("calibrate", len(data.labelled().frames)) as tick:
        seen = see(folder, data, tick=tick)
    found = calibrate_frames(seen.frames, fit, bins=bins, k=folds)
    sides = {"raw": found.raw, f"{fit}, same frames": found.in_sample, f"{fit}, other frames": found.held_out}
    sides = {k: r for k, r in sides.items() if r}
    _print_reliability(sides, f"{dataset}, {maps}")
    if found.fit:
        out_console.print(f"fit on all {len(seen.counters)} frames: {_fit_text(found.fit)}")
    report = {k: _lists(asdict(r)) for k, r in sides.items()}
    write_json(json_file, {**report, "fit": found.fit.table() if found.fit else None, "folds": found.folds})
    if maker:
        if maker.queries_chosen_here and not maker.leave_one_out:
            _warn(f"{CHOSEN_HERE}`xenomask score --leave-one-out`")
        old = store_fit(maker, found, seen)
        instead = f" instead of {old['fit']['kind']}" if old else ""
        said = f"{fit} fit stored in {into}{instead}; `Detector.probability` applies it, `detect` does not"
        out_console.print(said)


def _lists(table: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in table.items()}


def _fit_text(fit: Any) -> str:
    if fit.kind == "isotonic":
        return f"{len(fit.p)} steps from {fit.p[0]:.4g} to {fit.p[-1]:.4g} (from score {fit.start[-1]:.4g} on)"
    x = "log-odds of the score" if fit.log_odds else "score"
    temperature = f" (T = {fit.temperature:.4g})" if fit.log_odds else ""
    return f"p = sigmoid({fit.slope:.4g} x {fit.bias:+.4g}), x = {x}{temperature}"


def _print_reliability(sides: dict[str, Any], title: str) -> None:
    out_console.print(title, soft_wrap=True)
    table = Table("number", *sides)
    for key, label in (("ece", "ECE"), ("mce", "largest bin error"), ("brier", "Brier"), ("nll", "NLL")):
        table.add_row(label, *(f"{getattr(r, key):.4f}" for r in sides.values()))
    first = next(iter(sides.values()))
    table.add_row("Brier of the prevalence", *([f"{first.brier_constant:.4f}"] * len(sides)), style="dim")
    out_console.print(table)
    out_console.print(f"{first.pixels.sum():,} pixels, {100 * first.prevalence:.2f} % of them anomalous")
    side, shown = next(reversed(sides.items()))
    table = Table("mean p", "share of anomalies", "pixels", title=f"reliability: {side}", title_justify="left")
    for p, observed, pixels in zip(shown.p, shown.observed, shown.pixels, strict=True):
        table.add_row(f"{p:.4f}", f"{observed:.4f}", f"{pixels:,}")
    out_console.print(table)
