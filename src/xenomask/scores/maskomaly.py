"""Maskomaly (Ackermann et al., BMVC 2023): an outlier branch and a rejection branch, mixed.

Written from a description of the released code's arithmetic; nothing of that code (GPL-2.0) is here.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from xenomask.arrays import Tensor
from xenomask.masks import library
from xenomask.scores.codes import MASKOMALY
from xenomask.scores.definition import Gather, P, Rows, Score, Twin
from xenomask.shapes import Float
from xenomask.types import QuerySet

MIX, CONFIDENCE = 0.6, 0.7
REJECTION, OUTLIER, GROUND, BORDER = "rejection", "outlier", "ground", "masks at border"


def gather(
    p: P,
    queries: QuerySet,
    outlier: Float[Tensor, " q"] | None = None,
    *,
    inlier: Literal["confident", "specialised"] = "confident",
    confidence: float = CONFIDENCE,
    border: float | None = 0.1,
) -> Gather:
    """The peaks of p_q m_q over the rejecting, the outlier and the ground queries, and the count of masks at borders.

    With p_q = max_c P_q(c) over all N entries and c_q its argmax, the rejecting (inlier) queries are those of this
    image with c_q < K and p_q > `confidence` ("confident", as released) or the precomputed set ("specialised", as
    described). Counted are masks with c_q < K that exceed `border` (None: rule off).
    """
    top, known, rejecting, fires, ground = roles(p, queries, inlier, confidence)
    # NOTE: the released code loops over all pairs i < j of masks and clears R where both exceed .1 (its comment says
    # .001). "Both of some pair" is "at least two", so a count does it in O(Q).
    counts = {} if border is None else {BORDER: library(top).where(known, 0 * top + border, np.inf)}
    return Gather({REJECTION: top * rejecting, OUTLIER: top * fires, GROUND: top * ground}, counts)


def branches(found: Mapping[str, Tensor]) -> tuple[Rows, Rows]:
    """R and O: R = 1 - the rejection's peak, 0 where two or more masks meet, then lowered by the ground queries."""
    r = 1 - found[REJECTION]
    if BORDER in found:
        r = library(r).where(found[BORDER] >= 2, 0 * r, r)
    return library(r).minimum(r, 1 - found[GROUND]), found[OUTLIER]


def finish(found: Mapping[str, Tensor], *, mix: float = MIX) -> Rows:
    """mix * R + (1 - mix) * O, in [0, 1]; R is 1 and O is 0 without queries of their kind."""
    r, o = branches(found)
    return mix * r + (1 - mix) * o


def roles(p: P, queries: QuerySet, inlier: str, confidence: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """p_q, and which queries (Q,) have an inlier class, reject, fire on outliers and lie on the ground."""
    top, argmax = library(p).amax(p, 1), library(p).argmax(p, 1)
    known = argmax < p.shape[1] - 1
    # NOTE: the paper rejects by specialised queries found beforehand; its released code takes every query
    # of this image that is confident of a class (.7, not the .9 of the analysis). Both are offered.
    rejecting = known & (top > confidence) if inlier == "confident" else _members(queries.inlier, p)
    return top, known, rejecting, _members(queries.outlier, p), _members(queries.ground, p)


def _members(indices, p: P) -> Any:
    """The queries as a mask over Q."""
    chosen = [q in indices for q in range(len(p))]
    return np.array(chosen) if isinstance(p, np.ndarray) else p.new_tensor(chosen).bool()


def twin(what: Gather, *, mix: float = MIX) -> Twin:
    """The same for the fused kernels, which need one peak less.

    Ground queries lower what the rule of borders left of R, and its 0 cannot be lowered: so one peak of the rejecting
    and the ground queries together gives the same.
    """
    inside = library(what.peaks[GROUND]).maximum(what.peaks[REJECTION], what.peaks[GROUND])
    fires = what.peaks[OUTLIER]
    return Twin(MASKOMALY, inside, fires if fires.any() else None, what.counts.get(BORDER), mix)


def parts(found: Mapping[str, Tensor], *, mix: float = MIX) -> dict[str, Any]:
    """The numbers that the map is made of, for `explain`."""
    r, o = branches(found)
    crowd = {BORDER: found[BORDER]} if BORDER in found else {}
    return {"rejection by queries": 1 - found[REJECTION], **crowd, "R": r, "O": o, "mix": mix, "mix R": mix * r,
            "(1 - mix) O": (1 - mix) * o}  # fmt: skip


def notes(what: Gather, found: Mapping[str, Tensor], *, border: float | None = 0.1, mix: float = MIX) -> list[str]:
    """What is remarkable at one pixel, for `explain`."""
    said = []
    if border is not None and (crowd := int(found[BORDER])) >= 2:
        said.append(f"border: {crowd} masks exceed {border:g} here, so the rejection R is 0")
    if not what.peaks[REJECTION].any():
        said.append("no query of this photo rejects (none is confident or specialised), so R is 1 before its rules")
    if mix < 1 and not what.peaks[OUTLIER].any():
        said.append("the detector names no outlier query, so O is 0")
    return said


def _score(name: str, formula: str, reads: tuple[str, ...], **more: Any) -> Score:
    own: Any = {"parts": parts, "notes": notes, "on_arrays": True, **more}
    return Score(name, formula, (0.0, 1.0), gather, finish, twin=twin, reads=reads, **own)


SCORES = (
    _score(
        "maskomaly",
        ".6 R + .4 O; R = min over confident queries of 1 - p_q m_q, 0 at borders; O = max over outlier queries",
        ("outlier", "ground"),
    ),
    _score(
        "maskomaly_specialised", "the same, R over the specialised queries of the query analysis",
        ("inlier", "outlier", "ground"), needs=("inlier",), options={"inlier": "specialised"},
    ),
    _score(
        "maskomaly_no_border", "maskomaly without the border rule", ("outlier", "ground"), options={"border": None}
    ),
    _score(
        "rejection", "min over confident queries of 1 - p_q m_q, nothing else", ("ground",),
        options={"border": None, "mix": 1.0},
    ),
)  # fmt: skip
