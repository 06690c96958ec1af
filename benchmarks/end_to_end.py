"""A whole detector on one photo: transformers' eager way against ours, and the share of each stage, in one run.

    python benchmarks/end_to_end.py --photo street.jpg [--runtimes torch openvino] [--threads 2] [--runs 7]
    python benchmarks/end_to_end.py --preset swin-s --size 512 1024 [--runs 3]

The first form runs the shipped detector's members, the second one network of random weights whose input is not
resized. "transformers" is its own eager float32 module, without our kernels, and Maskomaly in PyTorch on masks of the
photo's size. Every way sees the same resized input and gives the maps that are compared. One call of each in turn, so
that a machine that grows slower does so for all; medians of wall seconds; prints Markdown.
"""

import argparse
import copy
import platform
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from xenomask.datasets import read_photo
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector, Member
from xenomask.detector.fuse import ensemble
from xenomask.models import build
from xenomask.models.deformable import plain
from xenomask.models.preprocess import network_input
from xenomask.models.runtimes.runtime import with_runtime
from xenomask.scores import SCORES, score_all
from xenomask.store import write_map
from xenomask.types import QuerySet, ScoreMap

Seconds = dict[str, list[float]]


def timed(seconds: Seconds, stage: str, call):
    start = time.perf_counter()
    found = call()
    seconds[stage].append(time.perf_counter() - start)
    return found


def ours(members: list[Member], photo: Path, folder: Path, seconds: Seconds) -> np.ndarray:
    """The stages of `xenomask detect`, one after the other."""
    image = timed(seconds, "decode", lambda: read_photo(photo))
    inputs = timed(seconds, "preprocess", lambda: [network_input(m.network.preprocess, image) for m in members])
    del inputs  # `predict` makes its own: the stage is measured, and taken off the network's
    outputs = timed(seconds, "network", lambda: [m.network.predict(image) for m in members])
    seconds["network"][-1] -= seconds["preprocess"][-1]

    def joined() -> ScoreMap:
        maps = [score_all(o, m.queries, [m.score])[m.score.name] for o, m in zip(outputs, members, strict=True)]
        return ensemble(maps, [m.weight for m in members])

    found = timed(seconds, "score", joined)
    timed(seconds, "write", lambda: write_map(folder / "map.hdf5", found))
    return found.value


@torch.inference_mode()
def transformers(members: list[Member], modules: list, photo: Path, folder: Path, seconds: Seconds) -> np.ndarray:
    """The same with transformers' module and whole tensors."""
    image = timed(seconds, "decode", lambda: read_photo(photo))
    inputs = timed(seconds, "preprocess", lambda: [network_input(m.network.preprocess, image) for m in members])
    outputs = timed(seconds, "network", lambda: [f(pixel_values=x) for f, (x, _) in zip(modules, inputs, strict=True)])

    def joined() -> np.ndarray:
        value = 0
        for member, out, (x, used) in zip(members, outputs, inputs, strict=True):
            masks = torch.nn.functional.interpolate(out.masks_queries_logits, x.shape[-2:], mode="bilinear")
            masks = masks[:, :, : used[0], : used[1]]
            masks = torch.nn.functional.interpolate(masks, image.shape[:2], mode="bilinear")[0].sigmoid()
            p = out.class_queries_logits[0].softmax(-1)
            value = value + member.weight * member.score.rows(p, masks, member.queries)
        return np.asarray(value)

    found = timed(seconds, "score", joined)
    timed(
        seconds,
        "write",
        lambda: write_map(folder / "map.hdf5", ScoreMap(found, "+".join(m.score.name for m in members))),
    )
    return found


def random_member(preset: str) -> Member:
    torch.manual_seed(0)
    network = build(preset)
    with torch.no_grad():  # as sure as a trained network is, so that its queries are confident
        network.module.get_submodule("class_predictor").weight *= 30  # pyright: ignore
    network = replace(network, preprocess=replace(network.preprocess, policy="none"))
    return Member(preset, network, QuerySet(outlier={3: 0.5, 17: 0.5}), SCORES["maskomaly"], 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--preset", help="a network of random weights instead of the shipped detector")
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="of the drawn scene, without --photo")
    parser.add_argument("--runtimes", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    members = [random_member(options.preset)] if options.preset else list(Detector.from_folder("nano").members)
    modules = [copy.deepcopy(m.network.module).to(memory_format=torch.contiguous_format) for m in members]
    ways = {}
    for runtime in options.runtimes:
        ways[f"ours, {runtime}"] = [replace(m, network=with_runtime(m.network, runtime)) for m in members]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photo = options.photo or folder / "scene.png"
        if options.photo is None:
            from PIL import Image

            Image.fromarray(draw_scene(0, tuple(options.size)).image).save(photo)
        seconds: dict[str, Seconds] = {"transformers": defaultdict(list), **{w: defaultdict(list) for w in ways}}
        maps = {}
        for run in range(options.runs + 1):
            contexts = [plain(m) for m in modules]
            for c in contexts:
                c.__enter__()
            maps["transformers"] = transformers(members, modules, photo, folder, seconds["transformers"])
            for c in contexts:
                c.__exit__(None, None, None)
            for way, own in ways.items():
                maps[way] = ours(own, photo, folder, seconds[way])
            if run == 0:  # graphs are built, code is compiled
                seconds = {w: defaultdict(list) for w in seconds}
    total = {w: float(np.median(np.sum(list(s.values()), 0))) for w, s in seconds.items()}
    shape = "x".join(map(str, maps["transformers"].shape))
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}; "
          f"{options.preset or 'nano'}, {shape}, {options.runs} runs\n")  # fmt: skip
    stages = list(seconds["transformers"])
    print("| way | " + " | ".join(stages) + " | all, s | faster | largest difference |")
    print("|---|" + "---|" * (len(stages) + 3))
    for way, own in seconds.items():
        medians = [float(np.median(own[stage])) for stage in stages]
        cells = [f"{v:.3f} ({100 * v / sum(medians):.0f} %)" for v in medians]
        off = np.abs(maps[way] - maps["transformers"])
        print(f"| {way} | {' | '.join(cells)} | {total[way]:.3f} | {total['transformers'] / total[way]:.2f} | "
              f"{off.max():.1e} (above 1e-3: {(off > 1e-3).mean():.1e}) |")  # fmt: skip


if __name__ == "__main__":
    main()
