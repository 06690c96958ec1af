"""The notebook of the first hour: its code cells run in order, in one namespace, and none stores an output."""

import json

import numpy as np
import pytest

from helpers.places import ROOT

NOTEBOOK = ROOT / "examples" / "first_hour.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(c["source"]) for c in CELLS if c["cell_type"] == "code"]


def test_notebook__stores_no_output():
    assert [c for c in CELLS if c.get("outputs") or c.get("execution_count")] == []


def test_notebook__uses_no_magic():
    assert [c for c in CODE if c.lstrip().startswith(("%", "!"))] == []
    assert len(CODE) > 3


@pytest.mark.slow
def test_notebook__runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict = {}
    for number, cell in enumerate(CODE):
        exec(compile(cell, f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
    assert names["prediction"].objects, "the tutorial has to show an object"
    assert names["prediction"]._repr_png_().startswith(b"\x89PNG")
    assert 0.5 < names["result"].numbers["exact"]["aupr_sum"] <= 1
    assert all(set(np.unique(label)) == {0, 1, 255} for label in names["labels"])
    assert "AUPR" in capsys.readouterr().out
