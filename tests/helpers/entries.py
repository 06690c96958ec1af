"""Every public function that takes an array, called with odd ones; run as a script, without the tests' type checker.

Prints a line for each that gave another exception than XenomaskError, TypeError and ValueError, or a number that is not
that of the same data given properly, or that refused what is unambiguous; and for each function that is not listed.
"""

import dataclasses
import importlib
import inspect
import os
import pkgutil
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping  # noqa: F401 - before xenomask, whose annotations then say what is an array (xenomask.shapes)
import numpy as np
import torch
from matplotlib.figure import Figure

import xenomask
from helpers import odd_arrays as odd
from helpers.odd_arrays import BINARY, LABEL, PHOTO, SCORES, H, W
from xenomask import arrays, masks, metrics, scores, store
from xenomask.arrays import as_single
from xenomask.datasets.photos import as_photo
from xenomask.detector import Detector, Member
from xenomask.detector import fuse as ensemble
from xenomask.errors import XenomaskError
from xenomask.evaluation import agreement as run_agreement
from xenomask.export import read as exported
from xenomask.masks import MaskOutput, PixelOutput
from xenomask.metrics import (
    bravo,
    calibration,
    component_list,
    components,
    conformal,
    conventions,
    counters,
    curve_bands,
    curves,
    detection,
    guards,
    instances,
    official,
    openworld,
    resampling,
    segmentation,
    temporal,
)
from xenomask.metrics.components import Sizes
from xenomask.metrics.frames import resample
from xenomask.models import build, preprocess
from xenomask.objects import ignore
from xenomask.objects import objects as exports
from xenomask.plots import agreement, distribution, gallery, heatmap
from xenomask.plots import curves as drawn
from xenomask.plots.panels import panels
from xenomask.predict import smooth
from xenomask.queries import inlier, outlier
from xenomask.refine import Seen, get_refinement
from xenomask.report import slider as levels
from xenomask.report.objects import boxed
from xenomask.scores import get_score
from xenomask.scores.cpu import add_scores
from xenomask.scores.plain import add_scores as add_by_numpy
from xenomask.scores.score import plan_of
from xenomask.store import classes, formats
from xenomask.types import QuerySet, Sample, ScoreMap

TRUTH, ONE = LABEL, Sizes(1, 1)
KEYS, COUNTS = np.array([3, 40000, 50000], np.uint16), np.array([2, 0, 5])
COLUMN = np.array([0.25, 0.5, 0.75])
LOGITS = torch.linspace(-3, 3, 4 * 3).reshape(4, 3), torch.linspace(-4, 5, 4 * 5 * 6).reshape(4, 5, 6)
CLASS_MAP = torch.linspace(-4, 5, 3 * 5 * 6).reshape(3, 5, 6)
SIZES = (20, 24), (18, 24), (H, W)
OUTPUT = MaskOutput(*LOGITS, *SIZES)
FRAME = counters.FrameCounters(KEYS, np.array([1, 2, 0]), np.array([5, 0, 1]))
MEASURED = metrics.measure(["a", "b"], lambda i: (SCORES, TRUTH), "anomaly")
STEPS = resampling.exact_steps([FRAME, FRAME])
FULL = np.bincount(KEYS, minlength=65536)
SCALE = (-5.0, 15.0)
torch.manual_seed(0)
NETWORK = build("tiny")
DETECTOR = Detector("d", (Member("a", NETWORK, QuerySet(), get_score("max_logit"), 1.0),))
EXPORTED = exported.ExportedDetector(
    "e", lambda x: [x.astype(np.float32).mean(-1) / 255], {"dynamic": True}, "", (H, W), (0, 1), "s", {}
)
SCRATCH = Path(tempfile.mkdtemp())


def onto(x):
    scores.add_score(OUTPUT, QuerySet(), get_score("max_logit"), 0.5, x)
    return np.asarray(x)


def add(x, way=add_scores):
    todo: Any = plan_of(OUTPUT, QuerySet(), [get_score("max_logit")])
    way(OUTPUT, todo, 0.5, x)
    return np.asarray(x)


def png16(x):
    exports.write_png16(SCRATCH / "x.png", x, SCALE)
    return (SCRATCH / "x.png").read_bytes()


def written(x):
    store.write_map(SCRATCH / "x.hdf5", ScoreMap(x, "s"))
    return store.read_map(SCRATCH / "x.hdf5")


def read_by_a_format(x):
    formats.FORMATS[".odd"] = store.FileFormat(".odd", lambda path, key: x)
    return store.read_stored(SCRATCH / "x.odd")


def classes_written(x):
    classes.write_classes(SCRATCH / "c.png", x)
    return classes.read_classes(SCRATCH, "c")


def label_drawn(x):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    heatmap.draw_label(left, right, x)
    return figure


