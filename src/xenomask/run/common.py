"""What the functions of this folder share: progress, manifests, pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xenomask.errors import XenomaskError
from xenomask.files import atomic

MANIFEST = "manifest.json"
Tick = Callable[[], None]


def nothing() -> None:
    """The progress of somebody who does not want to see any."""


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 RGB (H, W, 3) whole or not at all."""
    with atomic(path) as part:
        Image.fromarray(pixels).save(part, quality=90)


def read_manifest(path: Path) -> dict[str, Any]:
    """What made the maps beside it; raises XenomaskError if it is damaged."""
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise XenomaskError(f"{path} is damaged: {e}; delete it together with its maps") from e
