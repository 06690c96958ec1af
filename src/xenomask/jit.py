"""Plain loops -> machine code, by numba; whether Triton can make it for the GPU."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

log = logging.getLogger(__name__)
PATIENCE = 1.0  # seconds of compiling before a word is said


def compiled(**options: Any) -> Callable:
    """A decorator: numba.njit without the interpreter's lock, cached on disk where a folder can be written to.

    That is numba's choice: NUMBA_CACHE_DIR, else beside the source, else (an install that is read only) numba's part of
    the user's cache folder.
    """

    import numba  # it takes half a second to load

    def decorate(f: Callable) -> Callable:
        try:
            return numba.njit(nogil=True, cache=True, **options)(f)
        except RuntimeError:  # no folder to cache in
            return numba.njit(nogil=True, **options)(f)

    return decorate


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
