"""One training step: a plain loop on transformers' module and loss against ours, in turn in one process.

    python benchmarks/train_step.py [nano-s nano-l] [--threads 1 2] [--steps 15] [--profile]

Both start from the same weights and see the same batches and random points, so that their losses agree; the largest
difference is printed. Frames are drawn (4 crops of 192x384, as the shipped members are trained). Medians of wall
seconds and of CPU seconds, which other processes on the machine disturb less; prints a Markdown table.
"""

import argparse
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.models import build
from xenomask.models.deformable import plain
from xenomask.train import TrainConfig
from xenomask.train import step as own
from xenomask.train.batches import Batches, step_seed
from xenomask.train.config import Data, Optim
from xenomask.train.engine import open_engine
from xenomask.train.optim import lr_factor, parameter_groups
from xenomask.train.records import Records
from xenomask.types import VOID

STAGES = ("data", "forward", "loss", "backward", "optimizer", "step")


class Clock:
    """Wall and CPU seconds by (loop, stage), a list of one number for each step."""

    def __init__(self):
        self.seconds = defaultdict(list)
        self.loop = ""

    def timed(self, stage, f):
        def run(*args, **kwargs):
            wall, cpu = time.perf_counter(), time.process_time()
            result = f(*args, **kwargs)
            self.seconds[self.loop, stage].append((time.perf_counter() - wall, time.process_time() - cpu))
            return result

        return run

    def median(self, loop, stage):
        values = np.array(self.seconds[loop, stage])
        if stage == "forward" and loop == "plain":  # its loss runs within
            values = values - np.array(self.seconds[loop, "loss"])
        return np.median(values[1:], axis=0)  # the first step warms up


def float_masks(batch):
    """What transformers is trained on: a float mask for every class in a crop."""
    classes = [label.unique()[label.unique() != VOID] for label in batch["labels"]]
    masks = [(y[None] == c[:, None, None]).float() for y, c in zip(batch["labels"], classes, strict=True)]
    return {"pixel_values": batch["pixel_values"], "mask_labels": masks, "class_labels": [c.long() for c in classes]}


def plain_step(network, optimizer, batch, config, step):
    """The usual loop: the module computes its own loss."""
    network.module.train()
    torch.manual_seed(step_seed(config.seed, step, 1))
    images = batch["pixel_values"].to(memory_format=torch.channels_last)
    loss = network.module(**{**batch, "pixel_values": images}).loss.sum()
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.module.parameters(), config.optim.clip)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * lr_factor(config.optim, step)
    optimizer.step()
    return loss.item(), norm.item()


def side(name, config, clock):
    torch.manual_seed(0)
    network = build(name)
    optimizer = torch.optim.AdamW(parameter_groups(network.module, config.optim))
    network.module.forward = clock.timed("forward", network.module.forward)
    optimizer.step = clock.timed("optimizer", optimizer.step)
    return SimpleNamespace(network=network, optimizer=optimizer)


def compare(name, threads, steps, scenes, profiled=False):
    """(clock, largest relative difference of the losses of the first three steps)."""
    torch.set_num_threads(threads)
    clock = Clock()
    config = TrainConfig(preset=name, work_dir=Path("."), data=Data(train=scenes), optim=Optim(iterations=1000))
    ours, usual = side(name, config, clock), side(name, config, clock)
    engine = open_engine(config, "cpu")
    run = own.Run(config, engine, ours.network, ours.network.module, ours.optimizer, None, [], Records(None))
    usual.network.module.get_loss_dict = clock.timed("loss", usual.network.module.get_loss_dict)
    source = Batches(
        open_dataset("folder", scenes, coding="train_ids"), config.augment, ours.network.preprocess, 4, config.seed
    )
    set_loss, backward, apart = own.set_loss, torch.Tensor.backward, 0.0
    load = {"ours": source.__getitem__, "plain": lambda i: float_masks(source[i])}
    own.set_loss, torch.Tensor.backward = clock.timed("loss", set_loss), clock.timed("backward", backward)
    try:
        for step in range(steps):
            losses = {}
            for clock.loop in ("ours", "plain") if step % 2 else ("plain", "ours"):
                batch = clock.timed("data", load[clock.loop])(step)
                if clock.loop == "ours":
                    losses["ours"], *_ = clock.timed("step", own.train_step)(run, batch, step)
                else:
                    with plain(usual.network.module):
                        step_of = clock.timed("step", plain_step)
                        losses["plain"], _ = step_of(usual.network, usual.optimizer, batch, config, step)
            if step < 3:  # by their points, which are drawn by image here and by batch there
                apart = max(apart, abs(losses["ours"] / losses["plain"] - 1))
    finally:
        own.set_loss, torch.Tensor.backward = set_loss, backward
    if profiled:
        batches = [source[step] for step in range(3)]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            for step, batch in enumerate(batches):
                own.train_step(run, batch, step)
        found = sorted(seen.key_averages(), key=lambda e: -e.self_cpu_time_total)
        whole = sum(e.self_cpu_time_total for e in found)
        shares = [f"{e.key} {e.self_cpu_time_total / whole:.1%}" for e in found[:12]]
        print(f"our step, share of the time in operations, {name}: {', '.join(shares)}", flush=True)
    return clock, apart


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("presets", nargs="*", default=["nano-s", "nano-l"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="also print what our step spends its time on")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {args.steps} steps each\n")
    print(f"| preset | threads | loop | clock | {' | '.join(STAGES)} | data + step | times faster |")
    print("|---" * (len(STAGES) + 6) + "|")
    with tempfile.TemporaryDirectory() as folder:
        scenes = write_scenes(Path(folder), "train-ids", 8, size=(256, 512))
        for name in args.presets:
            for threads in args.threads:
                clock, apart = compare(name, threads, args.steps, scenes, args.profile)
                for i, kind in enumerate(("wall", "CPU")):
                    rows = {x: [clock.median(x, s)[i] for s in STAGES] for x in ("plain", "ours")}
                    total = {x: row[0] + row[-1] for x, row in rows.items()}
                    for x, row in rows.items():
                        cells = " | ".join(f"{v:.3f}" for v in (*row, total[x]))
                        faster = f"{total['plain'] / total['ours']:.2f}" if x == "ours" else ""
                        print(f"| {name} | {threads} | {x} | {kind} | {cells} | {faster} |", flush=True)
                print(f"largest difference of the losses of the first steps, {name}: {apart:.1e}", flush=True)


if __name__ == "__main__":
    main()
