"""One thing, one word, and the word is the field's: private words stand in no page, help text or docstring.

Every test lists all the places that it found. History keeps its words: docs/log.md and CHANGELOG.md.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from helpers.places import ROOT
from xenomask.cli import app
from xenomask.datasets import CODINGS, DATASETS

SOURCE = ROOT / "src" / "xenomask"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "mkdocs.yml",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.name != "log.md"),
    *sorted(SOURCE.glob("detectors/*/README.md")),
]
SCRIPTS = [*sorted((ROOT / "docs" / "scripts").glob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]
# pattern -> what to write instead; only patterns that mean nothing else in this field
WORDS = {
    r"strangers?": "anomaly, anomalous object, ground-truth anomaly",
    r"strange(?:st)?": "anomalous",
    r"--looks|with_looks": "--tta, with_tta: test-time augmentation",
    r"looks? at (?:a|an|the|each|every|its|photos|frames)(?! numbers?)": "run on, process; for a person: see, inspect",
    r"(?:several|many|other|no|of one|as many) looks?": "test-time augmentation, forward passes",
    r"looked at": "processed; for a person: seen, inspected",
    r"a member a look|the looks|each look": "forward pass",
    r"read by (?:`|--score|another|any|a|its|maskomaly|rba|eam|max_logit)|reads itself": "scored with",
    r"joined maps?|(?:are|be|is) joined|joins? (?:two|the|maps|checkpoints)": "fused; for folders: assembled",
    r"the pass|one compiled pass|share the pass": "fused kernel",
    r"(?:sure|surest|unsure) (?:masks?|quer(?:y|ies)|class(?:es)?|pixels?)|surest": "confident",
    r"says? of (?:a|an|the|it|itself|one|each)(?! data set)|what it says": "output, prediction; prints, reports",
    r"known class(?:es)?|knows? (?:a|no|any) class|neither know a class": "inlier class, training class",
    r"never taught|was taught|were taught|taught on": "trained on",
    r"drawn (?:scenes?|streets?|photos?|street scenes?|road|cars?|stand-ins)|drawings?": "synthetic scenes",
    r"drawn on (?:a|one) fixed scale|on (?:a|one) fixed scale|(?:are|is) drawn between": "displayed, colour range",
    r"whence|one's own|for ever|(?:that|which) (?:are|is) (?-i:none)": "rewrite the sentence",
    r"dealt out|deals? out|deal frames|deal a data set": "split, shard",
    r"young (?:network|one|and)|small and young": "under-trained network",
    r"demanded|wish(?:es)?": "requested",
    r"half and half": "with equal weights",
    r"xenomask operate|`operate": "xenomask thresholds",
    r"nobody'?s": "no mask's, no class'",
    r"mended": "fixed",
    r"goes on (?:where|from|with|there)": "resumes, continues",
}  # fmt: skip


def _spaced(pattern: str) -> str:
    """Let a phrase go on in the next line."""
    return pattern.replace(" ", r"\s+")


PATTERN = re.compile("|".join(rf"(?P<w{i}>(?<!\w)(?:{_spaced(p)})(?!\w))" for i, p in enumerate(WORDS)), re.I)
INSTEAD = {f"w{i}": w for i, w in enumerate(WORDS.values())}


def found(text: str, where: str, first: int = 1) -> list[str]:
    """Return each private word of a text as a line: where it stands, what it is, what to write instead."""
    lines = []
    for m in PATTERN.finditer(text):
        line = first + text.count("\n", 0, m.start())
        lines.append(f"{where}:{line}: {' '.join(m[0].split())!r}, write: {INSTEAD[str(m.lastgroup)]}")
    return lines


def catalogue() -> list[str]:
    """Return the texts of the data sets' catalogue, which the pages quote."""
    texts = [t for e in DATASETS.values() for t in (e.title, e.layout, e.where, e.licence, e.conventions)]
    return texts + [c.meaning for c in CODINGS.values()]


def without_quotes(text: str) -> str:
    """Return a page with the catalogue's texts blanked: they are tested where they are written."""
    for quoted in catalogue():
        words = r"\s+".join(re.escape(w) for w in quoted.split())
        text = re.sub(words, lambda m: re.sub(r"\S", " ", m[0]), text, flags=re.I)
    return text


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each docstring of a source with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                (line, text) = (node.body[0].lineno, node.body[0].value.value)  # pyright: ignore
                yield line, text


def helps(command, name: str = "xenomask") -> Iterator[tuple[str, str]]:
    """Yield the help of a command, its options and its subcommands."""
    yield name, command.help or ""
    for p in command.params:
        yield f"{name} {p.opts[-1]}", f"{' '.join(p.opts)}: {getattr(p, 'help', None) or ''}"
    for sub, inner in getattr(command, "commands", {}).items():
        yield from helps(inner, f"{name} {sub}")


def listed(lines: list[str]) -> str:
    return f"{len(lines)} private words\n" + "\n".join(lines)


def test_pages__use_the_fields_words():
    places = [x for p in PAGES for x in found(without_quotes(p.read_text()), str(p.relative_to(ROOT)))]
    assert not places, listed(places)


def test_scripts_and_examples__use_the_fields_words():
    places = [x for p in SCRIPTS for n, s in docstrings(p) for x in found(s, str(p.relative_to(ROOT)), n)]
    assert not places, listed(places)


def test_help__uses_the_fields_words():
    places = [x for name, text in helps(typer.main.get_command(app)) for x in found(text, f"{name} --help")]
    assert not places, listed(places)


def test_catalogue__uses_the_fields_words():
    places = [x for text in catalogue() for x in found(text, f"data sets, {text[:40]!r}")]
    assert not places, listed(places)


def test_docstrings__use_the_fields_words():
    sources = sorted(SOURCE.rglob("*.py"))
    places = [x for p in sources for n, s in docstrings(p) for x in found(s, str(p.relative_to(ROOT)), n)]
    assert not places, listed(places)


def test_words__are_found_across_lines_and_only_whole():
    assert found("no\nhigher = stranger", "a") == [f"a:2: 'stranger', write: {WORDS['strangers?']}"]
    assert len(found("two strangers, --looks mirror; whence?", "a")) == 3
    assert found("the password, forward pass, StrangersBook, operating point", "a") == []
