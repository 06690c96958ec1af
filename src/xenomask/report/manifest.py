"""Maps' manifests -> what a reader of the page sees of them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from xenomask.report.html import el
from xenomask.report.view import MethodView

WIDE = 110  # letters


def manifests(methods: Sequence[MethodView]) -> list[Element]:
    """Each method's folder and manifest, as they are."""
    found = []
    for m in methods:
        text = "no manifest: made by another tool, or moved" if m.manifest is None else compact(m.manifest)
        found.append(
            el("details", el("summary", f"{m.name}: {m.folder}"), el("pre", text, tabindex="0"), open=len(methods) < 4)
        )
    return found


def compact(value: Any, indent: str = "") -> str:
    """JSON with a line for each entry of what holds objects or lists, and all else on one line.

    >>> print(compact({"scale": [0.0, 1.0], "members": [{"name": "a"}]}))
    {
     "scale": [0.0, 1.0],
     "members": [
      {"name": "a"}
     ]
    }
    """
    held = list(value.values() if isinstance(value, Mapping) else value) if isinstance(value, Mapping | list) else []
    flat = json.dumps(value)
    if not held or (not any(isinstance(v, Mapping | list) for v in held) and len(flat) < WIDE):
        return flat
    inner = indent + " "
    if isinstance(value, Mapping):
        lines = [f"{inner}{json.dumps(str(k))}: {compact(v, inner)}" for k, v in value.items()]
    else:
        lines = [inner + compact(v, inner) for v in value]
    first, last = "{}" if isinstance(value, Mapping) else "[]"
    return f"{first}\n" + ",\n".join(lines) + f"\n{indent}{last}"
