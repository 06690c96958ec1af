"""What commands print where a terminal has 80 columns: no table breaks a word, cuts one off, or is wider."""

import os
import re
import subprocess
import sys

import pytest
import typer

from helpers.world import SET
from xenomask.cli import app, common

TABLES = {
    "scores": ["scores"],
    "datasets": ["datasets"],
    "datasets, there": ["datasets", *SET],
    "detectors": ["detectors"],
    "doctor": ["doctor"],
    "evaluate": ["evaluate", "--maps", "{maps}", *SET, "--conventions", "all"],
    "compare": ["compare", "{maps}", "{maps}", *SET, "--resamples", "20"],
    "agreement": ["agreement", "{maps}", "{maps}", *SET, "--out", "{new}"],
    "thresholds": ["thresholds", "--maps", "{maps}", *SET, "--fpr", ".05", "--f1", "--conformal-pixels", ".9"],
    "calibrate": ["calibrate", "--maps", "{maps}", *SET, "--fit", "isotonic"],
    "benchmark": ["benchmark", *SET, "--detector", "{detector}", "--out", "{new}", "--resamples", "0"],
    "crossval": ["crossval", *SET, "--detector", "{detector}", "--score", "max_logit", "--choose", "weights"],
    "explain": ["explain", "{root}/{photo}", "--at", "3,3", "--detector", "{detector}"],
    "detect": ["detect", "{root}/{photo}", "--detector", "{detector}", "--out", "{new}", "--profile"],
    "submission": ["submission", "write", "--maps", "{maps}", *SET, "--out", "{new}", "--method", "mine"],
}  # fmt: skip
FRAME = "━─│┃"


def words(text: str) -> set[str]:
    found = {w for line in text.splitlines() if line[:1] in FRAME for w in re.split(r"[\s│┃]+", line)}
    return {w for w in found if not re.fullmatch(r"[\d.]+", w)}  # times are others in each run


@pytest.mark.parametrize("name", TABLES)
def test_table__fits_80_columns_with_its_words_whole(name, world, tmp_path, monkeypatch, capsys):
    from helpers.cli import run

    # a path may be longer than the table, so that it has to break: here none is
    monkeypatch.chdir(world["root"])
    monkeypatch.setenv("XENOMASK_CACHE", "cache")
    places = {k: os.path.relpath(v) for k, v in world.items()} | {
        "photo": "dataset_AnomalyTrack/images/validation0000.jpg"
    }
    printed = {}
    for width in (80, 400):
        monkeypatch.setattr(common.out_console, "_width", width)
        arguments = [w.format(**places, new=tmp_path / str(width)) for w in TABLES[name]]
        code, printed[width], err = run(capsys, *arguments)
        assert code == 0, err
    tables = [line for line in printed[80].splitlines() if line[:1] in FRAME]
    assert max(map(len, tables), default=0) <= 80 and "…" not in printed[80]
    assert not (broken := words(printed[80]) - words(printed[400])), broken


def test_help__shows_no_type_of_python():
    def commands(command, name=()):
        yield name, command
        for key, inner in getattr(command, "commands", {}).items():
            yield from commands(inner, (*name, key))

    for name, command in commands(typer.main.get_command(app)):
        with command.make_context(" ".join(("xenomask", *name)), [], resilient_parsing=True) as ctx:
            for param in command.get_params(ctx):
                shown = param.display_type_rich(ctx)  # pyright: ignore[reportAttributeAccessIssue]
                assert not re.search(r"<|str|int|float|bool|list", shown or ""), (name, param.name, shown)


def test_help__loads_no_numpy():
    program = (
        "import sys; sys.argv[1:] = ['detect', '--help']\n"
        "try:\n    from xenomask.cli import main; main()\n"
        "finally:\n    assert not {'torch', 'numpy', 'cv2', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and "PATH" in done.stdout and not done.stderr, done.stderr
