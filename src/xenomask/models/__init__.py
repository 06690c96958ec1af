"""models: image -> MaskOutput, or PixelOutput of a per-pixel network."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a network whose graph is kept (kept.py) runs without torch and transformers
    from xenomask.models.loading import load as load
    from xenomask.models.network import Network as Network
    from xenomask.models.network import build as build
    from xenomask.models.preprocess import Preprocess as Preprocess
    from xenomask.models.presets import PRESETS as PRESETS

_LATER = {
    "load": "loading", "Network": "network", "build": "network", "Preprocess": "preprocess", "PRESETS": "presets",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """What is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'xenomask.models' has no attribute {name!r}")
    return getattr(import_module(f"xenomask.models.{_LATER[name]}"), name)
