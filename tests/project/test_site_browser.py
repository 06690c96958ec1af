"""The documentation's site, opened from the disk in a browser: its search works, and asks no other host."""

import subprocess
import sys

import pytest

from helpers.browser import chromium
from helpers.places import ROOT

pytestmark = pytest.mark.slow


def test_site__is_searched_from_the_disk(tmp_path):
    pytest.importorskip("mkdocs")
    with chromium() as browser:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        page, heard = browser.new_page(), []
        page.on("pageerror", lambda e: heard.append(str(e)))
        page.on("console", lambda m: heard.append(m.text))
        page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        for start in ("index.html", "scores/index.html"):
            page.goto(f"file://{tmp_path}/{start}")
            page.locator("input.md-search__input").press_sequentially("calibration")
            page.wait_for_selector(".md-search-result__link")
            assert "matching" in page.inner_text(".md-search-result__meta")
        page.click(".md-search-result__link")
        page.wait_for_function("document.querySelector('article').innerText.toLowerCase().includes('calibrat')")
        assert "scores/index.html" not in page.url and heard == []
