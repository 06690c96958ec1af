"""Files that exist whole or not at all, what killed processes leave of them, and their hashes."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError

MAX_JSON = 32 * 2**20  # bytes; queries.json takes 1 KB a frame of its analysis
DAY = 24 * 3600  # seconds
MAX_DEPTH = 100  # of lists and objects in each other: those who read JSON further go down by recursion


def make_dir(path: Path) -> Path:
    """Creates the folder (and its parents) and checks that files can be written there.

    Raises XenomaskError where that is not allowed, before any work was done for nothing.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path / "probe")
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise XenomaskError(f"cannot write into folder {path}: {e.strerror}; choose another one") from e
    return path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that takes its name only once the block has ended well.

    The temporary keeps the ending of the name (writers choose the format by it) and may become a file or
    a folder. A replaced folder is first moved aside, so that the final name never holds a half of either.
    Raises XenomaskError where a file would replace a folder: nobody means that.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        if temporary.is_file():  # the rename must not reach the disk before the bytes do
            with temporary.open("rb") as f:
                os.fsync(f.fileno())
            refuse_folder(path)
        if path.is_dir():
            old = path.with_name(f".{uuid.uuid4().hex[:8]}.old.{path.name}")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise XenomaskError(f"cannot write {path}: {e.strerror}") from e
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A new hidden name beside a path, that says which process it is of."""
    return path.with_name(f".{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part.{path.name}")


def _machine() -> str:
    """Where process numbers mean the same: this machine, or a container on it."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # only Linux has it
        numbers = 0
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


def sweep(folder: Path) -> None:
    """Removes the temporaries of `atomic` that killed processes left in a folder.

    What a process of this machine is writing stays, and so does what is of other machines for a day.
    """
    for part in folder.glob(".*.part.*"):
        if (name := re.fullmatch(r"\.(?:([0-9a-f]{8})-(\d+)-)?[0-9a-f]{8}\.part\..+", part.name)) is None:
            continue
        machine, process = name.groups()
        try:
            if machine == _machine() and os.name == "posix":
                dead = not _runs(int(process))
            else:  # a name without a machine is an older version's
                dead = machine is None or time.time() - part.lstat().st_mtime > DAY
            if dead and part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
            elif dead:
                part.unlink(missing_ok=True)
        except OSError:  # another process was faster, or may do what this one may not
            continue


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def create(path: Path, text: str) -> bool:
    """Writes a file that is not there yet, whole; False where another process was first: exactly one is told True."""
    part = _temporary(path)
    try:
        with part.open("x", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        try:
            os.link(part, path)  # unlike a rename, it never replaces
        except FileExistsError:
            return False
        except OSError:  # a disk without links
            try:
                with path.open("x", encoding="utf-8") as f:
                    f.write(text)
            except FileExistsError:
                return False
    except OSError as e:
        raise XenomaskError(f"cannot write {path}: {e.strerror}") from e
    finally:
        part.unlink(missing_ok=True)
    return True


def refuse_folder(path: Path) -> None:
    """Raises XenomaskError where a file is to be written and a folder has its name."""
    if path.is_dir():
        raise XenomaskError(f"cannot write {path}: it is a folder; give the name of a file")


def finite(x: Any) -> Any:
    """What JSON can hold: NaN and infinity become None, tuples lists.

    >>> finite({"a": (1.0, float("nan"))})
    {'a': [1.0, None]}
    """
    if isinstance(x, Mapping):
        return {str(k): finite(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [finite(v) for v in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's dict; ValueError for a key that is there twice (the `object_pairs_hook` of json.loads).

    >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=unique_keys)
    Traceback (most recent call last):
    ValueError: it has the key 'a' twice
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1) if len(names) < 10_000 else "..."
        raise ValueError(f"it has the key {twice[:80]!r} twice")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; XenomaskError, with the reason, for anything else, also for NaN and doubled keys."""

    def refuse(name: str) -> Any:
        raise ValueError(f"it holds {name}, which is no number of JSON")

    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON >> 20} MB")
        found = json.loads(path.read_text("utf-8"), object_pairs_hook=unique_keys, parse_constant=refuse)
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object")
        if _deeper(found, MAX_DEPTH):
            raise ValueError("it is nested too deeply")
    except OSError as e:
        raise XenomaskError(f"cannot read {path}: {e.strerror}") from e
    except ValueError as e:
        raise XenomaskError(f"{path} is damaged: {e}") from e
    except RecursionError as e:
        raise XenomaskError(f"{path} is damaged: it is nested too deeply") from e
    return found


def _deeper(x: Any, most: int) -> bool:
    """Whether lists and objects lie in each other more than `most` times."""
    level = [x]
    for _ in range(most):
        held = [v for v in level if isinstance(v, dict | list)]
        level = [v for part in held for v in (part.values() if isinstance(part, dict) else part)]
    return any(isinstance(v, dict | list) for v in level)


def write_numbers(path: Path, numbers: Any) -> None:
    """Writes JSON whole or not at all; numbers that do not exist become null."""
    with atomic(path) as part:
        part.write_text(json.dumps(finite(numbers), indent=1, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
