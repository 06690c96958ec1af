"""Loading a checkpoint folder: the very network that was saved, quickly, and with little memory beside its weights."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from xenomask.models import build, load


def buffers_and_parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["tiny", "nano-s", pytest.param("swin-s", marks=pytest.mark.slow)])
def test_load__gives_every_tensor_of_the_module_built_the_plain_way(name, half, tmp_path):
    torch.manual_seed(3)
    plain = build(name)
    folder = plain.save(tmp_path / "c", half=half)
    if half:
        stored = {k: v.float() for k, v in load_file(folder / "model.safetensors").items() if v.is_floating_point()}
        plain.module.load_state_dict(stored, strict=False)
    wanted = buffers_and_parameters(plain.module)
    module = load(folder).module
    found = buffers_and_parameters(module)
    assert found.keys() == wanted.keys()
    for key, t in wanted.items():
        assert found[key].dtype == t.dtype and found[key].device == t.device and torch.equal(found[key], t), key
        # channels last, where the plain one is
        assert found[key].stride() == t.stride(), key
        assert found[key].requires_grad == t.requires_grad and type(found[key]) is type(t), key
    assert not module.training and not any(part.training for part in module.modules())


def test_load__can_be_trained_and_does_not_depend_on_its_file(tiny_checkpoint, tmp_path):
    folder = load(tiny_checkpoint).save(tmp_path / "c")
    module = load(folder).module
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with (folder / "model.safetensors").open("r+b") as f:
        f.truncate(100)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    module(pixel_values=torch.zeros(1, 3, 64, 64)).class_queries_logits.sum().backward()
    assert any(p.grad is not None for p in module.parameters())


MEASURE = """
import sys
from pathlib import Path
from xenomask.models import load
from xenomask.models import network
status = lambda: Path("/proc/self/status").read_text().split()
amount = lambda what: 1024 * int(status()[status().index(what) + 1])
load(Path(sys.argv[1]))  # imports, and the memory that libraries take once
before = amount("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
found = load(Path(sys.argv[2]))
print((amount("VmHWM:") - before) / sum(t.nbytes for t in found.module.state_dict().values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process' peak memory")
def test_load__takes_little_more_memory_than_the_weights(tiny_checkpoint, tmp_path):
    folder = build("swin-s").save(tmp_path / "c")
    call = [sys.executable, "-c", MEASURE, str(tiny_checkpoint), str(folder)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.3
