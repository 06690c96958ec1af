"""train: recipe -> checkpoint.

Every random number of step i is drawn from (seed, i): the state of a run is its weights, its optimizer and i,
and a run that was killed goes on as if it had not been.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xenomask.datasets import Dataset, open_dataset
from xenomask.datasets.labelmap import read_label_map
from xenomask.errors import XenomaskError
from xenomask.files import make_dir
from xenomask.masks import class_probabilities, semantic, soft_masks, with_queries
from xenomask.metrics.segmentation import confusion, miou
from xenomask.models import Network, build
from xenomask.train.batches import Batches, batches_from, check_labelled
from xenomask.train.config import TrainConfig, checked
from xenomask.train.cutouts import list_cutouts
from xenomask.train.distill import began_with, check_distill
from xenomask.train.droppath import own_paths
from xenomask.train.engine import Engine, open_engine
from xenomask.train.exposure import check_exposure, exposed, tune_only
from xenomask.train.init import class_names, initialise
from xenomask.train.records import Records, logged_to, open_records, read_scalars
from xenomask.train.resume import Changes, check_recipe, history, same_validation
from xenomask.train.state import last_step, other_classes, read_state, save_best, save_state, sweep
from xenomask.train.step import Run, train_step
from xenomask.types import OUTLIER, VOID

log = logging.getLogger("xenomask.train")
WARNINGS = (signal.SIGTERM, signal.SIGUSR1)  # Slurm's, before it takes a job's node away


def train(config: TrainConfig, *, device: str = "cpu") -> Path:
    """Trains to the last iteration, from the last checkpoint in `work_dir` where there is one.

    Writes iter_N and best_mIoU_iter_N (checkpoint folders), last_checkpoint, and a folder of log and numbers for this
    launch into `work_dir`. On SIGTERM and SIGUSR1 it saves and returns early. Returns the last checkpoint's folder.
    Raises XenomaskError for bad data, for a diverging loss and where memory does not suffice.
    """
    config = checked(config)
    make_dir(config.work_dir)
    if config.threads:
        torch.set_num_threads(config.threads)
    engine = open_engine(config, device)
    try:
        first = engine.first
        if first:
            sweep(config.work_dir)
        engine.wait()
        total = config.optim.iterations
        start = last_step(config.work_dir)
        changes = {} if start is None else check_recipe(config, start)
        if start is not None and start >= total:
            return config.work_dir / f"iter_{start}"
        records = open_records(config.work_dir, config.model_dump_json(indent=1)) if first else Records(None)
        engine.start_trackers(config)
        with logged_to(records):
            return _train(config, engine, records, start, changes)
    finally:
        engine.close()


def _train(config: TrainConfig, engine: Engine, records: Records, start: int | None, changes: Changes) -> Path:
    check_exposure(config)
    training = _open(config, config.data.train, "train")
    validation = _open(config, config.data.val, "val")
    assert training is not None
    if validation is not None:
        validation = replace(validation, frames=validation.frames[: config.data.val_frames])
        check_labelled(validation)
    check_labelled(training)
    check_distill(config, training)
    run, best = _prepare(config, engine, records, start, changes)
    a = config.augment
    cutouts = list_cutouts(a.paste, a.paste_coco) if a.paste else ()
    source = Batches(
        training, a, run.network.preprocess, config.optim.batch, config.seed, cutouts,
        engine.rank, engine.world, config.distill,
    )  # fmt: skip
    run = _with_miou_before(run, validation, start)
    with _warned(run.stop):
        return _loop(run, source, validation, start or 0, best)


def _prepare(
    config: TrainConfig, engine: Engine, records: Records, start: int | None, changes: Changes
) -> tuple[Run, float]:
    """The run at its first step or at the one that is resumed, and the best mIoU so far."""
    torch.manual_seed(config.seed)
    classes = read_label_map(config.data.labels).classes if config.data.labels else None
    network, e = build(config.preset, classes, config.queries), config.exposure
    recipes = history(config.work_dir, start, changes)
    facts = {**network.facts, "trained": config.model_dump(mode="json"), "history": recipes}
    if start is None and config.init:
        network = initialise(network, config.init, outlier_class=e is not None and e.loss == "uno")
    network = exposed(network, e)
    state: dict[str, Any] = {}
    if start is not None:
        state = read_state(config.work_dir, start)
        network.module.load_state_dict(state["weights"])
        log.info("resuming from iter_%d", start)
    network = replace(network, module=network.module.to(engine.device), facts=facts)
    paths = own_paths(network.module)
    if e and e.tune:
        log.info("training %(tuned)d of %(all)d parameters", tune_only(network.module, e.tune))
    module, optimizer = engine.prepare(network.module, config)
    average = None
    if config.optim.ema:
        own = state.get("average") or network.module.state_dict()
        average = {k: v.detach().clone().to(engine.device) for k, v in own.items()}
    if state:
        engine.restore(module, optimizer, state)
    best = state.get("best_miou", -1.0) if same_validation(changes) else -1.0
    before = began_with(config, class_names(network.config), engine.device)
    return Run(config, engine, network, module, optimizer, average, paths, records, before), best


def _loop(run: Run, source: Batches, validation: Dataset | None, start: int, best: float) -> Path:
    config, engine = run.config, run.engine
    total, folder = config.optim.iterations, config.work_dir / f"iter_{start}"
    facts: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    waited, clock, since = 0.0, time.monotonic(), start
    batches = batches_from(source, range(start, total), config.workers)
    with Progress(*columns, disable=not (engine.first and sys.stderr.isatty())) as bar:
        task = bar.add_task("train", total=total, completed=start)
        for step in range(start, total):
            before = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - before
            loss, norm, stop = train_step(run, batch, step)
            done = step + 1
            bar.update(task, completed=done, description=f"train, loss {loss:.1f}")
            if done % config.log_every == 0 or done == total:
                spent = time.monotonic() - clock
                _say(run, done, loss, norm, spent / (done - since), waited / spent)
                waited, clock, since = 0.0, time.monotonic(), done
            if validation and (done % config.val_every == 0 or done == total):
                value = _validate(run, validation, done, best)
                best, facts = max(best, value), {"val_miou": value, "step": done}
                waited, clock, since = 0.0, time.monotonic(), done
            if done % config.save_every == 0 or done == total or stop:
                folder = _save(run, done, best, facts)
            if stop and done < total:
                log.info("step %d  stopped by a signal; run the same command to go on", done)
                break
    return folder


def _with_miou_before(run: Run, data: Dataset | None, start: int | None) -> Run:
    """The run, its facts with the mIoU before outlier exposure: measured at the start, read from the records later."""
    if data is None or run.config.exposure is None:
        return run
    if start is None:
        value = validate(run.network, data, run.engine)
        run.records.scalars(step=0, mIoU=value)
        run.engine.track({"val/mIoU": value}, 0)
        log.info("mIoU before %.4f on %d frames", value, len(data.frames))
    else:
        rows = [row for row in read_scalars(run.config.work_dir) if row["step"] == 0 and "mIoU" in row]
        value = rows[0]["mIoU"] if rows else None
    return replace(run, network=_with_facts(run.network, {"val_miou_before": value}))


def _validate(run: Run, data: Dataset, done: int, best: float) -> float:
    """The mIoU, recorded; the checkpoint is kept where it is the best one."""
    with _averaged(run):
        value = validate(run.network, data, run.engine)
    run.records.scalars(step=done, mIoU=value)
    run.engine.track({"val/mIoU": value}, done)
    log.info("step %d  mIoU %.4f on %d frames", done, value, len(data.frames))
    before = run.network.facts.get("val_miou_before")
    if before is not None and done == run.config.optim.iterations:
        log.info("mIoU before %.4f, after %.4f", before, value)
    if value > best:
        weights = run.average or run.engine.weights(run.module)
        if run.engine.first:
            facts = {"val_miou": value, "step": done}
            save_best(_with_facts(run.network, facts), weights, run.config.work_dir, done)
    return value


def validate(network: Network, data: Dataset, engine: Engine | None = None) -> float:
    """mIoU of argmax_k L_k at the photo's size, pooled over the frames, which the processes share.

    Raises XenomaskError where the network's classes are not those of the labels.
    """
    known = class_names(network.config)
    known = known[:-1] if network.outlier_class else known
    if known != data.classes:
        raise XenomaskError(other_classes("the network", known, data.name, data.classes))
    network.module.eval()
    rank, world = (engine.rank, engine.world) if engine else (0, 1)
    classes: int = network.config.num_labels  # pyright: ignore
    matrix = np.zeros((classes, classes), np.int64)
    # sharded weights come together only while all processes look: those without a frame left look at the first again
    for i in range(rank, -(-len(data.frames) // world) * world, world):
        sample = data.sample(data.frames[i if i < len(data.frames) else 0])
        out = with_queries(network.predict(sample.image))
        if i < len(data.frames):
            assert sample.label is not None
            predicted = semantic(class_probabilities(out), soft_masks(out)).argmax(0).cpu().numpy()
            known_only = np.where(sample.label == OUTLIER, np.uint8(VOID), sample.label)
            matrix += confusion(known_only, predicted, classes)
    return miou(engine.sum_array(matrix) if engine else matrix)


def _with_facts(network: Network, facts: Mapping[str, Any]) -> Network:
    return replace(network, facts={**network.facts, **facts})


def _save(run: Run, done: int, best: float, facts: Mapping[str, Any]) -> Path:
    weights = run.engine.weights(run.module)  # every process takes part in gathering these
    state = {**run.engine.state(run.module, run.optimizer), "best_miou": best}
    folder = run.config.work_dir / f"iter_{done}"
    if run.engine.first:
        if run.average is not None:
            state, weights = {**state, "weights": weights}, run.average
        folder = save_state(_with_facts(run.network, facts), weights, state, run.config.work_dir, done, run.config.keep)
    run.engine.wait()
    return folder


@contextmanager
def _averaged(run: Run) -> Iterator[None]:
    """Inside, the network holds the moving average of its weights, where one is kept."""
    if run.average is None:
        yield
        return
    raw = {k: v.detach().clone() for k, v in run.network.module.state_dict().items()}
    run.network.module.load_state_dict(run.average)
    try:
        yield
    finally:
        run.network.module.load_state_dict(raw)


def _say(run: Run, done: int, loss: float, norm: float, seconds: float, waiting: float) -> None:
    rates = [group["lr"] for group in run.optimizer.param_groups]
    numbers = {"loss": loss, "grad_norm": norm, "base_lr": max(rates), "lr": min(rates)}
    run.records.scalars(**numbers, time=round(seconds, 4), data_time=round(seconds * waiting, 4), step=done)
    run.engine.track({f"train/{k}": v for k, v in numbers.items()}, done)
    log.info(
        "step %d/%d  loss %.2f  lr %.2e  %.2f s/step, %.1f %% of it waiting for data",
        done, run.config.optim.iterations, loss, max(rates), seconds, 100 * waiting,
    )  # fmt: skip


@contextmanager
def _warned(stop: threading.Event) -> Iterator[None]:
    """While it is open, the signals that announce an end set the event instead of ending the process."""
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in WARNINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(config: TrainConfig, root: Path | None, split: str) -> Dataset | None:
    if root is None:
        return None
    data = open_dataset(config.data.dataset, root, split=split, coding="train_ids", resize=config.data.resize)
    labels = read_label_map(config.data.labels) if config.data.labels else None
    return replace(data, labels=labels).labelled()
