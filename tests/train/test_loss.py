from typing import Any

import pytest
import torch
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from helpers import naive
from xenomask.errors import XenomaskError
from xenomask.train.loss import classes_of, draw_points, set_loss
from xenomask.train.points import sample, sample_labels, uncertain


def config(points=24, classes=5, **changes) -> Mask2FormerConfig:
    return Mask2FormerConfig(train_num_points=points, id2label={i: str(i) for i in range(classes)}, **changes)


def case(labels, outputs=3, queries=6, classes=5, size=(5, 7), dtype=torch.float64, seed=0):
    """Random class and mask logits of every decoder output, as leaves."""
    g = torch.Generator().manual_seed(seed)
    B = len(labels)
    z = [torch.randn(B, queries, classes + 1, generator=g, dtype=dtype).requires_grad_() for _ in range(outputs)]
    m = [3 * torch.randn(B, queries, *size, generator=g, dtype=dtype) for _ in range(outputs)]
    return z, [x.requires_grad_() for x in m]


def label_maps(*kinds, size=(11, 14), seed=0):
    """Label maps that hold the given classes in random cells, with void between."""
    g = torch.Generator().manual_seed(seed)
    maps = []
    for kind in kinds:
        values = torch.tensor([*kind, 255], dtype=torch.uint8)
        label = values[torch.randint(len(values), size, generator=g)]
        for i, k in enumerate(kind):
            label[0, i] = k
        maps.append(label)
    return torch.stack(maps)


def theirs(z, m, labels, c):
    """transformers' loss, weighted and summed as its module does."""
    weights = {"loss_cross_entropy": c.class_weight, "loss_mask": c.mask_weight, "loss_dice": c.dice_weight}
    criterion: Any = Mask2FormerLoss(c, weights).to(z[0].dtype)
    classes = [k[k != 255] for k in (label.unique() for label in labels)]
    masks = [(label == k[:, None, None]).to(z[0].dtype) for label, k in zip(labels, classes, strict=True)]
    aux = [{"masks_queries_logits": b, "class_queries_logits": a} for a, b in zip(z[:-1], m[:-1], strict=True)]
    losses = criterion(m[-1], z[-1], masks, [k.long() for k in classes], aux)
    return sum(weights[k] * v for key, v in losses.items() for k in weights if k in key)


def with_gradients(loss, z, m, labels, c, dtype):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)  # transformers draws its points in the default type
        torch.manual_seed(5)
        value = loss(z, m, labels, c)
    finally:
        torch.set_default_dtype(before)
    return value.detach(), torch.autograd.grad(value, [*z, *m], allow_unused=True, materialize_grads=True)


CASES = {
    "several": [[0, 2, 4], [1, 3]],
    "one class": [[3]],
    "an image without any": [[], [1, 2]],
    "none at all": [[], []],
    "as many as queries": [[0, 1, 2, 3, 4], [0]],
}


@pytest.mark.parametrize("queries", [6, 2])
@pytest.mark.parametrize("kinds", CASES.values(), ids=CASES.keys())
def test_set_loss__is_transformers_with_the_same_seed(kinds, queries):
    labels, c = label_maps(*kinds), config()
    z, m = case(labels, queries=queries)
    one, gradients = with_gradients(set_loss, z, m, labels, c, torch.float64)
    two, references = with_gradients(theirs, z, m, labels, c, torch.float64)
    assert one.item() == pytest.approx(float(two), rel=1e-9)
    for a, b in zip(gradients, references, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-10)
    assert any(g.any() for g in gradients)


def test_set_loss__is_transformers_to_single_precision():
    labels, c = label_maps([0, 2, 4], [1, 3], size=(64, 96)), config(points=300)
    z, m = case(labels, size=(16, 24), dtype=torch.float32)
    one, gradients = with_gradients(set_loss, z, m, labels, c, torch.float32)
    two, references = with_gradients(theirs, z, m, labels, c, torch.float32)
    assert one.item() == pytest.approx(float(two), rel=1e-5)
    for a, b in zip(gradients, references, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("queries", "kinds"), [(4, [[0, 2], []]), (2, [[0, 1, 2]]), (3, [[2, 0], [1]])])
def test_set_loss__is_the_loop_written_one(queries, kinds):
    labels, c = label_maps(*kinds, size=(6, 5)), config(points=8, classes=3, no_object_weight=0.25)
    z, m = case(labels, outputs=2, queries=queries, classes=3, size=(3, 4))
    pairs = sum(min(queries, len(k)) for k in kinds)
    points = draw_points(2, len(kinds), pairs, c, m[0], torch.Generator().manual_seed(1))
    value = set_loss(z, m, labels, c, torch.Generator().manual_seed(1))
    naive_value = naive.set_loss(
        [(z[i].tolist(), m[i].tolist()) for i in (1, 0)],  # the last output comes first
        labels.tolist(), 3,
        points.matching.view(2, len(kinds), 8, 2).tolist(),
        points.many.view(2, pairs, 24, 2).tolist(), points.few.view(2, pairs, 2, 2).tolist(), no_object=0.25,
    )  # fmt: skip
    assert value.item() == pytest.approx(naive_value, rel=1e-9)


