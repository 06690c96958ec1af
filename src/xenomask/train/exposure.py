"""Outlier exposure: what a fine-tuning stage with pasted objects changes besides the crops.

The losses read the last decoder output: with P_q(k) the softmax over all N classes, m_q the soft masks and
L_k = sum_q P_q(k) m_q, k < K, each reads the pixels of training classes ("in") and those of pasted objects ("out"),
at the masks' stride. A mean over no pixels is 0. Each has the form that its authors released, too.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xenomask.datasets.labelmap import read_label_map
from xenomask.errors import XenomaskError, unknown
from xenomask.models import Network
from xenomask.models.network import with_outlier_class
from xenomask.shapes import Bool, Float, Integer, Shaped
from xenomask.train.config import Exposure, TrainConfig
from xenomask.types import OUTLIER

Classes = Float[Tensor, "b q n"]
Masks = Float[Tensor, "b q h w"]
Which = Bool[Tensor, "b h w"]


class Counts(NamedTuple):
    """Pixels that the means are taken over: of the whole step, where its images are split."""

    known: float
    outlier: float


def rba(
    class_logits: Classes, mask_logits: Masks, outlier: Which, inlier: Which, *,
    margin: float | None = None, released: bool = False, whole: Counts | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """.5 [mean_in relu(s + margin)^2 + mean_out s^2] with s = -sum_k tanh L_k, in [-K, 0] (RbA, ICCV 2023).

    margin: tanh 1 = .76, the s of a pixel that one class owns. `released`:
    .5 [mean_in relu(s)^2 + mean_out relu(margin - s)^2], margin 5.
    """
    # NOTE: as s <= 0, the released inlier term is 0 everywhere, and its margin of 5 cannot be reached: what is left is
    # a push of outliers towards s = 0, and nothing holds the inliers but the set-prediction loss
    s = -class_shares(class_logits, mask_logits).tanh().sum(1)
    if released:
        m = 5.0 if margin is None else margin
        return _halves(s.relu() ** 2, (m - s).relu() ** 2, inlier, outlier, whole)
    m = float(torch.tensor(1.0).tanh()) if margin is None else margin
    return _halves((s + m).relu() ** 2, s**2, inlier, outlier, whole)


def mask2anomaly(
    class_logits: Classes, mask_logits: Masks, outlier: Which, inlier: Which, *,
    margin: float | None = None, released: bool = False, whole: Counts | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """.5 [mean_in relu(u)^2 + mean_out relu(margin - u)^2] with u = 1 - max_k L_k, margin 1 (Mask2Anomaly, ICCV 2023).

    `released`: .5 [mean_in s^2 + mean_out relu(margin - s)^2] with s = -max_k L_k.
    """
    # NOTE: the paper's score is 1 - max L, its released loss takes -max L: that pulls the largest L of INLIERS to 0
    top, m = class_shares(class_logits, mask_logits).amax(1), 1.0 if margin is None else margin
    if released:
        return _halves(top**2, (m + top).relu() ** 2, inlier, outlier, whole)
    return _halves((1 - top).relu() ** 2, (m - 1 + top).relu() ** 2, inlier, outlier, whole)


def eam(
    class_logits: Classes, mask_logits: Masks, outlier: Which, inlier: Which, *,
    margin: float | None = None, whole: Counts | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """.5 [mean_in e^2 + mean_out relu(margin - e)^2] with e = 1 - sum_q m_q max_{k<K} P_q(k), margin 1.

    The score of Grcic et al. (CVPR workshops 2023) under the squares of the other two. No cross-entropy: e is no
    probability (below 0 where masks overlap), and clamped to one it had no gradient where it is most wrong.
    """
    # NOTE: the released code has no loss on e: its exposure is pasted objects labelled void, which is our "void"
    sure = class_logits.softmax(-1)[..., :-1].amax(-1)
    e = 1 - torch.einsum("bq,bqhw->bhw", sure, mask_logits.sigmoid())
    m = 1.0 if margin is None else margin
    return _halves(e**2, (m - e).relu() ** 2, inlier, outlier, whole)


def class_shares(class_logits: Classes, mask_logits: Masks) -> Float[Tensor, "b k h w"]:
    """L_k = sum_q P_q(k) m_q of the K classes, at the masks' stride."""
    return torch.einsum("bqk,bqhw->bkhw", class_logits.softmax(-1)[..., :-1], mask_logits.sigmoid())


def _halves(
    known: Float[Tensor, "b h w"],
    anomalous: Float[Tensor, "b h w"],
    inlier: Which,
    outlier: Which,
    whole: Counts | None,
) -> Float[Tensor, ""]:
    n = whole or Counts(float(inlier.sum()), float(outlier.sum()))
    return 0.5 * ((known * inlier).sum() / max(n.known, 1) + (anomalous * outlier).sum() / max(n.outlier, 1))


