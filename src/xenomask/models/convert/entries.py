"""A foreign config of which every entry is accounted for: used, known to be without effect on inference, or refused."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from xenomask.errors import XenomaskError
from xenomask.models.convert.pyconfig import HINT, Unread

Path = tuple[str | int, ...]
REQUIRED: Any = object()  # in place of a default: the foreign project has none either
USED = ""
SHOWN = 80  # letters of a value that an error repeats
# reasons for which an entry of any project has no effect
TRAINING, START, MEMORY = "used in training alone", "the checkpoint's weights replace it", "saves memory in training"
DROPOUT = "dropout, which is off at inference"


class Entries:
    """One dict of a config, and its path; all parts of a config share the record of what was accounted for.

    A default is what the foreign project itself takes where the entry is left out, which need not be what we can do.
    Each method raises XenomaskError that names the entry's path and value.
    """

    def __init__(self, values: Mapping[Any, Any], path: Path = (), accounts: dict[Path, str] | None = None) -> None:
        self.values, self.path = values, path
        self.accounts: dict[Path, str] = {} if accounts is None else accounts  # USED, or why it has no effect

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def take(self, key: str, default: Any = REQUIRED) -> Any:
        """The entry's value, its lists as tuples."""
        self.accounts[(*self.path, key)] = USED
        value = self.values.get(key, default)
        if value is REQUIRED:
            raise XenomaskError(f"the config leaves out {dotted((*self.path, key))}, which has no default")
        if isinstance(value, Unread):
            _unread(value, (*self.path, key))
        return plain(value)

    def only(self, key: str, *supported: Any, default: Any = REQUIRED) -> Any:
        """The entry, which must be one of these values; left out, it is the first of them, or `default`."""
        value = self.take(key, supported[0] if default is REQUIRED else default)
        if not any(equal(value, plain(s)) for s in supported):
            self.refuse(key, value, f"is not supported, only {' or '.join(map(repr, supported))}")
        return value

    def same(self, key: str, wanted: Any, default: Any = REQUIRED) -> None:
        """The entry must be what the weights' shapes say."""
        value = self.take(key, default)
        if not equal(value, plain(wanted)):
            self.refuse(key, value, f"but the weights' shapes say {plain(wanted)!r}; is it another model's?", ", ")

    def number(self, key: str, least: float, most: float, default: Any = REQUIRED) -> Any:
        """The entry, a finite number in least..most."""
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.refuse(key, value, f"is no number in {least}..{most}")
        return value

    def three(self, key: str, default: Any = REQUIRED) -> tuple[float, float, float]:
        """The entry, a number for each of a photo's channels."""
        values = self.take(key, default)
        if not isinstance(values, tuple) or len(values) != 3 or not all(type(v) in (int, float) for v in values):
            self.refuse(key, values, "is not three numbers")
        return values

    def kind(self, *classes: str, key: str = "type", default: Any = REQUIRED) -> Any:
        """The name of a class, without its module; it must be one of these.

        `classes` have the modules that define them; each may be named in full, by an outer module that passes it on
        (so MMEngine dumps its Python configs), or without one.
        """
        value = self.take(key, default)
        if value is default:
            return default
        if not isinstance(value, str) or not any(value in _names(c) for c in classes):
            known = dict.fromkeys(c.rpartition(".")[2] for c in classes)
            self.refuse(key, value, f"is not supported, only {' or '.join(map(repr, known))}")
        return value.rpartition(".")[2]

    def without_effect(self, reasons: Mapping[str, str]) -> None:
        """Entries, with all below them, that change nothing at inference, and why."""
        self.accounts |= {(*self.path, key): reason for key, reason in reasons.items()}

    def part(self, key: str, default: Any = REQUIRED) -> "Entries":
        """The dict at that key."""
        value = self.values.get(key, default)
        if value is REQUIRED:
            raise XenomaskError(f"the config leaves out {dotted((*self.path, key))}, which has no default")
        if isinstance(value, Unread):
            _unread(value, (*self.path, key))
        if not isinstance(value, Mapping):
            self.refuse(key, plain(value), "is no dict")
        if not value:
            self.accounts[(*self.path, key)] = USED
        return Entries(value, (*self.path, key), self.accounts)

    def parts(self, key: str) -> list["Entries"]:
        """The dicts of the list at that key."""
        value = self.values[key]
        if isinstance(value, Unread):
            _unread(value, (*self.path, key))
        if not isinstance(value, list | tuple) or not all(isinstance(v, Mapping) for v in value):
            self.refuse(key, plain(value), "is no list of dicts")
        if not value:
            self.accounts[(*self.path, key)] = USED
        return [Entries(v, (*self.path, key, i), self.accounts) for i, v in enumerate(value)]

    def refuse(self, key: str, value: Any, why: str, joint: str = " ") -> NoReturn:
        """Raises the error about one entry."""
        path = dotted((*self.path, key))
        if key not in self.values:
            raise XenomaskError(f"the config's {path}, left out and so {shown(value)}, {why}")
        raise XenomaskError(f"the config's {path} = {shown(value)}{joint}{why}")

    def finish(self) -> None:
        """Refuses the first entry that nothing accounts for."""
        for path, value in _unaccounted(self.values, self.path, self.accounts):
            if isinstance(value, Unread):
                _unread(value, path)
            raise XenomaskError(
                f"the config's {dotted(path)} = {shown(value)} is not supported: xenomask has no counterpart of it"
            )


def _unaccounted(value: Any, path: Path, accounts: Mapping[Path, str]) -> Iterator[tuple[Path, Any]]:
    """Each entry that holds no others and is not accounted for, nor any that it is in."""
    if path in accounts:
        return
    if isinstance(value, Mapping) and value:
        inner = list(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | list | tuple | Unread) for v in value):
        inner = list(enumerate(value))
    else:
        yield path, value
        return
    for key, v in inner:
        yield from _unaccounted(v, (*path, key), accounts)


def _names(name: str) -> set[str]:
    """What a class may be called: with all of its modules, with the first few of them, or with none."""
    *modules, last = name.split(".")
    return {".".join([*modules[:n], last]) for n in range(len(modules) + 1)}


def plain(value: Any) -> Any:
    """The value with tuples for its lists."""
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def equal(a: Any, b: Any) -> bool:
    """Whether two plain values mean the same; numbers up to how they were rounded in print."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, int | float) and isinstance(b, int | float):
        alike = isinstance(a, bool) == isinstance(b, bool)
        return alike and (a == b or (max(abs(a), abs(b)) < 1e300 and math.isclose(a, b, rel_tol=1e-9)))
    return type(a) is type(b) and a == b


def dotted(path: Path) -> str:
    """A path as people write it: model.backbone.depths, test_pipeline[1].scale."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{str(p)[:SHOWN]}" for p in path).removeprefix(".")
    return text if text.isprintable() else repr(text)


def shown(value: Any) -> str:
    """The value in one line of bounded length."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _unread(value: Unread, path: Path) -> NoReturn:
    raise XenomaskError(f"{value.where}: {dotted(path)} is computed by code, which is never run; {HINT}")
