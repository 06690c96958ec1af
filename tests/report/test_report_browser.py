"""The report in a browser: its numbers are evaluate's, contours move fast. Needs playwright and Chromium."""

import base64
import json

import numpy as np
import pytest

from helpers.browser import chromium
from helpers.cli import run
from helpers.report_pages import noisy, picture
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes

PIXELS = """(id) => {
  const seen = document.getElementById(id), c = document.createElement("canvas");
  Object.assign(c, { width: seen.width, height: seen.height });
  const context = c.getContext("2d", { willReadFrequently: true });
  context.drawImage(seen, 0, 0);
  const d = context.getImageData(0, 0, c.width, c.height);
  let s = "";
  for (const v of d.data) s += String.fromCharCode(v);
  return [d.width, d.height, btoa(s)];
}"""


@pytest.fixture(scope="module")
def tab(written):  # noqa: F811
    """The page, opened; yields (browser page, parsed page, what it said or asked for)."""
    with chromium() as browser:
        page, heard = browser.new_page(viewport={"width": 1300, "height": 900}), []
        page.on("console", lambda m: heard.append(m.text))
        page.on("pageerror", lambda e: heard.append(str(e)))
        page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.goto(f"file://{written[2]}")
        page.wait_for_selector("canvas[data-drawn-ms]")
        yield page, written[0], heard


TABLE = """(id) => [...document.getElementById(id).tBodies[0].rows].map((row) => [...row.cells].map((c) => [
  [...c.childNodes].find((n) => n.nodeName === "#text" || n.nodeName === "BUTTON").textContent,
  c.querySelector("small")?.textContent ?? ""]))"""


def evaluated(capsys, maps, root, tmp_path, *options) -> dict:
    """What `evaluate --json` says."""
    data = ("--dataset", "folder", "--root", root, "--track", "obstacle", *options)
    code, _, err = run(capsys, "evaluate", "--maps", maps, *data, "--json", tmp_path / "n.json")
    assert code == 0, err
    return json.loads((tmp_path / "n.json").read_text())


def test_tables__show_every_number_and_interval_of_evaluate_json(tab, drawn, tmp_path, capsys):  # noqa: F811
    page = tab[0]
    found = [evaluated(capsys, drawn / n, drawn, tmp_path, "--resamples", 50, "--seed", 3) for n in ("good", "poor")]
    pixels = ["aupr_sum", "aupr_trapz", "auroc", "fpr95", "tpr_fpr5", "best_f1", "best_f1_threshold"]
    components = ["sIoU_gt", "sIoU_pred", "prec_pred", "f1_mean", "f1_25", "f1_50", "f1_75"]
    spans = 0
    for t, convention in enumerate(("exact", "official", "components")):
        for row, numbers, name in zip(page.evaluate(TABLE, f"numbers-{t}"), found, ("good", "poor"), strict=True):
            assert row[0] == [name, ""]
            keys = components if convention == "components" else pixels
            for (text, note), key in zip(row[1:], keys, strict=True):
                assert text == f"{numbers[convention][key]:.4f}"
                span = numbers["intervals"][convention].get(key)
                assert note == (f"({span[0]:.3f} .. {span[1]:.3f})" if span else ""), (convention, key)
                spans += bool(span)
    assert spans > 30


def test_frame_table__is_what_evaluate_says_of_each_frame_alone_and_the_worst_stands_first(
    tab, drawn, tmp_path, capsys  # noqa: F811
):  # fmt: skip
    rows = tab[0].evaluate(TABLE, "frame-table")
    for frame, row in ((r[0][0], [text for text, _ in r[1:]]) for r in rows):
        alone = tmp_path / frame
        for part, ending in (("images", ".jpg"), ("labels_masks", ".png")):
            (alone / part).mkdir(parents=True)
            (alone / part / f"{frame}{ending}").write_bytes((drawn / part / f"{frame}{ending}").read_bytes())
        expected = []
        for name in ("good", "poor"):
            (alone / name).mkdir()
            (alone / name / f"{frame}.hdf5").write_bytes((drawn / name / f"{frame}.hdf5").read_bytes())
            exact = evaluated(capsys, alone / name, alone, tmp_path, "--resamples", 0)["exact"]
            expected += [f"{exact[k]:.4f}" for k in ("aupr_sum", "fpr95", "best_f1")]
        assert row == [f"{100 * exact['prevalence']:.2f}", *expected]
    worst = [float(r[2][0]) for r in rows]
    assert worst == sorted(worst) and tab[0].inner_text("#frame-table tbody tr:first-child button") == rows[0][0][0]
    assert rows[0][0][0] == tab[1].data["frames"][0]["id"] in tab[0].inner_text("#frame-numbers")


def test_tables__sort_by_click_and_by_key_both_ways(tab):
    page, _, heard = tab
    for name in ("numbers-0", "numbers-1", "numbers-2", "frame-table"):
        before = page.evaluate(TABLE, name)
        heads = page.locator(f"#{name} thead tr:last-child button")
        for i in range(heads.count()):
            orders = []
            for work in (lambda b: b.click(), lambda b: (b.focus(), page.keyboard.press("Space"))):
                work(heads.nth(i))
                sort = page.get_attribute(f"#{name} thead tr:last-child th:nth-child({i + 1})", "aria-sort")
                column = [row[i][0] for row in page.evaluate(TABLE, name)]
                values = [float(c) for c in column] if i else column
                assert values == sorted(values, reverse=sort == "descending"), (name, i, sort)
                orders.append(sort)
            assert orders == ["ascending", "descending"]
        assert sorted(page.evaluate(TABLE, name)) == sorted(before)  # rows move whole
    page.click("#frame-table thead tr:last-child th:nth-child(3) button")  # as it was
    assert not heard


