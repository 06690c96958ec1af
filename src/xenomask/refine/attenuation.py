"""Class attenuation: a map counts less where the network sees a class whose false alarms are frequent."""

from typing import Any

import numpy as np

from xenomask.masks import library
from xenomask.refine.cells import class_cells, moved, to_cells
from xenomask.refine.definition import Refinement, Seen, register
from xenomask.shapes import Float

# factors of RAAS' pipeline (its README), which were never measured alone there; other classes: 1
FACTORS = {
    "sidewalk": 0.85, "building": 0.55, "wall": 0.55, "fence": 0.65, "pole": 0.8, "traffic light": 0.9,
    "traffic sign": 0.9, "vegetation": 0.55, "terrain": 0.65, "sky": 0.35, "person": 0.9, "rider": 0.9, "car": 0.9,
    "truck": 0.9, "bus": 0.9, "train": 0.9, "motorcycle": 0.9, "bicycle": 0.9,
}  # fmt: skip


def attenuation(value: Float[Any, "H W"], seen: Seen, *, alpha: float = 1.0) -> Any:
    """low + (s - low) (1 - alpha (1 - f)), f the factor of the class argmax_k L_k, low the map's lower end."""
    factors = np.array([FACTORS.get(name.lower(), 1.0) for name in seen.names], np.float32)
    L = class_cells(seen.output)
    f = library(L).asarray(factors)[L.argmax(0)]
    return moved(value, (to_cells(value, seen.output) - seen.low) * alpha * (f - 1), seen.output)


register(Refinement("attenuation", "low + (s - low) f(predicted class)", attenuation, "masks",
                    {"alpha": (0.0, 1.0)}, on_tensors=True))  # fmt: skip
