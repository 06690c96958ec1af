"""The set-prediction loss of Mask2Former (arXiv 2112.01527, sections 3.2 and 3.3) on label maps.

Every decoder output is matched to the classes in each crop and supervised on points: cross-entropy over classes,
sigmoid cross-entropy and dice over masks. With the same seed it is the loss of transformers' Mask2FormerLoss: the
same points are drawn in the same order.

Letters: L decoder outputs, B images, Q queries, N = K + 1 classes with void, P points, M matched pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, softplus
from transformers import Mask2FormerConfig

from xenomask.errors import XenomaskError
from xenomask.shapes import Float, Integer
from xenomask.train.points import sample, sample_labels, uncertain
from xenomask.types import OUTLIER, VOID


class NotFinite(XenomaskError):
    """The network's outputs hold NaN or infinity."""


class Pairs(NamedTuple):
    """Matched queries, (M,) each: ordered by decoder output, then image, then query."""

    at: Tensor  # (output * B + image) * Q + query
    image: Tensor
    klass: Tensor


class Totals(NamedTuple):
    """What the loss is divided by: of the whole step, where its images are split over processes or parts."""

    masks: float  # classes in the images, summed over the images
    weight: float  # class weights of one decoder output's targets, summed over all queries


class Points(NamedTuple):
    """Random places of all decoder outputs, x and y in [0, 1]."""

    matching: Tensor  # (L * B, P, 2)
    many: Tensor  # (M, oversample * P, 2): the most uncertain of them are kept
    few: Tensor  # (M, rest, 2): the rest of the P, kept as they are


def classes_of(labels: Integer[Tensor, "b h w"], num_classes: int) -> list[Tensor]:
    """The classes in each label map, ascending, without void and pasted objects.

    Raises XenomaskError for a label that is neither a class nor one of these.
    """
    found = []
    for i, label in enumerate(labels):
        present = label.flatten().bincount(minlength=VOID + 1).nonzero().flatten()
        present = present[(present != VOID) & (present != OUTLIER)]
        if len(present) and present[-1] >= num_classes:
            raise XenomaskError(f"image {i} of the batch holds the label {int(present[-1])}: the network has "
                                f"{num_classes} classes, and {VOID} is void")  # fmt: skip
        found.append(present)
    return found


def draw_points(
    outputs: int, images: int, pairs: int, config: Mask2FormerConfig, like: Tensor, generator: Generator | None = None
) -> Points:
    """Points for `pairs` matched pairs an output, uniform, in the order in which transformers draws them."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, 2, device=like.device, dtype=like.dtype, generator=generator)

    P = config.train_num_points
    kept = int(config.importance_sample_ratio * P)
    matching, many, few = [], [], []
    for _ in range(outputs):
        matching += [rand(1, P) for _ in range(images)]
        many.append(rand(pairs, int(P * config.oversample_ratio)))
        few.append(rand(pairs, P - kept))
    return Points(torch.cat(matching), torch.cat(many), torch.cat(few))


def draw_by_image(
    outputs: int, pairs: Sequence[int], seeds: Sequence[int], config: Mask2FormerConfig, like: Tensor
) -> Points:
    """The same kind of points, those of each image from a seed of its own: they do not depend on what else is drawn.

    `pairs` are each image's matched pairs an output. The points are drawn on the CPU, whatever the device.
    """
    P = config.train_num_points
    kept = int(config.importance_sample_ratio * P)
    matching, many, few = [], [], []
    for seed, m in zip(seeds, pairs, strict=True):
        g = torch.Generator().manual_seed(seed)
        matching.append(torch.rand(outputs, 1, P, 2, generator=g))
        many.append(torch.rand(outputs, m, int(P * config.oversample_ratio), 2, generator=g))
        few.append(torch.rand(outputs, m, P - kept, 2, generator=g))
    return Points(*(torch.cat(x, 1).flatten(0, 1).to(like) for x in (matching, many, few)))


def totals(classes: Sequence[Tensor], queries: int, no_object: float) -> Totals:
    """What these images add to the step's totals."""
    matched = sum(min(queries, len(c)) for c in classes)
    return Totals(float(sum(map(len, classes))), matched + no_object * (len(classes) * queries - matched))


