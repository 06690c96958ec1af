"""Box boost: what an outside detector of any object boxes, and suppression keeps, scores more."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from xenomask.arrays import NumbersLike, as_numbers
from xenomask.errors import XenomaskError
from xenomask.files import MAX_JSON, read_text, unique_keys
from xenomask.refine.definition import Refinement, register

Boxes = Float64[np.ndarray, "n 5"]  # x, y of the top left corner, width, height, score


def boxes(
    value: np.ndarray, found: NumbersLike, *, add: float = 1.0, score: float = 0.2, iou: float = 0.5
) -> np.ndarray:
    """s + `add` inside the boxes (n, 5) = x, y, width, height, score of more than `score` that suppression keeps.

    As DetSeg does (huachao0124/DetSeg-official) with a detector of any object: class-agnostic suppression at `iou`,
    then the union of the boxes is raised once. Raises XenomaskError for other shapes and for sizes below 0.
    """
    rows = as_numbers(found, "boxes", ndim=2)
    if rows.shape[1] != 5 or (rows[:, 2:4] < 0).any() or not np.isfinite(rows).all():
        raise XenomaskError(f"boxes {rows.shape} are no rows of x, y, width >= 0, height >= 0, score")
    out, (H, W) = value.copy(), value.shape
    inside = np.zeros(value.shape, bool)
    for x, y, w, h, _ in kept(rows[rows[:, 4] > score], iou):
        # the pixels whose centres lie in the box
        top, left = (int(np.clip(np.ceil(t - 0.5), 0, n)) for t, n in ((y, H), (x, W)))
        bottom, right = (int(np.clip(np.ceil(t - 0.5), 0, n)) for t, n in ((y + h, H), (x + w, W)))
        inside[top:bottom, left:right] = True
    out[inside] += np.float32(add)
    return out


def kept(rows: Boxes, iou: float) -> Float64[np.ndarray, "m 5"]:
    """The boxes that no box of a higher score, itself kept, overlaps by more than `iou`; highest score first.

    >>> kept(np.array([[0, 0, 2, 2, 0.5], [0, 0, 2, 2.5, 0.9], [9, 9, 1, 1, 0.1]]), 0.5)[:, 4].tolist()
    [0.9, 0.1]
    """
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    low, high, area = rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 2] * rows[:, 3]
    chosen: list[int] = []
    for i in range(len(rows)):
        sides = (np.minimum(high[chosen], high[i]) - np.maximum(low[chosen], low[i])).clip(0)
        common = sides.prod(1)
        if not (common > iou * (area[chosen] + area[i] - common)).any():
            chosen.append(i)
    return rows[chosen]


def read_boxes(path: Path, inliers: Collection[str] = ()) -> dict[str, Boxes]:
    """{frame id: boxes (n, 5)} of a COCO results list, or of {id: [[x, y, width, height, score, class], ...]}.

    An image_id is the frame's id. Boxes of the classes `inliers` (a name or a category_id) are no anomalies: as in
    DetSeg, they count double in the suppression, and are then dropped. Raises XenomaskError for anything else.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise XenomaskError(f"{path} is larger than {MAX_JSON >> 20} MB")
        table = json.loads(read_text(path), object_pairs_hook=unique_keys)
        rows: dict[str, list[tuple[list[float], str]]] = {}
        for frame, box, score, name in _rows(table):
            rows.setdefault(frame, []).append(([*map(_number, box), _number(score)], name))
        return {frame: _without(own, set(inliers)) for frame, own in rows.items()}
    except OSError as e:
        raise XenomaskError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise XenomaskError(
            f"{path} holds no boxes ({str(e)[:80]}): give COCO results, or {{id: [[x, y, width, height, score], ...]}}"
        ) from e


def _rows(table: Any):
    if isinstance(table, Mapping):
        for frame, found in table.items():
            for x, y, w, h, score, *name in found:
                yield str(frame), (x, y, w, h), score, str(name[0]) if name else ""
        return
    for r in table:
        x, y, w, h = r["bbox"]
        yield str(r["image_id"]), (x, y, w, h), r["score"], str(r.get("category_id", ""))


def _number(x: Any) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float) or not np.isfinite(x):
        raise ValueError(f"{str(x)[:40]} is no finite number")
    return float(x)


def _without(own: list[tuple[list[float], str]], inliers: set[str], iou: float = 0.5) -> Boxes:
    """The boxes of a frame, without those that are inliers or that inliers, scored double, suppress."""
    rows = np.array([box for box, _ in own], np.float64).reshape(-1, 5)
    if not inliers:
        return rows
    known = np.array([name in inliers for _, name in own])
    marked = np.concatenate([rows[:, :4], np.where(known, 2, 1)[:, None] * rows[:, 4:]], 1)
    left = {tuple(r) for r in kept(marked, iou)}
    return rows[[tuple(m) in left and not k for m, k in zip(marked, known, strict=True)]]


register(Refinement("boxes", "s + 1 inside the kept boxes", boxes, "boxes",
                    {"add": (0.0, 100.0), "score": (0.0, 1.0), "iou": (0.0, 1.0)}))  # fmt: skip
