"""One pixel -> what made its score: branches, classes and queries of every member; pure, JSON-ready."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xenomask.detector import Detector, Member
from xenomask.detector.member import class_names
from xenomask.errors import XenomaskError
from xenomask.masks import (
    MaskOutput,
    PixelOutput,
    class_probabilities,
    in_torch,
    outlier_probabilities,
    refuse_nan,
    resized_logits,
    semantic,
    soft_masks,
)
from xenomask.scores import Score, check_classes, check_queries
from xenomask.scores.definition import gather_rows
from xenomask.scores.maskomaly import BORDER, CONFIDENCE, roles
from xenomask.scores.semantic import shares
from xenomask.types import QuerySet, Size

SHOWN = 8  # queries that are listed of a score to which all of them add
MOST = 3  # of each peak
COUNTED = {BORDER: "border"}  # what the queries of a count are listed under
Output = MaskOutput | PixelOutput


@dataclass(frozen=True)
class Vote:
    """What one query says at the pixel, and its part in the score.

    `confidence` p_q is its largest class probability and `label` that class, `mask` m_q its mask there, both in
    [0, 1]; `adds` is what it puts into its `part` of the score (of a maximum: its own value, which may not be the
    largest one).
    """

    part: str
    query: int
    label: str
    confidence: float
    mask: float
    roles: tuple[str, ...]
    adds: float


@dataclass(frozen=True)
class MemberAnswer:
    """One member's score at the pixel: `weight` x `value` is its share of the fused map.

    `parts` are the numbers that the formula joins; `classes` holds every class's mass L_k (a per-pixel network: its
    logit), largest first, its probability, and the term that it adds where the score is a sum over classes.
    """

    name: str
    score: str
    formula: str
    weight: float
    value: float
    share: float
    parts: dict[str, float]
    classes: tuple[dict[str, Any], ...]
    votes: tuple[Vote, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What made the detector's map at one pixel (x, y), counted from the top left: `value` is the map's there.

    It is the sum of the members' shares and of what the detector's refinements add.
    """

    at: tuple[int, int]
    size: Size
    value: float
    members: tuple[MemberAnswer, ...]
    refined: float = 0.0


FITS = 0.5  # probability from which on a class is said to fit


def in_words(answer: Answer, threshold: float | None = None) -> str:
    """Return the answer as one plain sentence: on which side of the threshold, and which classes fit or do not."""
    # one class is no choice between classes: a Mahalanobis network says how ordinary the place looks
    alone = {c["label"]: c["probability"] for m in answer.members if len(m.classes) == 1 for c in m.classes}
    several = [m for m in answer.members if len(m.classes) > 1]
    total = sum(m.weight for m in several)
    found: dict[str, float] = {}
    for m in several:
        for c in m.classes:
            found[c["label"]] = found.get(c["label"], 0.0) + m.weight * c["probability"] / total
    shares = {k: f"{100 * p:.0f} %" for k, p in found.items()}
    clauses = []
    if several:
        first, second = sorted(found, key=lambda k: -found[k])[:2]
        if found[first] >= FITS:
            clauses.append(f"{first} fits, {shares[first]}")
        else:
            clauses.append(f"not {first} ({shares[first]}), not {second} ({shares[second]}): no class fits")
            if "road" in found and "road" not in (first, second):
                clauses.append(f"road {shares['road']}")
    said = "; ".join([*clauses, *(f"looks {100 * p:.0f} % {label}" for label, p in alone.items())])
    if threshold is None:
        return said
    side = "anomalous: above" if answer.value > threshold else "not anomalous: below"
    return f"{side} the threshold {threshold:.3g}; {said}"


def explain(detector: Detector, outputs: Sequence[Output], at: tuple[int, int]) -> Answer:
    """What made the map at pixel `at` = (x, y), given what the network of each member said of the photo.

    Members without weight have no part in a map and are left out, but their output must be given. Raises XenomaskError
    for a point outside of the photo and as `score_all` does.
    """
    size = outputs[0].image_size
    check_point(at, size)
    pairs = zip(detector.members, outputs, strict=True)
    members = tuple(explain_member(m, output, at) for m, output in pairs if m.weight > 0)
    value = sum(m.share for m in members)
    if not detector.refine:
        return Answer(at, size, value, members)
    used = [o for m, o in zip(detector.members, outputs, strict=True) if m.weight > 0]
    whole = float(detector.fuse(used).value[at[1], at[0]])
    return Answer(at, size, whole, members, whole - value)


def check_point(at: tuple[int, int], size: Size) -> None:
    """Raises XenomaskError unless (x, y) lies in a photo of that (height, width)."""
    (x, y), (height, width) = at, size
    if not (0 <= x < width and 0 <= y < height):
        raise XenomaskError(
            f"point {x},{y} lies outside of the photo, which is {width}x{height}: X is 0 to {width - 1}, "
            f"Y is 0 to {height - 1}"
        )


