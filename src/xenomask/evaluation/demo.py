"""The whole pipeline on synthetic scenes."""

import shutil
from pathlib import Path

from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.detector.prediction import Prediction
from xenomask.detector.predictor import Predictor
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.evaluation.heatmaps import draw_heatmaps
from xenomask.metrics import EvalResult
from xenomask.predict.photos import score_dataset
from xenomask.types import Tick, nothing


def demo(
    detector: Predictor, out: Path, *, frames: int = 6, seed: int = 7, tick: Tick = nothing
) -> tuple[EvalResult, Prediction]:
    """Generate synthetic street scenes with anomalous objects, score, evaluate and draw them.

    Returns the numbers, and the prediction of the first scene, whose overlay is out/overlay.jpg.
    """
    for old in ("scenes", "maps", "heatmaps"):  # of an earlier run, perhaps with other frames
        shutil.rmtree(out / old, ignore_errors=True)
    data = write_scenes(out / "scenes", "anomaly-track", frames, seed=seed, tick=tick)
    drawn = open_dataset("anomaly-track", data)
    score_dataset(detector, drawn, out / "maps", tick=tick)
    result = evaluate_maps(out / "maps", drawn)
    draw_heatmaps(out / "maps", drawn, out / "heatmaps", tick=tick)
    first = detector(drawn.sample(drawn.frames[0]).image)
    first.save(out / "overlay.jpg")
    return result, first
