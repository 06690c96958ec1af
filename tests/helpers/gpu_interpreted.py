"""The Triton kernels in Triton's interpreter, on CPU tensors; `test_gpu.py` runs this file in a process of its own,
because the interpreter is chosen for a whole process when Triton is first imported."""

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import naive
from helpers.deformable import SIZES, inputs, reference_form
from xenomask.masks import MaskOutput, class_probabilities
from xenomask.models import build, deformable, deformable_gpu
from xenomask.scores import SCORES, get_score, gpu, score_all
from xenomask.scores.score import plan_of
from xenomask.types import QuerySet

OFTEN = ["maskomaly", "eam", "rba", "max_logit", "msp", "entropy", "energy", "void_mass"]
PLAIN = [s for s in SCORES.values() if not s.outlier_class and not s.needs]
OF_ONE_CLASS = [s for s in PLAIN if s.fewest == 1]  # shares of one class are always 1

# NumPy, which the interpreter computes with, warns where e^x is infinite.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


def drawn(seed, q=5, mask=(4, 9), padded=(16, 36), used=(15, 30), image=(7, 37), n=6, spread=4.0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(q, *mask, generator=g) * spread
    return MaskOutput(torch.randn(q, n, generator=g) * 3, logits, padded, used, image)


def planned(output, queries, scores):
    todo = plan_of(output, queries, scores)
    assert todo is not None
    return todo


def both(output, queries, scores):
    """The kernel's maps and PyTorch's."""
    found = np.zeros((len(scores), *output.image_size), np.float32)
    gpu.add_scores(output, planned(output, queries, scores), 1.0, found)
    expected = score_all(output, queries, scores, "torch")
    return [(s.name, a, expected[s.name].value) for s, a in zip(scores, found, strict=True)]


def compare(output, queries, scores, allowed=2e-6):
    """The difference is that of float32: beyond values of 1 it grows with them."""
    for name, found, expected in both(output, queries, scores):
        apart = np.abs(found - expected) / np.maximum(1, np.abs(expected))
        assert apart.max() <= allowed, (name, apart.max())


@pytest.mark.parametrize(
    ("q", "n", "mask", "used", "image"),
    [
        (1, 2, (1, 1), (4, 4), (1, 1)),  # K = 1
        (2, 3, (5, 8), (17, 30), (20, 33)),  # 4 rows a tile and fewer
        (33, 20, (3, 7), (12, 28), (4, 33)),  # K = 19
        (5, 6, (9, 40), (36, 160), (4, 31)),  # smaller than the masks
        (7, 4, (6, 5), (21, 20), (11, 32)),  # 2 rows a tile
        (300, 3, (2, 3), (8, 12), (1, 20)),
    ],
)
def test_kernel__equals_torch_on_any_size(q, n, mask, used, image):
    output = drawn(q, q, mask, (mask[0] * 4, mask[1] * 4), used, image, n)
    queries = QuerySet(outlier={0: 0.5}, ground=(q - 1,)) if q > 1 else QuerySet()
    # sums of q masks below 1, in float32 and in two orders
    compare(output, queries, PLAIN if n > 2 else OF_ONE_CLASS, 2e-6 * max(1, q / 50))


def test_kernel__equals_loops_in_float64():
    output, queries = drawn(3, q=7), QuerySet(outlier={1: 0.5}, ground=(4,))
    p = class_probabilities(output).double().numpy()
    logits = naive.resized(output.mask_logits.numpy(), output.padded_size, output.input_size, output.image_size)
    m = np.vectorize(naive.sigmoid)(logits)
    expected = naive.scores(p, m) | {"maskomaly": naive.maskomaly(p, m, [1], [4], None)}
    for name, found, _ in both(output, queries, [SCORES[s] for s in expected]):
        assert np.abs(found - expected[name]).max() < 2e-6, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_kernel__any_dtype_and_strides(dtype):
    base = drawn(7, q=6)
    strided = base.mask_logits.to(dtype).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    output = MaskOutput(base.class_logits.to(dtype), strided, base.padded_size, base.input_size, base.image_size)
    assert not output.mask_logits.is_contiguous()
    compare(output, QuerySet(), [SCORES[s] for s in OFTEN])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_kernel__infinite_logits_are_certainty(dtype):
    output = drawn(9, q=4)
    logits = output.mask_logits.to(dtype)
    logits[0, :2], logits[1, 2:], logits[2] = torch.inf, -torch.inf, -1e4
    output = MaskOutput(output.class_logits, logits, output.padded_size, output.input_size, output.image_size)
    compare(output, QuerySet(outlier={0: 1.0}), PLAIN)


def test_kernel__options_query_sets_and_the_outlier_class():
    output = drawn(4, q=8)
    queries = QuerySet(inlier={1: 0, 5: 2}, outlier={6: 0.4, 2: 0.3}, ground=(3,))
    own = {"mix": 0.3, "confidence": 0.2, "border": 0.4}
    compare(output, queries, [get_score("maskomaly_specialised"), get_score("maskomaly", own)])
    sizes = output.padded_size, output.input_size, output.image_size
    compare(MaskOutput(output.class_logits, output.mask_logits, *sizes, True), queries, [SCORES["uno"], SCORES["rba"]])


def test_kernel__no_query_that_counts():
    output = drawn(6)
    output.class_logits[:, -1] = 50.0  # all are "no object"
    ((_, found, expected),) = both(output, QuerySet(), [SCORES["maskomaly"]])
    assert (found == np.float32(0.6)).all() and np.abs(found - expected).max() < 1e-6


def test_kernel__queries_without_weight_change_nothing():
    some, all_of_them = drawn(8, q=9), drawn(8, q=9)
    idle = [2, 3, 7]
    some.class_logits[idle, -1] = 50.0
    all_of_them.class_logits[idle, -1] = 50.0
    some.mask_logits[idle] = 99.0  # would be the largest, and crowd every pixel
    queries = QuerySet(outlier={0: 0.5})
    a, b = (both(o, queries, [SCORES["maskomaly"]])[0][1] for o in (some, all_of_them))
    assert (a == b).all() and gpu._table(planned(some, queries, [SCORES["maskomaly"]]))[1] == 6


def test_add_scores__members_on_the_device_and_on_the_host():
    a, b = drawn(1), drawn(2)
    scores = [SCORES["eam"], SCORES["rba"]]
    on_host, on_device = np.zeros((2, *a.image_size), np.float32), torch.zeros(2, *a.image_size)
    for output, weight in ((a, 0.25), (b, 0.75)):
        for onto in (on_host, on_device):
            gpu.add_scores(output, planned(output, QuerySet(), scores), weight, onto)
    for i, s in enumerate(scores):
        of_a, of_b = (score_all(o, None, [s], "torch")[s.name].value for o in (a, b))
        expected = 0.25 * of_a + 0.75 * of_b
        for found in (on_host[i], on_device[i].numpy()):
            assert np.abs(found - expected).max() < 2e-6, s.name


def test_run__what_lies_beside_the_maps_stays():
    output = drawn(5)
    guard: Tensor = torch.full((3, *output.image_size), 7.0)
    gpu.run(output, planned(output, QuerySet(), [SCORES["eam"]]), 1.0, guard[1:2], add=False)
    assert (guard[0] == 7).all() and (guard[2] == 7).all() and (guard[1] != 7).all()


@pytest.mark.parametrize(("sizes", "heads", "width"), [(SIZES[0], 2, 20), (SIZES[1], 1, 1), (SIZES[2], 4, 32)])
def test_attention__is_transformers(sizes, heads, width):
    given = inputs(sizes, heads, width, queries=35)
    found = deformable_gpu.attention(*given)
    assert torch.allclose(found, reference_form(*given), rtol=1e-4, atol=2e-5)
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (given[0], *given[2:])]
    assert torch.equal(deformable_gpu.attention(strided[0], sizes, *strided[1:]), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention__half_precision_is_rounded_once(dtype):
    value, sizes, *rest = inputs(SIZES[0], 2, 16)
    value = value.to(dtype)
    exact = deformable.attention(value.double(), sizes, *(t.double() for t in rest))
    found = deformable_gpu.attention(value, sizes, *rest)
    assert found.dtype == dtype and torch.allclose(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_attention__far_away_or_not_a_number_adds_nothing():
    value, sizes, reference, offsets, weights = inputs(SIZES[0], 2, 4, queries=3)
    for far in (1e30, -1e30, float("inf"), float("nan")):
        assert not deformable_gpu.attention(value, sizes, reference, torch.full_like(offsets, far), weights).any()


def test_network__with_the_triton_attention_in_its_place(monkeypatch):
    torch.manual_seed(0)
    network = build("tiny")
    x, calls = torch.randn(1, 3, 32, 64), []

    def kernel(*given):
        calls.append(given)
        return deformable_gpu.attention(*given)

    monkeypatch.setattr(deformable, "_kernel", lambda states, reference: kernel)
    with torch.inference_mode():
        found = network(x)
        with deformable.plain(network.module):
            expected = network(x)
    assert calls
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
