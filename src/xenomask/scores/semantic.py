"""Scores that read the class map L (K, rows, W) alone.

Of a mask transformer, L_k(x) = sum_q P_q(k) m_q(x), k < K: bounded, >= 0, and not summing to one, so neither logit nor
probability. Of a per-pixel network, L are its logits, of any sign, on which four of these scores are defined too.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Where no mask covers a pixel, L / sum L is 0 / 0; with this share for every class it is uniform there.
UNCOVERED = 1e-8

Classes = Float[Tensor, "k r W"]
Rows = Float[Tensor, "r W"]


def _shares(L: Classes) -> Classes:
    mass = L + UNCOVERED
    return mass / mass.sum(0)


def msp(L: Classes) -> Rows:
    """1 - max_k softmax(L)_k (Hendrycks & Gimpel 2017); flat on masks, whose L is bounded."""
    return 1 - L.softmax(0).amax(0)


def max_logit(L: Classes) -> Rows:
    """-max_k L_k (Hendrycks et al. 2022; on masks Mask2Anomaly's base score up to a constant)."""
    return -L.amax(0)


def max_share(L: Classes) -> Rows:
    """1 - max_k L_k / sum_k L_k: how little the winner owns of what the masks claim; L >= 0."""
    return 1 - _shares(L).amax(0)


def entropy(L: Classes) -> Rows:
    """-sum_k s_k log s_k / log K with s = L / sum_k L, in [0, 1]; L >= 0."""
    shares = _shares(L)
    return torch.special.entr(shares).sum(0) / torch.log(torch.tensor(float(len(shares))))


def entropy_softmax(L: Classes) -> Rows:
    """-sum_k s_k log s_k / log K with s = softmax(L), in [0, 1]; flat on masks, whose L is bounded."""
    shares = L.softmax(0)
    return torch.special.entr(shares).sum(0) / torch.log(torch.tensor(float(len(shares))))


def energy(L: Classes) -> Rows:
    """-logsumexp_k L_k (Liu et al. 2020)."""
    return -L.logsumexp(0)


def not_covered(L: Classes) -> Rows:
    """1 - clip(sum_k L_k, 0, 1): the mass that no class claims; L >= 0."""
    return 1 - L.sum(0).clamp(0, 1)


def rba(L: Classes) -> Rows:
    """-sum_k tanh(L_k): rejected by all (Nayal et al. 2023, eq. 5; released code: L first, then tanh); L >= 0."""
    return -L.tanh().sum(0)
