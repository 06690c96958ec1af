"""Names of files that are no plain text, output paths that are no files, and pictures of odd shapes."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails, run, write_maps
from xenomask.cli.common import out_console
from xenomask.datasets.synthetic import write_scenes
from xenomask.plots import contact_sheet, figure
from xenomask.plots.agreement import agreement_figure
from xenomask.plots.heatmap import fitted
from xenomask.report.report import thumbnail

ODD = os.fsdecode(b"pic\xff[night] :car: \\[b].jpg")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """No name breaks over two lines of a table, however long the tests' temporary folder is called (pytest-xdist's)."""
    monkeypatch.setattr(out_console, "_width", 1000)


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """Three synthetic scenes; one has a name that is no UTF-8, with brackets and colons, another one brackets."""
    root = write_scenes(tmp_path_factory.mktemp("odd"), "folder", 3, size=(64, 96))
    stem = ODD.removesuffix(".jpg")
    for new, path in zip((stem, "[red]b"), sorted((root / "images").iterdir()), strict=False):
        (label,) = (root / "labels_masks").glob(f"{path.stem}*.png")
        label.rename(label.with_name(f"{new}.png"))
        path.rename(path.with_name(f"{new}{path.suffix}"))
    return root


def shown(out: str) -> str:
    """A table's text without its lines and line ends."""
    return "".join(c for c in out if c.isascii() and not c.isspace())


@pytest.mark.slow
def test_all_commands__names_that_are_no_text(odd, tmp_path, capsys, tiny_detector, tiny_checkpoint):
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))  # others read the shared one
    data = ("--dataset", "folder", "--root", odd)
    photo = next(p for p in (odd / "images").iterdir() if p.stem == ODD.removesuffix(".jpg"))
    maps, other = tmp_path / "maps[a]", tmp_path / os.fsdecode(b"maps\xfe")
    for out, member in ((maps, "a"), (other, "b")):
        code, _, err = run(capsys, "score", *data, "--out", out, "--detector", tiny_detector, "--member", member)
        assert code == 0, err
    commands = [
        ("detect", photo, "--out", tmp_path / "d", "--detector", tiny_detector, "--json", tmp_path / "detect.json"),
        ("evaluate", "--maps", maps, *data, "--json", tmp_path / "evaluate.json"),
        ("heatmaps", "--maps", maps, *data, "--out", tmp_path / "h"),
        ("agreement", maps, other, *data, "--out", tmp_path / "a"),
        ("compare", maps, other, *data, "--json", tmp_path / "compare.json"),
        ("report", other, *data, "--out", tmp_path / "r.html"),
        ("diagrams", other, *data, "--out", tmp_path / "svg"),
        ("components", maps, "--threshold", 0.1, "--out", tmp_path / "c.json", "--png16", tmp_path / "png"),
        ("crossval", *data, "--detector", tiny_detector, "--choose", "weights", "--cache", tmp_path / "cache",
         "--json", tmp_path / "crossval.json"),
        ("queries", "outlier", "--checkpoint", checkpoint, *data, "--top-k", 2),
        ("queries", "sheet", "--checkpoint", checkpoint, *data, "--out", tmp_path / "q.html"),
        ("thresholds", "--maps", maps, *data, "--f1", "--json", tmp_path / "thresholds.json"),
        ("datasets", *data[2:], "--json", tmp_path / "datasets.json"),
    ]  # fmt: skip
    for words in commands:
        code, out, err = run(capsys, *words)
        assert code == 0, (words[0], err)
        assert "\ufffd" not in err or "Traceback" not in err
        if words[0] == "detect":
            flat = shown(out)
            assert "[night]" in flat and ":car:" in flat and "\\[b]" in flat
    for path in tmp_path.glob("*.json"):
        path.read_text("utf-8").encode("utf-8")
        json.loads(path.read_text("utf-8"))
        assert not re.search(r"(?<!\\)\\ud[89a-f]", path.read_text("utf-8"))  # no half of a character
    with (checkpoint / "query_analysis" / "outlier_iou.csv").open(encoding="utf-8", newline="") as f:
        assert len(next(csv.reader(f))) == 6