def evaluated(value=SCORES, label=TRUTH):
    return metrics.evaluate(["a"], lambda i: (value, label), "anomaly", resamples=0).numbers


def found(x):
    return exports.find_objects(x, 3.0)


SIDE = {"value": SCORES, "label": TRUTH}
LINE: dict[str, Any] = {"recall": COLUMN, "precision": COLUMN, "fpr": COLUMN}
# (name of the function, which argument is odd) -> its rows of odd_arrays and the call
ENTRIES: dict[tuple[str, str], tuple[list, Callable[[Any], Any]]] = {}


def entry(name: str, argument: str, rows: list, call: Callable[[Any], Any]) -> None:
    ENTRIES[name, argument] = rows, call


def given(rows: list) -> list:
    """Without None, which some arguments may be."""
    return [r for r in rows if r[1] is not None]


def some(rows: list) -> list:
    """Every second row: figures take long, and convert as all others do."""
    return rows[::2]


MAPS, LABELS, TRUTHS, MASKS = odd.maps(), odd.labels(), odd.truths(), odd.masks()
ARRAYS, PHOTOS = odd.images(), odd.images(SCRATCH)
FLOATS, WHOLES = odd.columns(COLUMN, False), odd.columns(COUNTS, True)
ANY = [r for r in MAPS if r[0] not in ("infinity", "three axes", "one axis", "no axis", "no rows", "no columns")]

entry("arrays.as_map", "value", MAPS, arrays.as_map)
entry("arrays.as_single", "value", MAPS, as_single)
entry("arrays.as_half", "value", MAPS, arrays.as_half)
entry("arrays.as_label", "label", LABELS, arrays.as_label)
entry("arrays.as_truth", "label", TRUTHS, arrays.as_truth)
entry("arrays.as_mask", "mask", MASKS, arrays.as_mask)
entry("arrays.as_image", "image", ARRAYS, arrays.as_image)
entry("arrays.as_numbers", "x", ANY, lambda x: arrays.as_numbers(x, "x"))
NO_LENGTH = [r for r in WHOLES if r[0] != "one too many"]
entry("arrays.as_counts", "x", NO_LENGTH, lambda x: arrays.as_counts(x, "x"))
entry("arrays.as_keys", "x", NO_LENGTH, lambda x: arrays.as_keys(x, "x"))
entry("store.formats.FileFormat", "read", MAPS, read_by_a_format)
entry("types.ScoreMap", "value", MAPS, lambda x: ScoreMap(x, "s"))
entry("refine.definition.Refinement.__call__", "value", MAPS,
      lambda x: get_refinement("pooling")(x, Seen(OUTPUT, ("a", "b"), -1.0)))  # fmt: skip
entry("types.Sample", "image", ARRAYS, lambda x: Sample(x, None, "a", "d"))
entry("types.Sample", "label", given(LABELS), lambda x: Sample(PHOTO, x, "a", "d"))
entry("datasets.photos.as_photo", "image", PHOTOS, as_photo)
entry("detector.detector.Detector.detect", "image", PHOTOS, DETECTOR.detect)
entry("detector.detector.Detector.prepare", "image", PHOTOS, lambda x: DETECTOR.prepare(x)[0].x)
entry("models.network.Network.prepare", "image", PHOTOS, lambda x: NETWORK.prepare(x).x)
entry("models.network.Network.predict", "image", PHOTOS, lambda x: NETWORK.predict(x))
entry(
    "models.network.Network.__call__",
    "x",
    odd.tensors(torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64)),
    NETWORK,
)
entry("models.preprocess.network_array", "image", ARRAYS, lambda x: preprocess.network_array(NETWORK.preprocess, x)[0])
entry("models.preprocess.network_input", "image", ARRAYS, lambda x: preprocess.network_input(NETWORK.preprocess, x)[0])
entry("export.read.ExportedDetector.detect", "image", PHOTOS, lambda x: EXPORTED.detect(x).value)
entry("export.read.ExportedDetector.prepare", "image", PHOTOS, lambda x: EXPORTED.prepare(x)[0])
entry("export.read.resized", "image", ARRAYS, lambda x: exported.resized(x, (5, 7)))
entry(
    "detector.fuse.ensemble",
    "maps",
    MAPS,
    lambda x: ensemble.ensemble([ScoreMap(x, "a"), ScoreMap(SCORES, "b")], [0.5, 0.5]),
)
entry("metrics.frames.evaluate", "value", MAPS, lambda x: evaluated(value=x))
entry("metrics.frames.evaluate", "label", TRUTHS, lambda x: evaluated(label=x))
for argument, rows, other in (("maps", MAPS, TRUTH), ("labels", TRUTHS, SCORES)):  # (1, H, W) is a stack of one
    entry(
        "metrics.frames.evaluate_arrays",
        argument,
        [r for r in rows if r[0] != "three axes"],
        lambda x, argument=argument, other=other: (
            metrics.evaluate_arrays(**{"maps": other, "labels": other, argument: x}, resamples=0).numbers
        ),
    )
