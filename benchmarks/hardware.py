"""Time and memory from a photo's file to its objects, by photo size and runtime: the table of docs/fast.md.

    python benchmarks/hardware.py --detector nano-general --sizes 640x360,1280x720 --runtimes torch,openvino
    python benchmarks/hardware.py --detector nano-int8 --sizes 1280x720 --runtimes own    # or an exported file
    python benchmarks/hardware.py --preset swin-l --sizes 2048x1024 --runtimes torch --times 3

A preset is a network of random weights, read by max_logit; its input is 1024 pixels at the shortest edge. Each row is a
process of its own: load the detector, look once (which builds what the runtime needs, if it is not kept), then
`--times` photos, decoded, detected and searched for objects. Memory is the process's largest.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from xenomask.datasets.synthetic import draw_scene


def measure(detector: str, preset: str | None, runtime: str, photo: str, times: int) -> dict[str, float]:
    """One row, in this process; runtime "own" is that of an exported file or an int8 folder."""
    from xenomask.datasets import read_photo
    from xenomask.detector import Detector, Member
    from xenomask.objects import find_objects
    from xenomask.opening import open_detector
    from xenomask.scores import get_score
    from xenomask.types import QuerySet

    started = time.perf_counter()
    if preset:
        from xenomask.models import build

        d = Detector(preset, (Member(preset, build(preset), QuerySet(), get_score("max_logit"), 1.0),))
        d = d.with_runtime(runtime)
    elif runtime == "own":
        d = open_detector(detector, None)
    else:
        d = Detector.load(detector, runtime=runtime)
    loaded = time.perf_counter()
    threshold = d.thresholds["default"]["value"] if "default" in d.thresholds else 0.0
    seconds = []
    for _ in range(times + 1):
        at = time.perf_counter()
        find_objects(d.detect(read_photo(Path(photo))).value, threshold)
        seconds.append(time.perf_counter() - at)
    p50, p90, p99 = np.quantile(seconds[1:], [0.5, 0.9, 0.99])
    return {
        "load": loaded - started, "first": seconds[0], "p50": float(p50), "p90": float(p90), "p99": float(p99),
        "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="nano-general")
    parser.add_argument("--preset", help="a network of random weights in place of the detector")
    parser.add_argument("--sizes", default="640x360,1280x720,1920x1080,2048x1024")
    parser.add_argument("--runtimes", default="torch,openvino,onnxruntime")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--row", nargs=2, metavar=("RUNTIME", "PHOTO"), help="measure this one alone, as JSON")
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(args.detector, args.preset, *args.row, args.times)))
        return
    table = Table(
        "photo", "runtime", "load s", "first s", "p50 ms", "p90 ms", "p99 ms", "MB", title=args.preset or args.detector
    )
    with tempfile.TemporaryDirectory() as scratch:
        for size in args.sizes.split(","):
            w, h = map(int, size.split("x"))
            photo = Path(scratch) / f"{size}.jpg"
            cv2.imwrite(str(photo), draw_scene(3, (h, w)).image[..., ::-1])
            for runtime in args.runtimes.split(","):
                line = [sys.executable, __file__, "--detector", args.detector, "--times", str(args.times)]
                line += ["--preset", args.preset] if args.preset else []
                found = subprocess.run(
                    [*line, "--row", runtime, str(photo)], capture_output=True, text=True, check=True
                ).stdout
                r = json.loads(found.splitlines()[-1])
                ms = (f"{1000 * r[k]:.0f}" for k in ("p50", "p90", "p99"))
                table.add_row(size, runtime, f"{r['load']:.1f}", f"{r['first']:.1f}", *ms, f"{r['MB']:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
