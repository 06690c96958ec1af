"""Folders of maps + data set -> thresholds and calibrations, and their way into a detector's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xenomask.datasets import Dataset
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import THREADS, reader
from xenomask.files import finite
from xenomask.metrics import calibration, count, curve, pool
from xenomask.metrics.calibration import Calibration, Fit, Reliability, get_fit
from xenomask.metrics.components import TRACKS
from xenomask.metrics.conformal import Control, Targets, component_targets, control, held_out_loss, pixel_targets
from xenomask.metrics.counters import FrameCounters
from xenomask.metrics.frames import each_frame
from xenomask.metrics.operating import (
    HeldOut,
    Point,
    at_threshold,
    boundary,
    folds,
    held_out,
    operating_point,
    target_text,
)
from xenomask.store import Maps, as_maps
from xenomask.store.manifest import MANIFEST, read_manifest
from xenomask.types import Tick, nothing

CONVENTION = "score >= threshold; all pixels but void pooled; exact on float16 maps"


@dataclass(frozen=True)
class Seen:
    """What is kept of each labelled frame: its counters and, where components are asked for, theirs."""

    counters: Mapping[str, FrameCounters]
    components: Mapping[str, Targets]
    # what counts as a component, and as a found one
    track: str
    cover: float

    @property
    def frames(self) -> list[FrameCounters]:
        return list(self.counters.values())


@dataclass(frozen=True)
class Choice:
    """A threshold, the target that it meets, and what is known of it; `held_out` is None where it cannot be had."""

    wish: str  # a key of `thresholds --json` and of stored thresholds
    point: Point
    # of the targets: the pooled numbers at thresholds chosen without the frame's fold
    held_out: HeldOut | None = None
    # of the conformal ones
    control: Control | None = None
    loss: str = ""
    held_out_loss: float | None = None


def see(
    maps: Maps,
    data: Dataset,
    *,
    components: bool = False,
    track: str = "anomaly",
    cover: float = 0.5,
    tick: Tick = nothing,
) -> Seen:
    """Reads every labelled frame once; raises XenomaskError that names the frame."""
    ids, read = reader(maps, data)

    def look(i: str) -> tuple[FrameCounters, Targets | None]:
        value, label = read(i)
        return count(value, label), component_targets(value, label, TRACKS[track], cover) if components else None

    found = each_frame(ids, look, threads=THREADS, tick=tick)
    targets = {i: t for i, (_, t) in found.items() if t is not None}
    return Seen({i: c for i, (c, _) in found.items()}, targets, track, cover)


def choose(seen: Seen, target: str, x: float | None = None) -> Choice:
    """The operating point for one of `metrics.operating.TARGETS`; raises XenomaskError where it is out of reach."""
    point = operating_point(curve(pool(seen.frames)), target, x)
    try:
        others = held_out(seen.frames, lambda c: operating_point(c, target, x))
    except XenomaskError:  # one frame, or out of reach without some frame: then there is no such number
        others = None
    return Choice(target_text(target, x), point, others)


def choose_conformal(seen: Seen, loss: str, alpha: float) -> Choice:
    """Conformal risk control of "pixels" or "components"; raises XenomaskError as `metrics.conformal.control` does."""
    targets = {"pixels": [pixel_targets(f) for f in seen.frames], "components": list(seen.components.values())}[loss]
    found = control(targets, alpha)
    return Choice(
        f"missed {loss} <= {alpha:g} expected",
        at_threshold(curve(pool(seen.frames)), found.threshold),
        control=found,
        loss=loss,
        held_out_loss=held_out_loss(targets, alpha),
    )


@dataclass(frozen=True)
class Calibrated:
    """How far maps are probabilities: as they are (None where they leave [0, 1]), fitted, fitted on other frames."""

    raw: Reliability | None
    name: str | None = None
    fit: Fit | None = None
    in_sample: Reliability | None = None
    held_out: Reliability | None = None
    folds: int = 0


def calibrate_frames(
    frames: Sequence[FrameCounters], fit: str | None = None, *, bins: int = calibration.BINS, k: int | None = None
) -> Calibrated:
    """Reliability of maps and, with the name of a fit, of what it makes of them, in sample and held out.

    Raises XenomaskError without a fit where the maps are no probabilities, and for a single frame with one.
    """
    total = pool(frames)
    try:
        raw = calibration.of_counters(total, None, bins)
    except XenomaskError:
        if fit is None:
            raise
        raw = None
    if fit is None:
        return Calibrated(raw)
    found = get_fit(fit)(total)
    return Calibrated(
        raw,
        fit,
        found,
        calibration.of_counters(total, found, bins),
        calibration.held_out(frames, fit, k, bins),
        len(folds(len(frames), k)),
    )


@dataclass(frozen=True)
class Maker:
    """A detector folder that is known to have made the maps."""

    folder: Path
    # `detector.fingerprint` of what made the maps
    fingerprint: str
    dataset: str
    leave_one_out: bool
    # the detector's outlier queries were chosen on this data set's frames
    queries_chosen_here: bool


def check_maker(folder: Path, maps: Maps, data: Dataset) -> Maker:
    """Raises XenomaskError unless this very detector, not a shipped one, made these maps of this data set.

    Names may differ, as they decide no pixel: weights, queries, scores, options and ensemble weights may not.
    """
    from xenomask.detector.find import find
    from xenomask.detector.folder import check_own, describe_folder, fingerprint  # loads torch
    from xenomask.queries import read_queries

    folder = find(folder)
    check_own(folder)
    manifest = as_maps(maps).path / MANIFEST
    if not manifest.is_file():
        raise XenomaskError(f"{maps} has no {MANIFEST}: who made its maps is unknown; make them with `xenomask score`")
    made_by, own = read_manifest(manifest), describe_folder(folder)
    if differs := _differences(made_by.get("members", []), own["members"]):
        raise XenomaskError(
            f"{folder} did not make the maps in {maps} (other {', '.join(differs)}): what is chosen on maps "
            f"belongs to the detector that made them; run `xenomask score --detector {folder}`"
        )
    if made_by.get("refine", []) != own.get("refine", []):
        raise XenomaskError(f"{folder} did not make the maps in {maps} (other refinements): score with this detector")
    if made_by.get("dataset") != data.name:
        raise XenomaskError(f"{maps} holds maps of {made_by.get('dataset')}, not of {data.name}")
    origins = [read_queries(folder / m["name"], m["sha256"]).origin for m in own["members"]]
    chosen_here = any(o.get("outlier", {}).get("dataset") == data.name for o in origins)
    return Maker(folder, fingerprint(own), data.name, bool(made_by.get("leave_one_out")), chosen_here)


def _differences(made_by: Any, own: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of the members that a manifest holds differs, but for their names."""
    if not isinstance(made_by, list) or not all(isinstance(m, Mapping) for m in made_by):
        return ["members"]
    if any(m.get("look") for m in made_by):  # no folder has looks
        return ["test-time augmentation"]
    if len(made_by) != len(own):
        return ["number of members"]
    keys = [k for k in own[0] if k != "name"]
    return [k for k in keys if any(a.get(k) != b[k] for a, b in zip(made_by, own, strict=True))]