entry("metrics.frames.measure", "value", MAPS, lambda x: metrics.measure(["a"], lambda i: (x, TRUTH), "obstacle"))
entry("metrics.frames.measure", "label", TRUTHS, lambda x: metrics.measure(["a"], lambda i: (SCORES, x), "obstacle"))
entry("metrics.counters.count", "value", MAPS, lambda x: counters.count(x, TRUTH))
entry("metrics.counters.count", "label", TRUTHS, lambda x: counters.count(SCORES, x))
entry("metrics.counters.keys", "value", ANY, counters.keys)
entry("metrics.counters.values", "key", NO_LENGTH, counters.values)
ROWS = {id(KEYS): odd.columns(KEYS.astype(np.int64), True), id(COUNTS): WHOLES, id(COLUMN): FLOATS,
        id(FULL): odd.columns(FULL, True)}  # fmt: skip


def entry_columns(name: str, make: Callable[..., Any], **proper: np.ndarray) -> None:
    """An entry for each column of something made of columns."""
    for argument, column in proper.items():
        entry(name, argument, ROWS[id(column)], lambda x, argument=argument: make(**{**proper, argument: x}))


entry_columns("metrics.counters.FrameCounters", counters.FrameCounters, key=KEYS, positive=COUNTS, negative=COUNTS)
entry_columns("metrics.counters.Counters", counters.Counters, positive=FULL, negative=FULL)
entry_columns("metrics.curves.Curve", curves.Curve, threshold=COLUMN, tp=COUNTS, fp=COUNTS)
entry_columns("metrics.official.FrameBins", official.FrameBins, threshold=COLUMN, tp=COUNTS, fp=COUNTS)
entry_columns("metrics.resampling.Steps", resampling.Steps, at=KEYS, tp=COUNTS, fp=COUNTS)
entry_columns("metrics.conformal.Targets", conformal.Targets, key=KEYS, count=COUNTS)
entry("metrics.components.binarise", "value", MAPS, lambda x: components.binarise(x, 3.0))
entry("metrics.components.label_components", "mask", MASKS, components.label_components)
for f in (components.compare, components.numbered):
    entry(f"metrics.components.{f.__name__}", "mask", MASKS, lambda x, f=f: f(x, TRUTH, ONE))
    entry(f"metrics.components.{f.__name__}", "label", TRUTHS, lambda x, f=f: f(SCORES > 3, x, ONE))
entry("metrics.instances.frame_instances", "masks", MASKS, lambda x: instances.frame_instances([x], [0.5], TRUTH))
entry("metrics.instances.frame_instances", "label", TRUTHS, lambda x: instances.frame_instances([SCORES > 3], [0.5], x))
entry(
    "metrics.instances.frame_instances",
    "scores",
    FLOATS,
    lambda x: instances.frame_instances([SCORES > 3] * 3, x, TRUTH),
)
TALLIES = odd.columns(np.linspace(1, 39, 39).round() / 4, False)
entry("metrics.components.numbers", "total", [r for r in TALLIES if r[0] != "two axes"], components.numbers)
for name in ("siou_gt", "siou_pred", "ppv"):
    rows = [r for r in FLOATS if r[0] != "one too many" or name != "siou_gt"]
    own = {"siou_gt": COLUMN, "siou_pred": COLUMN, "ppv": COLUMN}
    entry(
        "metrics.components.FrameComponents",
        name,
        rows,
        lambda x, n=name, o=own: components.FrameComponents(**{**o, n: x}),
    )
