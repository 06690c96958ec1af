"""Scores that read the class map L (K, rows, W) alone.

Of a mask transformer, L_k(x) = sum_q P_q(k) m_q(x), k < K: bounded, >= 0, and not summing to one, so neither logit nor
probability. Of a per-pixel network, L are its logits, of any sign, on which four of these scores are defined too.
"""

from typing import Any

import numpy as np

from xenomask.scores.codes import ENERGY, ENTROPY, ENTROPY_SOFTMAX, MAX_LOGIT, MAX_SHARE, MSP, NOT_COVERED, RBA
from xenomask.scores.definition import Classes, Rows, Score

# Where no mask covers a pixel, L / sum L is 0 / 0; with this share for every class it is uniform there.
UNCOVERED = 1e-8


def shares(L: Classes) -> Classes:
    """L / sum_k L, uniform where no mask covers the pixel; L >= 0."""
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
    return 1 - shares(L).amax(0)


def entropy(L: Classes) -> Classes:
    """The terms of -sum_k s_k log s_k / log K with s = L / sum_k L, in [0, 1]; L >= 0."""
    return _entropy(shares(L))


def entropy_softmax(L: Classes) -> Classes:
    """The terms of -sum_k s_k log s_k / log K with s = softmax(L), in [0, 1]; flat on masks, whose L is bounded."""
    return _entropy(L.softmax(0))


def _entropy(s: Classes) -> Classes:
    import torch

    return torch.special.entr(s) / torch.log(torch.tensor(float(len(s))))


def energy(L: Classes) -> Rows:
    """-logsumexp_k L_k (Liu et al. 2020)."""
    return -L.logsumexp(0)


def not_covered(L: Classes) -> Rows:
    """1 - clip(sum_k L_k, 0, 1): the mass that no class claims; L >= 0."""
    return 1 - L.sum(0).clamp(0, 1)


def rba(L: Classes) -> Classes:
    """The terms of -sum_k tanh(L_k): rejected by all (Nayal et al. 2023, eq. 5; released: L, then tanh); L >= 0."""
    return -L.tanh()


def _score(name: str, formula: str, scale: tuple[float, float], twin: int, **more: Any) -> Score:
    L = "L_k = sum_q P_q(k) m_q" + (", or a per-pixel network's logits" if more.get("logit_scale") else "")
    return Score(name, f"{formula}   [{L}]", scale, twin=twin, **more)


# msp and energy are displayed between a pixel that one class owns wholly (L = 1, 0, ..., 0) and an unclaimed one
# (L = 0) for K = 19; on logits, which know no bound, between a logit of 15 and none above 0. Beyond, colours stay.
SCORES = (
    _score("msp", "1 - max_k softmax(L)_k", (1 - np.e / (np.e + 18), 18 / 19), MSP, finish=msp,
           logit_scale=(0.0, 18 / 19), by_winner=True, fewest=2),
    _score("max_logit", "-max_k L_k", (-1.0, 0.0), MAX_LOGIT, finish=max_logit, logit_scale=(-15.0, 0.0),
           by_winner=True),
    _score("max_share", "1 - max_k L_k / sum_k L_k", (0.0, 1.0), MAX_SHARE, finish=max_share, by_winner=True,
           fewest=2),
    _score("entropy", "-sum_k s_k log s_k / log K, s = L / sum_k L", (0.0, 1.0), ENTROPY, terms=entropy, fewest=2),
    _score("entropy_softmax", "the same with s = softmax(L)", (0.9785, 1.0), ENTROPY_SOFTMAX, terms=entropy_softmax,
           logit_scale=(0.0, 1.0), fewest=2),
    _score("energy", "-logsumexp_k L_k", (-np.log(np.e + 18), -np.log(19)), ENERGY, finish=energy,
           logit_scale=(-15.0, 0.0)),
    _score("not_covered", "1 - clip(sum_k L_k, 0, 1)", (0.0, 1.0), NOT_COVERED, finish=not_covered),
    _score("rba", "-sum_k tanh L_k", (-1.0, 0.0), RBA, terms=rba),
)  # fmt: skip
