"""Write the numbers of benchmarks/refinements.json into docs/refinements.md and docs/refinements, between their marks.

python docs/scripts/refinement_pages.py     # tests/project/test_docs.py checks that it was run
"""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[1]
RESULTS = DOCS.parent / "benchmarks" / "refinements.json"
OVERVIEW = DOCS / "refinements.md"
SETS = {"AT": "AnomalyTrack", "OT": "ObstacleTrack", "FS": "Fishyscapes Static"}
NUMBERS = {"aupr": "AUPR", "fpr95": "FPR95", "f1_star": "F1*", "ap50": "AP50"}
# rows of the benchmark that are not called as their page is
ROWS = {"segments": "superpixels", "boxes": "true boxes", "masks": "ascending masks"}
BLOCK = re.compile(r"(<!-- numbers.*? -->\n).*?(<!-- end of numbers -->)", re.DOTALL)


def short(value: float | None, form: str) -> str:
    """A number without the 0 before its point; "-" for what was not measured.

    >>> short(-0.05, "+.2f"), short(0.7824, ".3f"), short(1.0, ".3f")
    ('-.05', '.782', '1.000')
    """
    return "-" if value is None else re.sub(r"^([+-]?)0\.", r"\1.", format(value, form))


def overview(results: list[dict]) -> str:
    """The table of all rows side by side, and that of all numbers."""
    names = list(SETS.values())
    head = ["refinement", f"{names[0]} AUPR / FPR95", *names[1:], "false", "objects", "number", "ms"]
    rows = []
    for r in results:
        pairs = [" / ".join(short(r[f"{s} {n}"][0], ".3f") for n in ("aupr", "fpr95")) for s in SETS]
        own = [short(r["false"], ".4f"), short(r["false_objects"], ".2f"), f"**{short(r['number'], '.3f')}**"]
        rows.append([r["refinement"], *pairs, *own, f"{r['ms']:.0f}"])
    return table(head, rows) + "\n" + all_numbers(results, results[0])


def all_numbers(results: list[dict], plain: dict) -> str:
    """Each number of each set with its interval, a line for each row and set."""
    rows = [[r["refinement"], long, *(_cell(r[f"{s} {n}"], r is plain) for n in NUMBERS), f"{r['ms']:.0f}"]
            for r in results for s, long in SETS.items()]  # fmt: skip
    return table(["refinement", "set", *NUMBERS.values(), "ms"], rows)


def of_page(name: str, results: list[dict]) -> str:
    """The rows that hold a refinement, with plain: what they cost, and each number of each set with its interval."""
    own = [results[0], *(r for r in results if _names(r["refinement"]) & {name, ROWS.get(name)})]
    head = ["refinement", "number", "false", "objects", "ms"]
    costs = [
        [r["refinement"], short(r["number"], ".3f"), short(r["false"], ".4f"), short(r["false_objects"], ".2f"),
         f"{r['ms']:.0f}"] for r in own
    ]  # fmt: skip
    return table(head, costs) + "\n" + all_numbers(own, results[0])


def _names(row: str) -> set[str]:
    """The refinements of a row such as "vehicles+masks:blend=.6"."""
    return {part.partition(":")[0] for part in row.split("+")}


def _cell(found: list[float], plain: bool) -> str:
    value, low, high, gain_low, gain_high = found
    if value is None:
        return "-"
    ends, form = ((low, high), ".3f") if plain else ((gain_low, gain_high), "+.2f")
    return f"{short(value, '.3f')} ({' to '.join(short(e, form) for e in ends)})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(r)} |\n" for r in (head, *rows)).replace("|\n", f"|\n{'|---' * len(head)}|\n", 1)


def pages() -> dict[Path, str]:
    """Return the overview and each refinement's page with their numbers filled in: file -> text."""
    results = json.loads(RESULTS.read_text())
    blocks = {OVERVIEW: overview(results)}
    blocks |= {p: of_page(p.stem, results) for p in sorted((DOCS / "refinements").glob("*.md"))}
    return {p: BLOCK.sub(lambda m, b=b: m[1] + b + m[2], p.read_text()) for p, b in blocks.items()}


def main() -> None:
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
