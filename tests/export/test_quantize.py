"""int8 by NNCF: what is written, what it does to the maps, what is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails
from helpers.graphs import convolution
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.detector.find import is_exported
from xenomask.errors import XenomaskError
from xenomask.export import open_exported, quantize_detector
from xenomask.export.quantize import kept_in_float, photo_of, spread
from xenomask.models.runtimes.runtime import logits
from xenomask.models.runtimes.sessions import openvino_session

SIZE = (60, 100)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten photos without labels, one of another size."""
    root = tmp_path_factory.mktemp("own")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for i in range(10):
        Image.fromarray(draw_scene(i, SIZE if i else (70, 90)).image).save(root / f"images/{i}.png")
        Image.fromarray(np.zeros(SIZE if i else (70, 90), np.uint8)).save(root / f"labels/{i}.png")
    return open_dataset("folder", root, coding="train_ids")


def test_quantize__writes_a_detector_whose_networks_are_int8(tiny_detector, photos, tmp_path, monkeypatch):
    pytest.importorskip("nncf")
    monkeypatch.setattr("xenomask.export.quantize.openvino_graph", convolution)
    pair = Detector.from_folder(tiny_detector)
    pair = replace(pair, thresholds={"default": {"value": 0.5, "origin": "a test"}})
    found = quantize_detector(pair, tmp_path / "q", photos, size=SIZE)
    assert found["photos"] == 2 and 0 <= found["mean"] <= found["max"] and 0 <= found["share"] <= 1
    table = json.loads((tmp_path / "q/quantized.json").read_text())
    assert table["difference_from_float32"] == found
    assert table["calibrated_on"] == {"dataset": "folder", "frames": [str(i) for i in (0, 1, 2, 3, 5, 6, 7, 8)]}
    assert "FakeQuantize" in (tmp_path / "q/a.xml").read_text()
    assert is_exported(tmp_path / "q") and not is_exported(tiny_detector)
    other = open_exported(tmp_path / "q")
    assert isinstance(other, Detector)
    assert [(m.name, m.weight) for m in other.members] == [("a", 0.25), ("b", 0.75)]
    assert (other.score_name, other.scale, other.thresholds["default"]["value"]) == ("entropy", pair.scale, 0.5)
    assert other.describe() != pair.describe()  # so that maps of both are never mixed
    # its maps are near those of the same graph in float32, which it was made from
    image = draw_scene(4, SIZE).image
    network = pair.members[0].network
    run = logits(openvino_session(convolution(network, network.prepare(image).x)))
    true = replace(pair, members=tuple(replace(m, network=replace(m.network, run=run)) for m in pair.members))
    difference = np.abs(other.detect(image).value - true.detect(image).value)
    assert 0 < difference.mean() < 0.02
    assert other.only("b").with_score("rba").detect(image).score == "rba"
    with pytest.raises(XenomaskError, match="looks at photos of 100x60"):
        other.detect(draw_scene(4, (90, 200)).image)


def decoder_model():
    """An openvino.Model as a network has it: backbone, pixel decoder, and two products of queries with pixels."""
    import openvino
    from openvino import opset13 as ops

    r = np.random.default_rng(0)

    def values(*shape):
        return ops.constant(r.normal(size=shape).astype(np.float32))

    def convolution(x, kernel, name):
        return ops.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1], name=name)

    image = ops.parameter([1, 3, 8, 8], np.float32, name="image")
    stem = convolution(image, values(4, 3, 1, 1), "stem")
    depthwise = ops.group_convolution(stem, values(4, 1, 1, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1], name="depthwise")
    projection = convolution(depthwise, values(4, 4, 1, 1), "projection")
    pixels = ops.group_normalization(projection, values(4), values(4), 2, 1e-5)
    pixels = ops.group_normalization(convolution(pixels, values(4, 4, 1, 1), "fpn"), values(4), values(4), 2, 1e-5)
    pixels = ops.reshape(pixels, ops.constant(np.array([1, 4, 64])), False)
    learnt = ops.multiply(values(1, 5, 4), values(1, 5, 1))  # the first queries, before any pixel was seen
    first = ops.matmul(learnt, pixels, False, False, name="first masks")
    queries = ops.matmul(first, ops.transpose(pixels, ops.constant(np.array([0, 2, 1]))), False, False, name="pooled")
    queries = ops.matmul(queries, values(4, 4), False, False, name="linear")
    return openvino.Model([ops.matmul(queries, pixels, False, False, name="masks")], [image])  # pyright: ignore


def test_kept_in_float__backbone_convolutions_and_products_with_pixels():
    pytest.importorskip("openvino")
    assert kept_in_float(decoder_model()) == ["depthwise", "first masks", "masks", "pooled", "stem"]


def test_photo_of__a_squeezed_copy_is_stretched_and_its_middle_taken(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    squeezed = np.zeros((64, 64, 3), np.uint8)
    squeezed[:, 32:] = 200  # right half
    squeezed[:, :3] = squeezed[:, -3:] = 255  # cut off: 128x64 has more width than 16:9
    Image.fromarray(squeezed).save(tmp_path / "images/a.png")
    Image.fromarray(squeezed[..., 0]).save(tmp_path / "labels/a.png")
    data = open_dataset("folder", tmp_path, coding="train_ids", resize=(64, 128))
    found = photo_of(data, data.frames[0], (72, 128))
    assert found.shape == (72, 128, 3) and found.max() == 200
    assert abs(int((found[36, :, 0] > 100).sum()) - 64) <= 1


@pytest.mark.slow
def test_quantize__the_tiny_pair(tiny_detector, photos, tmp_path):
    pytest.importorskip("nncf")
    found = quantize_detector(Detector.from_folder(tiny_detector), tmp_path / "q", photos, size=SIZE)
    assert 0 < found["mean"] < 0.05


def test_quantize__refusals(tiny_detector, photos, tmp_path, capsys, monkeypatch):
    pair = Detector.from_folder(tiny_detector)
    root = write_scenes(tmp_path / "at", "anomaly-track", 1, size=(64, 100))
    arguments = ("quantize", tiny_detector, "--out", tmp_path / "q", "--size", "100x60", "--dataset")
    assert "labels say anomaly" in fails(capsys, *arguments, "anomaly-track", "--root", root)
    few = replace(photos, frames=photos.frames[:4])
    monkeypatch.setitem(sys.modules, "nncf", sys)  # none of these reaches it
    with pytest.raises(XenomaskError, match="has 4 photos: quantisation needs 5 or more"):
        quantize_detector(pair, tmp_path / "q", few, size=SIZE)
    with pytest.raises(XenomaskError, match="exists and holds no quantised detector"):
        quantize_detector(pair, tmp_path / "at", photos, size=SIZE)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(XenomaskError, match=r"nncf is not installed: pip install 'xenomask\[int8\]'"):
        quantize_detector(pair, tmp_path / "q", photos, size=SIZE)
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is damaged"), ('{"weights": {"../a": 1}}', "no plain folder name"), ("{}", "is damaged"),
     ('{"weights": {"a": 1.0}, "thresholds": {}, "name": "q"}', "no such file")],
)  # fmt: skip
def test_quantized_folder__damage_is_one_line(tmp_path: Path, text, message):
    (tmp_path / "quantized.json").write_text(text)
    with pytest.raises(XenomaskError, match=message):
        open_exported(tmp_path)


def test_spread__is_even_and_at_most_all():
    frames = list(range(1000))
    found = spread(frames, 100)
    assert len(found) == 100 and set(np.diff(found)) == {10}
    assert spread(frames[:7], 100) == frames[:7]
