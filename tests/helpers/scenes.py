"""A folder data set of synthetic scenes."""

from pathlib import Path

from PIL import Image

from xenomask.datasets import Dataset, open_dataset
from xenomask.datasets.synthetic import draw_scene

SIZE = (48, 64)


def write(root: Path, seed: int, frames: int = 3) -> Dataset:
    """A folder of 0, 1, ...: other roots have the same names, sizes and kinds of labels."""
    for d in ("images", "labels_masks"):
        (root / d).mkdir(parents=True)
    for i in range(frames):
        scene = draw_scene(100 * seed + i, SIZE)
        Image.fromarray(scene.image).save(root / f"images/{i}.png")
        Image.fromarray(scene.anomaly).save(root / f"labels_masks/{i}.png")
    return open_dataset("folder", root)
