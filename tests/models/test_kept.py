"""Kept graphs: a detector runs by them without torch, gives the maps of torch's way, and never uses damaged ones."""

import ctypes
import logging
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.graphs import convolution
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.detector.explain import explain
from xenomask.masks import with_queries
from xenomask.models.runtimes import graph_cache, runtime
from xenomask.opening import open_detector
from xenomask.store import read_map

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


def test_load__without_openvino_is_torch(own, monkeypatch):
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(graph_cache, "_version", version)
    assert Detector.load(own[0]).runtime == "torch"


def signal_stack() -> bytes:
    """The stack that this thread's signal handlers run on, as the system tells it."""
    held = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).sigaltstack(None, held)
    return held.raw


@pytest.mark.skipif(sys.platform == "win32", reason="sigaltstack is POSIX")
def test_opening__leaves_the_stack_for_signals(own):
    before = signal_stack()
    kept_of(own[0]).detect(IMAGE)  # read back
    shutil.rmtree(own[1])
    Detector.from_folder(own[0], runtime="openvino").detect(IMAGE)  # compiled
    assert signal_stack() == before


def test_threads__get_their_own_answers(own):
    kept, photos = kept_of(own[0]), [draw_scene(seed, SIZE).image for seed in range(4)]
    expected = [kept.detect(x).value for x in photos]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: kept.detect(x).value, photos * 8))
    assert all(np.array_equal(found[i], expected[i % 4]) for i in range(32))


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


LEAN = """
import sys
from pathlib import Path
folder, out = sys.argv[1], Path(sys.argv[2])
from xenomask import Detector
from xenomask.datasets import open_dataset
from xenomask.datasets.read import read_photo
from xenomask.opening import open_detector, open_masks
from xenomask.store import write_map
image = read_photo(out / "street.png")

def command(*words):
    from xenomask.cli import main
    sys.argv[1:] = [*words, "--detector", folder]
    try:
        main()
    except SystemExit as e:
        assert not e.code

{}
loaded = {{m.split(".")[0] for m in sys.modules}} & {{"torch", "transformers", "timm", "pandas", "matplotlib"}}
assert not loaded - {{"pandas"}} if "gradio" in sys.modules else not loaded, loaded
"""
DETECT = "command('detect', f'{out}/street.png', '--out', f'{out}/maps', '--threshold', '.1')"
ONE = f"{DETECT[:-1]}, '--score', 'max_logit'); assert not {{'numba', 'scipy'}} & set(sys.modules)"
VIDEO = "command('video', f'{out}/clip', '--out', f'{out}/seen.avi', '--maps', f'{out}/maps')"
LOAD = "write_map(out / 'maps/a.hdf5', Detector.load(folder)(image).score_map)"
REPLICA = "write_map(out / 'maps/a.hdf5', open_detector(folder, 'cpu')([image] * 3)[2].score_map)"
APP = """
from importlib.util import find_spec
from xenomask.app import page, session
known = {"pair": open_masks(folder, "cpu")}
if find_spec("gradio"):
    page.build(known, out)
reading = session.read(session.detect("a.png", image, known["pair"]))
session.pictures(reading, session.found_in(reading))
write_map(out / 'maps/a.hdf5', reading.score_map)
"""
WORKER = """
from functools import partial
from xenomask.cluster.ray import Actor, _row
from xenomask.predict.photos import open_maps
data = open_dataset("anomaly-track", out / "scenes")
opened = partial(open_detector, folder, "cpu")
open_maps(opened(), data, out / "maps", False)
rows = [_row(f) for f in data.frames]
assert Actor(opened, data, out / "maps", False, 1)({k: [r[k] for r in rows] for k in rows[0]})["error"] == [""]
"""


@pytest.mark.parametrize("way", [DETECT, ONE, VIDEO, LOAD, REPLICA, APP, WORKER])
def test_imports__neither_torch_nor_transformers(own, tmp_path, way):
    data = open_dataset("anomaly-track", write_scenes(tmp_path / "scenes", "anomaly-track", 1, size=(66, 110)))
    image = data.sample(data.frames[0]).image
    for name in ("clip", "maps"):
        (tmp_path / name).mkdir()
    for name in ("clip/0.png", "street.png"):
        cv2.imwrite(str(tmp_path / name), image[..., ::-1])
    words = [sys.executable, "-c", LEAN.format(way), own[0], tmp_path]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if way in (DETECT, ONE, VIDEO):
        assert "runtime openvino: its graphs are kept from an earlier run" in done.stderr
    (path,) = (tmp_path / "maps").glob("*.hdf5")
    true = Detector.from_folder(own[0], runtime="openvino")
    true = (true.with_score("max_logit") if way == ONE else true).detect(image).value
    assert np.abs(read_map(path) - true).max() < 5e-4  # maps are stored as float16


def test_networks__are_there_for_what_needs_them(own):
    kept, by_torch = Detector.load(own[0]), Detector.from_folder(own[0])
    assert kept.runtime == "openvino" and Detector.load(own[0], runtime="torch").runtime == "torch"
    for change in (lambda d: d.with_tta((), mirror=True), lambda d: d.with_precision("bfloat16")):
        assert np.array_equal(change(kept).detect(IMAGE).value, change(by_torch).detect(IMAGE).value)
    by_graph = by_torch.with_runtime("openvino")
    answers = [explain(d, d.infer([d.prepare(IMAGE)])[0], (7, 5)).value for d in (kept, by_graph)]
    assert answers == pytest.approx([by_graph.detect(IMAGE).value[5, 7]] * 2, abs=1e-5)
    one, other = (with_queries(d.members[0].network.predict(IMAGE)) for d in (kept, by_graph))
    assert torch.allclose(one.mask_logits.sigmoid(), other.mask_logits.sigmoid(), atol=1e-5)
    assert np.array_equal(pickle.loads(pickle.dumps(kept)).detect(IMAGE).value, kept.detect(IMAGE).value)
    assert kept_of(own[0], None, fallback="openvino").detect(draw_scene(4, (120, 60)).image).value.shape == (120, 60)


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
    files = sorted((cache / ("checkpoints" if what == "*.json" else "openvino")).rglob(Path(what).name))
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
    true = Detector.load("nano-general", runtime="torch").detect(image).value
    for kept in (kept_of("nano-general", [(128, 128)]), Detector.load("nano-general")):
        assert kept.runtime == "openvino" and np.abs(kept.detect(image).value - true).max() < 1e-4
