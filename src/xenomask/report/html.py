"""HTML by the standard library's tree: every text and attribute is escaped because none is ever pasted."""

import json
from base64 import b64encode, standard_b64encode
from hashlib import sha256
from typing import Any
from xml.etree.ElementTree import Element, tostring

Child = Element | str


def el(tag: str, *children: Child, **attributes: str | bool | None) -> Element:
    """An element; `class_` and `data_x` spell class and data-x, True an attribute without a value, None none.

    >>> to_html(el("p", "a < b", el("b", "c"), " d", class_="x", title='"'))
    '<p class="x" title="&quot;">a &lt; b<b>c</b> d</p>'
    """
    own = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items() if v is not None and v is not False}
    node = Element(tag, {k: "" if v is True else str(v) for k, v in own.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            node.append(child)
            last = child
        elif last is None:
            node.text = (node.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return node


def to_html(node: Element) -> str:
    """The element as HTML text."""
    return tostring(node, encoding="unicode", method="html")


def data_uri(data: bytes, kind: str) -> str:
    """The address of a picture that lies in the address itself."""
    return f"data:{kind};base64,{base64(data)}"


def base64(data: bytes) -> str:
    """Bytes as text without a character that HTML minds."""
    return standard_b64encode(data).decode("ascii")


def inert_json(value: Any) -> str:
    """JSON for a script element: no text in it can end the element or open another.

    >>> inert_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
