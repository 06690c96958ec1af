import logging
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.graphs import small_model
from xenomask import load_model
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.masks import with_queries
from xenomask.models import load
from xenomask.models.runtimes import graph_cache
from xenomask.models.runtimes.runtime import WORTH_A_GRAPH, choose_runtime, with_precision, with_runtime


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", pytest.param("compiled", marks=pytest.mark.slow)])
def test_runtimes__equal_torch_on_tiny(tiny_checkpoint, runtime):
    network = load_model(tiny_checkpoint)
    other = load_model(tiny_checkpoint, runtime=runtime)
    image = np.random.default_rng(0).integers(0, 255, (47, 61, 3), np.uint8)
    for _ in range(2):
        found, true = with_queries(other.predict(image)), with_queries(network.predict(image))
        assert torch.allclose(found.class_logits, true.class_logits, atol=1e-4)
        assert torch.allclose(found.mask_logits, true.mask_logits, atol=1e-4)
        assert (found.input_size, found.padded_size) == (true.input_size, true.padded_size)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_runtimes__equal_torch_on_nano_s_at_an_odd_size(runtime):
    image = np.random.default_rng(0).integers(0, 255, (101, 183, 3), np.uint8)
    found, true = (
        with_queries(load_model("nano-s", r).predict(image, size_policy="native")) for r in (runtime, "torch")
    )
    assert torch.allclose(found.class_logits, true.class_logits, atol=1e-3)
    assert torch.allclose(found.mask_logits, true.mask_logits, atol=1e-3)


def test_runtimes__build_once_a_size_and_keep_the_last_ones(tiny_checkpoint, monkeypatch):
    built = []

    def build(network, x):
        built.append(tuple(x.shape[2:]))
        return lambda x: (x[:, :, 0], x)

    monkeypatch.setattr("xenomask.models.runtimes.runtime._openvino", build)
    network = with_runtime(load(tiny_checkpoint), "openvino")
    sizes = [(32, 32 * i) for i in (1, 2, 1, 3, 4, 5, 1, 2)]
    for size in sizes:
        network(torch.zeros(1, 3, *size))
    assert built == [(32, 32), (32, 64), (32, 96), (32, 128), (32, 160), (32, 64)]


