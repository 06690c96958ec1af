"""`xenomask report`: the page holds evaluate's numbers, shows names as text, and needs nothing from outside."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails, run
from helpers.report_pages import Page, noisy, picture
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.report.html import policy_hash
from xenomask.report.objects import boxed
from xenomask.report.report import THUMB, embedded_size, thumbnail
from xenomask.report.slider import jpeg
from xenomask.store import read_map, write_map
from xenomask.types import ScoreMap


def rows_of(page: Page, table: str) -> list[list[tuple[str, str]]]:
    """A table's body as (first text, data-value) cells."""
    start = next(i for i, e in enumerate(page.found) if e[0] == "table" and e[1].get("id") == table)
    rows = []
    for tag, attributes, text in page.found[start + 1 :]:
        if tag == "table":
            break
        if tag == "tbody":
            rows = []
        elif tag == "tr":
            rows.append([])
        elif tag in ("th", "td") and rows:
            rows[-1].append((text.split("(")[0], attributes.get("data-value", "")))
    return rows


def test_report__numbers_are_those_of_evaluate_json(drawn, tmp_path, capsys):
    data = ("--dataset", "folder", "--root", drawn, "--track", "obstacle", "--resamples", 40, "--seed", 5)
    code, said, err = run(capsys, "report", drawn / "good", drawn / "poor", *data, "--out", tmp_path / "r.html")
    assert code == 0 and "r.html" in said.replace("\n", ""), err
    page = Page((tmp_path / "r.html").read_text("utf-8"))
    for i, name in enumerate(("good", "poor")):
        run(capsys, "evaluate", "--maps", drawn / name, *data, "--json", tmp_path / "n.json")
        numbers = json.loads((tmp_path / "n.json").read_text())
        assert page.data["methods"][i]["evaluate"] == numbers
        for t, convention in enumerate(("exact", "official", "components")):
            row = rows_of(page, f"numbers-{t}")[i]
            heads = [e[2] for e in page.of("caption")]
            assert row[0][0] == name and len(heads) == 6
            names = ["aupr_sum", "aupr_trapz", "auroc", "fpr95", "tpr_fpr5", "best_f1", "best_f1_threshold"]
            if convention == "components":
                names = ["sIoU_gt", "sIoU_pred", "prec_pred", "f1_mean", "f1_25", "f1_50", "f1_75"]
            assert [float(v) for _, v in row[1:]] == [numbers[convention][k] for k in names]
            assert [text for text, _ in row[1:]] == [f"{numbers[convention][k]:.4f}" for k in names]


def test_report__every_slider_step_is_exact_at_full_resolution(drawn, written):
    page, _, _ = written
    data = open_dataset("folder", drawn)
    value = np.concatenate([read_map(drawn / "poor" / f"{f.id}.hdf5").ravel() for f in data.frames]).astype(float)
    label = np.concatenate([data.label(f).ravel() for f in data.frames])
    levels = page.data["methods"][1]["levels"]
    assert 50 < len(levels["threshold"]) <= 255 and len(levels["colours"]) == len(levels["threshold"]) + 1
    for k in range(0, len(levels["threshold"]), 7):
        sure = value >= levels["threshold"][k]
        tp, fp = (sure & (label == 1)).sum(), (sure & (label == 0)).sum()
        assert levels["tpr"][k] == pytest.approx(tp / (label == 1).sum(), abs=1e-12)
        assert levels["fpr"][k] == pytest.approx(fp / (label == 0).sum(), abs=1e-12)
        assert levels["precision"][k] == pytest.approx(tp / (tp + fp), abs=1e-12)
    best = levels["points"]["best F1"]
    assert levels["f1"][best] == max(levels["f1"]) == page.data["methods"][1]["evaluate"]["exact"]["best_f1"]


