"""The one error that a user is meant to read, and the words that help with a misspelt name."""

import re
import unicodedata
from collections.abc import Container, Iterable
from difflib import get_close_matches


class XenomaskError(Exception):
    """Something the user can mend: what is wrong, where, what to do; the CLI prints it and exits with 2."""


def unknown(what: str, name: str, known: Iterable[str]) -> XenomaskError:
    """The error for a name that is not in `known`, with the nearest known one.

    >>> str(unknown("score", "rbaa", ["rba", "msp"]))
    "unknown score 'rbaa'; did you mean 'rba'? known: msp, rba"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    return XenomaskError(f"unknown {what} '{name}'{hint} known: {', '.join(names)}")


def refuse_taken(what: str, name: str, known: Container[str]) -> None:
    """Raises XenomaskError for a name that is in `known`: what is registered under it would be lost."""
    if name in known:
        raise XenomaskError(f"there is a {what} {name!r} already: choose another name")


def printable(text: str) -> str:
    r"""A name as it can be shown and stored as text: a sign for each byte that is no UTF-8 and each control character.

    >>> printable("a\udcff b\x1b[1m.jpg") == "a\ufffd b\ufffd[1m.jpg"
    True
    """
    text = re.sub(r"[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)  # half a character of JSON: no byte of a name
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in text)


def first_line(e: BaseException) -> str:
    """What a library's error says, short enough for one line.

    >>> first_line(ValueError("no\\nyes")), first_line(KeyError())
    ('no', 'KeyError')
    """
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(e).__name__
