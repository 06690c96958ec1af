"""Every command and every Python block of README and site is run, with small drawn stand-ins for what it names.

A page's commands share one folder, in which everything that they may name lies (stage.py), and go through the command
line in this process. What a command promises to write has to be there afterwards. Commands that cannot run here stand
in ELSEWHERE, with the reason; test_docs.py parses them all the same.
"""

import argparse
import ast
import glob
import re
import runpy
import shlex
import sys
import time
from pathlib import Path

import pytest

from helpers.cli import run
from helpers.pages import FENCE, INDENTED, PAGES, fences, shell_lines
from helpers.places import ROOT
from helpers.stage import build_stage, copy_for
from xenomask.datasets import read_photo
from xenomask.detector import Detector

# how a command begins (after what may stand before `xenomask`) -> why it is not run here
ELSEWHERE = {
    "xenomask app": "serves until it is ended; test_app.py talks to it",
    "URL=": "talks to the page of xenomask app; test_app.py asks the same of it",
    "FILE=": "as above", "ID=": "as above", '"meta":': "as above", "curl": "as above",
    "xenomask detect photo.jpg --detector maskomaly-paper": "downloads; test_known.py has a Hub of its own",
    "xenomask detect photo.jpg --detector hf:": "downloads; test_hub.py has a Hub of its own",
    "xenomask serve": "serves until it is ended; test_serve.py asks it",
    "xenomask refine": "wants another tool's segments or boxes; test_refine_maps.py writes some",
    "docker": "needs Docker", "pip wheel": "as above",
    "xenomask push": "uploads; test_hub.py has a Hub of its own",
    "xenomask score --dataset anomaly-track --root data/smiyc --out maps/at --engine ray --ray-address":
        "needs a cluster",
    "xenomask score --dataset anomaly-track --root data/smiyc --out maps/at --engine ray":
        "takes a minute to start Ray; test_fleet.py does",
    "xenomask train --engine mmseg": "needs MMSegmentation; test_mmseg_engine.py has a stand-in",
    "xenomask quantize": "OpenVINO compiles no int8 graph of networks this small; test_quantize.py has another",
    "xenomask video 0": "needs a camera", "xenomask video rtsp": "needs a stream; test_video.py serves one",
    "xenomask slurm status runs/swin": "needs Slurm; test_slurm.py asks a real one where it is installed",
    "sbatch": "needs Slurm; test_slurm.py runs slurm/*.sh", "id=$(": "needs Slurm", "sinfo": "needs Slurm",
    "sudo apt-get": "installs into the system", "eval": "starts Slurm's daemons; test_slurm.py does",
    "tests/slurm_node.sh": "stops Slurm's daemons; test_slurm.py does", "ray": "needs a cluster",
    "git clone": "the walk in docs/log.md", "make": "make demo, test, check, docs: CI (.ci/run) and test_packaging.py",
    "g++": "needs ONNX Runtime's headers; test_export_cpp.py compiles it", "./detect": "as above",
    "trtexec": "needs TensorRT and a GPU",
    "source": "an activated environment changes no command", "pip install": "test_packaging.py resolves every extra",
}  # fmt: skip
# what is shortened: (how a command begins, words, words instead)
SHORTER = (
    ("xenomask export", "1280x720", "96x64 --member nano-s"),
    ("xenomask benchmark", "--suite", "--resamples 20 --suite"),
    # MMSegmentation's input size makes even the smallest network slow: the commands after it keep the tiny one
    ("xenomask convert work_dirs", "--out checkpoints/", "--out converted/"),
    # untrained queries lie on nothing, and without outlier queries their maps are 0, which no submission may be
    ("xenomask queries outlier", "--dataset", "--top-k 2 --dataset"),
    ("xenomask synthetic", "640x360", "96x64"),
    ("xenomask demo", "--frames 3", "--frames 1"),
    ("xenomask slurm pipeline", "--leave-one-out", "--leave-one-out --dry-run"),
    ("xenomask score", "--engine slurm", "--dry-run --engine slurm"),
    ("python benchmarks/fuzz.py", "--seconds 62", "--seconds .1 --out fuzz"),
    ("python benchmarks/fuzz.py", "--only 1234", "--only 1234 --out fuzz"),
    ("python benchmarks/postprocess.py", "--photo", "--size 64 96 --runs 1 --no-released --photo"),
    ("python benchmarks/end_to_end.py", "--photo", "--runs 1 --runtimes torch --photo"),
    ("", " /data/", " data/"), ("", " /maps/", " maps/"),
)  # fmt: skip
WRITES = ("--out", "--json", "--into", "--cache", "--png16", "--work-dir")
COMMAND = re.compile(r"(?:xenomask|python|torchrun|ray|sbatch|pip|make|git|cd|sudo|curl|docker) ")


