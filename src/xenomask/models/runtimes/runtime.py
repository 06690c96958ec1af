"""Network, runtime, device -> a network whose batches run there: PyTorch, torch.compile, OpenVINO, ONNX Runtime.

The default is eager PyTorch, which starts at once: the others build a graph for every new input size. nano-s at 704x384
(two-core AMD EPYC): 18 s for ONNX Runtime, 26 s for OpenVINO, whose graphs are kept on disk (graph_cache);
`choose_runtime` says when that is worth it.
"""

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xenomask.errors import XenomaskError, first_line, unknown
from xenomask.models.mahalanobis import KIND
from xenomask.models.network import PRECISIONS, WINDOWED, Network
from xenomask.models.preprocess import input_size
from xenomask.models.runtimes.graph import Raw, onnx_bytes, to_openvino, trace
from xenomask.models.runtimes.graph_cache import (
    VARIABLE,
    graph_key,
    is_kept,
    keep_graph,
    kept_bytes,
    note_graph,
    noted,
    open_graph,
    read_graph,
)
from xenomask.models.runtimes.sessions import CPU_ONLY, RUNTIMES, Session, need, onnx_session, openvino_session
from xenomask.models.tta import View, at_edge
from xenomask.types import Size

# NOTE: from these figures (two-core AMD EPYC). Swin-S at 512x1024 takes 3.7 s a photo and 6.3 s in torch: its graph is
# paid back within some tens of photos. nano-s' takes 26 s and saves about .1 s a photo
# (provisional: one thread beside other jobs): some 250. But it is built once.
WORTH_A_GRAPH = 100
KEPT = 4  # input sizes whose graphs stay in memory
Run = Callable[[Tensor], tuple[Tensor, Tensor]]


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
    if runtime in CPU_ONLY and network.precision != "float32":
        raise XenomaskError(f"runtime {runtime} computes in float32, not in {network.precision}: leave one of them out")
    if runtime == "torch":
        return replace(network, run=None, runtime=runtime)
    if runtime == "openvino":
        need("openvino", "openvino")
    if runtime == "onnxruntime":
        need("onnxruntime", "onnx")
    build = {"compiled": _compiled, "openvino": _openvino, "onnxruntime": _onnxruntime}[runtime]
    graphs: OrderedDict[tuple[int, ...], Run] = OrderedDict()

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        size, count = tuple(x.shape), len(x)
        larger = [s for s in graphs if s[0] > count and s[1:] == size[1:]]
        if size not in graphs and larger:  # the last batch of many: padding is cheaper than a graph
            size = min(larger)
            x = torch.cat([x, x.new_zeros(size[0] - count, *size[1:])])
        if size not in graphs:
            graphs[size] = build(network, x)
            while len(graphs) > KEPT:
                graphs.popitem(last=False)
        graphs.move_to_end(size)
        classes, masks = graphs[size](x)
        return classes[:count], masks[:count]

    return replace(network, run=run, runtime=runtime)


def run_by(networks: Sequence[Network], runtime: str, device: str = "cpu") -> list[Network]:
    """`with_runtime` of each; views of one network that differ by the mirror alone share their graphs."""
    made: dict[tuple[int, int | None], Network] = {}
    found = []
    for n in networks:
        key = id(n.module), n.view.edge
        if key not in made:
            made[key] = with_runtime(n, runtime, device)
        found.append(replace(n, run=made[key].run, runtime=runtime))
    return found


def with_tta(network: Network, views: Sequence[View]) -> list[Network]:
    """The network once a view; all share its weights, and its graphs where their inputs have one size.

    A Mahalanobis network keeps its own edge, so that it has one view or two.
    Raises XenomaskError where it has views already, and for edges of a network whose input has one size (an exported
    file's, an EoMT).
    """
    if str(network.view):
        raise XenomaskError("this detector has test-time augmentation already: name all views at once")
    if network.config.model_type == KIND:  # what is ordinary was learnt at one edge
        views = list(dict.fromkeys(View(None, view.mirror) for view in views))
    one_size = not list(network.module.parameters()) or network.config.model_type in WINDOWED
    if one_size and any(view.edge for view in views):
        raise XenomaskError(
            f"{network.facts.get('source', 'this network')} takes inputs of one size: it can take the mirror image "
            "(--tta mirror), not other edges"
        )
    shown = [
        replace(network, preprocess=at_edge(network.preprocess, view.edge) if view.edge else network.preprocess,
                view=view)
        for view in views
    ]  # fmt: skip
    # NOTE: not one `run` for all edges: it keeps the graphs of a few sizes only, and would build them for every photo
    return run_by(shown, network.runtime, network.device) if any(view.edge for view in views) else shown


