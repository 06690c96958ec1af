"""Photo + map (+ label) -> picture, in one colour range for all images."""

import warnings
from collections.abc import Mapping, Sequence
from io import StringIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xenomask.arrays import (
    ImageLike,
    LabelLike,
    MapLike,
    MaskLike,
    NumbersLike,
    as_image,
    as_mask,
    as_numbers,
    as_single,
    as_threshold,
    as_truth,
    check_same_size,
)
from xenomask.errors import XenomaskError, printable
from xenomask.plots.colours import TABLE
from xenomask.shapes import Float, UInt8
from xenomask.types import VOID, Size

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

COLOURS = "inferno"  # matplotlib's name of plots.colours; white marks the decision, green the truth
THRESHOLD, TRUTH = "white", "#19d3a2"
BOX = (25, 211, 162)  # the same green
OPAQUE = 0.8  # at the scale's upper end, so that the photo never disappears


LONGEST = 1400  # pixels of a side that are drawn in a figure, whose panels are 700 wide
LONG = 2  # a figure's panel and a small picture are at most so many times as high as they are wide
MOST_ROWS = 60_000  # pixels of a contact sheet: a JPEG ends at 65,535


def fitted(size: Size, box: Size) -> Size:
    """The largest (height, width) of a picture's shape inside of a box's, each at least 1.

    >>> fitted((720, 1280), (480, 480)), fitted((4000, 10), (480, 240))
    ((270, 480), (480, 1))
    """
    factor = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def figure_size(h: int, w: int) -> tuple[float, float]:
    """Width and height, in inches, of two panels of that shape side by side; very long and very flat ones are cut."""
    return 14, 7 * min(max(h / w, 0.1), LONG) + 1.1


def drawable(array: np.ndarray, *, exact: bool = False) -> np.ndarray:
    """Pixels (H, W, ...) at a size that a figure can show, by their means or, `exact`, by picking some."""
    if max(array.shape[:2]) <= LONGEST:
        return array
    h, w = fitted((array.shape[0], array.shape[1]), (LONGEST, LONGEST))
    return cv2.resize(array, (w, h), interpolation=cv2.INTER_NEAREST if exact else cv2.INTER_AREA)


def check_scale(scale: tuple[float, float]) -> tuple[float, float]:
    """The (low, high) of colours as floats; raises XenomaskError unless they are float32's, and rise."""
    low, high = map(float, scale)
    if not (low < high and max(-low, high, high - low) <= float(np.finfo(np.float32).max)):
        raise XenomaskError(f"scale {low:g} .. {high:g}: the range of colours must rise, from one number to another")
    return low, high


def coloured(value: MapLike, scale: tuple[float, float]) -> UInt8[np.ndarray, "H W 3"]:
    """The map (H, W) in colours on the given range; values outside take the colour of its end.

    Raises XenomaskError for what is no finite map, and for a scale that does not rise.
    """
    return _in_colours(_share(as_single(value), scale))


def _in_colours(share: np.ndarray) -> np.ndarray:
    """Shares in [0, 1] as rows of the table of 256 colours."""
    return cv2.applyColorMap((share * len(TABLE)).clip(max=len(TABLE) - 1).astype(np.uint8), TABLE[:, None])