entry("metrics.components.recall_by_size", "pixels", FLOATS, lambda x: components.recall_by_size(x, COLUMN))
entry("metrics.components.recall_by_size", "siou", FLOATS, lambda x: components.recall_by_size(COLUMN, x))
entry("metrics.component_list.judge", "value", MAPS, lambda x: component_list.judge("a", x, TRUTH, 3.0, ONE))
entry("metrics.component_list.judge", "label", TRUTHS, lambda x: component_list.judge("a", SCORES, x, 3.0, ONE))
entry("metrics.conformal.component_targets", "value", MAPS, lambda x: conformal.component_targets(x, TRUTH, ONE))
entry("metrics.conformal.component_targets", "label", TRUTHS, lambda x: conformal.component_targets(SCORES, x, ONE))
entry("metrics.conventions.resized_counters", "value", MAPS, lambda x: conventions.resized_counters(x, TRUTH, (7, 9)))
entry(
    "metrics.conventions.resized_counters", "label", TRUTHS, lambda x: conventions.resized_counters(SCORES, x, (7, 9))
)
entry("metrics.segmentation.confusion", "label", TRUTHS[:-2], lambda x: segmentation.confusion(x, LABEL == 1, 2))
PREDICTED = [r for r in odd.labels(masks=True)]
entry("metrics.segmentation.confusion", "predicted", PREDICTED, lambda x: segmentation.confusion(LABEL, x, 2))
SQUARE = np.array([[4.0, 1.0], [2.0, 3.0]])
entry(
    "metrics.segmentation.miou",
    "matrix",
    [(n, SQUARE.astype(t), SQUARE) for n, t in [("f2", "f2"), ("u1", "u1"), (">i4", ">i4")]]
    + [
        ("column", COLUMN, None),
        ("NaN", SQUARE * np.nan, None),
        ("below 0", -SQUARE, None),
        ("nothing", SQUARE * 0, None),
        ("text", "x", None),
        ("not square", SQUARE[:1], None),
        ("masked", np.ma.masked_array(SQUARE, SQUARE > 2), None),
    ],
    segmentation.miou,
)
CLASSES = LABEL.astype(np.uint8).clip(0, 18)
entry(
    "metrics.openworld.frame_confusions",
    "value",
    MAPS,
    lambda x: openworld.frame_confusions(x, CLASSES, TRUTH, [3.0]),
)
entry(
    "metrics.openworld.frame_confusions",
    "predicted",
    odd.labels(masks=True),
    lambda x: openworld.frame_confusions(SCORES, x, TRUTH, [3.0]),
)
MATRIX = [
    *[(t, SQUARE.astype(t), SQUARE) for t in ("f2", "u1", ">i4")],
    ("NaN", SQUARE * np.nan, None),
    ("below 0", -SQUARE, None),
    ("column", COLUMN, None),
    ("text", "x", None),
    ("not square", SQUARE[:1], None),
    ("masked", np.ma.masked_array(SQUARE, SQUARE > 2), None),
]
entry("metrics.openworld.class_iou", "matrix", MATRIX, openworld.class_iou)
entry(
    "metrics.openworld.numbers",
    "matrices",
    [(n, [x] * 3 if p is not None else x, None if p is None else [p] * 3) for n, x, p in MATRIX],
    lambda x: openworld.numbers(x, ["exact"]),
)
LEVELS16 = np.arange(LABEL.size).reshape(LABEL.shape) % 7
entry(
    "metrics.bravo.frame_counts", "predicted", odd.labels(masks=True), lambda x: bravo.frame_counts(x, LEVELS16, TRUTH)
)
entry("metrics.bravo.frame_counts", "label", given(TRUTHS[:-2]), lambda x: bravo.frame_counts(CLASSES, LEVELS16, x))
entry("metrics.bravo.frame_counts", "truth", given(TRUTHS), lambda x: bravo.frame_counts(CLASSES, LEVELS16, truth=x))
half = partial(temporal.video_consistency, window=2)
entry("metrics.temporal.half_mask", "value", MAPS, temporal.half_mask)
entry("metrics.temporal.video_consistency", "masks", MASKS, lambda x: half([SCORES > 3, x, x], [TRUTH] * 3))
entry("metrics.temporal.video_consistency", "labels", LABELS, lambda x: half([SCORES > 3] * 3, [x, TRUTH, x]))
entry("metrics.temporal.clip_objects", "masks", MASKS, lambda x: temporal.clip_objects([x, x], [TRUTH] * 2, ONE))
entry(
    "metrics.temporal.clip_objects",
    "labels",
    TRUTHS,
    lambda x: temporal.clip_objects([SCORES > 3] * 2, [TRUTH, x], ONE),
)
BOXES = np.array([[0.0, 0, 4, 4], [1, 1, 2, 2], [5, 5, 1, 1]])
BOX_ROWS = [
    *[(t, BOXES.astype(t), BOXES) for t in ("f2", "u1", ">i4", "g")],
    ("list", BOXES.tolist(), BOXES),
    ("NaN", BOXES * np.nan, None),
    ("below 0", -BOXES, None),
    ("turned", BOXES.T, None),
    ("column", COLUMN, None),
    ("text", "x", None),
    ("masked", np.ma.masked_array(BOXES, BOXES > 4), None),
]
for argument in ("boxes", "true"):
    entry(
        "metrics.detection.frame_boxes",
        argument,
        BOX_ROWS,
        lambda x, a=argument: detection.frame_boxes(**{"boxes": BOXES, "scores": COLUMN, "true": BOXES, a: x}),
    )
