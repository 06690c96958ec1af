"""Thresholds by how often they raise a false alarm, and what they still find; for a detector's own and other scores.

    python benchmarks/alarms.py --data ../shared/data nano-general --scores own,max_logit,entropy --out alarms.json
    python benchmarks/alarms.py nano-general --rows alarms.json --into src/xenomask/detectors/nano-general

The rule, written down before anything was chosen by it: on ordinary photos (Cityscapes val, CamVid test, kitti_rural,
evenly spread; they hold no anomaly) an object of .1 % of the photo or more is a false one. The threshold "normal", a
detector's default, is the smallest one from which on the mean over the three sets of false objects a photo is at most
.5; "low" and "high" alarms are the same for .1 and 2. Beside it stands which share of the true anomalies (components of
the labels, .1 % or more) of AnomalyTrack and ObstacleTrack an object then finds, with IoU >= .25.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from choose import ORDINARY, detector
from rich.console import Console
from rich.progress import track
from rich.table import Table

from xenomask.datasets import open_dataset
from xenomask.datasets.read import read_photo
from xenomask.detector import Detector
from xenomask.detector.prediction import ALARMS
from xenomask.files import write_numbers
from xenomask.metrics.components import label_components
from xenomask.objects import SMALLEST

LEVELS = 80  # thresholds that are tried, between the 97th percentile of ordinary pixels and the largest of them
LABELLED = {"AT": "anomaly-track", "OT": "obstacle-track"}


def way_of(d: Detector, name: str) -> Detector:
    """The detector as it is ("own"), without its refinements ("unrefined"), or by another score."""
    return d if name == "own" else d.with_refine(()) if name == "unrefined" else d.with_score(name)


def maps(d: Detector, ways: dict[str, Detector], image: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of one photo by each way of scoring; the networks run once."""
    outputs = dict(zip((m.name for m in d.used), d.infer([d.prepare(image)])[0], strict=True))
    found = {}
    for name, way in ways.items():
        found[name] = way.fuse([outputs[m.name] for m in way.used]).value.astype(np.float16)
    return found


def sizes_above(value: np.ndarray, threshold: float) -> np.ndarray:
    """The sizes of the objects above a threshold."""
    _, size = label_components(value > np.float16(threshold))
    return size[1:][size[1:] >= SMALLEST * value.size]


def objects_found(value: np.ndarray, label: np.ndarray, threshold: float) -> tuple[int, int]:
    """How many true components of .1 % or more an object overlaps by IoU >= .25, void left out, and of how many."""
    number, size = label_components((value > np.float16(threshold)) & (label != 255))
    truth, true_size = label_components(label == 1)
    found = count = 0
    for k in np.flatnonzero(true_size >= SMALLEST * label.size):
        if k == 0:
            continue
        count += 1
        hit, overlap = np.unique(number[truth == k], return_counts=True)
        union = true_size[k] + size[hit] - overlap
        found += bool(((hit > 0) & (size[hit] >= SMALLEST * label.size) & (overlap >= 0.25 * union)).any())
    return found, count


