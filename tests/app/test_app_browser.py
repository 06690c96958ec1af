"""The web page in a browser, as its users have it: drop, look, slide, click, compare, download, leave."""

import json
import os
import re
import shutil
import subprocess
import time
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.browser import CHROMIUM, chromium
from helpers.cli import run
from helpers.pages import DOCS, fences
from helpers.served import Server, exif_photo, hostile
from helpers.video import write_clip
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector.folder import SHIPPED, store_region
from xenomask.objects.ignore import parse_region
from xenomask.plots.heatmap import BOX
from xenomask.store import read_map

pytestmark = pytest.mark.slow
WAIT = int(os.environ.get("XENOMASK_WAIT", 60_000))  # milliseconds, for machines that do much else
# The app with a line in a file for every photo that a network sees; it waits while a file "hold" exists.
COUNTED = """
import os, pathlib, sys, time
from xenomask.models.network import Network
looked, folder = Network.infer, pathlib.Path(os.environ["TMPDIR"])
def counted(self, photos):
    with (folder / "looks").open("a") as f:
        f.write("look\\n")
    while (folder / "hold").exists():
        time.sleep(0.05)
    return looked(self, photos)
Network.infer = counted
from xenomask.cli import main
sys.argv[0] = "xenomask"
main()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if find_spec("gradio") is None:
        pytest.skip("needs gradio: pip install 'xenomask[app]'")
    if CHROMIUM is None or find_spec("playwright") is None:
        pytest.skip("needs Chromium and the Python package playwright")
    second = tmp_path_factory.mktemp("second") / "other"
    shutil.copytree(SHIPPED / "nano", second)
    third = second.parent / "ignoring"
    shutil.copytree(second, third)
    store_region(third, parse_region("bottom:40%"))
    more = ("--detector", str(second), "--detector", str(third))
    running = Server("nano", tmp_path_factory.mktemp("app"), *more, start=["-c", COUNTED])
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(server):
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go: XENOMASK_SHOTS, to look at them."""
    folder = Path(os.environ.get("XENOMASK_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def tab(browser, server):
    """An opened page, which must ask nobody but the server and raise nothing."""
    page = opened(browser, server)
    yield page
    page.context.close()
    assert page.heard == []


def opened(browser, server, **options):
    context = browser.new_context(**{"viewport": {"width": 1300, "height": 900}, **options})
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.heard = []
    page.on("pageerror", lambda e: page.heard.append(str(e)))
    page.on("dialog", lambda d: (page.heard.append(d.message), d.dismiss()))
    own = (server.address, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else page.heard.append(r.url))
    page.goto(server.address)
    page.wait_for_selector("#upload input[type=file]", state="attached")
    return page


def looks(server) -> int:
    """How many photos networks have seen since the server's start."""
    path = server.folder / "looks"
    return len(path.read_text().splitlines()) if path.exists() else 0


def drop(page, path: Path) -> None:
    if page.locator("#upload button[aria-label='Clear']").count():
        page.click("#upload button[aria-label='Clear']")
    page.set_input_files("#upload input[type=file]", str(path))
    page.wait_for_selector(f"#upload a[download='{path.name}'], #upload [aria-label='{path.name}']")


def look(page, path: Path) -> dict:
    """Drops a photo, presses Look, waits for the answer; returns its JSON."""
    drop(page, path)
    before = source(page)
    page.click("#detect")
    changed(page, before)
    assert page.input_value("#said textarea").startswith(f"{path.name}, ")
    return numbers(page)


def source(page, picture: str = "overlay") -> str | None:
    found = page.locator(f"#{picture} img")
    return found.get_attribute("src") if found.count() else None


def changed(page, before: str | None, picture: str = "overlay") -> None:
    """Waits for another picture than that before."""
    page.wait_for_function(
        "([id, old]) => { const e = document.querySelector(`#${id} img`);"
        " return e && e.getAttribute('src') !== old && e.complete && e.naturalWidth > 0; }", arg=[picture, before],
    )  # fmt: skip


def pixels(page, picture: str = "overlay") -> np.ndarray:
    return np.asarray(Image.open(BytesIO(page.request.get(source(page, picture)).body())))


def download(page, name: str) -> bytes:
    return page.request.get(page.get_attribute(f"#downloads a[download='{name}']", "href")).body()


def numbers(page) -> dict:
    return json.loads(download(page, "components.json"))


def choose(page, dropdown: str, what: str) -> None:
    page.click(f"#{dropdown} input")
    page.locator(f'[data-testid=dropdown-option][aria-label="{what}"]').click()


def slide(page, slider: str, key: str, times: int = 1) -> None:
    """Moves a slider as the keyboard does."""
    page.focus(f"#{slider} input[type=range]")
    for _ in range(times):
        page.keyboard.press(key)


def drawn_photo(folder: Path, seed: int = 0, size=(96, 160)) -> Path:
    """A drawn street scene; small, so that the networks take no time."""
    path = folder / f"street{seed}.png"
    Image.fromarray(draw_scene(seed, size).image).save(path)
    return path


def test_look__is_what_the_command_line_says(tab, server, tmp_path, capsys, shots):
    photo = drawn_photo(tmp_path)
    said = look(tab, photo)
    tab.screenshot(path=shots / "look-1300x900.png")
    out = tmp_path / "out"
    assert run(capsys, "detect", photo, "--detector", "nano", "--out", out, "--json", tmp_path / "n.json")[0] == 0
    (row,) = json.loads((tmp_path / "n.json").read_text())["photos"]
    assert said["max"] == pytest.approx(row["max"], abs=1e-5) and said["mean"] == pytest.approx(row["mean"], abs=1e-5)
    (tmp_path / "page.hdf5").write_bytes(download(tab, "map.hdf5"))
    value = read_map(tmp_path / "page.hdf5")
    assert np.abs(value.astype(np.float32) - read_map(out / "street0.hdf5").astype(np.float32)).max() <= 1e-3
    above = value > np.float16(said["threshold"])
    assert sum(c["area"] for c in said["components"]) <= int(above.sum())
    picture = np.asarray(Image.open(BytesIO(download(tab, "overlay.jpg"))))
    assert picture.shape == (96, 160, 3)
    # shown with each pixel as a square of 5 x 5, in its place; both are JPEGs
    assert pixels(tab).shape == (480, 800, 3)
    shown = pixels(tab)[2::5, 2::5].astype(float)
    apart = [np.abs(shown - np.roll(picture, by, (0, 1))).mean() for by in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))]
    assert apart[0] < 8 and apart[0] == min(apart)
    for name in ("overlay", "map"):
        assert "street0.png" in (tab.get_attribute(f"#{name} img", "alt") or "")


