"""Runs `xenomask ...` in the test's process."""

import sys
from pathlib import Path

import h5py
import numpy as np

from xenomask.cli import main


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Runs `xenomask ...` in this process: exit code, stdout, stderr without its dim remarks."""
    old, sys.argv = sys.argv, ["xenomask", *map(str, arguments)]
    try:
        main()
        code = 0
    except SystemExit as e:
        code = int(e.code or 0)
    finally:
        sys.argv = old
    out, err = capsys.readouterr()
    dim = ("device ", "runtime ", "score kernel ")
    return code, out, "\n".join(line for line in err.splitlines() if not line.startswith(dim))


def fails(capsys, *arguments) -> str:
    """Runs what must fail with exit code 2 and one line; returns the line."""
    code, _, err = run(capsys, *arguments)
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 0, err
    assert "Traceback" not in err
    return err


def write_maps(folder: Path, **values) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in values.items():
        with h5py.File(folder / f"{name}.hdf5", "w") as f:
            f["value"] = np.asarray(value)
    return folder
