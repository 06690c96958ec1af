"""The documentation: every command is one that the command line knows, pages say what the code says.

The first tutorial runs here with the shipped detector; everything else runs in test_docs_run.py, with stand-ins.
"""

import doctest
import glob
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from helpers.cli import run
from helpers.pages import CARD, DOCS, FENCE, PAGES, fences, shell_lines
from helpers.places import ROOT
from xenomask.cli import app
from xenomask.datasets.synthetic import draw_scene
from xenomask.refine import REFINEMENTS
from xenomask.scores import SCORES


def commands(text: str) -> list[list[str]]:
    """The words after `xenomask` of each command of a page; of brackets, what may be added is added."""
    found = []
    for line in shell_lines(text):
        line = re.sub(r"\[(--[a-z-]+)\]", r"\1", line)
        start = re.search(r"(?:^|[ (])(?:xenomask|-m xenomask\.cli)(?= |$)", line)
        before = line[: start.start()] if start else ""
        # "a -> b", prose and comments are no commands; what may stand before one does
        if start and re.fullmatch(r"(?:[A-Z]+=\S+ |id=\$\(|\S*python |torchrun .*|ray job submit -- )*\s*", before):
            found.append(shlex.split(line[start.end() :], comments=True))
    return found


def inline(text: str) -> list[list[str]]:
    """Commands named in running text, which need not be complete: `xenomask queries outlier --top-k 2`."""
    spans = re.findall(r"(?<!`)`xenomask ([^`\n]+)`(?!`)", FENCE.sub("", text))
    return [s.replace("...", "").split() for s in spans]


APP = typer.main.get_command(app)


def resolve(words: list[str]):
    """The command that the words name, and what is left of them; AssertionError for one that does not exist."""
    command = APP
    while subcommands := getattr(command, "commands", None):
        while words and words[0] in ("--quiet", "--verbose"):
            words = words[1:]
        if not words or words[0].startswith("-"):
            break
        assert words[0] in subcommands, f"no command {words[0]}"
        command, words = subcommands[words[0]], words[1:]
    return command, words


def check_complete(words: list[str]) -> None:
    """Parses a whole command as the command line does, without running it: options, types, what is required."""
    command, rest = resolve(words)
    for param in command.params:
        param.callback = None  # which would ask for the folders that a page names, and are not here
    command.make_context("xenomask", list(rest))


def check_options(words: list[str]) -> None:
    command, rest = resolve(words)
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    given = [w.split("=")[0].rstrip(",;:") for w in rest if w.startswith("--")]
    assert [g for g in given if g not in known] == []


ALL = [(page.relative_to(ROOT), words) for page in PAGES for words in commands(page.read_text())]
PARTS = [(page.relative_to(ROOT), words) for page in PAGES for words in inline(page.read_text())]


@pytest.mark.parametrize(("page", "words"), ALL, ids=lambda x: " ".join(x) if isinstance(x, list) else str(x))
def test_command__is_one_that_the_command_line_parses(page, words):
    check_complete(words)


@pytest.mark.parametrize(("page", "words"), PARTS, ids=lambda x: " ".join(x) if isinstance(x, list) else str(x))
def test_command_in_a_sentence__exists_with_its_options(page, words):
    check_options(words)


@pytest.mark.parametrize("words", ["detectt a.jpg", "detect a.jpg --outt b", "detect", "queries innlier", "score"])
def test_command__the_test_can_fail(words):
    with pytest.raises((AssertionError, Exception), match=r"no command|No such option|Missing"):
        check_complete(words.split())


def test_commands__are_found_where_they_stand():
    text = (
        "# a\n\n```sh\nxenomask train a.toml \\\n  --seed 1  # why\nX=1 sbatch b.sh\n"
        "torchrun -n 8 -m xenomask.cli train c\n```\n\n    xenomask slurm status r\n    image -> xenomask\n\n"
        "```toml\nxenomask no\n```\nsay `xenomask scores` or `x`.\n"
    )
    assert commands(text) == [
        ["train", "a.toml", "--seed", "1"], ["train", "c"], ["slurm", "status", "r"],
    ]  # fmt: skip
    assert inline(text) == [["scores"]]
    assert len(ALL) > 100 and len(PARTS) > 50


def test_scripts_and_files_of_commands__exist():
    named = {w for p in PAGES for line in shell_lines(p.read_text()) for w in line.split("#")[0].split()}
    mine = re.compile(r"(?:benchmarks|slurm|examples|docs/scripts|tests)/[\w./-]+\.(?:py|sh)|configs/[\w./-]+\.toml")
    files = {w for w in named if mine.fullmatch(w)}
    assert len(files) > 10
    assert [f for f in sorted(files) if not (ROOT / f).is_file()] == []


@pytest.fixture
def street(tmp_path, monkeypatch) -> Path:
    """A folder with what the tutorials take for the reader's: street.jpg and photos/."""
    (tmp_path / "photos").mkdir()
    for i, name in enumerate(("street.jpg", "photos/a.jpg", "photos/b.jpg")):
        Image.fromarray(draw_scene(i, (180, 320)).image).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def walk(page: Path, capsys) -> list[str]:
    """Runs a tutorial's commands in order, those of `xenomask` and `python -c`; returns them."""
    done = []
    for block in fences(page.read_text(), "sh"):
        for line in block.splitlines():
            words = [w for word in shlex.split(line, comments=True) for w in (sorted(glob.glob(word)) or [word])]
            if words[:1] == ["xenomask"]:
                code, _, err = run(capsys, *words[1:])
                assert code == 0, f"{line}: {err}"
            elif words[:2] == ["python", "-c"]:
                subprocess.run([sys.executable, *words[1:]], check=True)
            else:
                continue
            done.append(line)
    return done


