"""Data set -> QuerySet: runs a network over the frames and keeps what its queries did."""

import csv
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from xenomask.errors import XenomaskError, printable
from xenomask.files import atomic, make_dir, read_object
from xenomask.masks import MaskOutput, PixelOutput, class_probabilities, with_queries
from xenomask.queries.inlier import InlierCounts, count_predictions, merge, specialised
from xenomask.queries.outlier import anomaly_iou, choose, mean_iou
from xenomask.types import QuerySet, Sample

FOLDER, FILE = "query_analysis", "queries.json"
MAX_QUERIES = 100_000
Look = Callable[[np.ndarray], MaskOutput | PixelOutput]


@runtime_checkable
class Frames(Protocol):
    """What the analyses read: the data set's name, its frames and how to load one."""

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> Path: ...

    @property
    def frames(self) -> tuple[Any, ...]: ...

    def sample(self, frame: Any) -> Sample: ...


def _describe(data: Frames, **thresholds: float | int | None) -> dict[str, Any]:
    return {"dataset": data.name, "split": data.root.name, "frames": len(data.frames), **thresholds}


def analyse_inlier(
    look: Look,
    data: Frames,
    queries: QuerySet,
    *,
    confidence: float = 0.9,
    ratio: float = 0.9,
    min_predictions: int = 1,
    ground_classes: Sequence[int] = (0, 1),
    tick: Callable[[], None] = lambda: None,
) -> tuple[QuerySet, InlierCounts]:
    """The query set with its specialised queries (and, of those, the ground's: road, sidewalk) replaced.

    Only the photos are read for it, not their labels. Raises XenomaskError for a per-pixel network.
    """
    counts: InlierCounts | None = None
    for frame in data.frames:
        own = count_predictions(class_probabilities(with_queries(look(data.sample(frame).image))), confidence)
        counts = merge(counts, own) if counts else own
        tick()
    assert counts is not None
    found = specialised(counts, ratio, min_predictions)
    origin = _describe(data, confidence=confidence, ratio=ratio, min_predictions=min_predictions)
    ground = tuple(q for q, c in found.items() if c in ground_classes)
    return replace(queries, inlier=found, ground=ground, origin={**queries.origin, "inlier": origin}), counts


