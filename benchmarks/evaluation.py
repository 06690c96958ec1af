"""Speed of the evaluation against the usual ways, side by side in one run; prints a Markdown table.

    python benchmarks/evaluation.py [--pixels 50e6] [--repeats 3]

Pixel numbers: scikit-learn's average_precision_score + precision_recall_curve + roc_curve, and plain NumPy counters,
against ours, on float16 scores in memory. Components: the per-component loops of
tests/helpers/naive.py against ours. Both are checked to give the same numbers. Bootstrap: from counters, and by
computing each resample's numbers anew.
"""

import argparse
import platform
import resource
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import naive  # noqa: E402
from xenomask.metrics import count, curve, pool  # noqa: E402
from xenomask.metrics.components import TRACKS, compare, tallies  # noqa: E402
from xenomask.metrics.components import numbers as component_numbers  # noqa: E402
from xenomask.metrics.counters import BINS, Counters, keys  # noqa: E402
from xenomask.metrics.resampling import curve_numbers, draw, exact_steps  # noqa: E402
from xenomask.metrics.table import numbers  # noqa: E402


def timed(work, repeats):
    """(median seconds, result)."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


def scikit_learn(score, label):
    s = score.astype(np.float32)
    precision, recall, _ = precision_recall_curve(label, s)
    fpr, tpr, _ = roc_curve(label, s)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {
        "aupr_sum": average_precision_score(label, s), "aupr_trapz": auc(recall, precision), "auroc": auc(fpr, tpr),
        "fpr95": fpr[np.argmax(tpr >= 0.95)], "best_f1": f1.max(),
    }  # fmt: skip


def numpy_counters(score, label):
    k = keys(score)
    return Counters(np.bincount(k[label == 1], minlength=BINS), np.bincount(k[label == 0], minlength=BINS))


def pixel_rows(pixels, repeats, with_sklearn):
    rng = np.random.default_rng(0)
    label = (rng.random(pixels) < 0.05).astype(np.uint8)
    score = (rng.standard_normal(pixels, np.float32) + 1.5 * label).astype(np.float16)
    frame = score[None], label[None]
    count(frame[0][:, :8], frame[1][:, :8])  # compile
    ours, found = timed(lambda: numbers(curve(count(*frame).dense())), max(repeats, 5))
    rows = [("xenomask", ours)]
    plain, same = timed(lambda: numbers(curve(numpy_counters(score, label))), repeats)
    assert same == found
    rows.append(("NumPy counters", plain))
    if with_sklearn:
        theirs, expected = timed(lambda: scikit_learn(score, label), 1)
        worst = max(abs(found[k] - v) for k, v in expected.items())
        assert worst < 1e-9, worst
        rows.append(("scikit-learn, three calls", theirs))
    return rows


def component_rows(repeats, naive_frames):
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(20):
        label = np.zeros((720, 1280), np.uint8)
        for _ in range(6):
            centre, axes = rng.integers((1280, 720)), rng.integers(5, 70, 2)
            cv2.ellipse(label, [int(v) for v in centre], [int(v) for v in axes], 0, 0, 360, 1, -1)
        label[:80] = 255
        noise = rng.standard_normal(label.shape)
        frames.append((cv2.GaussianBlur(noise, (0, 0), 1.2) > 0.25, label))
    rows, predicted = [], 0
    for track, sizes in TRACKS.items():
        ours, found = timed(lambda sizes=sizes: [compare(m, y, sizes) for m, y in frames], repeats)
        theirs, expected = timed(
            lambda sizes=sizes: [naive.components(m, y, sizes.predicted, sizes.true) for m, y in frames[:naive_frames]],
            1,
        )
        for a, b in zip(found, expected, strict=False):
            assert all(
                np.allclose(sorted(x), sorted(y)) for x, y in zip((a.siou_gt, a.siou_pred, a.ppv), b, strict=True)
            )
        predicted = sum(len(f.ppv) for f in found)
        rows.append((track, predicted, ours / len(frames), theirs / naive_frames))
        component_numbers(np.sum([tallies(f) for f in found], axis=0))
    everything = [cv2.connectedComponents(m.view(np.uint8), connectivity=8)[0] - 1 for m, _ in frames]
    return rows, int(np.mean(everything))


def bootstrap_rows(repeats):
    rng = np.random.default_rng(0)
    frames = []
    for i in range(100):
        label = (rng.random((512, 1024)) < 0.05 * (i % 4 > 0)).astype(np.uint8)
        frames.append(count((rng.standard_normal(label.shape) + 1.5 * label).astype(np.float16), label))
    weights = draw(100, 1000, 0)
    steps = exact_steps(frames)
    curve_numbers(*steps, weights[:2])
    ours, found = timed(lambda: curve_numbers(*steps, weights), repeats)
    some = weights[:20].astype(int)
    theirs, expected = timed(
        lambda: [numbers(curve(pool(f for f, n in zip(frames, w, strict=True) for _ in range(n)))) for w in some], 1
    )
    assert all(abs(found["aupr_sum"][i] - e["aupr_sum"]) < 1e-12 for i, e in enumerate(expected))
    return ours, theirs / len(some) * len(weights), int(np.mean([len(f.key) for f in frames]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=float, default=50e6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--naive-frames", type=int, default=2, help="the per-component loops are slow")
    parser.add_argument("--no-sklearn", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = pixel_rows(int(options.pixels), options.repeats, not options.no_sklearn)
    print(f"machine: {platform.processor() or platform.machine()}, Python {platform.python_version()}; medians\n")
    print(f"| five exact pixel numbers, {options.pixels / 1e6:g} M float16 pixels | s | ratio |\n|---|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.3f} | {seconds / rows[0][1]:.0f} |")
    state = 2 * BINS * 8 + 4 * BINS * 4
    print(
        f"\nstate: {state / 2**20:.1f} MiB of counters, whatever the number of pixels (process: {before >> 10} MiB)\n"
    )
    found, blobs = component_rows(options.repeats, options.naive_frames)
    print(f"| components, 720x1280, {blobs} predicted blobs a frame | kept | ms a frame | loops, ms a frame | ratio |")
    print("|---|---|---|---|---|")
    for track, kept, ours, theirs in found:
        print(f"| {track} track | {kept} | {1e3 * ours:.1f} | {1e3 * theirs:.0f} | {theirs / ours:.0f} |")
    ours, theirs, values = bootstrap_rows(options.repeats)
    print(f"\n| bootstrap, 1000 resamples of 100 frames, {values} values a frame | s |\n|---|---|")
    print(f"| xenomask | {ours:.2f} |\n| each resample anew (from 20) | {theirs:.1f} |")


if __name__ == "__main__":
    main()
