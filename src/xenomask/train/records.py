"""What a run writes of itself, in MMEngine's tree.

work_dirs/<config>/<YYYYmmdd_HHMMSS>/<stamp>.log           what it said
                                    /vis_data/<stamp>.json  its numbers, a JSON object a line
                                    /vis_data/scalars.json  the same
                                    /vis_data/config.json   the recipe as run
work_dirs/<config>/iter_N/, last_checkpoint                 see xenomask.train.state
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from xenomask.files import finite, make_dir, read_text

log = logging.getLogger("xenomask.train")


@dataclass(frozen=True)
class Records:
    """The files of one launch of a run; None as folder: a process that writes nothing (not the first of several)."""

    folder: Path | None

    def scalars(self, **numbers: float | int | str) -> None:
        """Appends one line of numbers."""
        if self.folder is None:
            return
        line = json.dumps(finite(numbers)) + "\n"
        for name in (self.folder.name, "scalars"):
            with (self.folder / "vis_data" / f"{name}.json").open("a") as f:
                f.write(line)


def open_records(work_dir: Path, recipe: str) -> Records:
    """Makes the folder of this launch, named by the time; a second launch within a second waits for its own name."""
    while (folder := work_dir / datetime.now().strftime("%Y%m%d_%H%M%S")).exists():
        pass
    make_dir(folder / "vis_data")
    (folder / "vis_data" / "config.json").write_text(recipe, "utf-8", errors="replace")
    return Records(folder)


def read_scalars(work_dir: Path) -> list[dict[str, Any]]:
    """All numbers of a run over its launches, by step; where a killed run's were done again, the later ones."""
    rows: dict[tuple[int, bool], dict[str, Any]] = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        lines = [line for line in read_text(path).splitlines() if line.endswith("}")]  # the last may be cut
        for row in map(json.loads, lines):
            rows[row["step"], "mIoU" in row] = row
    return [rows[k] for k in sorted(rows)]


@contextmanager
def logged_to(records: Records) -> Iterator[None]:
    """While it is open, what the training logs is also appended to the launch's log file."""
    if records.folder is None:
        yield
        return
    handler, level = (
        logging.FileHandler(records.folder / f"{records.folder.name}.log", encoding="utf-8", errors="backslashreplace"),
        log.level,
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()
