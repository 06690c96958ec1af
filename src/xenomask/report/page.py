"""ReportView -> HTML: one file that needs nothing else, readable without scripts and on paper."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from xenomask.files import finite
from xenomask.objects import HEAD, MOST, AnomalyObject, cells, sentence
from xenomask.report.html import base64, data_uri, el, inert_json, policy_hash, to_html
from xenomask.report.manifest import manifests
from xenomask.report.view import Cell, Diagram, MethodView, ReportView, Table


def asset(name: str) -> str:
    """The text of a file beside this one."""
    return (files("xenomask.report") / name).read_text("utf-8")


def page(view: ReportView) -> bytes:
    """The page's bytes (UTF-8); only its own style and script may run in it, and nothing may be loaded."""
    main = el("main", id="main")
    main.extend([
        el("h1", view.title),
        *(el("p", text) for text in view.lead),
        section("numbers", "Numbers", *_remarks(view), *(table(t, f"numbers-{i}") for i, t in enumerate(view.tables))),
        section("curves", "Curves", figures(view.diagrams)),
        *([_browser(view)] if view.frames else []),
        section("frames", "Frames, worst first", _frames_text(view), _frames(view)),
        section("objects", "Anomalous objects", *(p for i, m in enumerate(view.methods) for p in _objects(m, i, view))),
        section("components", "Components", *(part for m in view.methods for part in _gallery(m))),
        section("scores", "Scores", *(el("div", el("h3", m.name), figures(m.diagrams)) for m in view.methods)),
        section("runs", "What made the maps", *manifests(view.methods)),
    ])  # fmt: skip
    contents = [(s.get("id", ""), s.find("h2").text or "") for s in main if s.tag == "section"]  # pyright: ignore
    nav = el("nav", *(el("a", text, href=f"#{i}") for i, text in contents), aria_label="Contents")
    foot = el("footer", el("p", f"Written by xenomask {view.version}."))
    skip = el("a", "Skip to the report", href="#main", class_="skip")
    return document(view.title, [skip, nav, main, foot], _data(view), _stored(view))


def document(title: str, body: list[Element], data: object = None, stored: tuple[Element, ...] = ()) -> bytes:
    """A whole page around a body: style, script and policy, then the data that the script reads."""
    style, script = asset("page.css"), asset("page.js")
    policy = f"default-src 'none'; img-src data:; style-src {policy_hash(style)}; script-src {policy_hash(script)}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", style),
    )
    tail = [el("script", inert_json(data), type="application/json", id="report-data"), *stored, el("script", script)]
    text = to_html(el("html", head, el("body", *body, *tail), lang="en"))
    return b"<!DOCTYPE html>\n" + text.encode("utf-8", "replace")  # a file's name may be no valid text


