"""scores: MaskOutput + QuerySet, or PixelOutput -> ScoreMap."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32

from xenomask.arrays import check_onto
from xenomask.errors import XenomaskError, unknown
from xenomask.masks import (
    MaskOutput,
    PixelOutput,
    class_probabilities,
    outlier_probabilities,
    refuse_nan,
    resized_logits,
    row_blocks,
    soft_masks,
)
from xenomask.masks import semantic as class_masses
from xenomask.scores import mask, semantic
from xenomask.scores.backend import choose
from xenomask.scores.maskomaly import as_released as as_released
from xenomask.scores.maskomaly import maskomaly
from xenomask.scores.plan import plan
from xenomask.types import QuerySet, ScoreMap


@dataclass(frozen=True)
class Score:
    """A named formula, its text, and the fixed range in which its maps are drawn.

    `rows` takes the class map L where the score is `on` "classes", (P, m, queries) where it is on "masks", and
    (P, m, P(outlier)) where it is on "outlier".
    """

    name: str
    rows: Callable[..., torch.Tensor]
    formula: str
    scale: tuple[float, float]
    on: Literal["classes", "masks", "outlier"] = "masks"
    # the range in which its maps of a per-pixel network's logits are drawn; None: not defined on them
    logit_scale: tuple[float, float] | None = None
    # which parts of a QuerySet it reads, and which of them it cannot do without
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    # of how many classes it is defined: the entropy of a single one is 0 / log 1
    fewest: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known_options(self) -> tuple[str, ...]:
        """The names of the formula's options."""
        parameters = inspect.signature(self.rows).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def drawn(self, per_pixel: bool) -> tuple[float, float]:
        """The range in which its maps are drawn, for a per-pixel network or a mask transformer.

        Raises XenomaskError where the score is not defined for a per-pixel network.
        """
        if not per_pixel:
            return self.scale
        if self.logit_scale is None:
            reads = "queries' masks, and it has none"
            if self.on == "classes":
                reads = "class masses >= 0, summed over masks, and its logits are none (they may be negative)"
            offered = ", ".join(s.name for s in SCORES.values() if s.logit_scale)
            raise XenomaskError(
                f"score {self.name} is not defined for a per-pixel network (SegFormer, UPerNet): it reads {reads}; "
                f"choose one of {offered}"
            )
        return self.logit_scale

    def __call__(self, output: MaskOutput | PixelOutput, queries: QuerySet | None = None) -> ScoreMap:
        """The raw map at the image's size, higher = stranger."""
        return score_all(output, queries, [self])[self.name]


def _on_classes(name: str, rows: Callable[..., torch.Tensor], formula: str, scale, logit_scale=None, fewest=1) -> Score:
    L = "L_k = sum_q P_q(k) m_q" + (", or a per-pixel network's logits" if logit_scale else "")
    return Score(name, rows, f"{formula}   [{L}]", scale, on="classes", logit_scale=logit_scale, fewest=fewest)