def test_example__a_click_gives_objects_boxes_and_table(tab, server, shots):
    before = held(server)
    tab.get_by_role("button", name="example 1").click()
    changed(tab, None)
    assert tab.input_value("#said textarea").startswith("example 1, 640x360")
    found = numbers(tab)["components"]
    boxes_and_table_show(tab, found)
    tab.screenshot(path=shots / "example-1300x900.png", full_page=True)
    assert not [p for p in held(server) - before if p.suffix in (".png", ".jpg") and "session-" not in str(p)]


def boxes_and_table_show(page, found: list[dict]) -> None:
    """The first boxes are drawn into the overlay, and the table's rows are the objects."""
    picture = np.asarray(Image.open(BytesIO(download(page, "overlay.jpg")))).astype(int)
    assert found
    x, y, w, h = found[0]["box"]
    rim = np.concatenate([picture[y, x : x + w], picture[y + h - 1, x : x + w]])
    assert np.abs(rim - BOX).max(1).mean() < 90  # but for numbers, other boxes and JPEG
    page.get_by_role("tab", name="components").click()
    page.wait_for_selector("#components .body-cell:visible")
    text = page.inner_text("#components")
    for o in found[:5]:
        assert "{} {} {}x{}".format(*o["box"]) in text and str(o["area"]) in text


