"""MaskOutput + QuerySet, or PixelOutput -> ScoreMap: several scores of one image at once, on the chosen backend."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from xenomask.arrays import check_onto
from xenomask.errors import XenomaskError
from xenomask.masks import (
    MaskOutput,
    PixelOutput,
    class_probabilities,
    in_torch,
    outlier_probabilities,
    refuse_nan,
    resized_logits,
    row_blocks,
    soft_masks,
)
from xenomask.masks import semantic as class_masses
from xenomask.scores import mask, maskomaly, semantic
from xenomask.scores.backend import Backend, choose
from xenomask.scores.codes import MAX_LOGIT
from xenomask.scores.definition import SCORES, Gather, P, Score, gather_rows, get_score
from xenomask.scores.plan import Plan, handing_out, has_twin, plan
from xenomask.shapes import Float32
from xenomask.types import QuerySet, ScoreMap

for _score in (*semantic.SCORES, *mask.SCORES, *maskomaly.SCORES):
    SCORES.setdefault(_score.name, _score)


def score_of(output: MaskOutput | PixelOutput, queries: QuerySet | None, score: Score | str) -> ScoreMap:
    """The raw map of one score, or its name, at the image's size, higher = more anomalous; errors as `score_all`'s."""
    score = get_score(score) if isinstance(score, str) else score
    return score_all(output, queries, [score])[score.name]


def score_all(
    output: MaskOutput | PixelOutput,
    queries: QuerySet | None,
    scores: Iterable[Score],
    kernel: str = "auto",
) -> dict[str, ScoreMap]:
    """Several scores of one image, gathered together.

    `kernel`: see `backend.choose`. PyTorch (forced by "torch", and for what the fused kernel cannot gather) holds the
    masks of a block of rows.

    Raises XenomaskError where a score is not defined for a per-pixel network or for so few classes, where it needs
    queries that the QuerySet lacks or names queries that the network has not, where it needs an outlier class that the
    network has not, where the network's logits hold NaN, and where a map is not finite.
    """
    scores, queries = list(scores), queries or QuerySet()
    maps = np.zeros((len(scores), *output.image_size), np.float32)
    with _inference(output):
        if isinstance(output, PixelOutput):
            _of_pixels(output, scores, maps)
        else:
            _add(output, queries, scores, 1.0, maps, kernel)
    return _checked({s.name: value for s, value in zip(scores, maps, strict=True)})


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
    if isinstance(output, MaskOutput):
        with _inference(output):
            _add(output, queries, [score], weight, onto[None], kernel)
    else:
        onto += np.float32(weight) * score_all(output, queries, [score], kernel)[score.name].value


def as_released(output: MaskOutput, queries: QuerySet, score: Score) -> ScoreMap:
    """The map with Maskomaly's released code's geometry: padding kept, stretched over the image by INTER_AREA.

    For comparison only: where the input was padded, the map is shifted by up to the padding's share
    (1280x720 -> 1820x1024 -> 1824x1024: 0.2 %).
    """
    H, W = output.image_size
    padded = replace(output, input_size=output.padded_size, image_size=output.padded_size)
    value = cv2.resize(score_of(padded, queries, score).value, (W, H), interpolation=cv2.INTER_AREA)
    return ScoreMap(value, score.name)


def gathered(output: MaskOutput, p: P, queries: QuerySet, scores: Sequence[Score]) -> list[tuple[Score, Gather | None]]:
    """Each score with what it gathers of one image's masks, of P (Q, N); None where that is the class map."""
    outlier = outlier_probabilities(output) if any(s.outlier_class for s in scores) else None
    return [(s, None if s.on_classes else s.gathers(p, queries, outlier)) for s in scores]


def plan_of(output: MaskOutput, queries: QuerySet, scores: Sequence[Score]) -> Plan:
    """The fused kernel's plan of scores that `has_twin` holds of."""
    p = class_probabilities(output)
    return plan(p, gathered(output, p, queries, scores))


def _device(output: MaskOutput) -> str:
    return "cpu" if isinstance(output.mask_logits, np.ndarray) else output.mask_logits.device.type


def _inference(output: MaskOutput | PixelOutput) -> AbstractContextManager[Any]:
    """What is to be open while a map is made: tensors keep no gradients."""
    logits = output.class_map_logits if isinstance(output, PixelOutput) else output.mask_logits
    if isinstance(logits, np.ndarray):
        return nullcontext()
    import torch

    return torch.inference_mode()


def _of_pixels(output: PixelOutput, scores: Sequence[Score], maps: Float32[np.ndarray, "t H W"]) -> None:
    check_classes(scores, len(output.class_map_logits))
    for s in scores:
        s.displayed(per_pixel=True)
    refuse_nan(output.class_map_logits)
    for rows in row_blocks(output):
        L = resized_logits(output, rows)
        for s, value in zip(scores, maps, strict=True):
            value[rows] = s.of_classes(L).cpu().numpy()