def lines_of(text: str) -> list[str]:
    """Each command of a page as it is run: without its comment and what stands before `xenomask`, shortened."""
    prose = set(INDENTED.findall(FENCE.sub("\n", text)))
    indented = {line.strip() for block in prose for line in re.sub(r"\\\n\s*", " ", block).splitlines()}
    found = []
    for line in shell_lines(text):
        if not line or line.startswith("#") or (line in indented and not COMMAND.match(line)):
            continue
        line = re.sub(r"\s+#.*", "", line)
        line = re.sub(r"\[(--[a-z-]+)\]", r"\1", line)
        line = re.sub(r"^torchrun .* -m xenomask\.cli ", "xenomask ", line)
        line = re.sub(r"^(?:[A-Z]+=\S+ )+(?=sbatch)", "", line)
        for start, old, new in SHORTER:
            line = line.replace(old, new) if line.startswith(start) else line
        found.append(line)
    return found


def elsewhere(line: str) -> bool:
    return any(re.match(rf"{re.escape(start)}(?:$|(?<=\W)|\b)", line) for start in ELSEWHERE)


def promised(words: list[str]) -> list[Path]:
    """The files and folders that the command says it writes; "a,b" are two."""
    if "--dry-run" in words:
        return []
    return [Path(b) for a, b in zip(words, words[1:], strict=False) if a in WRITES]


def words_of(line: str) -> list[str]:
    """As a shell has them: patterns become the files that match."""
    return [w for word in shlex.split(line) for w in (sorted(glob.glob(word)) or [word])]


def run_line(line: str, began: int, capsys, monkeypatch) -> None:
    """Runs the command in this process; AssertionError where it fails or leaves out a file that it promises.

    `began`: when the page did, in ns; a command that finds all maps made by one above it writes nothing.
    """
    words = words_of(line)
    if words[0] == "xenomask":
        code, _, err = run(capsys, *words[1:])
        assert code == 0, f"{line}: {err}"
    elif words[:2] == ["python", "-c"]:
        exec(words[2], {})
    else:
        assert words[0] == "python", f"neither run nor in ELSEWHERE: {line}"
        monkeypatch.setattr(sys, "argv", words[1:])
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    for path in promised(words):
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        assert any(p.stat().st_ctime_ns >= began - 10**8 for p in files), f"{line}: wrote nothing to {path}"


@pytest.fixture(scope="session")
def stage(tmp_path_factory) -> Path:
    return build_stage(tmp_path_factory.mktemp("stage"))


def promised_by(line: str) -> set[str]:
    return {str(path) for path in promised(shlex.split(line))} if "--into" not in line else set()


# names that a page's Python takes for the reader's; everything else it has to import or make itself
GIVEN = {
    "Path": "Path",
    "detector": "Detector.from_folder('my-detector')",
    "image": "read_photo(Path('street.jpg'))",
    "value": "detector.detect(image).value",
    "threshold": "0.4",
    "photos": "sorted(Path('photos').iterdir())",
}
# statements that cannot run here, like ELSEWHERE
NOT_RUN = {
    "from_hub(": "downloads; test_hub.py", 'load_model("org': "downloads; test_hub.py",
    "fit_mahalanobis(": "needs ImageNet's weights; models/test_mahalanobis.py",
    "push_to_hub(": "uploads; test_hub.py", "to_supervision(": "needs supervision; test_components_export.py",
    "to_fiftyone(": "needs FiftyOne; test_components_export.py",
}  # fmt: skip


def run_python(block: str) -> None:
    """Runs the block's statements but those of NOT_RUN."""
    names = {}
    tree = ast.parse(block)
    wanted = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    if wanted & set(GIVEN):
        for name, how in GIVEN.items():
            names[name] = eval(how, {"Detector": Detector, "read_photo": read_photo, "Path": Path, **names})
    for statement in tree.body:
        if not any(part in ast.get_source_segment(block, statement) for part in NOT_RUN):  # pyright: ignore
            exec(compile(ast.Module([statement], []), "page", "exec"), names)


def runs(page: Path) -> bool:
    text = page.read_text()
    return bool(fences(text, "python")) or any(not elsewhere(line) for line in lines_of(text))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if runs(p)], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_page__every_command_runs(page, stage, tmp_path, monkeypatch, capsys):
    text = page.read_text()
    lines = [line for line in lines_of(text) if not elsewhere(line)]
    copy_for(tmp_path, stage, {p for line in lines for p in promised_by(line)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.time_ns()
    for line in lines:
        run_line(line.replace("~", str(tmp_path)), began, capsys, monkeypatch)
    for block in fences(text, "python"):
        run_python(block)


def test_elsewhere__names_only_what_is_on_a_page():
    lines = [line for page in PAGES for line in lines_of(page.read_text())]
    unused = [start for start in ELSEWHERE if not any(line.startswith(start) for line in lines)]
    assert unused == []


class Parsed(Exception):
    """The script's options were understood; it is not run further."""


NAMED = re.compile(r"`(?:python )?(benchmarks/\w+\.py(?: [^`]*)?)`")
SCRIPTS = sorted({(page, m) for page in PAGES for m in NAMED.findall(FENCE.sub("", page.read_text()))})


@pytest.mark.parametrize(("page", "line"), SCRIPTS, ids=lambda x: x.stem if isinstance(x, Path) else x.split("/")[1])
def test_script_in_a_sentence__understands_its_options(page, line, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, *arguments, **options):
        parse(parser, *arguments, **options)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", shlex.split(line.replace("...", "")))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as Python itself does for a script's own folder
    with pytest.raises(Parsed):
        runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