def test_ignore__objects_of_the_region_are_neither_found_nor_drawn(tab, server, tmp_path):
    photo = drawn_photo(tmp_path, 1)
    tab.fill("#smallest input[type=number]", "1")
    whole, plain = look(tab, photo), np.asarray(Image.open(BytesIO(download(tab, "overlay.jpg"))))
    choose(tab, "detector", server.more[3])
    rest, dark = look(tab, photo), np.asarray(Image.open(BytesIO(download(tab, "overlay.jpg"))))
    lowest = round(0.6 * 96)  # the region's first row
    assert whole["max"] == rest["max"] and any(y + h > lowest for _, y, _, h in boxes(whole))
    assert rest["components"] and all(y + h <= lowest for _, y, _, h in boxes(rest))
    street = np.asarray(Image.open(photo)).astype(int)
    assert (
        np.abs(dark[lowest:] - street[lowest:] // 2).mean() < 8 < np.abs(plain[lowest:] - street[lowest:] // 2).mean()
    )


def boxes(said: dict) -> list[list[int]]:
    return [c["box"] for c in said["components"]]


def test_sliders__change_the_picture_without_a_network(tab, server, tmp_path):
    look(tab, drawn_photo(tmp_path))
    seen = looks(server)
    before, old, first = pixels(tab), source(tab), numbers(tab)
    tab.fill("#threshold input[type=number]", str(first["mean"]))
    changed(tab, old)
    tab.wait_for_function(f"document.querySelector('#said textarea').value.includes('above {first['mean']:.4g}')")
    assert numbers(tab)["threshold"] == pytest.approx(first["mean"]) and (pixels(tab) != before).any()
    old = source(tab)
    choose(tab, "score", "maskomaly")
    changed(tab, old)
    assert tab.input_value("#lambda input[type=number]") == "0.6"
    whole, old, map_before = numbers(tab), source(tab), pixels(tab, "map")
    tab.fill("#lambda input[type=number]", "0.1")
    changed(tab, old)
    mixed = numbers(tab)
    assert {m["options"]["mix"] for m in mixed["members"]} == {0.1} and mixed["max"] != whole["max"]
    assert (pixels(tab, "map") != map_before).any()
    assert looks(server) == seen


def test_sliders__the_last_place_is_drawn_however_fast(tab, server, tmp_path):
    look(tab, drawn_photo(tmp_path))
    seen = looks(server)
    start = float(tab.input_value("#threshold input[type=number]"))
    slide(tab, "threshold", "ArrowRight", 25)
    reached = float(tab.input_value("#threshold input[type=number]"))
    assert reached > start
    tab.wait_for_function(f"document.querySelector('#said textarea').value.includes('above {reached:.4g};')")
    assert numbers(tab)["threshold"] == pytest.approx(reached) and looks(server) == seen
    assert float(tab.input_value("#threshold input[type=number]")) == reached  # no answer moved it back


def test_click__tells_the_queries_of_the_pixel(tab, server, tmp_path, shots):
    look(tab, drawn_photo(tmp_path))
    old = source(tab)
    choose(tab, "score", "maskomaly")
    changed(tab, old)
    seen, box = looks(server), tab.locator("#overlay img").bounding_box()
    tab.locator("#overlay img").click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.5})
    tab.wait_for_selector("#masks img")
    tab.wait_for_selector("#votes .body-cell:visible")
    x, y = (int(tab.input_value(f"#pixel-{a} input")) for a in "xy")
    assert abs(x - 120) <= 1 and abs(y - 48) <= 1
    words = tab.input_value("#words textarea")
    (tmp_path / "m.hdf5").write_bytes(download(tab, "map.hdf5"))
    value = float(read_map(tmp_path / "m.hdf5")[y, x])
    assert f"at {x},{y}" in words
    assert float(re.search(r"score (\S+) at", words)[1]) == pytest.approx(value, abs=1e-3)  # pyright: ignore
    rows = tab.inner_text("#votes")
    masks = tab.eval_on_selector_all("#masks img", "a => a.map(e => e.alt)")
    for query in (re.search(r"query (\d+): (.+?) \d", m) for m in masks):
        assert query and query[1] in rows and query[2] in rows
    tab.screenshot(path=shots / "why-1300x900.png", full_page=True)
    # the same by the keyboard
    tab.fill("#pixel-x input", "3")
    tab.fill("#pixel-y input", "5")
    tab.focus("#ask")
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelector('#words textarea').value.includes('at 3,5')")
    assert looks(server) == seen
    tab.fill("#pixel-x input", "160")
    tab.keyboard.press("Tab")
    tab.click("#ask")
    assert "outside of the photo" in complaint(tab)


@pytest.mark.parametrize("size", [(200, 300), (96, 160)])
def test_click__a_small_photo_is_shown_large_and_hit_exactly(tab, size, tmp_path, shots):
    look(tab, drawn_photo(tmp_path, size=size))
    tab.screenshot(path=shots / f"small-{size[1]}x{size[0]}.png", full_page=True)
    height, width = size
    img = tab.locator("#overlay img")
    box, fit, natural = img.bounding_box(), *img.evaluate("e => [getComputedStyle(e).objectFit, e.naturalWidth]")
    assert fit == "scale-down"  # so the picture is in the middle of its element, and never beyond its own size
    scale = min(box["width"] / width, box["height"] / height, natural / width)  # CSS pixels for one of the photo's
    assert scale * width > 600
    left, top = ((box[side] - scale * n) / 2 for side, n in (("width", width), ("height", height)))
    for x, y in ((0, 0), (width - 1, height - 1), (37, 61)):
        img.click(position={"x": left + (x + 0.5) * scale, "y": top + (y + 0.5) * scale})
        tab.wait_for_function(f"document.querySelector('#words textarea')?.value.includes('at {x},{y}')")


