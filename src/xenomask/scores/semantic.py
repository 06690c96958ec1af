"""Scores that read the semantic masses L_k(x) = sum_q P_q(k) m_q(x), k < K, alone.

L is bounded and does not sum to one: it is no logit, and no probability either.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from xenomask.masks import semantic
from xenomask.types import QuerySet

# Where no mask covers a pixel, L / sum L is 0 / 0; with this share for every class it is uniform there.
UNCOVERED = 1e-8

P = Float[Tensor, "q n"]
M = Float[Tensor, "q r W"]
Rows = Float[Tensor, "r W"]


def _shares(p: P, m: M) -> Float[Tensor, "k r W"]:
    mass = semantic(p, m) + UNCOVERED
    return mass / mass.sum(0)


def msp(p: P, m: M, queries: QuerySet) -> Rows:
    """1 - max_k softmax(L)_k (Hendrycks & Gimpel 2017, on L); flat, as L is bounded."""
    return 1 - semantic(p, m).softmax(0).amax(0)


def max_logit(p: P, m: M, queries: QuerySet) -> Rows:
    """-max_k L_k (Hendrycks et al. 2022, on L; Mask2Anomaly's base score up to a constant)."""
    return -semantic(p, m).amax(0)


def max_share(p: P, m: M, queries: QuerySet) -> Rows:
    """1 - max_k L_k / sum_k L_k: how little the winner owns of what the masks claim."""
    return 1 - _shares(p, m).amax(0)


def entropy(p: P, m: M, queries: QuerySet) -> Rows:
    """-sum_k s_k log s_k / log K with s = L / sum_k L, in [0, 1]."""
    shares = _shares(p, m)
    return torch.special.entr(shares).sum(0) / torch.log(torch.tensor(float(len(shares))))


def entropy_softmax(p: P, m: M, queries: QuerySet) -> Rows:
    """-sum_k s_k log s_k / log K with s = softmax(L), in [0, 1]; flat, as L is bounded."""
    shares = semantic(p, m).softmax(0)
    return torch.special.entr(shares).sum(0) / torch.log(torch.tensor(float(len(shares))))


def energy(p: P, m: M, queries: QuerySet) -> Rows:
    """-logsumexp_k L_k (Liu et al. 2020, on L)."""
    return -semantic(p, m).logsumexp(0)


def not_covered(p: P, m: M, queries: QuerySet) -> Rows:
    """1 - clip(sum_k L_k, 0, 1): the mass that no class claims."""
    return 1 - semantic(p, m).sum(0).clamp(0, 1)


def rba(p: P, m: M, queries: QuerySet) -> Rows:
    """-sum_k tanh(L_k): rejected by all (Nayal et al. 2023, eq. 5; released code: L first, then tanh)."""
    return -semantic(p, m).tanh().sum(0)
