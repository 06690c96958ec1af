"""Detector -> one file that needs neither xenomask nor torch to run."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xenomask.detector import Detector, Member
from xenomask.errors import XenomaskError
from xenomask.export.content import CONTENT, OUTPUTS, VERSION, check_request, marked, stamped
from xenomask.export.free import Free
from xenomask.export.fused import Fused
from xenomask.files import atomic, finite, make_dir, remove_litter, sha256
from xenomask.models.preprocess import network_input
from xenomask.models.runtimes.graph import Raw, onnx_bytes, to_openvino, trace
from xenomask.models.runtimes.sessions import KEY, need
from xenomask.refine import Refinement
from xenomask.types import Size
from xenomask.version import __version__

FEW = 1024  # numbers of a tensor that is stored as it is


def export_detector(
    detector: Detector, path: Path, format: str, *, size: Size, queries: bool = False, dynamic: bool = False,
    batch: int | None = 1, half: bool = False, terms: str | None = None,
) -> Mapping[str, Any]:  # fmt: skip
    """Writes the detector, or (`queries`) its one member's network alone, and returns the metadata inside the file.

    The input is a photo of that (height, width), or (`dynamic`) of any that is scaled to fit into what the networks see
    of one of that size; or `batch` photos that go through the networks together (None: any number). `half` stores the
    weights in float16, computing stays in float32. Raises XenomaskError for an unknown format, another ending of the
    path, a missing package, several members with `queries`, a per-pixel network, a refinement that no graph holds
    (`not_in_file`), and a batch of photos of any size.
    """
    check_request(path, format, size, queries=queries, dynamic=dynamic, batch=batch)
    for package, extra in {"onnx": (("onnx", "onnx"), ("onnxscript", "onnx")), "openvino": (("openvino",) * 2,)}[
        format
    ]:
        need(package, extra)
    used = detector.used
    if (r := not_in_file(detector, queries=queries, dynamic=dynamic)) is not None:
        of = " for photos of any size" * dynamic
        raise XenomaskError(f"{detector.name} refines its maps by {r.name}, which no graph{of} holds: export it with "
                            "--refine none")  # fmt: skip
    if queries and len(used) > 1:
        names = ", ".join(m.name for m in used)
        raise XenomaskError(f"--queries writes one network, {detector.name} has {names}: choose one with --member")
    if any(m.network.per_pixel for m in used):
        raise XenomaskError(f"{detector.name} has a per-pixel network: only mask transformers can be exported")
    if any(str(m.network.view) for m in used):
        raise XenomaskError(f"{detector.name} has test-time augmentation: export it without")
    make_dir(path.parent)
    for own in (path, path.with_suffix(".bin")):
        remove_litter(path.parent, own.name)
    module, image = _graph_of(detector, used, size, queries, dynamic, batch)
    about = describe(detector, size, "queries" if queries else "map", terms)
    metadata = marked({**about, "dynamic": dynamic, "batch": batch, "half": half})
    outputs = OUTPUTS[metadata["kind"]]
    program = trace(module.eval(), image, free=(1, 2) if dynamic else (0,) if batch is None else ())
    if format == "onnx":
        made = onnx_bytes(program, ["image"], outputs, json.dumps(metadata, allow_nan=False))
        whole, content = stamped(_halved(made) if half else made)
        with atomic(path) as part:
            part.write_bytes(whole)
    else:
        content = save_openvino(to_openvino(program, ["image"], outputs), path, metadata, half)
    return {**metadata, CONTENT: content}


def not_in_file(detector: Detector, *, queries: bool = False, dynamic: bool = False) -> Refinement | None:
    """The first refinement of a detector that its file cannot hold, if there is one.

    With `queries` there is none: who reads the file makes the map, and refines it.
    """
    return None if queries else next((r for r in detector.refine if dynamic or not r.on_tensors), None)


def _graph_of(
    detector: Detector, used: tuple[Member, ...], size: Size, queries: bool, dynamic: bool, batch: int | None
) -> tuple[nn.Module, torch.Tensor]:
    """The module to be traced and an input of its size."""
    # an axis of one, though free, would be taken for a constant
    photos = torch.zeros(batch or 2, *size, 3, dtype=torch.uint8)
    if not queries:
        return Free(detector, size) if dynamic else Fused(detector, size, batch), photos
    x, _ = network_input(used[0].network.preprocess, photos[0].numpy())
    return Raw(used[0].network.module), x.repeat(len(photos), 1, 1, 1)


def describe(detector: Detector, size: Size, kind: str, terms: str | None) -> dict[str, Any]:
    """A file's metadata, ready for JSON; docs/export.md has the keys."""
    return finite({
        "version": VERSION, "xenomask": __version__, "kind": kind, "name": detector.name,
        "score": detector.map_score, "scale": detector.scale, "size": size,
        "thresholds": {k: dict(t) for k, t in detector.thresholds.items()},
        "ignore": None if detector.ignore is None else detector.ignore.to_json(),
        "calibration": detector.calibration.table() if detector.calibration else None,
        "refine": [r.table() for r in detector.refine],
        "members": [_member(m) for m in detector.used],
        "describe": detector.describe(), "terms": terms,
    })  # fmt: skip


def _member(m: Member) -> dict[str, Any]:
    config: Any = m.network.config
    return {
        "name": m.name, "weight": m.weight, "sha256": m.network.sha256, "score": m.score.name,
        "options": dict(m.score.options), "classes": [config.id2label[i] for i in range(len(config.id2label))],
        "queries": asdict(m.queries), "preprocess": asdict(m.network.preprocess),
    }  # fmt: skip


def _halved(made: bytes) -> bytes:
    """An ONNX file whose float32 tensors of many numbers are float16, cast back where they are used."""
    onnx = need("onnx", "onnx")
    model = onnx.load_model_from_string(made)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < FEW:
            continue
        with np.errstate(over="ignore"):
            stored = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if np.isfinite(stored).all():  # what float16 cannot hold stays
            casts.append(
                onnx.helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=onnx.TensorProto.FLOAT)
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(stored, f"{tensor.name}_half"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def save_openvino(model: Any, path: Path, metadata: Mapping[str, Any], half: bool = False) -> str:
    """Writes path and its .bin, the `marked` metadata inside, and returns their content's hash.

    The .bin first, so that who finds the .xml finds both. `half` stores float16 where OpenVINO finds that it may.
    """
    openvino = need("openvino", "openvino")
    model.set_rt_info(json.dumps(metadata, allow_nan=False), KEY)
    with atomic(path) as xml, atomic(path.with_suffix(".bin")) as weights:
        if half:
            with tempfile.TemporaryDirectory(dir=path.parent) as own:
                openvino.save_model(model, Path(own) / "half.xml", compress_to_fp16=True)
                (Path(own) / "half.xml").replace(xml)
                (Path(own) / "half.bin").replace(weights)
        else:
            openvino.serialize(model, str(xml), str(weights))
        whole, content = stamped(xml.read_bytes(), sha256(weights))
        xml.write_bytes(whole)
    return content
