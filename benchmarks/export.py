"""How far an exported file's map is from the detector's own, and how long both take.

python benchmarks/export.py [--detector nano | --preset swin-s] [--formats onnx,openvino] [--score maskomaly_no_border]
                            [--size 1024x512] [--photo street.jpg]

--preset builds a network of random weights, its class layer 30 times as sure as drawn, so that queries are confident
and the scores vary; queries 3 and 17 stand for its outlier queries. It sees the photo at --size, not resized.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from xenomask.datasets import read_photo
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.detector.folder import assemble
from xenomask.export import FORMATS, ExportedDetector, export_detector, open_exported
from xenomask.models import build, load
from xenomask.queries import write_queries
from xenomask.types import QuerySet


def random_detector(preset: str, folder: Path) -> Detector:
    torch.manual_seed(0)
    network = build(preset)
    network = replace(network, preprocess=replace(network.preprocess, policy="none"))
    with torch.no_grad():
        network.module.get_submodule("class_predictor").weight *= 30  # pyright: ignore
    network.save(folder / "checkpoint")
    sha = load(folder / "checkpoint").sha256
    write_queries(folder / "checkpoint", QuerySet(sha, outlier={3: 0.5, 17: 0.5}))
    path = assemble(folder / "detector", preset, [(preset, folder / "checkpoint")], [1.0], "maskomaly")
    return Detector.from_folder(path)


def seconds(do) -> tuple[float, Any]:
    start = time.perf_counter()
    found = do()
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--detector", default="nano")
    parser.add_argument("--preset")
    parser.add_argument("--formats", default="onnx,openvino")
    parser.add_argument("--score")
    parser.add_argument("--size", default="1024x512")
    parser.add_argument("--photo", type=Path, help="also a real one, cut to the size's shape and resized to it")
    a = parser.parse_args()
    w, h = map(int, a.size.split("x"))
    images = {"drawn": draw_scene(0, (h, w)).image}
    if a.photo:
        photo = read_photo(a.photo)
        used = min(photo.shape[0], photo.shape[1] * h // w)
        images[a.photo.name] = cv2.resize(photo[-used:], (w, h), interpolation=cv2.INTER_AREA)
    with tempfile.TemporaryDirectory() as name:
        detector = random_detector(a.preset, Path(name)) if a.preset else Detector.from_folder(a.detector)
        detector = detector.with_score(a.score) if a.score else detector
        own = {k: seconds(lambda i=i: detector.detect(i).value) for k, i in images.items()}
        for format in a.formats.split(","):
            path = Path(name) / f"f{FORMATS[format]}"
            made, _ = seconds(lambda p=path, f=format: export_detector(detector, p, f, size=(h, w)))
            opened, exported = seconds(lambda p=path: open_exported(p))
            assert isinstance(exported, ExportedDetector)
            files = [p for p in (path, path.with_suffix(".bin")) if p.is_file()]
            size = sum(p.stat().st_size for p in files) / 1e6
            times = f"{size:.1f} MB written in {made:.1f} s, opened in {opened:.1f} s"
            print(f"{detector.name} {detector.score_name} {format} {w}x{h}: {times}", flush=True)
            for k, image in images.items():
                took, found = seconds(lambda i=image, e=exported: e.detect(i).value)
                d = np.abs(found - own[k][1])
                print(
                    f"  {k}: map {d.min():.0g}"
                    if d.max() == 0
                    else f"  {k}: largest |difference| {d.max():.2e}, "
                    f"pixels above 1e-3: {(d > 1e-3).sum()} of {d.size}; map {own[k][1].min():.3f} .. "
                    f"{own[k][1].max():.3f}, std {own[k][1].std():.3f}; {took:.2f} s, torch {own[k][0]:.2f} s",
                    flush=True,
                )


main()
