"""scores: MaskOutput + QuerySet -> ScoreMap."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from xenomask.errors import XenomaskError, unknown
from xenomask.masks import MaskOutput, class_probabilities, row_blocks, soft_masks
from xenomask.scores import mask, semantic
from xenomask.scores.maskomaly import as_released as as_released
from xenomask.scores.maskomaly import maskomaly
from xenomask.types import QuerySet, ScoreMap


@dataclass(frozen=True)
class Score:
    """A named formula on (P, m, queries), its text, and the fixed range in which its maps are drawn."""

    name: str
    rows: Callable[..., torch.Tensor]
    formula: str
    scale: tuple[float, float]
    # which parts of a QuerySet it reads, and which of them it cannot do without
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known_options(self) -> tuple[str, ...]:
        """The names of the formula's options."""
        parameters = inspect.signature(self.rows).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def __call__(self, output: MaskOutput, queries: QuerySet | None = None) -> ScoreMap:
        """The raw map at the image's size, higher = stranger."""
        return score_all(output, queries, [self])[self.name]


def _k(text: str) -> str:
    return text + "   [L_k = sum_q P_q(k) m_q]"


# msp and energy are drawn between a pixel that one class owns wholly (L = 1, 0, ..., 0) and an unclaimed one
# (L = 0) for K = 19.
_ALL = (
    Score("msp", semantic.msp, _k("1 - max_k softmax(L)_k"), (1 - np.e / (np.e + 18), 18 / 19)),
    Score("max_logit", semantic.max_logit, _k("-max_k L_k"), (-1.0, 0.0)),
    Score("max_share", semantic.max_share, _k("1 - max_k L_k / sum_k L_k"), (0.0, 1.0)),
    Score("entropy", semantic.entropy, _k("-sum_k s_k log s_k / log K, s = L / sum_k L"), (0.0, 1.0)),
    Score("entropy_softmax", semantic.entropy_softmax, _k("the same with s = softmax(L)"), (0.9785, 1.0)),
    Score("energy", semantic.energy, _k("-logsumexp_k L_k"), (-np.log(np.e + 18), -np.log(19))),
    Score("not_covered", semantic.not_covered, _k("1 - clip(sum_k L_k, 0, 1)"), (0.0, 1.0)),
    Score("rba", semantic.rba, _k("-sum_k tanh L_k"), (-1.0, 0.0)),
    Score("void_mass", mask.void_mass, "sum_q P_q(no object) m_q", (0.0, 1.0)),
    Score("eam", mask.eam, "1 - sum_q m_q max_{k<K} P_q(k)", (0.0, 1.0)),
    Score(
        "maskomaly", maskomaly,
        ".6 R + .4 O; R = min over confident queries of 1 - p_q m_q, 0 at borders; O = max over outlier queries",
        (0.0, 1.0), reads=("outlier", "ground"),
    ),
    Score(
        "maskomaly_specialised", maskomaly,
        "the same, R over the specialised queries of the query analysis", (0.0, 1.0),
        reads=("inlier", "outlier", "ground"), needs=("inlier",), options={"inlier": "specialised"},
    ),
    Score(
        "maskomaly_no_border", maskomaly, "maskomaly without the border rule", (0.0, 1.0),
        reads=("outlier", "ground"), options={"border": None},
    ),
    Score(
        "rejection", maskomaly, "min over confident queries of 1 - p_q m_q, nothing else", (0.0, 1.0),
        reads=("ground",), options={"border": None, "mix": 1.0},
    ),
)  # fmt: skip
SCORES: dict[str, Score] = {s.name: s for s in _ALL}


def get_score(name: str, options: Mapping[str, Any] | None = None) -> Score:
    """The score of that name, its options replaced where given.

    >>> get_score("rbaa")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: unknown score 'rbaa'; did you mean 'rba'? known: ...
    """
    if name not in SCORES:
        raise unknown("score", name, SCORES)
    s = SCORES[name]
    if not options:
        return s
    for key in options:
        if key not in s.known_options:
            raise unknown(f"option of score {name}", key, s.known_options)
    return replace(s, options={**s.options, **options})


@torch.inference_mode()
def score_all(output: MaskOutput, queries: QuerySet | None, scores: Iterable[Score]) -> dict[str, ScoreMap]:
    """Several scores of one image; the soft masks are computed once, a block of rows at a time.

    Raises XenomaskError where a score needs queries that the QuerySet lacks or names queries that the
    network has not, and where a map is not finite.
    """
    scores, queries = list(scores), queries or QuerySet()
    q = len(output.class_logits)
    beyond = [i for i in (*queries.inlier, *queries.outlier, *queries.ground) if not 0 <= i < q]
    if beyond:
        raise XenomaskError(f"the query set names query {beyond[0]}, the network has 0..{q - 1}: wrong query file")
    for s in scores:
        for part in s.needs:
            if not getattr(queries, part):
                raise XenomaskError(
                    f"score {s.name} needs {part} queries and the query set has none: run `xenomask queries {part}` "
                    "with lower thresholds, or choose another score"
                )
    p = class_probabilities(output)
    values = {s.name: np.empty(output.image_size, np.float32) for s in scores}
    for rows in row_blocks(output):
        m = soft_masks(output, rows)
        for s in scores:
            values[s.name][rows] = s.rows(p, m, queries, **s.options).cpu().numpy()
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise XenomaskError(f"score {name} is not finite: the network's logits hold NaN or infinity")
    return {name: ScoreMap(value, name) for name, value in values.items()}
