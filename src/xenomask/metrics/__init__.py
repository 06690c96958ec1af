"""metrics: ScoreMap + label -> EvalResult."""

from typing import TYPE_CHECKING

from xenomask.later import later

if TYPE_CHECKING:  # `detect` needs none of them
    from xenomask.metrics.counters import Counters as Counters
    from xenomask.metrics.counters import count as count
    from xenomask.metrics.counters import pool as pool
    from xenomask.metrics.curves import curve as curve
    from xenomask.metrics.frames import evaluate as evaluate
    from xenomask.metrics.frames import evaluate_arrays as evaluate_arrays
    from xenomask.metrics.frames import measure as measure
    from xenomask.metrics.frames import summarise as summarise
    from xenomask.metrics.result import EvalResult as EvalResult
    from xenomask.metrics.table import numbers as numbers

__getattr__, __dir__ = later(__name__, {
    "Counters": "counters", "count": "counters", "pool": "counters", "curve": "curves", "evaluate": "frames",
    "evaluate_arrays": "frames", "measure": "frames", "summarise": "frames", "EvalResult": "result", "numbers": "table",
})  # fmt: skip