def exposure_loss(
    e: Exposure | None, class_logits: Classes, mask_logits: Masks, labels: Integer[Tensor, "b H W"],
    whole: Counts | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The recipe's weighted loss on the last decoder output; 0 where "void" or "uno", which have none of their own."""
    outlier, inlier = split(labels, (mask_logits.shape[2], mask_logits.shape[3]))
    options: dict[str, Any] = {"margin": e.margin, "whole": whole} if e else {}
    if e and e.loss == "rba":
        return e.weight * rba(class_logits, mask_logits, outlier, inlier, released=e.released, **options)
    if e and e.loss == "mask2anomaly":
        return e.weight * mask2anomaly(class_logits, mask_logits, outlier, inlier, released=e.released, **options)
    if e and e.loss == "eam":
        return e.weight * eam(class_logits, mask_logits, outlier, inlier, **options)
    return mask_logits.new_zeros(())


def split(labels: Integer[Tensor, "b H W"], size: tuple[int, int]) -> tuple[Which, Which]:
    """Which cells of the masks show a pasted object, and which a training class: by the label at the cell's centre.

    >>> [x.tolist() for x in split(torch.tensor([[[3, 254], [255, 254]]]), (2, 2))]
    [[[[False, True], [False, True]]], [[[True, False], [False, False]]]]
    """
    labels = at_cells(labels, size)
    return labels == OUTLIER, labels < OUTLIER


def at_cells(pixels: Shaped[Tensor, "b H W"], size: tuple[int, int]) -> Shaped[Tensor, "b h w"]:
    """The pixel at the centre of each cell of the masks.

    >>> at_cells(torch.arange(16).reshape(1, 4, 4), (2, 2)).tolist()
    [[[5, 7], [13, 15]]]
    """
    for dim, n in ((1, size[0]), (2, size[1])):
        places = ((torch.arange(n, dtype=torch.float64) + 0.5) * pixels.shape[dim] / n).long()
        pixels = pixels.index_select(dim, places.to(pixels.device))
    return pixels


def pixel_counts(labels: Integer[Tensor, "b H W"], stride: int) -> Counts:
    """The cells that these images add to the step's means, for masks of that stride; no network is run."""
    outlier, inlier = split(labels, (-(-labels.shape[1] // stride), -(-labels.shape[2] // stride)))
    return Counts(float(inlier.sum()), float(outlier.sum()))


def targets(labels: Integer[Tensor, "b H W"], network: Network) -> Integer[Tensor, "b H W"]:
    """The labels for the set-prediction loss: a pasted object is of the outlier class where there is one."""
    if not network.outlier_class:
        return labels
    return labels.masked_fill(labels == OUTLIER, network.config.num_labels - 1)  # pyright: ignore


def check_exposure(config: TrainConfig) -> None:
    """Raises XenomaskError for an [exposure] that asks for what is not there."""
    e = config.exposure
    if e is None:
        return
    if config.augment.paste is None and not (config.data.labels and read_label_map(config.data.labels).outliers):
        raise XenomaskError(
            "[exposure] has no objects: set augment.paste, a folder of cut-outs, or data.labels, a label map with "
            '"outlier" among its values'
        )
    if e.released and e.loss in ("void", "eam"):
        raise XenomaskError(
            f'exposure.released: {e.loss} has one form here; what EAM\'s authors released is loss = "void"'
        )
    for key, given in (("margin", e.margin is not None), ("weight", e.weight != 1)):
        if given and e.loss in ("void", "uno"):
            raise XenomaskError(f"exposure.{key}: {e.loss} has no {key}; rba, mask2anomaly and eam have")


def exposed(network: Network, e: Exposure | None) -> Network:
    """The network as this stage trains it: with an outlier class where the loss is "uno" and it has none yet."""
    if e is None or e.loss != "uno" or network.outlier_class:
        return network
    return with_outlier_class(network, released=e.released)


def tune_only(module: nn.Module, names: tuple[str, ...]) -> Mapping[str, int]:
    """Freezes each parameter whose name contains none of `names` (no names: none); counts those left, and all.

    Raises XenomaskError for a name that no parameter contains.
    """
    parameters = dict(module.named_parameters())
    for name in names:
        if not any(name in p for p in parameters):
            parts = {c for p in parameters for c in p.split(".")[:4] if not c.isdigit()}
            raise unknown("part of the network in exposure.tune", name, parts)
    for name, parameter in parameters.items():
        if names and not any(n in name for n in names):
            parameter.requires_grad_(False)
    return {
        "tuned": sum(p.numel() for p in parameters.values() if p.requires_grad),
        "all": sum(p.numel() for p in parameters.values()),
    }
