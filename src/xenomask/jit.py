"""Plain loops -> machine code, by numba."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable:
    """A decorator: numba.njit without the interpreter's lock, cached on disk where a folder can be written to."""

    def decorate(f: Callable) -> Callable:
        try:
            return numba.njit(nogil=True, cache=True, **options)(f)
        except RuntimeError:  # no folder to cache in
            return numba.njit(nogil=True, **options)(f)

    return decorate
