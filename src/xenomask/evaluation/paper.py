"""Benchmark entries -> the table of a paper: a row a method, three columns a data set, the best of each in bold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xenomask.errors import printable
from xenomask.evaluation.benchmark import UNKNOWN, Entry
from xenomask.evaluation.tables import for_latex, for_markdown
from xenomask.files import atomic
from xenomask.metrics.table import lower_is_better

# heading -> convention and number: all as the SegmentMeIfYouCan code computes them
COLUMNS = {"AUPR": ("official", "aupr_trapz"), "FPR95": ("official", "fpr95"), "F1*": ("components", "f1_mean")}
CAPTION = "Percent; official convention (SegmentMeIfYouCan); bold: best of the column."
MARK = "outlier queries chosen on the evaluated frames"


@dataclass(frozen=True)
class PaperTable:
    """The cells of a paper's table: methods x (data sets x AUPR, FPR95, F1*), as text, and which of them are best."""

    data_sets: list[str]
    methods: list[str]
    # [method][column]
    cells: list[list[str]]
    best: list[list[bool]]

    @property
    def marked(self) -> bool:
        """Whether a method's queries were chosen on the evaluated frames."""
        return any("†" in c for row in self.cells for c in row)


def paper_table(entries: Sequence[Entry]) -> PaperTable:
    """Return the cells of entries; a method without a data set has a dash there, ties are all the best."""
    data_sets = list(dict.fromkeys(e.dataset for e in entries))
    found = {(_method(e), e.dataset): e for e in entries}
    methods = list(dict.fromkeys(m for m, _ in found))
    cells = [[""] * len(data_sets) * len(COLUMNS) for _ in methods]
    best = [[False] * len(row) for row in cells]
    for j, (d, (convention, key)) in enumerate((d, c) for d in data_sets for c in COLUMNS.values()):
        shown = {m: _percent(found.get((m, d)), convention, key) for m in methods}
        numbers = [float(s) for s in shown.values() if s != "-"]
        winner = (min if lower_is_better(key) else max)(numbers, default=None)
        for i, (m, text) in enumerate(shown.items()):
            best[i][j] = text != "-" and float(text) == winner
            chosen_here = text != "-" and found[m, d].method.queries == "in-sample"
            cells[i][j] = text + "†" * chosen_here
    return PaperTable(data_sets, methods, cells, best)


def _method(e: Entry) -> str:
    """A method's name in the first column: of several ways to run a detector each has its own."""
    m = e.method
    parts = [p for p in (m.score, m.networks) if p not in ("-", "ensemble")]
    return ", ".join([m.name, *parts, *(["leave-one-out"] if m.queries == "leave-one-out" else [])])


def _percent(e: Entry | None, convention: str, key: str) -> str:
    value = float("nan") if e is None else e.result.numbers.get(convention, {}).get(key, float("nan"))
    return "-" if value != value else f"{100 * value:.2f}"


def paper_markdown(entries: Sequence[Entry]) -> str:
    """Return the table in Markdown."""
    t = paper_table(entries)
    head = ["method", *(f"{d} {c.replace('*', chr(92) + '*')}" for d in t.data_sets for c in COLUMNS)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, row, best in zip(t.methods, t.cells, t.best, strict=True):
        texts = [f"**{c}**" if b else c for c, b in zip(row, best, strict=True)]
        lines.append("| " + " | ".join([for_markdown(name), *texts]) + " |")
    return "\n".join([*lines, "", CAPTION + (f" †: {MARK}." if t.marked else ""), "", *_trained(entries, "- ")]) + "\n"


def _trained(entries: Sequence[Entry], mark: str) -> list[str]:
    """A line for each method: the data that its networks were trained on."""
    found = {_method(e): e.method.trained_on for e in entries}
    return [printable(f"{mark}{m}: trained on {UNKNOWN if d == '-' else d}") for m, d in found.items()]


def paper_latex(entries: Sequence[Entry]) -> str:
    """Return the table for LaTeX with booktabs."""
    t, n = paper_table(entries), len(COLUMNS)
    arrows = ["$\\downarrow$" if lower_is_better(key) else "$\\uparrow$" for _, key in COLUMNS.values()]
    heads = [f"{c.replace('*', '$^*$')} {a}" for c, a in zip(COLUMNS, arrows, strict=True)] * len(t.data_sets)
    spans = [f"\\multicolumn{{{n}}}{{c}}{{{for_latex(d)}}}" for d in t.data_sets]
    rules = [f"\\cmidrule(lr){{{2 + n * i}-{1 + n * (i + 1)}}}" for i in range(len(t.data_sets))]
    lines = [
        f"% {CAPTION}" + (f" $^\\dagger$: {MARK}." if t.marked else "") + " Needs \\usepackage{booktabs}",
        *_trained(entries, "% "),
        "\\begin{tabular}{l" + "r" * n * len(t.data_sets) + "}",
        "\\toprule",
        " & ".join(["", *spans]) + r" \\",
        " ".join(rules),
        " & ".join(["method", *heads]) + r" \\",
        "\\midrule",
    ]
    for name, row, best in zip(t.methods, t.cells, t.best, strict=True):
        texts = [c.replace("†", "$^\\dagger$") if c != "-" else "--" for c in row]
        bold = [f"\\textbf{{{c}}}" if b else c for c, b in zip(texts, best, strict=True)]
        lines.append(" & ".join([for_latex(name), *bold]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def write_paper(entries: Sequence[Entry], folder: Path) -> None:
    """Write paper.md and paper.tex, each whole or not at all."""
    for ending, text in (("md", paper_markdown(entries)), ("tex", paper_latex(entries))):
        with atomic(folder / f"paper.{ending}") as part:
            part.write_text(text, "utf-8", errors="replace")
