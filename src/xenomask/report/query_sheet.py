"""Network + photos -> a page that shows what each query does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from xenomask.datasets import Dataset
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.masks import MaskOutput, class_probabilities, soft_masks, with_queries
from xenomask.models import Network
from xenomask.plots import coloured
from xenomask.plots.heatmap import LONG, fitted
from xenomask.report import Crop
from xenomask.report.queries import QueryGroup, QueryView, query_page
from xenomask.report.slider import jpeg, png
from xenomask.types import QuerySet, Tick, nothing

GRID = (72, 128)  # masks are looked at in this size, whatever the photo's
WIDTH = 240  # of the photos on the page
BEST = 3


@dataclass(frozen=True)
class Seen:
    """What is kept of one photo: its small copy, and of each query class, confidence and small mask."""

    id: str
    photo: np.ndarray
    # K, the number of known classes; the most probable one (K: none), and the largest probability of a known one
    classes: int
    predicted: np.ndarray
    confidence: np.ndarray
    # mean of the mask where it exceeds one half; 0 where it nowhere does
    sharpness: np.ndarray
    masks: np.ndarray


def write_query_sheet(
    network: Network,
    queries: QuerySet,
    data: Dataset,
    out: Path,
    *,
    name: str = "",
    photos: int = 20,
    tick: Tick = nothing,
) -> int:
    """Writes the page from at most `photos` photos, evenly chosen; returns how many were used.

    Raises XenomaskError for a per-pixel network, and for a data set without photos.
    """
    frames = [f for f in data.frames if f.image]
    if not frames:
        raise XenomaskError(f"{data.name} at {data.root} has no photo to look at")
    make_dir(out.parent)
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, min(photos, len(frames))).astype(int))]
    seen = []
    for frame in chosen:
        image = data.sample(frame).image
        seen.append(look(frame.id, image, with_queries(network.predict(image))))
        tick()
    known: Any = network.config.id2label or {}
    names = [str(known.get(i, i)) for i in range(seen[0].classes)]
    lead = [
        f"{len(seen)} photos of {data.name}, {data.root}; {len(seen[0].predicted)} queries. Bars: how often the "
        "query's most probable class was which. Mean mask: over these photos, 0 black to 1 yellow. Best images: where "
        "the probability of a class times the mask's mean confidence is largest; of outlier queries, whose class does "
        "not matter, the mask's alone. Line: mask at .5.",
        "Specialised and outlier are those of the checkpoint's query analysis.",
    ]
    with atomic(out) as part:
        part.write_bytes(query_page(f"Queries of {name}" if name else "Queries", lead, grouped(seen, queries, names)))
    return len(seen)


@torch.inference_mode()
def look(name: str, image: np.ndarray, output: MaskOutput) -> Seen:
    """One photo's part of the sheet."""
    p = class_probabilities(output)
    masks = soft_masks(replace(output, image_size=GRID)).cpu().numpy()
    inside = masks > 0.5
    sharpness = (masks * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1)
    h, w = fitted((image.shape[0], image.shape[1]), (LONG * WIDTH, WIDTH))
    photo = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    confidence = p[:, :-1].amax(1).cpu().numpy()
    return Seen(
        id=name,
        photo=photo,
        classes=p.shape[1] - 1,
        predicted=p.argmax(1).cpu().numpy(),
        confidence=confidence,
        sharpness=sharpness,
        masks=(masks * 255 + 0.5).astype(np.uint8),
    )


def grouped(seen: Sequence[Seen], queries: QuerySet, names: Sequence[str]) -> list[QueryGroup]:
    """All queries: outlier ones, specialised ones, the rest by use, those that never predicted a class."""
    views = [_view(q, seen, queries, names) for q in range(len(seen[0].predicted))]
    used = {v.number: sum(n for _, n in v.classes) for v in views}
    outlier = [views[q] for q in queries.outlier if q < len(views)]
    special = [v for v in views if v.number in queries.inlier and v.number not in queries.outlier]
    rest = [v for v in views if v.number not in queries.outlier and v.number not in queries.inlier]
    rest.sort(key=lambda v: (-used[v.number], v.number))
    return [
        QueryGroup("outlier", "Outlier queries", outlier),
        QueryGroup("specialised", "Specialised queries", special),
        QueryGroup("others", "Other queries, by use", [v for v in rest if used[v.number]]),
        QueryGroup("unused", "Queries that predicted no class here", [v for v in rest if not used[v.number]]),
    ]


def _view(q: int, seen: Sequence[Seen], queries: QuerySet, names: Sequence[str]) -> QueryView:
    marks = []
    if q in queries.outlier:
        iou = queries.outlier[q]
        marks.append("outlier query" + (f", mean IoU with anomalies {iou:.3f}" if iou == iou else ""))
    if q in queries.inlier:
        c = queries.inlier[q]
        ground = " (ground)" if q in queries.ground else ""
        marks.append(f"specialised on {names[c] if c < len(names) else c}{ground}")
    counts = np.bincount([int(s.predicted[q]) for s in seen], minlength=len(names) + 1)[: len(names)]
    classes = sorted(((names[c], int(counts[c])) for c in np.flatnonzero(counts).tolist()), key=lambda x: -x[1])
    worth = [float(s.sharpness[q] * (1 if q in queries.outlier else s.confidence[q])) for s in seen]
    best = [i for i in sorted(range(len(seen)), key=lambda i: -worth[i])[:BEST] if worth[i] > 0]
    mean = np.mean([s.masks[q] for s in seen], axis=0) / 255
    images = [Crop(jpeg(_masked(seen[i], q), 75), _line(seen[i], q, names)) for i in best]
    return QueryView(q, marks, classes, len(seen), png(coloured(mean, (0.0, 1.0))), images)


def _line(s: Seen, q: int, names: Sequence[str]) -> str:
    c = int(s.predicted[q])
    return f"{s.id}: {names[c] if c < len(names) else 'no object'}, mask {s.sharpness[q]:.2f}"


def _masked(s: Seen, q: int) -> np.ndarray:
    """The photo with what the mask leaves out darkened, and its line."""
    h, w = s.photo.shape[:2]
    mask = cv2.resize(s.masks[q], (w, h), interpolation=cv2.INTER_LINEAR)
    out = (s.photo * (0.35 + 0.65 * mask[..., None] / 255)).astype(np.uint8)
    contours, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, (255, 255, 255), 1)
    return out