@pytest.mark.parametrize("width", [1300, 390])
def test_page__axe_finds_nothing_and_nothing_runs_over_the_edge(tab, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page, _, _ = tab
    page.set_viewport_size({"width": width, "height": 900})
    found = axe.Axe().run(page).response
    assert [(v["id"], [n["html"][:90] for n in v["nodes"]]) for v in found["violations"]] == []
    assert len(found["passes"]) > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1300, "height": 900})


def shown(page, canvas: str) -> np.ndarray:
    w, h, text = page.evaluate(PIXELS, canvas)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(h, w, 4)[..., :3]


def move(page, slider: str, k: int) -> None:
    page.eval_on_selector(f"#{slider}", f"e => {{ e.value = {k}; e.dispatchEvent(new Event('input')); }}")


def test_slider__draws_the_rim_of_the_embedded_map_at_every_step_in_a_tenth_of_a_second(tab):
    page, parsed, heard = tab
    level, last = picture(parsed, "map-1-0"), len(parsed.data["methods"][1]["levels"]["threshold"]) - 1
    label = picture(parsed, "label-0")
    for k in range(5, last, 29):
        move(page, "slider-1", k)
        inside = np.pad(level >= k + 1, 1, constant_values=True)
        core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        rim = (level >= k + 1) & ~core
        white = (shown(page, "canvas-1") == 255).all(-1)
        assert (white == rim).mean() > 0.999, k  # a map's lightest colour is not white
        assert float(page.get_attribute("#canvas-1", "data-drawn-ms")) < 100
        assert f"{parsed.data['methods'][1]['levels']['tpr'][k]:.4f}" in page.inner_text("#said-1")
    assert not heard and (label == 1).any()


def test_page__is_worked_by_the_keyboard_alone(tab):
    page, parsed, heard = tab
    page.focus("#slider-0")
    before = page.input_value("#slider-0")
    page.keyboard.press("ArrowRight")
    assert int(page.input_value("#slider-0")) == int(before) + 1
    levels, k = parsed.data["methods"][0]["levels"], int(before) + 1
    assert f"TPR {levels['tpr'][k]:.4f}, FPR {levels['fpr'][k]:.4f}" in page.inner_text("#said-0")
    assert page.get_attribute("#slider-0", "aria-valuetext") == page.inner_text("#said-0")
    for key, end in (("Home", "0"), ("End", page.get_attribute("#slider-0", "max"))):
        page.keyboard.press(key)
        assert page.input_value("#slider-0") == end
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # best F1
    assert int(page.input_value("#slider-0")) == levels["points"]["best F1"]
    page.focus("#next")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('frame-numbers').textContent.includes('2 of 4')")
    page.focus("#numbers-0 thead th:nth-child(2) button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#numbers-0 thead th:nth-child(2)", "aria-sort") == "ascending"
    column = page.eval_on_selector_all("#numbers-0 tbody td:nth-child(2)", "a => a.map(e => Number(e.dataset.value))")
    assert column == sorted(column) and not heard


def test_page__shows_the_agreement_of_both_sliders(tab):
    page, parsed, _ = tab
    page.select_option("#frame", "1")
    page.wait_for_function("document.getElementById('frame-numbers').textContent.includes('2 of 4')")
    for method, k in ((0, 60), (1, 40)):
        move(page, f"slider-{method}", k)
    votes = (picture(parsed, "map-0-1") >= 61).astype(int) + (picture(parsed, "map-1-1") >= 41)
    plain = picture(parsed, "label-1") == 0
    found = shown(page, "canvas-agreement")
    for n, colour in enumerate(((30, 30, 34), (230, 159, 0), (240, 240, 240))):
        assert (found[plain & (votes == n)] == colour).all()


def test_print__holds_all_frames_and_manifests(tab, tmp_path):
    page, _, heard = tab
    page.pdf(path=tmp_path / "r.pdf", format="A4")
    assert (tmp_path / "r.pdf").stat().st_size > 50_000
    assert page.eval_on_selector_all("details", "a => a.every(e => e.open)") and not heard


def test_page__foreign_names_run_nothing(tab, tmp_path):
    """Titles, frames, folders and manifests that are scripts: the browser shows them and runs none."""
    from xenomask.report.report import write_report

    page, heard = tab[0].context.browser.new_page(), []
    evil = "<img src=x onerror=alert(1)><script>alert(2)<!--"  # without a slash: also a file's name
    root = write_scenes(tmp_path / "r", "folder", 2, size=(64, 96))
    for part, ending in (("images", ".jpg"), ("labels_masks", ".png")):
        (root / part / f"0000{ending}").rename(root / part / f"{evil}{ending}")
    maps = noisy(root, f"'\"{evil}", 0.2, 0)
    (maps / "manifest.json").write_text(json.dumps({"name": "</pre></script><script>alert(3)</script>"}))
    write_report([maps], open_dataset("folder", root), tmp_path / "r.html", "obstacle", resamples=0)
    page.on("dialog", lambda d: (heard.append(d.message), d.dismiss()))
    page.on("console", lambda m: heard.append(m.text))
    page.on("pageerror", lambda e: heard.append(str(e)))
    page.goto(f"file://{tmp_path}/r.html")
    page.wait_for_selector("canvas[data-drawn-ms]")
    page.click("#next")
    page.wait_for_function("document.getElementById('frame-numbers').textContent.includes('2 of 2')")
    texts = page.inner_text("#frame-numbers") + page.inner_text("#frame-table")
    assert evil in texts and evil in page.inner_text("h1") and not heard
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    page.close()
