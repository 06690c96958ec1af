"""Kept graphs: a detector runs by them without torch, gives the maps of torch's way, and never uses damaged ones."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.graphs import convolution
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.models.runtimes import runtime
from xenomask.opening import open_detector

pytest.importorskip("openvino")
SIZE = (60, 100)
IMAGE = draw_scene(3, SIZE).image


def kept_of(folder, sizes=(SIZE,), **more) -> Detector:
    """The detector by its kept graphs, which are there."""
    found = Detector.from_kept(folder, sizes, **more)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def warm(tiny_detector, tmp_path_factory):
    """A copy of the tiny detector and a cache that holds its graphs (convolutions in its networks' places)."""
    home = tmp_path_factory.mktemp("kept")
    folder = Path(shutil.copytree(tiny_detector, home / "pair"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XENOMASK_CACHE", str(home / "cache"))
        patch.setattr(runtime, "trace", lambda raw, x: (raw.module, x))
        patch.setattr(runtime, "to_openvino", lambda made, *_: convolution(*made))
        Detector.from_folder(folder, runtime="openvino").detect(IMAGE)
    return folder, home / "cache"


@pytest.fixture
def own(warm, tmp_path, monkeypatch):
    """The same for one test, which may damage it."""
    folder, cache = (Path(shutil.copytree(p, tmp_path / p.name)) for p in warm)
    monkeypatch.setenv("XENOMASK_CACHE", str(cache))
    return folder, cache


def test_maps__are_those_of_the_graphs_that_torch_opens(own):
    kept = kept_of(own[0])
    assert kept.describe() == Detector.from_folder(own[0]).describe()
    by_torch = Detector.from_folder(own[0], runtime="openvino")
    for _ in range(2):  # compiled, then read
        kept = kept_of(own[0])
        assert np.abs(kept.detect(IMAGE).value - by_torch.detect(IMAGE).value).max() < 1e-6
    once = kept_of(own[0], once=True)
    assert np.array_equal(once.detect(IMAGE).value, kept.detect(IMAGE).value)
    assert not any(vars(m.network)["_sessions"] for m in once.members) and all(
        vars(m.network)["_sessions"] for m in kept.members
    )
    found, true = (d([IMAGE])[0].nearest(IMAGE[..., 0] > 90) for d in (kept, by_torch))
    assert found[0] == true[0] and abs(found[1] - true[1]) < 1e-5


DETECT = """
import sys
from xenomask.cli import main
try:
    main()
finally:
    assert not {m.split(".")[0] for m in sys.modules} & {"torch", "transformers", "timm", "pandas"}
"""


def test_detect__imports_neither_torch_nor_transformers(own, tmp_path):
    cv2.imwrite(str(tmp_path / "street.png"), IMAGE[..., ::-1])
    words = [sys.executable, "-c", DETECT, "detect", tmp_path / "street.png", "--detector", own[0], "--threshold", ".1"]
    done = subprocess.run([*map(str, words), "--out", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "runtime openvino: its graphs are kept from an earlier run" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_another_size__is_run_by_torch_and_said(own, caplog):
    kept = kept_of(own[0])
    tall = draw_scene(4, (120, 60)).image
    with caplog.at_level(logging.WARNING):
        found = kept.detect(tall).value
    assert "no graph is kept for inputs of" in caplog.text
    assert np.array_equal(found, Detector.from_folder(own[0]).detect(tall).value)
    assert Detector.from_kept(own[0], [SIZE, (120, 60)]) is None


@pytest.mark.parametrize("what", ["*.json", "*/graph.bin", "*/graph.xml", "*/*.compiled"])
def test_damaged__is_never_used(own, what, caplog):
    folder, cache = own
    true = kept_of(folder).detect(IMAGE).value  # compiles
    files = sorted((cache / ("checkpoints" if what == "*.json" else "openvino")).glob(what))
    assert len(files) == 2
    for path in files:
        if "graph" in what:
            for compiled in path.parent.glob("*.compiled"):
                compiled.unlink()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    found = Detector.from_kept(folder, [SIZE])
    if what == "*.json":  # a note
        assert found is None
    elif what == "*/*.compiled":
        with caplog.at_level(logging.WARNING):
            assert found is not None and np.array_equal(found.detect(IMAGE).value, true)
        assert "is damaged and compiled anew" in caplog.text
    else:
        with caplog.at_level(logging.WARNING):
            by_torch = Detector.from_folder(folder).detect(IMAGE).value
            assert found is not None and np.array_equal(found.detect(IMAGE).value, by_torch)
        assert "is damaged and built anew" in caplog.text


def test_other_weights_and_module__have_no_note(own):
    folder, cache = own
    for path in folder.glob("*/config.json"):  # other weights have another hash; so has another configuration
        path.write_text(path.read_text().replace('"model_type"', ' "model_type"'))
    text = (folder / "detector.json").read_text()
    (folder / "detector.json").write_text(text.replace('"files"', '"unread"'))
    assert Detector.from_kept(folder, [SIZE]) is None
    shutil.rmtree(cache / "checkpoints")
    changed = Detector.from_folder(folder, runtime="openvino")
    for m in changed.members:
        next(m.network.module.parameters()).data += 1
        key = runtime.graph_key(m.network, (1, 3, 64, 64))
        shutil.copytree(next((cache / "openvino").iterdir()), cache / "openvino" / key)
        runtime._note(m.network, key, (1, 3, 64, 64))
    assert not (cache / "checkpoints").exists()


def test_opening__goes_by_kept_graphs_where_nothing_else_is_asked(own, monkeypatch):
    def runs(**asked):
        return open_detector(str(own[0]), asked.pop("device", None), sizes=[SIZE], **asked).runtime

    monkeypatch.setattr("xenomask.opening.GPUS", ())
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert runs() == runs(runtime="auto") == runs(runtime="openvino") == runs(device="cpu") == "openvino"
    assert runs(runtime="torch") == runs(tta="mirror") == runs(precision="bfloat16") == "torch"
    monkeypatch.setattr("xenomask.opening.GPUS", (os.devnull,))
    assert runs() == "torch"


@pytest.mark.slow
def test_nano_general__maps_of_kept_graphs_are_torchs(tmp_path, monkeypatch):
    monkeypatch.setenv("XENOMASK_CACHE", str(tmp_path))
    image = draw_scene(5, (128, 128)).image
    Detector.from_folder("nano-general", runtime="openvino").detect(image)
    kept = kept_of("nano-general", [(128, 128)])
    assert np.abs(kept.detect(image).value - Detector.from_folder("nano-general").detect(image).value).max() < 1e-4
