"""A torch module -> an ONNX file or an OpenVINO model, by torch.export; nothing of the module is left changed."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xenomask.errors import XenomaskError
from xenomask.models.graph_form import graph_form
from xenomask.models.runtimes.sessions import KEY, ONNX_LIMIT, need


class Raw(nn.Module):
    """A network as a function of a normalised batch: (class logits, mask logits)."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Q, N) class logits and (B, Q, h, w) mask logits of a (B, 3, H, W) batch."""
        out = self.module(pixel_values=image)
        return out.class_queries_logits.float(), out.masks_queries_logits.float()


def trace(module: nn.Module, image: Tensor, free: Sequence[int] = ()) -> torch.export.ExportedProgram:
    """The module as a graph of that input's size, but for the `free` axes; raises XenomaskError if it has none.

    Attention is traced as plain products: PyTorch's fused CPU kernel has a memory layout that the exporter trips over
    (torch 2.14: "Cannot view a tensor with shape [190, 49, 3, 32]").
    """
    try:
        with quiet(), _plain_attention(module), graph_form(module), torch.inference_mode(False), torch.no_grad():
            image = torch.zeros(image.shape, dtype=image.dtype)  # one of inference mode could not be traced
            dims = {axis: torch.export.Dim(f"axis{axis}", min=16 if axis else 1, max=16384) for axis in free}
            found = torch.export.export(module, (image,), dynamic_shapes=(dims,) if dims else None, strict=False)
            if any("_add_batch_dim" in str(n.target) for n in found.graph.nodes):
                found = found.run_decompositions({})  # torch.vmap's own nodes, and Einsum
            return _without_zeros(_without_einsum(found))
    except XenomaskError:
        raise
    except Exception as e:  # torch.export raises whatever the traced code or its own passes do
        raise XenomaskError(f"this network cannot be written as a graph: {_first_line(e)}") from e


# Sums over queries or channels; whether the left side stands upside down for a matrix product.
PRODUCTS = {"bqc,bchw->bqhw": False, "q,qrw->rw": False, "qk,qrw->krw": True}


def _without_einsum(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same graph with matrix products, a b.flatten(-2), in place of Einsum, which edge compilers lack."""
    aten, graph = torch.ops.aten, program.graph
    for node in list(graph.nodes):
        if node.target is not aten.einsum.default or (equation := node.args[0].replace(" ", "")) not in PRODUCTS:
            continue
        a, b = node.args[1]
        add = partial(_before, node)
        left = add(aten.transpose.int, a, 0, 1) if PRODUCTS[equation] else a
        product = add(aten.matmul.default, left, add(aten.flatten.using_ints, b, -2))
        shape = b.meta["val"].shape
        sizes = [shape[i] if isinstance(shape[i], int) else add(aten.sym_size.int, b, i) for i in (-2, -1)]
        node.replace_all_uses_with(add(aten.unflatten.int, product, -1, sizes))
        graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _without_zeros(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same graph with two numbers to choose from in place of a tensor of zeros, filled where a mask says so.

    torch's masked attention has them; OpenVINO keeps such zeros, of nano-l at 704x384 22 of its 66 MB.
    """
    aten, graph = torch.ops.aten, program.graph
    for node in list(graph.nodes):
        if node.target is not aten.masked_fill_.Scalar:
            continue
        zeros, mask, _ = node.args
        if zeros.target is not aten.zeros_like.default or len(zeros.users) > 1:
            continue
        if mask.meta["val"].shape != node.meta["val"].shape:
            continue
        kind = node.meta["val"].dtype
        numbers = [_before(node, aten.scalar_tensor.default, x, dtype=kind) for x in (node.args[2], 0.0)]
        chosen = _before(node, aten.where.self, mask, *numbers)
        node.replace_all_uses_with(chosen)
        graph.erase_node(node)
        graph.erase_node(zeros)
    program.graph_module.recompile()
    return program


def _before(node: torch.fx.Node, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
    """A new node in front of one, with the value that it stands for."""
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, args, kwargs)
    with node.meta["val"].fake_mode:
        new.meta["val"] = target(*(_values(x) for x in args), **kwargs)
    return new


def _values(x: Any) -> Any:
    """What a node of the graph stands for while it is traced."""
    return [_values(v) for v in x] if isinstance(x, list) else x.meta["val"] if isinstance(x, torch.fx.Node) else x


def onnx_bytes(
    program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], metadata: str = "{}"
) -> bytes:
    """The graph as an ONNX file's bytes, its weights inside and `metadata` under `xenomask`.

    Raises XenomaskError where onnx and onnxscript are missing, or the graph cannot be translated or is over 2 GB.
    """
    need("onnx", "onnx")
    need("onnxscript", "onnx")
    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if size > 0.95 * ONNX_LIMIT:
        raise XenomaskError(f"{size / 2**30:.1f} GiB of weights are more than one ONNX file holds: take openvino")
    try:
        with quiet():
            made: Any = torch.onnx.export(
                program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False, optimize=False
            )
            _fold(made.model)
    except Exception as e:  # the exporter raises ConversionError with everything else inside
        raise XenomaskError(f"torch cannot translate this network to ONNX: {_first_line(e)}") from e
    for node in made.model.graph.all_nodes():  # stack traces with this machine's paths
        node.metadata_props.clear()
        node.doc_string = None
    made.model.metadata_props[KEY] = metadata
    return made.model_proto.SerializeToString()


