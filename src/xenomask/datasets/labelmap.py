"""A label map: a TOML file that says which stored value, or colour, of a label image is which of the user's classes.

    classes = ["road", "car"]       # the network's classes, in this order
    other = "void"                  # what is listed nowhere; "error": it is refused, with the file's name
    [ids]                           # the value in the label image: the class, "void" or "outlier"
    7 = "road"
    26 = "car"
    27 = "car"
    99 = "outlier"                  # an annotated anomaly: what outlier exposure trains on, as on pasted objects

or, in place of [ids], for label images that are coloured, [colours] with "128,64,128" = "road".
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xenomask.datasets.codings import Coding, Colour
from xenomask.errors import XenomaskError, unknown
from xenomask.files import read_text
from xenomask.types import OUTLIER, VOID

KEYS = ("classes", "ids", "colours", "other")
# names that stand for no class: nothing is known of it; it is an anomaly (`Coding.table` has these numbers)
NOTHING, ANOMALOUS = "void", "outlier"


@dataclass(frozen=True)
class LabelMap:
    """The user's classes, and the coding of the label images that show them."""

    classes: tuple[str, ...]
    coding: Coding

    @property
    def outliers(self) -> bool:
        """Whether some value or colour stands for annotated anomalies."""
        return OUTLIER in (*self.coding.table.values(), *self.coding.colours.values())


def read_label_map(path: Path) -> LabelMap:
    """Reads a label map.

    Raises XenomaskError for a missing file, bad TOML, an unknown key or class, a class named twice, a value that is
    no whole number of 0..255, and a colour that is not three of them.
    """
    try:
        table = tomllib.loads(read_text(path))
    except OSError as e:
        raise XenomaskError(f"cannot read label map {path}: {e.strerror}") from e
    except tomllib.TOMLDecodeError as e:
        raise XenomaskError(f"label map {path} is not valid TOML: {e}") from e
    except RecursionError as e:
        raise XenomaskError(f"label map {path} is nested too deeply") from e
    try:
        return _label_map(table, path)
    except XenomaskError as e:
        raise XenomaskError(f"label map {path}: {e}") from e


def _label_map(table: Mapping[str, Any], path: Path) -> LabelMap:
    for key in table:
        if key not in KEYS:
            raise unknown("key", key, KEYS)
    classes = _classes(table.get("classes"))
    other = table.get("other", "void")
    if other not in ("void", "error"):
        raise XenomaskError(f'other = {other!r} is neither "void" nor "error"')
    if ("ids" in table) == ("colours" in table):
        raise XenomaskError("it needs either [ids] or [colours], and not both")
    kind = "ids" if "ids" in table else "colours"
    if not isinstance(table[kind], dict) or not table[kind]:
        example = "7" if kind == "ids" else '"0,0,142"'
        raise XenomaskError(f'[{kind}] is no table such as {example} = "{classes[0]}"')
    number = {name: i for i, name in enumerate(classes)} | {NOTHING: VOID, ANOMALOUS: OUTLIER}
    decoded: dict[Any, int] = {}
    for key, name in table[kind].items():
        if not isinstance(name, str) or name not in number:
            raise unknown(f"class of {key[:40]}", ascii(name)[:80].strip("'"), number)
        stored = _value(key) if kind == "ids" else _colour(key)
        if stored in decoded:
            raise XenomaskError(f"{key} is listed twice in [{kind}]")
        decoded[stored] = number[name]
    meaning = f"{len(decoded)} {kind} of {len(classes)} classes"
    if kind == "colours":
        return LabelMap(
            classes, Coding(str(path), "train_ids", meaning, {}, decoded, VOID if other == "void" else None)
        )
    rest = VOID if other == "void" else None
    return LabelMap(classes, Coding(str(path), "train_ids", meaning, decoded, other_numbers=rest))


def _classes(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not 1 <= len(found) <= OUTLIER or not all(_is_name(c) for c in found):
        raise XenomaskError(f"classes must be a list of 1 to {OUTLIER} names")
    if twice := [c for c in found if found.count(c) > 1]:
        raise XenomaskError(f"class '{twice[0]}' is named twice")
    if name := next((n for n in (NOTHING, ANOMALOUS) if n in found), None):
        raise XenomaskError(f"'{name}' stands for no class, so it cannot be one")
    return tuple(found)


def _is_name(c: Any) -> bool:
    return isinstance(c, str) and c.isprintable() and 0 < len(c) <= 100


def _value(key: str) -> int:
    if not re.fullmatch(r"\d{1,3}", key) or int(key) > 255:
        raise XenomaskError(f"value {key[:40]!r} in [ids] is no whole number of 0..255")
    return int(key)


def _colour(key: str) -> Colour:
    parts = [p.strip() for p in key.split(",")]
    if len(parts) != 3 or not all(re.fullmatch(r"\d{1,3}", p) and int(p) <= 255 for p in parts):
        raise XenomaskError(f'colour {key[:40]!r} in [colours] is not "red,green,blue", each of 0..255')
    return int(parts[0]), int(parts[1]), int(parts[2])
