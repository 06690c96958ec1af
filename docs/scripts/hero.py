"""Draw the picture of the README's first screen: a synthetic scene and what the default detector finds in it.

python docs/scripts/hero.py               # writes docs/images/detection.png
"""

from pathlib import Path

import cv2
import numpy as np

from xenomask.cli.common import DEFAULT_DETECTOR
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.pictures import save_picture
from xenomask.plots import coloured

OUT = Path(__file__).parents[1] / "images" / "detection.png"
SEED, SIZE, ANOMALIES = 7, (360, 640), 2
GREEN = (25, 211, 162)


def hero(seed: int = SEED) -> np.ndarray:
    """Return the photo with the ground truth's outline, the map, and the overlay, side by side (H, 3 W, 3) RGB."""
    scene = draw_scene(seed, SIZE, anomalies=ANOMALIES)
    found = Detector.load(DEFAULT_DETECTOR)(scene.image)
    contours, _ = cv2.findContours((scene.anomaly == 1).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    photo = cv2.drawContours(scene.image.copy(), contours, -1, GREEN, 2)
    return np.hstack([photo, coloured(found.score_map.value, found.scale), found.overlay()])


if __name__ == "__main__":
    save_picture(OUT, hero())
