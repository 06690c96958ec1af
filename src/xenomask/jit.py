"""Plain loops -> machine code, by numba; whether Triton can make it for the GPU."""

import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

import numpy as np

log = logging.getLogger(__name__)
PATIENCE = 1.0  # seconds of compiling before a word is said


def compiled(*takes: str, **options: Any) -> Callable:
    """A decorator: numba.njit without the interpreter's lock, cached on disk where a folder can be written to.

    That is numba's choice: NUMBA_CACHE_DIR, else beside the source, else (an install that is read only) numba's part of
    the user's cache folder. `takes`, needed where Python calls the loop, describes its arguments: see `Kernel`.
    """

    import numba  # it takes half a second to load

    def decorate(f: Callable) -> Callable:
        try:
            loop = numba.njit(nogil=True, cache=True, **options)(f)
        except RuntimeError:  # no folder to cache in
            loop = numba.njit(nogil=True, **options)(f)
        return Kernel(loop, takes) if takes else loop

    return decorate


class Kernel:
    """A compiled loop that Python may call: it is entered with arrays of the stated types and sizes alone.

    Machine code checks no bounds: an array that is too short would be read beyond its end, and another type would
    silently be compiled for. `takes` holds "TYPE SIZE SIZE ..." for each parameter, "" for a number. A size is a number
    or a name, which stands for one number in all of them; "int" is any whole type, "real" float32 or float64, the same
    one everywhere. Raises TypeError and ValueError.
    """

    def __init__(self, loop: Any, takes: Sequence[str]):
        update_wrapper(self, loop.py_func)
        self.loop = loop
        self.takes = dict(zip(inspect.signature(loop.py_func).parameters, (t.split() for t in takes), strict=True))

    def __call__(self, *arguments: Any) -> Any:
        self.check(arguments)
        return self.loop(*arguments)

    def __getattr__(self, name: str) -> Any:  # what numba knows of it: signatures, stats
        if name == "loop":
            raise AttributeError(name)
        return getattr(self.loop, name)

    def check(self, arguments: Sequence[Any]) -> None:
        """Raises TypeError for another type, ValueError for sizes that do not fit."""
        known: dict[str, Any] = {}
        for (name, asked), x in zip(self.takes.items(), arguments, strict=True):
            if not asked:
                continue
            where = f"{self.__module__}.{self.__name__}: {name}"
            if not isinstance(x, np.ndarray) or not _is_type(x.dtype, asked[0], known):
                raise TypeError(f"{where} is {getattr(x, 'dtype', type(x).__name__)}, not {asked[0]}")
            fits = x.ndim == len(asked) - 1 and all(
                n == (int(size) if size.isdecimal() else known.setdefault(size, n))
                for n, size in zip(x.shape, asked[1:], strict=True)
            )
            if not fits:
                sizes = " ".join(f"{k}={n}" for k, n in known.items() if k != "real")
                raise ValueError(f"{where} has the shape {x.shape}, not ({', '.join(asked[1:])}) with {sizes}")


def _is_type(dtype: np.dtype, asked: str, known: dict[str, Any]) -> bool:
    if asked == "int":
        return dtype.kind in "iu" and dtype.isnative
    if asked == "real":
        return dtype in (np.float32, np.float64) and dtype == known.setdefault("real", dtype)
    return dtype == np.dtype(asked)


def thread_count() -> int:
    """How many threads a loop may take: torch's number where it is loaded, else OMP_NUM_THREADS, else the cores."""
    if torch := sys.modules.get("torch"):
        return torch.get_num_threads()
    named = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(named) if named.isdecimal() and int(named) else cores


def in_threads(kernel: Callable, threads: int, n: int, arguments: Sequence[Any], results: Sequence[np.ndarray]) -> None:
    """Calls kernel(*arguments, first, last, *results) on shares of range(n), one for each thread.

    Nothing depends on the number of threads if no two of the n write to one place. Where the kernel must be compiled
    first, and that takes longer than a second, a warning is logged that says so.
    """
    threads = max(1, min(threads, n))
    edges = [n * i // threads for i in range(threads + 1)]
    with _told(kernel):
        if threads == 1:
            kernel(*arguments, 0, n, *results)
            return
        # NOTE: not numba's own threads, which end the process when two Python threads start them at once
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda share: kernel(*arguments, *share, *results), zip(edges, edges[1:], strict=False)))


@contextmanager
def _told(kernel: Any) -> Iterator[None]:
    """While it is open, a kernel of numba's that nobody has called yet says what the user waits for."""
    if getattr(kernel, "signatures", True):
        yield
        return
    done = threading.Event()
    threading.Thread(target=_tell, args=(kernel, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _tell(kernel: Any, done: threading.Event) -> None:
    while not done.wait(PATIENCE) and not kernel.signatures:
        if not kernel.stats.cache_misses:  # the cache is being read
            continue
        folder = kernel.stats.cache_path
        kept = f"once, as it is kept in {folder}" if folder else "at each start, as no folder can be written to"
        log.warning("compiling %s.%s for this processor, %s: about 10 s", kernel.__module__, kernel.__name__, kept)
        return


def check_triton() -> None:
    """Raises what keeps Triton from running here: not installed, no driver, no C compiler to build its launcher."""
    import triton

    triton.runtime.driver.active.get_current_target()
