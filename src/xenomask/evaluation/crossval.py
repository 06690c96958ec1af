"""Query choice, ensemble weights, lambda and threshold chosen without the frames that they are judged on.

Every number appears twice: in-sample (chosen on all frames, judged on the same) and held out (each fold's frames
judged with what the other folds chose, their counters pooled); the difference is the optimism of the former.
"""

import itertools
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xenomask.datasets import Dataset
from xenomask.detector import Detector, Member
from xenomask.errors import XenomaskError
from xenomask.masks import with_queries
from xenomask.metrics import count, curve, numbers, pool
from xenomask.metrics.counters import FrameCounters, values
from xenomask.metrics.table import lower_is_better, pixel_numbers
from xenomask.predict.cache import ENDING, cache_outputs, read_output
from xenomask.queries.outlier import anomaly_iou, choose, mean_iou
from xenomask.scores import Score, get_score, score_all
from xenomask.types import Tick, nothing

CHOICES = ("queries", "weights", "lambda")
OBJECTIVES = tuple(n.key for n in pixel_numbers() if n.better)
# One outlier query set a member, as sorted query numbers.
Sets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Choice:
    """What was chosen on some frames: outlier queries by member, ensemble weights, lambda (None: not searched)."""

    queries: Sets
    weights: tuple[float, ...]
    mix: float | None


@dataclass(frozen=True)
class Fold:
    """Frames held out together, and what the others chose; the threshold is the others' best F1's."""

    frames: tuple[str, ...]
    choice: Choice
    threshold: float


@dataclass(frozen=True)
class CrossVal:
    """The numbers in-sample and held out, and what was chosen where."""

    in_sample: Mapping[str, float]
    held_out: Mapping[str, float]
    optimism: Mapping[str, float]
    choice: Choice
    folds: tuple[Fold, ...]


def scene(frame: str) -> str:
    """The scene of a frame id: what stands before its running numbers.

    >>> scene("04_Maurener_Weg_8_000000_000030"), scene("curvy-street_12")
    ('04_Maurener_Weg_8', 'curvy-street')
    """
    return re.sub(r"(_\d{6})+$", "", frame) if re.search(r"_\d{6}$", frame) else frame.rpartition("_")[0] or frame


def make_folds(ids: Sequence[str], folds: int | None, by_scene: bool, seed: int) -> list[tuple[str, ...]]:
    """Groups of frames that are held out together: each frame alone, each scene, or either dealt into `folds`.

    Raises XenomaskError where fewer than two groups come out.
    """
    groups: dict[str, list[str]] = {}
    for i in ids:
        groups.setdefault(scene(i) if by_scene else i, []).append(i)
    parts = list(groups.values())
    if folds is not None and folds < len(parts):
        order = np.random.default_rng(seed).permutation(len(parts))
        parts = [[i for g in order[k::folds] for i in parts[g]] for k in range(folds)]
    if len(parts) < 2:
        raise XenomaskError(
            f"only {len(parts)} group of frames to hold out ({ids[0]}, ...): more frames are needed, or, where the "
            "ids do not name scenes, leave --by-scene out"
        )
    return [tuple(sorted(p)) for p in parts]


def weight_grid(members: int, step: float) -> list[tuple[float, ...]]:
    """All weights >= 0 in multiples of `step` that sum to 1.

    >>> weight_grid(2, 0.5)
    [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    """
    n = round(1 / step)
    if n < 1 or abs(n * step - 1) > 1e-6:
        raise XenomaskError(f"a step of {step} does not divide 1: take .1, .05, .25, ...")
    return [tuple(k / n for k in ks) for ks in itertools.product(range(n + 1), repeat=members) if sum(ks) == n]


