"""Compiling on first use: where the machine code is kept, and what is said meanwhile."""

import logging
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.places import ROOT
from xenomask import jit

SOURCE = str(ROOT / "src")
MODULE = "from xenomask.jit import compiled\n\n@compiled()\ndef f(x):\n    return x + 1\n"


@pytest.mark.parametrize("asked", ["user's cache", "NUMBA_CACHE_DIR", "nowhere"])
def test_compiled__an_install_that_is_read_only_keeps_its_code_elsewhere(tmp_path, asked):
    (tmp_path / "mod.py").write_text(MODULE)
    (tmp_path / "__pycache__").touch()  # so that nothing can be kept beside the source, also for root
    home = "/dev/null" if asked == "nowhere" else str(tmp_path)
    own = {"XDG_CACHE_HOME": f"{home}/cache", "HOME": home, "PYTHONPATH": f"{SOURCE}:{tmp_path}"}
    own |= {"NUMBA_CACHE_DIR": str(tmp_path / "own")} if asked == "NUMBA_CACHE_DIR" else {}
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | own
    code = "import mod; print(mod.f(2), mod.f.stats.cache_path, sum(mod.f.stats.cache_hits.values()))"
    for hits in ("0", "0" if asked == "nowhere" else "1"):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stderr == ""
        value, folder, found = done.stdout.split()
        assert (value, found) == ("3", hits)
        kept = {"user's cache": f"{tmp_path}/cache/numba/", "NUMBA_CACHE_DIR": f"{tmp_path}/own/", "nowhere": "None"}
        assert folder.startswith(kept[asked])


class Compiles:
    """What stands for a kernel of numba's: its first call compiles for a while, or reads the cache slowly."""

    __module__, __name__ = "package.kernels", "run"

    def __init__(self, seconds: float, cached: bool = False, folder: str | None = "/cache"):
        self.seconds, self.cached, self.signatures = seconds, cached, []
        self.stats = SimpleNamespace(cache_path=folder, cache_misses={})

    def __call__(self, first: int, last: int, out: np.ndarray) -> None:
        if not self.cached:
            self.stats.cache_misses["f"] = 1
        time.sleep(self.seconds)  # compiles, or reads the cache
        self.signatures.append("f")
        out[first:last] = 1


@pytest.mark.parametrize("threads", [1, 2])
def test_in_threads__says_what_is_waited_for_once_and_only_while_it_compiles(threads, caplog, monkeypatch):
    monkeypatch.setattr(jit, "PATIENCE", 0.05)

    def said(kernel: Compiles) -> list[str]:
        caplog.clear()
        out = np.zeros(4)
        with caplog.at_level(logging.WARNING):
            jit.in_threads(kernel, threads, 4, [], [out])
        assert out.all()
        return [r.getMessage() for r in caplog.records]

    slow = Compiles(0.3)
    text = "compiling package.kernels.run for this processor, once, as it is kept in /cache: about 10 s"
    assert said(slow) == [text] and said(slow) == []
    assert said(Compiles(0.3, folder=None)) == [text.replace("once, as it is kept in /cache", "at each start, as no "
                                                             "folder can be written to")]  # fmt: skip
    assert said(Compiles(0.3, cached=True)) == [] and said(Compiles(0)) == []
