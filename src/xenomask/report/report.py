"""Folders of maps + data set -> one HTML page; loads no network. Numbers come from where `evaluate` has them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from xenomask.datasets import Dataset, Frame
from xenomask.errors import XenomaskError, printable
from xenomask.evaluation.evaluate import check_classes, reader, rounding_note
from xenomask.files import atomic, finite, make_dir, refuse_folder
from xenomask.metrics import EvalResult
from xenomask.objects import IgnoreRegion
from xenomask.objects.ignore import region_of_maps
from xenomask.plots import coloured, overlay
from xenomask.plots.heatmap import LONG, fitted
from xenomask.report import FrameView, MethodView, ObjectsView, ReportView, page
from xenomask.report.methods import Method, evaluated
from xenomask.report.objects import boxed, objects_of, threshold_of
from xenomask.report.parts import curve_diagrams, frame_rows, gallery, number_tables, score_diagrams
from xenomask.report.slider import jpeg, level_map, png
from xenomask.store import MapFolder, Maps, as_maps
from xenomask.types import Size, Tick, nothing
from xenomask.version import __version__

BYTES = 20e6  # of pictures: a third more in base64, and 30 MB are the page's limit
WIDEST = 960  # pixels
THUMB = 288


def write_report(
    maps: Sequence[Maps],
    data: Dataset,
    out: Path,
    track: str,
    *,
    thresholds: Sequence[float] | None = None,
    ignore: IgnoreRegion | None = None,
    classes: Sequence[Path] | None = None,
    images: int = 40,
    resamples: int = 1000,
    seed: int = 0,
    tick: Tick = nothing,
) -> Path:
    """Writes the page; `images` frames, the worst first, are embedded. `tick` is called 4 x maps x frames times.

    Objects are shown above the given thresholds, one per folder, or those of the maps' detectors, and outside of the
    ignore region, or the detectors'; folders of predicted `classes`, one per folder, name their nearest classes. Raises
    XenomaskError as `evaluate` does, for one folder named twice, and for another number of thresholds or classes.
    """
    for what, several in (("thresholds", thresholds), ("folders of predicted classes", classes)):
        if several is not None and len(several) != len(maps):
            raise XenomaskError(f"{len(several)} {what} for {len(maps)} folders of maps; give one each")
    for folder in classes or ():
        check_classes(folder, data)
    refuse_folder(out)
    make_dir(out.parent)
    labelled = data.labelled()
    methods = _evaluated(maps, data, track, resamples, seed, tick)
    order = worst_first(methods[0].result)
    frames = {f.id: f for f in labelled.frames}
    chosen = [frames[i] for i in order[:images]]
    size = embedded_size(methods[0].folder.read(order[0]).shape, len(chosen), len(methods))
    none = [None] * len(methods)
    given = zip(methods, thresholds or none, classes or none, strict=True)
    objects = [_objects(m, data, t, ignore, c, chosen, size, tick) for m, t, c in given]
    view = _view(methods, objects, data, chosen, order, size, resamples, tick)
    with atomic(out) as part:
        part.write_bytes(page(view))
    return out


def write_diagrams(
    maps: Sequence[Maps],
    data: Dataset,
    out: Path,
    track: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    tick: Tick = nothing,
) -> list[Path]:
    """Writes the page's vector diagrams as SVG files; returns them. Raises XenomaskError as `write_report` does."""
    make_dir(out)
    methods = _evaluated(maps, data, track, resamples, seed, tick)
    found = {d.name: d for d in curve_diagrams(methods, resamples)}
    safe = ["".join(c if c.isalnum() or c in "-_." else "_" for c in m.name) for m in methods]
    if len({n.casefold() for n in safe}) < len(safe):  # two would be one file: all are numbered
        safe = [f"{n}_{i}" for i, n in enumerate(safe, 1)]
    for name, m in zip(safe, methods, strict=True):
        found |= {f"{d.name}_{name}": d for d in score_diagrams(m)}
    for name, d in found.items():
        with atomic(out / f"{name}.svg") as part:
            part.write_text(d.svg, "utf-8", errors="replace")
    return [out / f"{name}.svg" for name in found]


def _evaluated(
    given: Sequence[Maps], data: Dataset, track: str, resamples: int, seed: int, tick: Tick
) -> list[Method]:  # fmt: skip
    maps = [as_maps(m) for m in given]
    folders = [(m.path.resolve(), m.pattern, m.key) for m in maps]
    if twice := sorted({str(m) for m, f in zip(maps, folders, strict=True) if folders.count(f) > 1}):
        raise XenomaskError(f"{twice[0]} is named twice: name each folder of maps once")
    for m in maps:
        reader(m, data)  # all folders' frames are checked before the first is evaluated
    named = zip(_names(maps), maps, strict=True)
    return [evaluated(n, m, data, track, resamples=resamples, seed=seed, tick=tick) for n, m in named]


def _names(maps: Sequence[MapFolder]) -> list[str]:
    """What the methods are called: the folders' names, or whole paths where two are alike."""
    names = [printable(m.path.resolve().name) for m in maps]
    return names if len(set(names)) == len(names) else [printable(str(m)) for m in maps]


def worst_first(result: EvalResult) -> list[str]:
    """Frames by their own exact AUPR-sum, rising; those that have none come last, by name."""
    own = result.per_frame
    return sorted(result.frames, key=lambda i: (i not in own, own[i]["aupr_sum"] if i in own else 0.0, i))


