"""Report pages as a browser's parser sees them, and one of two methods."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.store import write_map
from xenomask.types import ScoreMap

VOID_TAGS = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """A page's elements as (tag, attributes, text below it), flat, as a browser's parser sees them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.found, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.found.append(element)
        if tag not in VOID_TAGS:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def of(self, tag, **attributes):
        return [e for e in self.found if e[0] == tag and all(e[1].get(k) == v for k, v in attributes.items())]

    @property
    def data(self):
        return json.loads(self.of("script", id="report-data")[0][2])


def noisy(root: Path, name: str, noise: float, seed: int) -> Path:
    """A folder of maps: the label, blurred, under smooth noise, in (0, 1)."""
    data, rng = open_dataset("folder", root), np.random.default_rng(seed)
    (root / name).mkdir()
    for frame in data.frames:
        label = data.label(frame)
        bumps = cv2.resize(rng.standard_normal((9, 12)).astype(np.float32), label.shape[::-1])
        value = cv2.GaussianBlur((label == 1).astype(np.float32) * rng.uniform(0.3, 1) + noise * bumps, (0, 0), 1.5)
        write_map(root / name / f"{frame.id}.hdf5", ScoreMap(1 / (1 + np.exp(3 - 8 * value)), "drawn"))
    return root / name


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = write_scenes(tmp_path_factory.mktemp("drawn"), "folder", 4, size=(90, 160))
    noisy(root, "good", 0.1, 0)
    noisy(root, "poor", 0.3, 1)
    (root / "good" / "manifest.json").write_text(json.dumps({"name": "<b>pair</b>", "scale": [0, 1]}))
    return root


@pytest.fixture(scope="module")
def written(drawn, tmp_path_factory):
    """The page of two methods and, beside it, what `evaluate --json` writes of each."""
    from xenomask.evaluation.evaluate import evaluate_maps
    from xenomask.report.report import write_report

    data, out = open_dataset("folder", drawn), tmp_path_factory.mktemp("out") / "report.html"
    write_report([drawn / "good", drawn / "poor"], data, out, "obstacle", resamples=50, seed=3)
    results = [evaluate_maps(drawn / n, data, "obstacle", resamples=50, seed=3) for n in ("good", "poor")]
    return Page(out.read_text("utf-8")), [json.loads(json.dumps(r.to_json())) for r in results], out


def picture(page: Page, name: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(page.of("script", id=name)[0][2]))))