def _add(
    output: MaskOutput, queries: QuerySet, scores: Sequence[Score], weight: float,
    onto: Float32[np.ndarray, "t H W"], kernel: str,
) -> None:  # fmt: skip
    """Adds weight x each score to `onto`: what the fused kernel can do by it, the rest by PyTorch."""
    backend = choose(kernel, _device(output))
    if backend.name == "numpy" and (other := next((s.name for s in scores if s.twin != MAX_LOGIT), None)):
        raise XenomaskError(f"kernel numpy computes max_logit alone, not {other}: take --kernel auto")
    if backend.add is None or not all(has_twin(s) and (s.on_classes or s.on_arrays) for s in scores):
        output = in_torch(output)
    p = class_probabilities(output)
    refuse_nan(p)
    check_classes(scores, p.shape[1] - 1)
    check_queries(scores, queries, len(p))
    todo = gathered(output, p, queries, scores)
    fused = [i for i, s in enumerate(scores) if backend.add is not None and has_twin(s)]
    if fused:
        _fused(output, backend, plan(p, [todo[i] for i in fused]), weight, onto, fused)
    handed = [i for i, (_, what) in enumerate(todo) if i not in fused and backend.add and not (what and what.counts)]
    for i in handed:
        onto[i] += np.float32(weight) * _handed_out(output, backend, p, *todo[i])
    left = [i for i in range(len(scores)) if i not in fused and i not in handed]
    if left:
        _by_torch(output, p, [todo[i] for i in left], weight, [onto[i] for i in left])


def _fused(
    output: MaskOutput, backend: Backend, todo: Plan, weight: float, onto: Float32[np.ndarray, "t H W"],
    places: Sequence[int],
) -> None:  # fmt: skip
    """Adds weight x each score of the plan to its place in `onto`."""
    assert backend.add is not None
    if not output.mirrored and len(places) == len(onto):
        backend.add(output, todo, weight, onto)
        return
    found = np.zeros((len(places), *output.image_size), np.float32)
    backend.add(replace(output, mirrored=False), todo, weight, found)
    for i, value in zip(places, found, strict=True):
        onto[i] += value[:, ::-1] if output.mirrored else value


def _handed_out(output: MaskOutput, backend: Backend, p: P, score: Score, what: Gather | None) -> np.ndarray:
    """The map (H, W) of a score without a compiled finish: the fused kernel gathers, PyTorch finishes."""
    import torch

    sums = list(what.sums.items()) if what else [(str(k), p[:, k]) for k in range(p.shape[1] - 1)]
    peaks = list(what.peaks.items()) if what else []
    found = np.zeros((len(sums) + len(peaks), *output.image_size), np.float32)
    todo = handing_out(len(p), [w for _, w in sums], [w for _, w in peaks])
    _fused(output, backend, todo, 1.0, found, range(len(found)))
    parts = []
    for rows in row_blocks(output):
        block = torch.from_numpy(found[:, rows])
        named = dict(zip([name for name, _ in (*sums, *peaks)], block, strict=True))
        parts.append(score.of_gathered(what, named) if what else score.of_classes(block))
    return torch.cat(parts).numpy()


def _by_torch(
    output: MaskOutput, p: P, todo: Sequence[tuple[Score, Gather | None]], weight: float,
    onto: Sequence[Float32[np.ndarray, "H W"]],
) -> None:  # fmt: skip
    """The reference: adds weight x each score, gathered by PyTorch from the masks of a block of rows."""
    refuse_nan(output.mask_logits)
    for rows in row_blocks(output):
        m = soft_masks(output, rows)
        L = class_masses(p, m) if any(what is None for _, what in todo) else None
        for (s, what), value in zip(todo, onto, strict=True):
            found = s.of_classes(L) if what is None else s.of_gathered(what, gather_rows(what, m))  # pyright: ignore
            value[rows] += np.float32(weight) * found.float().cpu().numpy()


def _checked(values: dict[str, np.ndarray]) -> dict[str, ScoreMap]:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise XenomaskError(f"score {name} is not finite: the network's logits hold NaN or infinity")
    return {name: ScoreMap(value, name) for name, value in values.items()}


def check_classes(scores: Iterable[Score], classes: int) -> None:
    """Raises XenomaskError where a score is not defined for so few training classes."""
    for s in scores:
        if classes < s.fewest:
            offered = ", ".join(o.name for o in SCORES.values() if o.fewest <= classes and o.on_classes)
            raise XenomaskError(
                f"score {s.name} is not defined for {classes} class: it compares classes' shares, and one's is always "
                f"1; choose one of {offered}, or a score of the masks"
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
