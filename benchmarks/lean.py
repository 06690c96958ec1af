"""One photo, one process: `xenomask detect` by torch, by kept graphs without torch, and the exported file alone.

python benchmarks/lean.py --times 5          # builds the graphs and exports first, a minute or two each
OPENBLAS_NUM_THREADS=1 python benchmarks/lean.py --stages --size 2048x1024 # instead: the work around the networks

CPU seconds are user + system of the whole process, MB its largest resident memory; medians of interleaved runs. Ratios
are to examples/run_onnx.py on the same detector, exported. On a busy machine compare ratios, not seconds. `detect` sets
OPENBLAS_NUM_THREADS itself; without it the idle threads that spin are counted as work around the networks.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
from rich.console import Console
from rich.table import Table

from xenomask.datasets.synthetic import draw_scene

XENOMASK = [sys.executable, "-m", "xenomask.cli"]
EXAMPLE = Path(__file__).parents[1] / "examples" / "run_onnx.py"


def measure(words: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and MB of one process; ends this one where that one fails."""
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # else xenomask alone compiles anew
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=own)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def stages(detector: str, photo: Path, out: Path, times: int) -> None:
    """CPU milliseconds of each step of `detect` in a process that stays, medians, and beside the networks'."""
    from xenomask import Detector
    from xenomask.datasets import read_photo
    from xenomask.detector.prediction import prediction
    from xenomask.pictures import save_picture
    from xenomask.plots import panels
    from xenomask.store import write_map

    d, seconds = Detector.load(detector), {}

    def timed(step: str, call, *args):
        started = time.process_time()
        found = call(*args)
        seconds.setdefault(step, []).append(time.process_time() - started)
        return found

    plain = replace(d, refine=())
    for _ in range(times + 1):
        image = timed("decode", read_photo, photo)
        prepared = timed("resize, normalise", d.prepare, image)
        (outputs,) = timed("networks", d.infer, [prepared])
        raw = timed("upsample, score", plain.fuse, outputs)
        found = timed("refine", d.refined, raw, outputs)
        said = prediction(d, image, found, outputs)
        timed("objects", getattr, said, "objects")
        timed("encode map", write_map, out / "map.hdf5", found)
        draw = partial(panels, title="x", threshold=said.threshold)
        heatmap = timed("draw heatmap", draw, image, found.value, d.scale)
        timed("encode heatmap", save_picture, out / "heatmap.png", heatmap)
        timed("encode overlay", save_picture, out / "overlay.jpg", timed("draw overlay", said.overlay))
    medians = {step: 1000 * statistics.median(each[1:]) for step, each in seconds.items()}  # the first one loads code
    around = sum(medians.values()) - medians["networks"]
    table = Table("step", "CPU ms", "of the networks", title=f"{detector}, {photo.stem}")
    for step, ms in {**medians, "all but the networks": around}.items():
        table.add_row(step, f"{ms:.0f}", f"{ms / medians['networks']:.2f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="nano-general")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--onnx", type=Path, help="the detector, exported for that size already")
    parser.add_argument("--stages", action="store_true", help="the work around the networks, step by step")
    args = parser.parse_args()
    w, h = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        photo, out, exported = (Path(scratch) / name for name in (f"{args.size}.jpg", "out", "detector.onnx"))
        cv2.imwrite(str(photo), draw_scene(3, (h, w)).image[..., ::-1])
        subprocess.run([*XENOMASK, "warmup", args.detector, "--size", args.size], check=True)
        if args.stages:
            out.mkdir()
            return stages(args.detector, photo, out, args.times)
        if args.onnx is None:
            words = [*XENOMASK, "export", args.detector, "--size", args.size, "--out", str(exported)]
            subprocess.run(words, check=True)
        detect = [*XENOMASK, "detect", str(photo), "--detector", args.detector, "--out", str(out)]
        example = [sys.executable, str(EXAMPLE), str(args.onnx or exported), str(photo), str(out / "run.png")]
        ways = {"detect, torch": [*detect, "--runtime", "torch"], "detect, kept graphs": detect,
                "run_onnx.py": example}  # fmt: skip
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for turn in range(args.times + 1):  # the first turn warms the disk's cache
            for name, words in ways.items():
                row = measure(words)
                found[name] += [row] if turn else []
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    base = medians["run_onnx.py"]
    table = Table("one photo", "wall s", "CPU s", "MB", "CPU ratio", "MB ratio", title=f"{args.detector}, {args.size}")
    for name, (wall, cpu, mb) in medians.items():
        table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", f"{mb:.0f}", f"{cpu / base[1]:.2f}", f"{mb / base[2]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
