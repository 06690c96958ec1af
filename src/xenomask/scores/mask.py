"""Scores that are sums over the masks, weighted by what their queries believe."""

from xenomask.arrays import Tensor
from xenomask.masks import library
from xenomask.scores.definition import Gather, P, Score
from xenomask.shapes import Float
from xenomask.types import QuerySet

Outlier = Float[Tensor, " q"] | None


def void_mass(p: P, queries: QuerySet, outlier: Outlier = None) -> Gather:
    """sum_q P_q(no object) m_q: what the masks claim for no training class."""
    return Gather(sums={"no known class": p[:, -1]})


def eam(p: P, queries: QuerySet, outlier: Outlier = None) -> Gather:
    """1 - sum_q m_q max_{k<K} P_q(k) (Grcic et al. 2023, EAM); below 0 where confident masks overlap."""
    return Gather(sums={"known classes": -library(p).amax(p[:, :-1], 1)}, constant=1.0)


def uno(p: P, queries: QuerySet, outlier: Outlier = None) -> Gather:
    """sum_q m_q [P_q(outlier) - max_{k<K} P_q(k)] (Delic et al. 2024, UNO): negative objectness and uncertainty."""
    assert outlier is not None
    return Gather(sums={"outlier class": outlier, "known classes": -library(p).amax(p[:, :-1], 1)})


SCORES = (
    Score("void_mass", "sum_q P_q(no object) m_q", (0.0, 1.0), void_mass, on_arrays=True),
    Score("eam", "1 - sum_q m_q max_{k<K} P_q(k)", (0.0, 1.0), eam, on_arrays=True),
    Score("uno", "sum_q m_q [P_q(outlier) - max_{k<K} P_q(k)]", (-1.0, 1.0), uno, outlier_class=True, on_arrays=True),
)