def analyse_outlier(
    look: Look,
    data: Frames,
    queries: QuerySet,
    *,
    iou: float = 0.25,
    mask_threshold: float = 0.9,
    top_k: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> QuerySet:
    """The query set with its outlier queries replaced; every frame's IoUs are kept for leave-one-image-out.

    Frames without an anomaly have no IoU and are left out; raises XenomaskError if none has one, and for a
    per-pixel network.
    """
    per_frame: dict[str, np.ndarray] = {}
    for frame in data.frames:
        sample = data.sample(frame)
        assert sample.label is not None
        if (sample.label == 1).any():
            per_frame[sample.id] = anomaly_iou(with_queries(look(sample.image)), sample.label, mask_threshold)
        tick()
    if not per_frame:
        raise XenomaskError(f"no frame of {data.name} has an anomaly: outlier queries cannot be found on it")
    origin = _describe(data, iou=iou, mask_threshold=mask_threshold, top_k=top_k)
    origin["per_frame_iou"] = {i: [round(float(v), 6) for v in x] for i, x in per_frame.items()}
    found = choose(mean_iou(per_frame), iou, top_k)
    return replace(queries, outlier=found, origin={**queries.origin, "outlier": origin})


def without_frame(queries: QuerySet, frame: str) -> QuerySet:
    """The query set that the outlier analysis would have given without that frame (leave-one-image-out).

    Raises XenomaskError where the analysis' own numbers are not in the query set.
    """
    origin = queries.origin.get("outlier", {})
    per_frame = {i: np.array(v) for i, v in origin.get("per_frame_iou", {}).items()}
    if not per_frame:
        raise XenomaskError("leave-one-image-out needs the outlier analysis: run `xenomask queries outlier` first")
    rest = {i: v for i, v in per_frame.items() if i != frame}
    if not rest:
        raise XenomaskError("leave-one-image-out needs an outlier analysis of two frames or more")
    return replace(queries, outlier=choose(mean_iou(rest), origin["iou"], origin["top_k"]))


def write_inlier_csv(folder: Path, counts: InlierCounts, found: Mapping[int, int], classes: Sequence[str]) -> None:
    """times_predicted_stats.csv, high_conf_stats.csv (a row a query) and specialized.csv (a row a specialised one)."""
    names = [*classes, "no object"]
    tables = {"times_predicted_stats": counts.times_predicted, "high_conf_stats": counts.high_conf}
    for name, table in tables.items():
        rows = [[q, *row] for q, row in enumerate(table.tolist())]
        _write_csv(folder / f"{name}.csv", ["query", *names], rows)
    rows = []
    for q, c in found.items():
        n, high = int(counts.times_predicted[q, c]), int(counts.high_conf[q, c])
        share = high / counts.times_predicted[q, :-1].sum()
        rows.append([q, c, names[c], n, high, round(high / n, 6), round(float(share), 6)])
    header = ["query", "class_id", "class", "times_predicted", "high_conf", "ratio", "share_of_query"]
    _write_csv(folder / "specialized.csv", header, rows)


def write_outlier_csv(folder: Path, queries: QuerySet) -> None:
    """outlier_iou.csv: a row a query, best first; mean IoU, whether chosen, and the IoU of each frame."""
    per_frame = {i: np.array(v) for i, v in queries.origin["outlier"]["per_frame_iou"].items()}
    mean = mean_iou(per_frame)
    rows = [
        [q, round(float(mean[q]), 6), int(q in queries.outlier), *(round(float(v[q]), 6) for v in per_frame.values())]
        for q in map(int, np.argsort(-mean, kind="stable"))
    ]
    _write_csv(folder / "outlier_iou.csv", ["query", "mean_iou", "chosen", *per_frame], rows)


def _write_csv(path: Path, header: Sequence[str], rows: list[list]) -> None:
    with atomic(path) as part, part.open("w", encoding="utf-8", errors="replace", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_queries(checkpoint: Path, queries: QuerySet) -> Path:
    """Writes <checkpoint>/query_analysis/queries.json."""
    path = make_dir(checkpoint / FOLDER) / FILE
    table = {
        "checkpoint_sha256": queries.checkpoint_sha256,
        "inlier": {str(q): c for q, c in queries.inlier.items()},
        # an IoU that nobody published is nan, which JSON has no word for
        "outlier": {str(q): None if math.isnan(v) else round(v, 6) for q, v in queries.outlier.items()},
        "ground": list(queries.ground),
        "origin": dict(queries.origin),
    }
    text = json.dumps(table, indent=1)
    # numbers of one list on one line: 100 queries x 10 frames stay readable
    text = re.sub(r"\[[\d\s.,e+-]*\]", lambda m: re.sub(r"\s+", " ", m[0]), text)
    with atomic(path) as part:
        part.write_text(text + "\n")
    return path


def read_queries(checkpoint: Path, checkpoint_sha256: str) -> QuerySet:
    """Reads the query set beside a checkpoint; an empty one where no analysis was made.

    Raises XenomaskError for a damaged file and for one that belongs to other weights (the hash differs).
    """
    path = checkpoint / FOLDER / FILE
    if not path.is_file():
        if os.path.lexists(path):  # not the same as none: a pipe, a broken link
            raise XenomaskError(f"{path} is no ordinary file that can be read: copy it again")
        return QuerySet(checkpoint_sha256)
    table = read_object(path)
    try:
        queries = QuerySet(
            _is(table["checkpoint_sha256"], str),
            {_query(q): _query(c) for q, c in table["inlier"].items()},
            # the IoU of a query set that was published without its IoUs is not known
            {_query(q): math.nan if v is None else _number(v) for q, v in table["outlier"].items()},
            tuple(_query(q) for q in _is(table["ground"], list)),
            _is(table["origin"], dict),
        )
        _check_origin(queries.origin)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
        raise XenomaskError(f"query file {path} is damaged: {e!r}") from e
    if queries.checkpoint_sha256 != checkpoint_sha256:
        raise XenomaskError(
            f"query file {path} belongs to another checkpoint (sha256 {printable(queries.checkpoint_sha256[:12])}..., "
            f"these weights are {checkpoint_sha256[:12]}...): run `xenomask queries inlier` and `outlier` on this one"
        )
    return queries


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:40]!r} is no {kind.__name__}")
    return value


def _query(value: Any) -> int:
    """The number of a query or a class."""
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else _is(value, int)
    if not 0 <= number < MAX_QUERIES:
        raise ValueError(f"{str(value)[:40]} is the number of no query or class")
    return number


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]} is no finite number")
    return float(value)


def _check_origin(origin: Mapping[str, Any]) -> None:
    """The part that leave-one-image-out computes with."""
    outlier = _is(origin.get("outlier", {}), dict)
    lengths = set()
    for values in _is(outlier.get("per_frame_iou", {}), dict).values():
        if not {*map(type, _is(values, list))} <= {int, float} or not all(map(math.isfinite, values)):
            raise ValueError("an IoU of a frame is no finite number")
        lengths.add(len(values))
    if len(lengths) > 1:
        raise ValueError("its frames have different numbers of queries")
    if lengths:
        _number(outlier["iou"])
        if outlier["top_k"] is not None:
            _query(_is(outlier["top_k"], int))
