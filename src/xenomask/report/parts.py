"""The parts of a report that are computed from evaluated methods: tables, diagrams, galleries."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from xenomask.arrays import LabelLike, MapLike
from xenomask.datasets import Dataset, Frame
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import THREADS, reader
from xenomask.metrics import calibration, pool
from xenomask.metrics.component_list import Judged, judge
from xenomask.metrics.components import TRACKS, binarise
from xenomask.metrics.counters import values
from xenomask.metrics.curve_bands import bands, landmarks
from xenomask.metrics.frames import each_frame
from xenomask.metrics.operating import Point, operating_point
from xenomask.metrics.resampling import draw
from xenomask.metrics.table import component_numbers, pixel_numbers
from xenomask.plots import coloured, crop, histogram, precision_recall, reliability_diagram, roc, svg
from xenomask.plots.curves import Line, Mark
from xenomask.report import Cell, Crop, Diagram, Table
from xenomask.report.methods import Method
from xenomask.report.slider import jpeg
from xenomask.types import Tick, nothing

CROPS = 12  # of a kind
KINDS = {
    "missed": "Missed (true components with sIoU below .5), largest first",
    "false": "False (predicted components with PPV below .5), largest first",
    "found": "Found (true components with sIoU of .5 or more), worst first",
}


def number_cell(value: float, interval: tuple[float, float] | None = None) -> Cell:
    """A number as `evaluate` prints it, with its full value.

    >>> number_cell(0.123456, (0.1, 0.2)).text, number_cell(float("nan")).text
    ('0.1235', '-')
    """
    if value != value:
        return Cell("-")
    there = interval is not None and interval[0] == interval[0]
    return Cell(f"{value:.4f}", value, f"({interval[0]:.3f} .. {interval[1]:.3f})" if there and interval else "")


def number_tables(methods: Sequence[Method]) -> list[Table]:
    """One table a convention, one row a method."""
    captions = {
        "exact": "Pixels, exact",
        "official": "Pixels, official",
        "components": f"Components, official, {methods[0].result.track} track, at the official best-F1 threshold",
    }
    tables = []
    for convention, caption in captions.items():
        names = component_numbers() if convention == "components" else pixel_numbers()
        rows = []
        for m in methods:
            own, spans = m.result.numbers[convention], m.result.intervals.get(convention, {})
            rows.append([Cell(m.name), *(number_cell(own[n.key], spans.get(n.key)) for n in names)])
        tables.append(Table(caption, ["method", *(n.label.strip() for n in names)], rows))
    return tables


def frame_rows(methods: Sequence[Method], order: Sequence[str]) -> Table:
    """One row a frame: share of anomaly, and the exact numbers that each method has on it alone."""
    shown = [n for n in pixel_numbers() if n.per_frame]
    head = ["frame", "anomaly %", *(n.label.strip() for _ in methods for n in shown)]
    groups = [("", 2), *((m.name, len(shown)) for m in methods)]
    rows = []
    for i in order:
        counted = methods[0].result.measured.counters[i]
        positive, total = int(counted.positive.sum()), int(counted.positive.sum() + counted.negative.sum())
        share = 100 * positive / total if total else float("nan")
        own = [m.result.per_frame.get(i, {}) for m in methods]
        cells = [number_cell(found.get(n.key, float("nan"))) for found in own for n in shown]
        rows.append([Cell(i), Cell(f"{share:.2f}", share) if total else Cell("-"), *cells])
    return Table("Each frame's own exact numbers", head, rows, groups)


def _mark(name: str, p: Point) -> Mark:
    return Mark(name, p.tpr, p.precision, p.fpr)


def _line(m: Method, resamples: int) -> Line:
    frames, at = list(m.result.measured.counters.values()), landmarks(m.curve, 300)
    best, sure = operating_point(m.curve, "f1"), operating_point(m.curve, "tpr", 0.95)
    line = Line(
        m.name, m.curve.recall[at], m.curve.precision[at], m.curve.fpr[at],
        [_mark("best F1", best), _mark("TPR .95", sure)],
    )  # fmt: skip
    if not resamples or len(frames) < 2:
        return line
    band = bands(frames, draw(len(frames), resamples, m.result.seed))
    return replace(line, at=band.at, precision_band=band.precision, recall_band=band.recall)


def curve_diagrams(methods: Sequence[Method], resamples: int) -> list[Diagram]:
    """PR and ROC of all methods, with best F1, TPR .95 and, with resamples, bootstrap bands."""
    lines = [_line(m, resamples) for m in methods]
    shade = " Shaded: pointwise 95 % bootstrap band over frames." if resamples else ""
    said = {
        k: ", ".join(f"{m.name} {m.result.numbers['exact'][k]:.4f}" for m in methods) for k in ("aupr_sum", "auroc")
    }
    return [
        Diagram(
            "pr",
            f"Precision over recall, exact, pooled.{shade} Dotted: chance.",
            f"Precision-recall curves. AUPR-sum: {said['aupr_sum']}.",
            svg(precision_recall(lines, methods[0].result.numbers["exact"]["prevalence"])),
        ),
        Diagram(
            "roc",
            f"True- over false-positive rate, exact, pooled.{shade}",
            f"ROC curves. AUROC: {said['auroc']}.",
            svg(roc(lines)),
        ),
    ]


def score_diagrams(m: Method) -> list[Diagram]:
    """Histogram of the scores and, where these lie in [0, 1], how far they are probabilities."""
    pooled = pool(m.result.measured.counters.values())
    used = pooled.used()
    value = values(used.key).astype(np.float64)
    picture = histogram(value, used.positive, used.negative, title=m.name, marks={"best F1": m.threshold})
    found = [
        Diagram(
            "histogram",
            "How many of the inlier and of the anomalous pixels have which score (logarithmic).",
            f"Histogram of scores of {m.name}, from {value[0]:.4g} to {value[-1]:.4g}.",
            svg(picture),
        )
    ]
    try:
        r = calibration.of_counters(pooled)
    except XenomaskError:  # no probabilities: nothing to hold them against
        return found
    found.append(
        Diagram(
            "reliability",
            f"Reliability of the raw scores, read as probabilities: ECE {r.ece:.4f}, Brier {r.brier:.4f} "
            f"({r.brier_constant:.4f} for the prevalence everywhere). Scores are not meant as probabilities: "
            "`xenomask calibrate` makes them such.",
            f"Reliability diagram of {m.name}: ECE {r.ece:.4f}.",
            svg(reliability_diagram({m.name: (r.p, r.observed, r.pixels)})),
        )
    )
    return found


def gallery(m: Method, data: Dataset, *, tick: Tick = nothing) -> Mapping[str, tuple[int, Sequence[Crop]]]:
    """Heading -> how many components there are of the kind (FN, FP and TP at .50), and crops of some."""
    ids, read = reader(m.folder, data)
    assert m.result.measured.track is not None
    sizes = TRACKS[m.result.measured.track]
    judged = each_frame(
        ids, lambda i: judge(i, *read(i), m.result.measured.threshold, sizes), threads=THREADS, tick=tick
    )  # fmt: skip
    found, frames = {}, {f.id: f for f in data.frames}
    for kind, title in KINDS.items():
        own = [j for part in judged.values() for j in part if j.kind == kind]
        own.sort(key=lambda j: (j.agreement if kind == "found" else -j.pixels, j.frame, j.box))
        found[title] = len(own), [_crop(m, data, frames[j.frame], *read(j.frame), j) for j in own[:CROPS]]
    return found


def _crop(m: Method, data: Dataset, frame: Frame, value: MapLike, label: LabelLike, j: Judged) -> Crop:
    image = data.sample(frame).image if frame.image else coloured(value, m.scale)
    mask = binarise(value, m.result.measured.threshold)
    if j.kind == "false":  # its own outline alone: there may be many around it
        top, bottom, left, right = j.box
        own = np.zeros_like(mask)
        own[top:bottom, left:right] = mask[top:bottom, left:right]
        mask = own
    picture = crop(image, label, mask, j.box)
    name = "PPV" if j.kind == "false" else "sIoU"
    text = (
        f"{j.frame}: {j.pixels:,} px, {name} {j.agreement:.2f}, "
        f"score {j.mean_score:.3g} (largest {j.largest_score:.3g})"
    )
    return Crop(jpeg(picture), text)