def embedded_size(size: Size, frames: int, methods: int) -> Size:
    """The size at which maps are embedded: at most 960 wide, and so that all pictures stay within the page's limit.

    A pixel takes at most one byte a map and half of one for its objects' picture, half of one for the photo and a
    tenth for the label; one of a map's thumb, which is never wider than the map, a quarter.

    >>> embedded_size((720, 1280), 10, 2), embedded_size((1024, 2048), 40, 3), embedded_size((720, 1280), 300, 2)
    ((540, 960), (214, 428), (96, 170))
    """
    pixels = BYTES / max(1, frames) * size[1] / size[0]  # bytes of a frame, were it a square of its width
    wide = (pixels - methods * THUMB**2 / 4) / (1.5 * methods + 0.6)  # beside thumbs of full size
    narrow = pixels / (1.75 * methods + 0.6)  # thumbs as wide as the map
    width = min(size[1], WIDEST, int(max(wide, narrow) ** 0.5))
    return max(1, round(width * size[0] / size[1])), max(1, width)


def _shown_size(frame: Size, size: Size) -> Size:
    """The size on the page of a frame: those of other sizes than the first are embedded at about as many pixels."""
    factor = min(1.0, (size[0] * size[1] / (frame[0] * frame[1])) ** 0.5)
    return max(1, round(frame[0] * factor)), max(1, round(frame[1] * factor))


def _objects(
    m: Method, data: Dataset, given: float | None, ignore: IgnoreRegion | None, classes: Path | None,
    chosen: Sequence[Frame], size: Size, tick: Tick,
) -> ObjectsView:  # fmt: skip
    threshold, origin = threshold_of(m, given)
    ignore = region_of_maps(m.folder.path) if ignore is None else ignore
    found = objects_of(m, data, threshold, ignore, classes, tick=tick)
    pictures = []
    for f in chosen:
        image = data.sample(f).image if f.image else None
        value = m.folder.read(f.id)
        width = _shown_size(value.shape, size)[1]
        pictures.append(boxed(value, image, m.scale, threshold, ignore, found[f.id], width))
    return ObjectsView(threshold, origin, found, pictures, classes is not None)


def _view(
    methods: Sequence[Method], objects: Sequence[ObjectsView], data: Dataset, chosen: Sequence[Frame],
    order: list[str], size: Size, resamples: int, tick: Tick,
) -> ReportView:  # fmt: skip
    seen = {f.id: _see(methods, data, f, size) for f in chosen}
    shown = [seen[f.id][0] for f in chosen]
    parts = []
    for i, m in enumerate(methods):
        own = [seen[f.id][1][i] for f in chosen]
        parts.append(
            MethodView(
                m.name, str(m.folder), m.result.to_json(), m.scale, m.levels, gallery(m, data, tick=tick),
                score_diagrams(m),
                _remarks(m), None if m.manifest is None else finite(m.manifest), objects[i],
                [a for a, _ in own], [b for _, b in own],
            )
        )  # fmt: skip
    exact = methods[0].result.numbers["exact"]
    unlabelled = len(data.frames) - len(order)
    lead = [
        f"{data.name}, {data.root}: {len(order)} frames with a label, {exact['pixels']:,} pixels that are not void, "
        f"{100 * exact['prevalence']:.2f} % of them anomalous."
        + (f" {unlabelled} frames have no label and were not counted." if unlabelled else ""),
        "exact: all pixels pooled, a threshold at every distinct float16 score. official: what the SegmentMeIfYouCan "
        "code computes. Thresholds of best F1 and of the components are chosen on these very frames, as is usual."
        + (f" In brackets: 95 % bootstrap interval over frames, {resamples:,} resamples." if resamples else ""),
    ]
    return ReportView(
        f"{data.name}: {', '.join(m.name for m in methods)}", lead, parts, shown, number_tables(methods),
        frame_rows(methods, order), curve_diagrams(methods, resamples),
        png(coloured(np.linspace(0, 1, 256)[None], (0, 1))), __version__,
    )  # fmt: skip


def _remarks(m: Method) -> list[str]:
    note = rounding_note(m.folder, m.result.frames)
    return [*m.result.warnings, *([note] if note else [])]


def _see(methods: Sequence[Method], data: Dataset, frame: Frame, size: Size):
    """A frame's view, and each method's level map and thumb."""
    label = data.label(frame)
    image = data.sample(frame).image if frame.image else None
    own = _shown_size(label.shape, size)
    small = cv2.resize(label, own[::-1], interpolation=cv2.INTER_NEAREST)
    photo = None if image is None else cv2.resize(image, own[::-1], interpolation=cv2.INTER_AREA)
    pictures = []
    for m in methods:
        value = m.folder.read(frame.id)
        thumb = thumbnail(value, image, m.scale, m.threshold, min(THUMB, own[1]))
        pictures.append((png(level_map(value, m.levels, own)), jpeg(thumb, 75)))
    shown = FrameView(frame.id, label.shape, own, None if photo is None else jpeg(photo), png(small))
    return shown, pictures


def thumbnail(
    value: np.ndarray, image: np.ndarray | None, scale: tuple[float, float], threshold: float, width: int = THUMB
) -> np.ndarray:
    """A small overlay, or the map alone where there is no photo."""
    size = fitted((value.shape[0], value.shape[1]), (LONG * width, width))[::-1]
    value = cv2.resize(value.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    if image is None:
        return coloured(value, scale)
    return overlay(cv2.resize(image, size, interpolation=cv2.INTER_AREA), value, scale, threshold)
