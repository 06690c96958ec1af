import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.places import ROOT
from xenomask import cli
from xenomask.cli import doctor_checks as doctor
from xenomask.cli.doctor_checks import Finding, examine, healthy


def test_doctor__finds_what_is_here():
    found = {f.what: f for f in examine(offline=True)}
    assert found["score kernel, cpu"].text.startswith("numba")
    assert found["detector nano"].state == "ok" and "HF_HUB_OFFLINE" in found["Hub"].text
    assert healthy(list(found.values()))


def test_doctor__a_broken_part_hides_no_other(monkeypatch):
    def broken():
        raise RuntimeError("no such library")

    monkeypatch.setattr(doctor, "_torch", broken)
    found = {f.what: f for f in examine(offline=False)}
    assert found["PyTorch"] == Finding("PyTorch", "wrong", "RuntimeError: no such library")
    assert found["detector nano"].state == "ok" and not healthy(list(found.values()))


def test_doctor__package_that_does_not_load(monkeypatch):
    monkeypatch.setattr(doctor, "OPTIONAL", (("no_such_module", "numpy", "nothing", "x"),))
    (found,) = doctor._extras()
    assert found.state == "wrong" and "does not load" in found.text
    monkeypatch.setattr(doctor, "OPTIONAL", (("numpy.no_such_part", "numpy", "a page", "x"),))  # as ray without serve
    (found,) = doctor._extras()
    assert found.what == "numpy.no_such_part" and found.state == "off" and "xenomask[x]" in found.text
    assert "missing: numpy.no_such_part for a page" in doctor.verdict([found])


def test_doctor__a_file_is_no_folder_to_write_into(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XENOMASK_HOME", str(tmp_path / "file" / "inside"))
    assert {f.what: f.state for f in doctor._disk()}["own folder"] == "wrong"


def test_doctor__has_a_row_for_each_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"docs", "dev"}  # those are for work on xenomask itself
    assert {extra for *_, extra in doctor.OPTIONAL} == extras
    assert "quantize" in next(brings for _, package, brings, _ in doctor.OPTIONAL if package == "nncf")


def test_doctor__json_and_exit_code(tmp_path, monkeypatch):
    done = CliRunner().invoke(cli.app, ["doctor", "--json", str(tmp_path / "d.json")])
    assert done.exit_code == 0, done.output
    assert {row["what"] for row in json.loads((tmp_path / "d.json").read_text())} >= {"PyTorch", "disk", "Hub"}
    monkeypatch.setattr(doctor, "examine", lambda offline: [Finding("disk", "wrong", "full")])
    assert CliRunner().invoke(cli.app, ["doctor"]).exit_code == 1


def test_xenomask_alone__says_what_to_do_next():
    done = subprocess.run([sys.executable, "-m", "xenomask.cli"], capture_output=True, text=True)
    assert done.returncode == 0 and "xenomask demo" in done.stdout and "xenomask doctor" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 80


@pytest.mark.slow
@pytest.mark.parametrize(("option", "traceback"), [("--verbose", True), ("--quiet", False)])
def test_quiet_and_verbose__an_error_is_told(option, traceback, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "whole.jpg")
    # a whole header: seen only once the networks are open
    (tmp_path / "no-photo.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    command = [sys.executable, "-m", "xenomask.cli", option, "detect", tmp_path / "no-photo.jpg", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "error: " in done.stderr and "no-photo.jpg" in done.stderr
    assert ("Traceback" in done.stderr) == traceback
    assert ("device cpu" in done.stderr) == traceback