entry("metrics.detection.frame_boxes", "scores", FLOATS, lambda x: detection.frame_boxes(BOXES, x, BOXES))
entry("metrics.detection.true_boxes", "label", TRUTHS, lambda x: detection.true_boxes(x, 1))
entry("store.classes.write_classes", "predicted", odd.labels(masks=True), classes_written)
entry(
    "metrics.openworld.frame_confusions",
    "label",
    TRUTHS[:-2],
    lambda x: openworld.frame_confusions(SCORES, CLASSES, x, [3.0]),
)
entry(
    "metrics.guards.float16_loss",
    "value",
    [r for r in MAPS if r[0] not in ("three axes", "one axis", "no axis")],
    guards.float16_loss,
)
entry("metrics.calibration.reliability", "p", FLOATS, lambda x: calibration.reliability(x, COUNTS, np.array([1, 1, 1])))
entry(
    "metrics.calibration.reliability",
    "positive",
    WHOLES,
    lambda x: calibration.reliability(COLUMN, x, np.array([1, 1, 1])),
)
entry(
    "metrics.calibration.reliability",
    "negative",
    WHOLES,
    lambda x: calibration.reliability(COLUMN, np.array([1, 1, 1]), x),
)
entry("metrics.calibration.Sigmoid.__call__", "value", ANY, calibration.Sigmoid("platt", 2.0, 0.5, False))
entry("metrics.calibration.Isotonic.__call__", "value", ANY, calibration.Isotonic((0.0, 3.0), (0.25, 0.5)))
WEIGHTS = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
WEIGHT_ROWS = [(t, WEIGHTS.astype(t), WEIGHTS) for t in ("f2", "f4", ">f8", "u1", "i8", "g")] + [
    ("Fortran", np.asfortranarray(WEIGHTS), WEIGHTS),
    ("strided", odd.strided(WEIGHTS), WEIGHTS),
    ("torch", torch.from_numpy(WEIGHTS), WEIGHTS),
    ("list", WEIGHTS.tolist(), WEIGHTS),
    ("NaN", WEIGHTS * np.nan, None),
    ("below 0", -WEIGHTS, None),
    ("turned", WEIGHTS.T, None),
    ("one axis", WEIGHTS[0], None),
    ("text", "x", None),
    ("None", None, None),
    ("masked", np.ma.masked_array(WEIGHTS, WEIGHTS > 1), None),
]
entry("metrics.frames.resample", "weights", WEIGHT_ROWS, lambda x: resample(MEASURED, x))
entry("metrics.resampling.curve_numbers", "weights", WEIGHT_ROWS, lambda x: resampling.curve_numbers(*STEPS, x))
entry("metrics.resampling.as_weights", "weights", WEIGHT_ROWS, lambda x: resampling.as_weights(x, 2))
entry("metrics.curve_bands.bands", "weights", WEIGHT_ROWS, lambda x: curve_bands.bands([FRAME, FRAME], x, 5))
entry(
    "metrics.resampling.interval",
    "values",
    [r for r in FLOATS if r[0] not in ("NaN", "one too many")],
    resampling.interval,
)
entry("store.write_map", "value", MAPS, written)
entry("store.write.encode_map", "value", MAPS, lambda x: bytes(store.encode_map(x, "s")))
entry("plots.heatmap.coloured", "value", MAPS, lambda x: heatmap.coloured(x, SCALE))
entry("plots.heatmap.opacity", "value", ANY, lambda x: heatmap.opacity(x, SCALE))
entry("plots.heatmap.draw_boxes", "picture", ARRAYS, lambda x: heatmap.draw_boxes(x, [(1, 1, 3, 3)]))
entry("plots.heatmap.overlay", "ignored", given(MASKS), lambda x: heatmap.overlay(PHOTO, SCORES, SCALE, 3.0, x))
entry("plots.heatmap.overlay", "image", ARRAYS, lambda x: heatmap.overlay(x, SCORES, SCALE, 3.0))
entry("plots.heatmap.overlay", "value", MAPS, lambda x: heatmap.overlay(PHOTO, x, SCALE, 3.0))
entry("plots.panels.panels", "image", ARRAYS, lambda x: panels(x, SCORES, SCALE, title="t"))
entry("plots.panels.panels", "value", given(MAPS), lambda x: panels(PHOTO, x, SCALE, title="t"))
entry("plots.heatmap.figure", "image", some(ARRAYS), lambda x: heatmap.figure(x, SCORES, SCALE, title="t"))
entry("plots.heatmap.figure", "value", some(MAPS), lambda x: heatmap.figure(PHOTO, x, SCALE, title="t"))
entry(
    "plots.heatmap.figure",
    "label",
    some(given(TRUTHS)),
    lambda x: heatmap.figure(PHOTO, SCORES, SCALE, title="t", label=x),
)
entry("plots.heatmap.draw_label", "label", TRUTHS, label_drawn)
entry("plots.heatmap.tile", "picture", ARRAYS, lambda x: heatmap.tile(x, 20))
entry("plots.heatmap.contact_sheet", "pictures", ARRAYS, lambda x: heatmap.contact_sheet([x, PHOTO], 2, 20))
BOX = (1, 5, 2, 6)
entry("plots.gallery.crop", "image", ARRAYS, lambda x: gallery.crop(x, TRUTH, LABEL == 1, BOX))
entry("plots.gallery.crop", "label", TRUTHS, lambda x: gallery.crop(PHOTO, x, LABEL == 1, BOX))
entry("plots.gallery.crop", "mask", MASKS, lambda x: gallery.crop(PHOTO, TRUTH, x, BOX))
entry("plots.agreement.votes", "masks", MASKS, lambda x: agreement.votes([x, LABEL == 1]))
VOTES = [*odd.labels(masks=True)]
entry(
    "plots.agreement.agreement_figure",
    "image",
    some(given(ARRAYS)),
    lambda x: agreement.agreement_figure(x, BINARY.astype("u1"), ["a", "b"], title="t"),
)
entry(
    "plots.agreement.agreement_figure",
    "count",
    some(VOTES),
    lambda x: agreement.agreement_figure(PHOTO, x, ["a", "b"], title="t"),
)
entry(
    "plots.agreement.agreement_figure",
    "label",
    some(given(TRUTHS)),
    lambda x: agreement.agreement_figure(PHOTO, BINARY.astype("u1"), ["a", "b"], title="t", label=x),
)
histogram = partial(distribution.histogram, title="t", marks={})
entry_columns("plots.distribution.histogram", histogram, value=COLUMN, positive=COUNTS, negative=COUNTS)
entry(
    "plots.distribution.reliability_diagram",
    "sides",
    FLOATS,
    lambda x: distribution.reliability_diagram({"a": (x, COLUMN, COUNTS)}),
)
entry_columns("plots.curves.Line", partial(drawn.Line, "a"), **LINE)
entry("plots.curves.Line", "at", FLOATS, lambda x: drawn.Line("a", **LINE, at=x, recall_band=np.zeros((2, 3))))
entry("queries.outlier.anomaly_iou", "label", TRUTHS, lambda x: outlier.anomaly_iou(OUTPUT, x, 0.5))
entry("queries.outlier.mean_iou", "per_frame", FLOATS, lambda x: outlier.mean_iou({"a": x, "b": COLUMN}))
entry("queries.outlier.choose", "mean", [r for r in FLOATS if r[0] != "one too many"], lambda x: outlier.choose(x, 0.3))
entry(
    "queries.inlier.count_predictions",
    "p",
    odd.tensors(LOGITS[0].softmax(1)),
    lambda x: inlier.count_predictions(x, 0.4),
)
entry("evaluation.agreement.shares", "count", VOTES, lambda x: run_agreement.shares("a", x, TRUTH, 2))
entry("evaluation.agreement.shares", "label", TRUTHS, lambda x: run_agreement.shares("a", BINARY.astype("u1"), x, 2))
entry("objects.objects.find_objects", "value", MAPS, found)
entry("objects.ignore.region_of", "mask", MASKS, lambda x: ignore.region_of(x, "drawn").mask)
entry("objects.objects.find_objects", "ignored", given(MASKS), lambda x: exports.find_objects(SCORES, 3.0, ignored=x))
entry("objects.objects.encode_rle", "mask", MASKS, exports.encode_rle)
entry("objects.objects.write_png16", "value", MAPS, png16)
LEVELS = levels.slider_levels(curves.Curve(COLUMN[::-1], np.array([1, 2, 3]), np.array([0, 1, 4])), (0, 1), {})
entry("report.objects.boxed", "value", MAPS, lambda x: boxed(x, PHOTO, SCALE, 3.0, None, ()))
entry("report.objects.boxed", "image", some(ARRAYS), lambda x: boxed(SCORES, x, SCALE, 3.0, None, ()))
entry("report.slider.level_map", "value", MAPS, lambda x: levels.level_map(x, LEVELS, (4, 6)))
entry("report.slider.jpeg", "picture", ARRAYS, levels.jpeg)
entry("predict.smooth.follow", "image", ARRAYS, lambda x: smooth.follow(smooth.Held(SCORES), x, SCORES, "ema"))
entry(
    "predict.smooth.follow",
    "found",
    given(MAPS),
    lambda x: smooth.follow(smooth.Held(SCORES), PHOTO, x, "ema"),
)


