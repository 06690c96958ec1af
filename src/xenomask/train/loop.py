"""train: recipe -> checkpoint.

Every random number of step i is drawn from (seed, i): the state of a run is its weights, its optimizer and i,
and a run that was killed goes on as if it had not been.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from xenomask.datasets import Dataset, open_dataset
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.masks import class_probabilities, semantic, soft_masks
from xenomask.metrics.segmentation import confusion, miou
from xenomask.models import Network, build
from xenomask.train.batches import Batch, Batches, batches_from, step_seed
from xenomask.train.config import Optim, TrainConfig
from xenomask.train.init import initialise
from xenomask.train.loss import NotFinite, set_loss
from xenomask.train.paste import list_cutouts
from xenomask.train.state import last_step, restore_state, save_state

log = logging.getLogger(__name__)
LOG_EVERY = 20
DIVERGED = "training diverged (lower optim.lr and run again: it goes on from the last checkpoint, which is kept)"


def parameter_groups(module: nn.Module, o: Optim) -> list[dict]:
    """Backbone and the rest, each with and without weight decay (none on norms, embeddings and biases)."""
    undecayed = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            full = f"{prefix}.{name}"
            lr = o.lr * (o.backbone_lr if "pixel_level_module.encoder." in full else 1.0)
            bare = isinstance(part, undecayed) or name.endswith(("bias", "relative_position_bias_table"))
            decay = 0.0 if bare or name == "level_embed" else o.weight_decay
            groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]


def lr_factor(o: Optim, step: int) -> float:
    """Linear warm-up times the poly decay to zero.

    >>> o = Optim(iterations=100, warmup=10, power=1.0)
    >>> lr_factor(o, 4), lr_factor(o, 50), lr_factor(o, 100)
    (0.48, 0.5, 0.0)
    """
    warm = min(1.0, (step + 1) / o.warmup) if o.warmup else 1.0
    return warm * (1 - step / o.iterations) ** o.power


def validate(network: Network, data: Dataset) -> float:
    """mIoU of argmax_k L_k at the photo's size, pooled over the frames."""
    network.module.eval()
    matrices = []
    for frame in data.frames:
        sample = data.sample(frame)
        out = network.predict(sample.image)
        predicted = semantic(class_probabilities(out), soft_masks(out)).argmax(0).cpu().numpy()
        matrices.append(confusion(sample.label, predicted, network.config.num_labels))  # pyright: ignore
    return miou(sum(matrices[1:], matrices[0]))


def train_step(network: Network, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainConfig, step: int):
    """One AdamW step on the set-prediction loss; returns the loss and the gradient's norm."""
    network.module.train()
    torch.manual_seed(step_seed(config.seed, step, 1))  # dropout and the loss's random points
    device = next(network.module.parameters()).device
    out = network.module(
        pixel_values=batch["pixel_values"].to(device, memory_format=torch.channels_last), output_auxiliary_logits=True
    )
    outputs = [*out.auxiliary_logits, {k: out[k] for k in ("class_queries_logits", "masks_queries_logits")}]
    classes, masks = ([o[k] for o in outputs] for k in ("class_queries_logits", "masks_queries_logits"))
    try:
        loss = set_loss(classes, masks, batch["labels"].to(device), network.config)  # pyright: ignore
    except NotFinite as e:
        raise XenomaskError(f"step {step}: {DIVERGED}: {e}") from e
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.module.parameters(), config.optim.clip)
    if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
        raise XenomaskError(f"step {step}: {DIVERGED}: loss {loss.item()}, gradient norm {norm.item()}")
    factor = lr_factor(config.optim, step)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    optimizer.step()
    return loss.item(), norm.item()


def _open(config: TrainConfig, root: Path | None, split: str) -> Dataset | None:
    if root is None:
        return None
    return open_dataset(
        config.data.dataset, root, split=split, coding="train_ids", resize=config.data.resize
    ).labelled()


