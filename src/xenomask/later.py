"""Packages whose parts are imported when they are first asked for: importing the package loads no torch."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def later(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562): each of `names` is in its module of that package."""

    def found(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{names[name]}"), name)

    return found, lambda: sorted({*vars(sys.modules[package]), *names})
