"""models: image -> MaskOutput, or PixelOutput of a per-pixel network."""

from typing import TYPE_CHECKING

from xenomask.later import later

if TYPE_CHECKING:  # a network whose graph is kept (kept.py) runs without torch and transformers
    from xenomask.models.loading import load as load
    from xenomask.models.network import Network as Network
    from xenomask.models.network import build as build
    from xenomask.models.preprocess import Preprocess as Preprocess
    from xenomask.models.presets import PRESETS as PRESETS

__getattr__, __dir__ = later(__name__, {
    "load": "loading", "Network": "network", "build": "network", "Preprocess": "preprocess", "PRESETS": "presets",
})  # fmt: skip