def rounded(maps: dict[str, Any]) -> dict[str, np.ndarray]:
    """numpy's softmax and torch's differ in the last digit."""
    return {name: np.round(found.value, 5) for name, found in maps.items()}


entry(
    "masks.MaskOutput",
    "class_logits",
    odd.tensors(LOGITS[0]),
    lambda x: rounded(scores.score_all(MaskOutput(x, LOGITS[1], *SIZES), None, [get_score("eam")])),
)
entry(
    "masks.MaskOutput",
    "mask_logits",
    odd.tensors(LOGITS[1]),
    lambda x: rounded(scores.score_all(MaskOutput(LOGITS[0], x, *SIZES), None, [get_score("rba")])),
)
entry(
    "masks.PixelOutput",
    "class_map_logits",
    odd.tensors(CLASS_MAP),
    lambda x: scores.score_all(PixelOutput(x, *SIZES), None, [get_score("energy")]),
)
entry("masks.as_logits", "x", odd.tensors(CLASS_MAP), lambda x: masks.as_logits(x, 3, "x").float())


def onto_rows(*more):
    """Arrays that something is added to, fresh ones, with leading axes of 1."""
    shape = (*more, H, W)

    def zeros(t: Any = "f4", size=shape):
        return np.zeros(size, t)

    refused = {
        "double": zeros(float), "half": zeros("f2"), "big-endian": zeros(">f4"), "turned": zeros(size=(*more, W, H)),
        "one row less": zeros(size=(*more, H - 1, W)), "read-only": odd.read_only(zeros()), "list": zeros().tolist(),
        "masked": np.ma.zeros(shape, "f4"), "None": None, "an axis more": zeros()[None],
    }  # fmt: skip
    rows = [("proper", zeros(), zeros()), ("strided", zeros(size=(*more, 2 * H, 2 * W))[..., ::2, ::2], zeros())]
    return [*rows, ("Fortran", np.asfortranarray(zeros()), zeros()), *((n, x, None) for n, x in refused.items())]


