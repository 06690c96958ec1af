"""Masks and label maps read at random points: by kernels on the CPU, by grid_sample elsewhere."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from xenomask.jit import in_threads
from xenomask.shapes import Float, Int, Integer
from xenomask.train import kernels


def _numpy(*tensors: Tensor) -> list:
    return [t.detach().contiguous().numpy() for t in tensors]


def _run(kernel: Any, n: int, arguments: tuple[Tensor, ...], out: Tensor) -> Tensor:
    in_threads(kernel, torch.get_num_threads(), n, _numpy(*arguments), [out.numpy()])
    return out


def _check_inside(**numbers: tuple[Tensor, int]) -> None:
    """Raises ValueError where an index is no number of its table: machine code would read beyond its end."""
    for name, (index, n) in numbers.items():
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n:
            raise ValueError(f"{name} {int(index.min())} .. {int(index.max())} of {n}")


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: Tensor, index: Tensor, points: Tensor, group: Tensor) -> Tensor:
        ctx.save_for_backward(points, index, group)
        ctx.shape = masks.shape
        out = points.new_empty(len(index), points.shape[1])
        return _run(kernels.sample, len(index), (masks, index, points, group), out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):
        points, index, group = ctx.saved_tensors
        out = grads[0].new_zeros(ctx.shape)
        return _run(kernels.spread, len(index), (points, index, group, grads[0]), out), None, None, None


def sample(
    masks: Float[Tensor, "n h w"], index: Int[Tensor, " m"], points: Float[Tensor, "g p 2"], group: Int[Tensor, " m"]
) -> Float[Tensor, "m p"]:
    """The masks `index` at the points `group`, bilinear and 0 beyond the mask; points are x, y in [0, 1].

    No index twice where a gradient is wanted.
    """
    if masks.device.type == "cpu":
        _check_inside(index=(index, len(masks)), group=(group, len(points)))
        return _Sample.apply(masks, index, points, group)  # pyright: ignore
    return grid_sample(masks[index][:, None], 2 * points[group][:, None] - 1, align_corners=False)[:, 0, 0]


def sample_labels(
    labels: Integer[Tensor, "b h w"], image: Int[Tensor, " m"], klass: Int[Tensor, " m"],
    points: Float[Tensor, "g p 2"], group: Int[Tensor, " m"],
) -> Float[Tensor, "m p"]:  # fmt: skip
    """The masks labels[image] == klass at the points `group`, in [0, 1]."""
    if labels.device.type == "cpu":
        _check_inside(image=(image, len(labels)), group=(group, len(points)))
        out = points.new_empty(len(image), points.shape[1])
        return _run(kernels.sample_labels, len(image), (labels, image, klass, points, group), out)
    masks = (labels[image] == klass[:, None, None]).to(points.dtype)
    return sample(masks, torch.arange(len(masks), device=masks.device), points, group)


@torch.no_grad()
def uncertain(
    masks: Float[Tensor, "n h w"], index: Int[Tensor, " m"], points: Float[Tensor, "m p 2"], k: int
) -> Float[Tensor, "m k 2"]:
    """The k of each mask's points at which its logit is nearest to 0."""
    if k == 0:
        return points[:, :0]
    if masks.device.type == "cpu":
        _check_inside(index=(index, len(masks)))
        out = points.new_empty(len(index), k, 2)
        return _run(kernels.uncertain, len(index), (masks, index, points), out)
    size = sample(masks, index, points, torch.arange(len(index), device=index.device)).abs()
    places = size.topk(k, dim=1, largest=False).indices
    return points.gather(1, places[..., None].expand(-1, -1, 2))
