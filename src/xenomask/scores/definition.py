"""What a score is: which rows it gathers of the masks, and how the gathered rows finish to a map.

Three gatherers do the work: PyTorch (here: the reference, and what is exported), the fused kernel for CPUs (kernels,
cpu) and the one for GPUs (gpu_kernels, gpu). `xenomask explain` reads the same definition.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin

import numpy as np

from xenomask.arrays import Tensor
from xenomask.errors import XenomaskError, refuse_taken, unknown
from xenomask.masks import semantic
from xenomask.shapes import Float
from xenomask.types import QuerySet

P = Float[Tensor, "q n"]  # K known classes and the rest: see masks.class_probabilities
M = Float[Tensor, "q r W"]
Rows = Float[Tensor, "r W"]
Classes = Float[Tensor, "k r W"]


@dataclass(frozen=True)
class Gather:
    """What a score reads of the masks m_q of one image; every row holds a number a query, (Q,).

    `peaks`: max_q w_q m_q over the queries with w_q > 0, else 0. `counts`: how many m_q exceed w_q (infinite: not
    counted). `sums`: sum_q w_q m_q. `constant`: what is added to the sums where they alone are the score.
    """

    peaks: Mapping[str, Float[Tensor, " q"]] = field(default_factory=dict)
    counts: Mapping[str, Float[Tensor, " q"]] = field(default_factory=dict)
    sums: Mapping[str, Float[Tensor, " q"]] = field(default_factory=dict)
    constant: float = 0.0


@dataclass(frozen=True)
class Twin:
    """How the fused kernels finish a score: `code` (see plan) and, for Maskomaly, its rows and its mix."""

    code: int
    inside: Float[Tensor, " q"] | None = None
    outlier: Float[Tensor, " q"] | None = None
    crowd: Float[Tensor, " q"] | None = None
    mix: float = 0.0


@dataclass(frozen=True)
class Score:
    """A named formula, its text, the range in which its maps are displayed, and what it gathers and how it finishes.

    `gather(p, queries, outlier, **options)` says what is read of the masks, from P (Q, N), the query set and
    P(outlier) (Q,), which is None for networks without an outlier class; without it, the class map L is read.
    `finish(gathered, **options)` makes the map of the gathered rows by name, or of L (K, r, W); without it the map is
    the sum of what was gathered and the constant, or the sum over classes of `terms(L)`.
    """

    name: str
    formula: str
    scale: tuple[float, float]
    gather: Callable[..., Gather] | None = None
    finish: Callable[..., Tensor] | None = None
    terms: Callable[[Tensor], Tensor] | None = None
    # the code of a compiled finish for class maps, or how that of Maskomaly is set up; sums need none
    twin: int | Callable[..., Twin] | None = None
    # the range in which its maps of a per-pixel network's logits are displayed; None: not defined on them
    logit_scale: tuple[float, float] | None = None
    # which parts of a QuerySet it reads, and which of them it cannot do without
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    outlier_class: bool = False  # whether it needs a network with one
    on_arrays: bool = False  # whether `gather` takes NumPy's arrays too, by masks.library: it then runs without torch
    # of how many classes it is defined: the entropy of a single one is 0 / log 1
    fewest: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    # for `explain`: whether the class of the largest L decides; the finish's intermediate numbers; remarks
    by_winner: bool = False
    parts: Callable[..., Mapping[str, Any]] | None = None
    notes: Callable[..., list[str]] | None = None

    @property
    def on_classes(self) -> bool:
        """Whether it reads the class map L alone."""
        return self.gather is None

    @property
    def known_options(self) -> tuple[str, ...]:
        """The names of the formula's options."""
        return tuple(dict.fromkeys(n for f in (self.gather, self.finish) if f is not None for n in _options(f)))

    def with_own(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """The function called with those of the score's options that it has."""
        given = {**self.options, **more}
        return function(*args, **{k: v for k, v in given.items() if k in _options(function)})

    def displayed(self, per_pixel: bool) -> tuple[float, float]:
        """The range in which its maps are displayed, for a per-pixel network or a mask transformer.

        Raises XenomaskError where the score is not defined for a per-pixel network.
        """
        if not per_pixel:
            return self.scale
        if self.logit_scale is None:
            reads = "queries' masks, and it has none"
            if self.on_classes:
                reads = "class masses >= 0, summed over masks, and its logits are none (they may be negative)"
            raise XenomaskError(
                f"score {self.name} is not defined for a per-pixel network (SegFormer, UPerNet): it reads {reads}; "
                f"choose one of {', '.join(s.name for s in SCORES.values() if s.logit_scale)}"
            )
        return self.logit_scale

    def of_classes(self, L: Classes) -> Rows:
        """The score of a class map L, which it reads alone."""
        if self.finish is not None:
            return self.with_own(self.finish, L)
        assert self.terms is not None
        return self.terms(L).sum(0)

    def gathers(self, p: P, queries: QuerySet, outlier: Float[Tensor, " q"] | None = None, **more: Any) -> Gather:
        """What it reads of the masks of queries with the probabilities P."""
        assert self.gather is not None
        return self.with_own(self.gather, p, queries, outlier, **more)

    def of_gathered(self, what: Gather, found: Mapping[str, Tensor], **more: Any) -> Rows:
        """The score of what was gathered, by name."""
        if self.finish is not None:
            return self.with_own(self.finish, found, **more)
        return what.constant + sum(found.values())  # pyright: ignore[reportReturnType]

    def rows(
        self, p: P, m: M, queries: QuerySet, outlier: Float[Tensor, " q"] | None = None, *, L: Classes | None = None,
        **more: Any,
    ) -> Rows:  # fmt: skip
        """The score of the rows that the soft masks m (Q, r, W) cover, by PyTorch; `more` replaces its options."""
        if self.on_classes:
            return self.of_classes(semantic(p, m) if L is None else L)
        what = self.gathers(p, queries, outlier, **more)
        return self.of_gathered(what, gather_rows(what, m), **more)


SCORES: dict[str, Score] = {}  # filled by the modules that define them, and by whoever adds one


def register(score: Score) -> Score:
    """Make a score known by its name, to every function and command; returns it.

    Raises XenomaskError for a name that is taken.
    """
    refuse_taken("score", score.name, SCORES)
    SCORES[score.name] = score
    return score


def get_score(name: str, options: Mapping[str, Any] | None = None) -> Score:
    """The score of that name, its options replaced where given; XenomaskError for unknown ones and other kinds.

    >>> get_score("rbaa")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: unknown score 'rbaa'; did you mean 'rba'? known: ...
    """
    if name not in SCORES:
        raise unknown("score", name, SCORES)
    s = SCORES[name]
    if not options:
        return s
    for key, value in options.items():
        if key not in s.known_options:
            raise unknown(f"option of score {name}", key, s.known_options)
        _check_option(s, key, value)
    return replace(s, options={**s.options, **options})


def _check_option(score: Score, key: str, value: Any) -> None:
    """Raises XenomaskError for a word, number or None where the formula's annotation of the option has another kind."""
    functions = [f for f in (score.gather, score.finish) if f is not None and key in _options(f)]
    kind: Any = inspect.signature(functions[0]).parameters[key].annotation
    kinds = get_args(kind) or (kind,)
    if get_origin(kind) is Literal:
        fits, wanted = value in kinds, " or ".join(kinds)
    else:
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
        fits = float not in kinds or number or (value is None and type(None) in kinds)
        wanted = "a finite number" + " or null" * (type(None) in kinds)
    if not fits:
        raise XenomaskError(f"score {score.name}: the option {key} is {value!r:.40}, not {wanted}")


def gather_rows(what: Gather, m: M) -> dict[str, Rows]:
    """What is gathered of soft masks m (Q, r, W), by PyTorch, by name."""
    import torch

    found = {name: _largest(w, m) for name, w in what.peaks.items()}
    found |= {name: _exceeding(w, m) for name, w in what.counts.items()}
    return found | {name: torch.einsum("q,qrw->rw", w, m) for name, w in what.sums.items()}


def _largest(w: Float[Tensor, " q"], m: M) -> Rows:
    some = _of(w > 0, m, w)
    if some is None:
        return m.new_zeros(m.shape[1:])
    m, w = some
    return (m * w[:, None, None]).amax(0)


def _exceeding(w: Float[Tensor, " q"], m: M) -> Rows:
    some = _of(w.isfinite(), m, w)
    if some is None:
        return m.new_zeros(m.shape[1:])
    m, w = some
    return (m > w[:, None, None]).sum(0, dtype=m.dtype)


def _of(chosen: Tensor, m: M, w: Tensor) -> tuple[Tensor, Tensor] | None:
    """The chosen queries' masks and weights, None without any; in an exported graph, whose shapes are fixed, all."""
    import torch

    if torch.compiler.is_exporting():
        return m, w
    return (m[chosen], w[chosen]) if chosen.any() else None


@cache  # asked for each block of rows
def _options(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
