"""Hooks of mkdocs: append pages missing in the nav, parse lists as CommonMark does, refuse external requests."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

# section of the nav -> folder whose unlisted pages are appended to it
SECTIONS = {"Guides": "", "Scores": "scores", "Refinements": "refinements", "Data sets": "data", "Python": "api"}
# as in CommonMark, a wrapped line that happens to begin with "19. " starts no list
ITEM = re.compile(r"\s*(?:[-*]|1\.) ")


def on_config(config: Any) -> Any:
    config.nav = filled(config.nav, Path(config.docs_dir))
    return config


def filled(nav: list, docs: Path) -> list:
    """Return the nav with the pages that it does not list, so that a new page needs no line in mkdocs.yml."""
    named = set(_pages(nav))
    out = []
    for entry in nav:
        title = next(iter(entry)) if isinstance(entry, dict) else ""
        if title in SECTIONS:
            found = sorted(p.relative_to(docs).as_posix() for p in (docs / SECTIONS[title]).glob("*.md"))
            entry = {title: [*entry[title], *(p for p in found if p not in named)]}
        out.append(entry)
    return out


def _pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [p for part in (nav.values() if isinstance(nav, dict) else nav) for p in _pages(part)]


def on_page_markdown(markdown: str, **_: Any) -> str:
    return spaced_lists(markdown)


def spaced_lists(markdown: str) -> str:
    """Return the text with an empty line before each list, which Python-Markdown needs, unlike CommonMark."""
    out: list[str] = []
    fenced = inside = False  # inside a list
    for line in markdown.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and ITEM.match(line):
            if out and out[-1].strip() and not inside and not out[-1].startswith("    "):
                out.append("")
            inside = True
        elif not line.strip() or not line.startswith(" "):
            # a lazy line continues its item; an empty one may end the list, and the next item needs none before it
            inside = inside and bool(line.strip())
        out.append(line)
    return "\n".join(out)


class _Requests(HTMLParser):
    """Collect what a browser requests when it opens a page: not links, which a reader has to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"a": (), "link": ("href",)}.get(tag, ("src", "srcset", "data", "poster", "href", "style"))
        self.found += [v for k, v in attrs if k in names and v]


def requests_elsewhere(html: str) -> list[str]:
    """Return the addresses on other hosts that a page's markup makes a browser request.

    >>> requests_elsewhere('<img src="a.png"><a href="https://b.c">b</a><script src="//d.e/f.js"></script>')
    ['//d.e/f.js']
    """
    parser = _Requests()
    parser.feed(html)
    return [v for v in parser.found if re.search(r"(?:^|[\s,(\"'])(?:\w+:)?//", v) and not v.startswith("data:")]


def on_post_page(output: str, page: Any, **_: Any) -> str:
    if found := requests_elsewhere(output):
        raise PluginError(f"{page.file.src_uri} would ask other hosts: {', '.join(found)}")
    return output


def on_post_build(config: Any) -> None:
    for path in Path(config.site_dir).rglob("*.css"):
        if found := re.findall(r"(?:url\(|@import\s*)[\"']?((?:https?:)?//[^\s\"')]+)", path.read_text("utf-8")):
            raise PluginError(f"{path} would ask other hosts: {', '.join(found)}")
