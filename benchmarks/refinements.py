"""Refinements of a detector's maps: what each gains on the three development sets, and what it costs.

    python benchmarks/refinements.py --data ../shared/data nano-general --out benchmarks/refinements.json
    python docs/scripts/refinement_pages.py          # these numbers into the pages

The networks run once a photo; their outputs stay in --cache as float16 (four MB a photo). The rule, written down before
anything was chosen by it, is that of benchmarks/choose.py: the number, mean AUPR minus the share of false pixels; a
setting that leads a simpler one by less than .01 is not taken. AP50 is of objects of .1 % of the photo or more above
the threshold that lets as many pixels of ordinary photos through as the detector's default one does on its own maps.
Intervals are bootstrap ones over frames (95 %); "gain" is paired: the same frames are drawn for both.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from choose import ORDINARY, SETS, summary
from rich.console import Console
from rich.progress import track
from rich.table import Table

from xenomask.datasets import open_dataset
from xenomask.datasets.read import read_photo
from xenomask.detector import Detector
from xenomask.detector.folder import fingerprint
from xenomask.detector.fuse import has_masks
from xenomask.evaluation.evaluate import track_of
from xenomask.files import atomic
from xenomask.masks import MaskOutput
from xenomask.metrics import components, resampling
from xenomask.metrics.counters import FrameCounters, count, pool
from xenomask.metrics.curves import curve
from xenomask.metrics.frames import measure
from xenomask.metrics.instances import FrameInstances, average_precision, frame_instances
from xenomask.metrics.table import numbers
from xenomask.objects.objects import SMALLEST, find_objects, smallest_area
from xenomask.refine import get_refinement, parse_refinement
from xenomask.refine.cells import moved, shown, soft_cells, to_cells
from xenomask.refine.regions import superpixels, trimmed_means

# "walk" and "residual:N" are not among them: they run the networks once more, and the walk takes ten times as long
ROWS = (
    "plain", "vehicles:quantile=.5", "vehicles", "vehicles:quantile=.9", "pooling:up=.3,down=.3", "pooling",
    "vehicles+pooling:up=.2,down=.2", "vehicles+masks", "masks", "masks:blend=.6", "ascending masks:blend=.3",
    "ascending masks:blend=1", "ugains", "attenuation:alpha=.5", "attenuation", "superpixels", "true boxes",
)  # fmt: skip
NUMBERS = ("aupr", "fpr95", "f1_star", "ap50")
TRAINING = "cityscapes_256/train/images"
KEPT, RESIDUAL = (40, 80, 120), 0.2  # of the 160 directions; what a residual of 1 adds to the score


@dataclass(frozen=True)
class Shown:
    """A photo with what the networks gave for it; `walked`: after a random walk on the pixel decoder's features.

    `left` (K, a, b): the features' residuals, 0 at the median of training's cells and 1 at their 95th percentile.
    """

    image: np.ndarray
    label: np.ndarray
    outputs: tuple[MaskOutput, ...]
    walked: tuple[MaskOutput, ...]
    left: np.ndarray


def walk(features: torch.Tensor, steps: int = 6, mix: float = 0.99, temperature: float = 0.01) -> torch.Tensor:
    """RWPM (ZelongZeng/RWPM): F := mix W F + (1 - mix) F0 in each cell of a 2x2 grid, features (1, C, h, w).

    W is the row softmax of the cosine similarities / temperature, without the diagonal; the released code takes one
    step before its TT = 5. NOTE: seams are left as they are; the released code multiplies 4x4 blocks of the score by
    the ratio along their borders, which scores on both sides of zero do not allow.
    """
    out = features.clone()
    h, w = features.shape[2:]
    for rows in (slice(0, h // 2), slice(h // 2, h)):
        for columns in (slice(0, w // 2), slice(w // 2, w)):
            part = features[0, :, rows, columns]
            first = part.flatten(1).T
            unit = torch.nn.functional.normalize(first, dim=1)
            similar = (unit @ unit.T).div_(temperature).fill_diagonal_(-1e9).softmax(1)
            f = first
            for _ in range(steps):
                f = mix * (similar @ f) + (1 - mix) * first
            out[0, :, rows, columns] = f.T.reshape(part.shape)
    return out


def decoded(d: Detector, image: np.ndarray, change: Callable[[torch.Tensor], torch.Tensor]) -> tuple[MaskOutput, ...]:
    """The networks' outputs with a change of the features between pixel decoder and transformer decoder."""

    def hook(_module, _given, found):
        return replace(found, decoder_last_hidden_state=change(found.decoder_last_hidden_state))

    networks: list[Any] = [m.network.module for m in d.used if has_masks(m)]
    hooks = [n.model.pixel_level_module.register_forward_hook(hook) for n in networks]
    try:
        return d.infer([d.prepare(image)])[0]
    finally:
        for h in hooks:
            h.remove()


