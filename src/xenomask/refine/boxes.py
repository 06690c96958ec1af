"""Box boost: what an outside detector of any object boxes, and suppression keeps, scores more."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xenomask.arrays import NumbersLike, as_numbers
from xenomask.errors import XenomaskError
from xenomask.files import MAX_JSON, read_text, unique_keys
from xenomask.refine.definition import Refinement, register
from xenomask.shapes import Float64

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
    DetSeg, they count double in the suppression, and are then dropped. Raises XenomaskError for anything else, and
    where no box is of one of the `inliers`.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise XenomaskError(f"{path} is larger than {MAX_JSON >> 20} MB")
        table = _table(path)
        rows: dict[str, list[tuple[list[float], str]]] = {}
        for frame, box, name in _rows(table):
            rows.setdefault(frame, []).append((_checked(frame, box), name))
        there = {name for own in rows.values() for _, name in own}
        if inliers and there and not there & set(inliers):
            raise XenomaskError(
                f"{path} has no box of {', '.join(sorted(inliers))[:80]}: its classes are "
                f"{', '.join(sorted(there))[:80] or 'not named'}"
            )
        return {frame: _without(own, set(inliers)) for frame, own in rows.items()}
    except OSError as e:
        raise XenomaskError(f"cannot read {path}: {e.strerror}") from e
    except ValueError as e:
        raise XenomaskError(
            f"{path}: {str(e)[:160]}; give COCO results, or {{id: [[x, y, width, height, score, class], ...]}}"
        ) from e


def _table(path: Path) -> Any:
    try:
        return json.loads(read_text(path), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"it is no JSON ({str(e)[:60]})") from e


def _rows(table: Any) -> Iterator[tuple[str, list[Any], str]]:
    """(frame, [x, y, width, height, score], class) of each box; ValueError in words for what is none."""
    if isinstance(table, Mapping):
        for frame, found in table.items():
            for row in found if isinstance(found, list) else [found]:
                if not isinstance(row, list) or len(row) not in (5, 6):
                    raise ValueError(f"frame {str(frame)[:40]} has {str(row)[:40]} where a row of 5 or 6 belongs")
                yield str(frame), row[:5], str(row[5]) if len(row) > 5 else ""
        return
    if not isinstance(table, list):
        raise ValueError(f"it holds {str(table)[:40]!r}, no boxes")
    for number, r in enumerate(table):
        box = r.get("bbox") if isinstance(r, Mapping) else None
        if not isinstance(box, list) or len(box) != 4 or not {"image_id", "score"} <= r.keys():
            raise ValueError(f"entry {number} ({str(r)[:40]}) has no image_id, score and bbox of 4 numbers")
        yield str(r["image_id"]), [*box, r["score"]], str(r.get("category_id", ""))


def _checked(frame: str, row: list[Any]) -> list[float]:
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not -1e9 < x < 1e9 for x in row):
        raise ValueError(f"frame {frame[:40]} has the box {str(row)[:60]}, not five finite numbers")
    *_, w, h, score = row
    if w < 0 or h < 0 or not 0 <= score <= 1:
        raise ValueError(f"frame {frame[:40]} has the box {str(row)[:60]}: width, height >= 0, a score in 0..1")
    return [float(x) for x in row]


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
