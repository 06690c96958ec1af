"""The documentation's pages and the code blocks in them."""

import re

from helpers.places import ROOT

DOCS = ROOT / "docs"
CARD = ROOT / "src/xenomask/detectors/nano/README.md"
PAGES = [ROOT / "README.md", CARD, *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n?(?:[ \t]*\n(?= {4}))?)+")


def fences(text: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def shell_lines(text: str) -> list[str]:
    """The lines of a page's sh blocks and indented blocks, continued lines joined."""
    blocks = fences(text, "sh") + INDENTED.findall(FENCE.sub("\n", text))
    return [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
