"""Which detector, score and threshold to ship, by one number of development sets and ordinary photos.

    python benchmarks/choose.py --data ../shared/data nano nano:nano-l work_dirs/nano-l-general/iter_1600 \\
        --scores max_logit,rejection --out choice.json

A detector is a folder (of `xenomask quantize` too), a name, NAME:MEMBER, or a checkpoint folder. The number, written
down before anything was chosen by it (docs/ablations.md): the mean of AUPR (pooled, exact, every second pixel in each
direction) over ObstacleTrack, Fishyscapes Static and AnomalyTrack, minus the mean over Cityscapes val, CamVid test and
kitti_rural of the share of ordinary pixels above the threshold that finds half of the anomalous pixels (the mean of the
sets' recalls is .5).
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from xenomask import load_model
from xenomask.datasets import open_dataset
from xenomask.datasets.read import read_photo
from xenomask.detector import Detector, Member
from xenomask.detector.find import QUANTIZED
from xenomask.export.quantize import open_quantized
from xenomask.metrics.counters import Counters, FrameCounters, count, pool, values
from xenomask.metrics.curves import curve
from xenomask.metrics.table import numbers
from xenomask.scores import get_score
from xenomask.types import QuerySet

SETS = {
    "OT": ("obstacle-track", "smiyc"),
    "FS": ("fishyscapes-static", "Validation_Dataset"),
    "AT": ("anomaly-track", "smiyc"),
}
ORDINARY = {
    "city": ("cityscapes_256/val/images/*", (512, 256)),
    "camvid": ("driving_2/camvid/images/test_*", None),
    "rural": ("driving_2_unlabelled/kitti_rural/**/*.*", None),
}


def detector(name: str) -> Detector:
    """A detector, one member of it (NAME:MEMBER), or a checkpoint as a detector."""
    if (Path(name) / "config.json").is_file():
        return Detector(name, (Member(Path(name).name, load_model(name), QuerySet(), get_score("max_logit"), 1.0),))
    folder, _, member = name.partition(":")
    found = open_quantized(Path(folder)) if (Path(folder) / QUANTIZED).is_file() else Detector.from_folder(folder)
    return found.only(member) if member else found


def maps(d: Detector, scores: list[str], image: np.ndarray) -> dict[str, np.ndarray]:
    """Every second pixel of the maps by these scores, all members weighted alike; the networks run once."""
    outputs = {m.name: m.network.predict(image) for m in d.members}
    ways = {s: d.with_score(s) for s in scores}
    return {s: way.fuse([outputs[m.name] for m in way.used]).value[::2, ::2] for s, way in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="*", default=["nano"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scores", default="max_logit")
    parser.add_argument("--photos", type=int, default=40, help="of each ordinary set, evenly spread")
    parser.add_argument("--size", type=int, help="shortest edge of the networks' input")
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    scores, rows = args.scores.split(","), []
    for name in args.detectors:
        d = detector(name)
        if args.size:
            members = (replace(m.network, preprocess=replace(m.network.preprocess, size=args.size)) for m in d.members)
            d = replace(d, members=tuple(replace(m, network=n) for m, n in zip(d.members, members, strict=True)))
        d = d if d.used[0].network.run else d.with_runtime(args.runtime)  # int8 has its own
        sets: dict[str, dict[str, Counters]] = {s: {} for s in scores}
        for key, (data, folder) in SETS.items():
            dataset = open_dataset(data, args.data / folder)
            found: dict[str, list[FrameCounters]] = {s: [] for s in scores}
            for frame in track(dataset.frames, f"{name} {key}", transient=True):
                sample = dataset.sample(frame)
                for s, value in maps(d, scores, sample.image).items():
                    found[s].append(count(value, sample.label[::2, ::2]))
            for s in scores:
                sets[s][key] = pool(found[s])
        ordinary: dict[str, dict[str, list[FrameCounters]]] = {s: {k: [] for k in ORDINARY} for s in scores}
        for key, (pattern, size) in ORDINARY.items():
            paths = sorted(p for p in args.data.glob(pattern) if p.is_file())
            step = max(1, len(paths) // args.photos)
            for path in track(list(islice(paths[::step], args.photos)), f"{name} {key}", transient=True):
                image = read_photo(path)
                image = image if size is None else cv2.resize(image, size)
                for s, value in maps(d, scores, image).items():
                    ordinary[s][key].append(count(value, np.zeros(value.shape, np.uint8)))
        for s in scores:
            rows.append(summary(name, s, sets[s], {k: pool(v) for k, v in ordinary[s].items()}))
            print(json.dumps(rows[-1]), flush=True)
    keys = ["OT", "FS", "AT", "mean", "city", "camvid", "rural", "false", "number"]
    table = Table("detector, score", *keys, "threshold")
    for row in rows:
        table.add_row(
            f"{row['detector'][-28:]} {row['score']}", *(f"{row[k]:.3f}" for k in keys), f"{row['threshold']:.3f}"
        )
    Console().print(table)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


def above(counts: np.ndarray) -> np.ndarray:
    """The share of pixels above each float16, in rising order: those at or above the next."""
    return np.append(counts[::-1].cumsum()[::-1][1:], 0) / counts.sum()


def summary(name: str, score: str, sets: Mapping[str, Counters], ordinary: Mapping[str, Counters]) -> dict:
    """AUPR by set, the share of false pixels by ordinary set at half of the anomalous ones, and the number."""
    found = {k: numbers(curve(c))["aupr_sum"] for k, c in sets.items()}
    recall = np.mean([above(c.positive) for c in sets.values()], 0)
    held = np.sum([c.positive for c in sets.values()], 0) > 0
    at = int(np.flatnonzero(held & (recall <= 0.5))[0])
    false = {k: float(above(c.negative)[at]) for k, c in ordinary.items()}
    mean, alarms = float(np.mean([*found.values()])), float(np.mean([*false.values()]))
    return {
        "detector": name, "score": score, **found, "mean": mean, **false, "false": alarms, "number": mean - alarms,
        "threshold": float(values(np.array([at]))[0]),
    }  # fmt: skip


if __name__ == "__main__":
    main()
