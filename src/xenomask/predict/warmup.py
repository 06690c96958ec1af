"""Detector + photo sizes -> what the first photo would otherwise wait for: kept graphs and compiled kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xenomask.detector import Detector
from xenomask.models.preprocess import input_size
from xenomask.models.runtimes.runtime import keep_ready
from xenomask.objects import find_objects
from xenomask.types import Size


@dataclass(frozen=True)
class Warmed:
    """A network's graph for one input size, the photo sizes that share it, and what it takes on disk."""

    network: str
    # height, width
    input: Size
    photos: list[Size]
    kept_before: bool
    megabytes: float


def compile_kernels(detector: Detector) -> None:
    """Run all of `detect` that numba compiles once, on a small photo: its machine code is kept on disk."""
    found = detector(np.zeros((64, 128, 3), np.uint8))
    find_objects(found.score_map.value, float(found.score_map.value.min()))
    found.overlay()


def keep_graphs(detector: Detector, sizes: Sequence[Size], tick: Callable[[Warmed], None]) -> list[Warmed]:
    """Build, compile and keep OpenVINO's graph of each member for photos of these sizes, those that are not kept yet.

    Photos of other sizes share a graph where the network's input has one size. Per-pixel networks have none. Raises
    XenomaskError where openvino is not installed, and where nothing can be kept.
    """
    made = []
    for m in detector.used:
        inputs: dict[Size, list[Size]] = {}
        for size in sizes:
            inputs.setdefault(input_size(m.network.preprocess, size), []).append(size)
        for own, photos in inputs.items() if not m.network.per_pixel else ():
            before, size = keep_ready(m.network.whole, (1, 3, *own))
            made.append(Warmed(m.name, own, photos, before, size / 1e6))
            tick(made[-1])
    return made