def test_messages__brackets_are_shown(tmp_path, capsys, tiny_detector):
    name = "[bold]no[/bold] [/x].jpg"
    assert name in fails(capsys, "detect", tmp_path / name, "--detector", tiny_detector, "--out", tmp_path / "o")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "pic[night].jpg")
    code, out, err = run(
        capsys, "detect", tmp_path / "pic[night].jpg", "--detector", tiny_detector, "--out", tmp_path / "o[/]"
    )
    assert code == 0 and "[night].jpg" in shown(out) and "o[/]" in shown(out), err


def test_messages__a_name_of_two_lines_is_one_line(tmp_path, capsys, tiny_detector):
    assert "a\ufffdb" in fails(
        capsys, "detect", tmp_path / "a\nb.jpg", "--detector", tiny_detector, "--out", tmp_path / "o"
    )


@pytest.mark.parametrize("where", [".", "", "..", "/", "folder", "pipe", "/dev/null"])
def test_json__a_path_that_is_no_file(tmp_path, capsys, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    write_maps(tmp_path / "x", a=np.zeros((2, 2), np.float16))
    for words in (("datasets",), ("doctor",), ("evaluate", "--maps", "x", "--dataset", "folder", "--root", "x")):
        assert "cannot write" in fails(capsys, *words, "--json", where)


@pytest.mark.parametrize("where", [".", "..", ""])
def test_out__a_path_without_a_name(tmp_path, capsys, monkeypatch, tiny_checkpoint, where):
    monkeypatch.chdir(tmp_path)
    assert "cannot write" in fails(
        capsys, "assemble", "--out", where, "--member", f"a={tiny_checkpoint}", "--score", "msp"
    )


# --- shapes ---

LONG = [(4000, 10), (10, 4000), (3000, 1), (1, 3000), (2, 2), (1, 1), (1500, 1600)]


@pytest.mark.parametrize("size", LONG)
def test_drawn_pictures__are_bounded(size, tmp_path):
    h, w = size
    value = (np.add.outer(np.arange(h) / h, np.arange(w) / w) / 2).astype(np.float32)
    image, label = np.repeat((value[..., None] * 255).astype(np.uint8), 3, 2), (value > 0.5).astype(np.uint8)
    for picture in (
        figure(image, value, (0, 1), title="\udcff", label=label, threshold=0.5),
        agreement_figure(image, label, ["a", "b"], title="\udcff", label=label),
    ):
        picture.savefig(tmp_path / "p.png")
        drawn = cv2.imread(str(tmp_path / "p.png"))
        assert drawn is not None and drawn.shape[0] <= 1600 and drawn.shape[1] <= 1500
    for small in (thumbnail(value, image, (0, 1), 0.5), contact_sheet([image] * 4, width=100)):
        assert small.shape[0] <= 600 and small.shape[1] <= 400


def test_contact_sheet__of_very_many_pictures_fits_a_jpeg():
    sheet = contact_sheet([np.zeros((40, 20, 3), np.uint8)] * 1000, width=100)
    assert max(sheet.shape[:2]) < 65_500
    assert fitted((10, 4000), (480, 480)) == (1, 480)


def test_detect__a_very_long_photo(tmp_path, capsys, tiny_detector):
    Image.fromarray(np.zeros((2000, 32, 3), np.uint8)).save(tmp_path / "long.png")
    code, _, err = run(capsys, "detect", tmp_path / "long.png", "--detector", tiny_detector, "--out", tmp_path / "o")
    assert code == 0, err
    drawn = cv2.imread(str(tmp_path / "o/long_heatmap.png"))
    assert drawn is not None and drawn.shape[0] <= 1600
