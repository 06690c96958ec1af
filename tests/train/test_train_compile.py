"""torch.compile changes how a step is computed, not what is computed, nor what a run leaves behind.

With inductor on demand, as its C++ takes minutes where nothing is cached:
XENOMASK_COMPILE=1 python -m pytest tests/train/test_train_compile.py
"""

import os
import shutil
from functools import partial

import pytest
import torch
from accelerate.utils import TorchDynamoPlugin

from helpers.engine_recipes import recipe, same_run
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.models import load
from xenomask.train import train
from xenomask.train.config import Engine

pytestmark = [
    pytest.mark.slow,
    # torch's own, of what it does while it traces
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
ON_DEMAND = pytest.mark.skipif(
    "XENOMASK_COMPILE" not in os.environ, reason="on demand: XENOMASK_COMPILE=1 (some minutes)"
)
EMA = {"ema": 0.5}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 5, size=(64, 96))


@pytest.fixture(scope="module", autouse=True)
def their_attention():
    """Deformable attention by transformers' code, which is what is compiled, in the runs without torch.compile, too.

    At the start its points lie on the centres of cells, where bilinear reading has two slopes: which of them the kernel
    takes, and which grid_sample, is a matter of rounding.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xenomask.models.network.use_kernel", lambda module: module)
        yield


@pytest.fixture(scope="module")
def eager(scenes, tmp_path_factory):
    """Three steps without torch.compile, with a moving average."""
    work_dir = tmp_path_factory.mktemp("eager")
    train(recipe(scenes, work_dir, optim=EMA, save_every=1, keep=3))
    return work_dir


@pytest.fixture(params=["aot_eager", pytest.param("inductor", marks=ON_DEMAND)])
def backend(request, monkeypatch):
    """What runs the traced graphs: aot_eager traces and differentiates as inductor does, and generates no code."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr("accelerate.utils.TorchDynamoPlugin", lambda **_: TorchDynamoPlugin(backend=request.param))
    yield request.param
    torch._dynamo.reset()


def graphs() -> int:
    """How many graphs were compiled."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def killed_after_two(work_dir) -> None:
    """Leaves in the work folder of three steps what a kill before the third leaves."""
    shutil.rmtree(work_dir / "iter_3")
    (work_dir / "last_checkpoint").write_text("iter_2\n")


def test_train__compiled_is_eager_and_each_goes_on_from_the_other(scenes, tmp_path, eager, backend):
    own = partial(recipe, scenes, optim=EMA, save_every=1, keep=3)
    compiled = own(tmp_path / "compiled", engine=Engine(compile=True))
    folder = train(compiled)
    assert graphs() > 0
    same_run(eager, tmp_path / "compiled")
    names = [
        set(torch.load(path / "iter_3/training.pt", weights_only=True)[part])
        for path in (eager, tmp_path / "compiled")
        for part in ("weights", "optimizer")
    ]
    assert names[0] == names[2] and names[1] == names[3]
    assert load(folder).facts["preset"] == "tiny"
    # compiled, then not
    killed_after_two(tmp_path / "compiled")
    train(own(tmp_path / "compiled"))
    same_run(eager, tmp_path / "compiled")
    # not compiled, then compiled
    shutil.copytree(eager, tmp_path / "eager")
    killed_after_two(tmp_path / "eager")
    train(own(tmp_path / "eager", engine=Engine(compile=True)))
    same_run(eager, tmp_path / "eager")


@ON_DEMAND
def test_train__compiled_without_a_compiler_says_what_to_do(scenes, tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor.cpp, "cxx", (None, str(tmp_path / "no-such-compiler")))
    with pytest.raises(
        XenomaskError, match=r"torch.compile failed: .*no-such-compiler.* set CXX, or set engine.compile"
    ):
        train(recipe(scenes, tmp_path / "w", engine=Engine(compile=True)))
