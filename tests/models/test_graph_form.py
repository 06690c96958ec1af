import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerMaskPredictor

from helpers.deformable import SIZES, inputs, reference_form
from xenomask.models import build
from xenomask.models.deformable import Layer, plain
from xenomask.models.graph_form import attention, graph_form
from xenomask.models.runtimes.graph import Raw, trace


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("heads", "width", "points"), [(8, 20, 4), (1, 1, 1), (3, 5, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention__is_transformers(sizes, heads, width, points, dtype):
    given = inputs(sizes, heads, width, points, dtype=dtype)
    rtol, atol = (1e-9, 1e-11) if dtype is torch.float64 else (1e-4, 2e-5)
    assert torch.allclose(attention(*given), reference_form(*given), rtol=rtol, atol=atol)


@pytest.mark.parametrize("target", [(2, 3), (7, 11), (16, 24), (20, 30), (1, 1)])
def test_predictor__gives_transformers_masks_and_looks_away_where_it_does(target):
    torch.manual_seed(3)
    network = build("tiny")
    module, width = network.module.double(), network.config.hidden_dim
    predictor = next(m for m in module.modules() if isinstance(m, Mask2FormerMaskPredictor))
    queries, pixels = torch.randn(5, 2, width).double(), torch.randn(2, width, 16, 24).double()
    masks, away = predictor(queries, pixels, target)
    with graph_form(module):
        ours, our_away = predictor(queries, pixels, target)
    assert torch.equal(ours, masks) and away.any() and not away.all()
    assert our_away.dtype == torch.bool and torch.equal(our_away, away)


def test_graph_form__changes_nothing_but_rounding_and_leaves_nothing():
    torch.manual_seed(0)
    network = build("tiny")
    x = torch.randn(2, 3, 64, 96)
    before = {id(m): vars(m).get("forward") for m in network.module.modules()}
    with plain(network.module):
        slow = network(x)
    with graph_form(network.module):
        changed = [m for m in network.module.modules() if isinstance(m, Layer | Mask2FormerMaskPredictor)]
        assert len(changed) == 2 and all("forward" in vars(m) for m in changed)
        found = network(x)
    for a, b in zip(found, slow, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
    after = {id(m): vars(m).get("forward") for m in network.module.modules()}
    assert before.keys() == after.keys()
    assert all((before[k] is None) == (after[k] is None) for k in before)  # `plain` makes its partials anew


def test_trace__holds_no_stack_of_samples_and_no_zeros_to_fill():
    network = build("tiny")
    x = torch.zeros(1, 3, 64, 96)
    program = trace(Raw(network.module), x)
    names = [str(n.target) for n in program.graph.nodes]
    assert not any("masked_fill_" in n or "zeros_like" in n or "einsum" in n for n in names)
    assert any("aten.where" in n for n in names)
    samples = [n for n in program.graph.nodes if "grid_sampler" in str(n.target)]
    assert samples and not any("stack" in str(u.target) or "cat" in str(u.target) for n in samples for u in n.users)
    with torch.no_grad():
        for a, b in zip(program.module()(x), Raw(network.module)(x), strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_trace__keeps_zeros_that_a_smaller_mask_fills():
    class Wide(torch.nn.Module):
        def forward(self, x):
            return torch.zeros_like(x).masked_fill_(x[:, :1] > 0, 1.0)

    x = torch.randn(1, 4, 20)
    assert torch.equal(trace(Wide(), x).module()(x), Wide()(x))