entry("scores.score.add_score", "onto", onto_rows(), onto)
entry("arrays.check_onto", "onto", onto_rows(), lambda x: arrays.check_onto(x, (H, W)))
entry("scores.cpu.add_scores", "onto", onto_rows(1), add)
entry("scores.plain.add_scores", "onto", onto_rows(1), lambda x: add(x, add_by_numpy))

# Functions of the package that take arrays and are not called here -> why not. A pattern must match the whole name.
EXEMPT = {
    r"(train|app|cli|cluster)\..*": "its arrays come from the project's own batches and readers",
    r"models\.(convert|weights|graph|hf|runtimes|deformable\w*|graph_form|mahalanobis)\..*": "checkpoints and networks",
    r"models\.network\.(load_weights|Network\.save|Prepared|Network)": "tensors of checkpoints and networks",
    r"models\.network\.Network\.class_maps": "the check of __call__; a per-pixel network is needed",
    r"export\.(free|fused|resize|write|quantize)\..*|refine\.traced\..*": "parts of a graph that is being traced",
    r"export\.read\.ExportedDetector": "a session, no array",
    r"export\.read\.ExportedDetector\.(infer|fuse|nearest)": "what prepare gave, and what infer gave",
    r"detector\.prediction\..*": "the photo that Detector.prepare took, and its map",
    r"objects\.ignore\.IgnoreRegion": "what region_of gave",
    r"objects\.ignore\.learn_region": "many photos, each by as_image",
    r"detector\.predictor\..*": "a protocol",
    r"scores\.(definition|semantic|mask|maskomaly)\..*": "formulas on a validated MaskOutput's parts",
    r"scores\.(plan|gpu|gpu_kernels|kernels)\..*": "the same, for the fused kernels",
    r"scores\.score\.Score": "a formula, no array",
    r"scores\.score\.gathered": "of a validated MaskOutput, and of its own class probabilities",
    r"refine\.(cells|pooling|attenuation|regions|boxes)\..*": "formulas on what Refinement.__call__ checked",
    r"refine\.definition\.Refinement": "a formula, no array",
    r"masks\.(refuse_nan|bounded|semantic|row_groups|source)": "parts of a validated MaskOutput",
    r"jit\..*": "what checks the arguments of compiled loops: tests/test_jit.py",
    r"pictures\..*|datasets\.(read|synthetic)\..*": "pictures that were read and checked by the readers themselves",
    r"metrics\.instances\.(FrameInstances|average_precision|instance_numbers)": "counts of frame_instances",
    r"metrics\.result\.(Measured|EvalResult)": "results",
    r"metrics\.(bravo\.(Counts|ece)|detection\.FrameBoxes)": "counts of frame_counts, overlaps of frame_boxes",
    r"metrics\.(calibration\.Reliability|components\.Numbered|curve_bands\.Bands)": "results",
    r"queries\.inlier\.InlierCounts": "results, which nobody gives",
    r"arrays\.(as_array|is_finite|foreign_values|check_same_size|check_same_length)": "parts of the others",
    r"report\.view\.Levels": "results, which nobody gives",
    r"queries\.analysis\..*": "samples are validated Samples",
    r"predict\.(cache|video)\..*": "maps and photos that were read by the readers",
    r"report\.(query_sheet|report)\..*|evaluation\.thresholds\..*": "the same",
    r"models\.preprocess\.Prepared": "made by models.preprocess.network_array",
    r"objects\.objects\.to_supervision": "objects.objects.find_objects, for a package that is not installed here",
    r"plots\.heatmap\.drawable": "arrays that the figures have checked",
    r"report\.slider\.png": "levels of report.slider.level_map, and colours of its own",
    r"predict\.(frames|stages|writer)\..*": "frames of a decoder",
    r"predict\.smooth\.Held": "results, which nobody gives",
}
ERRORS = XenomaskError, TypeError, ValueError


