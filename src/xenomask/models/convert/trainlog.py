"""What a run of MMEngine recorded: the mIoU at each validation, from its scalars.json or its log."""

import json
import re
from contextlib import suppress
from pathlib import Path

MAX_LINE = 100_000
NUMBER = r"([0-9.]+(?:e[-+]?[0-9]+)?)"
DATED = f"{'[0-9]' * 8}_{'[0-9]' * 6}"


def read_miou(folder: Path) -> dict[int, float]:
    """The mIoU (per cent) by iteration, of all runs in a work folder, oldest first; {} where no log tells any.

    A damaged line is passed over: a log is a remark, the weights do not depend on it.
    """
    scalars = [m for f in _newest_last(folder, "scalars.json") for m in _from_scalars(f)]
    return dict(scalars or [m for f in _newest_last(folder, "*.log") for m in _from_log(f)])


def _newest_last(folder: Path, pattern: str) -> list[Path]:
    # a run's folder is called by its start time, so names sort as time does; other folders are other runs'
    places = (pattern, f"{DATED}/{pattern}", f"{DATED}/vis_data/{pattern}", f"vis_data/{pattern}")
    return sorted({p for place in places for p in folder.glob(place) if p.is_file()})


def _lines(path: Path) -> list[str]:
    found = []
    with path.open(encoding="utf-8-sig", errors="replace") as f:
        while line := f.readline(MAX_LINE):
            if "mIoU" in line or "Iter(train)" in line:
                found.append(line)
    return found


def _from_scalars(path: Path) -> list[tuple[int, float]]:
    found = []
    for line in _lines(path):
        try:
            row = json.loads(line)
            found.append((int(row["step"]), float(row["mIoU"])))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            continue
    return found


def _from_log(path: Path) -> list[tuple[int, float]]:
    found, iteration = [], 0
    for line in _lines(path):
        if train := re.search(r"Iter\(train\)\s*\[\s*([0-9]{1,9})/", line):
            iteration = int(train[1])
        elif val := re.search(rf"Iter\(val\).*\bmIoU: {NUMBER}", line):
            with suppress(ValueError):
                found.append((iteration, float(val[1])))
    return found
