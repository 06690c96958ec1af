"""Write docs/data from the catalogue of data sets, so that the pages always agree with the code.

python docs/scripts/data_pages.py          # tests/project/test_docs.py checks that it was run
"""

import re
from pathlib import Path

from xenomask.datasets import CODINGS, DATASETS, Entry

OUT = Path(__file__).parents[1] / "data"
SIZES = {
    "anomaly": "predicted ones from 500 px, ground-truth ones from 100 px",
    "obstacle": "predicted ones from 50 px, ground-truth ones from 10 px",
    "issu": "both from 49 px",
    None: "no official sizes",
}
EVALUATE = """\
```sh
xenomask datasets --dataset {name} --root {root}
xenomask score --dataset {name} --root {root} --out maps/{name}
xenomask evaluate --maps maps/{name} --dataset {name} --root {root}
```"""
TRAIN = """\
```sh
xenomask datasets --dataset {name} --root {root} --quick 5
xenomask queries inlier --checkpoint work_dirs/nano-s/iter_3000 --dataset {name} --root {root}
```

In a recipe ([training](../train.md)):

```toml
[data]
dataset = "{name}"
train = "{root}"
```"""


def page(entry: Entry) -> str:
    """Return one data set's page in Markdown."""
    coding = CODINGS[entry.coding]
    splits = ", ".join(f"`{s}`{_count(entry, s)}" for s in entry.splits)
    decoded = "0 inlier, 1 anomaly, 255 void" if entry.says == "anomaly" else "Cityscapes train ids, 255 void"
    rows = {
        "where": _plain(entry.where),
        "terms": _plain(entry.licence),
        "on disk": f"`{entry.layout}`",
        "folders looked for": ", ".join(f"`{f}`" for f in entry.folders) or "`--root` itself",
        "stored labels": f"`{entry.coding}`: {coding.meaning}",
        "decoded labels": decoded,
        "splits": splits,
        "default split": f"`{entry.default}`",
        "components": SIZES[entry.track],
        "conventions": _plain(entry.conventions),
    }
    table = "\n".join(f"| {k} | {v} |" for k, v in rows.items())
    root = f"data/{entry.name}"
    commands = (EVALUATE if entry.use == "evaluation" else TRAIN).format(name=entry.name, root=root)
    more = f"What of its loader was verified and what not: [data sets](../datasets.md#{entry.name})."
    title = entry.title[0].upper() + entry.title[1:]
    return f"# {entry.name}\n\n{title}, for {entry.use}.\n\n| | |\n|---|---|\n{table}\n\n{commands}\n\n{more}\n"


def index() -> str:
    """Return the page that lists the data sets."""
    rows = [
        f"| [{e.name}]({e.name}.md) | {e.title} | {e.use} | {', '.join(s + _count(e, s) for s in e.splits)} |"
        for e in DATASETS.values()
    ]
    head = (
        "# Data sets\n\nThese pages are generated from the catalogue in the code. For codings, renamed copies and what "
        "was verified see [data sets, all on one page](../datasets.md).\n\n"
    )
    commands = "```sh\nxenomask datasets\nxenomask datasets --root data --quick 5\n```\n\n"
    return (
        head
        + commands
        + "| data set | title | use | splits (official frames) |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _plain(text: str) -> str:
    """Escape Markdown's special characters."""
    return re.sub(r"([*_|<])", r"\\\1", text)


def _count(entry: Entry, split: str) -> str:
    return f" ({entry.counts[split]})" if split in entry.counts else ""


def pages() -> dict[str, str]:
    """Return all pages: file name -> text."""
    return {"index.md": index()} | {f"{e.name}.md": page(e) for e in DATASETS.values()}


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for name, text in pages().items():
        (OUT / name).write_text(text)


if __name__ == "__main__":
    main()