def choose(false: np.ndarray, rate: float) -> int:
    """The first level from which on the false objects a photo stay at most `rate`.

    >>> choose(np.array([9.0, 0.4, 0.6, 0.5, 0.1, 0.0]), 0.5)
    3
    """
    too_many = np.flatnonzero(false > rate)
    return int(too_many[-1] + 1) if len(too_many) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", nargs="?", default="nano-general")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scores", default="own", help="own, unrefined, or names of scores")
    parser.add_argument("--refine", help="refine the maps, such as vehicles, or vehicles+pooling:up=.2,down=.2")
    parser.add_argument("--photos", type=int, default=15, help="of each ordinary set, evenly spread")
    parser.add_argument("--into", type=Path, help="detector folder that the thresholds are written into")
    parser.add_argument("--rows", type=Path, help="what --out of an earlier run wrote, instead of running the networks")
    parser.add_argument("--keep-default", action="store_true", help="--into leaves the default threshold as it is")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.rows:
        rows = json.loads(args.rows.read_text())
        show(rows)
        return store(rows, args.into, args.keep_default)
    d = detector(args.detector)
    d = d if args.refine is None else d.with_refine(args.refine.split("+"))
    ways = {s: way_of(d, s) for s in args.scores.split(",")}
    ordinary: dict[str, dict[str, list[np.ndarray]]] = {s: {k: [] for k in ORDINARY} for s in ways}
    for key, (pattern, size) in ORDINARY.items():
        paths = sorted(p for p in args.data.glob(pattern) if p.is_file())
        step = max(1, len(paths) // args.photos)
        for path in track(list(islice(paths[::step], args.photos)), key, transient=True):
            image = read_photo(path)
            for s, value in maps(d, ways, image if size is None else cv2.resize(image, size)).items():
                ordinary[s][key].append(value)
    frames = {k: open_dataset(name, args.data / "smiyc") for k, name in LABELLED.items()}
    labelled: dict[str, dict[str, list[tuple[np.ndarray, np.ndarray]]]] = {s: {k: [] for k in LABELLED} for s in ways}
    for key, data in frames.items():
        for frame in track(data.frames, key, transient=True):
            sample = data.sample(frame)
            for s, value in maps(d, ways, sample.image).items():
                labelled[s][key].append((value, sample.label))
    rows = []
    for s in ways:
        every = np.concatenate([v.ravel() for found in ordinary[s].values() for v in found]).astype(np.float32)
        levels = np.linspace(*np.quantile(every, [0.97, 1.0]), LEVELS)
        false = {k: np.array([[len(sizes_above(v, t)) for t in levels] for v in found]).mean(0)
                 for k, found in ordinary[s].items()}  # fmt: skip
        mean = np.mean([*false.values()], 0)
        for name, rate in ALARMS.items():
            at = min(choose(mean, rate), LEVELS - 1)
            t = float(levels[at])
            seen = {k: np.sum([objects_found(v, y, t) for v, y in found], 0) for k, found in labelled[s].items()}
            share = {k: float(np.mean(np.concatenate([v.ravel() > t for v in found]))) for k, found in
                     ordinary[s].items()}  # fmt: skip
            row = {"score": s, "alarms": name, "threshold": t, **{k: float(f[at]) for k, f in false.items()},
                   "false": float(mean[at]), "pixels": float(np.mean([*share.values()])),
                   **{k: float(n[0] / n[1]) for k, n in seen.items()}}  # fmt: skip
            rows.append(row)
    show(rows)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    if args.into:
        store(rows, args.into, args.keep_default)


def show(rows: list[dict]) -> None:
    """The rows as a table."""
    table = Table("score", "alarms", "threshold", "city", "camvid", "rural", "false", "pixels", "AT", "OT")
    for r in rows:
        table.add_row(r["score"], r["alarms"], f"{r['threshold']:.4f}", *(f"{r[k]:.2f}" for k in (*ORDINARY, "false")),
                      f"{100 * r['pixels']:.2f} %", f"{r['AT']:.2f}", f"{r['OT']:.2f}")  # fmt: skip
    Console().print(table)


def store(rows: list[dict], folder: Path, keep: bool) -> None:
    """Write the thresholds into a detector's folder: "low", "normal" (and "default"), "high", and "SCORE:low", ...

    One that finds nothing is left out; `keep`: the default stays as it is.
    """
    thresholds = {}
    for r in (r for r in rows if r["AT"] or r["OT"]):
        found = {
            "value": round(r["threshold"], 5),
            "origin": f"{r['false']:.2f} false objects an ordinary photo (mean of Cityscapes val, CamVid test, "
            f"kitti_rural); finds {100 * r['AT']:.0f} % of AnomalyTrack's and {100 * r['OT']:.0f} % of ObstacleTrack's "
            "objects (benchmarks/alarms.py)",
            "false_objects": round(r["false"], 3),
        }
        prefix = "" if r["score"] == "own" else f"{r['score']}:"
        names = [r["alarms"], *(["default"] if r["alarms"] == "normal" else [])]
        thresholds |= {f"{prefix}{n}": found for n in names}
    file = folder / "detector.json"
    table = json.loads(file.read_text())
    if keep:
        thresholds["default"] = table["thresholds"]["default"]
    write_numbers(file, {**table, "thresholds": thresholds})


if __name__ == "__main__":
    main()
