"""models: image -> MaskOutput, or PixelOutput of a per-pixel network."""

from xenomask.models.load import load as load
from xenomask.models.network import Network as Network
from xenomask.models.network import build as build
from xenomask.models.preprocess import Preprocess as Preprocess
from xenomask.models.presets import PRESETS as PRESETS