def _fold(model: Any) -> None:
    """Computes what is constant, as the exporter's `optimize=True` does.

    That also tries each of some 50 rewriting rules at each node, several by a walk over all nodes: of nano-s' 130 s for
    4817 nodes 115 s were theirs (onnxscript 0.7.2). ONNX Runtime has such rules of its own and applies them on loading.
    """
    from onnxscript import optimizer

    optimizer.inline(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)


def to_openvino(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The graph as an openvino.Model; raises XenomaskError where openvino is missing or cannot translate it."""
    openvino = need("openvino", "openvino")
    try:
        with quiet():
            model = openvino.convert_model(program)
            # its converter leaves every axis free
            model.reshape(openvino.PartialShape(_input_shape(program)))
    except Exception as e:  # OpVisitError, RuntimeError, ...
        raise XenomaskError(f"openvino cannot translate this network: {_first_line(e)}") from e
    for ports, names in ((model.inputs, inputs), (model.outputs, outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    return model


def _input_shape(program: torch.export.ExportedProgram) -> list[int]:
    """The one input's shape, -1 where an axis is free."""
    name = next(iter(program.graph_signature.user_inputs))
    node = next(n for n in program.graph.nodes if n.name == name)
    meta: Any = node.meta["val"]
    return [d if isinstance(d, int) else -1 for d in meta.shape]


def _first_line(e: BaseException) -> str:
    """The innermost cause's first line."""
    while e.__cause__ is not None:
        e = e.__cause__
    lines = [line for line in str(e).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(e).__name__


@contextmanager
def _plain_attention(module: nn.Module) -> Iterator[None]:
    """Sets every network inside to plain attention while it is open."""
    found = [m for m in module.modules() if hasattr(m, "set_attn_implementation")]
    configs: dict[int, Any] = {id(m.config): m.config for m in module.modules() if hasattr(m, "config")}
    before = [(c, c._attn_implementation) for c in configs.values() if hasattr(c, "_attn_implementation")]
    try:
        for m in found:
            m.set_attn_implementation("eager")  # pyright: ignore
        yield
    finally:
        for config, attention in before:
            config._attn_implementation = attention


@contextmanager
def quiet() -> Iterator[None]:
    """Mutes the exporters' and NNCF's remarks about their own passes while it is open."""
    names = ("onnxscript", "onnx_ir", "torch.onnx", "torch.export", "torch._export", "openvino", "nncf")
    logs = [logging.getLogger(n) for n in names]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