def _record(work_dir: Path, **scalars: float) -> None:
    with (work_dir / "scalars.jsonl").open("a") as f:
        f.write(json.dumps(scalars) + "\n")


def _drop_records_after(work_dir: Path, step: int) -> None:
    """Forgets what a killed run wrote after the checkpoint that is resumed, so that no step appears twice."""
    path = work_dir / "scalars.jsonl"
    if path.is_file():
        kept = [line for line in path.read_text().splitlines() if line and json.loads(line)["step"] <= step]
        with atomic(path) as part:
            part.write_text("".join(line + "\n" for line in kept))


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """While it is open, what this module logs is also appended to the file."""
    handler, level = logging.FileHandler(path), log.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def train(config: TrainConfig, *, device: str = "cpu") -> Path:
    """Trains to the last iteration, from the last checkpoint in `work_dir` where there is one.

    Writes iter_N (checkpoint folders), last_checkpoint, recipe.json, train.log and scalars.jsonl into `work_dir`.
    Returns the folder of the final checkpoint. Raises XenomaskError for bad data and for a diverging loss.
    """
    make_dir(config.work_dir)
    with atomic(config.work_dir / "recipe.json") as part:
        part.write_text(config.model_dump_json(indent=1) + "\n")
    with _logged_to(config.work_dir / "train.log"):
        return _train(config, device)


def _train(config: TrainConfig, device: str) -> Path:
    if config.threads:
        torch.set_num_threads(config.threads)
    training = _open(config, config.data.train, "train")
    validation = _open(config, config.data.val, "val")
    assert training is not None
    if validation is not None:
        validation = replace(validation, frames=validation.frames[: config.data.val_frames])
    work_dir = config.work_dir
    torch.manual_seed(config.seed)
    network = build(config.preset)
    facts = {**network.facts, "trained": config.model_dump(mode="json")}
    network = replace(network, module=network.module.to(device), facts=facts)
    optimizer = torch.optim.AdamW(parameter_groups(network.module, config.optim))
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    start = last_step(work_dir)
    if start is not None:
        restore_state(network, optimizer, work_dir, start)
        _drop_records_after(work_dir, start)
        log.info("resuming from iter_%d", start)
    else:
        start = 0
        if config.init:
            initialise(network, config.init)
    total = config.optim.iterations
    if start >= total:
        return work_dir / f"iter_{start}"
    cutouts = list_cutouts(config.augment.paste) if config.augment.paste else ()
    source = Batches(training, config.augment, network.preprocess, config.optim.batch, config.seed, cutouts)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    folder, clock, since = work_dir, time.monotonic(), start
    with Progress(*columns, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("train", total=total, completed=start)
        for step, batch in enumerate(batches_from(source, start, total, config.workers), start):
            loss, norm = train_step(network, optimizer, batch, config, step)
            done = step + 1
            bar.update(task, completed=done, description=f"train, loss {loss:.1f}")
            if done % LOG_EVERY == 0 or done == total:
                rate = (time.monotonic() - clock) / (done - since)
                clock, since = time.monotonic(), done
                lr = optimizer.param_groups[0]["lr"]
                _record(work_dir, step=done, loss=loss, grad_norm=norm, lr=lr, seconds_per_step=round(rate, 3))
                log.info("step %d/%d  loss %.2f  lr %.2e  %.2f s/step", done, total, loss, lr, rate)
            if validation and (done % config.val_every == 0 or done == total):
                value = validate(network, validation)
                network = replace(network, facts={**network.facts, "val_miou": value, "step": done})
                _record(work_dir, step=done, miou=value)
                log.info("step %d  mIoU %.4f on %d frames", done, value, len(validation.frames))
                clock, since = time.monotonic(), done
            if done % config.save_every == 0 or done == total:
                folder = save_state(network, optimizer, work_dir, done, config.keep)
    return folder
