"""The networks of an ensemble side by side on a GPU, each on a CUDA stream of its own; one after the other elsewhere.

After "CUDA streams" in PyTorch's notes on CUDA semantics. NOTE: never run on a GPU yet, see docs/gpu.md.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from xenomask.masks import MaskOutput, PixelOutput
from xenomask.models.network import Network, Prepared


@lru_cache
def _stream(device: torch.device, number: int) -> Any:
    """A member's own, the same one for every photo: PyTorch keeps the memory of each stream apart."""
    return torch.cuda.Stream(device)


def look(
    networks: Sequence[Network], photos: Sequence[Sequence[Prepared]]
) -> list[list[MaskOutput] | list[PixelOutput]]:
    """networks[i].look(photos[i]) of each network; the caller's stream waits for all of them."""
    devices = {p.device for n in networks for p in islice(n.module.parameters(), 1)}
    device = next(iter(devices), torch.device("cpu"))
    if len(networks) < 2 or len(devices) > 1 or device.type != "cuda":
        return [n.look(own) for n, own in zip(networks, photos, strict=True)]
    here, found = torch.cuda.current_stream(device), []
    # looks of one network share a stream, as they may share a recorded graph and the memory that it reads and writes
    modules = [id(n.module) for n in networks]
    streams = [_stream(device, modules.index(m)) for m in modules]
    try:
        for network, own, stream in zip(networks, photos, streams, strict=True):
            stream.wait_stream(here)  # for the photos, and for what was done with the outputs before
            with torch.cuda.stream(stream):
                found.append(network.look(own))
    finally:  # after an error too: the photos' memory may be given to others then
        for stream in streams:
            here.wait_stream(stream)
    for output in (o for outputs in found for o in outputs):
        for tensor in vars(output).values():
            if isinstance(tensor, Tensor):
                tensor.record_stream(here)  # made on the member's stream, read and freed on this one
    return found
