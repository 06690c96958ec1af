"""Fast deformable attention for Mask2Former's pixel decoder on the CPU, and on CUDA without gradients; else theirs.

transformers samples every level into a tensor, stacks them and multiplies by the weights; the kernels beside this file
add each sample to its sum where it is read. Only the layers of a module that is given to `use_kernel` change.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.mask2former import modeling_mask2former as theirs

from xenomask.errors import XenomaskError
from xenomask.jit import check_triton, in_threads
from xenomask.shapes import Float

Layer = theirs.Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, sizes: np.ndarray, reference: Tensor, offsets: Tensor, weights: Tensor):
        from xenomask.models import kernels

        tensors = [t.detach().contiguous() for t in (value, reference, offsets, weights)]
        ctx.save_for_backward(*tensors)
        ctx.sizes = sizes
        v, r, o, w = (t.numpy() for t in tensors)
        B, _, H, D = v.shape
        out = np.empty((B, r.shape[1], H, D), v.dtype)
        in_threads(kernels.forward, torch.get_num_threads(), B * H, [v, sizes, r, o, w], [out])
        return torch.from_numpy(out).flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        from xenomask.models import kernels

        v, r, o, w = (t.numpy() for t in ctx.saved_tensors)
        B, _, H, D = v.shape
        g = grads[0].detach().contiguous().view(B, -1, H, D).numpy()
        results = [np.zeros_like(a) for a in (v, o, w)]
        in_threads(kernels.backward, torch.get_num_threads(), B * H, [v, ctx.sizes, r, o, w, g], results)
        value, offsets, weights = map(torch.from_numpy, results)
        return value, None, None, offsets, weights


def attention(
    value: Float[Tensor, "b s heads d"],
    sizes: list[tuple[int, int]],
    reference: Float[Tensor, "b q levels 2"],
    offsets: Float[Tensor, "b q heads levels points 2"],
    weights: Float[Tensor, "b q heads levels points"],
) -> Float[Tensor, "b q heads_d"]:
    """Sums, per query and head, of weights times values at reference + offsets (eq. 3 of Deformable DETR).

    `sizes` are the levels' (rows, columns), which cut `value`'s s cells up; `reference` x, y in [0, 1]; `offsets` x, y
    in cells of their level; bilinear, zeros outside. On the CPU, float32 or float64. No gradient reaches `reference`.
    """
    if sum(h * w for h, w in sizes) != value.shape[1]:  # the kernel would read beyond its end
        raise ValueError(f"levels of {sizes} cells, but values of {value.shape[1]}")
    return _Attention.apply(value, np.array(sizes, np.int64), reference, offsets, weights)  # pyright: ignore


@lru_cache
def _on_cuda() -> Callable | None:
    """The Triton kernel where XENOMASK_TRITON=1 asks for it; None elsewhere: transformers' function computes the same.

    NOTE: off by default, as it has never run on a GPU.
    """
    if os.environ.get("XENOMASK_TRITON") != "1":
        return None
    try:
        check_triton()
        from xenomask.models import deformable_gpu
    except Exception:  # whatever keeps a compiler from loading
        return None
    return deformable_gpu.attention


def _kernel(hidden_states: Tensor, reference: Tensor) -> Callable | None:
    """What computes the attention of such tensors; None for transformers' own."""
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # pyright: ignore
    if traced or reference.shape[-1] != 2 or reference.requires_grad:
        return None
    kind, dtype = hidden_states.device.type, hidden_states.dtype
    if kind == "cpu" and dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu"):
        return attention
    if kind == "cuda" and dtype in (torch.float16, torch.bfloat16, torch.float32) and not torch.is_grad_enabled():
        return _on_cuda()
    return None


def _forward(
    layer: Any, hidden_states, attention_mask=None, encoder_hidden_states=None, encoder_attention_mask=None,
    position_embeddings=None, reference_points: Any = None, spatial_shapes_list: Any = None, **rest,
):  # fmt: skip
    """The layer's forward, with the kernel in the place of transformers' function where the kernel can run."""
    kernel = _kernel(hidden_states, reference_points)
    if kernel is None:
        return type(layer).forward(
            layer, hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask,
            position_embeddings, reference_points, spatial_shapes_list, **rest,
        )  # fmt: skip
    # filling copies all values; but on a GPU asking waits for it, and a CUDA graph may not ask
    if attention_mask is not None and not (attention_mask.is_cuda or attention_mask.any()):
        attention_mask = None
    return forward_by(
        kernel, layer, hidden_states, attention_mask, encoder_hidden_states,
        position_embeddings=position_embeddings, reference_points=reference_points,
        spatial_shapes_list=spatial_shapes_list,
    )  # fmt: skip


def forward_by(
    kernel: Callable, layer: Any, hidden_states, attention_mask=None, encoder_hidden_states: Any = None,
    encoder_attention_mask=None, position_embeddings=None, reference_points=None, spatial_shapes_list=None, **rest,
):  # fmt: skip
    """The layer's forward by a function with `attention`'s parameters."""
    queries = hidden_states if position_embeddings is None else hidden_states + position_embeddings
    B, Q, _ = queries.shape
    value = layer.value_proj(encoder_hidden_states)
    if attention_mask is not None:
        value = value.masked_fill(attention_mask[..., None], 0.0)
    grid = (B, Q, layer.n_heads, layer.n_levels, layer.n_points)
    offsets = layer.sampling_offsets(queries).view(*grid, 2)
    weights = layer.attention_weights(queries).view(B, Q, layer.n_heads, -1).softmax(-1).view(grid)
    out = kernel(value.view(B, value.shape[1], layer.n_heads, -1), spatial_shapes_list, reference_points,
                 offsets, weights)  # fmt: skip
    return layer.output_proj(out), weights


def use_kernel(module: nn.Module) -> nn.Module:
    """Lets the module's own deformable attention layers use the kernel; weights, names and results stay.

    Raises XenomaskError if numba, which compiles it, cannot be imported.
    """
    try:
        import numba  # noqa: F401
    except ImportError as e:
        raise XenomaskError(f"the attention kernel needs numba, which does not load: {e}") from e
    for layer in module.modules():
        if isinstance(layer, Layer):
            layer.forward = partial(_forward, layer)  # pyright: ignore
    return module


def leave_kernel(module: nn.Module) -> list[Layer]:
    """Takes `use_kernel` back, and returns the layers that had it; of a single photo numba takes longer to load."""
    fast = [layer for layer in module.modules() if isinstance(layer, Layer) and "forward" in vars(layer)]
    for layer in fast:
        del layer.forward
    return fast


@contextmanager
def plain(module: nn.Module) -> Iterator[nn.Module]:
    """While it is open, the module runs transformers' code alone: for comparison."""
    fast = leave_kernel(module)
    try:
        yield module
    finally:
        for layer in fast:
            layer.forward = partial(_forward, layer)  # pyright: ignore
