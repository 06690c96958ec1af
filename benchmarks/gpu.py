"""All figures of a GPU in one run: an ensemble of Swin-S and Swin-L, each way of running it; post-processing; training.

    python benchmarks/gpu.py --out FOLDER [--size 1024 2048] [--members swin-s swin-l] [--repeats 20]
    python benchmarks/gpu.py --out FOLDER --dry        # tiny networks on the CPU: tests this file, no figures

Random weights and a random photo; the score is RbA, which reads every query and class whatever the weights are. A run
is from the two networks' inputs in the host's memory to the joined map there; "networks" is the part before the score.
Both are medians of wall seconds with the device waited for. "transformers" is its own eager code in float32, then the
score by PyTorch on masks of the photo's size, as a plain script does it: once with PyTorch's defaults (TF32 in
convolutions), which the others' speed is compared with, and once without TF32, which their maps are compared with.
Memory is what PyTorch reserved at most, weights included. A way that fails is a row that says why. Then come the tables
of benchmarks/postprocess_gpu.py and train_gpu.py. Prints Markdown and writes it with gpu.json to FOLDER.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xenomask.detector import Detector, Member
from xenomask.errors import first_line
from xenomask.files import atomic, make_dir
from xenomask.models import build
from xenomask.models.deformable import plain
from xenomask.models.network import Network, Prepared
from xenomask.scores import SCORES
from xenomask.types import QuerySet


@dataclass(frozen=True)
class Way:
    """How an ensemble is run; `theirs`: all of it eager, by transformers."""

    name: str
    precision: str = "float32"
    runtime: str = "torch"
    kernel: str = "torch"
    theirs: bool = False
    tf32: bool = False


WAYS = (
    Way("transformers, float32 without TF32", theirs=True),
    Way("transformers, float32", theirs=True, tf32=True),
    Way("float32"),
    Way("bfloat16", "bfloat16"),
    Way("bfloat16, triton", "bfloat16", kernel="triton"),
    Way("bfloat16, compiled", "bfloat16", "compiled"),
    Way("float16, compiled", "float16", "compiled"),
)
REFERENCE, BASELINE = WAYS[0].name, WAYS[1].name


def detector_of(networks: list[Network], way: Way, device: str) -> Detector:
    share = 1 / len(networks)
    members = [Member(f"m{i}", n, QuerySet(n.sha256), SCORES["rba"], share) for i, n in enumerate(networks)]
    found = Detector("pair", tuple(members), kernel=way.kernel)
    return found.with_precision(way.precision).with_runtime(way.runtime, device)


def measured(detector: Detector, way: Way, photo: tuple[Prepared, ...], repeats: int, cuda: bool) -> dict[str, Any]:
    """The medians of both parts, the seconds of the first run (graphs, compilers), memory, and the map."""
    seconds: list[tuple[float, float]] = []
    value = np.zeros(0)
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with ExitStack() as stack:
        if way.theirs:
            for m in detector.used:
                stack.enter_context(plain(m.network.module))
        for _ in range(3 + repeats):
            begun = time.perf_counter()
            (outputs,) = detector.infer([photo])
            if cuda:
                torch.cuda.synchronize()
            seen = time.perf_counter()
            value = detector.fuse(outputs).value
            seconds.append((seen - begun, time.perf_counter() - begun))
    networks, whole = (statistics.median(s) for s in zip(*seconds[3:], strict=True))
    memory = torch.cuda.max_memory_reserved() if cuda else None
    return {"first_s": seconds[0][1], "networks_s": networks, "whole_s": whole, "bytes": memory, "map": value}


def row(networks: list[Network], way: Way, photo: tuple[Prepared, ...], repeats: int, device: str) -> dict[str, Any]:
    torch.backends.cudnn.allow_tf32 = way.tf32
    torch.backends.cuda.matmul.allow_tf32 = False  # PyTorch's default too
    try:
        return {**asdict(way), **measured(detector_of(networks, way, device), way, photo, repeats, device == "cuda")}
    except Exception as e:  # the other ways' figures are not to be lost by it
        return {**asdict(way), "failed": f"{type(e).__name__}: {first_line(e)}"}


def rows(args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    networks = []
    for name in args.members:
        n = build(name)
        n.module.to(device)
        networks.append(n)
    g, size = torch.Generator().manual_seed(1), tuple(args.size)
    photo = tuple(Prepared(torch.randn(1, 3, *size, generator=g), size, size) for _ in networks)
    ways = [w for w in WAYS if not args.dry or w.runtime != "compiled"]  # a minute on a CPU, and tested elsewhere
    found = [row(networks, way, photo, args.repeats, device) for way in ways]
    by_name = {r["name"]: r for r in found}
    base, true = by_name[BASELINE], by_name[REFERENCE]
    for r in found:
        if "failed" not in r and "failed" not in base and "failed" not in true:
            r["times_faster"] = base["whole_s"] / r["whole_s"]
            apart = np.abs(r["map"] - true["map"])
            r |= {"mean_difference": float(apart.mean()), "largest_difference": float(apart.max())}
    spread = None if "failed" in true else float(true["map"].std())
    for r in found:
        r.pop("map", None)
        r["deviation_of_the_map"] = spread  # random weights give flat maps: what a difference is to be held against
    return found


def table(found: list[dict[str, Any]]) -> str:
    head = ["way", "first run s", "networks ms", "whole ms", "photos/s", "times faster", "GB", "mean difference",
            "largest"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in found:
        if "failed" in r:
            lines.append(f"| {r['name']} | {r['failed']} |" + " |" * (len(head) - 2))
            continue
        memory = "-" if r["bytes"] is None else f"{r['bytes'] / 1e9:.2f}"
        compared = [f"{r[k]:.1e}" if k in r else "-" for k in ("mean_difference", "largest_difference")]
        faster = f"{r['times_faster']:.2f}" if "times_faster" in r else "-"
        cells = [r["name"], f"{r['first_s']:.1f}", f"{1e3 * r['networks_s']:.1f}", f"{1e3 * r['whole_s']:.1f}",
                 f"{1 / r['whole_s']:.2f}", faster, memory, *compared]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def others(out: Path) -> str:
    """The post-processing's and the training's benchmarks, each in a process of its own: memory, errors are its own."""
    here, found = Path(__file__).parent, []
    for script, *more in (("postprocess_gpu.py", "--out", out), ("train_gpu.py",)):
        done = subprocess.run([sys.executable, here / script, *more], capture_output=True, text=True)
        found.append(done.stdout if done.returncode == 0 else f"{script} failed: {done.stderr.strip()[-500:]}")
    return "\n".join(found)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    parser.add_argument("--members", nargs="+", default=["swin-s", "swin-l"])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="two tiny networks on the CPU, once: no figures")
    args = parser.parse_args()
    if args.dry:
        args.size, args.members, args.repeats = [64, 128], ["tiny", "tiny"], 1
    elif not torch.cuda.is_available():
        sys.exit("no CUDA device: this benchmark times a GPU, and nothing was measured (--dry tries it on the CPU)")
    device = "cpu" if args.dry else "cuda"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    found = rows(args, device)
    about = {
        "device": "CPU, a dry run: no figures" if args.dry else torch.cuda.get_device_name(), "size": args.size,
        "members": args.members, "repeats": args.repeats, "commit": commit, "torch": torch.__version__,
        "transformers": version("transformers"), "deviation of the map": found[0]["deviation_of_the_map"],
    }  # fmt: skip
    text = "\n".join(f"- {k}: {v}" for k, v in about.items()) + "\n\n" + table(found) + "\n"
    print(text, flush=True)
    out = make_dir(args.out)
    if not args.dry:
        text += "\n" + (after := others(out))
        print(after)
    for ending, content in (("md", text), ("json", json.dumps({"about": about, "rows": found}, indent=1))):
        with atomic(out / f"gpu.{ending}") as path:
            path.write_text(content)


if __name__ == "__main__":
    main()
