"""Packages whose parts are imported when they are first asked for: importing the package loads no torch."""

from collections.abc import Callable, Mapping
from importlib import import_module


def later(package: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Return the `__getattr__` (PEP 562) of a package: each of `names` is found in its module of that package."""

    def found(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{names[name]}"), name)

    return found
