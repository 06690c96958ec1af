"""Training state <-> disk: iter_N folders, whole or not at all, and the name of the last."""

import shutil
from io import BytesIO
from pathlib import Path

import torch
from torch.optim import Optimizer

from xenomask.errors import XenomaskError
from xenomask.files import atomic
from xenomask.models import Network, load
from xenomask.models.network import load_weights

OPTIMIZER = "optimizer.pt"
LAST = "last_checkpoint"


def save_state(network: Network, optimizer: Optimizer, work_dir: Path, step: int, keep: int) -> Path:
    """Writes work_dir/iter_<step> (a checkpoint folder plus the optimizer) and drops all but the newest `keep`."""
    folder = network.save(work_dir / f"iter_{step}")
    # Weights first: a folder without the optimizer is a checkpoint to use, only not one to resume from.
    buffer = BytesIO()  # torch.save's own error on a full disk is no OSError
    torch.save(optimizer.state_dict(), buffer)
    with atomic(folder / OPTIMIZER) as part:
        part.write_bytes(buffer.getbuffer())
    with atomic(work_dir / LAST) as part:
        part.write_text(folder.name + "\n")
    steps = sorted(int(p.name.removeprefix("iter_")) for p in work_dir.glob("iter_*"))
    for old in steps[:-keep]:
        # out of sight first: a name iter_N must never stand for a half
        shutil.rmtree((work_dir / f"iter_{old}").rename(work_dir / f".iter_{old}.old"))
    return folder


def last_step(work_dir: Path) -> int | None:
    """The step of the last whole checkpoint, None in a fresh folder; sweeps up what a killed run left half-done."""
    for leftover in [*work_dir.glob(".*.part.*"), *work_dir.glob(".*.old*")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    try:
        name = (work_dir / LAST).read_text().strip()
    except FileNotFoundError:
        return None
    if not (work_dir / name / OPTIMIZER).is_file():
        raise XenomaskError(f"{work_dir / LAST} names {name}, which is not there; delete {LAST} to start anew")
    return int(name.removeprefix("iter_"))


def restore_state(network: Network, optimizer: Optimizer, work_dir: Path, step: int) -> None:
    """Copies weights and optimizer state of that step into the given ones."""
    folder = work_dir / f"iter_{step}"
    load_weights(network.module, load(folder).module.state_dict(), str(folder))
    optimizer.load_state_dict(torch.load(folder / OPTIMIZER, weights_only=True))
