"""Masks of a video clip over time: how far they stay, and, against labels, which objects flicker.

VC* is written from a description of shyam671/Road-Obstacle-Video-Segmentation (arXiv 2509.13181). NOTE: it compares how
predictions change with how labels change, and never the two with each other: an inverted map scores the same.
`clip_objects` does compare them.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from xenomask.arrays import LabelLike, MapLike, MaskLike, as_half, as_label, as_mask, as_truth, check_same_size
from xenomask.errors import XenomaskError
from xenomask.metrics.components import Sizes, label_components
from xenomask.types import VOID

WINDOW = 7  # frames
FOUND = 0.5  # share of an object's pixels
NOTHING = 1e-6  # what the released code takes for a share of no pixels


def half_mask(value: MapLike) -> np.ndarray:
    """The mask (H, W) that VC* reads: of the map (H, W), scaled to 0..1 in its own frame, what exceeds .5."""
    value = as_half(value).astype(np.float32)
    low, high = value.min(), value.max()
    return (value - low) / ((high - low) or 1) > 0.5


def video_consistency(masks: Sequence[MaskLike], labels: Sequence[LabelLike], window: int = WINDOW) -> float:
    """VC* of a clip's predicted masks and labels (H, W), in [0, 1]; nan for clips of `window` frames or fewer.

    With G_i the pixels of frame i whose label is that of each of the next window - 1 frames, and P_i the same of the
    predictions: a is the mean over frames of |P and G| / |G|, b the same of the pixels that agree with none of them;
    2ab / (a + b). Raises XenomaskError for other numbers of masks and labels, and for sizes that differ.

    >>> still = [np.zeros((2, 2), bool)] * 9
    >>> round(video_consistency(still, [m.astype(int) for m in still]), 6)  # nothing moves: b is 1e-6
    2e-06
    """
    if len(masks) != len(labels):
        raise XenomaskError(f"{len(masks)} masks and {len(labels)} labels of a clip")
    pairs = [(as_mask(m), as_label(y)) for m, y in zip(masks, labels, strict=True)]
    for pair in pairs:
        for own in pair:
            check_same_size("a mask or label of the clip", own, "its first", pairs[0][0])
    clips = [np.stack(c) for c in zip(*pairs, strict=True)] or [np.zeros(0)]
    shares = []
    for i in range(len(clips[0]) - window):
        same = [c[i] == c[i + 1 : i + window] for c in clips]
        shares.append([_share(*(s.all(0) for s in same)), _share(*(~s.any(0) for s in same))])
    if not shares:
        return float("nan")
    a, b = np.mean(shares, axis=0)
    return float(2 * a * b / (a + b)) if a + b else 0.0


def _share(predicted: np.ndarray, true: np.ndarray) -> float:
    return (predicted & true).sum() / n if (n := true.sum()) else NOTHING


@dataclass(frozen=True)
class ClipObjects:
    """Objects of a clip over time.

    `seen` has a row for each true object: in which of its frames it was found. `lifetimes`: for how many frames in a
    row each false object was there.
    """

    seen: tuple[tuple[bool, ...], ...]
    lifetimes: tuple[int, ...]
    frames: int


def clip_objects(masks: Sequence[MaskLike], labels: Sequence[LabelLike], sizes: Sizes) -> ClipObjects:
    """Follows true and false objects through a clip's masks and labels (H, W; 0, 1 anomaly, 255 void), in order.

    A component goes on in the next frame as the one that it overlaps most, where that is not taken by one that overlaps
    it more. A true one is found where half of its pixels are predicted; a false one touches no anomaly. Components
    below `sizes` do not count. Raises XenomaskError as `video_consistency` does.
    """
    if len(masks) != len(labels):
        raise XenomaskError(f"{len(masks)} masks and {len(labels)} labels of a clip")
    masks = [as_mask(m) for m in masks]
    for mask in masks:
        check_same_size("clip's first frame", masks[0], "later one", mask, "a clip has one size")
    seen = _tracks(_parts(m, y, sizes, false=False) for m, y in zip(masks, labels, strict=True))
    false = _tracks(_parts(m, y, sizes, false=True) for m, y in zip(masks, labels, strict=True))
    return ClipObjects(seen, tuple(map(len, false)), len(masks))


def _parts(mask: MaskLike, label: LabelLike, sizes: Sizes, *, false: bool) -> tuple[np.ndarray, dict[int, bool]]:
    """A frame's true or false components: their numbers (H, W), and which count, with whether they are found."""
    mask, label = as_mask(mask), as_truth(label)
    check_same_size("mask", mask, "label", label)
    mask = mask & (label != VOID)
    numbers, size = label_components(mask if false else label == 1)
    on = np.bincount(numbers[(label == 1) if false else mask], minlength=len(size))
    if false:
        return numbers, {k: True for k in range(1, len(size)) if size[k] >= sizes.predicted and not on[k]}
    return numbers, {k: bool(on[k] >= FOUND * size[k]) for k in range(1, len(size)) if size[k] >= sizes.true}


def _tracks(frames: Iterable[tuple[np.ndarray, dict[int, bool]]]) -> tuple[tuple[bool, ...], ...]:
    """Each component through the frames, as whether it is found in each of its own."""
    tracks: list[list[bool]] = []
    before, own = None, {}
    for numbers, kept in frames:
        follows = {} if before is None else _follow(before, numbers, kept, own)
        now = {k: own[follows[k]] if k in follows else [] for k in kept}
        tracks += [now[k] for k in kept if k not in follows]
        for k, is_found in kept.items():
            now[k].append(is_found)
        before, own = numbers, now
    return tuple(map(tuple, tracks))


def _follow(before: np.ndarray, numbers: np.ndarray, kept: Collection[int], own: Collection[int]) -> dict[int, int]:
    """{component now: the one of the frame before that it continues}; the largest overlaps first."""
    both = (before > 0) & (numbers > 0)
    pairs, pixels = np.unique(np.stack([before[both], numbers[both]]), axis=1, return_counts=True)
    found: dict[int, int] = {}
    for at in np.argsort(-pixels, kind="stable"):
        old, new = (int(n) for n in pairs[:, at])
        if old in own and new in kept and new not in found and old not in found.values():
            found[new] = old
    return found


def flicker_numbers(clips: Sequence[ClipObjects]) -> dict[str, float]:
    """The numbers over clips; nan where there is no such object.

    `lost_again`: of the true objects that were found at some time, the share that was then lost and found again.
    `found`: the share of true objects found at some time. `false_lifetime`: the mean number of frames that a false
    object lasts. `false_per_frame`: false objects in a frame.

    >>> flicker_numbers([ClipObjects(((True, False, True), (False, True)), (1, 3), 3)])["lost_again"]
    0.5
    """
    seen = [s for c in clips for s in c.seen]
    found = [s for s in seen if any(s)]
    again = [s for s in found if False in s[s.index(True) : len(s) - s[::-1].index(True)]]
    lives = [n for c in clips for n in c.lifetimes]

    def share(part: float, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "found": share(len(found), len(seen)), "lost_again": share(len(again), len(found)),
        "false_lifetime": share(sum(lives), len(lives)),
        "false_per_frame": share(sum(lives), sum(c.frames for c in clips)),
    }  # fmt: skip
