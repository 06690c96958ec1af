"""Training state <-> disk: iter_N folders, whole or not at all, and the name of the last."""

import re
import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from xenomask.errors import XenomaskError
from xenomask.files import atomic, read_text
from xenomask.models import Network
from xenomask.models.config import read_config
from xenomask.models.network import WEIGHTS

TRAINING = "training.pt"  # optimizer, loss scale, best mIoU; the raw weights where those beside it are an average
LAST, BEST = "last_checkpoint", "best_mIoU_iter_"


def save_state(
    network: Network, weights: Mapping[str, Tensor], state: Mapping[str, Any], work_dir: Path, step: int, keep: int
) -> Path:
    """Writes work_dir/iter_<step> (a checkpoint folder plus the training state) and drops all but the newest `keep`."""
    folder = network.save(work_dir / f"iter_{step}", weights=weights)
    # Weights first: a folder without the training state is a checkpoint to use, only not one to resume from.
    buffer = BytesIO()  # torch.save's own error on a full disk is no OSError
    torch.save(dict(state), buffer)
    with atomic(folder / TRAINING) as part:
        part.write_bytes(buffer.getbuffer())
    with atomic(work_dir / LAST) as part:
        part.write_text(folder.name + "\n")
    steps = sorted(int(p.name.removeprefix("iter_")) for p in work_dir.glob("iter_*"))
    for old in steps[:-keep]:
        _drop(work_dir / f"iter_{old}")
    return folder


def save_best(network: Network, weights: Mapping[str, Tensor], work_dir: Path, step: int) -> Path:
    """Writes work_dir/best_mIoU_iter_<step> (a checkpoint folder) in place of the best one before."""
    folder = network.save(work_dir / f"{BEST}{step}", weights=weights)
    for old in work_dir.glob(f"{BEST}*"):
        if old != folder:
            _drop(old)
    return folder


def _drop(folder: Path) -> None:
    # out of sight first: a name iter_N must never stand for a half
    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.old")))


def sweep(work_dir: Path) -> None:
    """Removes what a killed run left half-done; for one process alone."""
    for leftover in [*work_dir.glob(".*.part.*"), *work_dir.glob(".*.old*")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def last_step(work_dir: Path) -> int | None:
    """The step of the last whole checkpoint, None in a fresh folder."""
    try:
        name = read_text(work_dir / LAST).strip()
    except FileNotFoundError:
        return None
    if not re.fullmatch(r"iter_\d+", name) or not (work_dir / name / TRAINING).is_file():
        raise XenomaskError(f"{work_dir / LAST} names {name}, which is not there; delete {LAST} to start anew")
    return int(name.removeprefix("iter_"))


def other_classes(what: str, theirs: Sequence[str], whose: str, ours: Sequence[str]) -> str:
    """The error of two lists of classes that should be one.

    >>> other_classes("iter_1", ("road", "car"), "labels", ("road", "tree"))
    "iter_1 knows 2 classes, labels 2: class 1 is 'car' there and 'tree' here"
    """
    place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    a, b = (repr(names[place]) if place < len(names) else "none" for names in (theirs, ours))
    return f"{what} knows {len(theirs)} classes, {whose} {len(ours)}: class {place} is {a} there and {b} here"


def read_state(work_dir: Path, step: int, classes: Sequence[str]) -> dict[str, Any]:
    """The training state of that step, "weights" included, on the CPU.

    Raises XenomaskError if it is damaged, or of a run on other classes.
    """
    folder = work_dir / f"iter_{step}"
    stored = dict(read_config(folder).get("id2label") or {})
    theirs = tuple(str(stored.get(str(i))) for i in range(len(stored)))
    if theirs != tuple(classes):
        raise XenomaskError(
            f"{other_classes(str(folder), theirs, 'this run', classes)}; choose another work_dir, with it as init"
        )
    try:
        state = torch.load(folder / TRAINING, weights_only=True, map_location="cpu")
        saved = load_file(folder / WEIGHTS)
        return {"weights": saved, **state, **({"average": saved} if "weights" in state else {})}
    except Exception as e:  # torch and safetensors raise whatever their readers do
        raise XenomaskError(f"{folder} is damaged ({str(e).splitlines()[0]}); name an older iter_N in {LAST}") from e
