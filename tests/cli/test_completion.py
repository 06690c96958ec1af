"""Completion as bash and zsh ask for it, through the installed command: quick, and with the names that there are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xenomask import objects
from xenomask.cli import completion, predict
from xenomask.cli.fleet import ENGINES
from xenomask.datasets import DATASETS
from xenomask.detector.find import EXPORTED
from xenomask.detector.known import KNOWN
from xenomask.evaluation.benchmark import SUITES
from xenomask.evaluation.crossval import CHOICES
from xenomask.export import FORMATS
from xenomask.metrics.calibration import FITS
from xenomask.metrics.components import TRACKS
from xenomask.models.network import PRECISIONS
from xenomask.models.runtimes.runtime import RUNTIMES
from xenomask.predict.photos import FILES
from xenomask.refine import REFINEMENTS
from xenomask.scores import SCORES
from xenomask.scores.backend import KERNELS

# typer names the protocol's variable after the program
PROGRAM = "import sys; sys.argv[0] = 'xenomask'; from xenomask.cli import main; main()"


def ask(line: str, shell: str = "bash", program: str = PROGRAM, **more: str) -> subprocess.CompletedProcess:
    """What the shell's function asks when Tab is pressed at the line's end."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_TYPER_COMPLETE_ARGS": line}
    env = {**os.environ, **words, "_XENOMASK_COMPLETE": f"complete_{shell}", **more}
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("xenomask det", ["detect", "detectors"]),
        ("xenomask queries i", ["inlier"]),
        ("xenomask detect --sc", ["--score"]),
        ("xenomask detect a.jpg --score maskomaly_", ["maskomaly_no_border", "maskomaly_specialised"]),
        ("xenomask score --dataset st", ["street-hazards"]),
        ("xenomask datasets --dataset st", ["street-hazards"]),
        ("xenomask detect --detector m", ["maskomaly-paper", "mask2former-swin-s"]),
        ("xenomask benchmark --scores own,ms", ["own,msp"]),
        ("xenomask detect --detector my-", []),  # bash goes on with files and folders
        ("xenomask detect str", []),
    ],
)
def test_bash__offers_the_names(line, offered):
    done = ask(line)
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_zsh__offers_the_names():
    done = ask("xenomask score --dataset st", "zsh")
    assert "street-hazards" in done.stdout and "anomaly-track" not in done.stdout and not done.stderr


def test_completion__loads_no_torch_numpy_or_cv2():
    watch = "import atexit, sys; atexit.register(lambda: print({'torch', 'numpy', 'cv2'} & set(sys.modules)));"
    assert ask("xenomask detect --score ma", program=watch + PROGRAM).stdout.endswith("set()\n")


def test_names__are_those_of_the_package():
    assert set(completion.SCORES) == set(SCORES)
    assert completion.DATASETS == tuple(DATASETS)
    assert set(completion.REFINEMENTS) == {n for n, r in REFINEMENTS.items() if r.needs == "masks"}
    assert (completion.RUNTIMES, completion.PRECISIONS) == (RUNTIMES, tuple(PRECISIONS))
    assert (completion.KERNELS, completion.ENGINES) == (KERNELS, ENGINES)
    assert completion.FILES == (*FILES, "objects")
    assert predict.SMALLEST == 100 * objects.SMALLEST
    assert (completion.FORMATS, completion.FITS) == (tuple(FORMATS), tuple(FITS))
    assert (completion.TRACKS, completion.SUITES, completion.CHOICES) == (tuple(TRACKS), tuple(SUITES), CHOICES)
    assert set(EXPORTED) == set(FORMATS.values())
    assert completion.DETECTORS == ("nano", "nano-general", *KNOWN)


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_install_completion__writes_what_the_shell_reads(shell, file, tmp_path):
    env = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for option in ("--show-completion", "--install-completion"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, option, shell], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "_XENOMASK_COMPLETE" in done.stdout or "completion installed" in done.stdout
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert tmp_path / file in written
    assert any("complete_" + shell in p.read_text() for p in written)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash__its_own_function_completes(tmp_path):
    """The script that bash is given, run by bash, with the program where it looks for it."""
    program = tmp_path / "xenomask"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}\n")
    program.chmod(0o755)
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    script = subprocess.run([program, "--show-completion", "bash"], env=env, capture_output=True, text=True).stdout
    (tmp_path / "script").write_text(script)
    bash = (
        f"source {Path(tmp_path / 'script')}; COMP_WORDS=(xenomask detect a.jpg --score max); COMP_CWORD=4; "
        '_xenomask_completion xenomask; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", bash], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["max_logit", "max_share"], done.stderr
