"""Detector + photos -> a folder of its networks in int8, for OpenVINO on CPUs: post-training quantisation by NNCF."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xenomask.datasets import Dataset, Frame, read_photo
from xenomask.detector import Detector
from xenomask.detector.find import QUANTIZED
from xenomask.errors import XenomaskError, first_line
from xenomask.export.content import marked
from xenomask.export.fused import used_members
from xenomask.export.read import open_exported, resized
from xenomask.export.write import describe, save_openvino
from xenomask.files import atomic, make_dir, remove_litter, write_numbers
from xenomask.models.preprocess import network_input
from xenomask.models.runtimes.graph import quiet
from xenomask.models.runtimes.runtime import openvino_graph
from xenomask.models.runtimes.sessions import need
from xenomask.types import Size

HELD_OUT = 5  # every fifth photo is kept from the calibration, to see what it did
VISIBLE = 0.01  # a difference of maps that is counted


def quantize_detector(
    detector: Detector, out: Path, data: Dataset, *, size: Size, frames: int = 100, terms: str | None = None
) -> dict[str, Any]:
    """Writes the detector's networks as int8 graphs for photos of `size`; returns what that does to the maps.

    NNCF measures the ranges of weights and activations on four fifths of (at most) `frames` photos of the data set,
    spread evenly; on the others, maps are compared with the float32 detector's: `mean` and `max` of |difference|,
    `share` of pixels above .01. Scores stay as they are, in float32. Raises XenomaskError where openvino or nncf is
    missing, for fewer than five photos, a per-pixel network, a folder of something else, and a network that cannot be
    translated.
    """
    need("openvino", "openvino")
    with quiet():
        nncf = need("nncf", "int8")
    members = used_members(detector)
    if any(m.network.per_pixel for m in members):
        raise XenomaskError(f"{detector.name} has a per-pixel network: only mask transformers can be quantised")
    if out.exists() and not (out / QUANTIZED).is_file():
        raise XenomaskError(f"{out} exists and holds no quantised detector; choose another folder")
    seen = spread([f for f in data.frames if f.image], frames)
    held = seen[HELD_OUT - 1 :: HELD_OUT]
    used = [f for f in seen if f not in held]
    if not held:
        raise XenomaskError(f"{data.name} at {data.root} has {len(seen)} photos: quantisation needs {HELD_OUT} or more")
    make_dir(out.parent)
    remove_litter(out.parent, out.name)
    with atomic(out) as part:
        part.mkdir()
        contents: dict[str, str] = {}
        for m in members:

            def network_sees(frame: Frame, preprocess=m.network.preprocess) -> np.ndarray:
                return network_input(preprocess, photo_of(data, frame, size))[0].numpy()

            x = torch.from_numpy(network_sees(used[0]))
            model = openvino_graph(m.network.whole, x)
            try:
                with quiet(), contextlib.redirect_stdout(io.StringIO()):  # its progress bars
                    model = nncf.quantize(
                        model, nncf.Dataset(used, network_sees), subset_size=len(used),
                        model_type=nncf.ModelType.TRANSFORMER, target_device=nncf.TargetDevice.CPU,
                        ignored_scope=nncf.IgnoredScope(names=kept_in_float(model)),
                    )  # fmt: skip
            except Exception as e:  # nncf raises its own errors and whatever openvino does
                raise XenomaskError(f"nncf cannot quantise {m.name}: {first_line(e)}") from e
            own = describe(detector.only(m.name), size, "queries", terms)
            about = marked({**own, "dynamic": False, "int8": True})
            contents[m.name] = save_openvino(model, part / f"{m.name}.xml", about)
        table: dict[str, Any] = {
            "version": 1, "name": f"{detector.name}-int8", "weights": {m.name: m.weight for m in members},
            "contents": contents,
            "thresholds": {k: dict(t) for k, t in detector.thresholds.items()},
            "refine": [r.table() for r in detector.refine],
            "ignore": None if detector.ignore is None else detector.ignore.to_json(),
            "calibrated_on": {"dataset": data.name, "frames": [f.id for f in used]},
        }  # fmt: skip
        write_numbers(part / QUANTIZED, table)
        found = {"photos": len(held), **_differences(detector, open_quantized(part), data, held, size)}
        write_numbers(part / QUANTIZED, {**table, "difference_from_float32": found})
    return found


def kept_in_float(model: Any) -> list[str]:
    """The names of an openvino.Model's layers that stay in float32: the backbone's convolutions and the mask head.

    In int8 the backbone's convolutions alone do most of the harm to nano's maps (docs/log.md). They are those before
    the ones that feed the first group normalisations, where Mask2Former's pixel decoder begins. The mask head is the
    products with pixels on the right. In the first of them the queries are constant, so that NNCF takes them for
    weights, with a scale for each query; OpenVINO 2026.4 wants one for each column and refuses to compile the graph.
    """
    kinds = ("Convolution", "GroupConvolution")
    above: dict[str, set[str]] = {}  # the convolutions that a node depends on
    normalised: dict[str, bool] = {}  # whether it depends on a group normalisation
    found = {
        node.get_friendly_name() for node in model.get_ops()
        if node.get_type_name() == "MatMul" and not _constant(node.input_value(1).get_node())
    }  # fmt: skip
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        inputs = [v.get_node().get_friendly_name() for v in node.input_values()]
        above[name] = set().union(*(above[i] for i in inputs)) | ({name} if kind in kinds else set())
        normalised[name] = kind == "GroupNormalization" or any(normalised[i] for i in inputs)
        if kind == "GroupNormalization" and not any(normalised[i] for i in inputs):
            last = _convolution_before(node, kinds)
            found |= above[name] - {last}
    return sorted(found)


def _constant(node: Any) -> bool:
    """Whether a node depends on constants alone."""
    inputs = [v.get_node() for v in node.input_values()]
    return node.get_type_name() == "Constant" or (bool(inputs) and all(map(_constant, inputs)))


def _convolution_before(node: Any, kinds: Sequence[str]) -> str | None:
    """The name of the convolution that a node's first input comes from."""
    while node.input_values():
        node = node.input_value(0).get_node()
        if node.get_type_name() in kinds:
            return node.get_friendly_name()
    return None


