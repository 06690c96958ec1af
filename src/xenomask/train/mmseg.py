"""MMSegmentation as the trainer: its own Runner in a process of its own, its work folder then converted."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.files import read_object
from xenomask.models.convert.checkpoint import find_checkpoint
from xenomask.models.convert.recognise import convert

SCRIPT = Path(__file__).with_name("mmseg_script.py")
# the versions that were tried together; mmdet and mmsegmentation refuse mmcv 2.2
INSTALL = "pip install mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0 mmsegmentation==1.2.2 ftfy regex"


def train_mmseg(config: str, python: Path, work_dir: Path | None = None) -> Path | None:
    """Runs MMSegmentation's Runner on its own config and converts what it trained; returns the checkpoint folder.

    `config` is a .py file or the name of a config inside the installed MMSegmentation; `python` the interpreter that
    has it. What it prints goes where this process' output goes. The folder lies in the run's work folder and is called
    as the checkpoint (`iter_90000`). None in all processes of a group (torchrun) but the first.
    Raises XenomaskError where MMSegmentation is not installed, stops early or leaves what cannot be converted.
    """
    # NOTE: here, and nowhere else, a config's Python is executed: by MMSegmentation, whose trainer the user asked for
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [_interpreter(python), str(SCRIPT), config, str(report), *([str(work_dir)] if work_dir else [])]
        try:
            code = subprocess.run(command, check=False).returncode
        except OSError as e:
            raise XenomaskError(f"cannot run {command[0]}: {e.strerror}; --python names a Python interpreter") from e
        found: dict[str, Any] = read_object(report) if report.is_file() else {}
    if "missing" in found:
        raise XenomaskError(
            f"{python} has no MMSegmentation that works ({found['missing']}): there, {INSTALL}; or name another "
            "environment's interpreter with --python"
        )
    if "error" in found:
        raise XenomaskError(str(found["error"]))
    if code or "work_dir" not in found:
        raise XenomaskError(
            f"MMSegmentation stopped with exit code {code}, for the reason above; the same command goes on from its "
            "last checkpoint"
        )
    if os.environ.get("RANK", "0") != "0":
        return None
    return _converted(Path(found["work_dir"]))


def _interpreter(python: Path) -> str:
    # a virtual environment's python is a link: resolved, it would be the one outside
    return shutil.which(str(python)) or str(python)


def _converted(work_dir: Path) -> Path:
    checkpoint = find_checkpoint(work_dir)
    out = work_dir / checkpoint.stem
    if out.exists() and not (out / "xenomask.json").is_file():
        raise XenomaskError(
            f"{out} exists and is no checkpoint folder of xenomask: xenomask convert {work_dir} --out ..."
        )
    return convert(work_dir).network.save(out)
