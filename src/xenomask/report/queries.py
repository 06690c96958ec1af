"""What a network's queries do -> one HTML page, a card a query."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from xenomask.report.html import data_uri, el
from xenomask.report.page import document, section
from xenomask.report.view import Crop
from xenomask.version import __version__


@dataclass(frozen=True)
class QueryView:
    """One query: its marks in words, how often it predicted which class, its mean mask (PNG) and best images."""

    number: int
    marks: Sequence[str]
    # (class, times predicted), most frequent first, without "no object"
    classes: Sequence[tuple[str, int]]
    frames: int
    mean_mask: bytes
    images: Sequence[Crop]


@dataclass(frozen=True)
class QueryGroup:
    """Queries of one kind."""

    name: str
    title: str
    queries: Sequence[QueryView]


WIDTH, ROW, SHOWN = 300, 18, 6  # of the bars: pixels, and how many classes


def query_page(title: str, lead: Sequence[str], groups: Sequence[QueryGroup]) -> bytes:
    """The page's bytes (UTF-8); it needs nothing else and runs no foreign script."""
    groups = [g for g in groups if g.queries]
    main = el("main", el("h1", title), *(el("p", t) for t in lead), id="main")
    main.extend(
        section(g.name, f"{g.title}: {len(g.queries)}", el("div", *map(_card, g.queries), class_="cards"))
        for g in groups
    )
    nav = el("nav", *(el("a", g.title, href=f"#{g.name}") for g in groups), aria_label="Contents")
    skip = el("a", "Skip to the queries", href="#main", class_="skip")
    return document(title, [skip, nav, main, el("footer", el("p", f"Written by xenomask {__version__}."))])


def _card(q: QueryView) -> Element:
    images = [
        el("figure", el("img", src=data_uri(c.picture, "image/jpeg"), alt=c.text), el("figcaption", c.text))
        for c in q.images
    ]
    mean = el(
        "figure",
        el("img", src=data_uri(q.mean_mask, "image/png"), alt=f"mean mask of query {q.number}"),
        el("figcaption", "mean mask"),
    )
    marks = el("p", "; ".join(q.marks), class_="marks") if q.marks else None
    return el(
        "article",
        el("h3", f"Query {q.number}", id=f"query-{q.number}"),
        *([marks] if marks is not None else []),
        _bars(q),
        el("div", mean, *images, class_="gallery"),
        class_="card",
        aria_labelledby=f"query-{q.number}",
    )


def _bars(q: QueryView) -> Element:
    """The class histogram as vector bars with their numbers."""
    shown = list(q.classes[:SHOWN])
    rest = sum(n for _, n in q.classes[SHOWN:])
    shown += [("other classes", rest)] if rest else []
    shown.append(("no object", q.frames - sum(n for _, n in q.classes)))
    said = f"Classes of query {q.number} in {q.frames} photos: " + ", ".join(f"{c} {n}" for c, n in shown)
    picture = el("svg", viewBox=f"0 0 {WIDTH} {ROW * len(shown)}", width=str(WIDTH), role="img", aria_label=said)
    for i, (name, n) in enumerate(shown):
        y = i * ROW
        long = 140 * n / max(1, q.frames)
        picture.append(el("text", name, x="105", y=str(y + 13), text_anchor="end"))
        picture.append(
            el("rect", x="110", y=str(y + 3), width=f"{long:.1f}", height=str(ROW - 6),
               class_="none" if name == "no object" else "bar")
        )  # fmt: skip
        picture.append(el("text", str(n), x=f"{115 + long:.1f}", y=str(y + 13)))
    return picture
