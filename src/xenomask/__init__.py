"""xenomask: finds, per pixel, what a road scene's segmentation network was never trained on."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from xenomask.version import __version__ as __version__

if TYPE_CHECKING:  # importing xenomask loads no torch
    from xenomask.detector import Detector
    from xenomask.metrics.frames import evaluate_arrays as evaluate
    from xenomask.models.network import Network

__all__ = ["Detector", "__version__", "evaluate", "load_model"]
_LATER = {"Detector": ("xenomask.detector", "Detector"), "evaluate": ("xenomask.metrics.frames", "evaluate_arrays")}


def __getattr__(name: str) -> object:
    """What is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'xenomask' has no attribute {name!r}")
    module, attribute = _LATER[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__


def load_model(folder_or_name: str | Path, runtime: str = "torch", device: str = "cpu") -> "Network":
    """A network from a checkpoint folder, a Hugging Face folder, a shipped one's name ("nano-s", "nano-l"), or the Hub.

    The Hub is asked for "org/name@revision" (or "hf:org/name") and for a known network's name, `xenomask detectors`.

    Called with a normalised batch (B, 3, H, W) it gives class logits (B, Q, N) and mask logits (B, Q, h, w); its
    `predict(image)` takes an RGB uint8 photo and gives a MaskOutput. A per-pixel network (SegFormer, UPerNet) has
    `class_maps(batch)` (B, K, h, w) instead, and its `predict` gives a PixelOutput. `runtime` is torch, compiled,
    openvino or onnxruntime (CPU only). Raises XenomaskError for an unknown name or runtime, a
    runtime that is not installed or not for the device, and for damaged files.

    >>> network = load_model("nano-s")
    >>> network.facts["preset"]
    'nano-s'
    """
    from xenomask.detector import hub
    from xenomask.errors import unknown
    from xenomask.models.loading import load
    from xenomask.models.runtimes.runtime import check_runtime, with_runtime

    check_runtime(runtime, device)
    shipped = {p.parent.name: p.parent for p in Path(__file__).parent.glob("detectors/*/*/config.json")}
    folder = Path(folder_or_name)
    name = str(folder_or_name)
    # "checkpoints/nanoo" beside a folder "checkpoints" is a misspelt path and asks nobody
    if hub.is_remote(name) or (hub.NAME.fullmatch(name) and not folder.is_dir() and not folder.parent.is_dir()):
        return with_runtime(hub.fetch_network(name, device), runtime, device)
    if not folder.is_dir() and str(folder_or_name) not in shipped:
        raise unknown("checkpoint folder", str(folder_or_name), shipped)
    network = load(folder if folder.is_dir() else shipped[str(folder_or_name)], device)
    return with_runtime(network, runtime, device)
