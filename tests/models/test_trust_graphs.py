"""OpenVINO's graphs: the maps of a first start are those of the second; files are checked and never mapped."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.graphs import convolution, small_model
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.export import open_exported
from xenomask.export.content import marked
from xenomask.export.write import describe, save_openvino
from xenomask.models import load
from xenomask.models.runtimes.graph_cache import keep_graph, read_graph
from xenomask.models.runtimes.runtime import openvino_graph, with_runtime
from xenomask.models.runtimes.sessions import compile_openvino, compiled_session, import_openvino

openvino = pytest.importorskip("openvino")
SIZE = (60, 100)
IMAGE = draw_scene(3, SIZE).image


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XENOMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def pair(tiny_detector, tmp_path) -> Path:
    """An exported network, a.xml and a.bin: one convolution in the tiny network's place."""
    own = Detector.from_folder(tiny_detector).only("a")
    model = convolution(own.members[0].network, own.members[0].network.prepare(IMAGE).x)
    path = tmp_path / "a.xml"
    save_openvino(model, path, marked({**describe(own, SIZE, "queries", None), "dynamic": False}))
    return path


@pytest.mark.parametrize("kept", ["kept", "off", "unwritable"])
def test_graph__that_was_just_built_is_run_as_it_is_read_from_disk(tiny_checkpoint, cache, monkeypatch, tmp_path, kept):
    built = small_model()
    monkeypatch.setattr("xenomask.models.runtimes.runtime.trace", lambda module, x: None)
    monkeypatch.setattr("xenomask.models.runtimes.runtime.to_openvino", lambda *_: built)
    if kept == "off":
        monkeypatch.setenv("XENOMASK_CACHE", "off")
    if kept == "unwritable":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XENOMASK_CACHE", str(tmp_path / "file"))
    x = torch.rand(1, 3, 32, 64)
    model = openvino_graph(load(tiny_checkpoint), x)
    assert model is not built and len(model.get_ops()) == len(built.get_ops())
    found = with_runtime(load(tiny_checkpoint), "openvino")(x)
    assert torch.equal(found[1], x * torch.tensor([0.5, 1.5, 2.5])[:, None, None])


def test_graph__compiled_and_kept_runs_in_float32_as_when_it_was_compiled(cache):
    """What import_model is not told it does in bfloat16 where the CPU has it (AMD's Zen 4, Intel's Sapphire Rapids)."""
    compiled = compile_openvino(small_model())
    read = import_openvino(openvino.Tensor(np.frombuffer(compiled.export_model().getvalue(), np.uint8)))
    assert {c.get_property("INFERENCE_PRECISION_HINT") for c in (compiled, read)} == {openvino.Type.f32}
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(compiled_session(read)(x)[1], compiled_session(compiled)(x)[1])


def test_graph__is_not_pinned_to_cores_where_several_processes_share_them(cache, monkeypatch):
    """OpenVINO pins one thread to the first core: Ray's workers would all compute on that one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    compiled = compile_openvino(small_model())
    read = import_openvino(openvino.Tensor(np.frombuffer(compiled.export_model().getvalue(), np.uint8)))
    assert not any(c.get_property("ENABLE_CPU_PINNING") for c in (compiled, read))


@pytest.mark.slow
def test_graph__first_and_second_start_give_the_same_bits(tiny_checkpoint, cache):
    x = torch.rand(1, 3, 32, 64)
    first, second = (with_runtime(load(tiny_checkpoint), "openvino")(x) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_graph__kept_is_not_mapped(cache):
    keep_graph("k", small_model())
    model = read_graph("k")
    with (cache / "k/graph.bin").open("r+b") as f:
        f.write(bytes(4096))
    compiled = openvino.Core().compile_model(model, "CPU")
    assert compiled([np.ones((1, 3, 8, 8), np.float32)])[1][0, :, 0, 0].tolist() == [0.5, 1.5, 2.5]


def test_graph__half_written_ones_of_killed_runs_are_removed_and_counted(cache, monkeypatch):
    cache.mkdir(parents=True)
    for name, age in ((".00000001.part.k", 100_000), (".00000002.part.k", 0), (".00000003.part.l", 100_000)):
        (cache / name).mkdir()
        (cache / name / "graph.bin").write_bytes(bytes(100))
        for path in (cache / name / "graph.bin", cache / name):
            os.utime(path, (time.time() - age, time.time() - age))
    keep_graph("k", small_model())
    assert sorted(p.name for p in cache.iterdir()) == [".00000002.part.k", "k"]  # which another run may be writing
    # two graphs have room, but not beside the 100 bytes that another run has written
    size = sum(p.stat().st_size for p in (cache / "k").iterdir())
    monkeypatch.setattr("xenomask.models.runtimes.graph_cache.LIMIT", 2 * size + 50)
    keep_graph("l", small_model())
    assert sorted(p.name for p in cache.iterdir()) == [".00000002.part.k", "l"]


def test_pair__overwritten_while_it_is_open_gives_the_same_map(pair):
    found = open_exported(pair)
    before = found.detect(IMAGE).value
    size = pair.with_suffix(".bin").stat().st_size
    with pair.with_suffix(".bin").open("r+b") as f:
        f.write(os.urandom(size))
    assert np.array_equal(found.detect(IMAGE).value, before)
    with pytest.raises(XenomaskError, match="a.xml (or its .bin is not as it was written|is damaged)"):
        open_exported(pair)


@pytest.mark.slow
def test_pair__cut_short_between_opening_and_running_does_not_end_the_process(pair):
    code = f"""
import numpy as np, os
from pathlib import Path
from xenomask.export import open_exported
found = open_exported(Path({str(pair)!r}))
os.truncate({str(pair.with_suffix(".bin"))!r}, 0)
print(found.detect(np.zeros(({SIZE[0]}, {SIZE[1]}, 3), np.uint8)).value.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "(60, 100)", done.stderr


@pytest.mark.parametrize("ending", [".xml", ".bin"])
def test_pair__changed_or_of_two_exports_is_refused(pair, ending):
    path = pair.with_suffix(ending)
    data = bytearray(path.read_bytes())
    at = data.find(b'kernel="') if ending == ".xml" else 40
    at = data.find(b"<layer id=") + 11 if at < 0 else at
    data[at] = data[at] ^ 1
    path.write_bytes(data)
    with pytest.raises(XenomaskError) as e:
        open_exported(pair)
    assert "\n" not in str(e.value) and "a.xml" in str(e.value)


def test_pair__without_a_hash_is_told(pair, tiny_detector, caplog):
    own = Detector.from_folder(tiny_detector).only("a")
    model = convolution(own.members[0].network, own.members[0].network.prepare(IMAGE).x)
    model.set_rt_info(json.dumps({**describe(own, SIZE, "queries", None), "dynamic": False}), "xenomask")
    openvino.serialize(model, str(pair), str(pair.with_suffix(".bin")))
    open_exported(pair)
    assert "has no hash of its content" in caplog.text
