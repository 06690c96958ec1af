"""The whole pipeline on synthetic scenes."""

import shutil
from pathlib import Path

from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import check_scenes, write_scenes
from xenomask.detector.prediction import Prediction
from xenomask.detector.predictor import Predictor
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.evaluation.heatmaps import draw_heatmaps
from xenomask.files import make_dir
from xenomask.metrics import EvalResult
from xenomask.predict.photos import score_dataset
from xenomask.types import Tick, nothing

OURS = ".xenomask-demo"  # says that an earlier demo made the folders beside it


def demo(
    detector: Predictor, out: Path, *, frames: int = 6, seed: int = 7, tick: Tick = nothing
) -> tuple[EvalResult, Prediction]:
    """Generate synthetic street scenes with anomalous objects, score, evaluate and draw them.

    Returns the numbers, and the prediction of the first scene, whose overlay is out/overlay.jpg. What an earlier demo
    left there is replaced; raises XenomaskError where scenes, maps or heatmaps of somebody else lie there.
    """
    check_scenes(frames, seed=seed)
    old = [p for p in (out / name for name in ("scenes", "maps", "heatmaps")) if p.exists()]
    if old and not (out / OURS).is_file():
        raise XenomaskError(f"{old[0]} is there, and no earlier demo made it: choose another --out")
    make_dir(out)
    (out / OURS).touch()
    for folder in old:  # perhaps of other frames
        shutil.rmtree(folder)
    data = write_scenes(out / "scenes", "anomaly-track", frames, seed=seed, tick=tick)
    drawn = open_dataset("anomaly-track", data)
    score_dataset(detector, drawn, out / "maps", tick=tick)
    result = evaluate_maps(out / "maps", drawn)
    draw_heatmaps(out / "maps", drawn, out / "heatmaps", tick=tick)
    first = detector(drawn.sample(drawn.frames[0]).image)
    first.save(out / "overlay.jpg")
    return result, first
