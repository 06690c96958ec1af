"""One folder of maps, evaluated, with all that a report draws from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xenomask.datasets import Dataset
from xenomask.evaluate.evaluate import THREADS, measure_maps, numbers_table
from xenomask.evaluate.heatmaps import scale_of_maps
from xenomask.metrics import curve, pool, summarise
from xenomask.metrics.curves import Curve
from xenomask.metrics.evaluate import Measured
from xenomask.metrics.operating import operating_point
from xenomask.report import Levels
from xenomask.report.slider import slider_levels
from xenomask.store import map_ids
from xenomask.store.manifest import MANIFEST, read_manifest
from xenomask.types import EvalResult, Tick, nothing


@dataclass(frozen=True)
class Method:
    """One folder of maps, evaluated."""

    name: str
    folder: Path
    measured: Measured
    result: EvalResult
    numbers: Mapping[str, Any]
    curve: Curve
    scale: tuple[float, float]
    manifest: Mapping[str, Any] | None
    # of the exact curve's best F1
    threshold: float
    levels: Levels


def evaluated(
    name: str,
    maps: Path,
    data: Dataset,
    track: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    tick: Tick = nothing,
) -> Method:
    """Evaluates a folder of maps as `evaluate` does; raises XenomaskError as it does, and for a damaged manifest."""
    manifest = read_manifest(maps / MANIFEST) if (maps / MANIFEST).is_file() else None
    measured = measure_maps(maps, data, track, tick=tick)
    result = summarise(measured, resamples=resamples, seed=seed, threads=THREADS)
    scale = scale_of_maps(maps, map_ids(maps))
    exact = curve(pool(measured.counters.values()))
    best = result.numbers["exact"]["best_f1_threshold"]
    points = {"best F1": best, "TPR .95": operating_point(exact, "tpr", 0.95).threshold}
    levels = slider_levels(exact, scale, points)
    numbers = numbers_table(result, resamples, seed)
    return Method(name, maps, measured, result, numbers, exact, scale, manifest, best, levels)
