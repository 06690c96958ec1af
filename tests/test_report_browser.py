"""The report in a browser: contours move with the slider, fast, without a network. Needs playwright and Chromium."""

import base64
import shutil

import numpy as np
import pytest

from test_report import drawn, picture, written  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
    api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, heard = browser.new_page(viewport={"width": 1300, "height": 900}), []
        page.on("console", lambda m: heard.append(m.text))
        page.on("pageerror", lambda e: heard.append(str(e)))
        page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.goto(f"file://{written[2]}")
        page.wait_for_selector("canvas[data-drawn-ms]")
        yield page, written[0], heard
        browser.close()


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
