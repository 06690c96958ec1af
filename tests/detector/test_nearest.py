"""What the networks take an object for: probabilities counted by hand on made outputs."""

import numpy as np
import pytest
import torch

from xenomask.detector.nearest import class_reader
from xenomask.errors import XenomaskError
from xenomask.masks import MaskOutput, PixelOutput, class_probabilities, semantic, soft_masks

NAMES = ["road", "car"]


def output(probabilities, masks, size=(4, 6), **more) -> MaskOutput:
    """Queries with these class probabilities (Q, N) and masks (Q, h, w) in 0..1."""
    masks = torch.from_numpy(np.array(masks))
    return MaskOutput(torch.tensor(probabilities).log(), masks.logit(), size, size, size, **more)


def test_reader__is_the_mean_semantic_score_over_the_mask():
    left, right = np.full((4, 6), 0.01), np.full((4, 6), 0.01)
    left[:, :3], right[:, 3:] = 0.9, 0.8
    nearest = class_reader([(1.0, NAMES, output([[0.7, 0.1, 0.2], [0.2, 0.5, 0.3]], [left, right]))])
    mask = np.zeros((4, 6), bool)
    mask[1:3, :2] = True
    assert nearest(mask) == ("road", pytest.approx(0.7 * 0.9 + 0.2 * 0.01, abs=1e-6))
    mask = np.zeros((4, 6), bool)
    mask[0, 3:] = True
    assert nearest(mask) == ("car", pytest.approx(0.5 * 0.8 + 0.1 * 0.01, abs=1e-6))


@pytest.mark.parametrize("mirrored", [False, True])
def test_reader__at_mask_resolution_agrees_with_the_image_sized_scores(mirrored):
    rng = torch.Generator().manual_seed(3)
    p, m = (3 * torch.randn(5, 3, generator=rng)).log_softmax(1), 4 * torch.randn(5, 12, 16, generator=rng)
    m = torch.nn.functional.interpolate(m[None, :, ::4, ::4], size=(12, 16), mode="bilinear")[0]  # smooth
    o = MaskOutput(p, m, (48, 64), (40, 64), (80, 128), mirrored=mirrored)
    nearest = class_reader([(1.0, NAMES, o)])
    mask = np.zeros((80, 128), bool)
    mask[20:60, 10:50] = True
    whole = semantic(class_probabilities(o), soft_masks(o)).clamp(max=1).numpy()[:, mask].mean(1)
    name, sure = nearest(mask)
    assert name == NAMES[whole.argmax()] and sure == pytest.approx(whole.max(), abs=0.02)


def test_reader__weighs_members_and_leaves_other_classes_out():
    one, two = (output([[a, b, 0.0001]], np.full((1, 4, 6), 0.9999)) for a, b in ((0.6, 0.4), (0.1, 0.9)))
    mask = np.ones((4, 6), bool)
    assert class_reader([(0.9, NAMES, one), (0.1, NAMES, two)])(mask)[0] == "road"
    assert class_reader([(0.1, NAMES, one), (0.9, NAMES, two)])(mask)[0] == "car"
    assert class_reader([(0.1, NAMES, one), (0.9, ["cow", "horse"], two)])(mask)[0] == "road"


def test_reader__of_per_pixel_networks_is_their_softmax():
    logits = torch.zeros(2, 4, 6)
    logits[1, :, 3:] = 2.0
    nearest = class_reader([(1.0, NAMES, PixelOutput(logits, (4, 6), (4, 6), (4, 6)))])
    mask = np.zeros((4, 6), bool)
    mask[:, 4:] = True
    assert nearest(mask) == ("car", pytest.approx(np.exp(2) / (1 + np.exp(2)), abs=1e-6))
    logits[0, 0, 0] = torch.inf  # elsewhere
    assert class_reader([(1.0, NAMES, PixelOutput(logits, (4, 6), (4, 6), (4, 6)))])(mask) == nearest(mask)


def test_reader__refuses_other_masks():
    nearest = class_reader([(1.0, NAMES, output([[0.6, 0.3, 0.1]], np.full((1, 4, 6), 0.5)))])
    for bad in (np.zeros((4, 6), bool), np.ones((4, 5), bool)):
        with pytest.raises(XenomaskError, match="empty"):
            nearest(bad)
