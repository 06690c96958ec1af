"""The contract of whatever reads files of others: one line says what is wrong with which file, and nothing happened."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from xenomask.errors import XenomaskError


def refused(
    call: Callable[..., Any], *arguments: Any, said: str | None = None, names: str | Path = "", longest: int = 700
) -> str:
    """The one line with which the call refuses its arguments; `said` is a pattern in it, `names` stands in it."""
    with pytest.raises(XenomaskError, match=said) as error:
        call(*arguments)
    text = str(error.value)
    assert "\n" not in text and str(names) in text and len(text) < longest, text
    return text


WRONG = ("missing", "renamed", "reshaped", "integers")


def one_wrong(tensors: Mapping[str, Any], name: str, how: str) -> dict[str, Any]:
    """A checkpoint's tensors, NumPy's or PyTorch's, one of them wrong in one of the ways of WRONG."""
    found = dict(tensors)
    value = found.pop(name)
    if how == "renamed":
        found[f"{name}_x"] = value
    elif how == "reshaped":
        found[name] = value[[*range(len(value)), 0]]
    elif how == "integers":
        found[name] = value.astype("int32")
    return found
