"""The class that the networks take each pixel for, for numbers that read classes beside maps."""

from collections.abc import Sequence

import numpy as np
import torch

from xenomask.detector.nearest import Output
from xenomask.errors import XenomaskError
from xenomask.masks import PixelOutput, class_probabilities, in_torch, resized_logits, row_blocks, semantic, soft_masks
from xenomask.shapes import UInt8
from xenomask.types import CITYSCAPES_CLASSES


@torch.inference_mode()
def predicted_classes(seen: Sequence[tuple[float, Sequence[str], Output]]) -> UInt8[np.ndarray, "H W"]:
    """The most probable class of each pixel, as Cityscapes train ids 0..18, by the members' weights.

    The arguments and class scores are those of `class_reader`, at the photo's size. Members with other classes are left
    out; raises XenomaskError where none is left.
    """
    alike = [(w, o) for w, names, o in seen if tuple(names) == CITYSCAPES_CLASSES]
    if not alike:
        raise XenomaskError(
            "predicted classes are stored as Cityscapes train ids, and no member's network has these 19 classes"
        )
    found = np.empty(alike[0][1].image_size, np.uint8)
    for rows in row_blocks(alike[0][1]):
        total = sum(w * _at_size(in_torch(o), rows) for w, o in alike)
        found[rows] = torch.as_tensor(total).argmax(0).cpu().numpy()
    return found


def _at_size(output: Output, rows: slice) -> torch.Tensor:
    if isinstance(output, PixelOutput):
        return resized_logits(output, rows).softmax(0)
    return semantic(class_probabilities(output), soft_masks(output, rows))