def test_set_loss__does_not_depend_on_the_labels_integer_type():
    labels, c = label_maps([0, 2, 4], [1, 3]), config()
    z, m = case(labels)
    values = [set_loss(z, m, x, c, torch.Generator().manual_seed(0)) for x in (labels, labels.long(), labels.int())]
    assert values[0] == values[1] == values[2]


def test_set_loss__says_what_is_wrong():
    labels, c = label_maps([0, 2], [1]), config()
    for which in (0, 1):
        for bad in (torch.nan, torch.inf):
            given = case(labels)
            with torch.no_grad():
                given[which][1][1, 3] = bad
            with pytest.raises(XenomaskError, match="logits are not finite"):
                set_loss(*given, labels, c)
    labels[1, 0, 0] = 5
    with pytest.raises(XenomaskError, match="image 1 of the batch holds the label 5: the network has 5 classes"):
        set_loss(*case(labels), labels, c)
    assert [k.tolist() for k in classes_of(labels, 6)] == [[0, 2], [1, 5]]


def test_points__kernels_read_as_grid_sample_does(monkeypatch):
    g = torch.Generator().manual_seed(0)
    masks = torch.randn(7, 5, 9, generator=g, dtype=torch.float64)
    points = torch.rand(3, 50, 2, generator=g, dtype=torch.float64)
    points[0, :6] = torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0], [-3, 0.5], [1e9, 2]])
    index, group = torch.tensor([4, 0, 6, 2]), torch.tensor([0, 0, 2, 1])
    labels = torch.randint(0, 3, (2, 6, 4), generator=g)
    image, klass = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 2, 1, 1])
    expected = torch.nn.functional.grid_sample(
        masks[index][:, None], 2 * points[group][:, None] - 1, align_corners=False
    )[:, 0, 0]
    assert torch.allclose(sample(masks, index, points, group), expected)
    one_hot = (labels[image] == klass[:, None, None]).double()
    assert torch.allclose(
        sample_labels(labels, image, klass, points, group), sample(one_hot, torch.arange(4), points, group)
    )
    leaf = masks.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sample(x, index, points, group), [leaf])


def test_points__the_most_uncertain_ones_in_their_order():
    g = torch.Generator().manual_seed(0)
    masks, points = torch.randn(3, 6, 8, generator=g), torch.rand(2, 40, 2, generator=g)
    index = torch.tensor([2, 0])
    sizes = sample(masks, index, points, torch.arange(2)).abs()
    for k in (0, 1, 17, 40):
        kept = uncertain(masks, index, points, k)
        for m in range(2):
            smallest = sorted(sizes[m].sort().indices[:k].tolist())
            assert kept[m].tolist() == points[m, smallest].tolist()
    flat = uncertain(torch.zeros(1, 4, 4), torch.tensor([0]), points[:1], 5)
    assert flat.shape == (1, 5, 2) and flat[0].tolist() == points[0, :5].tolist()


@pytest.mark.parametrize("kinds", CASES.values(), ids=CASES.keys())
def test_set_loss__ignored_void__is_the_same_where_there_is_none(kinds):
    labels = label_maps(*kinds)
    labels[labels == 255] = 254  # outside of every mask, and no class
    z, m = case(labels)
    plain = torch.where(labels == 254, 255, labels)
    one = set_loss(z, m, labels, config(), torch.Generator().manual_seed(1), ignore_void=True)
    two = set_loss(z, m, plain, config(), torch.Generator().manual_seed(1))
    assert one.item() == pytest.approx(two.item(), rel=1e-9)


def test_set_loss__ignored_void__has_no_gradient_inside_and_one_at_pasted_objects():
    labels = torch.full((1, 12, 12), 2, dtype=torch.uint8)
    labels[:, :, 4:8], labels[:, :, 8:] = 255, 254
    z, m = case(labels, size=(12, 12))
    gradients = torch.autograd.grad(set_loss(z, m, labels, config(400), ignore_void=True), m)
    for g in gradients:
        assert g[..., 5:7].abs().max() < 1e-12  # all points that read these cells lie in void
        assert (g[..., 9:] != 0).any() and (g[..., :3] != 0).any()


def test_set_loss__ignored_void__matches_without_looking_at_void():
    labels = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    labels[:, :, :4], labels[:, 4:, :4] = 0, 1
    z, m = case(labels, outputs=1, queries=2, size=(8, 8))
    with torch.no_grad():
        z[0].zero_()
        m[0].fill_(-8)
        m[0][0, 1, :4, :4] = m[0][0, 0, 4:, :4] = 8  # query 1 is class 0, query 0 is class 1
        m[0][0, 0, :, 5:] = 8  # and in the void anything
    loss = set_loss(z, m, labels, config(400), ignore_void=True).item()
    assert loss < set_loss(z, m, labels, config(400)).item() - 1
