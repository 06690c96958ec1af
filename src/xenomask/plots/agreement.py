"""Masks of several detectors (or an ensemble's members) -> where they agree and where they do not."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from xenomask.arrays import ImageLike, LabelLike, MaskLike, as_image, as_label, as_mask, check_same_size
from xenomask.errors import XenomaskError, printable
from xenomask.plots.heatmap import draw_label, drawable, figure_size
from xenomask.shapes import Integer, UInt8

# nobody and everybody in grey, those between from blue to orange (Okabe & Ito 2008)
NONE, ALL, FEW, MANY = (30, 30, 34), (240, 240, 240), (86, 180, 233), (230, 159, 0)


def shades(members: int) -> UInt8[np.ndarray, "n 3"]:
    """The colour of 0 .. `members` members that call a pixel anomalous.

    >>> shades(2).tolist()
    [[30, 30, 34], [230, 159, 0], [240, 240, 240]]
    """
    at = np.linspace(0, 1, members - 1)[:, None] if members > 2 else np.ones((members - 1, 1))
    between = np.array(FEW) + at * (np.array(MANY) - np.array(FEW))
    return np.asarray(np.concatenate([[NONE], between, [ALL]]).round(), np.uint8)


def votes(masks: Sequence[MaskLike]) -> Integer[np.ndarray, "H W"]:
    """How many of the masks (H, W) hold each pixel; XenomaskError for what is no mask, and for sizes that differ."""
    found = [as_mask(m) for m in masks]
    if not found:
        raise XenomaskError("votes need one mask at least")
    for m in found[1:]:
        check_same_size("mask", m, "neighbour", found[0])
    return np.stack(found).sum(axis=0)


def agreement_figure(
    image: ImageLike | None,
    count: LabelLike,
    names: Sequence[str],
    *,
    title: str,
    label: LabelLike | None = None,
) -> Figure:
    """Photo beside the votes (H, W); true anomalies outlined, void hatched.

    Raises XenomaskError for what is no photo, no votes of so many names or no label, and for sizes that differ.
    """
    count, members = as_label(count, "votes"), len(names)
    if count.max() > members:
        raise XenomaskError(f"{count.max()} votes of {members} members")
    if image is not None:
        image = as_image(image)
        check_same_size("votes", count, "photo", image)
        image = drawable(image)
    if label is not None:
        label = as_label(label)
        check_same_size("votes", count, "label", label)
        label = drawable(label, exact=True)
    count = drawable(count, exact=True)
    h, w = count.shape
    colours = shades(members) / 255
    fig = Figure(figsize=figure_size(h, w), dpi=100, layout="constrained")
    left, right = fig.subplots(1, 2)
    if image is not None:
        left.imshow(image)
    right.imshow(count, cmap=ListedColormap(colours), vmin=-0.5, vmax=members + 0.5, interpolation="nearest")
    texts = ["none", *(f"{n} of {members}" for n in range(1, members)), "all"]
    keys = [Patch(facecolor=c, edgecolor="#767e88", label=t) for c, t in zip(colours, texts, strict=True)]
    if label is not None:
        keys += draw_label(left, right, label)
    for ax in (left, right):
        ax.set_xlim(0, max(1, w - 1))
        ax.set_ylim(max(1, h - 1), 0)
        ax.set_axis_off()
    fig.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    fig.suptitle(printable(title), parse_math=False)
    return fig
