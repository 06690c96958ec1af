"""One folder of maps, evaluated, with all that a report draws from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xenomask.datasets import Dataset
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.evaluation.heatmaps import scale_of_maps
from xenomask.metrics import EvalResult, curve, pool
from xenomask.metrics.curves import Curve
from xenomask.metrics.operating import operating_point
from xenomask.report import Levels
from xenomask.report.slider import slider_levels
from xenomask.store import MapFolder
from xenomask.store.manifest import MANIFEST, read_manifest
from xenomask.types import Tick, nothing


@dataclass(frozen=True)
class Method:
    """One folder of maps, evaluated."""

    name: str
    folder: MapFolder
    result: EvalResult
    curve: Curve
    scale: tuple[float, float]
    manifest: Mapping[str, Any] | None
    # of the exact curve's best F1
    threshold: float
    levels: Levels


def evaluated(
    name: str,
    maps: MapFolder,
    data: Dataset,
    track: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    tick: Tick = nothing,
) -> Method:
    """Evaluates a folder of maps as `evaluate` does; raises XenomaskError as it does, and for a damaged manifest."""
    stored = maps.path / MANIFEST
    manifest = read_manifest(stored) if stored.is_file() else None
    result = evaluate_maps(maps, data, track, resamples=resamples, seed=seed, tick=tick)
    scale = scale_of_maps(maps, maps.ids())
    exact = curve(pool(result.measured.counters.values()))
    best = result.numbers["exact"]["best_f1_threshold"]
    points = {"best F1": best, "TPR .95": operating_point(exact, "tpr", 0.95).threshold}
    levels = slider_levels(exact, scale, points)
    return Method(name, maps, result, exact, scale, manifest, best, levels)
