"""Benchmark entries -> Markdown, CSV, LaTeX and JSON: the same rows in each, published numbers below them."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xenomask.errors import printable
from xenomask.evaluation.benchmark import Entry
from xenomask.evaluation.published import PUBLISHED
from xenomask.files import atomic, write_numbers
from xenomask.metrics.table import columns, of_kind

CONVENTIONS = ("exact", "official")
OF = ("data set", "detector", "networks", "training data", "score", "outlier queries", "convention")
OBJECTS = ("components", "instances")  # which stand in the official convention's rows


def head() -> list[str]:
    """The headings: of which run, then the numbers."""
    return [*OF, *(n.column for kind in ("pixels", *OBJECTS) for n in columns(of_kind(kind)))]


def rows(entries: Sequence[Entry], cell: Callable[[float, tuple[float, float] | None], str]) -> list[list[str]]:
    """One row a method, data set and convention; components and instances stand in the official one's."""
    found = []
    for e in entries:
        for c in CONVENTIONS:
            cells = []
            for where, kind in ((c, "pixels"), *((k, k) for k in OBJECTS)):
                own, spans = e.result.numbers.get(where, {}), e.result.intervals.get(where, {})
                shown = where == c or c == "official"
                keys = [n.key for n in columns(of_kind(kind))]
                cells += [cell(own[k], spans.get(k)) if shown and k in own else "" for k in keys]
            m = e.method
            found.append([e.dataset, m.name, m.networks, m.trained_on, m.score, m.queries, c, *cells])
    return found


def _plain(value: float, span: tuple[float, float] | None) -> str:
    if value != value:
        return "-"
    return f"{value:.4f}" + (f" ({span[0]:.3f} .. {span[1]:.3f})" if span and span[0] == span[0] else "")


def markdown(entries: Sequence[Entry]) -> str:
    """A table for a README: numbers with 95 % intervals, then published numbers with their sources."""
    lines = ["| " + " | ".join(head()) + " |", "|" + "---|" * len(head())]
    lines += ["| " + " | ".join(map(for_markdown, r)) + " |" for r in rows(entries, _plain)]
    lines += ["", "(a .. b): 95 % bootstrap interval over frames.", ""]
    if others := published(entries):
        lines += ["Published, for reference; not measured here:", "", "| data set | method | AUPR | FPR95 | source |",
                  "|---|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {d} | {p['method']} | {p['aupr']:.4f} | {_or_dash(p['fpr95'])} | {p['source']} |" for d, p in others
        ]
    return "\n".join(lines) + "\n"


def for_markdown(text: str) -> str:
    r"""Return a name as it stands in one cell of a table.

    >>> print(for_markdown("a|b"))
    a\|b
    """
    return printable(text).replace("|", "\\|")


def for_latex(text: str) -> str:
    r"""Return a name as LaTeX shows it: nothing in it is a command.

    >>> print(for_latex("max_logit 50%"), for_latex(r"\x^2"))
    max\_logit 50\% \textbackslash{}x\textasciicircum{}2
    """
    words = {"\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}"}
    return re.sub(r"[_%&#${}\\^~]", lambda m: words.get(m[0], "\\" + m[0]), printable(text))


def latex(entries: Sequence[Entry]) -> str:
    """A booktabs table; intervals as small sub- and superscripts."""

    def cell(value: float, span: tuple[float, float] | None) -> str:
        if value != value:
            return "--"
        text = f"{100 * value:.2f}"
        return (
            f"${text}_{{{100 * span[0]:.1f}}}^{{{100 * span[1]:.1f}}}$" if span and span[0] == span[0] else f"${text}$"
        )

    lines = [
        "% numbers in percent, 95 % bootstrap interval over frames; needs \\usepackage{booktabs}",
        r"\begin{tabular}{" + "l" * len(OF) + "r" * (len(head()) - len(OF)) + "}",
        r"\toprule",
        " & ".join(head()).replace("F1*", "F1$^*$") + r" \\",
        r"\midrule",
        *(" & ".join([*map(for_latex, r[: len(OF)]), *r[len(OF) :]]) + r" \\" for r in rows(entries, cell)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    others = [f"% published: {d}, {p['method']}: {p['aupr']:.4f} / {_or_dash(p['fpr95'])} ({p['source']})"
                 for d, p in published(entries)]  # fmt: skip
    return "\n".join([*lines, *others]) + "\n"


def write_tables(entries: Sequence[Entry], folder: Path) -> None:
    """Writes table.md, .csv, .tex and .json, each whole or not at all."""
    for ending, text in (("md", markdown(entries)), ("csv", table_csv(entries)), ("tex", latex(entries))):
        with atomic(folder / f"table.{ending}") as part:
            part.write_text(text, "utf-8", errors="replace")
    write_numbers(folder / "table.json", table_json(entries))


def table_csv(entries: Sequence[Entry]) -> str:
    """One line a number: data set, method, convention, number, value, low, high; published ones say so."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["data_set", "detector", "networks", "score", "outlier_queries", "convention", "number", "value",
                     "low", "high", "source", "training_data"])  # fmt: skip
    for e in entries:
        m = e.method
        for c, own in e.result.numbers.items():
            for k, v in own.items():
                low, high = e.result.intervals.get(c, {}).get(k, ("", ""))
                writer.writerow(
                    [e.dataset, m.name, m.networks, m.score, m.queries, c, k, v, low, high, "here", m.trained_on]
                )
    for d, p in published(entries):
        for k in ("aupr", "fpr95"):
            if p[k] is not None:
                writer.writerow([d, p["method"], "", "", "", "published", k, p[k], "", "", p["source"], ""])
    return out.getvalue()


def table_json(entries: Sequence[Entry]) -> dict[str, Any]:
    """Everything: numbers, intervals, what the official code would print, warnings, published numbers."""
    return {
        "rows": [
            {
                "data_set": e.dataset, "detector": e.method.describe(), "networks": e.method.networks,
                "training_data": e.method.trained_on, "score": e.method.score, "outlier_queries": e.method.queries,
                "frames": len(e.result.frames),
                "track": e.result.track, "numbers": e.result.numbers, "intervals": e.result.intervals,
                "official_order_range": e.result.order_range, "warnings": e.result.warnings,
            }
            for e in entries
        ],
        "published": [{"data_set": d, **p} for d, p in published(entries)],
    }  # fmt: skip


def published(entries: Sequence[Entry]) -> list[tuple[str, dict[str, Any]]]:
    """Return the published numbers of the entries' data sets, each with its data set."""
    return [(d, p) for d in dict.fromkeys(e.dataset for e in entries) for p in PUBLISHED.get(d, ())]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
