"""Files that exist whole or not at all, what killed processes leave of them, and their hashes."""

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError

MANIFEST = "manifest.json"  # of what made a folder of maps: store.manifest
MAX_JSON = 32 * 2**20  # bytes; queries.json takes 1 KB a frame of its analysis
LITTER = 24 * 3600  # seconds after which what another machine has half-written belongs to nobody
# the names of `unseen`; without machine and process, as they were called before
UNSEEN = re.compile(r"\.(?:([0-9a-f]{8})-(\d+)-)?[0-9a-f]{8}\.(part|old)\.(.+)", re.DOTALL)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' renameat2
MAX_DEPTH = 100  # of lists and objects in each other: those who read JSON further go down by recursion


def make_dir(path: Path) -> Path:
    """Creates the folder (and its parents), checks that files can be written there, and removes what killed runs left.

    Raises XenomaskError where that is not allowed, before any work was done for nothing.
    """
    if path.exists() and not path.is_dir():
        raise XenomaskError(f"cannot write into folder {path}: it is a file; choose another name")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = unseen(path / "probe", "part")
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise XenomaskError(f"cannot write into folder {path}: {e.strerror}; choose another one") from e
    remove_litter(path)
    return path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that takes its name only once the block has ended well.

    The temporary keeps the ending of the name (writers choose the format by it) and may become a file or
    a folder. A replaced folder changes places with it in one step where the system can (Linux), and is else moved
    aside first: the final name never holds a half of either. A folder and its files are on the disk before the name is.
    Raises XenomaskError where a file would replace a folder: nobody means that.
    """
    if path.name in ("", ".."):
        raise XenomaskError(f"cannot write {path}: give a new name, such as {path / 'out'}")
    temporary = unseen(path, "part")
    try:
        yield temporary
        if temporary.is_file():  # the rename must not reach the disk before the bytes do
            with temporary.open("rb") as f:
                os.fsync(f.fileno())
            refuse_folder(path)
        elif temporary.is_dir():
            for part in [*temporary.rglob("*"), temporary]:
                sync(part)
        if path.is_dir():
            old = unseen(path, "old")
            if not _exchanged(temporary, path):
                path.rename(old)
                temporary.rename(path)
                old.rename(temporary)  # "old" is only ever the name of a whole folder: see remove_litter
            sync(path.parent)
        else:
            os.replace(temporary, path)
            if path.is_dir():
                sync(path.parent)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise XenomaskError(f"cannot write {path}: {e.strerror}") from e
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def unseen(path: Path, kind: str) -> Path:
    """A hidden name beside `path`, of this process, for what is half-written or to be removed ("part"), or was moved
    aside ("old")."""
    return path.with_name(f".{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.{kind}.{path.name}")


def _exchanged(a: Path, b: Path) -> bool:
    """Swaps the names of two folders in one step, so that no kill leaves neither; False where the system has none."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2  # Linux
        return swap(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0
    except (AttributeError, OSError):
        return False


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk; nothing where the system cannot."""
    with contextlib.suppress(OSError):  # a folder cannot be opened on Windows
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _machine() -> str:
    """Where process numbers mean the same: this machine, or a container on it."""
    try:
        numbers = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # only Linux has it
        numbers = 0
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


def remove_litter(folder: Path, name: str | None = None, older: float = LITTER) -> None:
    """Removes what killed processes left of `name` (None: of all) in a folder.

    What a process of this machine is writing stays; of other machines, what is not `older` than so many seconds. A
    folder that was being replaced, and whose name is gone, gets its name back.
    """
    for path in folder.glob(".*"):
        found = UNSEEN.fullmatch(path.name)
        if not found or (name is not None and found[4] != name):
            continue
        machine, process, kind, final = found.groups()
        with contextlib.suppress(OSError):  # another run was faster
            if machine != _machine() or os.name != "posix" or _runs(int(process)):
                newest = max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
                if time.time() - newest < older:
                    continue
            if kind == "old" and not (folder / final).exists():
                path.rename(folder / final)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


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
    part = unseen(path, "part")
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


def check_maps(folder: Path) -> None:
    """Raises XenomaskError where there is no folder of maps; numpy is not loaded to say so."""
    if not folder.is_dir():
        raise XenomaskError(f"no folder of maps {folder}; make one with `xenomask score`")


def refuse_folder(path: Path) -> None:
    """Raises XenomaskError where a file is to be written and a folder, a pipe or a device has its name, or none."""
    if path.is_dir() or path.name in ("", ".."):
        raise XenomaskError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not path.is_file():  # it would be replaced, not written into
        raise XenomaskError(f"cannot write {path}: it is no regular file; give the name of a file")


OWN = (MANIFEST, "detector.json", "config.json", "xenomask.json")  # which folders of maps and detectors hold


def refuse_input(path: Path) -> None:
    """Raises XenomaskError where JSON is to be written over a file that holds something else, such as the photo."""
    if not path.is_file():
        return
    with path.open("rb") as f:
        head = f.read(1024).lstrip()
    if path.name in OWN or (head and head[:1] not in b"{["):
        what = "a folder's own description" if path.name in OWN else "not JSON"
        raise XenomaskError(f"cannot write {path}: there is a file of this name, {what}; choose another name")


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


def portable(x: Any) -> Any:
    r"""The same, and text without halves of characters, which are bytes of names: they are no valid JSON.

    >>> portable({"a\udcff": float("inf")})
    {'a\\udcff': None}
    """
    if isinstance(x, Mapping):
        return {portable(str(k)): portable(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [portable(v) for v in x]
    return x.encode("utf-8", "backslashreplace").decode() if isinstance(x, str) else finite(x)


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


def read_text(path: Path) -> str:
    """A text file of UTF-8, with or without a byte order mark, which editors of Windows write.

    Raises XenomaskError for another encoding, and OSError where it cannot be read.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        wide = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"not UTF-8 (byte {e.start})"
        raise XenomaskError(f"{path} is damaged or {wide}: save it as UTF-8") from e


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; XenomaskError, with the reason, for anything else, also for NaN and doubled keys."""

    def refuse(name: str) -> Any:
        raise ValueError(f"it holds {name}, which is no number of JSON")

    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON >> 20} MB")
        found = json.loads(read_text(path), object_pairs_hook=unique_keys, parse_constant=refuse)
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


def home() -> Path:
    """xenomask's own folder for what a user places by hand: $XENOMASK_HOME, or the platform's cache folder."""
    own = os.environ.get("XENOMASK_HOME")
    return Path(own) if own else platform_cache()


def platform_cache() -> Path:
    """xenomask's part of the platform's cache folder; raises RuntimeError where the user has no home."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "xenomask"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "xenomask"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenomask"
