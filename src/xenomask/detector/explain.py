"""One pixel -> what made its score: branches, classes and queries of every member; pure, JSON-ready."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xenomask.detector import Detector, Member
from xenomask.errors import XenomaskError
from xenomask.masks import (
    MaskOutput,
    PixelOutput,
    class_probabilities,
    outlier_probabilities,
    resized_logits,
    soft_masks,
)
from xenomask.scores import Score, check_classes, check_queries, mask, semantic
from xenomask.scores.maskomaly import maskomaly, roles
from xenomask.types import QuerySet, Size

SHOWN = 8  # queries that are listed of a score to which all of them add
Output = MaskOutput | PixelOutput


@dataclass(frozen=True)
class Voice:
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
    """One member's score at the pixel: `weight` x `value` is its share of the joined map.

    `parts` are the numbers that the formula joins; `classes` holds every class's mass L_k (a per-pixel network: its
    logit), largest first, with the term that it adds where the score is a sum over classes.
    """

    name: str
    score: str
    formula: str
    weight: float
    value: float
    share: float
    parts: dict[str, float]
    classes: tuple[dict[str, Any], ...]
    voices: tuple[Voice, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What made the detector's map at one pixel (x, y), counted from the top left: `value` is the map's there."""

    at: tuple[int, int]
    size: Size
    value: float
    members: tuple[MemberAnswer, ...]


def parse_point(text: str) -> tuple[int, int]:
    """'512,256' -> (512, 256); raises XenomaskError for anything but two whole numbers.

    >>> parse_point("512, 256")
    (512, 256)
    """
    parts = [p.strip() for p in text.split(",")]
    if len(parts) != 2 or not all(p.isascii() and p.isdecimal() and len(p) < 10 for p in parts):
        raise XenomaskError(f"point {text!r} is not X,Y in whole pixels from the top left, such as 512,256")
    return int(parts[0]), int(parts[1])


def explain(detector: Detector, outputs: Sequence[Output], at: tuple[int, int]) -> Answer:
    """What made the map at pixel `at` = (x, y), given what the network of each member said of the photo.

    Members without weight have no part in a map and are left out, but their output must be given. Raises XenomaskError
    for a point outside of the photo and as `score_all` does.
    """
    size = outputs[0].image_size
    check_point(at, size)
    pairs = zip(detector.members, outputs, strict=True)
    members = tuple(explain_member(m, output, at) for m, output in pairs if m.weight > 0)
    return Answer(at, size, sum(m.share for m in members), members)


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
    score.drawn(isinstance(output, PixelOutput))
    notes: list[str] = []
    if isinstance(output, PixelOutput):
        check_classes([score], len(output.class_map_logits))
        L = resized_logits(output, row)[:, :, x : x + 1]
        names = class_names(member, len(L))
        value, parts, classes, voices = _of_classes(score, L, names, None)
        notes.append("a per-pixel network has no queries: these are its classes' logits")
    else:
        p, m = class_probabilities(output), soft_masks(output, row)[:, :, x : x + 1]
        names = class_names(member, p.shape[1] - 1)
        check_classes([score], p.shape[1] - 1)
        check_queries([score], member.queries, len(p))
        if score.rows is maskomaly:
            value, parts, voices = _of_maskomaly(score, p, m, member.queries, names, notes)
            classes = _masses(torch.einsum("qk,qrw->krw", p[:, :-1], m).flatten(), names)
        elif score.on == "classes":
            L = torch.einsum("qk,qrw->krw", p[:, :-1], m)
            value, parts, classes, voices = _of_classes(score, L, names, (p, m, member.queries))
        else:
            value, parts, voices = _of_sum(score, output, p, m, member.queries, names)
            classes = _masses(torch.einsum("qk,qrw->krw", p[:, :-1], m).flatten(), names)
    share = float(member.weight) * value
    return MemberAnswer(
        member.name, score.name, score.formula, float(member.weight), value, share, parts, classes, voices, tuple(notes)
    )


def class_names(member: Member, count: int) -> list[str]:
    """The names of a network's classes, then what it calls the rest."""
    known = getattr(member.network.config, "id2label", None) or {}
    return [*(str(known.get(k, f"class {k}")) for k in range(count)), "no known class"]


def _voice(part: str, q: int, adds: float, p: Tensor, m: Tensor, said: dict[int, tuple[str, ...]], names) -> Voice:
    confidence, label = p[q].max(0)
    return Voice(part, q, names[int(label)], float(confidence), float(m[q]), said.get(q, ()), adds)


def _roles(p: Tensor, queries: QuerySet, confidence: float = 0.7) -> dict[int, tuple[str, ...]]:
    """What each query is to Maskomaly; queries that are nothing to it are left out."""
    _, _, sure, outlier, ground = roles(p, queries, "confident", confidence)
    kinds = {"confident": sure, "outlier": outlier, "ground": ground}
    found = {k: set(torch.nonzero(chosen).flatten().tolist()) for k, chosen in kinds.items()}
    found["specialised"] = set(queries.inlier)
    order = ("confident", "specialised", "outlier", "ground")
    return {q: tuple(k for k in order if q in found[k]) for q in range(len(p)) if any(q in s for s in found.values())}


