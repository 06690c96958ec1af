"""One step of training: a batch -> the loss, its gradient, the moved weights."""

import math
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from xenomask.errors import XenomaskError, first_line
from xenomask.models import Network
from xenomask.train.batches import Batch, parts, step_seed
from xenomask.train.config import TrainConfig
from xenomask.train.distill import distill_loss
from xenomask.train.droppath import DropPath, draw_paths
from xenomask.train.engine import Engine
from xenomask.train.exposure import Counts, class_shares, exposure_loss, pixel_counts, targets
from xenomask.train.loss import NotFinite, Totals, classes_of, set_loss, totals
from xenomask.train.optim import lr_factor, update_average
from xenomask.train.records import Records

DIVERGED = "training diverged (lower optim.lr and run again: it goes on from the last checkpoint, which is kept)"


@dataclass(frozen=True)
class Run:
    """All that a run is made of; torch changes weights and optimizer in place, a signal sets `stop`."""

    config: TrainConfig
    engine: Engine
    network: Network  # its module is the one that the optimizer moves
    module: nn.Module  # the same, wrapped by the engine
    optimizer: torch.optim.Optimizer
    average: dict[str, torch.Tensor] | None
    paths: list[DropPath]
    records: Records
    before: Network | None = None  # the frozen one whose classes are kept, where [distill] asks for it
    stop: threading.Event = field(default_factory=threading.Event)


def train_step(run: Run, batch: Batch, step: int) -> tuple[float, float, bool]:
    """One AdamW step on the set-prediction loss; the loss, the gradient's norm, whether a signal asks to stop.

    Loss and gradient are those of the step's whole batch, over however many processes and parts it is split.
    """
    config, engine = run.config, run.engine
    factor = lr_factor(config.optim, step)
    for group in run.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    run.module.train()
    run.optimizer.zero_grad()
    pieces = parts(batch, config.optim.accumulate)
    masks, weight, known, outlier, stop = engine.sum([*_totals(run, batch), float(run.stop.is_set())])
    loss = 0.0
    try:
        for i, piece in enumerate(pieces):
            # gradients are averaged over the processes once, with the last part
            with engine.no_sync(run.module) if i + 1 < len(pieces) else nullcontext():
                part = _loss(run, piece, step, Totals(masks, weight), Counts(known, outlier))
                engine.backward(part * engine.world)
            loss += part.item()
    except NotFinite as e:
        raise _diverged(step, batch, str(e)) from e
    except RuntimeError as e:
        from torch._dynamo.exc import TorchDynamoException  # it takes a second to load

        if isinstance(e, TorchDynamoException):
            raise XenomaskError(
                f"torch.compile failed: {first_line(e)}; where the C++ compiler is missing install g++ or set CXX, "
                "or set engine.compile = false"
            ) from e
        if "memory" not in str(e):
            raise
        raise XenomaskError(
            f"step {step}: memory does not suffice for {len(pieces[0]['ids'])} crops of {config.augment.crop} at once: "
            "raise optim.accumulate, lower optim.batch or augment.crop, or set engine.checkpoint_activations"
        ) from e
    norm = engine.clip(run.module, config.optim.clip)
    (value,) = engine.sum([loss])
    if not math.isfinite(value) or not (math.isfinite(norm) or engine.scales):
        raise _diverged(step, batch, f"loss {value}, gradient norm {norm}")
    run.optimizer.step()
    if run.average is not None:
        update_average(run.average, run.network.module, config.optim.ema)
    return value, norm, stop > 0


def _totals(run: Run, batch: Batch) -> tuple[float, ...]:
    config: Any = run.network.config
    classes = classes_of(targets(batch["labels"], run.network), config.num_labels)
    sums = totals(classes, config.num_queries, config.no_object_weight)
    return *sums, *pixel_counts(batch["labels"], config.feature_strides[0])


def _loss(run: Run, batch: Batch, step: int, whole: Totals, pixels: Counts) -> torch.Tensor:
    """These images' share of the step's loss: of set prediction, and of outlier exposure where the recipe has one."""
    seeds = [step_seed(run.config.seed, step, 1 + place) for place in batch["places"]]
    draw_paths(run.paths, seeds, run.engine.device)
    torch.manual_seed(seeds[0])  # for whatever else draws (dropout, of which the presets have none)
    x = batch["pixel_values"].to(run.engine.device, memory_format=torch.channels_last)
    with run.engine.precision():
        out = run.module(pixel_values=x, output_auxiliary_logits=True)
    outputs = [*out.auxiliary_logits, {k: out[k] for k in ("class_queries_logits", "masks_queries_logits")}]
    classes, masks = ([o[k].float() for o in outputs] for k in ("class_queries_logits", "masks_queries_logits"))
    labels = batch["labels"].to(run.engine.device)
    config: Any = run.network.config
    loss = set_loss(classes, masks, targets(labels, run.network), config, seeds=seeds, whole=whole,
                    ignore_void=run.config.data.void == "ignored")  # fmt: skip
    loss = loss + exposure_loss(run.config.exposure, classes[-1], masks[-1], labels, pixels)
    if run.config.distill is None:
        return loss
    before, soft = _shares_before(run, x), batch["soft"].to(run.engine.device)  # pyright: ignore
    images = run.config.optim.batch
    return loss + distill_loss(run.config.distill, classes[-1], masks[-1], soft, labels, images, before)


def _shares_before(run: Run, x: torch.Tensor) -> torch.Tensor | None:
    if run.before is None:
        return None
    with torch.no_grad(), run.engine.precision():
        out = run.before.module(pixel_values=x)
    return class_shares(out["class_queries_logits"].float(), out["masks_queries_logits"].float())


def _diverged(step: int, batch: Batch, why: str) -> XenomaskError:
    return XenomaskError(f"step {step}, frames {', '.join(batch['ids'])}: {DIVERGED}: {why}")