def test_report__an_embedded_map_says_of_each_pixel_what_the_stored_one_does(drawn, written):
    page, _, _ = written
    data, frames = open_dataset("folder", drawn), page.data["frames"]
    by_id = {f.id: f for f in data.frames}
    for i, frame in enumerate(frames):
        assert (frame["height"], frame["width"]) == (90, 160)  # small enough to go in as it is
        assert (picture(page, f"label-{i}") == data.label(by_id[frame["id"]])).all()
        value, level = read_map(drawn / "good" / f"{frame['id']}.hdf5"), picture(page, f"map-0-{i}")
        for k, t in enumerate(page.data["methods"][0]["levels"]["threshold"]):
            assert ((level >= k + 1) == (value >= np.float16(t))).all()


def test_report__worst_frames_come_first_and_counts_of_components_are_evaluates(written):
    page, numbers, _ = written
    own = [float(row[2][1] or "nan") for row in rows_of(page, "frame-table")]
    assert own == sorted(own) and len(own) == 4
    assert [f["id"] for f in page.data["frames"]] == [r[0][0] for r in rows_of(page, "frame-table")]
    totals = [int(re.search(r": (\d+)", e[2])[1]) for e in page.of("h4")]  # pyright: ignore
    expected = [n["components"][f"{kind}_50"] for n in numbers for kind in ("fn", "fp", "tp")]
    assert totals == expected and sum(totals) > 4