def functions() -> list[str]:
    """The names of all functions, methods and dataclasses of the package that take an array."""
    found = []
    for info in pkgutil.walk_packages(xenomask.__path__, "xenomask."):
        if re.search(r"gpu|cuda|__main__|\.kernels|\.(app|cli|cluster)\b", info.name):
            continue  # a GPU, a browser, a terminal: no arrays of users
        module = importlib.import_module(info.name)
        own = [
            v for k, v in vars(module).items() if not k.startswith("_") and getattr(v, "__module__", "") == info.name
        ]
        for v in own:
            members = {"": v} if inspect.isfunction(v) else vars(v) if inspect.isclass(v) else {}
            for name, f in members.items():
                if not inspect.isfunction(f) or (name.startswith("_") and name not in ("__init__", "__call__")):
                    continue
                takes = [str(a) for k, a in f.__annotations__.items() if k != "return"]
                if any(re.search(r"ndarray|Tensor|Annotated|jaxtyping", a) for a in takes):
                    end = "" if name in ("", "__init__") else f".{name}"
                    found.append(f"{info.name.removeprefix('xenomask.')}.{v.__name__}{end}")
    return sorted(set(found))


def plain(x: Any) -> Any:
    """A result as numbers that can be compared."""
    if isinstance(x, Figure):
        axes = x.axes
        pictures = [i.get_array() for a in axes for i in a.images]
        shapes = [p.vertices for a in axes for c in a.collections for p in c.get_paths()]
        return plain(
            [
                pictures,
                shapes,
                [p.get_path().vertices for a in axes for p in a.patches],
                [line.get_xydata() for a in axes for line in a.lines],
            ]
        )
    if isinstance(x, torch.Tensor):
        return plain(x.detach().float().numpy())
    if isinstance(x, np.ndarray):
        numbers = np.asarray(x, np.float64) + 0.0  # -0 is 0
        return x.shape, numbers.ravel()[:5].tolist(), numbers.tobytes()
    if dataclasses.is_dataclass(x):
        return [plain(getattr(x, f.name)) for f in dataclasses.fields(x)]
    if isinstance(x, dict):
        return [(k, plain(v)) for k, v in x.items()]
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    return repr(float(x)) if isinstance(x, float | np.floating) else x


def outcome(call: Callable[[Any], Any], x: Any) -> tuple[str, Any]:
    try:
        return "result", plain(call(x))
    except ERRORS as e:
        return "refused", str(e)
    except Exception as e:
        return "raised", repr(e)


def _short(outcome: tuple[str, Any]) -> str:
    return f"{outcome[0]} {str(outcome[1])[:100]}"


def faults() -> list[str]:
    """One line for every call that did not come out as it should."""
    found = []
    for (name, argument), (rows, call) in ENTRIES.items():
        properly: dict[int, tuple[str, Any]] = {}
        for what, odd_one, proper in rows:
            where = f"{name}({argument}): {what}"
            if proper is not None:
                if id(proper) not in properly:
                    properly[id(proper)] = outcome(call, proper)
                expected, own = properly[id(proper)], outcome(call, odd_one)
                if what == "proper" and own[0] != "result":
                    found.append(f"{where}: {own}: this call shows nothing")
                same = repr(own) == repr(expected) if own[0] == "result" else own[0] == expected[0] == "refused"
                if not same:
                    found.append(f"{where}: {_short(own)}; given properly: {_short(expected)}")
            else:
                own = outcome(call, odd_one)
                if own[0] != "refused" or "\n" in own[1]:
                    found.append(f"{where}: not refused in one line: {_short(own)}")
    return found


def unlisted() -> list[str]:
    """Functions that are neither called here nor exempt, and names here that are no function any more."""
    known, named = functions(), {name for name, _ in ENTRIES}
    found = [f"{n}: takes an array and is not in helpers/entries.py" for n in known if n not in named and not exempt(n)]
    pipes = {"metrics.frames.evaluate", "metrics.frames.measure", "store.write_map", "detector.fuse.ensemble"}
    return found + [f"{n}: is no function that takes an array" for n in sorted(named - set(known) - pipes)]


def exempt(name: str) -> bool:
    return any(re.fullmatch(p, name) for p in EXEMPT)


if __name__ == "__main__":
    if os.environ.get("ENTRIES_SELFTEST"):  # the test of this test: a function that takes bits for float16
        ENTRIES.clear()
        entry("broken", "value", odd.maps(), lambda x: np.asarray(x).view(np.float16)[:1, :1].astype(np.float32))
    for line in [*faults(), *unlisted()]:
        print(line)
    print(
        f"{sum(len(rows) for rows, _ in ENTRIES.values())} calls of {len({n for n, _ in ENTRIES})} functions",
        file=sys.stderr,
    )