def _of_maskomaly(score: Score, p: Tensor, m: Tensor, queries: QuerySet, names, notes: list[str]):
    defaults = {k: v.default for k, v in inspect.signature(maskomaly).parameters.items() if v.kind is v.KEYWORD_ONLY}
    o = defaults | dict(score.options)
    top, known, sure, outlier, ground = roles(p, queries, o["inlier"], o["confidence"])
    m = m.flatten()
    weighted = top * m
    said = _roles(p, queries, o["confidence"])

    def best(part: str, chosen: Tensor) -> list[Voice]:
        order = [q for q in weighted.argsort(descending=True).tolist() if chosen[q]][:3]
        return [_voice(part, q, float(weighted[q]), p, m, said, names) for q in order]

    voices = [*best("rejection", sure), *best("outlier", outlier), *best("ground", ground)]
    largest = {v.part: v.adds for v in reversed(voices)}  # the first of each part is the one that decided
    r = 1 - largest.get("rejection", 0.0)
    parts = {"rejection by queries": r}
    if o["border"] is not None:
        crowd = [q for q in range(len(p)) if known[q] and m[q] > o["border"]]
        voices += [_voice("border", q, float(m[q]), p, m, said, names) for q in crowd]
        parts["masks at border"] = float(len(crowd))
        if len(crowd) >= 2:
            notes.append(f"border: {len(crowd)} masks exceed {o['border']:g} here, so the rejection R is 0")
            r = 0.0
    r = min(r, 1 - largest.get("ground", 0.0))
    strange = largest.get("outlier", 0.0)
    mix = float(o["mix"])
    value = mix * r + (1 - mix) * strange
    parts |= {"R": r, "O": strange, "mix": mix, "mix R": mix * r, "(1 - mix) O": (1 - mix) * strange}
    if not sure.any():
        notes.append("no query of this photo rejects (none is confident or specialised), so R is 1 before its rules")
    if mix < 1 and not outlier.any():
        notes.append("the detector names no outlier query, so O is 0")
    return value, parts, tuple(voices)


def _of_sum(score: Score, output: MaskOutput, p: Tensor, m: Tensor, queries: QuerySet, names):
    """Scores that add up w_q m_q."""
    m = m.flatten()
    best = p[:, :-1].amax(1)
    if score.rows is mask.void_mass:
        constant, terms = 0.0, {"no known class": p[:, -1]}
    elif score.rows is mask.eam:
        constant, terms = 1.0, {"known classes": -best}
    else:
        constant, terms = 0.0, {"outlier class": outlier_probabilities(output), "known classes": -best}
    added = torch.stack(list(terms.values())).sum(0) * m
    voices = _largest("sum", added, p, m, queries, names)
    parts = {"constant": constant, **{k: float((w * m).sum()) for k, w in terms.items()}}
    parts["queries not listed"] = float(added.sum()) - sum(v.adds for v in voices)
    return constant + float(added.sum()), parts, voices


def _of_classes(score: Score, L: Tensor, names, queries: tuple[Tensor, Tensor, QuerySet] | None):
    """Scores of the class masses L (K, 1, 1); `queries`: P, m and the set, of a network that has them."""
    value = float(score.rows(L, **score.options).flatten()[0])
    flat = L.flatten()
    shares = (flat + semantic.UNCOVERED) / (flat + semantic.UNCOVERED).sum() if queries else flat.softmax(0)
    winner = int(flat.argmax())
    parts = {"largest L": float(flat[winner]), "sum of L": float(flat.sum()), "its share": float(shares[winner])}
    terms = None
    if score.rows is semantic.rba:
        terms = -flat.tanh()
    elif score.rows in (semantic.entropy, semantic.entropy_softmax):
        s = shares if score.rows is semantic.entropy else flat.softmax(0)
        terms = torch.special.entr(s) / torch.log(torch.tensor(float(len(s))))
    classes = _masses(flat, names, terms)
    if queries is None:
        return value, parts, classes, ()
    p, m, known = queries
    m = m.flatten()
    if score.rows in (semantic.max_logit, semantic.max_share, semantic.msp):
        part, added = f"L of {names[winner]}", p[:, winner] * m
    else:
        part, added = "sum of L", p[:, :-1].sum(1) * m
    return value, parts, classes, _largest(part, added, p, m, known, names)


def _largest(part: str, added: Tensor, p: Tensor, m: Tensor, queries: QuerySet, names) -> tuple[Voice, ...]:
    said = _roles(p, queries)
    order = added.abs().argsort(descending=True)[:SHOWN].tolist()
    return tuple(_voice(part, q, float(added[q]), p, m, said, names) for q in order)


def _masses(L: Tensor, names: Sequence[str], terms: Tensor | None = None) -> tuple[dict[str, Any], ...]:
    rows = [{"label": names[k], "mass": float(L[k])} for k in L.argsort(descending=True).tolist()]
    if terms is not None:
        for row, k in zip(rows, L.argsort(descending=True).tolist(), strict=True):
            row["term"] = float(terms[k])
    return tuple(rows)
