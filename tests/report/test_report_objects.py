"""The report's anomalous objects are those of `detect`, in its words."""

import base64
import io
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from helpers.browser import chromium
from helpers.cli import fails, run, write_maps
from helpers.report_pages import Page
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.detector import Detector
from xenomask.detector.folder import store_region, store_threshold
from xenomask.objects.ignore import parse_region
from xenomask.objects.objects import decode_rle
from xenomask.plots.heatmap import BOX
from xenomask.predict.photos import score_dataset
from xenomask.store.classes import read_classes, write_classes
from xenomask.types import CITYSCAPES_CLASSES


@pytest.fixture(scope="module")
def scored(tiny_detector, tmp_path_factory):
    """Two synthetic scenes, a detector with threshold and ignore region, and the folder of its maps."""
    folder = tmp_path_factory.mktemp("scored")
    root, own = write_scenes(folder / "data", "folder", 2, size=(90, 160)), folder / "own"
    shutil.copytree(tiny_detector, own)
    store_threshold(own, "default", 0.7, {})
    store_region(own, parse_region("bottom:20%"))
    score_dataset(Detector.from_folder(own), open_dataset("folder", root), folder / "maps")
    (folder / "classes").mkdir()
    for k, path in enumerate(sorted((folder / "maps").glob("*.hdf5"))):
        predicted = np.random.default_rng(k).choice([0, 11, 18], (90, 160), p=[0.5, 0.3, 0.2]).astype(np.uint8)
        write_classes(folder / "classes" / f"{path.stem}.png", predicted)
    return folder


@pytest.mark.parametrize("options", [(), ("--threshold", 0.95), ("--ignore", "left:30%")])
def test_objects__are_those_of_detect_json(scored, tmp_path, capsys, options):
    data = ("--dataset", "folder", "--root", scored / "data", "--resamples", 0, "--classes", scored / "classes")
    code, _, err = run(capsys, "report", scored / "maps", *data, *options, "--out", tmp_path / "r.html")
    assert code == 0, err
    page = Page((tmp_path / "r.html").read_text("utf-8"))
    command = ("detect", scored / "data" / "images", "--detector", scored / "own", "--out", tmp_path / "out")
    code, said, err = run(capsys, *command, *options, "--json", tmp_path / "n.json")
    assert code == 0, err
    numbers, found = json.loads((tmp_path / "n.json").read_text()), page.data["methods"][0]["objects"]
    assert found["threshold"] == numbers["threshold"] and sum(len(p["objects"]) for p in found["photos"]) > 1
    kept = ("box", "area", "share", "score", "peak")
    for row, photo in zip(found["photos"], numbers["photos"], strict=True):
        predicted = read_classes(scored / "classes", row["photo"])
        for told, o in zip(row["objects"], photo["objects"], strict=True):
            [(number, most)] = Counter(predicted[decode_rle(o["rle"])].tolist()).most_common(1)
            named = {"class": CITYSCAPES_CLASSES[number], "class_share": pytest.approx(most / o["area"])}
            assert told == {k: o[k] for k in kept} | named
    captions = [
        re.sub(r"^\S+: |; predicted as .*", "", e[2]) for e in page.of("figcaption") if "anomalous object" in e[2]
    ]
    printed = re.sub(r"; nearest class: .*", "", said)
    assert captions and all(c in printed for c in captions)


def test_objects__threshold_without_a_detector_and_damaged_ones(scored, tmp_path, capsys):
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in (scored / "maps").glob("*.hdf5"):
        (maps / path.name).write_bytes(path.read_bytes())
    command = ("report", maps, "--dataset", "folder", "--root", scored / "data", "--resamples", 0)
    command = (*command, "--out", tmp_path / "r.html")
    assert run(capsys, *command)[0] == 0
    text = (tmp_path / "r.html").read_text()
    assert "of best F1, chosen on these frames" in text and "The maps alone name no class" in text
    (tmp_path / "classes").mkdir()
    write_classes(tmp_path / "classes" / "0.png", np.full((90, 160), 19, np.uint8))
    given = ("--classes", tmp_path / "classes")
    assert "no predicted classes of" in fails(capsys, *command, *given)
    assert "2 folders of predicted classes for 1 folders" in fails(capsys, *command, *given, *given)
    for path in maps.glob("*.hdf5"):
        write_classes(tmp_path / "classes" / f"{path.stem}.png", np.full((90, 160), 19, np.uint8))
    assert "hold 19: they are Cityscapes train ids" in fails(capsys, *command, *given)
    for text, said in (('{"threshold": "x"}', "threshold 'x' is not a finite number"),
                       ('{"ignore": {}}', "its ignore region cannot be read")):  # fmt: skip
        (maps / "manifest.json").write_text(text)
        assert said in fails(capsys, *command)
    assert "2 thresholds for 1 folders" in fails(capsys, *command, "--threshold", 1, "--threshold", 2)


@pytest.mark.slow
def test_objects__boxes_and_table_are_seen_in_a_browser(scored, tmp_path, capsys):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    with chromium() as browser:
        out, data = tmp_path / "r.html", ("--dataset", "folder", "--root", scored / "data", "--resamples", 0)
        assert run(capsys, "report", scored / "maps", *data, "--out", out)[0] == 0
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.goto(f"file://{out}")
        found = json.loads(page.text_content("#report-data") or "")["methods"][0]["objects"]
        pictures = page.locator("#objects figure img")
        assert pictures.count() == len(found["photos"]) == page.locator("#objects figcaption").count()
        rows = page.eval_on_selector_all("#objects-0 tbody tr", "a => a.map(r => [...r.cells].map(c => c.textContent))")
        assert len(rows) == sum(min(10, len(p["objects"])) for p in found["photos"])
        for photo in found["photos"]:
            for number, o in enumerate(photo["objects"][:10], 1):
                x, y, w, h = o["box"]
                assert [photo["photo"], str(number), f"{x}, {y}", f"{w}x{h}"] in [r[:4] for r in rows]
        frame = page.locator("#objects figcaption").first.inner_text().split(":")[0]
        x, y, w, _ = next(p["objects"][0]["box"] for p in found["photos"] if p["photo"] == frame)
        file = base64.b64decode((pictures.first.get_attribute("src") or "").partition("base64,")[2])
        edge = np.asarray(Image.open(io.BytesIO(file))).astype(int)[y, x : x + w]
        assert np.abs(edge - BOX).max(1).mean() < 90  # its box's upper edge, but for the number and JPEG
        assert axe.Axe().run(page).response["violations"] == []


def test_objects__of_masks_are_what_best_f1_counts(tmp_path, capsys):
    """Maps of 0 and 1: score > 1 would find nothing where all is found."""
    label = np.zeros((90, 160), np.uint8)
    label[20:50, 30:80] = 1
    (tmp_path / "labels_masks").mkdir()
    Image.fromarray(label).save(tmp_path / "labels_masks/a.png")
    maps = write_maps(tmp_path / "maps", a=label.astype(np.float16))
    words = ("--dataset", "folder", "--root", tmp_path, "--resamples", 0, "--out", tmp_path / "r.html")
    assert run(capsys, "report", maps, *words)[0] == 0
    (found,) = Page((tmp_path / "r.html").read_text("utf-8")).data["methods"][0]["objects"]["photos"]
    assert [(o["box"], o["area"]) for o in found["objects"]] == [([30, 20, 50, 30], 1500)]
