"""[ScoreMap] -> ScoreMap: the weighted sum at the image's size, and what refinements make of it."""

import math
from collections.abc import Sequence

import numpy as np

from xenomask.detector.member import Member, class_names
from xenomask.errors import XenomaskError
from xenomask.masks import MaskOutput, PixelOutput, class_count
from xenomask.models.config import MAHALANOBIS
from xenomask.refine import Refinement, Seen
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


def has_masks(member: Member) -> bool:
    """Whether a member's network divides a photo by several masks: no per-pixel network, and no single mask."""
    return not member.network.per_pixel and member.network.config.model_type != MAHALANOBIS


def refined(
    refine: Sequence[Refinement], found: ScoreMap, members: Sequence[Member],
    outputs: Sequence[MaskOutput | PixelOutput], low: float,
) -> ScoreMap:  # fmt: skip
    """Refine a fused map, one refinement after the other, by each member's masks; `low` is the map's lower end.

    Of several members the mean of their refined maps, by weight, is taken; those of a single query (the Mahalanobis
    network) and per-pixel ones have nothing that a map could be averaged over, and leave it to the others. Raises
    XenomaskError where none is left.
    """
    pairs = [(m, o) for m, o in zip(members, outputs, strict=True)
             if isinstance(o, MaskOutput) and len(o.class_logits) > 1]  # fmt: skip
    if not pairs:
        raise XenomaskError(f"no network has several masks, which refinement {refine[0].name} needs: leave it out")
    value, total = found.value, sum(m.weight for m, _ in pairs)
    for r in refine:
        own = [r(value, seen_by(m, o, low)) for m, o in pairs]
        value = sum(np.float32(m.weight / total) * v for (m, _), v in zip(pairs, own, strict=True))
    return ScoreMap(np.asarray(value, np.float32), found.score)


def seen_by(member: Member, output: MaskOutput, low: float) -> Seen:
    """What a refinement reads of one member; `low` is the map's lower end."""
    return Seen(output, tuple(class_names(member, class_count(output))[:-1]), low)
