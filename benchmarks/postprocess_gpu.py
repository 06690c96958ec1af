"""Post-processing on a GPU: the Triton pass against eager PyTorch, side by side in one run, with the computed floor.

    python benchmarks/postprocess_gpu.py --out FOLDER [--queries 100] [--size 1024 2048] [--dtype float32]

Random masks of a quarter of the image's size; every query knows a class and is sure of it, which is the dearest case
for Maskomaly (a trained network's mostly are not, and are never visited). Times are medians of CUDA events around the
kernel, or around the eager way (the resized masks of the whole image, then the score's own rows), maps left on the
device; `score_all` beside them is wall time with planning, checks and the copy to the host. Prints a Markdown table
and writes it with postprocess_gpu.json to FOLDER.

The floor is the largest of three times, at the device's data sheet: bytes (logits read once, maps written once) over
the memory's bandwidth; special functions (for each query and pixel e^x and 1 / x) over their rate; multiply-adds (one
of the interpolation along columns, and one for each weight) over theirs. What else a kernel does comes on top.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from xenomask.files import atomic, make_dir
from xenomask.masks import MaskOutput, class_probabilities, soft_masks
from xenomask.masks import semantic as class_masses
from xenomask.scores import SCORES, score_all
from xenomask.scores.score import plan_of
from xenomask.types import QuerySet

OFTEN = ["maskomaly", "eam", "rba", "max_logit", "msp", "entropy", "energy", "void_mass"]
# Memory bandwidth in B/s, from NVIDIA's data sheets (A100 80GB SXM, H100 SXM5, H100 PCIe, H200 SXM, L4).
BANDWIDTH = {
    "A100-SXM4-80GB": 2.039e12, "H100 80GB HBM3": 3.35e12, "H100 PCIe": 2.0e12, "H200": 4.8e12, "L4": 0.3e12,
}  # fmt: skip
# Float32 multiply-adds and special functions a clock and multiprocessor, from the table "Throughput of Native
# Arithmetic Instructions" of the CUDA C++ Programming Guide, by compute capability.
PER_CLOCK = {(8, 0): (64, 16), (8, 6): (128, 16), (8, 9): (128, 16), (9, 0): (128, 16)}


def outputs(queries: int, size: tuple[int, int], dtype: torch.dtype) -> MaskOutput:
    g = torch.Generator("cuda").manual_seed(0)
    logits = 4 * torch.randn(queries, size[0] // 4, size[1] // 4, generator=g, device="cuda") - 3
    classes = torch.randn(queries, 20, generator=g, device="cuda")
    classes[torch.arange(queries), torch.arange(queries) % 19] = 8.0
    return MaskOutput(classes, logits.to(dtype), size, size, size)


def eager(output: MaskOutput, queries: QuerySet, scores: list) -> torch.Tensor:
    """The scores as PyTorch computes them with the masks of the whole image in memory."""
    p, m = class_probabilities(output), soft_masks(output)
    L = class_masses(p, m) if any(s.on_classes for s in scores) else None
    return torch.stack([s.rows(p, m, queries, L=L) for s in scores])


def measured(f, repeats: int) -> tuple[float, int]:
    """(median seconds on the device, bytes that it took at its peak beyond what was there)."""
    for _ in range(3):
        f()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        f()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return statistics.median(seconds), torch.cuda.max_memory_allocated() - before


def walled(f, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def device_figures(bandwidth: float | None) -> dict:
    """The rates that the floor is computed with, and where they come from."""
    p = torch.cuda.get_device_properties(0)
    asked = ["nvidia-smi", "-i", "0", "--query-gpu=clocks.max.sm,driver_version", "--format=csv,noheader,nounits"]
    clock, driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    known = next((v for name, v in BANDWIDTH.items() if p.name.endswith(name)), None)
    per_clock = PER_CLOCK.get((p.major, p.minor))
    if per_clock is None or (bandwidth or known) is None:
        sys.exit(f"no data-sheet figures for {p.name}: add its rates to PER_CLOCK, and give --bandwidth in B/s")
    hertz = p.multi_processor_count * float(clock) * 1e6
    return {
        "device": p.name, "driver": driver,
        "multiprocessors": p.multi_processor_count, "max_sm_clock_mhz": float(clock),
        "bytes_per_s": bandwidth or known, "multiply_adds_per_s": per_clock[0] * hertz,
        "special_per_s": per_clock[1] * hertz,
        "source": "bandwidth: NVIDIA data sheet or --bandwidth; rates: CUDA C++ Programming Guide x nvidia-smi's clock",
    }  # fmt: skip


def floor(output: MaskOutput, todo, figures: dict) -> dict:
    logits = output.mask_logits  # every query counts, see `outputs`
    pairs = len(logits) * output.image_size[0] * output.image_size[1]
    weights = len(todo.peaks) + len(todo.sums) + todo.classes.shape[1]
    maps = 4 * len(todo.steps) * output.image_size[0] * output.image_size[1]
    work = {
        "bytes": logits.numel() * logits.element_size() + maps,
        "special": 2 * pairs,
        "multiply_adds": (1 + weights) * pairs,
    }
    times = {k: work[k] / figures[f"{k}_per_s"] for k in work}
    return work | {"floor_s": max(times.values()), "bound_by": max(times, key=times.__getitem__)}


def rows(args, figures: dict) -> list[dict]:
    output = outputs(args.queries, tuple(args.size), getattr(torch, args.dtype))
    queries = QuerySet(outlier={0: 0.5})
    return [row(output, queries, names, args.repeats, figures) for names in (*([n] for n in OFTEN), OFTEN)]


def row(output, queries, names: list[str], repeats: int, figures: dict) -> dict:
    from xenomask.scores import gpu

    scores = [SCORES[n] for n in names]
    todo = plan_of(output, queries, scores)
    assert todo is not None
    maps = torch.empty(len(scores), *output.image_size, device="cuda")
    ours, memory = measured(lambda: gpu.run(output, todo, 1.0, maps, add=False), repeats)
    theirs, their_memory = measured(lambda: eager(output, queries, scores), max(3, repeats // 5))
    apart = (eager(output, queries, scores) - maps).abs().max().item()
    whole = walled(lambda: score_all(output, queries, scores, "triton"), max(3, repeats // 5))
    f = floor(output, todo, figures)
    return {
        "scores": names, "seconds": ours, "eager_seconds": theirs, "times_faster": theirs / ours,
        "peak_bytes": memory + maps.numel() * 4, "eager_peak_bytes": their_memory, "largest_difference": apart,
        "score_all_seconds": whole, "bytes_per_s": f["bytes"] / ours, "multiply_adds_per_s": f["multiply_adds"] / ours,
        "special_per_s": f["special"] / ours, "times_floor": ours / f["floor_s"], **f,
    }  # fmt: skip


def table(found: list[dict]) -> str:
    head = ["scores", "ms", "eager ms", "times faster", "floor ms", "bound by", "times floor", "GB/s", "G special/s",
            "G FMA/s", "MB", "eager MB", "largest difference", "score_all ms"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in found:
        cells = [
            r["scores"][0] if len(r["scores"]) == 1 else f"all {len(r['scores'])}",
            f"{1e3 * r['seconds']:.3f}", f"{1e3 * r['eager_seconds']:.2f}", f"{r['times_faster']:.1f}",
            f"{1e3 * r['floor_s']:.3f}", r["bound_by"].replace("_", "-"), f"{r['times_floor']:.2f}",
            f"{r['bytes_per_s'] / 1e9:.0f}", f"{r['special_per_s'] / 1e9:.0f}",
            f"{r['multiply_adds_per_s'] / 1e9:.0f}", f"{r['peak_bytes'] / 1e6:.0f}",
            f"{r['eager_peak_bytes'] / 1e6:.0f}", f"{r['largest_difference']:.1e}",
            f"{1e3 * r['score_all_seconds']:.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--bandwidth", type=float, help="the memory's, in B/s, where the device is not listed")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: this benchmark times a GPU, and nothing was measured")
    # float32 for the eager way too: TF32 would be faster and off by 1e-3
    torch.backends.cuda.matmul.allow_tf32 = False
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    figures = device_figures(args.bandwidth)
    with torch.inference_mode():
        found = rows(args, figures)
    about = {
        "queries": args.queries, "size": args.size, "dtype": args.dtype, "repeats": args.repeats, "commit": commit,
        "torch": torch.__version__, "triton": version("triton"), **figures,
    }  # fmt: skip
    text = "\n".join(f"- {k}: {v}" for k, v in about.items()) + "\n\n" + table(found) + "\n"
    print(text)
    for ending, content in (("md", text), ("json", json.dumps({"about": about, "rows": found}, indent=1))):
        with atomic(make_dir(args.out) / f"postprocess_gpu.{ending}") as path:
            path.write_text(content)


if __name__ == "__main__":
    main()
