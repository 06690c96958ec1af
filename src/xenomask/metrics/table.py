"""The one table of all numbers of an evaluation: key, label, which way is better, and how it is computed.

The keys are those of `evaluate --json`. A pixel number is a function of the curve, and one row here; it then stands in
every table, report and JSON file. The bootstrap's compiled loops (resampling) know the first five alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xenomask.errors import XenomaskError
from xenomask.metrics.curves import Curve


@dataclass(frozen=True)
class Number:
    """A number of an evaluation; `of` computes a pixel number of the curve, those of other kinds have none.

    `column` is its heading in the benchmark's table, at that `place`; without one it stands in the full tables only.
    """

    key: str
    label: str
    better: Literal["higher", "lower"] | None
    of: Callable[[Curve], float] | None = None
    column: str = ""
    place: int = 0
    per_frame: bool = False  # whether the report's table of frames shows it
    # classes: of predicted classes beside the maps (openworld); instances: of objects above a detector's threshold
    kind: Literal["pixels", "classes", "components", "instances"] = "pixels"


def aupr_sum(c: Curve) -> float:
    """The step-wise average precision: over distinct thresholds, the step of recall times the precision."""
    return float(np.sum(np.diff(np.append(0.0, c.recall)) * c.precision))


def aupr_trapz(c: Curve) -> float:
    """The trapezoid over the same points, with (recall 0, precision 1) before them."""
    return float(np.trapezoid(np.append(1.0, c.precision), np.append(0.0, c.recall)))


def auroc(c: Curve) -> float:
    """The area under TPR over FPR, by trapezoids."""
    return float(np.trapezoid(np.append(0.0, c.recall), np.append(0.0, c.fpr)))


def first_at_tpr95(c: Curve) -> int:
    """The first point, from the largest threshold down, with TPR >= .95."""
    return int(np.argmax(c.recall >= 0.95))


def first_at_fpr5(c: Curve) -> int:
    """The first point with FPR >= .05, as ISSU's code has it; where few values are left, FPR may be far above."""
    return int(np.argmax(c.fpr >= 0.05))


def fpr95(c: Curve) -> float:
    """The FPR at the first threshold with TPR >= .95, without interpolation."""
    return float(c.fpr[first_at_tpr95(c)])


def tpr_fpr5(c: Curve) -> float:
    """The TPR at the first threshold with FPR >= .05, without interpolation."""
    return float(c.recall[first_at_fpr5(c)])


def best_f1(c: Curve) -> float:
    """The largest 2 TP / (2 TP + FP + FN) of all thresholds."""
    return float(c.f1.max())


def best_f1_threshold(c: Curve) -> float:
    """The (largest) threshold of the best F1."""
    return float(c.threshold[c.f1.argmax()])


COUNTS = ("prevalence", "pixels", "positives")  # what `numbers` says of the pixels
NUMBERS: dict[str, Number] = {
    n.key: n
    for n in (
        Number("aupr_sum", "AUPR-sum", "higher", aupr_sum, "AUPR-sum", 1, per_frame=True),
        Number("aupr_trapz", "AUPR-trapz", "higher", aupr_trapz, "AUPR-trapz", 2),
        Number("auroc", "AUROC", "higher", auroc, "AUROC", 5),
        Number("fpr95", "FPR95", "lower", fpr95, "FPR95", 3, per_frame=True),
        Number("tpr_fpr5", "TPR at FPR 5 %", "higher", tpr_fpr5),
        Number("best_f1", "best F1", "higher", best_f1, "F1", 4, per_frame=True),
        Number("best_f1_threshold", "  at threshold", None, best_f1_threshold),
        Number("oiou_tpr95", "open IoU at TPR 95 %", "higher", kind="classes"),
        Number("oiou_fpr5", "open IoU at FPR 5 %", "higher", kind="classes"),
        Number("closed_iou", "closed IoU", "higher", kind="classes"),
        Number("sIoU_gt", "sIoU (true)", "higher", column="sIoU", place=11, kind="components"),
        Number("sIoU_pred", "sIoU (predicted)", "higher", kind="components"),
        Number("prec_pred", "PPV", "higher", column="PPV", place=12, kind="components"),
        Number("f1_mean", "F1*", "higher", column="F1*", place=13, kind="components"),
        Number("f1_25", "F1 at .25", "higher", kind="components"),
        Number("f1_50", "F1 at .50", "higher", kind="components"),
        Number("f1_75", "F1 at .75", "higher", kind="components"),
        Number("ap", "instance AP", "higher", kind="instances"),
        Number("ap50", "instance AP50", "higher", column="AP50", place=21, kind="instances"),
        Number("box_ap", "box AP", "higher", kind="instances"),
        Number("box_ap50", "box AP50", "higher", kind="instances"),
    )
}


def register(number: Number) -> Number:
    """Add a pixel number to every table; returns it. Raises XenomaskError for a key that is taken."""
    if number.key in (*NUMBERS, *COUNTS) or number.of is None:
        raise XenomaskError(f"{number.key!r} is a number already, or has no function of the curve")
    NUMBERS[number.key] = number
    return number


def pixel_numbers() -> list[Number]:
    """The numbers of the curve, in the order of tables."""
    return of_kind("pixels")


def component_numbers() -> list[Number]:
    """The numbers of components, in the order of tables."""
    return of_kind("components")


def of_kind(kind: str) -> list[Number]:
    """The numbers of a kind, in the order of tables."""
    return [n for n in NUMBERS.values() if n.kind == kind]


def columns(found: list[Number]) -> list[Number]:
    """Those that the benchmark's table shows, in its order."""
    return sorted((n for n in found if n.column), key=lambda n: n.place)


def lower_is_better(key: str) -> bool:
    """Whether the smaller value wins; also of the counts of false and missed components (fp_50, fn_50)."""
    return NUMBERS[key].better == "lower" if key in NUMBERS else key.startswith(("fp_", "fn_"))


def numbers(c: Curve) -> dict[str, float]:
    """All pixel numbers of a curve, its prevalence and counts.

    On the exact curve all are as scikit-learn computes them on the same values.

    >>> from xenomask.metrics.counters import Counters
    >>> from xenomask.metrics.curves import curve
    >>> p, n = np.zeros(65536, int), np.zeros(65536, int)
    >>> p[[50000, 49000]], n[[49500, 40000]] = 1, 1
    >>> r = numbers(curve(Counters(p, n)))
    >>> round(r["aupr_sum"], 4), r["fpr95"], r["best_f1"], r["auroc"]
    (0.8333, 0.5, 0.8, 0.75)
    """
    P, N = int(c.tp[-1]), int(c.fp[-1])
    found = {n.key: n.of(c) for n in NUMBERS.values() if n.of is not None}
    return found | dict(zip(COUNTS, (P / (P + N), P + N, P), strict=True))