def section(name: str, title: str, *children: Element) -> Element:
    """A part of the page with its heading."""
    return el("section", el("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def cell(c: Cell, tag: str = "td") -> Element:
    """A cell with its full value, which sorting and readers of the page use."""
    value = None if c.value is None else repr(c.value)
    node = el(tag, c.text, scope="row" if tag == "th" else None, data_value=value)
    if c.note:
        node.append(el("small", c.note))
    return node


def table(t: Table, name: str) -> Element:
    """A table whose columns sort by a button each; it scrolls by itself where the window is narrow."""
    above = [name for name, columns in t.groups for _ in range(columns)] or [""] * len(t.head)
    heads = [
        el("th", el("button", h, type="button", aria_label=f"{a}: {h}" if a else None), scope="col")
        for h, a in zip(t.head, above, strict=True)
    ]
    groups = [
        el("th" if g else "td", g, colspan=str(n), scope="colgroup" if g and n > 1 else None) for g, n in t.groups
    ]
    head = [el("tr", *groups, class_="groups")] if groups else []
    rows = [el("tr", cell(r[0], "th"), *map(cell, r[1:])) for r in t.rows]
    caption = el("caption", el("span", t.caption), id=f"{name}-caption")
    inner = el("table", caption, el("thead", *head, el("tr", *heads)), el("tbody", *rows), class_="sortable", id=name)
    return el("div", inner, class_="scroll", role="region", tabindex="0", aria_labelledby=f"{name}-caption")


def figures(diagrams) -> Element:
    """Vector pictures side by side."""

    def one(d: Diagram) -> Element:
        return el(
            "figure", el("img", src=data_uri(d.svg.encode(), "image/svg+xml"), alt=d.alt), el("figcaption", d.caption)
        )

    return el("div", *map(one, diagrams), class_="figures")


def _remarks(view: ReportView) -> list[Element]:
    items = [el("li", el("strong", f"{m.name}: "), text) for m in view.methods for text in m.remarks]
    return [el("ul", *items, class_="remarks")] if items else []


def _browser(view: ReportView) -> Element:
    first, largest = view.frames[0], max(f.size for f in view.frames)
    options = [el("option", f.id, value=str(i)) for i, f in enumerate(view.frames)]
    steps = [el("button", t, type="button", id=i) for t, i in (("Previous", "previous"), ("Next", "next"))]
    views = [("heatmap", "map"), ("overlay", "map over photo"), ("photo", "photo")]
    chosen = [
        el("label", el("input", type="radio", name="view", value=v, checked=v == "heatmap"), f" {t}") for v, t in views
    ]
    bar = el(
        "div", el("label", "Frame ", el("select", *options, id="frame")), *steps,
        el("fieldset", el("legend", "Show"), *chosen), class_="bar",
    )  # fmt: skip
    panels = el("div", *(_panel(m, i, view.colours) for i, m in enumerate(view.methods)), class_="panels")
    if len(view.methods) > 1:
        panels.append(_agreement(len(view.methods)))
    note = el(
        "p",
        f"The slider works on maps reduced to {first.shown[1]} x {first.shown[0]} pixels (this data set's frames are "
        f"up to {largest[1]} x {largest[0]}), quantised to its own steps. Every number beside it was computed "
        "from the maps at full resolution, over all frames. White line: score at the threshold; green line: true "
        "anomaly; hatched: void, not counted.",
    )
    hint = el("p", "The sliders need scripts; all numbers and the pictures below do not.", class_="no-script")
    return section(
        "browser", "Look at the maps", note, hint, bar, el("p", id="frame-numbers", aria_live="polite"), panels
    )


def _panel(m: MethodView, i: int, colours: bytes) -> Element:
    start, (low, high) = next(iter(m.levels.points.values())), m.scale
    slider = el(
        "input", type="range", id=f"slider-{i}", min="0", max=str(len(m.levels.threshold) - 1), value=str(start)
    )
    points = [el("button", name, type="button", data_point=str(k)) for name, k in m.levels.points.items()]
    return el(
        "figure",
        el("figcaption", m.name),
        el("canvas", id=f"canvas-{i}", role="img", aria_label=f"map of {m.name}"),
        el("div", f"{low:.4g}", el("img", src=data_uri(colours, "image/png"), alt="from dark to bright"), f"{high:.4g}",
           class_="scale"),
        el("label", f"Threshold of {m.name}", for_=f"slider-{i}"),
        slider,
        el("output", id=f"said-{i}", for_=f"slider-{i}"),
        el("div", *points, class_="points"),
        class_="panel",
        data_method=str(i),
    )  # fmt: skip


def _agreement(methods: int) -> Element:
    colours = el("ul", class_="key", id="agreement-key")
    return el(
        "figure",
        el("figcaption", "Agreement at these thresholds"),
        el("canvas", id="canvas-agreement", role="img", aria_label="how many methods call a pixel anomalous"),
        el("p", f"How many of the {methods} call a pixel anomalous, each at its own slider's threshold:"),
        colours,
        class_="panel",
    )


def _frames_text(view: ReportView) -> Element:
    shown, names = len(view.frames), [m.name for m in view.methods]
    return el(
        "p",
        f"Worst first: by the frame's own exact AUPR-sum with {names[0]}; frames without an anomaly or without an "
        f"inlier have no such number and come last. Pictures: the {shown} first of {len(view.frame_table.rows)}, map "
        "over photo, white line at the pooled best-F1 threshold.",
    )


def _frames(view: ReportView) -> Element:
    node = table(view.frame_table, "frame-table")
    body = node.find("table/tbody")
    assert body is not None
    for i, (row, f) in enumerate(zip(body, view.frames, strict=False)):
        name = row[0]
        button = el("button", name.text or "", type="button", data_frame=str(i), title="look at it above")
        thumbs = [
            el("img", src=data_uri(m.thumbs[i], "image/jpeg"), alt=f"{f.id} seen by {m.name}", loading="lazy")
            for m in view.methods
        ]
        name.text = None
        name.extend([button, el("div", *thumbs, class_="thumbs")])
    return node


def _objects(m: MethodView, i: int, view: ReportView) -> list[Element]:
    """A method's objects as `detect` prints them: a picture and a sentence per frame, one table of all."""
    o, order = m.objects, [row[0].text for row in view.frame_table.rows]
    shown, rows = [], []
    head = (*HEAD[:-1], "predicted as") if o.classes else HEAD[:-1]
    for k, f in enumerate(order):
        picture = (
            [el("img", src=data_uri(o.pictures[k], "image/jpeg"), alt=f"{f}, its objects in boxes", loading="lazy")]
            if k < len(o.pictures) else []
        )  # fmt: skip
        shown.append(el("figure", *picture, el("figcaption", f"{f}: {_said(o.found[f], o.threshold)}")))
        for n, a in enumerate(o.found[f][:MOST], 1):
            values = (n, None, a.box[2] * a.box[3], a.share, a.score, a.nearest_probability)
            rows.append([Cell(f), *map(Cell, cells(n, a)[: len(head)], values)])
    named = (
        "Predicted as: the class that is predicted for most of the object's pixels, and for what share of them. "
        "(`detect` names the class of the highest mean probability, which stored classes do not tell.)" if o.classes
        else "The maps alone name no class: `--classes FOLDER`, of `xenomask score --classes FOLDER`, does."
    )  # fmt: skip
    lead = f"Above {o.threshold:.4g} (the threshold is {o.origin}), each of .1 % of its frame or more. {named}"
    found = [el("h3", m.name), el("p", lead), el("div", *shown, class_="gallery boxes")]
    caption = f"Objects of {m.name}, at most {MOST} of a frame, numbered as their boxes"
    return [*found, table(Table(caption, ["frame", *head], rows), f"objects-{i}")] if rows else found


def _said(found: Sequence[AnomalyObject], threshold: float) -> str:
    """`detect`'s sentence, with the share of the pixels that are predicted as a class in place of its probability."""
    said = sentence([replace(a, nearest_class=None, nearest_probability=None) for a in found], threshold)
    share = found[0].nearest_probability if found else None
    return said if share is None else f"{said}; predicted as {found[0].nearest_class} on {100 * share:.0f} % of it"


def _gallery(m: MethodView) -> list[Element]:
    found = [el("h3", m.name)]
    for title, (total, crops) in m.components.items():
        found.append(el("h4", f"{title}: {total}" + (f", {len(crops)} shown" if len(crops) < total else "")))
        items = [
            el("figure", el("img", src=data_uri(c.picture, "image/jpeg"), alt=c.text, loading="lazy"),
               el("figcaption", c.text))
            for c in crops
        ]  # fmt: skip
        found.append(el("div", *items, class_="gallery"))
    return found


def _data(view: ReportView) -> dict:
    """What the script reads, and whoever wants the numbers: `evaluate` is what `xenomask evaluate --json` writes."""
    methods = [
        {
            "name": m.name, "folder": m.folder, "evaluate": finite(m.numbers), "scale": list(m.scale),
            "levels": {
                "threshold": m.levels.threshold.tolist(), "tpr": m.levels.tpr.tolist(), "fpr": m.levels.fpr.tolist(),
                "precision": m.levels.precision.tolist(), "f1": m.levels.f1.tolist(),
                "colours": m.levels.colours.tolist(), "opacity": m.levels.opacity.round(4).tolist(),
                "points": dict(m.levels.points),
            },
            "objects": {
                "threshold": m.objects.threshold,
                "photos": [{"photo": f, "objects": [told(a) for a in found]} for f, found in m.objects.found.items()],
            },
        }
        for m in view.methods
    ]  # fmt: skip
    frames = [{"id": f.id, "height": f.shown[0], "width": f.shown[1], "photo": f.photo is not None}
              for f in view.frames]  # fmt: skip
    return {"methods": methods, "frames": frames}


def told(a: AnomalyObject) -> dict[str, Any]:
    """An object as `detect --json` writes it, without mask; its class is by another rule, so under other names."""
    said = {"box": list(a.box), "area": a.area, "share": a.share, "score": a.score, "peak": a.peak}
    return said if a.nearest_class is None else said | {"class": a.nearest_class, "class_share": a.nearest_probability}


def _stored(view: ReportView) -> tuple[Element, ...]:
    """The pictures that the script decodes, each in an element of its own: only those in view are ever decoded."""
    found = []
    for i, f in enumerate(view.frames):
        parts = {f"label-{i}": f.label, **{f"map-{j}-{i}": m.maps[i] for j, m in enumerate(view.methods)}}
        found += [el("script", base64(data), type="image/png", id=name) for name, data in parts.items()]
        if f.photo is not None:
            found.append(el("script", base64(f.photo), type="image/jpeg", id=f"photo-{i}"))
    return tuple(found)