def complaint(page) -> str:
    """The one line that the page shows where something is wrong; closes it."""
    page.wait_for_selector("[data-testid=toast-text]")
    text = page.inner_text("[data-testid=toast-text]")
    page.click("[data-testid=toast-close]")
    page.wait_for_selector("[data-testid=toast-body]", state="detached")
    return text


def test_compare__shows_both_side_by_side(tab, server, tmp_path, shots):
    photo = drawn_photo(tmp_path)
    look(tab, photo)
    assert not tab.is_visible("#overlay2")
    seen, old = looks(server), source(tab)
    choose(tab, "other", "nano, nano-l alone")
    tab.click("#detect")
    changed(tab, old)
    tab.wait_for_selector("#overlay2 img")
    assert looks(server) == seen + 3  # two members of the first, one of the second
    assert (pixels(tab, "map") != pixels(tab, "map2")).any()
    tab.screenshot(path=shots / "compare-1300x900.png")
    old = source(tab)
    choose(tab, "other", server.more[1])  # the same networks in another folder
    tab.click("#detect")
    changed(tab, old)
    assert (pixels(tab, "map") == pixels(tab, "map2")).all() and (pixels(tab) == pixels(tab, "overlay2")).all()
    old = source(tab)
    choose(tab, "other", "no other")
    tab.click("#detect")
    changed(tab, old)
    assert not tab.is_visible("#overlay2") and not tab.is_visible("#map2")


def test_hostile__files_are_one_line_each_and_the_page_goes_on(tab, server, tmp_path, shots):
    tab.click("#detect")
    assert "drop a photo first" in complaint(tab)
    for name, (path, text) in hostile(tmp_path).items():
        drop(tab, path)
        tab.click("#detect")
        said = complaint(tab)
        assert text in said and "\n" not in said.strip() and str(server.folder) not in said, (name, said)
    tagged = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    tagged.write_text("no picture")
    tab.click("#upload button[aria-label='Clear']")
    tab.set_input_files("#upload input[type=file]", str(tagged))
    tab.wait_for_selector("#upload a[download]")
    tab.click("#detect")
    tab.wait_for_selector("[data-testid=toast-text]")
    tab.screenshot(path=shots / "refused-1300x900.png")
    assert "is not an image" in complaint(tab)
    assert look(tab, drawn_photo(tmp_path))["width"] == 160


def kinds(folder: Path) -> dict[str, Path]:
    """Photos of kinds that are not 8-bit RGB, all of one size."""
    grey = draw_scene(1, (64, 96)).image
    picture, found = Image.fromarray(grey), {}
    for name, image in {
        "rgba.png": picture.convert("RGBA"), "grey.png": picture.convert("L"), "cmyk.jpg": picture.convert("CMYK"),
        "palette.gif": picture.convert("P"), "deep.png": Image.fromarray(grey[..., 0].astype(np.uint16) * 257),
    }.items():  # fmt: skip
        image.save(folder / name)
        found[name] = folder / name
    picture.save(folder / "moving.gif", save_all=True, append_images=[picture.rotate(180)], duration=50)
    return found | {"moving.gif": folder / "moving.gif"}


def test_photos__of_all_kinds_upright_and_clips(tab, tmp_path):
    for path in kinds(tmp_path).values():
        said = look(tab, path)
        assert (said["width"], said["height"]) == (96, 64), path
    turned = look(tab, exif_photo(tmp_path / "turned.jpg"))
    assert (turned["width"], turned["height"]) == (32, 40)
    assert pixels(tab).shape == (880, 704, 3)  # 22 times
    clip = look(tab, write_clip(tmp_path / "clip.mp4", 4))
    assert (clip["width"], clip["height"]) == (64, 48)


def held(server) -> set[Path]:
    """Files of sessions, uploads too."""
    return {p for d in server.folder.glob("xenomask-app-*") for p in d.rglob("*") if p.is_file()}


def gone(server, before: set[Path]) -> bool:
    """Whether nothing lies there that did not before, within a minute."""
    end = time.monotonic() + 60
    while held(server) - before and time.monotonic() < end:
        time.sleep(0.2)
    return held(server) <= before


