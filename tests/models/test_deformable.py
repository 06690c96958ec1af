import copy
import sys

import pytest
import torch

from helpers.deformable import SIZES, inputs, reference_form
from xenomask.errors import XenomaskError
from xenomask.models import build
from xenomask.models.deformable import Layer, attention, plain, use_kernel


def results(f, value, sizes, reference, offsets, weights):
    """(output, three gradients of a weighted sum of it)."""
    leaves = [t.clone().requires_grad_() for t in (value, offsets, weights)]
    out = f(leaves[0], sizes, reference, leaves[1], leaves[2])
    g = torch.Generator().manual_seed(9)
    return out.detach(), *torch.autograd.grad(out, leaves, torch.randn(out.shape, generator=g, dtype=out.dtype))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("heads", "width"), [(8, 20), (4, 32), (1, 1)])
def test_attention__is_transformers(sizes, heads, width):
    # float64: where a place falls on a cell's edge, the gradient has two right answers and rounding picks one
    given = inputs(sizes, heads, width, dtype=torch.float64)
    for ours, ref in zip(results(attention, *given), results(reference_form, *given), strict=True):
        assert ours.shape == ref.shape
        assert torch.allclose(ours, ref, rtol=1e-9, atol=1e-11)
    single = inputs(sizes, heads, width)
    assert torch.allclose(attention(*single), reference_form(*single), rtol=1e-4, atol=2e-5)


def test_attention__its_gradient_is_the_difference_quotient():
    value, sizes, reference, offsets, weights = inputs([(3, 4), (1, 2)], 2, 3, queries=4, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (value, offsets, weights)]
    assert torch.autograd.gradcheck(lambda v, o, w: attention(v, sizes, reference, o, w), leaves)


def test_attention__the_same_bits_with_any_number_of_threads():
    given = inputs(SIZES[3], 8, 20, images=3, queries=40)
    before = torch.get_num_threads()
    try:
        found = []
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            found.append(results(attention, *given))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_attention__far_away_or_not_a_number_adds_nothing():
    value, sizes, reference, offsets, weights = inputs(SIZES[0], 2, 4)
    for far in (1e30, -1e30, float("inf"), float("nan")):
        out, *grads = results(attention, value, sizes, reference, torch.full_like(offsets, far), weights)
        assert not out.any() and not any(g.any() for g in grads)


def test_attention__strided_inputs():
    value, sizes, reference, offsets, weights = inputs(SIZES[0], 4, 8)
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (value, reference, offsets, weights)]
    assert not strided[0].is_contiguous()
    assert torch.equal(attention(strided[0], sizes, *strided[1:]), attention(value, sizes, reference, offsets, weights))


def test_network__the_kernel_changes_nothing_but_time():
    torch.manual_seed(0)
    network = build("tiny")
    x = torch.randn(2, 3, 64, 96)
    fast = network(x)
    layers = [m for m in network.module.modules() if isinstance(m, Layer)]
    assert layers and all("forward" in vars(m) for m in layers)
    with plain(network.module) as module:
        assert not any("forward" in vars(m) for m in module.modules() if isinstance(m, Layer))
        slow = network(x)
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(fast, network(x), strict=True))


def test_network__a_copy_uses_its_own_weights():
    torch.manual_seed(0)
    network = build("tiny")
    twin = copy.deepcopy(network.module)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    x = torch.randn(1, 3, 64, 64)
    before = network(x)[1]
    assert before.any() and torch.equal(network(x)[1], before)
    assert not twin(pixel_values=x).masks_queries_logits.any()


def test_accelerate__without_numba_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(XenomaskError, match="needs numba, which does not load"):
        use_kernel(torch.nn.Linear(1, 1))
