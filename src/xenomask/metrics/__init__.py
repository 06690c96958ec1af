"""metrics: ScoreMap + label -> EvalResult."""

from xenomask.metrics.counters import Counters as Counters
from xenomask.metrics.counters import count as count
from xenomask.metrics.counters import pool as pool
from xenomask.metrics.curves import curve as curve
from xenomask.metrics.evaluate import evaluate as evaluate
from xenomask.metrics.evaluate import evaluate_arrays as evaluate_arrays
from xenomask.metrics.evaluate import measure as measure
from xenomask.metrics.evaluate import summarise as summarise
from xenomask.metrics.result import EvalResult as EvalResult
from xenomask.metrics.table import numbers as numbers
