"""Large evaluations: memory over gigapixels made on the fly, and the share of reading over stored frames.

python benchmarks/large.py gigapixels [--frames 1043]     # 2.19 Gpx, LostAndFound's size; prints the peak memory
python benchmarks/large.py stored [--frames 100] [--dir /tmp/large]
"""

import argparse
import resource
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from xenomask.datasets import open_dataset
from xenomask.evaluation.evaluate import THREADS, evaluate_maps, reader
from xenomask.metrics import measure, summarise
from xenomask.store import write_map
from xenomask.types import ScoreMap

SIZE = (1024, 2048)


def make_frame(i: str):
    """A label with one ellipse and a smooth, noisy map that half sees it; the same for the same id."""
    rng = np.random.default_rng(int(i))
    label = np.zeros(SIZE, np.uint8)
    centre, axes = [int(v) for v in rng.integers((200, 300), (1848, 900))], [int(v) for v in rng.integers(10, 90, 2)]
    cv2.ellipse(label, centre, axes, 0, 0, 360, 1, -1)
    label[:200] = 255
    noise = cv2.resize(rng.standard_normal((128, 256), np.float32), SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return (0.3 + 0.1 * noise + 0.3 * cv2.GaussianBlur(label * (label < 2) * 1.0, (0, 0), 9)).astype(np.float16), label


def gigapixels(frames: int) -> None:
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    measured = measure([f"{i:06d}" for i in range(frames)], make_frame, "obstacle", threads=THREADS)
    seen = time.perf_counter()
    result = summarise(measured, resamples=1000, threads=THREADS)
    pixels = frames * SIZE[0] * SIZE[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{frames} frames, {pixels / 1e9:.2f} Gpx, {result.numbers['exact']['pixels']:,} of them not void")
    print(f"{seen - began:.1f} s, frames made twice; {time.perf_counter() - seen:.1f} s for all numbers and intervals")
    print(f"AUPR-sum {result.numbers['exact']['aupr_sum']:.4f} {result.intervals['exact']['aupr_sum']}")
    print(f"peak memory {peak / 1024:.0f} MB, of which {start / 1024:.0f} MB before the first frame")


def stored(frames: int, folder: Path) -> None:
    maps, labels = folder / "maps", folder / "labels_masks"
    if len(list(maps.glob("*.hdf5"))) < frames:
        maps.mkdir(parents=True, exist_ok=True)
        labels.mkdir(exist_ok=True)
        for i in range(frames):
            value, label = make_frame(f"{i:06d}")
            write_map(maps / f"{i:06d}.hdf5", ScoreMap(value.astype(np.float32), "made"))
            Image.fromarray(label).save(labels / f"{i:06d}.png")
    data = open_dataset("folder", folder)
    ids, read = reader(maps, data)
    evaluate_maps(maps, open_dataset("folder", folder), "obstacle", resamples=10)  # compile, warm the disk's cache
    from xenomask.metrics.frames import each_frame

    began = time.perf_counter()
    for _ in range(2):  # as often as an evaluation reads them
        each_frame(ids, lambda i: read(i) and None, threads=THREADS)
    reading = time.perf_counter() - began
    began = time.perf_counter()
    measured = measure(ids, read, "obstacle", threads=THREADS)
    seen = time.perf_counter() - began
    began = time.perf_counter()
    summarise(measured, resamples=1000, threads=THREADS)
    rest = time.perf_counter() - began
    print(f"{frames} stored frames of {SIZE[1]}x{SIZE[0]}, read twice on {THREADS} threads: {reading:.2f} s of reading")
    print(f"evaluation {seen:.2f} s ({100 * reading / seen:.0f} % reading), {rest:.2f} s for 1000 resamples")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gigapixels", "stored"))
    parser.add_argument("--frames", type=int)
    parser.add_argument("--dir", type=Path, default=Path("/tmp/large"))
    options = parser.parse_args()
    if options.what == "gigapixels":
        gigapixels(options.frames or 1043)
    else:
        stored(options.frames or 100, options.dir)
