"""A network's batches as CUDA graphs: its kernels are recorded once for a size, and launched as one from then on.

After "Whole-network capture" in PyTorch's notes on CUDA semantics. NOTE: never run on a GPU yet, see docs/gpu.md.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xenomask.errors import XenomaskError, first_line
from xenomask.models.network import Network

WARM_UP = 3  # runs before the capture, in which libraries choose their kernels and take their memory


class Constants(TorchFunctionMode):
    """While it is open, tensors that are made of Python's numbers are made once and copied on their device after that.

    A graph may not copy from the host's memory while it is recorded; transformers' pixel decoder does so for the sizes
    of its levels.
    """

    def __init__(self):
        super().__init__()
        self.kept: dict[str, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.tensor, torch.as_tensor) or any(isinstance(a, Tensor) for a in args):
            return func(*args, **kwargs)
        key = f"{func.__name__} {args} {sorted(kwargs.items())}"
        if key not in self.kept:
            self.kept[key] = func(*args, **kwargs)
        return self.kept[key].clone()


@dataclass(frozen=True)
class Captured:
    """A recorded network; what its graph reads and writes by address lives as long as it does."""

    graph: Any  # torch.cuda.CUDAGraph, which is not there in PyTorch for CPUs
    given: Tensor
    made: tuple[Tensor, Tensor]
    constants: Constants

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(class logits, mask logits) of a batch of the recorded size, in memory of their own."""
        self.given.copy_(x)
        self.graph.replay()
        classes, masks = self.made
        return classes.clone(), masks.clone()  # the next replay writes over them


def capture(network: Network, x: Tensor) -> Captured:
    """The eager network as one CUDA graph for batches of x's shape; XenomaskError where it cannot be recorded."""
    eager, constants, graph = replace(network, run=None), Constants(), torch.cuda.CUDAGraph()
    device = next(network.module.parameters()).device
    try:
        with torch.cuda.device(device):
            given = x.to(device, torch.float32, memory_format=torch.channels_last, copy=True)
            here, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(here)
            with torch.cuda.stream(side), constants:
                for _ in range(WARM_UP):
                    eager(given)
            here.wait_stream(side)
            # thread_local: other threads (the scores of the photo before) may take memory meanwhile
            with constants, torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                made = eager(given)
    except RuntimeError as e:  # also of too little memory
        raise XenomaskError(
            f"this network cannot be recorded as a CUDA graph: {first_line(e)}; take --runtime torch or compiled"
        ) from e
    return Captured(graph, given, made, constants)
