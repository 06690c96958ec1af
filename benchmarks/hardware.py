"""Time and memory from a photo's file to its objects, by photo size and runtime: the table of docs/fast.md.

    python benchmarks/hardware.py --detector nano-general --sizes 640x360,1280x720 --runtimes torch,openvino
    python benchmarks/hardware.py --detector nano-int8 --sizes 1280x720 --runtimes own    # or an exported file
    python benchmarks/hardware.py --preset swin-l --sizes 2048x1024 --runtimes torch --times 3
    python benchmarks/hardware.py --all --int8 nano-general-int8 --json hardware.json     # the whole table

A preset is a network of random weights, read by max_logit; its input is 1024 pixels at the shortest edge. Each row is a
process of its own: load the detector, look once (which builds what the runtime needs, if it is not kept), then
`--times` photos, decoded, detected and searched for objects. Memory is the process's largest. What stands in the file
of --json is not measured again, so that a run that was ended goes on.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from xenomask.datasets.synthetic import draw_scene


class Row(NamedTuple):
    """What is measured: a detector, or a preset of that name."""

    name: str
    preset: bool
    size: str
    runtime: str
    times: int


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


def every_row(int8: str | None) -> list[Row]:
    """The rows of docs/fast.md."""
    runtimes = ("torch", "openvino", "onnxruntime")
    rows = [Row("nano-general", False, s, r, 10) for s in ("640x360", "1280x720", "2048x1024") for r in runtimes]
    rows += [Row(int8, False, "1280x720", "own", 10)] if int8 else []
    return rows + [Row(p, True, "2048x1024", r, 3) for p in ("swin-s", "swin-l") for r in runtimes[:2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="nano-general")
    parser.add_argument("--preset", help="a network of random weights in place of the detector")
    parser.add_argument("--sizes", default="640x360,1280x720,1920x1080,2048x1024")
    parser.add_argument("--runtimes", default="torch,openvino,onnxruntime")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--all", action="store_true", help="the rows of docs/fast.md, whatever else is named")
    parser.add_argument("--int8", help="with --all: the folder that `xenomask quantize nano-general` wrote")
    parser.add_argument("--json", type=Path, help="keep the rows in this file")
    parser.add_argument("--row", nargs=2, metavar=("RUNTIME", "PHOTO"), help="measure this one alone, as JSON")
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(args.detector, args.preset, *args.row, args.times)))
        return
    name, sizes, runtimes = args.preset or args.detector, args.sizes.split(","), args.runtimes.split(",")
    rows = [Row(name, bool(args.preset), size, runtime, args.times) for size in sizes for runtime in runtimes]
    found = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    print("| detector | photo | runtime | load, s | first, s | p50, ms | p90 | p99 | largest memory, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in every_row(args.int8) if args.all else rows:
        key = " ".join(map(str, row))
        if key not in found:
            found[key] = in_a_process(row)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))
        r = found[key]
        ms = " | ".join(f"{1000 * r[k]:,.0f}" for k in ("p50", "p90", "p99"))
        print(
            f"| {Path(row.name).name} | {row.size} | {row.runtime} | {r['load']:.1f} | {r['first']:.1f} | {ms} | "
            f"{r['MB']:,.0f} |", flush=True,
        )  # fmt: skip


def in_a_process(row: Row) -> dict[str, float]:
    """One row, measured by a process of its own."""
    w, h = map(int, row.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        photo = Path(scratch) / f"{row.size}.jpg"
        cv2.imwrite(str(photo), draw_scene(3, (h, w)).image[..., ::-1])
        line = [sys.executable, __file__, "--preset" if row.preset else "--detector", row.name]
        line += ["--times", str(row.times), "--row", row.runtime, str(photo)]
        return json.loads(subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
