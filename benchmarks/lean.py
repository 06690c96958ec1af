"""One photo, one process: `xenomask detect` by torch, by kept graphs without torch, and the exported file alone.

python benchmarks/lean.py --times 5          # builds the graphs and exports first, a minute or two each

CPU seconds are user + system of the whole process, MB its largest resident memory; medians of interleaved runs. Ratios
are to examples/run_onnx.py on the same detector, exported. On a busy machine compare ratios, not seconds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from rich.console import Console
from rich.table import Table

from xenomask.datasets.synthetic import draw_scene

XENOMASK = [sys.executable, "-m", "xenomask.cli"]
EXAMPLE = Path(__file__).parents[1] / "examples" / "run_onnx.py"


def measure(words: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and MB of one process; ends this one where that one fails."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="nano-general")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--onnx", type=Path, help="the detector, exported for that size already")
    args = parser.parse_args()
    w, h = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        photo, out, exported = (Path(scratch) / name for name in ("street.jpg", "out", "detector.onnx"))
        cv2.imwrite(str(photo), draw_scene(3, (h, w)).image[..., ::-1])
        subprocess.run([*XENOMASK, "warmup", args.detector, "--size", args.size], check=True)
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
