"""Make the figures of the scores' pages: the map of one synthetic scene by each score.

    python docs/scripts/figures.py            # writes docs/scores/images

The maps are those of the shipped detector. It has no outlier class, which `uno` needs; for `uno` an artificial network
output is made from the scene: a crisp mask for each class, and one for the anomalous objects.
"""

from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import torch

from xenomask.datasets.synthetic import Scene, draw_scene
from xenomask.detector import Detector
from xenomask.masks import MaskOutput
from xenomask.plots.heatmap import coloured
from xenomask.scores import SCORES, score_of
from xenomask.types import CITYSCAPES_CLASSES

OUT = Path(__file__).parents[1] / "scores" / "images"
SIZE = (360, 640)
SEED, ANOMALIES = 70001, 2
GREEN = (25, 211, 162)


def scene() -> Scene:
    """Return the scene that all pages show."""
    return draw_scene(SEED, SIZE, anomalies=ANOMALIES)


def made_output(drawn: Scene) -> MaskOutput:
    """Return a network output with crisp masks: one query per class, and an outlier query for the anomalies."""
    k = len(CITYSCAPES_CLASSES)
    areas = [drawn.semantic == c for c in range(k)] + [drawn.anomaly == 1]
    masks = [cv2.GaussianBlur(a.astype(np.float32), (0, 0), 2) for a in areas]
    classes = torch.full((k + 1, k + 2), -2.0)  # 19 classes, "outlier", "no object"
    classes[range(k + 1), range(k + 1)] = 5.0
    classes[k, k] = 3.0
    logits = torch.logit(torch.from_numpy(np.stack(masks)), eps=1e-3)
    return MaskOutput(classes, logits, SIZE, SIZE, SIZE, outlier_class=True)


def maps(names: Collection[str]) -> dict[str, np.ndarray]:
    """Return the scene's maps by these scores, float32 (H, W)."""
    drawn, detector = scene(), Detector.from_folder("nano")
    found = {n: detector.with_score(n).detect(drawn.image).value for n in names if n != "uno"}
    return found | {n: score_of(made_output(drawn), None, n).value for n in names if n == "uno"}


def outlined(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the picture with the outlines of the ground-truth anomalies."""
    contours, _ = cv2.findContours((truth == 1).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(np.ascontiguousarray(picture), contours, -1, GREEN, 1)


def pictures(names: Collection[str]) -> dict[str, np.ndarray]:
    """Return the scene and its maps by these scores as RGB pictures, each map in its score's colour range."""
    drawn = scene()
    found = {"scene": drawn.image} | {n: coloured(v, SCORES[n].scale) for n, v in maps(names).items()}
    return {n: outlined(p, drawn.anomaly) for n, p in found.items()}


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for name, picture in pictures(SCORES).items():
        cv2.imwrite(str(OUT / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