def test_runtimes__errors_say_why(tiny_checkpoint, tiny_detector, monkeypatch):
    with pytest.raises(XenomaskError, match="unknown runtime 'openvin'; did you mean 'openvino'"):
        Detector.from_folder(tiny_detector, runtime="openvin")
    with pytest.raises(XenomaskError, match="runtime openvino is for the CPU, not for device cuda"):
        load_model(tiny_checkpoint, runtime="openvino", device="cuda")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(XenomaskError, match=r"openvino is not installed: pip install 'xenomask\[openvino\]'"):
        load_model(tiny_checkpoint, runtime="openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(XenomaskError, match=r"onnxruntime is not installed: pip install 'xenomask\[onnx\]'"):
        load_model(tiny_checkpoint, runtime="onnxruntime")
    network = load(tiny_checkpoint)
    monkeypatch.setenv("XENOMASK_CACHE", "off")
    monkeypatch.setattr("xenomask.models.runtimes.runtime.Raw.forward", lambda self, image: (image.item(), image))
    monkeypatch.setitem(sys.modules, "openvino", sys)
    with pytest.raises(XenomaskError, match="this network cannot be written as a graph: "):
        with_runtime(network, "openvino")(torch.zeros(1, 3, 64, 64))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XENOMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


class Built:
    """What stands for tracing and translating: counts how often it is asked."""

    def __init__(self, monkeypatch):
        self.count, self.model = 0, small_model()
        monkeypatch.setattr("xenomask.models.runtimes.runtime.trace", lambda module, x: None)
        monkeypatch.setattr("xenomask.models.runtimes.runtime.to_openvino", self)

    def __call__(self, *_):
        self.count += 1
        return self.model


def test_graph_cache__the_second_start_reads_what_the_first_built(tiny_checkpoint, cache, monkeypatch):
    x, built = torch.rand(1, 3, 32, 64), Built(monkeypatch)
    first = with_runtime(load(tiny_checkpoint), "openvino")(x)
    (entry,) = cache.iterdir()
    assert {p.name for p in entry.iterdir()} == {"graph.xml", "graph.bin", "facts.json"}
    second = with_runtime(load(tiny_checkpoint), "openvino")(x)
    assert built.count == 1 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(first[1], x * torch.tensor([0.5, 1.5, 2.5])[:, None, None])
    with_runtime(load(tiny_checkpoint), "openvino")(x[..., :32])  # another size is another graph
    assert built.count == 2 and len(list(cache.iterdir())) == 2


def test_graph_cache__a_damaged_graph_is_told_and_built_anew(tiny_checkpoint, cache, monkeypatch, caplog):
    x, built = torch.rand(1, 3, 32, 64), Built(monkeypatch)
    good = with_runtime(load(tiny_checkpoint), "openvino")(x)
    (entry,) = cache.iterdir()
    for name in ("graph.bin", "graph.xml", "facts.json"):
        path = entry / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with caplog.at_level(logging.WARNING):
            found = with_runtime(load(tiny_checkpoint), "openvino")(x)
        assert torch.equal(found[1], good[1]) and "is damaged and built anew" in caplog.text
        caplog.clear()
    assert built.count == 4


def test_graph_cache__off_unwritable_and_too_large(tiny_checkpoint, cache, monkeypatch, caplog, tmp_path):
    x, built = torch.rand(1, 3, 32, 64), Built(monkeypatch)
    network = load(tiny_checkpoint)
    monkeypatch.setenv("XENOMASK_CACHE", "off")
    with_runtime(network, "openvino")(x)
    assert graph_cache.cache_folder() is None and not cache.exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XENOMASK_CACHE", str(tmp_path / "file"))
    with_runtime(network, "openvino")(x)
    assert "the graph is not kept for the next start" in caplog.text and built.count == 2
    monkeypatch.setenv("XENOMASK_CACHE", str(cache.parent))
    monkeypatch.setattr(graph_cache, "LIMIT", 1)
    for i, width in enumerate((32, 64, 96)):
        with_runtime(network, "openvino")(torch.rand(1, 3, 32, width))
        (kept,) = cache.iterdir()  # the newest alone, however large
        os.utime(kept, (i, i))
    assert kept.name == graph_cache.graph_key(network, (1, 3, 32, 96))


def test_graph_key__is_of_the_numbers_in_the_module_and_its_configuration(tiny_checkpoint):
    network, again = load(tiny_checkpoint), load(tiny_checkpoint)
    key = graph_cache.graph_key(network, (1, 3, 32, 64))
    assert key == graph_cache.graph_key(again, (1, 3, 32, 64)) != graph_cache.graph_key(again, (2, 3, 32, 64))
    with torch.no_grad():
        next(again.module.parameters()).mul_(1.5)
    assert key != graph_cache.graph_key(again, (1, 3, 32, 64))
    other = load(tiny_checkpoint)
    other.config.layer_norm_eps = 1e-3
    assert key != graph_cache.graph_key(other, (1, 3, 32, 64))


def test_runtimes__a_last_batch_is_padded_to_the_graph_that_is_there(tiny_checkpoint, monkeypatch):
    built = []

    def build(network, x):
        built.append(tuple(x.shape))
        assert len(x) == 3
        return lambda x: (x[:, :, 0], 2 * x)

    monkeypatch.setattr("xenomask.models.runtimes.runtime._openvino", build)
    network, x = with_runtime(load(tiny_checkpoint), "openvino"), torch.rand(3, 3, 32, 32)
    network(x)
    for n in (1, 2):
        once, twice = network(x[:n])
        assert torch.equal(once, x[:n, :, 0]) and torch.equal(twice, 2 * x[:n])
    assert built == [(3, 3, 32, 32)]


def test_choose_runtime__says_why(tiny_checkpoint, cache, monkeypatch):
    network, size = load(tiny_checkpoint), (60, 100)

    def chosen(frames, **rest):
        return choose_runtime([network], size, frames, **rest)

    assert chosen(0) == ("torch", "there is nothing left to do")
    assert chosen(3) == ("torch", "3 photos are not worth building openvino's graphs")
    assert chosen(WORTH_A_GRAPH)[0] == "openvino" and "worth building" in chosen(WORTH_A_GRAPH)[1]
    assert chosen(WORTH_A_GRAPH, device="cuda:0") == ("torch", "openvino is not for cuda:0")
    half = with_precision(network, "bfloat16")
    assert choose_runtime([half], size, WORTH_A_GRAPH) == ("torch", "openvino computes in float32 only")
    Built(monkeypatch)
    x = network.prepare(np.zeros((*size, 3), np.uint8)).x
    with_runtime(network, "openvino")(x)  # keeps the graph of just the photos' size
    assert chosen(1) == ("openvino", "its graphs are kept from an earlier run")
    assert chosen(1, batch=2)[0] == "torch" and choose_runtime([network], (80, 60), 1)[0] == "torch"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert chosen(WORTH_A_GRAPH) == ("torch", "openvino is not installed")


def test_precision__bfloat16_is_near_float32_and_not_it(tiny_checkpoint):
    network = load(tiny_checkpoint)
    x = torch.rand(2, 3, 64, 96)
    true, found = network(x), with_precision(network, "bfloat16")(x)
    for a, b in zip(true, found, strict=True):
        assert b.dtype == torch.float32 and 0 < (a - b).abs().mean() < 0.02 * a.abs().mean().clamp(min=1)
    assert all(torch.equal(a, b) for a, b in zip(true, with_precision(network, "float32")(x), strict=True))


def test_precision__errors_say_why(tiny_checkpoint):
    network = load(tiny_checkpoint)
    with pytest.raises(XenomaskError, match="unknown precision 'bfloat'; did you mean 'bfloat16'"):
        with_precision(network, "bfloat")
    with pytest.raises(XenomaskError, match="float16 is for GPUs"):
        with_precision(network, "float16")
    with pytest.raises(XenomaskError, match="runtime openvino computes in float32, not in bfloat16"):
        with_runtime(with_precision(network, "bfloat16"), "openvino")
    with pytest.raises(XenomaskError, match="runtime openvino was built for float32: choose the precision first"):
        with_precision(replace(network, run=lambda x: (x, x), runtime="openvino"), "bfloat16")
