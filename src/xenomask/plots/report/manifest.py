"""Maps' manifests -> what a reader of the page sees of them."""

import json
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from xenomask.plots.report.html import el
from xenomask.plots.report.view import MethodView


def manifests(methods: Sequence[MethodView]) -> list[Element]:
    """Each method's folder and manifest, as they are."""
    found = []
    for m in methods:
        text = "no manifest: made by another tool, or moved" if m.manifest is None else json.dumps(m.manifest, indent=1)
        found.append(
            el("details", el("summary", f"{m.name}: {m.folder}"), el("pre", text, tabindex="0"), open=len(methods) < 4)
        )
    return found
