"""Runs one command again and again, killed with SIGKILL at another place each time; for tests/cli/test_trust_kill.py.

    python kills.py OUT COMMAND...

OUT is what the command writes. The places are all operations on files in OUT's folder and below: whatever is opened
for writing, created, linked, renamed or removed there, before it happens (and so after the one before), and where the
file is written at once, with half of it. The interpreter is forked for each, so that imports are paid for once. After
each kill, prints a JSON line: the place, and what is there under OUT's name (null, or each file's SHA-256); then the
command is run unharmed, and its line has the exit code "after" and what is there then, "whole"; "litter" is what then
lies hidden beside or in it.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from xenomask import files
from xenomask.cli import main

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.copyfile")
# what the commands import once they run
IMPORTED = [
    "transformers.models.mask2former.modeling_mask2former", "matplotlib.figure", "xenomask.datasets",
    "xenomask.detector", "xenomask.detector.folder", "xenomask.export", "xenomask.models.convert",
    "xenomask.evaluation.heatmaps", "xenomask.report.query_sheet", "xenomask.report.report",
    "xenomask.store.submission",
]  # fmt: skip


def digests(path: Path) -> dict[str, str] | None:
    """The SHA-256 of a file, or of each of a folder's files but hidden ones."""
    if not path.exists():
        return None
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and p.name[0] != "."]
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def run(command: list[str]) -> int:
    """The command's exit code, in this process."""
    sys.argv = ["xenomask", *command]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main()
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def armed(place: int, folder: Path) -> None:
    """From now on, this process dies at the `place`-th of the places in the folder."""
    left, inside = [place], os.fsencode(folder) + b"/"

    def count() -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def below(path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsencode(path).startswith(inside)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        written = event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if written and any(map(below, arguments[:2])):
            count()

    sys.addaudithook(heard)
    write, exchange = Path.write_bytes, files._exchanged

    def half(self: Path, data: Any) -> int:
        """Half of the bytes, then death, where it is this one's turn."""
        if below(self):
            if left[0] == 0:
                left[0] = -1  # not at the opening
                write(self, bytes(data)[: len(data) // 2])
                left[0] = 0
            count()
        return write(self, data)

    def exchanged(a: Path, b: Path) -> bool:
        """Python does not hear of this system call."""
        count()
        return exchange(a, b)

    Path.write_bytes, files._exchanged = half, exchanged  # pyright: ignore


def fork(command: list[str], place: int | None, folder: Path) -> int:
    """The command in a process of its own; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        if place is not None:
            armed(place, folder)
        code = 3
        try:
            code = run(command)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def mainly(out: Path, command: list[str]) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    keep = out.with_name(f"kept-{out.name}")
    for before in (False, True):  # with nothing there, and with an older whole one
        for place in range(200):
            _clear(out)
            if before:
                (shutil.copytree if keep.is_dir() else shutil.copyfile)(keep, out)
            code = fork(command, place, out.parent)
            found = digests(out)
            after = fork(command, None, out.parent) if code == -signal.SIGKILL else None
            print(json.dumps({"place": place, "before": before, "code": code, "found": found, "after": after,
                              "whole": digests(out), "litter": sorted(map(str, out.parent.rglob(".*")))}),
                  flush=True)  # fmt: skip
            if code != -signal.SIGKILL:
                break
        if not before:
            out.rename(keep)
    _clear(keep)


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    mainly(Path(sys.argv[1]), sys.argv[2:])
