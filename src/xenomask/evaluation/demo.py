"""The whole pipeline on synthetic scenes."""

import shutil
from pathlib import Path

from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.detector.predictor import Predictor
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.evaluation.heatmaps import draw_heatmaps
from xenomask.metrics import EvalResult
from xenomask.predict.photos import score_dataset
from xenomask.types import Tick, nothing


def demo(detector: Predictor, out: Path, *, frames: int = 6, seed: int = 7, tick: Tick = nothing) -> EvalResult:
    """Generate synthetic street scenes with anomalous objects, score, evaluate and draw them.

    Only the synthetic road with what lies on it is counted, as in the obstacle track: to a network trained on photos
    a synthetic road looks like a road, but a synthetic car, tree or person is rightly anomalous.
    """
    for old in ("scenes", "maps", "heatmaps"):  # of an earlier run, perhaps with other frames
        shutil.rmtree(out / old, ignore_errors=True)
    data = write_scenes(out / "scenes", "obstacle-track", frames, seed=seed, tick=tick)
    drawn = open_dataset("obstacle-track", data)
    score_dataset(detector, drawn, out / "maps", tick=tick)
    result = evaluate_maps(out / "maps", drawn)
    draw_heatmaps(out / "maps", drawn, out / "heatmaps", tick=tick)
    return result
