"""Plain loops -> machine code, by numba; whether Triton can make it for the GPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def compiled(**options: Any) -> Callable:
    """A decorator: numba.njit without the interpreter's lock, cached on disk where a folder can be written to."""

    import numba  # it takes half a second to load

    def decorate(f: Callable) -> Callable:
        try:
            return numba.njit(nogil=True, cache=True, **options)(f)
        except RuntimeError:  # no folder to cache in
            return numba.njit(nogil=True, **options)(f)

    return decorate


def in_threads(kernel: Callable, threads: int, n: int, arguments: Sequence[Any], results: Sequence[np.ndarray]) -> None:
    """Calls kernel(*arguments, first, last, *results) on shares of range(n), one for each thread.

    Nothing depends on the number of threads if no two of the n write to one place.
    """
    threads = max(1, min(threads, n))
    edges = [n * i // threads for i in range(threads + 1)]
    if threads == 1:
        kernel(*arguments, 0, n, *results)
        return
    # NOTE: not numba's own threads, which end the process when two Python threads start them at once
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda share: kernel(*arguments, *share, *results), zip(edges, edges[1:], strict=False)))


def check_triton() -> None:
    """Raises what keeps Triton from running here: not installed, no driver, no C compiler to build its launcher."""
    import triton

    triton.runtime.driver.active.get_current_target()
