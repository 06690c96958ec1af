"""Photo and map side by side, as `detect` writes them: `heatmap.figure` without labels, and without matplotlib."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xenomask.arrays import ImageLike, MapLike, as_image, as_single, as_threshold, check_same_size
from xenomask.errors import printable
from xenomask.plots.colours import TABLE
from xenomask.plots.heatmap import LONG, check_scale, coloured, fitted
from xenomask.shapes import UInt8

WIDTH, PANEL, GAP, BAR = 1400, 630, 10, 18  # pixels of the picture, of a panel, between them, of the colour bar
TITLE, LEGEND = 36, 30  # pixels above the panels and below
TICKS = 6


def panels(
    image: ImageLike, value: MapLike, scale: tuple[float, float], *, title: str, threshold: float | None = None
) -> UInt8[np.ndarray, "h 1400 3"]:
    """The photo (H, W, 3) beside its map (H, W) with the threshold's contour and a colour bar, 1400 pixels wide.

    Raises XenomaskError for what is no photo or no finite map, for sizes that differ, and a scale that does not rise.
    """
    image, value, scale = as_image(image), as_single(value), check_scale(scale)
    check_same_size("map", value, "photo", image)
    h, w = fitted((value.shape[0], value.shape[1]), (LONG * PANEL, PANEL))
    left, small = (cv2.resize(x, (w, h), interpolation=cv2.INTER_AREA) for x in (image, value))
    right = coloured(small, scale)
    drawn = threshold is not None and value.min() < as_threshold(threshold) <= value.max()
    if drawn:
        contours, _ = cv2.findContours((small >= threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(right, contours, -1, (255, 255, 255), 1, cv2.LINE_AA)
    tall = max(h, 120)  # of very flat photos the colour bar is higher
    page = np.full((TITLE + tall + LEGEND, WIDTH, 3), 255, np.uint8)
    second, bar = GAP + PANEL + GAP, 3 * GAP + 2 * PANEL
    page[TITLE : TITLE + h, GAP : GAP + w] = left
    page[TITLE : TITLE + h, second : second + w] = right
    page[TITLE : TITLE + tall, bar : bar + BAR] = TABLE[np.linspace(255, 0, tall).astype(np.intp)][:, None]
    return _lettered(page, scale, title, threshold if drawn else None)


def _lettered(
    page: UInt8[np.ndarray, "h w 3"], scale: tuple[float, float], title: str, threshold: float | None
) -> UInt8[np.ndarray, "h w 3"]:
    """The page with its title, the colour bar's numbers, and what the contour means."""
    picture = Image.fromarray(page)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    below, bar = len(page) - LEGEND, 3 * GAP + 2 * PANEL + BAR
    draw.text((WIDTH // 2, TITLE // 2), printable(title), "black", ImageFont.load_default(19), "mm")
    for share in np.linspace(0, 1, TICKS):
        number = scale[0] + share * (scale[1] - scale[0])
        y = below - 8 - share * (below - TITLE - 16)
        draw.text((bar + 6, y), f"{number:.3g}", "black", font, "lm")
    draw.text((WIDTH - GAP, below + LEGEND // 2), "anomaly score", "black", font, "rm")
    if threshold is not None:
        y = below + LEGEND // 2
        for width, colour in ((5, "black"), (2, "white")):  # white on the white page would not be seen
            draw.line((WIDTH // 2 - 90, y, WIDTH // 2 - 60, y), colour, width)
        draw.text((WIDTH // 2 - 50, y), f"score = {threshold:.3g}", "black", font, "lm")
    return np.asarray(picture)