def crossval(
    detector: Detector,
    data: Dataset,
    cache: Path | None = None,
    *,
    what: Sequence[str] = ("queries", "weights"),
    folds: int | None = None,
    by_scene: bool = False,
    step: float = 0.1,
    mixes: Sequence[float] = tuple(k / 10 for k in range(11)),
    objective: str = "aupr_sum",
    iou: float | None = None,
    mask_threshold: float | None = None,
    seed: int = 0,
    tick: Tick = nothing,
) -> CrossVal:
    """Chooses `what` on all frames, and inside each fold on the frames that are not held out.

    Each network looks once at each frame (`tick` once a member and frame); its outputs stay in `cache`, if given.
    What is not in `what` stays the detector's own: query sets that were themselves chosen on these frames leak.
    Outlier queries are chosen by the thresholds of the detector's own analysis, or by `iou` and `mask_threshold`; of a
    per-pixel member none is. Raises XenomaskError where queries are to be chosen and no member has any, or no frame
    outside of a fold has an anomaly, and for a detector with refinements.
    """
    if detector.refine:
        raise XenomaskError(
            f"{detector.name} refines its maps by {detector.refine[0].name}, and folds are chosen by maps as they are "
            "before: use --refine none"
        )
    if "queries" in what and all(m.network.per_pixel for m in detector.members):
        raise XenomaskError(
            f"{detector.name} has no queries to choose: its networks classify pixels; choose weights alone "
            "(--choose weights)"
        )
    data = data.labelled()
    ids = [f.id for f in data.frames]
    groups = make_folds(ids, folds, by_scene, seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = cache or Path(temporary)
        cache_outputs(detector, data, folder, tick=tick)
        trial = _Trial(detector, data, folder, "queries" in what, iou, mask_threshold)
        weights = weight_grid(len(detector.members), step) if "weights" in what else [_weights(detector)]
        grid = list(itertools.product(weights, mixes if "lambda" in what else [None]))
        train = [tuple(i for i in ids if i not in set(g)) for g in groups]
        sets = [trial.choose_queries(t) for t in [*train, tuple(ids)]]
        counters = trial.count(sets, grid)
    own = [_best(counters, sets[k], frames, grid, objective) for k, frames in enumerate([*train, tuple(ids)])]
    found = [Fold(g, c, t) for g, (c, t, _) in zip(groups, own, strict=False)]
    held = {i: counters[i][f.choice] for f in found for i in f.frames}
    choice, _, inside = own[-1]
    outside = {**numbers(curve(pool(held.values()))), "f1_at_chosen_threshold": _f1(found, held)}
    inside = {**inside, "f1_at_chosen_threshold": inside["best_f1"]}
    optimism = {k: inside[k] - outside[k] for k in (*OBJECTIVES, "f1_at_chosen_threshold")}
    return CrossVal(inside, outside, optimism, choice, tuple(found))


def _weights(detector: Detector) -> tuple[float, ...]:
    return tuple(m.weight for m in detector.members)


def _best(counters, sets: Sets, frames: Sequence[str], grid, objective: str):
    """(choice, its best-F1 threshold, its numbers) on some frames; the first of equals."""
    sign = -1 if lower_is_better(objective) else 1
    tried = []
    for weights, mix in grid:
        c = Choice(sets, weights, mix)
        tried.append((c, numbers(curve(pool(counters[i][c] for i in frames)))))
    choice, found = max(tried, key=lambda t: sign * t[1][objective])
    return choice, found["best_f1_threshold"], found


def _f1(folds: Sequence[Fold], held: Mapping[str, FrameCounters]) -> float:
    """F1 of the pooled decisions when each held-out frame is cut at the threshold that the others chose."""
    tp = fp = positives = 0
    for fold in folds:
        for i in fold.frames:
            over = values(held[i].key).astype(np.float64) >= fold.threshold
            tp += int(held[i].positive[over].sum())
            fp += int(held[i].negative[over].sum())
            positives += int(held[i].positive.sum())
    return 2 * tp / max(tp + fp + positives, 1)


class _Trial:
    """The cached outputs of every member on every frame, and the counters of each configuration tried on them."""

    def __init__(self, detector: Detector, data: Dataset, folder: Path, queries: bool, iou, mask_threshold):
        self.detector, self.data, self.folder = detector, data, folder
        self.frames = {f.id: f for f in data.frames}
        self.choosing = queries
        self.rules: list[dict[str, Any]] = []
        self.iou: list[dict[str, np.ndarray]] = []
        for m in detector.members if queries else ():
            rule = {"iou": 0.25, "mask_threshold": 0.9, "top_k": None, **m.queries.origin.get("outlier", {})}
            rule |= {k: v for k, v in (("iou", iou), ("mask_threshold", mask_threshold)) if v is not None}
            self.rules.append(rule)
            # as in the analysis: of a frame without an anomaly there is no IoU
            frames = () if m.network.per_pixel else [i for i in self.frames if (self.label(i) == 1).any()]
            self.iou.append(
                {i: anomaly_iou(with_queries(self.output(m, i)), self.label(i), rule["mask_threshold"]) for i in frames}
            )

    def label(self, frame: str) -> np.ndarray:
        return self.data.label(self.frames[frame])

    def output(self, member: Member, frame: str):
        return read_output(self.folder / member.name / f"{frame}{ENDING}")

    def choose_queries(self, frames: Sequence[str]) -> Sets:
        """Each member's outlier queries by the mean IoU over the given frames."""
        if not self.choosing:
            return tuple(tuple(sorted(m.queries.outlier)) for m in self.detector.members)
        return tuple(
            tuple(sorted(choose(mean_iou({i: own[i] for i in frames if i in own}), rule["iou"], rule["top_k"])))
            if own
            else ()
            for own, rule in zip(self.iou, self.rules, strict=True)
        )

    def count(self, sets: Sequence[Sets], grid) -> dict[str, dict[Choice, FrameCounters]]:
        """{frame: {configuration: counters}} for each query choice that any fold made, and each point of the grid."""
        mixes = list(dict.fromkeys(mix for _, mix in grid))
        weights = list(dict.fromkeys(w for w, _ in grid))
        found: dict[str, dict[Choice, FrameCounters]] = {}
        for i in self.frames:
            label = self.label(i)
            maps = self._member_maps(i, {(m, s[m]) for s in sets for m in range(len(s))}, mixes)
            found[i] = {}
            for chosen, mix in itertools.product(dict.fromkeys(sets), mixes):
                own = [maps[m, queries, mix] for m, queries in enumerate(chosen)]
                for w in weights:
                    joined = sum(np.float32(x) * v for x, v in zip(w, own, strict=True) if x > 0)
                    found[i][Choice(chosen, w, mix)] = count(np.asarray(joined).astype(np.float16), label)
        return found

    def _member_maps(self, frame: str, wanted, mixes) -> dict[tuple[int, tuple[int, ...], float | None], np.ndarray]:
        """{(member, outlier queries, lambda): map}; lambda mixes two maps that are made once."""
        maps = {}
        for m, queries in wanted:
            member = self.detector.members[m]
            output = self.output(member, frame)
            scores: dict[float | None, Score] = {mix: member.score for mix in mixes if mix is None}
            if len(scores) < len(mixes):
                name, options = member.score.name, dict(member.score.options)
                scores |= {x: replace(get_score(name, {**options, "mix": x}), name=f"{name} {x}") for x in (0.0, 1.0)}
            own = replace(member.queries, outlier=dict.fromkeys(queries, 0.0))
            values_of = {name: s.value for name, s in score_all(output, own, scores.values()).items()}
            for mix in mixes:
                if mix is None:
                    maps[m, queries, mix] = values_of[scores[None].name]
                else:
                    ends = values_of[scores[1.0].name], values_of[scores[0.0].name]
                    maps[m, queries, mix] = np.float32(mix) * ends[0] + np.float32(1 - mix) * ends[1]
        return maps
