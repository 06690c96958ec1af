"""`xenomask train --engine mmseg`, with a package in MMSegmentation's place that leaves a run's files behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.places import ROOT, TESTS
from xenomask.cli import app
from xenomask.errors import XenomaskError
from xenomask.models import load
from xenomask.train.mmseg import train_mmseg

SOURCE = ROOT / "src"
GOLDEN = TESTS / "golden" / "mmseg"
CONFIG = """
class Config(dict):
    __getattr__ = dict.get

    def __setattr__(self, name, value):
        self[name] = value

    @staticmethod
    def fromfile(path):
        found = {}
        exec(open(path).read(), found)  # as MMEngine does
        return Config({k: v for k, v in found.items() if not k.startswith("_")})
"""
RUNNER = """
import json, os, pathlib, shutil, sys

class Runner:
    @staticmethod
    def from_cfg(settings):
        runner = Runner()
        runner.settings = settings
        return runner

    def train(self):
        s = self.settings
        work = pathlib.Path(s.work_dir)
        work.mkdir(parents=True, exist_ok=True)
        print("Iter(train) [6/6]", s.max_iters, flush=True)
        seen = {k: s.get(k) for k in ("resume", "load_from", "launcher", "max_iters")}
        (work / "seen.json").write_text(json.dumps([sys.executable, sys.path[0], seen]))
        if s.max_iters == 13:
            raise RuntimeError("CUDA out of memory")
        if s.max_iters == 15:
            from pickle import UnpicklingError
            raise UnpicklingError("Weights only load failed. ... argument in `torch.load` from `weights_only`")
        if s.max_iters == 14:
            return
        shutil.copy("GOLDEN/random_micro.pth", work / "iter_6.pth")
        shutil.copy("GOLDEN/config.py", work / "config.py")
        (work / "last_checkpoint").write_text("/its/own/machine/iter_6.pth")
""".replace("GOLDEN", str(GOLDEN))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """Where the stand-ins for mmengine and mmseg lie, for every process started below an empty current folder."""
    files = {"mmengine/__init__.py": "", "mmengine/config.py": CONFIG, "mmengine/runner.py": RUNNER,
             "mmseg/__init__.py": "", "mmseg/.mim/configs/m2f/shrunken_6.py": "max_iters = 6\n",
             "mmseg/.mim/configs/a/twice.py": "", "mmseg/.mim/configs/b/twice.py": ""}  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(SOURCE)]))
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "site"


def seen(work: str) -> list:
    return json.loads((Path(work) / "seen.json").read_text())


@pytest.mark.slow
def test_engine_mmseg__trains_hands_over_and_goes_on(tmp_path, site):
    (tmp_path / "mine.py").write_text("max_iters = 5 + 1\nload_from = 'x.pth'\n")
    command = [sys.executable, "-m", "xenomask.cli", "train", "--engine", "mmseg", "mine.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Iter(train) [6/6] 6" in done.stdout
    assert f"trained and converted: {tmp_path}/work_dirs/mine/iter_6" in done.stdout
    network = load(tmp_path / "work_dirs/mine/iter_6")
    assert network.facts["converted"]["kind"] == "mmsegmentation" and network.config.num_queries == 20  # pyright: ignore
    executable, first, settings = seen("work_dirs/mine")
    assert executable == sys.executable and "xenomask/train" not in first
    assert settings == {"resume": None, "load_from": "x.pth", "launcher": "none", "max_iters": 6}
    # the same again goes on from its last checkpoint, and replaces what was converted
    assert train_mmseg("mine.py", Path(sys.executable)) == tmp_path / "work_dirs/mine/iter_6"
    assert seen("work_dirs/mine")[2] == {**settings, "resume": True, "load_from": None}


def test_engine_mmseg__an_installed_config_another_python_another_folder(tmp_path, site):
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\ntouch was_here\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    assert train_mmseg("shrunken_6", other, Path("w")) == tmp_path / "w/iter_6"
    assert load(tmp_path / "w/iter_6").facts["converted"]["file"] == "iter_6.pth"
    assert (tmp_path / "was_here").exists()


def test_engine_mmseg__in_a_group_only_the_first_process_converts(site, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert train_mmseg("shrunken_6", Path(sys.executable)) is None
    assert seen("work_dirs/shrunken_6")[2]["launcher"] == "pytorch"
    assert not Path("work_dirs/shrunken_6/iter_6").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("bad.py", "stopped with exit code 1, for the reason above; the same command goes on"),
        ("nothing.py", "nothing holds no checkpoint"),
        ("old.py", "MMEngine cannot read a checkpoint with this torch .*TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"),
        ("taken.py", "taken/iter_6 exists and is no checkpoint folder of xenomask"),
        ("shrunken_7", "no config shrunken_7: neither a file nor the name of one in .*; did you mean shrunken_6?"),
        ("twice", "there are 2 configs twice: give one's path: "),
    ],
)
def test_engine_mmseg__what_goes_wrong_is_one_line(tmp_path, site, config, message, capfd):
    (tmp_path / "bad.py").write_text("max_iters = 13\n")
    (tmp_path / "nothing.py").write_text("max_iters = 14\n")
    (tmp_path / "old.py").write_text("max_iters = 15\n")
    (tmp_path / "work_dirs/taken/iter_6").mkdir(parents=True)
    (tmp_path / "taken.py").write_text("max_iters = 6\n")
    with pytest.raises(XenomaskError, match=message) as e:
        train_mmseg(config, Path(sys.executable))
    assert "\n" not in str(e.value)
    assert ("CUDA out of memory" in capfd.readouterr().err) is (config == "bad.py")


def test_engine_mmseg__no_such_interpreter(site):
    with pytest.raises(XenomaskError, match="cannot run nowhere/python: No such file .*--python names"):
        train_mmseg("shrunken_6", Path("nowhere/python"))


def test_engine_mmseg__without_it_the_versions_to_install_are_named(site):
    (site / "mmseg/__init__.py").write_text("import mmcv_that_nobody_has")
    wanted = re.escape(
        "has no MMSegmentation that works (No module named 'mmcv_that_nobody_has'): there, pip install "
        "mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0 mmsegmentation==1.2.2 ftfy regex; or name another"
    )
    with pytest.raises(XenomaskError, match=wanted):
        train_mmseg("a.py", Path(sys.executable))


def test_train__stray_options_of_the_engines():
    def error(*words: str) -> str:
        found = CliRunner().invoke(app, ["train", *words]).exception
        assert isinstance(found, XenomaskError)
        return str(found)

    assert "unknown engine 'mseg'; did you mean 'mmseg'?" in error("a.py", "--engine", "mseg")
    assert "--python is for --engine mmseg" in error("configs/a.toml", "--python", "p")
    assert "--iterations, --seed: not with --engine mmseg" in error(
        "a.py", "--engine", "mmseg", "--seed", "3", "--iterations", "5"
    )
