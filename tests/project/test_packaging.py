"""The wheel: what is in it, and that it works where nothing of the repository is."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from helpers.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EMPTY = pytest.mark.skipif(
    os.environ.get("XENOMASK_WHEEL") != "1", reason="downloads some GB: set XENOMASK_WHEEL=1 to install from PyPI"
)


def pip(*words: object, python: Path | str = sys.executable) -> str:
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="needs hatchling, which make test installs")
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, ROOT)
    (built,) = out.glob("xenomask-*.whl")
    return built


def run(environment: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Runs the environment's `xenomask` in a folder far from the repository, offline."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    program = environment / "bin/xenomask"
    return subprocess.run([program, *words], env=env, cwd=folder, capture_output=True, text=True, timeout=600)


def check_works(environment: Path, folder: Path) -> None:
    """demo, doctor and detectors do there what they do here."""
    where = subprocess.run(
        [environment / "bin/python", "-P", "-c", "import xenomask; print(xenomask.__file__)"],
        env={"PATH": os.environ["PATH"]}, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(environment), where.stderr
    done = run(environment, folder, "demo", "--frames", "1", "--out", "demo")
    assert done.returncode == 0 and "aupr_sum" in done.stdout, done.stderr
    assert (folder / "demo/heatmaps/contact_sheet.jpg").is_file() and len(
        list((folder / "demo/maps").glob("*.hdf5"))
    ) == 1
    done = run(environment, folder, "doctor")
    assert done.returncode == 0 and "shipped: nano-s, nano-l" in done.stdout, done.stdout
    done = run(environment, folder, "detectors")
    assert done.returncode == 0 and "nano" in done.stdout, done.stderr
    # recipes come along: it is the data that is missing, not the recipe
    done = run(environment, folder, "train", "configs/nano-s.toml")
    assert done.returncode == 2 and "no such recipe" not in done.stderr, done.stderr


@pytest.mark.slow
def test_wheel__has_weights_recipes_and_licence_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert tops == {"xenomask", f"xenomask-{PROJECT['version']}.dist-info"}
    inside = {n for n in names if n.startswith("xenomask/")}
    here = {
        p.relative_to(ROOT / "src").as_posix()
        for p in (ROOT / "src/xenomask").rglob("*") if p.is_file() and "__pycache__" not in p.parts
    }  # fmt: skip
    recipes = {f"xenomask/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.toml")}
    assert inside == here | recipes and recipes
    assert "xenomask/py.typed" in inside
    for part in ("nano-s/model.safetensors", "nano-l/model.safetensors", "detector.json", "README.md"):
        assert f"xenomask/detectors/nano/{part}" in inside
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)
    assert wheel.stat().st_size < 60e6
    metadata = zipfile.ZipFile(wheel).read(f"xenomask-{PROJECT['version']}.dist-info/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    extras = {line.split()[1] for line in metadata.splitlines() if line.startswith("Provides-Extra:")}
    assert extras >= {"train", "app", "openvino", "ray", "docs", "onnx", "int8"}


@pytest.mark.slow
def test_wheel__works_beside_its_dependencies(wheel, tmp_path):
    """An environment whose only own package is the wheel; its dependencies are this one's, by a path file."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    import torch

    (site / "dependencies.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")  # path files in there are not read
    pip("install", "--no-deps", "--no-index", wheel, python=environment / "bin/python")
    (tmp_path / "away").mkdir()
    check_works(environment, tmp_path / "away")


@pytest.mark.slow
@EMPTY
def test_wheel__works_in_an_empty_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip("install", "--quiet", "-c", ROOT / "constraints.txt", wheel, python=tmp_path / "venv/bin/python")
    (tmp_path / "away").mkdir()
    check_works(tmp_path / "venv", tmp_path / "away")


@EMPTY
@pytest.mark.parametrize("extra", [e for e in PROJECT["optional-dependencies"] if e != "dev"])
def test_extra__resolves(wheel, extra):
    # asked of this environment, so that what it has already is not resolved again
    said = pip("install", "--dry-run", "--quiet", "--report", "-", "-c", ROOT / "constraints.txt", f"{wheel}[{extra}]")
    assert '"install"' in said
