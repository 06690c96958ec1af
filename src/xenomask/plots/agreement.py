"""Masks of several detectors (or an ensemble's members) -> where they agree and where they do not."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from xenomask.errors import printable
from xenomask.plots.heatmap import draw_label, drawable, figure_size

# nobody and everybody in grey, those between from blue to orange (Okabe & Ito 2008)
NONE, ALL, FEW, MANY = (30, 30, 34), (240, 240, 240), (86, 180, 233), (230, 159, 0)


def shades(members: int) -> UInt8[np.ndarray, "n 3"]:
    """The colour of 0 .. `members` members that call a pixel strange.

    >>> shades(2).tolist()
    [[30, 30, 34], [230, 159, 0], [240, 240, 240]]
    """
    at = np.linspace(0, 1, members - 1)[:, None] if members > 2 else np.ones((members - 1, 1))
    between = np.array(FEW) + at * (np.array(MANY) - np.array(FEW))
    return np.asarray(np.concatenate([[NONE], between, [ALL]]).round(), np.uint8)


def votes(masks: Sequence[Bool[np.ndarray, "H W"]]) -> Integer[np.ndarray, "H W"]:
    """How many of the masks hold each pixel."""
    return np.stack(masks).sum(axis=0, dtype=np.uint8)


def agreement_figure(
    image: UInt8[np.ndarray, "H W 3"] | None,
    count: Integer[np.ndarray, "H W"],
    names: Sequence[str],
    *,
    title: str,
    label: UInt8[np.ndarray, "H W"] | None = None,
) -> Figure:
    """Photo beside the votes; true anomalies outlined, void hatched."""
    image = None if image is None else drawable(image)
    count, label = drawable(count, exact=True), None if label is None else drawable(label, exact=True)
    h, w = count.shape
    members = len(names)
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
