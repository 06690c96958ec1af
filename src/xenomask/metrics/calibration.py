"""Counters -> how far a map is a probability, and the fits that make it one.

A map is read as p(this pixel is anomalous). Everything is exact, from the counters; a fit is applied to their values,
never to pixels again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xenomask.arrays import NumbersLike, as_counts, as_numbers, check_same_length
from xenomask.errors import XenomaskError, unknown
from xenomask.metrics.counters import Counters, FrameCounters, pool, values
from xenomask.metrics.curves import check_both
from xenomask.metrics.operating import folds
from xenomask.shapes import Float64, Int64

BINS = 15
MOST_BINS = 65536
# What float16 stores as 0 and as 1 reaches half a step inwards: a log-odds of -17.3 and 8.3, not infinity.
CLIP = (2.0**-25, 1 - 2.0**-12)


@dataclass(frozen=True)
class Reliability:
    """The numbers of a probability map, pooled over pixels, and the points of its diagram, rising."""

    # sum over bins of share of pixels x |mean p - share of anomalies|
    ece: float
    # the largest such difference of a bin
    mce: float
    # mean (p - y)^2
    brier: float
    # the same of a map that says the prevalence everywhere: what knows nothing
    brier_constant: float
    # mean -log p(y); infinite after a single certain error
    nll: float
    prevalence: float
    # of each bin: mean p, share of anomalies, pixels
    p: Float64[np.ndarray, "b"]
    observed: Float64[np.ndarray, "b"]
    pixels: Int64[np.ndarray, "b"]


def reliability(p: NumbersLike, positive: NumbersLike, negative: NumbersLike, bins: int = BINS) -> Reliability:
    """Reliability of probabilities p (n,) that `positive` anomalous and `negative` inlier pixels hold, in any order.

    Bins are adaptive: of equal mass (Nguyen & O'Connor 2015; Nixon et al. 2019, eq. 3, for one class). Pixels of one
    probability are never split: all lie in the bin that the middle of their mass falls in, so that bins are only as
    equal as ties allow, and there may be fewer. Raises XenomaskError outside [0, 1], for negative counts,
    or not one a probability, without either kind of pixel, and for bins outside 1 .. 65,536.

    >>> r = reliability(np.array([0.2, 0.9]), np.array([1, 2]), np.array([3, 0]), bins=2)
    >>> r.p.tolist(), r.observed.tolist(), round(r.ece, 4), round(r.mce, 4)
    ([0.2, 0.9], [0.25, 1.0], 0.0667, 0.1)
    """
    from scipy.special import xlog1py, xlogy

    if not 1 <= bins <= MOST_BINS:
        raise XenomaskError(f"{bins} bins: reliability takes 1 to {MOST_BINS}, one for each float16 value")
    p = as_numbers(p, "probabilities", ndim=1)
    positive, negative = (as_counts(c, "pixels").astype(np.int64, copy=False) for c in (positive, negative))
    check_same_length("reliability", probabilities=p, positive=positive, negative=negative)
    P, N = int(positive.sum()), int(negative.sum())
    check_both(P, N)
    total = P + N
    used = (positive + negative) > 0
    p, at = np.unique(p[used], return_inverse=True)
    if p[0] < 0 or p[-1] > 1:
        raise XenomaskError(
            f"scores lie in {p[0]:g} .. {p[-1]:g}, not in [0, 1]: they are no probabilities; fit one first "
            "(`xenomask calibrate --fit isotonic`)"
        )
    positive, pixels = (np.bincount(at, c[used], len(p)).astype(np.int64) for c in (positive, positive + negative))
    before = pixels.cumsum() - pixels
    in_bin = (2 * before + pixels) * bins // (2 * total)
    mass, hits = np.bincount(in_bin, pixels, bins), np.bincount(in_bin, positive, bins)
    full = mass > 0
    mass, hits, said = mass[full], hits[full], np.bincount(in_bin, pixels * p, bins)[full]
    gap = np.abs(said - hits) / mass
    negative = pixels - positive
    return Reliability(
        ece=float((mass * gap).sum() / total),
        mce=float(gap.max()),
        brier=float((positive * (1 - p) ** 2 + negative * p**2).sum() / total),
        brier_constant=P * N / total**2,
        nll=float(-(xlogy(positive, p) + xlog1py(negative, -p)).sum() / total),
        prevalence=P / total,
        p=said / mass,
        observed=hits / mass,
        pixels=mass.astype(np.int64),
    )


@dataclass(frozen=True)
class Sigmoid:
    """p = sigmoid(slope x + bias); x is the score, or its log-odds where `log_odds` (for scores in [0, 1])."""

    kind: str
    slope: float
    bias: float
    log_odds: bool

    @property
    def temperature(self) -> float:
        """1 / slope."""
        return 1 / self.slope

    def __call__(self, value: NumbersLike) -> Float64[np.ndarray, "..."]:
        """Probabilities of raw scores, of the same shape; XenomaskError for NaN."""
        from scipy.special import expit

        return expit(self.slope * _inputs(value, self.log_odds) + self.bias)

    def table(self) -> dict[str, Any]:
        """Itself, ready for JSON; `read_fit` is the inverse."""
        return {"kind": self.kind, "slope": self.slope, "bias": self.bias}


@dataclass(frozen=True)
class Isotonic:
    """A rising step function: from `start` (float16, rising) on, the probability is `p`; below the first, the first."""

    start: tuple[float, ...]
    p: tuple[float, ...]
    kind: str = "isotonic"

    def __call__(self, value: NumbersLike) -> Float64[np.ndarray, "..."]:
        """Probabilities of raw scores, of the same shape; they are rounded to float16 first. XenomaskError for NaN."""
        half = np.clip(as_numbers(value, "scores"), -65504, 65504).astype(np.float16).astype(np.float64)
        at = np.searchsorted(np.array(self.start), half, side="right") - 1
        return np.array(self.p)[np.maximum(at, 0)]

    def table(self) -> dict[str, Any]:
        """Itself, ready for JSON; `read_fit` is the inverse."""
        return {"kind": self.kind, "start": list(self.start), "p": list(self.p)}


Fit = Sigmoid | Isotonic


def _inputs(value: NumbersLike, log_odds: bool) -> np.ndarray:
    from scipy.special import logit

    x = as_numbers(value, "scores")
    if not log_odds:
        return x
    if x.size and (x.min() < 0 or x.max() > 1):
        raise XenomaskError(
            f"temperature reads scores as probabilities, but these lie in {x.min():g} .. {x.max():g}: fit platt or "
            "isotonic instead"
        )
    return logit(np.clip(x, *CLIP))


def fit_isotonic(counters: Counters) -> Isotonic:
    """The rising step function that is nearest to the labels in mean square: pool adjacent violators, weighted.

    Never worse than any other rising rescaling in sample (Brier); 0 and 1 do occur. Raises XenomaskError without either
    kind of pixel.
    """
    from scipy.optimize import isotonic_regression

    used = _used(counters)
    positive, pixels = counters.positive[used], (counters.positive + counters.negative)[used]
    found = isotonic_regression(positive / pixels, weights=pixels.astype(np.float64))
    first = found.blocks[:-1]
    start = _values(used[first])
    return Isotonic(tuple(start.tolist()), tuple(np.clip(found.x[first], 0, 1).tolist()))


def fit_sigmoid(counters: Counters, kind: str) -> Sigmoid:
    """Maximum likelihood of p = sigmoid(slope x + bias) on the pixels, with Platt's targets.

    temperature: x = logit(s), bias 0 (Guo et al. 2017, section 4.2, for two classes; slope = 1 / T). temperature-bias:
    the same with a bias, which follows a prevalence that no temperature can. platt: x = s, for scores of any range
    (Platt 1999). His targets, (P + 1) / (P + 2) and 1 / (N + 2), keep the slope finite where the scores separate the
    labels. Raises XenomaskError without either kind of pixel, for scores outside [0, 1] but with platt, for maps of a
    single score, and for those whose best slope is not positive.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    used = _used(counters)
    positive, negative = counters.positive[used].astype(np.float64), counters.negative[used].astype(np.float64)
    P, N = positive.sum(), negative.sum()
    x = _inputs(_values(used), kind != "platt")
    if len(x) == 1:
        raise XenomaskError(f"the maps hold the single score {_values(used)[0]:g}: no {kind} fit has a slope there")
    weight = positive + negative
    target = (positive * (P + 1) / (P + 2) + negative / (N + 2)) / weight
    weight /= weight.sum()
    with_bias = kind != "temperature"
    # centred and scaled, so that slopes of any score are of order 1
    middle = float((weight * x).sum()) if with_bias else 0.0
    spread = float(np.sqrt((weight * (x - middle) ** 2).sum())) or 1.0
    design = np.stack([(x - middle) / spread, np.ones_like(x)], 1)[:, : 1 + with_bias]

    def loss(w):
        z = design @ w
        return -(weight * (target * log_expit(z) + (1 - target) * log_expit(-z))).sum()

    def gradient(w):
        return design.T @ (weight * (expit(design @ w) - target))

    def hessian(w):
        q = expit(design @ w)
        return (design * (weight * q * (1 - q))[:, None]).T @ design

    start = np.zeros(design.shape[1])
    found = minimize(loss, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-10})
    slope = float(found.x[0]) / spread
    if not slope > 0:
        raise XenomaskError(
            f"the best {kind} fit has slope {slope:.3g}: higher scores do not mean more anomalous pixels; are the maps "
            "upside down?"
        )
    bias = float(found.x[1]) - slope * middle if with_bias else 0.0
    return Sigmoid(kind, slope, bias, kind != "platt")


