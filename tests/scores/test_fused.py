"""The compiled passes over the masks against plain loops and against PyTorch's own way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import naive
from helpers.outputs import make_output
from xenomask.detector.fuse import ensemble
from xenomask.errors import XenomaskError
from xenomask.masks import MaskOutput, class_probabilities
from xenomask.scores import SCORES, Gather, Score, backend, cpu, get_score, score_all, score_of
from xenomask.scores.plan import has_twin
from xenomask.scores.score import _by_torch as by_torch
from xenomask.scores.score import plan_of
from xenomask.types import QuerySet

OFTEN = ["maskomaly", "eam", "rba", "max_logit", "msp", "entropy", "energy", "void_mass"]
PLAIN = [s for s in SCORES.values() if not s.outlier_class and not s.needs]


def drawn(seed, q=5, mask=(7, 9), padded=(32, 48), used=(29, 41), image=(23, 57), n=6, spread=4.0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(q, *mask, generator=g) * spread
    return MaskOutput(torch.randn(q, n, generator=g) * 3, logits, padded, used, image)


def both(output, queries, scores):
    """The numba pass's maps and PyTorch's; and of max_logit NumPy's and PyTorch's."""
    a, b = (score_all(output, queries, scores, kernel) for kernel in ("numba", "torch"))
    c = score_all(output, queries, [s for s in scores if s.name == "max_logit"], "numpy")
    return [(name, found[name].value, b[name].value) for found in (a, c) for name in found]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    q=st.sampled_from([1, 2, 3, 4, 5, 9, 33, 300]),
    mask=st.tuples(st.integers(1, 12), st.integers(1, 40)),
    image=st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 17, 127, 128, 129, 257])),
    pad=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    spread=st.sampled_from([0.1, 3.0, 40.0, 1e4]),
    picked=st.lists(st.integers(0, 299), max_size=4),
)
def test_numba__equals_torch_on_any_size(seed, q, mask, image, pad, spread, picked):
    padded = mask[0] * 4, mask[1] * 4
    used = max(1, padded[0] - pad[0]), max(1, padded[1] - pad[1])
    output = drawn(seed, q, mask, padded, used, image, spread=spread)
    some = sorted({i % q for i in picked})
    queries = QuerySet(outlier=dict.fromkeys(some[:2], 0.5), ground=tuple(some[1:3]))
    for name, found, expected in both(output, queries, PLAIN):
        # q terms are summed in another order; a large logit's last bit moves a mask where it is about 1/2
        allowed = 1e-6 * (2 + q / 20 + spread / 5) * np.maximum(1, np.abs(expected))
        wrong = np.abs(found - expected) > allowed
        # the rule of borders is a step: a logit within rounding of the border may fall on either side
        assert wrong.mean() <= (0.002 if "maskomaly" in name else 0), (name, np.abs(found - expected).max())


def test_numba__equals_loops_in_float64():
    output, queries = drawn(3, q=7), QuerySet(outlier={1: 0.5}, ground=(4,))
    p = class_probabilities(output).double().numpy()
    logits = naive.resized(output.mask_logits.numpy(), output.padded_size, output.input_size, output.image_size)
    m = np.vectorize(naive.sigmoid)(logits)
    expected = naive.scores(p, m) | {"maskomaly": naive.maskomaly(p, m, [1], [4], None)}
    found = score_all(output, queries, [SCORES[name] for name in expected], "numba")
    for name, value in expected.items():
        assert np.abs(found[name].value - value).max() < 1e-6, name


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    q=st.sampled_from([2, 7, 40]),
    image=st.tuples(st.integers(9, 90), st.integers(100, 300)),
    level=st.sampled_from([-3.0, 0.0, 2.2, 30.0]),
    flat=st.booleans(),
    same=st.booleans(),
)
def test_numba__what_is_skipped_does_not_matter(seed, q, image, level, flat, same):
    """Masks that cover whole tiles, at one level or in wide steps around a border: nearly all work is left out there.

    Scores with and without a rule of borders share a peak, so that pixels that one does not read the other does; with
    `same` so do the two branches of one score.
    """
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(q, 2, 3, generator=g).repeat_interleave(8, 1).repeat_interleave(12, 2) + level
    if flat:
        logits = torch.full_like(logits, level)
    output = MaskOutput(torch.randn(q, 6, generator=g) * 3, logits, (64, 144), (60, 144), image)
    some = range(q) if same else range(1)
    queries = QuerySet(outlier=dict.fromkeys(some, 0.5), ground=tuple(some) if same else (1,))
    maskomaly = {"border": None}, {"border": 0.9}, {"border": 0.1}, {"border": 0.1, "confidence": 0.0}
    scores = [replace(get_score("maskomaly", o), name=str(o)) for o in maskomaly]
    for chosen in (scores, scores[1:2], [*scores[:2], SCORES["eam"]], scores[2:3], [SCORES["max_logit"]]):
        for name, found, expected in both(output, queries, chosen):
            allowed = 1e-6 * (2 + q / 20 + abs(level) / 5) * np.maximum(1, np.abs(expected))
            wrong = np.abs(found - expected) > allowed
            assert wrong.mean() <= (0.002 if "border" in name else 0), name  # a step, as above


def test_max_logit__where_no_query_adds_anything_is_zero():
    output = drawn(1, q=5, mask=(8, 16), padded=(32, 64), used=(32, 64), image=(256, 512), n=4)
    output.mask_logits[:] = torch.where(torch.arange(16) < 8, 5.0, -20.0)
    output.class_logits[:] = 0
    for name, found, expected in both(output, QuerySet(), [SCORES["max_logit"]]):
        assert np.abs(found - expected).max() < 1e-6 and found[0, -1] == 0, name


@pytest.mark.parametrize("name", OFTEN)
def test_numba__same_bits_with_any_threads_and_beside_other_scores(name):
    output, queries = drawn(5, q=11, image=(61, 300)), QuerySet(outlier={2: 0.5})
    alone = plan_of(output, queries, [SCORES[name]])
    together = plan_of(output, queries, [SCORES[s] for s in OFTEN])
    assert alone is not None and together is not None
    maps = []
    for todo, threads in ((alone, 1), (alone, 2), (alone, 7), (together, 3)):
        onto = np.zeros((len(todo.steps), 61, 300), np.float32)
        cpu.add_scores(output, todo, 1.0, onto, threads)
        maps.append(onto[OFTEN.index(name) if todo is together else 0])
    assert all((m == maps[0]).all() for m in maps[:3])
    # alone, max_logit leaves out classes that cannot be the largest and queries that add less than 1e-8 to the others
    assert np.abs(maps[3] - maps[0]).max() <= (1e-6 if name == "max_logit" else 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numba__any_dtype_and_strides(dtype):
    base = drawn(7, q=6, mask=(8, 10))
    strided = base.mask_logits.to(dtype).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    output = MaskOutput(base.class_logits.to(dtype), strided, base.padded_size, base.input_size, base.image_size)
    assert not output.mask_logits.is_contiguous()
    for name, found, expected in both(output, QuerySet(), PLAIN):
        assert np.abs(found - expected).max() < 2e-6, name


def test_numba__infinite_logits_are_certainty():
    output = drawn(9, q=4, mask=(6, 6), padded=(24, 24), used=(24, 24), image=(48, 48))
    output.mask_logits[0, :3] = torch.inf
    output.mask_logits[1, 3:] = -torch.inf
    output.mask_logits[2] = -1e4
    for name, found, expected in both(output, QuerySet(outlier={0: 1.0}), PLAIN):
        assert np.isfinite(found).all() and np.abs(found - expected).max() < 2e-6, name


@pytest.mark.parametrize("part", ["mask_logits", "class_logits"])
@pytest.mark.parametrize("kernel", ["numba", "torch", "numpy"])
def test_scores__nan_is_refused(part, kernel):
    output = drawn(1)
    getattr(output, part).view(-1)[7] = torch.nan
    for score in ("maskomaly", "rba", "eam") if kernel != "numpy" else ("max_logit",):
        with pytest.raises(XenomaskError, match="NaN"):
            score_all(output, None, [SCORES[score]], kernel)


def test_numba__adds_members():
    a, b = drawn(1), drawn(2)
    onto = np.zeros((1, *a.image_size), np.float32)
    for output, weight in ((a, 0.25), (b, 0.75)):
        todo = plan_of(output, QuerySet(), [SCORES["eam"]])
        assert todo is not None
        cpu.add_scores(output, todo, weight, onto)
    maps = [score_of(o, None, "eam") for o in (a, b)]
    assert (onto[0] == ensemble(maps, [0.25, 0.75]).value).all()  # to the last bit: benchmark joins maps, detect adds


def test_numba__options_and_query_sets():
    output = drawn(4, q=8)
    queries = QuerySet(inlier={1: 0, 5: 2}, outlier={6: 0.4, 2: 0.3}, ground=(3,))
    chosen = [
        get_score("maskomaly_specialised"),
        get_score("maskomaly", {"mix": 0.3, "confidence": 0.2, "border": 0.4}),
    ]
    for score in chosen:
        ((name, found, expected),) = both(output, queries, [score])
        assert np.abs(found - expected).max() < 2e-6, name


def test_scores_without_a_compiled_finish__are_gathered_by_the_fused_kernel(monkeypatch):
    """The fused kernel hands out what they read, also beside others; only counts are left to PyTorch."""
    own = [
        Score("own", "sum L", (0, 1), finish=lambda L: L.sum(0)),
        Score("peak", "max m", (0, 1), lambda p, queries, outlier: Gather({"a": p[:, 0]}, sums={"b": p[:, 1]}),
              lambda found: found["a"] - 2 * found["b"]),
        Score("count", "masks", (0, 1), lambda p, queries, outlier: Gather(counts={"n": p[:, 0] * 0 + 0.5}),
              lambda found: found["n"] / 3),
    ]  # fmt: skip
    assert not any(has_twin(s) for s in own)
    asked = []
    for output in (drawn(2), replace(drawn(2), mirrored=True)):
        monkeypatch.setattr("xenomask.scores.score._by_torch", lambda *a: asked.append(len(a[2])) or by_torch(*a))
        found = score_all(output, None, [SCORES["eam"], *own, SCORES["rba"]])
        true = score_all(output, None, [SCORES["eam"], *own, SCORES["rba"]], "torch")
        for name, map_ in true.items():
            assert np.abs(found[name].value - map_.value).max() < 2e-6, name
    assert asked == [1, 5, 1, 5]


def test_numba__outlier_class():
    output = make_output(seed=1, outlier_class=True)
    ((_, found, expected),) = both(output, QuerySet(), [SCORES["uno"]])
    assert np.abs(found - expected).max() < 2e-6


def test_choose__unknown_and_foreign_paths():
    with pytest.raises(XenomaskError, match="unknown kernel 'numbaa'; did you mean 'numba'"):
        backend.choose("numbaa", "cpu")
    with pytest.raises(XenomaskError, match="kernel triton is not for device cpu: take --kernel numba"):
        backend.choose("triton", "cpu")
    with pytest.raises(XenomaskError, match="kernel numpy computes max_logit alone, not rba: take --kernel auto"):
        score_all(drawn(1), None, [SCORES["max_logit"], SCORES["rba"]], "numpy")
    assert backend.choose("auto", "cpu").name == "numba" and backend.choose("auto", "mps").name == "torch"


def test_choose__a_path_that_does_not_load_says_why(monkeypatch):
    def broken(name):
        raise ImportError("no numba here")

    monkeypatch.setattr(backend, "_load", broken)
    backend.choose.cache_clear()
    try:
        assert "no numba here" in backend.choose("auto", "cpu").why and backend.choose("auto", "cpu").name == "torch"
        with pytest.raises(XenomaskError, match="numba does not load: ImportError: no numba here; take --kernel torch"):
            backend.choose("numba", "cpu")
    finally:
        backend.choose.cache_clear()