def test_two_users__see_their_own_and_leave_nothing(browser, server, tmp_path):
    before = held(server)
    photos = [drawn_photo(tmp_path, k, (64, 96 + 32 * k)) for k in range(2)]
    users = [opened(browser, server) for _ in photos]
    for page, photo in zip(users, photos, strict=True):
        drop(page, photo)
    for page in users:  # at once: the second waits in the queue
        page.click("#detect")
    for page, width in zip(users, (96, 128), strict=True):
        changed(page, None)
        assert numbers(page)["width"] == width and pixels(page).shape[1] == 900 // width * width
    old = source(users[0])
    slide(users[0], "threshold", "ArrowRight", 3)
    changed(users[0], old)
    assert numbers(users[1])["photo"] == "street1.png"
    other = source(users[1])
    users[0].context.close()
    assert users[1].request.get(other).ok  # the other's stay
    users[1].context.close()
    assert gone(server, before)
    assert users[0].heard == users[1].heard == []


def test_leaving__before_the_answer_or_before_look_leaves_nothing(browser, server, tmp_path):
    before, hold = held(server), server.folder / "hold"
    dropped = opened(browser, server)
    drop(dropped, drawn_photo(tmp_path, 5))
    assert held(server) - before  # the upload
    dropped.context.close()
    assert gone(server, before)
    hold.touch()
    try:
        waiting, seen = opened(browser, server), looks(server)
        drop(waiting, drawn_photo(tmp_path, 6))
        waiting.click("#detect")
        end = time.monotonic() + 60
        while looks(server) == seen and time.monotonic() < end:
            time.sleep(0.05)
        waiting.context.close()  # in the middle of the network
        time.sleep(1)
    finally:
        hold.unlink()
    page = opened(browser, server)  # its turn comes after the one that was left
    assert look(page, drawn_photo(tmp_path, 7))["photo"] == "street7.png"
    page.reload()
    page.wait_for_selector("#upload input[type=file]", state="attached")
    assert source(page) is None
    page.context.close()
    assert gone(server, before)


# the part of the page that has the focus, and of what type its element is
HERE = """() => {
  const e = document.activeElement, p = e.closest("#detector, #other, #score, #detect, #threshold");
  return p && `${p.id} ${e.type}`;
}"""


def test_keyboard__alone_does_all(tab, tmp_path):
    """From the upload by Tab to every control, and each is worked by keys."""
    drop(tab, drawn_photo(tmp_path))
    tab.focus("#upload button, #upload a")
    passed = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        here = tab.evaluate(HERE)
        if here and here not in passed:
            passed.append(here)
        if here and here.startswith("detect ") and source(tab) is None:
            tab.keyboard.press("Enter")
            changed(tab, None)
        if here == "threshold range":
            break
    names = list(dict.fromkeys(w.split()[0] for w in passed))
    assert names == ["detector", "other", "score", "detect", "threshold"] and passed[-1] == "threshold range"
    before, old = float(tab.input_value("#threshold input[type=range]")), source(tab)
    tab.keyboard.press("ArrowLeft")
    changed(tab, old)
    assert numbers(tab)["threshold"] < before
    components = tab.get_by_role("tab", name="components")
    components.focus()
    tab.keyboard.press("Enter")
    assert components.get_attribute("aria-selected") == "true"


def test_curl__of_the_documentation_works(server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    Image.open(drawn_photo(tmp_path)).save(tmp_path / "street.jpg")
    (script,) = [f for f in fences((DOCS / "app.md").read_text(), "sh") if "/call/detect" in f]
    script = script.replace("http://127.0.0.1:7860", server.address)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    data = [line for line in done.stdout.splitlines() if line.startswith("data: [")]
    said = json.loads(data[-1].removeprefix("data: "))[-1]
    assert (said["photo"], said["score"], said["width"]) == ("street.jpg", "rba", 160), done.stdout + done.stderr


def test_axe__finds_nothing_serious(browser, server, tmp_path, shots):
    api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    photo = drawn_photo(tmp_path)
    sizes = {"light": (1300, 900), "dark": (1300, 900), "phone": (390, 844)}
    for name, (width, height) in sizes.items():
        scheme = "dark" if name == "dark" else "light"
        page = opened(browser, server, viewport={"width": width, "height": height}, color_scheme=scheme)
        look(page, photo)
        page.screenshot(path=shots / f"{name}-{width}x{height}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name}: the page is {wide} wide"
        page.locator("#overlay img").click(position={"x": 40, "y": 30})
        page.wait_for_selector("#votes .body-cell:visible")
        found = api.Axe().run(page).response["violations"]
        bad = [(v["id"], n["target"], n["html"][:120]) for v in found if v["impact"] in ("serious", "critical")
               for n in v["nodes"]]  # fmt: skip
        page.context.close()
        assert bad == []
