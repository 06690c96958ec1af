"""Scores that read the masks themselves, weighted by what their queries believe."""

import torch
from jaxtyping import Float
from torch import Tensor

from xenomask.types import QuerySet

P = Float[Tensor, "q n"]  # K known classes and the rest: see masks.class_probabilities
M = Float[Tensor, "q r W"]
Rows = Float[Tensor, "r W"]


def void_mass(p: P, m: M, queries: QuerySet) -> Rows:
    """sum_q P_q(no known class) m_q: what the masks claim for nothing known."""
    return torch.einsum("q,qrw->rw", p[:, -1], m)


def eam(p: P, m: M, queries: QuerySet) -> Rows:
    """1 - sum_q m_q max_{k<K} P_q(k) (Grcic et al. 2023, EAM); below 0 where confident masks overlap."""
    return 1 - torch.einsum("q,qrw->rw", p[:, :-1].amax(1), m)


def uno(p: P, m: M, outlier: Float[Tensor, " q"]) -> Rows:
    """sum_q m_q [P_q(outlier) - max_{k<K} P_q(k)] (Delic et al. 2024, UNO): negative objectness and uncertainty."""
    return torch.einsum("q,qrw->rw", outlier - p[:, :-1].amax(1), m)
