"""A network of one query, whose mask is what looks ordinary: near to the features of ordinary photos.

The features are a classifier's, frozen, so that it knows things that no road scene taught; the distance is
Mahalanobis' (Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples", eq. 2, with one
class). No gradient is needed: mean and covariance are one pass over ordinary photos (xenomask.train.mahalanobis).
"""

from typing import Any, NamedTuple

import timm
import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from transformers import PreTrainedConfig

from xenomask.models.config import MAHALANOBIS
from xenomask.shapes import Float

KIND = MAHALANOBIS
ORDINARY = "ordinary"
MOST_ENLARGED = 4
SURE = 20.0  # the class logit, and minus that of no object: a probability of 1 - 4e-18, which is 1 in float32


class MahalanobisConfig(PreTrainedConfig):
    """`classifier` is an EfficientNet's name in timm; photos are enlarged by `enlarge` before it sees them."""

    model_type = KIND

    def __init__(
        self, classifier: str = "tf_efficientnet_lite0", features: int = 1280, enlarge: float = 1.0, **rest: Any
    ):
        self.classifier, self.features, self.enlarge, self.num_queries = classifier, features, enlarge, 1
        super().__init__(**{"id2label": {0: ORDINARY}, "label2id": {ORDINARY: 0}, **rest})


class Outputs(NamedTuple):
    """What a Mask2Former's outputs are read for, by its names."""

    class_queries_logits: Float[Tensor, "b 1 2"]
    masks_queries_logits: Float[Tensor, "b 1 h w"]


class Mahalanobis(nn.Module):
    """Features f of the classifier's last layer -> the mask logit (middle - d) / spread, d = |W (f - mean)|.

    W^T W is the inverse of the covariance of ordinary features. Raises ValueError for a classifier that is no
    EfficientNet of timm's or has another number of features, and for an `enlarge` out of 1..4.
    """

    def __init__(self, config: MahalanobisConfig):
        super().__init__()
        self.config = config
        if not 1 <= config.enlarge <= MOST_ENLARGED:
            raise ValueError(f"enlarge = {config.enlarge} is not in 1..{MOST_ENLARGED}")
        if not timm.is_model(config.classifier):
            raise ValueError(f"timm has no {config.classifier[:60]!r}")
        module = timm.create_model(config.classifier, pretrained=False, num_classes=0, global_pool="")
        if not isinstance(module, EfficientNet) or module.num_features != config.features:
            raise ValueError(f"{config.classifier[:60]} is no EfficientNet with {config.features} features")
        self.classifier: EfficientNet = module
        self.whiten = nn.Conv2d(config.features, config.features, 1)
        self.middle, self.spread = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))
        self.requires_grad_(False)

    def features(self, pixel_values: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """The classifier's last features, at its stride of 32 on the enlarged photo."""
        if self.config.enlarge != 1:
            pixel_values = nn.functional.interpolate(
                pixel_values, scale_factor=float(self.config.enlarge), mode="bilinear", align_corners=False
            )
        return self.classifier.forward_features(pixel_values)

    def distance(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """d, at least 0."""
        return self.whiten(features).square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()

    def forward(self, pixel_values: Float[Tensor, "b 3 H W"]) -> Outputs:
        """The query's class logits, which are constant, and its mask logits."""
        mask = (self.middle - self.distance(self.features(pixel_values))) / self.spread
        return Outputs(mask.new_tensor([SURE, -SURE]).expand(mask.shape[0], 1, 2), mask)
