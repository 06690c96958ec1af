"""Post-processing of one frame on the CPU: the released way, vectorised PyTorch and the compiled pass, in one run.

    python benchmarks/postprocess.py [--photo street.jpg] [--queries 100] [--size 1024 2048] [--threads 2] [--runs 9]
    python benchmarks/postprocess.py --scaling scaling.png

Masks are drawn (blobs, half of the queries "no object"; --known 1: none) or, with --photo, those of the two shipped
networks on that photo, joined to one set of 100 queries. (a) "released": Maskomaly written plainly in NumPy as its
published code goes about it, with a loop over all pairs of masks for the rule of borders; it runs once. (b) "eager":
the same formula in PyTorch on whole tensors. (c) "blocks": ours with --kernel torch. (d) "pass": ours with --kernel
numba. Medians of wall seconds; memory is what a fresh process needs at its peak beyond the state with the logits in
place. Prints Markdown.
"""

import argparse
import itertools
import platform
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from xenomask.masks import MaskOutput, with_queries
from xenomask.scores import SCORES, cpu, score_all
from xenomask.scores.score import plan_of
from xenomask.types import QuerySet

OFTEN = ["maskomaly", "eam", "rba", "max_logit", "msp", "entropy", "energy", "void_mass"]
QUERIES = QuerySet(outlier={3: 0.4, 8: 0.3}, ground=(0, 1))