def _origin(maker: Maker, seen: Seen) -> dict[str, Any]:
    with_anomaly = sum(bool(f.positive.any()) for f in seen.frames)
    return {
        "fingerprint": maker.fingerprint,
        "dataset": maker.dataset,
        "frames": len(seen.counters),
        "frames_with_anomaly": with_anomaly,
        "leave_one_out": maker.leave_one_out,
        "queries_chosen_on_these_frames": maker.queries_chosen_here and not maker.leave_one_out,
    }


def store_choice(maker: Maker, name: str, choice: Choice, seen: Seen) -> Mapping[str, Any] | None:
    """Writes a threshold with its origin into the detector; returns what the name held before.

    The stored value is `boundary` of the chosen one, so that it says the same of raw and of stored maps.
    """
    from xenomask.detector.folder import store_threshold

    origin = {
        **_origin(maker, seen),
        "wish": choice.wish,
        "convention": CONVENTION,
        "threshold_float16": choice.point.threshold,
        "there": {k: v for k, v in asdict(choice.point).items() if k != "threshold"},
    }
    if choice.held_out:
        origin["held_out"] = {k: v for k, v in asdict(choice.held_out).items() if k != "thresholds"}
    if choice.control:
        origin["conformal"] = {
            "loss": choice.loss, "alpha": choice.control.alpha, "risk": choice.control.risk,
            "bound": choice.control.bound, "n": choice.control.n,
        }  # fmt: skip
        if choice.loss == "components":
            origin["conformal"] |= {"cover": seen.cover, "smallest_component": TRACKS[seen.track].true}
    return store_threshold(maker.folder, name, boundary(choice.point.threshold), finite(origin))


def store_fit(maker: Maker, found: Calibrated, seen: Seen) -> Mapping[str, Any] | None:
    """Writes a fit with its reliability into the detector; returns the calibration that was there."""
    from xenomask.detector.folder import store_calibration

    assert found.fit and found.in_sample and found.held_out
    sides = {"raw": found.raw, "in_sample": found.in_sample, "held_out": found.held_out}
    numbers = {k: {"ece": r.ece, "brier": r.brier} for k, r in sides.items() if r}
    origin = {**_origin(maker, seen), "prevalence": found.in_sample.prevalence, "folds": found.folds, **numbers}
    return store_calibration(maker.folder, Calibration(found.fit, finite(origin)))
