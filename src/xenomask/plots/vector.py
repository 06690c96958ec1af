"""What the diagrams share: colours that differ without colour vision, names as they are, SVG text."""

from io import StringIO

import matplotlib
from matplotlib.figure import Figure

from xenomask.plots.heatmap import save_figure

# Okabe & Ito (2008) without yellow, which is too light for lines on white; dashes tell them apart in grey too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MOST = 48  # letters of a name
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))


def style(i: int) -> dict:
    """Colour and dashes of the i-th line of a diagram."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}


def short(name: str) -> str:
    """A name that fits into a diagram: of a long one, such as a whole path, its end.

    >>> short("maps"), len(short("/a" * 99))
    ('maps', 48)
    """
    return name if len(name) <= MOST else f"…{name[1 - MOST :]}"


def legend(ax, handles, names) -> None:
    """A legend of names that are shown as they are: no formulas in them, none hidden for its underscore."""
    shown = ax.legend(handles, [f" {short(n)}" for n in names], loc="best", fontsize=8, framealpha=0.9)
    shown.set_in_layout(False)  # it lies inside of the axes, which would shrink beside wide letters
    for text in shown.get_texts():
        text.set_parse_math(False)


def frame(ax, x: str, y: str) -> None:
    """A unit square with its axes named."""
    ax.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)


def svg(figure: Figure) -> str:
    """The figure as SVG with its text as text; the same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "xenomask"}), StringIO() as out:
        save_figure(figure, out, format="svg", metadata={"Date": None})
        return out.getvalue()
