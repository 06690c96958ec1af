"""Maskomaly (Ackermann et al., BMVC 2023): an outlier branch and a rejection branch, mixed.

Written from a description of the released code's arithmetic; nothing of that code (GPL-2.0) is here.
"""

from dataclasses import replace
from typing import Literal

import cv2
import torch
from jaxtyping import Float
from torch import Tensor

from xenomask.masks import MaskOutput
from xenomask.types import QuerySet, ScoreMap

P = Float[Tensor, "q n"]
M = Float[Tensor, "q r W"]
Rows = Float[Tensor, "r W"]


def maskomaly(
    p: P,
    m: M,
    queries: QuerySet,
    *,
    inlier: Literal["confident", "specialised"] = "confident",
    mix: float = 0.6,
    confidence: float = 0.7,
    border: float | None = 0.1,
) -> Rows:
    """mix * R + (1 - mix) * O, in [0, 1].

    With p_q = max_c P_q(c) over all N entries and c_q its argmax: O = max over the outlier queries of
    p_q m_q (0 without any); R = min over the inlier queries of 1 - p_q m_q (1 without any), set to 0 where two
    or more masks with c_q < K exceed `border` (None: rule off), then lowered by the ground queries.
    Inlier queries are those of this image with c_q < K and p_q > `confidence` ("confident", as released) or
    the precomputed set ("specialised", as described).
    """
    top, known, sure, outlier, ground = roles(p, queries, inlier, confidence)
    weighted = m * top[:, None, None]
    o = _max(weighted, outlier)
    r = 1 - _max(weighted, sure)
    if border is not None:
        # NOTE: the released code loops over all pairs i < j of masks and clears R where both exceed .1 (its
        # comment says .001). "Both of some pair" is "at least two", so a count does it in O(Q).
        crowded = _of(m > border, known).sum(0, dtype=torch.int32) >= 2
        r = torch.where(crowded, torch.zeros_like(r), r)
    r = torch.minimum(r, 1 - _max(weighted, ground))
    return mix * r + (1 - mix) * o


def roles(p: P, queries: QuerySet, inlier: str, confidence: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """p_q, and which queries (Q,) know a class, reject, fire on outliers and lie on the ground."""
    top, argmax = p.max(1)
    known = argmax < p.shape[1] - 1
    # NOTE: the paper rejects by specialised queries found beforehand; its released code takes every query
    # of this image that is sure of a class (.7, not the .9 of the analysis). Both are offered.
    sure = known & (top > confidence) if inlier == "confident" else _members(queries.inlier, p)
    return top, known, sure, _members(queries.outlier, p), _members(queries.ground, p)


def _members(indices, p: P) -> Tensor:
    """The queries as a mask over Q."""
    return torch.tensor([q in indices for q in range(len(p))], device=p.device)


def _of(x: Tensor, chosen: Tensor) -> Tensor:
    """The chosen queries' rows of x; in an exported graph, whose shapes are fixed, the others' are 0 instead."""
    if torch.compiler.is_exporting():
        return x * chosen[:, None, None]
    return x[chosen]


def _max(weighted: M, chosen: Tensor) -> Rows:
    """The largest weighted mask of the chosen queries; 0 where none is chosen."""
    some = _of(weighted, chosen)
    return some.amax(0) if len(some) else weighted.new_zeros(weighted.shape[1:])


def as_released(output: MaskOutput, queries: QuerySet, score) -> ScoreMap:
    """The map with the released code's geometry: padding kept, stretched over the image by INTER_AREA.

    For comparison only: where the input was padded, the map is shifted by up to the padding's share
    (1280x720 -> 1820x1024 -> 1824x1024: 0.2 %).
    """
    H, W = output.image_size
    padded = replace(output, input_size=output.padded_size, image_size=output.padded_size)
    value = cv2.resize(score(padded, queries).value, (W, H), interpolation=cv2.INTER_AREA)
    return ScoreMap(value, score.name)