def test_report__needs_nothing_from_outside_and_lets_nothing_foreign_run(written):
    page, _, out = written
    for tag, attributes, _ in page.found:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "srcset", "action"):
            if address := attributes.get(name):
                assert address.startswith(("data:", "#")), address[:60]
        assert not [k for k in attributes if k.startswith("on") or k == "style"]
    policy = page.of("meta", **{"http-equiv": "Content-Security-Policy"})[0][1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    running = [e for e in page.of("script") if "type" not in e[1]]
    assert len(running) == 1 and policy_hash(running[0][2]) in policy and policy_hash(page.of("style")[0][2]) in policy
    assert "url(" not in page.of("style")[0][2] and "http" not in running[0][2]
    assert out.stat().st_size < 2e6


def test_report__is_labelled_for_those_who_do_not_see_it(written):
    page, _, _ = written
    assert page.of("html")[0][1]["lang"] == "en" and page.of("main") and page.of("title")[0][2]
    assert all(e[1].get("alt") for e in page.of("img"))
    ids = [e[1]["id"] for e in page.found if "id" in e[1]]
    assert len(ids) == len(set(ids))
    labels = {e[1]["for"] for e in page.of("label") if "for" in e[1]}
    assert {e[1]["id"] for e in page.of("input", type="range")} <= labels
    assert all(e[1].get("aria-label") for e in page.of("canvas"))
    assert all(e[2].strip() for e in page.of("button"))
    levels = [int(e[0][1]) for e in page.found if re.fullmatch("h[1-6]", e[0])]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


def test_report__foreign_names_are_text(tmp_path, capsys):
    evil = "<script>alert(1)<!--&"
    root = write_scenes(tmp_path / "r", "folder", 2, size=(64, 96))
    for part, ending in (("images", ".jpg"), ("labels_masks", ".png")):
        (root / part / f"0000{ending}").rename(root / part / f"{evil}{ending}")
    maps = noisy(root, '_$x$"><img src=x onerror=alert(2)>', 0.2, 0)
    (maps / "manifest.json").write_text(json.dumps({"name": "</pre></script><script>alert(3)</script>"}))
    code, _, err = run(
        capsys, "report", maps, "--dataset", "folder", "--root", root, "--out", tmp_path / "r.html", "--resamples", 0
    )
    assert code == 0, err
    page = Page((tmp_path / "r.html").read_text("utf-8"))
    assert len([e for e in page.of("script") if "type" not in e[1]]) == 1
    assert not any("onerror" in e[1] for e in page.found) and not page.open
    assert evil in {f["id"] for f in page.data["frames"]} and page.of("option")[0][2] in {evil, "0001"}
    assert page.data["methods"][0]["name"] == maps.name and maps.name in page.of("h1")[0][2]
    assert "</pre></script><script>alert(3)</script>" in page.of("pre")[0][2]


def test_report__labels_without_photos_and_frames_without_a_label(drawn, tmp_path, capsys):
    root = tmp_path / "bare"
    (root / "labels_masks").mkdir(parents=True)
    for path in (drawn / "labels_masks").iterdir():
        (root / "labels_masks" / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.full((90, 160), 255, np.uint8)).save(root / "labels_masks" / "0003.png")  # wholly void
    command = ("report", drawn / "good", "--dataset", "folder", "--root", root, "--resamples", 0, "--images", 3)
    code, _, err = run(capsys, *command, "--out", tmp_path / "r.html")
    assert code == 0, err
    page = Page((tmp_path / "r.html").read_text("utf-8"))
    assert [f["photo"] for f in page.data["frames"]] == [False] * 3
    assert [r[0][0] for r in rows_of(page, "frame-table")][-1] == "0003" and "wholly void" in page.of("li")[0][2]


def test_report__refuses_what_evaluate_refuses_and_damaged_manifests(drawn, tmp_path, capsys):
    command = ("--dataset", "folder", "--root", drawn, "--out", tmp_path / "r.html")
    assert "named twice" in fails(capsys, "report", drawn / "good", drawn / "good", *command)
    assert "no folder of maps" in fails(capsys, "report", tmp_path / "none", *command)
    (tmp_path / "m").mkdir()
    for f in (drawn / "poor").iterdir():
        (tmp_path / "m" / f.name).write_bytes(f.read_bytes())
    for text, error in (("[1]", "holds a list, not an object"), ('{"scale": [1, 0]}', "its scale is [1, 0]"),
                        ('{"scale": "ab"}', "its scale is ab"), ("{", "delete it together with its maps")):  # fmt: skip
        (tmp_path / "m" / "manifest.json").write_text(text)
        assert error in fails(capsys, "report", tmp_path / "m", *command)
    assert not (tmp_path / "r.html").exists()


def copied(folder: Path, out: Path) -> Path:
    out.mkdir()
    for f in folder.iterdir():
        (out / f.name).write_bytes(f.read_bytes())
    return out


def test_report__every_folders_frames_are_checked_before_the_first_is_evaluated(drawn, tmp_path, capsys, monkeypatch):
    import xenomask.report.report as report

    monkeypatch.setattr(report, "evaluated", lambda *a, **k: pytest.fail("evaluated first"))
    short, foreign = copied(drawn / "poor", tmp_path / "short"), copied(drawn / "poor", tmp_path / "foreign")
    (short / "0002.hdf5").unlink()
    (foreign / "9999.hdf5").write_bytes((foreign / "0000.hdf5").read_bytes())
    command = ("--dataset", "folder", "--root", drawn, "--out", tmp_path / "r.html")
    assert "no map in" in fails(capsys, "report", drawn / "good", short, *command)
    assert "belong to no frame" in fails(capsys, "report", drawn / "good", foreign, *command)
    again = drawn / "poor" / ".." / "good"
    assert "named twice" in fails(capsys, "report", drawn / "good", again, *command)


def test_report__a_folder_is_never_replaced_by_the_page(drawn, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("years of work")
    command = ("--dataset", "folder", "--root", drawn, "--resamples", 0)
    for out in ("--out", tmp_path / "mine"), ("--out", drawn / "labels_masks" / "0000.png" / "r.html"):
        assert "cannot write" in fails(capsys, "report", drawn / "good", *command, *out)
    said = fails(capsys, "evaluate", "--maps", drawn / "good", *command, "--json", tmp_path / "mine")
    assert "it is a folder" in said and (tmp_path / "mine" / "notes.txt").read_text() == "years of work"


@pytest.mark.slow
def test_report__constant_maps_and_one_frame_and_no_pictures(drawn, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    for f in (drawn / "good").glob("*.hdf5"):
        write_map(flat / f.name, ScoreMap(np.full((90, 160), 100, np.float32), "flat"))
    common = ("--dataset", "folder", "--root", drawn, "--resamples", 20, "--out", tmp_path / "r.html")
    for images in (4, 0):
        code, _, err = run(capsys, "report", flat, drawn / "good", *common, "--images", images)
        assert code == 0, err
        page = Page((tmp_path / "r.html").read_text("utf-8"))
        assert page.data["methods"][0]["levels"]["threshold"] == [100] and len(page.data["frames"]) == images
        assert page.data["methods"][0]["evaluate"]["exact"]["auroc"] == 0.5
    one = tmp_path / "one"
    for part, name in (("images", "0001.jpg"), ("labels_masks", "0001.png"), ("good", "0001.hdf5")):
        (one / part).mkdir(parents=True)
        (one / part / name).write_bytes((drawn / part / name).read_bytes())
    code, _, err = run(capsys, "report", one / "good", *common[:3], one, *common[4:])
    assert code == 0, err
    assert len(Page((tmp_path / "r.html").read_text("utf-8")).data["frames"]) == 1


def test_report__frames_without_any_anomaly_are_one_line(drawn, tmp_path, capsys):
    root = tmp_path / "clean"
    copied(drawn / "images", (root.mkdir(), root / "images")[1])
    (root / "labels_masks").mkdir()
    for f in (drawn / "labels_masks").iterdir():
        Image.fromarray(np.zeros((90, 160), np.uint8)).save(root / "labels_masks" / f.name)
    said = fails(capsys, "report", drawn / "good", "--dataset", "folder", "--root", root, "--out", tmp_path / "r.html")
    assert "no pixel is labelled anomaly" in said


def test_manifest__nested_deeper_than_anyone_writes_is_refused(drawn, tmp_path, capsys):
    maps = copied(drawn / "good", tmp_path / "deep")
    command = ("--dataset", "folder", "--root", drawn, "--resamples", 0, "--out", tmp_path / "r.html")
    for depth, said in ((99, None), (100, "nested too deeply"), (900, "nested too deeply")):
        (maps / "manifest.json").write_text('{"x": ' + "[" * depth + "]" * depth + "}")
        if said:
            assert said in fails(capsys, "report", maps, *command)
        else:
            assert run(capsys, "report", maps, *command)[0] == 0


def test_diagrams__names_that_become_alike_get_a_file_each(drawn, tmp_path, capsys):
    maps = [copied(drawn / n, tmp_path / name) for n, name in (("good", "a b"), ("poor", "a_b"))]
    command = ("--dataset", "folder", "--root", drawn, "--resamples", 0, "--out", tmp_path / "d")
    assert run(capsys, "diagrams", *maps, *command)[0] == 0
    assert {f.name for f in (tmp_path / "d").glob("histogram*")} == {"histogram_a_b_1.svg", "histogram_a_b_2.svg"}
    maps = [*maps, copied(drawn / "good", tmp_path / "a_b_1")]
    command = (*command[:-1], tmp_path / "e")
    assert run(capsys, "diagrams", *maps, *command)[0] == 0
    assert len(list((tmp_path / "e").glob("histogram*"))) == 3


def test_embedded_size__forty_noisy_images_stay_below_thirty_megabytes():
    for methods in (1, 2, 4):
        for size in ((720, 1280), (1080, 1920), (1024, 2048)):
            h, w = embedded_size(size, 40, methods)
            noise = np.random.default_rng(0).integers(0, 256, (h, w), np.uint8)
            one = len(cv2.imencode(".png", noise)[1])
            assert 40 * methods * one * 4 / 3 < 27e6
            assert abs(h / w - size[0] / size[1]) < 0.01


def test_embedded_size__pictures_of_many_frames_are_small():
    """300 frames of two methods: bytes at the rates that its docstring names, with pictures and thumbs as they are."""
    h, w = embedded_size((360, 640), 300, 2)
    photo = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    value = photo[..., 0].astype(np.float16)
    boxes = len(boxed(value, photo, (0, 255), 300, None, (), w))
    thumb = len(jpeg(thumbnail(value, photo, (0, 255), 300, min(THUMB, w)), 75))
    assert 300 * (2 * (h * w + boxes + thumb) + h * w) * 4 / 3 < 30e6