def _share(value: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Where values lie between the ends of a scale, in [0, 1]."""
    low, high = check_scale(scale)
    return (value.clip(low, high) - np.float32(low)) / np.float32(high - low)


def opacity(value: NumbersLike, scale: tuple[float, float]) -> Float[np.ndarray, "*s"]:
    """How much an overlay's map hides of the photo, in [0, .8]: the more anomalous, the more; of values of any shape.

    Raises XenomaskError for NaN, and for a scale that does not rise.
    """
    value = as_numbers(value, "map").astype(np.float32)
    return _share(value, scale) * OPAQUE


def overlay(
    image: ImageLike,
    value: MapLike,
    scale: tuple[float, float],
    threshold: float | None = None,
    ignored: MaskLike | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The map (H, W) laid over the photo (H, W, 3), more opaque where more anomalous; the threshold's contour in white.

    What is `ignored` (H, W) has neither, and is drawn darker. Raises XenomaskError for what is no photo or no finite
    map, for sizes that differ, and a scale that does not rise.
    """
    image, value = as_image(image), as_single(value)
    check_same_size("map", value, "photo", image)
    share = _share(value, scale)
    colours = _in_colours(share)
    share *= np.float32(1000 * OPAQUE)  # beside 1000, the 1e-5 that OpenCV adds to a sum of weights is nothing
    out = cv2.blendLinear(image, colours, 1000 - share, share)
    if ignored is not None:
        ignored = as_mask(ignored, "ignored region")
        check_same_size("map", value, "ignored region", ignored)
        out[ignored] = image[ignored] // 2
    if threshold is not None:
        mask = value >= as_threshold(threshold)
        if ignored is not None:
            mask &= ~ignored
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(out, contours, -1, (255, 255, 255), max(1, image.shape[1] // 500))
    return out


def draw_boxes(picture: ImageLike, boxes: Sequence[tuple[int, int, int, int]]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a copy of an RGB picture with numbered boxes (x, y, width, height in pixels), from 1 on.

    Raises XenomaskError for what is no picture.
    """
    out = np.array(as_image(picture, "picture"))
    line = max(1, out.shape[1] // 500)
    # NOTE: not cv2.putText, whose first call (OpenCV 5) takes 40 ms to unpack a font
    font = ImageFont.load_default(15 * line)
    for number, (x, y, w, h) in enumerate(boxes, 1):
        cv2.rectangle(out, (x, y), (x + w - 1, y + h - 1), BOX, line)
        y = max(y - 3 * line, 12 * line)
        left, top, right, bottom = font.getbbox(str(number), anchor="ls", stroke_width=line)
        x0, y0 = max(0, x + int(left)), max(0, y + int(top))
        label = np.s_[y0 : y + ceil(bottom), x0 : x + ceil(right)]
        patch = Image.fromarray(out[label])
        # legible on sky and on road
        ImageDraw.Draw(patch).text(
            (x - x0, y - y0), str(number), "white", font, "ls", stroke_width=line, stroke_fill="black"
        )
        out[label] = patch
    return out


def figure(
    image: ImageLike,
    value: MapLike,
    scale: tuple[float, float],
    *,
    title: str,
    label: LabelLike | None = None,
    threshold: float | None = None,
) -> "Figure":
    """Photo with the true anomaly's contour beside the map with colour bar, threshold contour and void hatched.

    Raises XenomaskError as `overlay` does, and for what is no label of 0, 1, 255 in the map's size.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import Normal, Stroke

    image, value = as_image(image), as_single(value)
    check_same_size("map", value, "photo", image)
    if label is not None:
        label = as_truth(label)
        check_same_size("map", value, "label", label)
        label = drawable(label, exact=True)
    scale = check_scale(scale)
    image, value = drawable(image), drawable(value)
    h, w = value.shape
    fig = Figure(figsize=figure_size(h, w), dpi=100, layout="constrained")
    left, right = fig.subplots(1, 2)
    left.imshow(image)
    shown = right.imshow(value, cmap=COLOURS, vmin=scale[0], vmax=scale[1])
    fig.colorbar(shown, ax=right, fraction=0.03, pad=0.01, label="anomaly score")
    keys = []
    if threshold is not None and value.min() < threshold <= value.max() and min(value.shape) > 1:
        right.contour(value, [threshold], colors=THRESHOLD, linewidths=0.9, linestyles="solid")
        edge = [Stroke(linewidth=5, foreground="black"), Normal()]  # white on the white page would not be seen
        keys.append(Line2D([], [], color=THRESHOLD, lw=2, path_effects=edge, label=f"score = {threshold:.3g}"))
    if label is not None:
        keys += draw_label(left, right, label)
    for ax in (left, right):
        ax.set_xlim(0, max(1, w - 1))
        ax.set_ylim(max(1, h - 1), 0)
        ax.set_axis_off()
    if keys:
        fig.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    fig.suptitle(printable(title), parse_math=False)  # a file's name is no formula
    return fig


def draw_label(left, right, label: LabelLike) -> "list[Patch]":
    """True anomalies outlined in both axes, void hatched in the right one; the legend's keys of what was drawn.

    Raises XenomaskError for what is no label of 0, 1, 255.
    """
    from matplotlib.patches import Patch

    label, keys = as_truth(label), []
    if min(label.shape) < 2:  # no contour has an area to go around
        return keys
    if (label == 1).any():
        for ax in (left, right):
            ax.contour(label == 1, [0.5], colors=TRUTH, linewidths=1.1)
        keys.append(Patch(edgecolor=TRUTH, facecolor="none", label="true anomaly"))
    void = label == VOID
    if void.any():
        # level 0.5 of an all-void label has no contour line, but its area is still filled
        hatched = right.contourf(void, [0.5, 1.5], hatches=["////"], colors="none")
        hatched.set_edgecolor("#8a8a8a")
        hatched.set_linewidth(0)
        keys.append(Patch(edgecolor="#8a8a8a", facecolor="none", hatch="////", label="void (not counted)"))
    return keys


def save_figure(picture: "Figure", out: Path | StringIO, **options: Any) -> None:
    """Writes a figure; letters of a name that its font has not are boxes, of which nobody needs to be told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        picture.savefig(out, **options)


def frame_title(name: str, numbers: Mapping[str, float] | None) -> str:
    """The frame's name with its own numbers, or why it has none."""
    if numbers is None:
        return f"{name}: no pixel numbers (no label, or only one of anomaly and inlier)"
    return (
        f"{name}   AUPR {numbers['aupr_sum']:.3f}   FPR95 {numbers['fpr95']:.3f}   best F1 {numbers['best_f1']:.3f}"
        f"   anomaly {100 * numbers['prevalence']:.1f} %"
    )


def tile(picture: ImageLike, width: int = 480) -> UInt8[np.ndarray, "_ _ 3"]:
    """A picture (H, W, 3) of any size, `width` wide; a very long one is narrower, on white.

    Raises XenomaskError for what is no picture.
    """
    picture = as_image(picture)
    h, w = fitted((picture.shape[0], picture.shape[1]), (LONG * width, width))
    small = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
    return np.pad(small, ((0, 0), (0, width - w), (0, 0)), constant_values=255)


def contact_sheet(pictures: Sequence[ImageLike], columns: int = 3, width: int = 480) -> UInt8[np.ndarray, "_ _ 3"]:
    """Pictures (H, W, 3) of any sizes side by side, each `width` wide, on white; in more columns where they are very
    many.

    Raises XenomaskError for what is no picture, and for none at all.
    """
    tiles = [tile(p, width) for p in pictures]
    if not tiles:
        raise XenomaskError("a contact sheet needs one picture at least")
    columns = max(columns, -(-sum(t.shape[0] + 6 for t in tiles) // MOST_ROWS))
    rows = []
    for i in range(0, len(tiles), columns):
        row = tiles[i : i + columns]
        tall = max(t.shape[0] for t in row)
        row = [np.pad(t, ((0, tall - t.shape[0] + 6), (0, 6), (0, 0)), constant_values=255) for t in row]
        row += [np.full_like(row[0], 255)] * (columns - len(row))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)
