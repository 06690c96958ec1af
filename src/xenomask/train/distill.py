"""Distillation: the network learns, beside its labels, the map of a teacher, and keeps the classes that it had.

With L_k = sum_q P_q(k) m_q, k < K, of the last decoder output, its own map is u = 1 - max_k L_k. Of the teacher's map
t, stored before the training, y = (t - low) / (high - low), cut to 0..1, is the target. All at the masks' stride.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from xenomask.datasets import Dataset, Frame
from xenomask.errors import XenomaskError
from xenomask.models import Network, load
from xenomask.shapes import Float, Float32, Integer, UInt8
from xenomask.store.folder import MapFolder, check_complete
from xenomask.train.config import Distill, TrainConfig
from xenomask.train.exposure import at_cells, class_shares
from xenomask.train.init import class_names
from xenomask.types import OUTLIER

NARROW = 0.01  # u is kept so far from 0 and 1, where its cross-entropy has no end


def soft_target(d: Distill, frame: Frame, label: UInt8[np.ndarray, "H W"]) -> Float32[np.ndarray, "H W"]:
    """y of that frame; raises XenomaskError for a map of another photo or size, and as reading one does."""
    maps = MapFolder(d.maps)
    maps.check_photo(frame.id, frame.image)
    t = maps.read_stored(frame.id)
    if t.shape != label.shape:
        raise XenomaskError(f"distill.maps: the map of {frame.id} is {t.shape}, its label {label.shape}: the teacher "
                            "has to see the photos as they are trained on")  # fmt: skip
    return np.clip((t.astype(np.float32) - d.low) / (d.high - d.low), 0, 1)


def distill_loss(
    d: Distill, class_logits: Float[Tensor, "b q n"], mask_logits: Float[Tensor, "b q h w"],
    target: Float[Tensor, "b H W"], labels: Integer[Tensor, "b H W"], images: int,
    before: Float[Tensor, "b k h w"] | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """These images' share of weight (BCE(u, y) + dice(u, y)) + keep KL(before || L), of a step of so many `images`.

    The mean is over an image's cells that are no padding (NaN in `target`), dice is 1 - (2 sum u y + 1) / (sum u^2 +
    sum y^2 + 1). The KL divergence is between L_k / sum_k L_k of the network that the training began with and of this
    one, over the cells that show no outlier. Hinton et al. 2015 with the map as the soft target.
    """
    shares = class_shares(class_logits, mask_logits)
    size = (shares.shape[2], shares.shape[3])
    y = at_cells(target, size)
    inside = ~y.isnan()
    y = y.nan_to_num(0.0)
    u = 1 - shares.amax(1)
    u = u + (u.clamp(NARROW, 1 - NARROW) - u).detach()  # the value is cut, the gradient is not: L may exceed 1
    ce = _means(-(y * u.log() + (1 - y) * (1 - u).log()), inside)
    a, b = u * inside, y * inside
    dice = 1 - (2 * (a * b).sum((1, 2)) + 1) / ((a**2).sum((1, 2)) + (b**2).sum((1, 2)) + 1)
    loss = d.weight * (ce + dice).sum()
    if before is not None:
        old, new = (x.clamp_min(NARROW) / x.clamp_min(NARROW).sum(1, keepdim=True) for x in (before, shares))
        ordinary = inside & (at_cells(labels, size) != OUTLIER)
        loss = loss + d.keep * _means((old * (old / new).log()).sum(1), ordinary).sum()
    return loss / images


def _means(x: Float[Tensor, "b h w"], where: Tensor) -> Float[Tensor, " b"]:
    """Each image's mean over those cells, 0 over none."""
    return (x * where).sum((1, 2)) / where.sum((1, 2)).clamp_min(1)


def began_with(config: TrainConfig, classes: tuple[str, ...], device: Any) -> Network | None:
    """The network that the training began with, frozen, where [distill] asks to keep its classes.

    Raises XenomaskError where `init` is no checkpoint folder, or of other classes.
    """
    if config.distill is None or not config.distill.keep or config.init is None:
        return None
    old = load(config.init)
    if class_names(old.config) != classes:
        raise XenomaskError("distill.keep holds the classes of `init`, and this run has others: set keep = 0")
    return replace(old, module=old.module.to(device).eval().requires_grad_(False))


def check_distill(config: TrainConfig, training: Dataset) -> None:
    """Raises XenomaskError for a [distill] with other maps than one of each frame, and one that cannot take effect."""
    d = config.distill
    if d is None:
        return
    if d.high <= d.low:
        raise XenomaskError(f"distill.high, {d.high}, must be above distill.low, {d.low}")
    if d.keep and config.init is None:
        raise XenomaskError("distill.keep holds the classes of `init`, and the recipe has none")
    if config.exposure and config.exposure.loss == "uno":
        raise XenomaskError('[distill] goes with every exposure.loss but "uno", which has a class of its own')
    check_complete(MapFolder(d.maps), training)
