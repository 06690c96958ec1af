"""[ScoreMap] -> ScoreMap: the weighted sum at the image's size."""

import math
from collections.abc import Sequence

import numpy as np

from xenomask.errors import XenomaskError
from xenomask.types import ScoreMap


def check_weights(weights: Sequence[float], members: int) -> None:
    """Raises XenomaskError unless there is one finite weight >= 0 a member and they sum to 1."""
    if len(weights) != members:
        raise XenomaskError(f"{len(weights)} weights for {members} members; give one each")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise XenomaskError(f"ensemble weights {list(weights)} must be >= 0 and sum to 1, not {sum(weights):g}")


def ensemble(maps: Sequence[ScoreMap], weights: Sequence[float]) -> ScoreMap:
    """sum_i w_i S_i of maps of one image.

    >>> a, b = (ScoreMap(np.full((1, 1), v, np.float32), "eam") for v in (0.0, 1.0))
    >>> float(ensemble([a, b], [0.25, 0.75]).value[0, 0])
    0.75
    """
    check_weights(weights, len(maps))
    sizes = {m.value.shape for m in maps}
    if len(sizes) > 1:
        raise XenomaskError(f"maps of different sizes {sorted(sizes)} cannot be joined")
    value = sum(np.float32(w) * m.value for m, w in zip(maps, weights, strict=True))
    names = list(dict.fromkeys(m.score for m in maps))
    return ScoreMap(np.asarray(value, np.float32), "+".join(names))
