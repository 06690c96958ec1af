"""How fast a report opens, and how fast its slider moves the contours, in a Chromium.

    python benchmarks/report.py report.html [--chromium /usr/bin/chromium] [--times 5]

Opening: from the navigation on until the first map is drawn, in a fresh tab each time. Slider: each of 60 steps until
the frame after the drawing was handed to the screen. Needs the Python package playwright.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

FIRST = "() => document.querySelector('canvas[data-drawn-ms]') !== null"
NOW = "performance.now()"  # since the navigation began
SLIDE = """async (steps) => {
  const slider = document.getElementById("slider-0"), last = Number(slider.max), found = [], own = [];
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  for (let k = 0; k < steps; k++) {
    const start = performance.now();
    slider.value = String(Math.round(k * last / (steps - 1)));
    slider.dispatchEvent(new Event("input"));
    own.push(Number(document.getElementById("canvas-0").dataset.drawnMs));
    await frame();
    found.push(performance.now() - start);
  }
  return [found, own];
}"""


def measure(path: Path, chromium: str | None, times: int) -> dict:
    """Size in MB, seconds to the first map, milliseconds of the slider's steps (to the screen; the script's own)."""
    from playwright.sync_api import sync_playwright

    opened, steps, own = [], [], []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1300, "height": 900})
            tab.goto(path.resolve().as_uri(), wait_until="commit")
            tab.wait_for_function(FIRST, polling=5)
            opened.append(tab.evaluate(NOW) / 1000)
            shown, drawn = tab.evaluate(SLIDE, 60)
            steps += shown
            own += drawn
            tab.close()
        browser.close()

    def said(values: list[float]) -> dict[str, float]:
        ordered = sorted(values)
        return {"median": statistics.median(ordered), "p95": ordered[int(0.95 * len(ordered))], "largest": ordered[-1]}

    return {
        "MB": path.stat().st_size / 1e6,
        "opens_s": said(opened),
        "slider_ms": said(steps),
        "slider_script_ms": said(own),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--times", type=int, default=5)
    a = parser.parse_args()
    print(json.dumps(measure(a.report, a.chromium, a.times), indent=1))


if __name__ == "__main__":
    main()