def choose_runtime(
    networks: Sequence[Network], size: Size, frames: int, batch: int = 1, device: str = "cpu"
) -> tuple[str, str]:
    """The runtime that so many photos of that size are worth, torch or openvino, and why; builds nothing."""
    if not frames:
        return "torch", "there is nothing left to do"
    if not device.startswith("cpu"):
        return "torch", f"openvino is not for {device}"
    if importlib.util.find_spec("openvino") is None:
        return "torch", "openvino is not installed"
    if any(n.per_pixel for n in networks):
        return "torch", "a per-pixel network has no other"
    if any(n.precision != "float32" for n in networks):
        return "torch", "openvino computes in float32 only"
    if all(is_kept(graph_key(n, (batch, 3, *input_size(n.preprocess, size)))) for n in networks):
        return "openvino", "its graphs are kept from an earlier run"
    if frames >= WORTH_A_GRAPH:
        return "openvino", f"{frames} photos are worth building its graphs, which are kept"
    return "torch", f"{frames} photos are not worth building openvino's graphs"


def with_precision(network: Network, precision: str) -> Network:
    """The same network, its matrix products and convolutions in float32, bfloat16 or float16 (GPUs only).

    Raises XenomaskError for an unknown precision, one that is not for its device, and networks in other runtimes
    than torch: choose the precision first.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == network.precision:
        return network
    if network.run is not None:
        raise XenomaskError(f"runtime {network.runtime} was built for {network.precision}: choose the precision first")
    if precision == "float16" and network.device == "cpu":
        raise XenomaskError("float16 is for GPUs: take --precision bfloat16 or float32 on the CPU")
    return replace(network, precision=precision)


def _compiled(network: Network, x: Tensor) -> Run:
    device = next(network.module.parameters()).device
    # not compiled for free sizes: the decoder's level sizes are plain numbers in it
    # NOTE: reduce-overhead records CUDA graphs, on GPUs; it has not run on one yet
    mode = "reduce-overhead" if device.type == "cuda" else None
    graph = torch.compile(Raw(network.module), dynamic=False, mode=mode)

    @torch.no_grad()
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        with network.autocast(device.type):
            classes, masks = graph(x.to(device, torch.float32))
        return (classes.clone(), masks.clone()) if mode else (classes, masks)  # a recorded graph writes over its own

    try:
        run(x)
    except Exception as e:  # inductor wraps a missing compiler in its own errors
        raise XenomaskError(
            f"torch.compile failed (it needs a C++ compiler): {first_line(e)}; take another --runtime"
        ) from e
    return run


def openvino_graph(network: Network, x: Tensor) -> Any:
    """The network as an openvino.Model for batches of x's size, read from disk, where it is kept once it was built."""
    shape = (int(x.shape[0]), int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    key = graph_key(network, shape)
    model = read_graph(key)
    if model is None:
        program = trace(Raw(network.module), x.float())
        model = to_openvino(program, ["image"], ["class_logits", "mask_logits"])
        model = keep_graph(key, model)
    _note(network, key, shape)
    return model


def _note(network: Network, key: str, shape: tuple[int, ...]) -> None:
    """Notes the kept graph as that of the network's checkpoint folder, where its files give these very numbers."""
    from xenomask.models.loading import load

    folder = network.folder
    if folder is None or not is_kept(key) or noted(folder, network.sha256, shape):
        return
    if graph_key(load(folder), shape) == key:  # the module may have been changed since it was read
        note_graph(folder, network.sha256, shape, key, network.settings)


def keep_ready(network: Network, shape: tuple[int, int, int, int]) -> tuple[bool, int]:
    """Builds, compiles and keeps the OpenVINO graph for batches of that shape; whether it was there, and its bytes.

    Raises XenomaskError where openvino is missing, where there is no graph, and where nothing can be kept.
    """
    need("openvino", "openvino")
    key = graph_key(network, shape)
    before = is_kept(key)
    openvino_graph(network, torch.zeros(shape))
    if open_graph(key) is None:
        raise XenomaskError(f"graphs cannot be kept: name a folder that can be written to by {VARIABLE}, not off")
    return before, kept_bytes(key)


def _openvino(network: Network, x: Tensor) -> Run:
    return logits(openvino_session(openvino_graph(network, x)))


def _onnxruntime(network: Network, x: Tensor) -> Run:
    program = trace(Raw(network.module), x.float())
    return logits(onnx_session(onnx_bytes(program, ["image"], ["class_logits", "mask_logits"])))


def logits(session: Session) -> Run:
    """A session that answers (class logits, mask logits) as a function of tensors."""

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        classes, masks = session(x.float().cpu().numpy())
        return torch.from_numpy(classes), torch.from_numpy(masks)

    return run
