"""A training step on a GPU: a plain eager float32 loop on transformers' loss against ours, with bfloat16.

    python benchmarks/train_gpu.py [swin-s swin-l] [--batch 2] [--size 512 1024] [--steps 20] [--compile]

Crops of drawn scenes, made beforehand, so that no loader is measured. The loops run one after the other, each from the
same weights and with the memory of the one before given back. Medians of wall seconds with the device waited for; peak
memory is what torch allocated. Prints a Markdown table. With --device cpu it only shows that it runs.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from train_step import float_masks, plain_step

from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.models import build
from xenomask.models.deformable import plain
from xenomask.train import TrainConfig
from xenomask.train.batches import Batches
from xenomask.train.config import Augment, Data, Engine, Optim
from xenomask.train.engine import open_engine
from xenomask.train.optim import parameter_groups
from xenomask.train.records import Records
from xenomask.train.step import Run, train_step


def measured(step, batches, steps: int, device: str) -> tuple[float, float]:
    """(median seconds of a step, peak memory in GB); two steps warm up."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for i in range(steps + 2):
        start = time.perf_counter()
        step(batches[i % len(batches)], i)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[2:])), torch.cuda.max_memory_allocated() / 1e9 if on_gpu else float("nan")


def moved(x, device: str):
    if isinstance(x, torch.Tensor):
        return x.to(device)
    return [moved(v, device) for v in x]


def usual(config: TrainConfig, batches, steps: int, device: str) -> tuple[float, float]:
    torch.manual_seed(0)
    network = build(config.preset)
    network.module.to(device)
    optimizer = torch.optim.AdamW(parameter_groups(network.module, config.optim))
    with_masks = [{k: moved(v, device) for k, v in float_masks(b).items()} for b in batches]
    with plain(network.module):
        return measured(lambda b, i: plain_step(network, optimizer, b, config, i), with_masks, steps, device)


def ours(config: TrainConfig, batches, steps: int, device: str) -> tuple[float, float]:
    torch.manual_seed(0)
    network = build(config.preset)
    engine = open_engine(config, device)
    network.module.to(engine.device)
    module, optimizer = engine.prepare(network.module, config)
    run = Run(config, engine, network, module, optimizer, None, [], Records(None))
    return measured(lambda b, i: train_step(run, b, i), batches, steps, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=["swin-s", "swin-l"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile, too")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    height, width = options.size
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(f"{name}, torch {torch.__version__}, batch {options.batch} of {height}x{width}, {options.steps} steps\n")
    print("| preset | loop | s a step | steps/s | peak, GB | times faster |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        scenes = write_scenes(Path(folder), "train-ids", 4 * options.batch, size=(height, width))
        for preset in options.presets:
            base = TrainConfig(
                preset=preset, work_dir=Path(folder) / "out", data=Data(train=scenes),
                augment=Augment(crop=(height, width)), optim=Optim(iterations=1000, batch=options.batch),
            )  # fmt: skip
            data = open_dataset("folder", scenes, coding="train_ids")
            source = Batches(data, base.augment, build(preset).preprocess, options.batch, base.seed)
            batches = [source[i] for i in range(4)]
            ways = {"plain, float32": (usual, base)}
            for compiled in (False, True)[: 1 + options.compile]:
                own = base.model_copy(update={"engine": Engine(precision="bf16", compile=compiled)})
                ways["ours, bfloat16" + (", compiled" if compiled else "")] = (ours, own)
            first = 0.0
            for way, (loop, config) in ways.items():
                seconds, peak = loop(config, batches, options.steps, options.device)
                first = first or seconds
                print(f"| {preset} | {way} | {seconds:.3f} | {1 / seconds:.2f} | {peak:.2f} | {first / seconds:.2f} |")
                gc.collect()
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
