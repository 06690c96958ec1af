import ast
import subprocess
import sys
from pathlib import Path

import pytest

import architecture
from helpers.places import ROOT, TESTS

SOURCE = ROOT / "src" / "xenomask"
LEVELS = [
    {"errors", "later", "version", "offline", "shapes", "deflate"},
    {"arrays"},
    {"files", "jit", "types"},
    {"masks", "picture_files"},
    {"pictures"},
    {"datasets"},
    {"models"},
    {"queries"},
    {"scores"},
    {"store", "metrics", "plots"},
    {"objects", "refine"},
    {"detector"},
    {"export"},
    {"opening"},
    {"predict"},
    {"evaluation"},
    {"report"},
    {"train"},
    {"cluster"},
    {"app"},
    {"cli"},
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}


def imports(text: str) -> set[str]:
    """Our own packages that a source imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xenomask."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("xenomask.")}
    return found


def files_imported(path: Path) -> set[str]:
    """Our own modules that a file imports, also inside functions, but not for type checkers alone."""
    tree = ast.parse(path.read_text())
    checked = {
        id(n) for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test)
        for n in ast.walk(i)
    }  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "xenomask":
            found |= {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module
                      for a in node.names}  # fmt: skip
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name in MODULES}
    return found


def name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name(p): p for p in SOURCE.rglob("*.py")}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Ways round: what is left when everything without arrows to others left was taken away again and again."""
    left = {k: {x for x in v if x != k} for k, v in arrows.items()}
    while done := [k for k, v in left.items() if not v & left.keys()]:
        for k in done:
            del left[k]
    return sorted([k, *sorted(v & left.keys())] for k, v in left.items())


def test_files__have_no_circle():
    assert circles({k: files_imported(p) for k, p in MODULES.items()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})


def upward(package: str, text: str) -> set[str]:
    return {other for other in imports(text) - {package} if LEVEL[other] >= LEVEL[package]}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports__go_downward_only(path):
    package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if package != "__init__":
        assert upward(package, path.read_text()) == set()


def test_imports__the_test_can_fail():
    assert upward("metrics", "from xenomask.detector import Detector") == {"detector"}
    assert upward("scores", "def f():\n    import xenomask.metrics") == {"metrics"}


def test_picture__is_that_of_the_imports():
    assert architecture.OUT.read_text("utf-8") == architecture.svg(architecture.packages()), (
        "run python docs/scripts/architecture.py"
    )


def imported_tests(text: str) -> set[str]:
    """Test files, and conftest.py, that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            found |= {*(node.module or "").split("."), *(a.name for a in node.names)}
        elif isinstance(node, ast.Import):
            found |= {part for a in node.names for part in a.name.split(".")}
    return {name for name in found if name == "conftest" or name in FILES}


FILES = {p.stem for p in TESTS.rglob("test_*.py")}


def test_tests__import_no_test():
    sources = [p for p in TESTS.rglob("*.py") if "golden" not in p.parts]
    assert {str(p): found for p in sources if (found := imported_tests(p.read_text()))} == {}
    assert imported_tests("from test_architecture import f") == {"test_architecture"}
    assert imported_tests("def f():\n    import tests.project.test_architecture") == {"test_architecture"}


QUIET = """
import logging, os, sys, threading
if not {light}:  # what others do on import is theirs
    import cv2, h5py, matplotlib.figure, safetensors.torch, timm, torch, torchvision.transforms.v2, transformers
    from transformers import Mask2FormerForUniversalSegmentation
before = dict(os.environ), logging.getLogger().handlers[:], threading.active_count()
import {module}
assert (dict(os.environ), logging.getLogger().handlers[:], threading.active_count()) == before
heavy = [m for m in ("torch", "transformers", "matplotlib") if m in sys.modules]
assert not ({light} and heavy), heavy
"""


@pytest.mark.parametrize(
    ("module", "light"),
    [("xenomask", True), ("xenomask.cli", True), ("xenomask.evaluation.demo", False), ("xenomask.train", False)],
)
def test_import__is_silent(module, light):
    code = QUIET.format(module=module, light=light)
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