@pytest.mark.slow
def test_five_minute_start__runs(street, capsys):
    assert len(walk(DOCS / "start.md", capsys)) == 4
    assert (street / "demo_out/heatmaps/contact_sheet.jpg").is_file()
    assert {p.name for p in (street / "out").iterdir()} == {
        f"{n}{end}" for n in ("validation0000", "street") for end in (".hdf5", "_heatmap.png", "_overlay.jpg")
    }


@pytest.mark.slow
def test_python_of_the_readme__runs(street):
    (block,) = fences((ROOT / "README.md").read_text(), "python")
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("page", [p for p in PAGES if ">>>" in p.read_text()], ids=lambda p: p.stem)
def test_doctests__hold(page):
    found = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("name", SCORES)
def test_score_page__says_what_the_code_says(name):
    text, score = (DOCS / "scores" / f"{name}.md").read_text(), SCORES[name]
    low, high = score.scale
    assert f"    {score.formula}\n" in text
    assert f"Colours from {low:.4g} (black) to {high:.4g} (yellow)" in text
    assert all(part in text.split("**Reads**")[1].split("\n")[0] for part in score.reads)
    assert all(f"`{o}`" in text for o in score.known_options)
    assert "## When it fails" in text and (DOCS / f"scores/images/{name}.jpg").is_file()
    assert f"[`{name}`]({name}.md)" in (DOCS / "scores/index.md").read_text()


SETS = {"AnomalyTrack validation": "AnomalyTrack", "ObstacleTrack validation": "ObstacleTrack",
        "Fishyscapes Static validation": "Fishyscapes"}  # fmt: skip


@pytest.mark.parametrize("name", SCORES)
def test_score_page__has_the_model_cards_numbers(name):
    parts = {part.split()[0]: part for part in CARD.read_text().split("\n### ")[1:]}
    text = (DOCS / "scores" / f"{name}.md").read_text()
    for line in re.findall(r"^\| (.* validation) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M):
        row = rf"^\| {name} \| ensemble \| [^|]* \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|"
        rows = re.findall(row, parts[SETS[line[0]]], re.M)
        assert (line[1], line[2]) in rows


def test_readme__fits_its_first_reader():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1200
    first = text.split("## ")[0]
    assert "anomal" in first and "out-of-distribution" in first
    assert [line for line in shell_lines(first) if line.startswith("xenomask")] == ["xenomask detect street.jpg"]
    assert all(f"(docs/{page}.md)" in first for page in ("start", "evaluation", "export"))


def test_troubleshooting__quotes_what_the_code_prints():
    source = "\n".join(p.read_text() for p in (ROOT / "src/xenomask").rglob("*.py"))
    source = re.sub(r"\"\s*\n\s*f?\"", "", source)  # messages in several lines
    rows = re.findall(r"^\| (.*?) \|", (DOCS / "troubleshooting.md").read_text(), re.M)
    quoted = [q for row in rows for q in re.findall(r"`([^`]+)`", row)]
    missing = [q for q in quoted if q not in source and not re.fullmatch(r"unknown (?:detector|score)", q)]
    assert len(quoted) > 20 and missing == []


def test_data_pages__are_those_of_the_catalogue():
    from data_pages import pages

    written = {p.name: p.read_text() for p in (DOCS / "data").glob("*.md")}
    assert written == pages(), "run: python docs/scripts/data_pages.py"


def test_refinement_pages__have_the_numbers_of_the_benchmark_and_every_refinement_a_page():
    from refinement_pages import pages

    found = pages()
    assert {p: p.read_text() for p in found} == found, "run: python docs/scripts/refinement_pages.py"
    assert {p.stem for p in found} >= REFINEMENTS.keys() and all("| plain |" in text for text in found.values())


def test_hooks__fill_the_nav_and_space_lists(tmp_path):
    pytest.importorskip("mkdocs")
    from hooks import filled, requests_elsewhere, spaced_lists

    (tmp_path / "a.md").touch()
    (tmp_path / "new.md").touch()
    assert filled(["a.md", {"Guides": ["b.md"]}], tmp_path) == ["a.md", {"Guides": ["b.md", "new.md"]}]
    assert spaced_lists("one:\n- a\n- b\n  more\n- c\n\n```\nx\n- y\n```") == (
        "one:\n\n- a\n- b\n  more\n- c\n\n```\nx\n- y\n```"
    )
    html = (
        '<a href="https://x.y">z</a><link href="//f.g/a.css"><img src="a.png"><script src="https://c.d/e.js"></script>'
    )
    assert requests_elsewhere(html) == ["//f.g/a.css", "https://c.d/e.js"]


@pytest.mark.slow
def test_figures__are_what_the_scores_say_today():
    from figures import OUT, pictures

    for name, picture in pictures(("max_logit", "uno")).items():
        stored = np.asarray(Image.open(OUT / f"{name}.jpg")).astype(int)
        assert np.abs(stored - picture).mean() < 5, f"{name}: run python docs/scripts/figures.py"