# msp and energy are drawn between a pixel that one class owns wholly (L = 1, 0, ..., 0) and an unclaimed one
# (L = 0) for K = 19; on logits, which know no bound, between a logit of 15 and none above 0. Beyond, colours stay.
_ALL = (
    _on_classes("msp", semantic.msp, "1 - max_k softmax(L)_k", (1 - np.e / (np.e + 18), 18 / 19), (0.0, 18 / 19)),
    _on_classes("max_logit", semantic.max_logit, "-max_k L_k", (-1.0, 0.0), (-15.0, 0.0)),
    _on_classes("max_share", semantic.max_share, "1 - max_k L_k / sum_k L_k", (0.0, 1.0)),
    _on_classes("entropy", semantic.entropy, "-sum_k s_k log s_k / log K, s = L / sum_k L", (0.0, 1.0), None, 2),
    _on_classes(
        "entropy_softmax", semantic.entropy_softmax, "the same with s = softmax(L)", (0.9785, 1.0), (0.0, 1.0), 2
    ),
    _on_classes("energy", semantic.energy, "-logsumexp_k L_k", (-np.log(np.e + 18), -np.log(19)), (-15.0, 0.0)),
    _on_classes("not_covered", semantic.not_covered, "1 - clip(sum_k L_k, 0, 1)", (0.0, 1.0)),
    _on_classes("rba", semantic.rba, "-sum_k tanh L_k", (-1.0, 0.0)),
    Score("void_mass", mask.void_mass, "sum_q P_q(no object) m_q", (0.0, 1.0)),
    Score("eam", mask.eam, "1 - sum_q m_q max_{k<K} P_q(k)", (0.0, 1.0)),
    Score("uno", mask.uno, "sum_q m_q [P_q(outlier) - max_{k<K} P_q(k)]", (-1.0, 1.0), on="outlier"),
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
def score_all(
    output: MaskOutput | PixelOutput,
    queries: QuerySet | None,
    scores: Iterable[Score],
    kernel: str = "auto",
) -> dict[str, ScoreMap]:
    """Several scores of one image, in one pass over its masks.

    `kernel`: see `paths.choose`. PyTorch's own way (forced by "torch", and where a score has no compiled form) holds
    the masks of a block of rows.

    Raises XenomaskError where a score is not defined for a per-pixel network or for so few classes, where it needs
    queries that the QuerySet lacks or names queries that the network has not, where it needs an outlier class that the
    network has not, where the network's logits hold NaN, and where a map is not finite.
    """
    scores, queries = list(scores), queries or QuerySet()
    maps = np.zeros((len(scores), *output.image_size), np.float32)
    if isinstance(output, PixelOutput):
        check_classes(scores, len(output.class_map_logits))
        for s in scores:
            s.drawn(per_pixel=True)
    elif _add_in_one_pass(output, queries, scores, 1.0, maps, kernel):
        return _checked({s.name: value for s, value in zip(scores, maps, strict=True)})
    refuse_nan(output.class_map_logits if isinstance(output, PixelOutput) else output.mask_logits)
    values = {s.name: value for s, value in zip(scores, maps, strict=True)}
    for rows in row_blocks(output):
        for s, value in zip(scores, _rows(output, queries, scores, rows), strict=True):
            values[s.name][rows] = value.cpu().numpy()
    return _checked(values)


def add_score(
    output: MaskOutput | PixelOutput,
    queries: QuerySet,
    score: Score,
    weight: float,
    onto: Float32[np.ndarray, "H W"],
    kernel: str = "auto",
) -> None:
    """Adds weight x the score's map to `onto`: an ensemble's sum, with no map of its own for a member.

    Raises XenomaskError as `score_all` does, and where `onto` is no writable float32 array of the image's size.
    """
    check_onto(onto, output.image_size)
    if isinstance(output, MaskOutput) and _add_in_one_pass(output, queries, [score], weight, onto[None], kernel):
        return
    onto += np.float32(weight) * score_all(output, queries, [score], kernel)[score.name].value


def _add_in_one_pass(
    output: MaskOutput, queries: QuerySet, scores: Sequence[Score], weight: float,
    onto: Float32[np.ndarray, "t H W"], kernel: str,
) -> bool:  # fmt: skip
    """Adds weight x each score to `onto` by the compiled pass; False, with nothing done, where there is none."""
    p = class_probabilities(output)
    refuse_nan(p)
    check_classes(scores, p.shape[1] - 1)
    check_queries(scores, queries, len(p))
    path = choose(kernel, output.mask_logits.device.type)
    todo = plan(output, queries, scores) if path.add else None
    if path.add is None or todo is None:
        return False
    if output.mirrored:
        seen = np.zeros_like(onto)
        path.add(replace(output, mirrored=False), todo, weight, seen)
        onto += seen[:, :, ::-1]
    else:
        path.add(output, todo, weight, onto)
    return True


def _checked(values: dict[str, np.ndarray]) -> dict[str, ScoreMap]:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise XenomaskError(f"score {name} is not finite: the network's logits hold NaN or infinity")
    return {name: ScoreMap(value, name) for name, value in values.items()}


def _rows(
    output: MaskOutput | PixelOutput, queries: QuerySet, scores: Sequence[Score], rows: slice
) -> Iterator[torch.Tensor]:
    """Each score of the given image rows."""
    if isinstance(output, PixelOutput):
        L = resized_logits(output, rows)
        yield from (s.rows(L, **s.options) for s in scores)
        return
    p, m = class_probabilities(output), soft_masks(output, rows)
    L = class_masses(p, m) if any(s.on == "classes" for s in scores) else None
    for s in scores:
        if s.on == "classes":
            yield s.rows(L, **s.options)
        else:
            yield s.rows(p, m, queries if s.on == "masks" else outlier_probabilities(output), **s.options)


def check_classes(scores: Iterable[Score], classes: int) -> None:
    """Raises XenomaskError where a score is not defined for so few known classes."""
    for s in scores:
        if classes < s.fewest:
            offered = ", ".join(o.name for o in SCORES.values() if o.fewest <= classes and o.on == "classes")
            raise XenomaskError(
                f"score {s.name} is not defined for {classes} class: it divides by the logarithm of their number, 0; "
                f"choose one of {offered}, or a score of the masks"
            )


def check_queries(scores: Sequence[Score], queries: QuerySet, q: int) -> None:
    """Raises XenomaskError where the set names queries beyond the network's `q`, or lacks those that a score needs."""
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
