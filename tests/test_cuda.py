"""CUDA graphs and streams where there is no GPU: a stand-in that replays what it recorded, tensors without data."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from test_cli import fails
from xenomask import load_model
from xenomask.errors import XenomaskError
from xenomask.models import build, load, streams
from xenomask.models.cuda_graphs import WARM_UP, Constants, capture
from xenomask.models.deformable import plain
from xenomask.models.network import Prepared
from xenomask.models.runtimes.runtime import KEPT, with_precision, with_runtime

ROOT = Path(__file__).parents[1]


def tensors(tree: Any) -> list[Tensor]:
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor)]


class Recorder(TorchDispatchMode):
    """What stands for a graph: keeps each operation, the memory that it reads and that which it writes."""

    def __init__(self):
        super().__init__()
        self.done: list[tuple] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, out))
        return out

    def made(self) -> Iterator[Tensor]:
        """What operations took memory for: no views, and nothing that was there before."""
        for _, args, kwargs, out in self.done:
            known = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
            yield from (t for t in tensors(out) if t.untyped_storage().data_ptr() not in known)

    def replay(self) -> None:
        for func, args, kwargs, out in self.done:
            for old, new in zip(tensors(out), tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Cuda:
    """The part of torch.cuda that is used, on the CPU; `log` has what happens on which stream, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.log: list[tuple[str, ...]] = []
        self.made = 0
        self.now = self.new_stream()  # s1, the default
        for name, stands_in in (
            ("Stream", self.new_stream), ("CUDAGraph", self.new_graph), ("graph", self.captures), ("stream", self.on),
            ("current_stream", lambda device=None: self.now), ("device", lambda device: nullcontext()),
            ("is_available", lambda: True),
        ):  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, stands_in)

    def new_stream(self, device: Any = None) -> Any:
        self.made += 1
        name = f"s{self.made}"
        return SimpleNamespace(name=name, wait_stream=lambda other: self.log.append((name, "waits for", other.name)))

    def new_graph(self) -> Any:
        recorder = Recorder()

        def replay() -> None:
            self.log.append((self.now.name, "replays"))
            recorder.replay()

        return SimpleNamespace(recorder=recorder, replay=replay)

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self.now = self.now, stream
        try:
            yield
        finally:
            self.now = before

    @contextmanager
    def captures(self, graph: Any, *, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        self.log.append((stream.name, "captures"))
        with self.on(stream), graph.recorder:
            yield
        for t in graph.recorder.made():  # a capture computes nothing
            t.fill_(torch.nan if t.is_floating_point() else 1)


@pytest.fixture
def cuda(monkeypatch):
    streams._stream.cache_clear()
    yield Cuda(monkeypatch)
    streams._stream.cache_clear()


def test_capture__warms_up_on_a_side_stream_and_replays_into_memory_of_its_own(tiny_checkpoint, cuda):
    network = load(tiny_checkpoint)
    network.module.register_forward_pre_hook(lambda *_: cuda.log.append((cuda.now.name, "runs")))
    first, second = torch.rand(2, 1, 3, 64, 96)
    with plain(network.module), torch.inference_mode():  # numba's kernel cannot be recorded
        run = capture(network, first)
        runs = [("s2", "runs")]
        warm = [("s2", "waits for", "s1"), *runs * WARM_UP, ("s1", "waits for", "s2")]
        assert cuda.log == [*warm, ("s2", "captures"), *runs]
        cuda.log.clear()
        found = [run(x) for x in (second, first, second)]
        assert cuda.log == [("s1", "replays")] * 3
        true = [replace(network, run=None)(x) for x in (second, first, second)]
    for a, b in zip(found, true, strict=True):
        assert all(torch.equal(m, n) for m, n in zip(a, b, strict=True))
    assert run.given.data_ptr() != first.data_ptr() and run.given.is_contiguous(memory_format=torch.channels_last)


def test_graphs__one_a_size_and_the_last_ones_are_kept(tiny_checkpoint, cuda, monkeypatch):
    monkeypatch.setattr("xenomask.models.runtimes.check_runtime", lambda *_: None)  # the weights are on the CPU here
    network = with_runtime(load(tiny_checkpoint), "graphs")
    assert network.runtime == "graphs"
    true = replace(network, run=None)

    def captures() -> int:
        return sum(what[1] == "captures" for what in cuda.log)

    with plain(network.module):
        for i, wide in enumerate([1, 2, 1, 3, 4, 5, 1, 2]):
            x = torch.rand(1, 3, 64, 32 * wide)
            assert all(torch.equal(a, b) for a, b in zip(network(x), true(x), strict=True)), i
    assert KEPT == 4 and captures() == 6


def test_graphs__what_cannot_be_recorded_is_one_line(tiny_checkpoint, cuda):
    network = load(tiny_checkpoint)

    def asks(*_: Any) -> None:
        if cuda.log and cuda.log[-1][1] == "captures":
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors might")

    network.module.register_forward_pre_hook(asks)
    with pytest.raises(XenomaskError) as e:
        capture(network, torch.rand(1, 3, 64, 64))
    assert str(e.value) == (
        "this network cannot be recorded as a CUDA graph: CUDA error: operation not permitted when stream is "
        "capturing; take --runtime torch or compiled"
    )


def test_graphs__without_cuda_are_refused_in_one_line(tiny_checkpoint, tiny_detector, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), np.zeros((32, 64, 3), np.uint8))
    text = "runtime graphs is for CUDA devices, and there is none here: take another --runtime"
    assert text in fails(capsys, "detect", photo, "--detector", tiny_detector, "--runtime", "graphs")
    with pytest.raises(XenomaskError, match=text):
        load_model(tiny_checkpoint, "graphs", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(XenomaskError, match="runtime graphs is for CUDA devices, not for device cpu: take another"):
        load_model(tiny_checkpoint, "graphs")


class HostCopies(TorchDispatchMode):
    """Operations that a CUDA graph may not record: those between the host's memory and the GPU's."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # the host's alone are no part of a graph: transformers 5.17 draws a number for each layer, for training
        if len({t.device.type for t in tensors((args, kwargs, out))}) > 1:
            self.found.append(str(func))
        return out


PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@PRECISIONS
@pytest.mark.parametrize("preset", ["nano-s", pytest.param("swin-s", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kernel", [True, False], ids=["triton", "theirs"])
def test_networks__copy_nothing_between_host_and_gpu_while_they_are_recorded(preset, precision, kernel, monkeypatch):
    """By tensors that have a device and no data; what asks for a value (any, item, nonzero) raises for them."""
    stands_in = (lambda value, *_: value.new_empty(value.shape).flatten(2)) if kernel else None
    monkeypatch.setattr("xenomask.models.deformable._on_cuda", lambda: stands_in)
    network = with_precision(build(preset), precision)
    module, constants = network.module, Constants()
    with monkeypatch.context() as patch:  # for its constructor alone: tensors without data must not look for a GPU
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        autocast = network.autocast("cuda")

    def copies(*modes: Any) -> list[str]:
        with ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            watch = stack.enter_context(HostCopies())
            stack.enter_context(autocast)
            out = torch.func.functional_call(module, on_gpu, kwargs={"pixel_values": x})
        assert out.masks_queries_logits.device.type == "cuda"
        return watch.found

    with torch.no_grad(), FakeTensorMode():
        on_gpu = {
            k: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda")
            for k, t in [*module.named_parameters(), *module.named_buffers()]
        }
        x = torch.empty(1, 3, 64, 96, device="cuda").contiguous(memory_format=torch.channels_last)
        assert "aten._to_copy.default" in copies()  # transformers' table of level sizes: this test can fail
        copies(constants)
        assert copies(constants) == []


class Seen(Tensor):
    """A tensor that tells which stream it is recorded on."""

    log: list[tuple[str, ...]]

    def record_stream(self, stream: Any) -> None:
        self.log.append(("output", "is recorded on", stream.name))


class OnGpu(nn.Module):
    """A module that says that its weights are on a GPU."""

    def parameters(self, recurse: bool = True) -> Any:
        return iter([SimpleNamespace(device=torch.device("cuda", 0))])


def test_streams__members_on_streams_of_their_own_which_wait_and_are_waited_for(tiny_checkpoint, cuda, monkeypatch):
    monkeypatch.setattr(Seen, "log", cuda.log, raising=False)

    def member(name: str, fail: bool = False) -> Any:
        def run(x: Tensor) -> tuple[Tensor, Tensor]:
            cuda.log.append((cuda.now.name, "runs", name))
            if fail:
                raise RuntimeError("out of memory")
            return torch.zeros(1, 4, 3).as_subclass(Seen), torch.zeros(1, 4, 8, 8).as_subclass(Seen)  # pyright: ignore

        return replace(load(tiny_checkpoint), module=OnGpu(), run=run)

    photo = [Prepared(torch.zeros(1, 3, 32, 32), (32, 32), (32, 32))]
    two, own = [member("a"), member("b")], [photo, photo]
    once = [
        ("s2", "waits for", "s1"), ("s2", "runs", "a"), ("s3", "waits for", "s1"), ("s3", "runs", "b"),
        ("s1", "waits for", "s2"), ("s1", "waits for", "s3"), *[("output", "is recorded on", "s1")] * 4,
    ]  # fmt: skip
    found = streams.look(two, own)
    assert [len(f) for f in found] == [1, 1] and cuda.log == once and cuda.now.name == "s1"
    streams.look(two, own)
    assert cuda.log == once * 2  # the same streams again
    cuda.log.clear()
    with pytest.raises(RuntimeError):
        streams.look([two[0], member("b", fail=True)], own)
    assert cuda.log[-2:] == [("s1", "waits for", "s2"), ("s1", "waits for", "s3")] and cuda.now.name == "s1"
    cuda.log.clear()
    streams.look(two[:1], own[:1])
    assert cuda.log == [("s1", "runs", "a")]  # alone: nothing to run beside


def test_streams__on_a_cpu_nothing_is_asked_of_cuda(tiny_checkpoint, monkeypatch):
    for name in ("current_stream", "Stream", "stream"):
        monkeypatch.setattr(torch.cuda, name, None)
    networks = [load(tiny_checkpoint)] * 2
    photo = [Prepared(torch.zeros(1, 3, 64, 64), (64, 64), (64, 64))]
    a, b = streams.look(networks, [photo, photo])
    assert torch.equal(a[0].mask_logits, b[0].mask_logits)  # pyright: ignore


def test_benchmark__dry_run_compares_the_ways_that_a_cpu_has(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/ensemble_gpu.py", "--out", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1 and "no CUDA device: this benchmark times a GPU" in refused.stderr
    assert not any(tmp_path.iterdir())
    done = subprocess.run([*command, "--dry"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {r["name"]: r for r in json.loads((tmp_path / "ensemble_gpu.json").read_text())["rows"]}
    assert found["float32"]["largest_difference"] < 1e-5 < found["bfloat16"]["largest_difference"] < 0.1
    assert found["bfloat16, streams"]["largest_difference"] == found["bfloat16"]["largest_difference"]
    assert "runtime graphs is for CUDA devices" in found["bfloat16, graphs"]["failed"]
    assert (tmp_path / "ensemble_gpu.md").read_text() in done.stdout