def spread(frames: Sequence[Any], count: int) -> list[Any]:
    """At most `count` frames, as evenly spread as can be.

    >>> spread(list("abcdefgh"), 3)
    ['a', 'c', 'f']
    """
    count = min(count, len(frames))
    return [frames[i * len(frames) // count] for i in range(count)]


def photo_of(data: Dataset, frame: Frame, size: Size) -> np.ndarray:
    """The frame's photo, RGB, resized as the data set says, its middle of that shape at that size; no label is read."""
    if frame.image is None:
        raise XenomaskError(f"frame {frame.id} of {data.name} has no photo")
    photo = read_photo(frame.image)
    photo = resized(photo, data.resize) if data.resize else photo
    return resized(middle(photo, size), size)


def middle(photo: np.ndarray, size: Size) -> np.ndarray:
    """The largest part around the middle of a photo (H, W, ...) that has the aspect of (height, width).

    >>> middle(np.zeros((256, 512, 3)), (720, 1280)).shape
    (256, 455, 3)
    """
    H, W = photo.shape[:2]
    h, w = min(H, max(1, round(W * size[0] / size[1]))), min(W, max(1, round(H * size[1] / size[0])))
    top, left = (H - h) // 2, (W - w) // 2
    return photo[top : top + h, left : left + w]


def open_quantized(folder: Path) -> Detector:
    """Opens what `quantize_detector` wrote: a detector whose networks run in OpenVINO; XenomaskError if damaged."""
    return open_exported(folder).opened("queries")


def _differences(
    detector: Detector, other: Detector, data: Dataset, frames: list[Frame], size: Size
) -> dict[str, float]:
    """|map - other map| over all pixels of the frames."""
    each = []
    for frame in frames:
        photo = photo_of(data, frame, size)
        each.append(np.abs(detector.detect(photo).value - other.detect(photo).value))
    all_ = np.stack(each)
    return {"mean": float(all_.mean()), "max": float(all_.max()), "share": float((all_ > VISIBLE).mean())}