def features(d: Detector, image: np.ndarray) -> tuple[np.ndarray, tuple[MaskOutput, ...]]:
    """The pixel decoder's features (C, a, b) of the first network that has masks, without padding, and all outputs."""
    found: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        found.append(x[0].clone())
        return x

    outputs = decoded(d, image, keep)
    a, b = shown(outputs[masked(d)])
    return found[0][:, :a, :b].double().numpy(), outputs


def masked(d: Detector) -> int:
    """The place of the first network that has masks."""
    return next(i for i, m in enumerate(d.used) if has_masks(m))


def directions(d: Detector, photos: Sequence[np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """`mean` and `axes` (C, C), the largest first, of the features of training photos: one pass, no gradient.

    `ends` (2, K) are the median and the 95th percentile of these cells' residuals outside of the KEPT largest.
    """
    path = folder / "directions.npz"
    if not path.is_file():
        rng, cells = np.random.default_rng(0), []
        for image in track(photos, "training", transient=True):
            f, _ = features(d, image)
            own = f.reshape(len(f), -1).T
            cells.append(own[rng.permutation(len(own))[:60]])
        f = np.concatenate(cells)
        axes = np.linalg.eigh(np.cov(f.T))[1][:, ::-1]
        ends = np.quantile(residuals(f.T, f.mean(0), axes), [0.5, 0.95], axis=1)
        np.savez(path, mean=f.mean(0), axes=axes, ends=ends)
    with np.load(path) as z:
        return dict(z)


def residuals(f: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """ViM's residuals (K, ...) of features (C, ...): their length outside of the KEPT largest directions.

    NOTE: ViM (Wang et al., CVPR 2022) takes the origin from the linear layer that the features feed, which these do
    not: it is the mean. It scales by logits and takes a softmax, which a map of one score does not have.
    """
    own = np.tensordot(axes.T, f - mean.reshape(-1, *[1] * (f.ndim - 1)), 1) ** 2
    return np.sqrt(np.stack([own[k:].sum(0) for k in KEPT]))


def kept(path: Path, outputs: Callable[[], Sequence[MaskOutput]]) -> tuple[MaskOutput, ...]:
    """The networks' outputs of a photo, from the cache where they are there."""
    if not path.is_file():
        found = {}
        for i, o in enumerate(outputs()):
            sizes = np.array([o.padded_size, o.input_size, o.image_size])
            found |= {f"{i}c": o.class_logits.numpy().astype(np.float16), f"{i}s": sizes}
            found[f"{i}m"] = o.mask_logits.clamp(-6e4, 6e4).numpy().astype(np.float16)
        part = path.with_name(f"part-{path.name}")
        np.savez(part, **found)
        part.rename(path)
    with np.load(path) as z:

        def one(i: int) -> MaskOutput:
            sizes = (tuple(int(n) for n in row) for row in z[f"{i}s"])
            return MaskOutput(*(torch.from_numpy(z[f"{i}{k}"].astype(np.float32)) for k in "cm"), *sizes)

        return tuple(one(i) for i in range(len(z.files) // 3))


def ascending(plain: np.ndarray, output: MaskOutput, blend: float, trim: float) -> np.ndarray:
    """The published order: masks {m_q > .5} in ascending area, each of what the ones before it left.

    Objectomaly (hon121215/Objectomaly) and RAAS so with SAM's masks: the largest has the last word.
    """
    before = to_cells(plain, output)
    s, m = before.copy(), np.asarray(soft_cells(output)) > 0.5
    for own in sorted((x for x in m if x.any()), key=lambda x: x.sum()):
        level = trimmed_means(s[own], np.zeros(own.sum(), int), trim)
        s[own] += np.float32(blend) * (level - s[own])
    return moved(plain, s - before, output)


def true_boxes(label: np.ndarray) -> np.ndarray:
    """The boxes of the label's anomalies, as a perfect detector of any object would give them: an upper bound."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((label == 1).astype(np.uint8), connectivity=8)
    return np.concatenate([stats[1:, :4], np.ones((len(stats) - 1, 1))], 1).astype(np.float64).reshape(-1, 5)


def refined(d: Detector, row: str, plain: np.ndarray, seen: Shown) -> tuple[np.ndarray, float]:
    """The map of one row and the CPU seconds that the refinement took, beyond networks and score."""
    start = time.process_time()
    if row == "plain":
        value = plain
    elif row == "superpixels":
        value = get_refinement("segments")(plain, superpixels(seen.image))
    elif row.startswith("ascending masks:"):
        value = ascending(plain, seen.outputs[masked(d)], float(row.partition("=")[2]), 0.1)
    elif row == "true boxes":
        value = get_refinement("boxes")(plain, true_boxes(seen.label))
    elif row == "walk":
        value = d.fuse(seen.walked).value
    elif row.startswith("residual:"):
        own = seen.left[KEPT.index(int(row.partition(":")[2]))]
        value = moved(plain, RESIDUAL * own, seen.outputs[masked(d)])
    else:
        own = replace(d, refine=tuple(parse_refinement(r) for r in row.split("+")))
        value = own.refined(replace_value(plain, d), seen.outputs).value
    return value, time.process_time() - start


def replace_value(plain: np.ndarray, d: Detector):
    """The map as a ScoreMap."""
    from xenomask.types import ScoreMap

    return ScoreMap(plain, d.map_score)


def photos(d: Detector, args: argparse.Namespace, folder: Path, walks: bool, axes: Any) -> dict[str, list[Shown]]:
    """{set: photos with the networks' outputs}, the development sets and the ordinary ones; nothing of absent sets."""
    found: dict[str, list[Shown]] = {}

    def add(key: str, name: str, image: np.ndarray, label: np.ndarray) -> None:
        path = folder / f"{key}-{name.replace('/', '_')}.npz"
        left = along(path, image) if axes else np.zeros(0)
        outputs = kept(path, lambda: d.infer([d.prepare(image)])[0])
        other = kept(path.with_name(f"walk-{path.name}"), lambda: decoded(d, image, walk)) if walks else ()
        found.setdefault(key, []).append(Shown(image, label, outputs, other, left))

    def along(outputs: Path, image: np.ndarray) -> np.ndarray:
        path = outputs.with_name(f"left-{outputs.name}")
        if not path.is_file():
            low, high = axes["ends"][..., None, None]
            f, own = features(d, image)
            kept(outputs, lambda: own)
            np.savez(path, left=((residuals(f, axes["mean"], axes["axes"]) - low) / (high - low)).astype(np.float32))
        with np.load(path) as z:
            return z["left"]

    for key, (name, where) in SETS.items():
        data = open_dataset(name, args.data / where)
        for frame in track(data.frames[:: args.every], key, transient=True):
            sample = data.sample(frame)
            add(key, frame.id, sample.image, sample.label)
    for key, (pattern, size) in ORDINARY.items():
        paths = sorted(p for p in args.data.glob(pattern) if p.is_file())
        for path in track(list(islice(paths[:: max(1, len(paths) // args.photos)], args.photos)), key, transient=True):
            image = read_photo(path)
            image = image if size is None else cv2.resize(image, size)
            add(key, path.stem, image, np.zeros(image.shape[:2], np.uint8))
    return found


def of_set(maps: list[np.ndarray], labels: list[np.ndarray], kind: str, threshold: float, weights: np.ndarray) -> dict:
    """The four numbers of one set, and each of them in each resample."""
    ids = [f"{i:03d}" for i in range(len(maps))]
    m = measure(ids, lambda i: (maps[int(i)], labels[int(i)]), kind, threads=1)
    frames, tallies = list(m.counters.values()), np.array(list(m.tallies.values()))
    found = numbers(curve(pool(frames)))
    drawn = resampling.curve_numbers(*resampling.exact_steps(frames), weights, 1)
    own = [instances(v, y, threshold) for v, y in zip(maps, labels, strict=True)]
    few = weights[:200].astype(int)
    return {
        "aupr": (found["aupr_sum"], drawn["aupr_sum"]), "fpr95": (found["fpr95"], drawn["fpr95"]),
        "f1_star": (components.numbers(tallies.sum(0))["f1_mean"], components.numbers(weights @ tallies)["f1_mean"]),
        "ap50": (average_precision(own, 0.5), np.array([average_precision([f for f, n in zip(own, w, strict=True)
                                                       for _ in range(n)], 0.5) for w in few])),
    }  # fmt: skip


def instances(value: np.ndarray, label: np.ndarray, threshold: float) -> FrameInstances:
    """A frame's objects above the threshold against its label."""
    objects = find_objects(value, threshold, smallest_area(SMALLEST, value.size))
    return frame_instances([o.mask for o in objects], [o.score for o in objects], label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", nargs="?", default="nano-general")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("work_dirs/refinements"))
    parser.add_argument("--every", type=int, default=1, help="only every N-th frame of the development sets")
    parser.add_argument("--photos", type=int, default=15, help="of each ordinary set, evenly spread")
    parser.add_argument("--rows", default="/".join(ROWS), help="refinements, with / between them; A+B: one after the "
                        "other")  # fmt: skip
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--out", type=Path, help="its other rows, of an earlier run with this detector, stay")
    args = parser.parse_args()
    if not all((args.data / where).is_dir() for _, where in SETS.values()):
        return print(f"skipped: {args.data} does not hold {', '.join(name for name, _ in SETS.values())}")
    d = Detector.from_folder(args.detector).with_refine(())
    rows = ["plain", *(r for r in args.rows.split("/") if r != "plain")]
    threshold = d.thresholds.get("default", {}).get("value", 0.0)
    folder = args.cache / fingerprint(d.describe())[:16]
    folder.mkdir(parents=True, exist_ok=True)
    axes = {}
    if any(r.startswith("residual:") for r in rows):
        paths = sorted((args.data / TRAINING).glob("*"))
        axes = directions(
            d, [cv2.resize(read_photo(p), (512, 256)) for p in paths[:: max(1, len(paths) // 200)]], folder
        )
    seen = photos(d, args, folder, "walk" in rows, axes)
    plain = {k: [d.fuse(s.outputs).value for s in own] for k, own in seen.items()}
    ordinary = np.concatenate([v.ravel() for k in ORDINARY for v in plain[k]])
    share, found = float((ordinary > threshold).mean()), {}
    results = {r["refinement"]: r for r in json.loads(args.out.read_text())} if args.out and args.out.is_file() else {}
    for row in rows:
        maps: dict[str, list[np.ndarray]] = {}
        seconds: list[float] = []
        for key in (*ORDINARY, *SETS):
            made = [refined(d, row, v, s) for v, s in zip(plain[key], seen[key], strict=True)]
            maps[key] = [v.astype(np.float16) for v, _ in made]
            seconds += [t for _, t in made] if key in SETS else []
        own = float(np.quantile(np.concatenate([v.ravel() for k in ORDINARY for v in maps[k]]).astype(np.float32),
                                1 - share))  # fmt: skip
        result = {"refinement": row, "threshold": own, "ms": 1000 * float(np.median(seconds))}
        result["false_objects"] = float(np.mean([np.mean([len(find_objects(v, own, smallest_area(SMALLEST, v.size)))
                                                 for v in maps[k]]) for k in ORDINARY]))  # fmt: skip
        halves: dict[str, list[FrameCounters]] = {
            k: [count(v[::2, ::2], s.label[::2, ::2]) for v, s in zip(maps[k], seen[k], strict=True)] for k in maps
        }
        pooled = {k: pool(v) for k, v in halves.items()}
        result |= {k: v for k, v in summary(args.detector, row, {k: pooled[k] for k in SETS},
                                            {k: pooled[k] for k in ORDINARY}).items()
                   if k in ("mean", "false", "number")}  # fmt: skip
        for key, (name, _) in SETS.items():
            weights = resampling.draw(len(maps[key]), args.resamples, 0)
            labels = [s.label for s in seen[key]]
            found[row, key] = of_set(maps[key], labels, track_of(name, None) or "anomaly", own, weights)
            for n, (value, drawn) in found[row, key].items():
                first = found[rows[0], key][n][1]
                result[f"{key} {n}"] = [float(value), *resampling.interval(drawn), *resampling.interval(drawn - first)]
        results[row] = result
        print(json.dumps(result), flush=True)
        if args.out:
            with atomic(args.out) as part:
                part.write_text("[\n" + ",\n".join(map(json.dumps, results.values())) + "\n]\n")
    show([results[row] for row in rows])


def show(results: list[dict]) -> None:
    """One table of the numbers; intervals of the gain in AUPR over the first row."""
    table = Table("refinement", "number", "false", "objects", "ms", *(f"{k} {n}" for k in SETS for n in NUMBERS))
    for r in results:
        cells = [f"{r[f'{k} {n}'][0]:.3f}" for k in SETS for n in NUMBERS]
        table.add_row(r["refinement"], f"{r['number']:.4f}", f"{r['false']:.4f}", f"{r['false_objects']:.2f}",
                      f"{r['ms']:.0f}", *cells)  # fmt: skip
    Console(width=200).print(table)
    for r in results:
        print("| " + " | ".join([r["refinement"], *(cell(r[f"{k} {n}"]) for k in SETS for n in NUMBERS)]) + " |")


def cell(x: Sequence[float]) -> str:
    """value (low to high)."""
    return " ".join(f"{v:.3f}".replace("0.", ".", 1) for v in x[:1]) + f" ({x[1]:.2f}-{x[2]:.2f})".replace("0.", ".")


if __name__ == "__main__":
    main()
