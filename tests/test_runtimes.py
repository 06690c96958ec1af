import sys

import numpy as np
import pytest
import torch

from xenomask import load_model
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.masks import with_queries
from xenomask.models import load
from xenomask.models.runtimes import with_runtime


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

    monkeypatch.setattr("xenomask.models.runtimes._openvino", build)
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
    monkeypatch.setattr("xenomask.models.runtimes.Raw.forward", lambda self, image: (image.item(), image))
    monkeypatch.setitem(sys.modules, "openvino", sys)
    with pytest.raises(XenomaskError, match="this network cannot be written as a graph: "):
        with_runtime(network, "openvino")(torch.zeros(1, 3, 64, 64))