def drawn(q: int, size: tuple[int, int], seed: int = 0, known: float = 0.5) -> MaskOutput:
    """Blobs of all sizes at stride 4, logits from 8 within to -12 far off; the `known` share of queries has a class."""
    rng = np.random.default_rng(seed)
    h, w = -(-size[0] // 4), -(-size[1] // 4)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    logits = np.empty((q, h, w), np.float32)
    for i in range(q):
        cy, cx, ry, rx = rng.uniform(0, h), rng.uniform(0, w), *(rng.uniform(0.03, 0.4, 2) * (h, w))
        far = np.hypot((y - cy) / ry, (x - cx) / rx)
        logits[i] = (8 * (1 - far)).clip(-12) + rng.normal(0, 0.3, (h, w))
    classes = rng.normal(0, 1, (q, 20))
    i = np.arange(q + 1) * known
    classes[np.arange(q), np.where(i[1:].astype(int) > i[:-1].astype(int), rng.integers(0, 19, q), 19)] += 6
    return MaskOutput(torch.tensor(classes, dtype=torch.float32), torch.from_numpy(logits), size, size, size)


def of_photo(path: Path, size: tuple[int, int]) -> MaskOutput:
    """The shipped members' queries on a photo, together, as if the photo were of this size."""
    from xenomask.datasets import read_photo
    from xenomask.detector import Detector

    outputs = [with_queries(m.network.predict(read_photo(path))) for m in Detector.from_folder("nano").members]
    classes, masks = (torch.cat([getattr(o, k) for o in outputs]) for k in ("class_logits", "mask_logits"))
    return replace(outputs[0], class_logits=classes, mask_logits=masks, image_size=size)


def whole_masks(output: MaskOutput) -> torch.Tensor:
    """(Q, H, W) soft masks; drawn inputs are not padded, and the networks' padding is cut first."""
    _, h, w = output.mask_logits.shape
    keep = [-(-u * c // p) for u, c, p in zip(output.input_size, (h, w), output.padded_size, strict=True)]
    logits = output.mask_logits[:, : keep[0], : keep[1]]
    return torch.nn.functional.interpolate(logits[None], output.image_size, mode="bilinear")[0].sigmoid()


def released(output: MaskOutput) -> np.ndarray:
    """Maskomaly step by step, as described in the documentation of the score; NumPy on whole arrays."""
    m, p = whole_masks(output).numpy(), output.class_logits.softmax(-1).numpy()
    top, argmax = p.max(1), p.argmax(1)
    fires, r = np.zeros(output.image_size, np.float32), np.ones(output.image_size, np.float32)
    for q in QUERIES.outlier:
        fires = np.maximum(fires, m[q] * top[q])
    known = [q for q in range(len(p)) if argmax[q] != p.shape[1] - 1]
    for q in known:
        if top[q] > 0.7:
            r = np.minimum(r, 1 - m[q] * top[q])
    for i, j in itertools.combinations(known, 2):
        r[(m[i] > 0.1) & (m[j] > 0.1)] = 0
    for q in QUERIES.ground:
        r = np.minimum(r, 1 - m[q] * top[q])
    return 0.6 * r + 0.4 * fires


@torch.inference_mode()
def eager(output: MaskOutput) -> np.ndarray:
    """The formula on whole tensors."""
    return SCORES["maskomaly"].rows(output.class_logits.softmax(-1), whole_masks(output), QUERIES).numpy()


def ours(output: MaskOutput, names: list[str], kernel: str) -> dict[str, np.ndarray]:
    return {k: s.value for k, s in score_all(output, QUERIES, [SCORES[n] for n in names], kernel).items()}


def median(call, runs: int) -> float:
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def memory(way: str, q: int, size: tuple[int, int], threads: int) -> float:
    """MB that a fresh process needs at its peak beyond the state with logits, compiled code and output's pages."""
    command = [sys.executable, __file__, "--memory-of", way, "--queries", str(q), "--size", *map(str, size)]
    done = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_memory(way: str, q: int, size: tuple[int, int]) -> None:
    calls = {"eager": eager, "blocks": lambda o: ours(o, ["maskomaly"], "torch"),
             "pass": lambda o: ours(o, ["maskomaly"], "numba")}  # fmt: skip
    calls[way](drawn(16, (64, 64)))
    output = drawn(q, size)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (Linux)
    before = _status("VmRSS")
    calls[way](output)
    print((_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    """A line of /proc/self/status, kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def roofline(output: MaskOutput, threads: int) -> list[str]:
    """What the pass must do at least, from counts, and the machine's rates, measured here."""
    q, h, w = output.mask_logits.shape
    H, W = output.image_size
    moved = 4 * (q * h * w + H * W)
    a = torch.randn(64 * 1024 * 1024 // 4)
    copy = median(lambda: a.clone(), 9)
    bandwidth = 2 * a.numel() * 4 / copy
    z, onto = torch.randn(4096), torch.empty(4096)
    torch.set_num_threads(1)  # in the cache, one core: the rate of exponentials
    rate = 4096 * 200 / median(lambda: [torch.sigmoid(z, out=onto) for _ in range(200)], 9) * threads
    torch.set_num_threads(threads)
    memory_floor, sigmoids = moved / bandwidth, q * H * W / rate
    return [
        f"bytes to move: {moved / 1e6:.0f} MB at {bandwidth / 1e9:.1f} GB/s (copying 64 MB): {memory_floor:.4f} s",
        f"sigmoids if every mask counts everywhere: {q * H * W / 1e6:.0f} M at {rate / 1e9:.2f} G/s (torch's, in the "
        f"cache, x {threads}): {sigmoids:.4f} s",
    ]


def out_of_order(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pixels for which some other pixel lies strictly above in one map and strictly below in the other."""
    order = np.argsort(b, axis=None, kind="stable")
    mine, theirs = (x.ravel()[order].astype(np.float64) for x in (a, b))
    starts = np.flatnonzero(np.diff(theirs, prepend=-np.inf))  # of the runs of pixels that are equal in b
    run = np.searchsorted(starts, np.arange(len(mine)), side="right") - 1
    largest, smallest = np.maximum.reduceat(mine, starts), np.minimum.reduceat(mine, starts)
    before = np.concatenate([[-np.inf], np.maximum.accumulate(largest)[:-1]])
    after = np.concatenate([np.minimum.accumulate(smallest[::-1])[::-1][1:], [np.inf]])
    return float(((mine < before[run]) | (mine > after[run])).mean())


def table(output: MaskOutput, threads: int, runs: int, slow: bool) -> list[str]:
    seconds = {"pass": median(lambda: ours(output, ["maskomaly"], "numba"), runs)}
    seconds["blocks"] = median(lambda: ours(output, ["maskomaly"], "torch"), 3)
    seconds["eager"] = median(lambda: eager(output), 3)
    # not (a) or (b): they resize a mask that is cut where a photo's padding begins inside a mask cell
    reference = ours(output, ["maskomaly"], "torch")["maskomaly"]
    if slow:
        start = time.perf_counter()
        released(output)
        seconds["released"] = time.perf_counter() - start
    found = ours(output, ["maskomaly"], "numba")["maskomaly"]
    off = np.abs(found - reference)
    steps = (found.astype(np.float16) != reference.astype(np.float16)).mean()
    rows = ["| Maskomaly | s | times the pass |", "|---|---|---|"]
    rows += [f"| {k} | {v:.4f} | {v / seconds['pass']:.1f} |" for k, v in reversed(seconds.items())]
    far = (off > 1e-6).mean()
    rows += [
        "",
        f"blocks and pass: largest difference {off.max():.1e}; {far:.1e} of the pixels differ by more than 1e-6,",
    ]
    swapped = out_of_order(found.astype(np.float16), reference.astype(np.float16))
    rows += [f"{steps:.1e} in their float16 value, {swapped:.1e} in the order of float16 values"]
    alone = {n: median(lambda n=n: ours(output, [n], "numba"), runs) for n in OFTEN}
    together = median(lambda: ours(output, OFTEN, "numba"), runs)
    rows += ["", "| the pass for | s |", "|---|---|", *(f"| {k} | {v:.4f} |" for k, v in alone.items())]
    rows += [f"| all eight | {together:.4f} ({together / max(alone.values()):.2f} times the dearest) |", ""]
    return rows


def add_members(output: MaskOutput, names: list[str], members: int) -> None:
    todo = plan_of(output, QUERIES, [SCORES[n] for n in names])
    assert todo is not None
    onto = np.zeros((len(names), *output.image_size), np.float32)
    for _ in range(members):
        cpu.add_scores(output, todo, 1 / members, onto)


def scaling(file: Path, threads: int) -> None:
    """Seconds of the pass over image size, queries and members, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    sizes = [(256, 512), (512, 1024), (720, 1280), (1024, 2048), (2048, 4096)]
    todo = [
        ("megapixels", [h * w / 1e6 for h, w in sizes], [(drawn(100, s), 1) for s in sizes]),
        (
            "queries (1024x2048)",
            [10, 50, 100, 200, 300],
            [(drawn(q, (1024, 2048)), 1) for q in (10, 50, 100, 200, 300)],
        ),
        ("members (100 queries, 1024x2048)", [1, 2, 4], [(drawn(100, (1024, 2048)), n) for n in (1, 2, 4)]),
    ]
    for axis, (label, x, cases) in zip(axes, todo, strict=True):
        for names in (["maskomaly"], ["rba"], OFTEN):
            y = []
            for output, members in cases:
                y.append(median(partial(add_members, output, names, members), 5))
            print(label, names if len(names) == 1 else "all eight", [f"{v:.4f}" for v in y])
            axis.plot(x, y, marker="o", label=names[0] if len(names) == 1 else "all eight")
        axis.set(xlabel=label, ylim=0)
    axes[0].set_ylabel(f"seconds, {threads} threads")
    axes[0].legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--known", type=float, default=0.5, help="share of the drawn queries that have a known class")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--no-released", action="store_true", help="leave out the slow way")
    parser.add_argument("--scaling", type=Path, help="draw seconds over size, queries and members into this file")
    parser.add_argument("--memory-of", choices=["eager", "blocks", "pass"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = tuple(options.size)
    if options.memory_of:
        return print_memory(options.memory_of, options.queries, size)
    if options.scaling:
        return scaling(options.scaling, options.threads)
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}")
    output = of_photo(options.photo, size) if options.photo else drawn(options.queries, size, known=options.known)
    known = int((output.class_logits.argmax(-1) < 19).sum())
    kind = f"networks' masks on {options.photo.name}" if options.photo else "drawn masks"
    print(f"{len(output.mask_logits)} queries ({known} of a known class), {size[0]}x{size[1]}, {kind}\n")
    print("\n".join(table(output, options.threads, options.runs, not options.no_released)))
    print("\n".join(roofline(output, options.threads)))
    extra = {w: memory(w, options.queries, size, options.threads) for w in ("eager", "blocks", "pass")}
    print("memory beyond the logits, MB: " + ", ".join(f"{k} {v:.0f}" for k, v in extra.items()))


if __name__ == "__main__":
    main()