def _used(counters: Counters) -> np.ndarray:
    check_both(int(counters.positive.sum()), int(counters.negative.sum()))
    return np.flatnonzero(counters.positive + counters.negative)


def _values(key: np.ndarray) -> Float64[np.ndarray, "n"]:
    return values(key.astype(np.uint16)).astype(np.float64)


FITS: dict[str, Callable[[Counters], Fit]] = {
    "isotonic": fit_isotonic,
    "platt": lambda c: fit_sigmoid(c, "platt"),
    "temperature": lambda c: fit_sigmoid(c, "temperature"),
    "temperature-bias": lambda c: fit_sigmoid(c, "temperature-bias"),
}


def read_fit(table: Mapping[str, Any]) -> Fit:
    """A fit from its `table()`; raises XenomaskError for an unknown kind, KeyError or ValueError for a damaged one.

    >>> read_fit({"kind": "platt", "slope": 2.0, "bias": 0.0})(np.array([0.0]))
    array([0.5])
    """
    kind = str(table["kind"])
    if kind not in FITS:
        raise unknown("calibration", kind, FITS)
    if kind != "isotonic":
        slope, bias = float(table["slope"]), float(table["bias"])
        if not (np.isfinite(bias) and 0 < slope < np.inf):
            raise ValueError(f"slope {slope:g} and bias {bias:g} are no rising fit")
        return Sigmoid(kind, slope, bias, kind != "platt")
    start, p = (tuple(float(v) for v in table[k]) for k in ("start", "p"))
    if not start or len(start) != len(p) or not (np.diff(start) > 0).all() or not (np.diff([0, *p, 1]) >= 0).all():
        raise ValueError("isotonic steps do not rise in [0, 1]")
    return Isotonic(start, p)


