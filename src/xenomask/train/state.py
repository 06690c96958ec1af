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

from xenomask.errors import XenomaskError, first_line
from xenomask.files import atomic, read_text, remove_litter, sync, unseen
from xenomask.models import Network
from xenomask.models.config import read_config
from xenomask.models.network import WEIGHTS
from xenomask.models.weights import is_finite

TRAINING = "training.pt"  # optimizer, loss scale, best mIoU; the raw weights where those beside it are an average
LAST, BEST = "last_checkpoint", "best_mIoU_iter_"


def save_state(
    network: Network, weights: Mapping[str, Tensor], state: Mapping[str, Any], work_dir: Path, step: int, keep: int
) -> Path:
    """Writes work_dir/iter_<step> (a checkpoint folder plus the training state) and drops all but the newest `keep`.

    Those of later steps, of a run that was begun anew or from an older checkpoint, stay until they are written over.
    """
    folder = network.save(work_dir / f"iter_{step}", weights=weights)
    # Weights first: a folder without the training state is a checkpoint to use, only not one to resume from.
    buffer = BytesIO()  # torch.save's own error on a full disk is no OSError
    torch.save(dict(state), buffer)
    with atomic(folder / TRAINING) as part:
        part.write_bytes(buffer.getbuffer())
    sync(folder)  # before a name says that it is there
    with atomic(work_dir / LAST) as part:
        part.write_text(folder.name + "\n")
    sync(work_dir)  # before the older ones go
    for _, old in [found for found in _numbered(work_dir, "iter_") if found[0] <= step][:-keep]:
        _drop(old)
    return folder


def save_best(network: Network, weights: Mapping[str, Tensor], work_dir: Path, step: int) -> Path:
    """Writes work_dir/best_mIoU_iter_<step> (a checkpoint folder) in place of the best one before."""
    folder = network.save(work_dir / f"{BEST}{step}", weights=weights)
    for _, old in _numbered(work_dir, BEST):
        if old != folder:
            _drop(old)
    return folder


def _numbered(work_dir: Path, prefix: str) -> list[tuple[int, Path]]:
    """Our own folders of that name and a step, by their step; a user's copies (iter_10.bak) are none."""
    named = re.compile(re.escape(prefix) + r"(0|[1-9]\d*)")
    found = [(named.fullmatch(p.name), p) for p in work_dir.glob(f"{prefix}*") if p.is_dir() and not p.is_symlink()]
    return sorted((int(m[1]), p) for m, p in found if m)


def _drop(folder: Path) -> None:
    # out of sight first: a name iter_N must never stand for a half
    shutil.rmtree(folder.rename(unseen(folder, "part")))


def sweep(work_dir: Path) -> None:
    """Removes what a killed run left half-done; for one process alone."""
    remove_litter(work_dir, older=0)
    for path in work_dir.glob(".*iter_*.old"):  # as they were called before
        if re.fullmatch(rf"\.({BEST}|iter_)\d+\.old", path.name):
            shutil.rmtree(path)
    for _, folder in _numbered(work_dir, "iter_"):
        remove_litter(folder, older=0)


def last_step(work_dir: Path) -> int | None:
    """The step of the last whole checkpoint, None in a fresh folder."""
    try:
        name = read_text(work_dir / LAST).strip()
    except FileNotFoundError:
        return None
    if not re.fullmatch(r"iter_(0|[1-9]\d*)", name) or not (work_dir / name / TRAINING).is_file():
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


def check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Raises XenomaskError for a checkpoint of a run on other classes."""
    stored = dict(read_config(folder).get("id2label") or {})
    theirs = tuple(str(stored.get(str(i))) for i in range(len(stored)))
    if theirs != tuple(classes):
        raise XenomaskError(
            f"{other_classes(str(folder), theirs, 'this run', classes)}; choose another work_dir, with it as init"
        )


def read_state(work_dir: Path, step: int) -> dict[str, Any]:
    """The training state of that step, "weights" included, on the CPU; XenomaskError if it is damaged."""
    folder = work_dir / f"iter_{step}"
    try:
        state = torch.load(folder / TRAINING, weights_only=True, map_location="cpu")
        saved = load_file(folder / WEIGHTS)
        if bad := [k for t in (saved, state.get("weights", {})) for k, v in t.items() if not is_finite(v)]:
            raise ValueError(f"tensor {bad[0]} holds NaN or infinity")
        return {"weights": saved, **state, **({"average": saved} if "weights" in state else {})}
    except Exception as e:  # torch and safetensors raise whatever their readers do
        raise XenomaskError(f"{folder} is damaged ({first_line(e)}); name an older iter_N in {LAST}") from e