@torch.inference_mode()
def explain_member(member: Member, output: Output, at: tuple[int, int]) -> MemberAnswer:
    """The same for one member alone."""
    x, y = at
    score, row = member.score, slice(y, y + 1)
    output = in_torch(output)
    for name in ("class_map_logits", "class_logits", "mask_logits"):
        if hasattr(output, name):
            refuse_nan(getattr(output, name))
    score.displayed(isinstance(output, PixelOutput))
    notes: list[str] = []
    if isinstance(output, PixelOutput):
        check_classes([score], len(output.class_map_logits))
        L = resized_logits(output, row)[:, :, x : x + 1]
        names = class_names(member, len(L))
        value, parts, classes, votes = _of_classes(score, L, names, None)
        notes.append("a per-pixel network has no queries: these are its classes' logits")
    else:
        p, m = class_probabilities(output), soft_masks(output, row)[:, :, x : x + 1]
        names = class_names(member, p.shape[1] - 1)
        check_classes([score], p.shape[1] - 1)
        check_queries([score], member.queries, len(p))
        L = semantic(p, m)
        if score.on_classes:
            value, parts, classes, votes = _of_classes(score, L, names, (p, m, member.queries))
        else:
            outlier = outlier_probabilities(output) if score.outlier_class else None
            value, parts, votes = _of_masks(score, p, m, member.queries, outlier, names, notes)
            classes = _masses(L.flatten(), L.flatten().clamp(max=1), names)
    share = float(member.weight) * value
    return MemberAnswer(
        member.name,
        score.name,
        score.formula,
        float(member.weight),
        value,
        share,
        parts,
        classes,
        votes,
        tuple(notes),
    )


def _vote(part: str, q: int, adds: float, p: Tensor, m: Tensor, said: dict[int, tuple[str, ...]], names) -> Vote:
    confidence, label = p[q].max(0)
    return Vote(part, q, names[int(label)], float(confidence), float(m[q]), said.get(q, ()), adds)


def _roles(p: Tensor, queries: QuerySet, confidence: float = CONFIDENCE) -> dict[int, tuple[str, ...]]:
    """What each query is to Maskomaly; queries that are nothing to it are left out."""
    _, _, sure, outlier, ground = roles(p, queries, "confident", confidence)
    kinds = {"confident": sure, "outlier": outlier, "ground": ground}
    found = {k: set(torch.nonzero(chosen).flatten().tolist()) for k, chosen in kinds.items()}
    found["specialised"] = set(queries.inlier)
    order = ("confident", "specialised", "outlier", "ground")
    return {q: tuple(k for k in order if q in found[k]) for q in range(len(p)) if any(q in s for s in found.values())}


def _of_masks(score: Score, p: Tensor, m: Tensor, queries: QuerySet, outlier: Tensor | None, names, notes: list[str]):
    """Scores of what they gather of the masks: the queries that decide each peak, that are counted, that add most."""
    what = score.gathers(p, queries, outlier)
    found = gather_rows(what, m)
    value = float(score.of_gathered(what, found).flatten()[0])
    m, said = m.flatten(), _roles(p, queries, score.options.get("confidence", CONFIDENCE))

    def listed(part: str, values: Tensor, chosen: Sequence[int]) -> list[Vote]:
        return [_vote(part, q, float(values[q]), p, m, said, names) for q in chosen]

    votes = []
    for part, w in what.peaks.items():
        order = (w * m).argsort(descending=True).tolist()
        votes += listed(part, w * m, [q for q in order if w[q] > 0][:MOST])
    for part, w in what.counts.items():
        votes += listed(COUNTED.get(part, part), m, torch.nonzero(m > w).flatten().tolist())
    parts: dict[str, float] = {}
    if what.sums:
        added = torch.stack(list(what.sums.values())).sum(0) * m
        largest = _largest("sum", added, p, m, queries, names)
        votes += largest
        parts = {"constant": what.constant, **{k: float((w * m).sum()) for k, w in what.sums.items()}}
        parts["queries not listed"] = float(added.sum()) - sum(v.adds for v in largest)
    if score.parts is not None:
        parts |= {k: float(v) for k, v in score.with_own(score.parts, found).items()}
    if score.notes is not None:
        notes += score.with_own(score.notes, what, found)
    return value, parts, tuple(votes)


def _of_classes(score: Score, L: Tensor, names, queries: tuple[Tensor, Tensor, QuerySet] | None):
    """Scores of the class masses L (K, 1, 1); `queries`: P, m and the set, of a network that has them."""
    value = float(score.of_classes(L).flatten()[0])
    flat = L.flatten()
    own = (shares(L) if queries else L.softmax(0)).flatten()
    winner = int(flat.argmax())
    parts = {"largest L": float(flat[winner]), "sum of L": float(flat.sum()), "its share": float(own[winner])}
    terms = None if score.terms is None else score.terms(L).flatten()
    classes = _masses(flat, flat.clamp(max=1) if queries else own, names, terms)
    if queries is None:
        return value, parts, classes, ()
    p, m, known = queries
    m = m.flatten()
    if score.by_winner:
        part, added = f"L of {names[winner]}", p[:, winner] * m
    else:
        part, added = "sum of L", p[:, :-1].sum(1) * m
    return value, parts, classes, _largest(part, added, p, m, known, names)


def _largest(part: str, added: Tensor, p: Tensor, m: Tensor, queries: QuerySet, names) -> tuple[Vote, ...]:
    said = _roles(p, queries)
    order = added.abs().argsort(descending=True)[:SHOWN].tolist()
    return tuple(_vote(part, q, float(added[q]), p, m, said, names) for q in order)


def _masses(L: Tensor, probability: Tensor, names: Sequence[str], terms: Tensor | None = None):
    order = L.argsort(descending=True).tolist()
    rows = [{"label": names[k], "mass": float(L[k]), "probability": float(probability[k])} for k in order]
    if terms is not None:
        for row, k in zip(rows, order, strict=True):
            row["term"] = float(terms[k])
    return tuple(rows)
