"""Run by xenomask.train.mmseg in an environment that may have MMSegmentation and no xenomask: its tools/train.py.

mmseg_script.py CONFIG REPORT [WORK_DIR]: trains and writes into REPORT, as JSON, {"work_dir": ...}, {"missing": why} or
{"error": what}. Only the standard library of Python 3.8 may be imported at its top.
"""

import json
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

# its checkpoints hold more than tensors; what executes code on loading is for the user to allow, not for us
OLD_TORCH = (
    "MMEngine cannot read a checkpoint with this torch (from 2.6 on it loads plain tensors alone): take torch<2.6 "
    "there, or, if you trust the file as if it were a program, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
)


def main(config: str, report: str, work_dir: str = "") -> None:
    """Trains; every end but an exception of MMSegmentation's is written into the report."""
    try:
        import mmseg  # pyright: ignore
        from mmengine.config import Config  # pyright: ignore
        from mmengine.runner import Runner  # pyright: ignore
    except ImportError as e:
        return tell(report, missing=str(e).split("\n")[0])
    found = find(config, Path(str(mmseg.__file__)).parent / ".mim" / "configs")
    if isinstance(found, str):
        return tell(report, error=found)
    settings = Config.fromfile(str(found))
    settings.launcher = "pytorch" if "RANK" in os.environ else "none"
    settings.work_dir = work_dir or settings.get("work_dir") or os.path.join("work_dirs", found.stem)
    # as xenomask's own trainer: the same command goes on where it was stopped
    if os.path.isfile(os.path.join(settings.work_dir, "last_checkpoint")):
        settings.resume, settings.load_from = True, None
    try:
        Runner.from_cfg(settings).train()
    except UnpicklingError as e:
        if "weights_only" not in str(e):
            raise
        return tell(report, error=OLD_TORCH)
    tell(report, work_dir=os.path.abspath(settings.work_dir))


def find(config: str, installed: Path):
    """The config's path: a file, or one of that name among the installed ones; else, as a str, what is wrong.

    >>> find("nothing.py", Path("/nowhere"))
    'no config nothing.py: neither a file nor the name of one in /nowhere'
    """
    if os.path.isfile(config):
        return Path(config)
    name = config[:-3] if config.endswith(".py") else config
    known = sorted(installed.rglob("*.py"))
    same = [p for p in known if p.stem == name]
    if len(same) == 1:
        return same[0]
    if same:
        return f"there are {len(same)} configs {name}: give one's path: {', '.join(map(str, same))}"
    near = get_close_matches(name, [p.stem for p in known], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no config {config}: neither a file nor the name of one in {installed}{hint}"


def tell(report: str, **facts: str) -> None:
    """Writes the report."""
    Path(report).write_text(json.dumps(facts))


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, whose modules would take the names of others
    main(*sys.argv[1:])
