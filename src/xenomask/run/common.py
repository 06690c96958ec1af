"""What the functions of this folder share: progress, manifests, pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xenomask.errors import XenomaskError
from xenomask.files import atomic, read_object

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
        return read_object(path)
    except XenomaskError as e:
        raise XenomaskError(f"{e}; delete it together with its maps") from e
