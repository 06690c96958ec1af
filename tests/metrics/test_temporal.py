"""Numbers over time against walks over pixels that share nothing with them, and counts by hand."""

import math

import numpy as np
import pytest

from xenomask.errors import XenomaskError
from xenomask.metrics.components import Sizes
from xenomask.metrics.temporal import ClipObjects, clip_objects, flicker_numbers, half_mask, video_consistency


def slow_vc(masks, labels, window):
    """Frame by frame and pixel by pixel."""
    firsts, seconds = [], []
    for i in range(len(masks) - window):
        stay, both_stay, move, both_move = 0, 0, 0, 0
        for y, x in np.ndindex(masks[0].shape):
            agree = [[int(c[i][y, x]) == int(c[j][y, x]) for j in range(i + 1, i + window)] for c in (masks, labels)]
            stay += all(agree[1])
            both_stay += all(agree[0]) and all(agree[1])
            move += not any(agree[1])
            both_move += not any(agree[0]) and not any(agree[1])
        firsts.append(both_stay / stay if stay else 1e-6)
        seconds.append(both_move / move if move else 1e-6)
    if not firsts:
        return math.nan
    a, b = sum(firsts) / len(firsts), sum(seconds) / len(seconds)
    return 2 * a * b / (a + b) if a + b else 0


@pytest.mark.parametrize("seed", range(60))
def test_video_consistency__as_the_slow_walk(seed):
    rng = np.random.default_rng(seed)
    n, window = int(rng.integers(2, 9)), int(rng.integers(2, 5))
    labels = [rng.choice([0, 1, 255], (3, 4)).astype(np.uint8) for _ in range(n)]
    masks = [rng.random((3, 4)) < 0.5 for _ in range(n)]
    expected = slow_vc(masks, labels, window)
    assert video_consistency(masks, labels, window) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    # what the page warns of: an inverted map scores the same
    inverted = video_consistency([~m for m in masks], labels, window)
    assert inverted == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_half_mask__is_scaled_in_its_own_frame():
    assert half_mask([[-4.0, 0.0, 4.0, 0.5]]).tolist() == [[False, False, True, True]]
    assert not half_mask([[3.0, 3.0]]).any()


def moving(at, size=3, shape=(12, 40)):
    """A square at column `at` of one row; None: nothing."""
    m = np.zeros(shape, np.uint8)
    if at is not None:
        m[2 : 2 + size, at : at + size] = 1
    return m


def test_clip_objects__by_hand():
    labels = [moving(4 + i) for i in range(5)]
    masks = [moving(4 + i if i not in (2,) else None).astype(bool) for i in range(5)]
    for i in (0, 1, 3):  # false: there for two frames, gone, there for one
        masks[i][8:11, 20 + i : 23 + i] = True
    found = clip_objects(masks, labels, Sizes(4, 4))
    assert found == ClipObjects(((True, True, False, True, True),), (2, 1), 5)
    numbers = flicker_numbers([found])
    assert numbers == {"found": 1, "lost_again": 1, "false_lifetime": 1.5, "false_per_frame": 3 / 5}
    # never lost once found, and never found: no flicker
    late = clip_objects([m & (i > 2) for i, m in enumerate(masks)], labels, Sizes(4, 4))
    assert late.seen == ((False, False, False, True, True),) and flicker_numbers([late])["lost_again"] == 0
    assert clip_objects(masks, labels, Sizes(10, 10)).seen == () == clip_objects(masks, labels, Sizes(10, 10)).lifetimes
    # a jump that overlaps nothing is another object
    assert len(clip_objects(masks[:2], [moving(4), moving(20)], Sizes(1, 1)).seen) == 2
    # void: neither true nor false
    void = [np.where(m, 255, 0).astype(np.uint8) for m in masks]
    assert clip_objects(masks, void, Sizes(1, 1)) == ClipObjects((), (), 5)


def test_clip_objects__the_larger_overlap_goes_on():
    first, second = np.zeros((2, 3, 12), np.uint8)
    first[:, 0:3], first[:, 4:9] = 1, 1  # two objects merge: the larger one goes on, the smaller has ended
    second[:, 0:9] = 1
    found = clip_objects([np.zeros((3, 12), bool), second.astype(bool)], [first, second], Sizes(1, 1))
    assert sorted(found.seen) == [(False,), (False, True)]


def test_refusals():
    still = [np.zeros((2, 2), bool)] * 3
    with pytest.raises(XenomaskError, match="3 masks and 2 labels"):
        clip_objects(still, [m.astype(int) for m in still[:2]], Sizes(1, 1))
    with pytest.raises(XenomaskError, match="3 masks and 2 labels"):
        video_consistency(still, [m.astype(int) for m in still[:2]])
    with pytest.raises(XenomaskError, match="the same pixels"):
        video_consistency(still, [np.zeros((2, 2), int)] * 2 + [np.zeros((2, 3), int)])
    with pytest.raises(XenomaskError, match="a clip has one size"):
        clip_objects(
            [*still, np.zeros((2, 3), bool)], [np.zeros((2, 2), int)] * 3 + [np.zeros((2, 3), int)], Sizes(1, 1)
        )
    assert math.isnan(video_consistency([], []))
    assert all(math.isnan(v) for v in flicker_numbers([]).values())
