"""A griffe extension that fences doctests as code blocks; in Markdown ">>>" would be quoted text."""

import re

import griffe

BLOCK = re.compile(r"(?:^|(?<=\n))[ \t]*>>> .*(?:\n(?![ \t]*\n).*)*")


def fenced(text: str) -> str:
    """Return the docstring with its doctests (to the next empty line) inside fences.

    >>> fenced("One.\\n\\n>>> 1 + 1\\n2\\n\\nTwo.").splitlines()
    ['One.', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'Two.']
    """
    return BLOCK.sub(lambda m: f"```pycon\n{m[0]}\n```", text)


class Doctests(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
