"""Draws docs/images/architecture.svg: the packages, and the imports that their files have.

python docs/scripts/architecture.py          # tests/project/test_architecture.py holds that it was run

A package stands in the row above all that it imports. An arrow is left out where others lead there already. The
modules at the bottom belong to no package and import no package; all others may import them.
"""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "xenomask"
OUT = ROOT / "docs" / "images" / "architecture.svg"
WIDTH, ROW, BOX, GAP = 860, 74, 34, 26  # of the picture, from row to row, of a box's height, between boxes

Arrows = dict[str, set[str]]
STYLE = (
    ".p{fill:#37474f}.m{fill:#fff;stroke:#37474f;stroke-width:1.5}.w{fill:#fff}.k{fill:#263238}text{text-anchor:middle}"
    ".l{fill:none;stroke:#78909c;stroke-width:1.3;marker-end:url(#a)}"
)
MARKER = (
    '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#78909c"/></marker>'
)


def packages() -> Arrows:
    """Return what each package or module directly in xenomask imports of the others, also inside functions."""
    found: Arrows = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, set()).update(_imports(path.read_text()) - {name})
    return {name: others & found.keys() for name, others in found.items()}


def _imports(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("xenomask.")}
    return found


def ground(arrows: Arrows) -> list[str]:
    """Return the modules that are no packages and import none.

    >>> ground({"errors": set(), "files": {"errors"}, "opening": {"models"}, "models": {"files"}})
    ['errors', 'files']
    """
    left = {n for n in arrows if not (SOURCE / n).is_dir()}
    while above := {n for n in left if arrows[n] - left}:
        left -= above
    return sorted(left)


def rows_of(arrows: Arrows) -> dict[str, int]:
    """Return each name's row, counted from the bottom: one above the highest of what it imports.

    >>> rows_of({"models": set(), "scores": {"models"}, "cli": {"models", "scores"}})
    {'models': 0, 'scores': 1, 'cli': 2}
    """
    found: dict[str, int] = {}
    while len(found) < len(arrows):
        ready = [n for n in arrows if n not in found and arrows[n] <= found.keys()]
        if not ready:
            raise ValueError(f"imports go in a circle: {sorted(arrows.keys() - found.keys())}")
        found |= {n: 1 + max((found[o] for o in arrows[n]), default=-1) for n in ready}
    return found


def needed(arrows: Arrows) -> Arrows:
    """Return the arrows without those that others make superfluous.

    >>> needed({"models": set(), "scores": {"models"}, "cli": {"models", "scores"}})["cli"]
    {'scores'}
    """
    below: Arrows = {}
    for name in sorted(arrows, key=rows_of(arrows).__getitem__):
        below[name] = set(arrows[name]).union(*(below[o] for o in arrows[name]))
    return {n: {o for o in os if not any(o in below[p] for p in os)} for n, os in arrows.items()}


def placed(arrows: Arrows, row: dict[str, int]) -> tuple[dict[str, tuple[float, float]], list[list[str]]]:
    """Return (each name's middle, each arrow's way through the rows); a way passes the rows between as a narrow box."""
    ways, rows = [], [sorted(n for n in row if row[n] == i) for i in range(max(row.values()) + 1)]
    for a in sorted(arrows):
        for b in sorted(arrows[a]):
            between = [f"{a}>{b}>{i}" for i in range(row[a] - 1, row[b], -1)]
            ways.append([a, *between, b])
            for name in between:
                rows[int(name.rsplit(">")[-1])].append(name)
    links: Arrows = {n: set() for names in rows for n in names}
    for way in ways:
        for a, b in zip(way, way[1:], strict=False):
            links[a].add(b)
            links[b].add(a)
    at: dict[str, float] = {}
    for names in rows:
        _spread(names, at)
    for turn in range(24):  # each row in the order of its neighbours' middles, downward and upward by turns
        for names in rows if turn % 2 else rows[::-1]:
            near = {n: sum(at[o] for o in sorted(links[n])) / len(links[n]) if links[n] else at[n] for n in names}
            names.sort(key=lambda n: (round(near[n], 3), n))
            _spread(names, at)
    return {n: (at[n], 40 + ROW * (len(rows) - 1 - i)) for i, names in enumerate(rows) for n in names}, ways


def _spread(names: list[str], at: dict[str, float]) -> None:
    """Give the names of a row their places, in that order, the row in the middle of the picture."""
    widths = [_width(n) for n in names]
    x = (WIDTH - sum(widths) - GAP * (len(names) - 1)) / 2
    for name, width in zip(names, widths, strict=True):
        at[name] = x + width / 2
        x += width + GAP


def _width(name: str) -> float:
    return 0 if ">" in name else 26 + 8.6 * len(name)


def svg(arrows: Arrows) -> str:
    """Return the picture of these imports."""
    low = ground(arrows)
    high = {n: others - set(low) for n, others in arrows.items() if n not in low}
    at, ways = placed(needed(high), rows_of(high))
    bottom = max(y for _, y in at.values()) + ROW
    height = bottom + BOX / 2 + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif"'
        ' font-size="15" role="img" aria-label="The packages of xenomask and their imports">',
        f"<defs>{MARKER}<style>{STYLE}</style></defs>",
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#f5f7f8"/>',
    ]
    for way in ways:
        points = [at[n] for n in way]
        path = f"M{points[0][0]:.1f} {points[0][1] + BOX / 2:.1f}"
        for i, ((x, y), (u, v)) in enumerate(zip(points, points[1:], strict=False)):
            y, v = y + (BOX / 2 if i == 0 else 0), v - (BOX / 2 if i == len(points) - 2 else 0)
            path += f"C{x:.1f} {(y + v) / 2:.1f} {u:.1f} {(y + v) / 2:.1f} {u:.1f} {v:.1f}"
        out.append(f'<path class="l" d="{path}"/>')
    for name in sorted(high):
        (x, y), width = at[name], _width(name)
        out.append(
            f'<rect class="p" x="{x - width / 2:.1f}" y="{y - BOX / 2:.1f}" width="{width:.1f}" height="{BOX}"/>'
            f'<text class="w" x="{x:.1f}" y="{y + 5:.1f}">{escape(name)}</text>'
        )
    out.append(
        f'<rect class="m" x="40" y="{bottom - BOX / 2:.1f}" width="{WIDTH - 80}" height="{BOX}" rx="10"/>'
        f'<text class="k" x="{WIDTH / 2:.0f}" y="{bottom + 5:.1f}">{escape("  ·  ".join(low))}</text>'
    )
    return "\n".join(out) + "\n</svg>\n"


if __name__ == "__main__":
    OUT.write_text(svg(packages()), "utf-8")
