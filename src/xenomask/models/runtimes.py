"""Network, runtime, device -> a network whose batches run there: PyTorch, torch.compile, OpenVINO, ONNX Runtime.

The default is eager PyTorch, which starts at once: the others build a graph for every new input size. nano-s at 704x384
(two-core AMD EPYC): 18 s for ONNX Runtime, 26 s for OpenVINO.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xenomask import RUNTIMES
from xenomask.errors import XenomaskError, unknown
from xenomask.models.graph import Raw, need, onnx_bytes, to_openvino, trace
from xenomask.models.network import Network

KEPT = 4  # input sizes whose graphs stay in memory
CPU_ONLY = ("openvino", "onnxruntime")
Run = Callable[[Tensor], tuple[Tensor, Tensor]]
Session = Callable[[np.ndarray], list[np.ndarray]]


def check_runtime(runtime: str, device: str) -> None:
    """Raises XenomaskError for an unknown runtime, and for one that is not for that device."""
    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES)
    if runtime in CPU_ONLY and not device.startswith("cpu"):
        raise XenomaskError(
            f"runtime {runtime} is for the CPU, not for device {device}: take --device cpu or another --runtime"
        )


def with_runtime(network: Network, runtime: str, device: str = "cpu") -> Network:
    """The same network, its batches computed by that runtime: torch, compiled, openvino or onnxruntime.

    Raises XenomaskError for an unknown runtime, one that is not installed or not for that device; and, at the first
    batch of a size, where no graph can be built.
    """
    check_runtime(runtime, device)
    if runtime == "torch":
        return replace(network, run=None)
    if runtime == "openvino":
        need("openvino", "openvino")
    if runtime == "onnxruntime":
        need("onnxruntime", "onnx")
    build = {"compiled": _compiled, "openvino": _openvino, "onnxruntime": _onnxruntime}[runtime]
    graphs: OrderedDict[tuple[int, ...], Run] = OrderedDict()

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        size = tuple(x.shape)
        if size not in graphs:
            graphs[size] = build(network, x)
            while len(graphs) > KEPT:
                graphs.popitem(last=False)
        graphs.move_to_end(size)
        return graphs[size](x)

    return replace(network, run=run)


def _compiled(network: Network, x: Tensor) -> Run:
    device = next(network.module.parameters()).device
    # not compiled for free sizes: the decoder's level sizes are plain numbers in it
    graph = torch.compile(Raw(network.module), dynamic=False)

    @torch.no_grad()
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        classes, masks = graph(x.to(device, torch.float32))
        return classes, masks

    try:
        run(x)
    except Exception as e:  # inductor wraps a missing compiler in its own errors
        reason = str(e).strip().splitlines()[0]
        raise XenomaskError(f"torch.compile failed (it needs a C++ compiler): {reason}; take another --runtime") from e
    return run


def _openvino(network: Network, x: Tensor) -> Run:
    program = trace(Raw(network.module), x.float())
    return logits(openvino_session(to_openvino(program, ["image"], ["class_logits", "mask_logits"])))


def _onnxruntime(network: Network, x: Tensor) -> Run:
    program = trace(Raw(network.module), x.float())
    return logits(onnx_session(onnx_bytes(program, ["image"], ["class_logits", "mask_logits"])))


def logits(session: Session) -> Run:
    """A session that answers (class logits, mask logits) as a function of tensors."""

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        classes, masks = session(x.float().cpu().numpy())
        return torch.from_numpy(classes), torch.from_numpy(masks)

    return run


def openvino_session(model: Any) -> Session:
    """An openvino.Model ready for the CPU, in float32 also where the CPU would take bfloat16."""
    openvino = need("openvino", "openvino")
    try:
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except Exception as e:  # openvino raises RuntimeError and its own
        raise XenomaskError(f"openvino cannot compile this graph: {_short(e)}") from e

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            found = compiled([x])
        except Exception as e:
            raise XenomaskError(f"openvino stopped: {_short(e)}") from e
        return [np.array(found[i]) for i in range(len(compiled.outputs))]

    return run


def onnx_session(model: bytes) -> Session:
    """The bytes of an ONNX model ready for ONNX Runtime's CPU provider."""
    onnxruntime = need("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's exceptions have no common class
        raise XenomaskError(f"onnxruntime cannot load this graph: {_short(e)}") from e
    name = session.get_inputs()[0].name

    def run(x: np.ndarray) -> list[np.ndarray]:
        try:
            return session.run(None, {name: x})
        except Exception as e:
            raise XenomaskError(f"onnxruntime stopped: {_short(e)}") from e

    return run


def _short(e: BaseException) -> str:
    """The last line that says something, as these libraries put the cause there."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(e).__name__
