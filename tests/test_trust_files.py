"""A folder that is replaced is there at every moment; what killed writers leave is removed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import xenomask.files
from xenomask.files import atomic, remove_litter


def folder(path: Path, text: str) -> Path:
    with atomic(path) as part:
        part.mkdir()
        (part / "x").write_text(text)
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux swaps two names in one step")
def test_atomic__a_replaced_folder_is_there_whole_at_every_kill(tmp_path):
    code = f"""
from pathlib import Path
from xenomask.files import atomic
i = 0
while True:
    i += 1
    with atomic(Path({str(tmp_path / "d")!r})) as part:
        part.mkdir()
        (part / "x").write_text(str(i))
"""
    folder(tmp_path / "d", "0")
    for wait in (0.0, 0.003, 0.007, 0.013, 0.02):
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            while (tmp_path / "d/x").read_text() == "0":
                time.sleep(0.01)
            deadline = time.monotonic() + 0.05 + wait
            while time.monotonic() < deadline:
                assert (tmp_path / "d").is_dir()  # no reader finds it gone
            process.kill()
        assert int((tmp_path / "d/x").read_text()) > 0
        folder(tmp_path / "d", "0")
    remove_litter(tmp_path, older=0)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_atomic__where_names_cannot_be_swapped_the_next_run_puts_the_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(xenomask.files, "_exchanged", lambda a, b: False)
    folder(tmp_path / "d", "old")
    rename, done = Path.rename, []

    def killed(self, target):
        if done:
            raise KeyboardInterrupt  # between the two renames
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        folder(tmp_path / "d", "new")
    monkeypatch.setattr(Path, "rename", rename)
    assert not (tmp_path / "d").exists()
    remove_litter(tmp_path, "e", older=0)  # of another name
    assert not (tmp_path / "d").exists()
    remove_litter(tmp_path, "d", older=0)
    assert (tmp_path / "d/x").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["d"]
    folder(tmp_path / "d", "new")
    assert (tmp_path / "d/x").read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["d"]


def test_litter__of_others_and_of_a_run_at_work_stays(tmp_path):
    now = time.time()
    for name, age in (
        (".01234567.part.a.mp4", 100_000), (".01234567.part.b.mp4", 10), (".mine.part.x", 100_000),
        (".0123abcd.part.", 100_000), (".notes.old", 100_000),
    ):  # fmt: skip
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / ".89abcdef.part.d").mkdir()
    (tmp_path / ".89abcdef.part.d/new").touch()  # still written into
    os.utime(tmp_path / ".89abcdef.part.d", (now - 100_000, now - 100_000))
    remove_litter(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        ".0123abcd.part.", ".01234567.part.b.mp4", ".89abcdef.part.d", ".mine.part.x", ".notes.old",
    }  # fmt: skip