@torch.no_grad()
def match(
    class_logits: Float[Tensor, "g q n"], masks: Float[Tensor, "gq h w"], labels: Integer[Tensor, "b H W"],
    classes: Sequence[Tensor], points: Float[Tensor, "g p 2"], config: Mask2FormerConfig, ignore_void: bool = False,
) -> Pairs:  # fmt: skip
    """The cheapest assignment of queries to the classes present, for each (decoder output, image) g.

    Costs are -P_q(k), cross-entropy and dice on the points; `ignore_void` leaves void points out. Raises NotFinite for
    logits that are not finite.
    """
    G, Q, _ = class_logits.shape
    B, P, device = len(labels), points.shape[1], masks.device
    everything = torch.arange(G * Q, device=device)
    x = sample(masks, everything, points, everything // Q).view(G, Q, P)
    # t: the classes' masks on the points, padded with empty ones to the most classes in an image
    rows = [(g, j, g % B, int(k)) for g in range(G) for j, k in enumerate(classes[g % B])]
    group, place, image, klass = torch.tensor(rows, dtype=torch.long, device=device).view(-1, 4).unbind(1)
    t = x.new_zeros(G, max(map(len, classes)), P)
    t[group, place] = sample_labels(labels, image, klass, points, group)
    # -t log s - (1 - t) log (1 - s) = softplus(x) - t x
    entropy, s = softplus(x), x.sigmoid()
    if ignore_void:
        v = _labelled(labels, torch.arange(G, device=device) % B, points)[:, None]
        entropy, x, s = entropy * v, x * v, s * v
        count = v.sum(-1, keepdim=True).clamp(min=1)
    else:
        count = P
    entropy = (entropy.sum(-1)[..., None] - x @ t.mT) / count
    dice = 1 - (2 * s @ t.mT + 1) / (s.sum(-1)[..., None] + t.sum(-1)[:, None] + 1)
    cost = (config.mask_weight * entropy + config.dice_weight * dice).cpu()
    likely = (config.class_weight * class_logits.softmax(-1)).cpu()
    if not (cost.isfinite().all() and likely.isfinite().all()):
        raise NotFinite("the network's logits are not finite, so no query can be matched to a class")
    at, images, matched = [], [], []
    for g in range(G):
        present = classes[g % B].cpu()
        queries, places = linear_sum_assignment(cost[g, :, : len(present)] - likely[g][:, present])
        at += [g * Q + int(q) for q in queries]
        images += [g % B] * len(queries)
        matched.append(present[torch.from_numpy(places)])
    return Pairs(torch.tensor(at, dtype=torch.long, device=device),
                 torch.tensor(images, dtype=torch.long, device=device), torch.cat(matched).to(device))  # fmt: skip


def _labelled(labels: Integer[Tensor, "b H W"], image: Tensor, points: Float[Tensor, "m p 2"]) -> Float[Tensor, "m p"]:
    """1 where a point lies in a pixel that is not void, else 0; `image` (M,) says in which label map."""
    H, W = labels.shape[1:]
    x, y = (points * points.new_tensor([W, H])).long().unbind(-1)
    return (labels[image[:, None], y.clamp(max=H - 1), x.clamp(max=W - 1)] != VOID).to(points.dtype)


def set_loss(
    class_logits: Sequence[Float[Tensor, "b q n"]], mask_logits: Sequence[Float[Tensor, "b q h w"]],
    labels: Integer[Tensor, "b H W"], config: Mask2FormerConfig, generator: Generator | None = None,
    *, seeds: Sequence[int] | None = None, whole: Totals | None = None, ignore_void: bool = False,
) -> Float[Tensor, ""]:  # fmt: skip
    """The loss summed over all decoder outputs, which are given in their order; `labels` are class numbers or void.

    Void and pasted objects (OUTLIER) lie outside of every mask, as in the published recipes. With `ignore_void` only
    the pasted objects do: masks and matching leave out the void points, of which nothing is known. Points are drawn
    from `generator`, or from torch's global one; with `seeds`, each image's from its own. `whole` are the totals of the
    step, if these images are a part of it: the parts' losses then sum to the step's. Raises XenomaskError for labels
    that are neither a class nor void, NotFinite for logits that are not finite.
    """
    # transformers begins with the last output, which matters to the points drawn
    z = torch.stack([class_logits[-1], *class_logits[:-1]])
    masks = torch.stack([mask_logits[-1], *mask_logits[:-1]]).flatten(0, 2)
    L, B, Q, N = z.shape
    classes = classes_of(labels, N - 1)
    pairs = [min(Q, len(c)) for c in classes]
    if seeds is None:
        points = draw_points(L, B, sum(pairs), config, masks, generator)
    else:
        points = draw_by_image(L, pairs, seeds, config, masks)
    # NOTE: transformers divides the classes' part by its own process' weights, whatever the other processes have
    whole = whole or totals(classes, Q, config.no_object_weight)
    at, image, klass = match(z.detach().flatten(0, 1), masks.detach(), labels, classes, points.matching, config,
                             ignore_void)  # fmt: skip

    k = config.train_num_points - points.few.shape[1]
    places = torch.cat([uncertain(masks.detach(), at, points.many, k), points.few], 1)
    own = torch.arange(len(at), device=masks.device)
    x, t = sample(masks, at, places, own), sample_labels(labels, image, klass, places, own)
    n = max(1.0, whole.masks)
    entropy, s = softplus(x) - t * x, x.sigmoid()
    if ignore_void:
        v = _labelled(labels, image, places)
        entropy, s = entropy * v / v.mean(1, keepdim=True).clamp(min=1 / v.shape[1]), s * v
    entropy = entropy.mean(1).sum() / n
    dice = (1 - (2 * (s * t).sum(1) + 1) / (s.sum(1) + t.sum(1) + 1)).sum() / n

    target = torch.full((L * B * Q,), N - 1, device=z.device)
    target[at] = klass
    weight = torch.ones(N, device=z.device, dtype=z.dtype)
    weight[-1] = config.no_object_weight
    classified = cross_entropy(z.flatten(0, 2), target, weight, reduction="sum") / whole.weight
    return config.class_weight * classified + config.mask_weight * entropy + config.dice_weight * dice
