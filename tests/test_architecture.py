import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "xenomask"
LEVELS = [
    {"errors"},
    {"arrays"},
    {"files", "jit", "types", "known"},
    {"masks", "card", "pictures"},
    {"datasets"},
    {"models", "scores", "queries", "ensemble", "store", "metrics", "plots"},
    {"hub", "parts", "saving", "video"},
    {"detector_folder"},
    {"detector"},
    {"export"},
    {"run", "train", "submission"},
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


def upward(package: str, text: str) -> set[str]:
    return {other for other in imports(text) - {package} if LEVEL[other] >= LEVEL[package]}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports__go_downward_only(path):
    package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if package != "__init__":
        assert upward(package, path.read_text()) == set()


def test_imports__the_test_can_fail():
    assert upward("metrics", "from xenomask.detector import Detector") == {"detector"}
    assert upward("metrics", "def f():\n    import xenomask.scores") == {"scores"}


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
    [("xenomask", True), ("xenomask.cli", True), ("xenomask.run.demo", False), ("xenomask.train", False)],
)
def test_import__is_silent(module, light):
    code = QUIET.format(module=module, light=light)
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