def get_fit(name: str) -> Callable[[Counters], Fit]:
    """The fit of that name.

    >>> get_fit("isotonik")
    Traceback (most recent call last):
    xenomask.errors.XenomaskError: unknown fit 'isotonik'; did you mean 'isotonic'? known: ...
    """
    if name not in FITS:
        raise unknown("fit", name, FITS)
    return FITS[name]


def of_counters(counters: Counters, fit: Fit | None = None, bins: int = BINS) -> Reliability:
    """Reliability of pooled maps as they are, or of what a fit makes of them."""
    used = _used(counters)
    value = _values(used)
    return reliability(fit(value) if fit else value, counters.positive[used], counters.negative[used], bins)


def held_out(frames: Sequence[FrameCounters], fit: str, k: int | None = None, bins: int = BINS) -> Reliability:
    """Reliability, pooled over all frames, of probabilities whose fit has not seen the frame's fold.

    Folds are those of `operating.folds`. Raises XenomaskError where a fold leaves one kind of pixel only.
    """
    total, parts = pool(frames), []
    for fold in folds(len(frames), k):
        own = pool(frames[i] for i in fold)
        found = get_fit(fit)(Counters(total.positive - own.positive, total.negative - own.negative))
        used = np.flatnonzero(own.positive + own.negative)
        parts.append((found(_values(used)), own.positive[used], own.negative[used]))
    return reliability(*(np.concatenate(x) for x in zip(*parts, strict=True)), bins=bins)


@dataclass(frozen=True)
class Calibration:
    """A fit as a detector stores it, with where it comes from."""

    fit: Fit
    origin: Mapping[str, Any]

    def table(self) -> dict[str, Any]:
        """Itself, ready for JSON."""
        return {"fit": self.fit.table(), "origin": dict(self.origin)}


def read_calibration(table: Mapping[str, Any]) -> Calibration:
    """A calibration from its `table()`; errors as in `read_fit`."""
    return Calibration(read_fit(table["fit"]), table["origin"])
