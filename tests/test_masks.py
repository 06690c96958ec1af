import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.naive import resized
from helpers.outputs import make_output, make_pixel_output
from xenomask.errors import XenomaskError
from xenomask.masks import (
    MaskOutput,
    _check_sizes,
    class_probabilities,
    resized_logits,
    row_blocks,
    semantic,
    soft_masks,
    with_queries,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("h", "w", "padded", "used", "image"),
    [
        (5, 7, (20, 28), (18, 25), (13, 31)),  # the cut falls inside a cell
        (4, 4, (16, 16), (16, 16), (9, 40)),
        (3, 9, (12, 36), (5, 33), (17, 3)),
        (1, 1, (4, 4), (3, 2), (6, 5)),
        (8, 8, (32, 32), (32, 32), (5, 4)),  # smaller than the mask
    ],
)
def test_resized_logits__equal_the_loops(h, w, padded, used, image, dtype):
    output = make_output(q=3, h=h, w=w, padded=padded, used=used, image=image, dtype=dtype)
    expected = resized(output.mask_logits.double().numpy(), padded, used, image)
    assert np.abs(resized_logits(output).numpy() - expected).max() < 1e-5


def test_resized_logits__of_a_class_map_equal_the_loops():
    output = make_pixel_output()
    expected = resized(output.class_map_logits.double().numpy(), (20, 28), (18, 25), (13, 31))
    assert np.abs(resized_logits(output).numpy() - expected).max() < 1e-5


def test_output__sizes_are_whole_numbers_that_hold_each_other():
    logits = torch.zeros(2, 3), torch.zeros(2, 4, 4)
    found = MaskOutput(*logits, (32, 32), (32, 32), (40, 40))

    def given(sizes):  # past the tests' type checker
        for name in ("padded_size", "input_size", "image_size"):
            object.__setattr__(found, name, (32, 32))
        object.__setattr__(found, "input_size", sizes)
        _check_sizes(found)

    given((np.uint8(32), np.int64(32)))
    assert [type(n) for n in found.input_size] == [int, int]  # 2 x 200 overflows in NumPy's small types
    for used in ((np.int64(990), np.int64(32)), (32.0, 32.0), ("32", "32"), (32,), (0, 32)):
        with pytest.raises(XenomaskError, match="sizes that cannot be|no whole numbers"):
            given(used)


def test_with_queries__refuses_what_has_none():
    output = make_output()
    assert with_queries(output) is output
    with pytest.raises(XenomaskError, match="has no queries: it classifies pixels"):
        with_queries(make_pixel_output())


def test_resized_logits__equal_torch_where_the_cut_is_whole():
    output = make_output(h=6, w=8, padded=(24, 32), used=(20, 28), image=(50, 61))
    cut = output.mask_logits[:, :5, :7]
    expected = F.interpolate(cut[None], (50, 61), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(resized_logits(output), expected, atol=1e-5)


def test_resized_logits__never_read_the_padding():
    output = make_output(h=6, w=8, padded=(24, 32), used=(17, 21), image=(50, 61))
    output.mask_logits[:, 5:] = torch.nan  # rows of input 20.. lie wholly in the padding, 16..19 do not
    output.mask_logits[:, :, 6:] = torch.nan
    assert resized_logits(output).isfinite().all()


def test_row_blocks__joined_equal_the_whole(monkeypatch):
    monkeypatch.setattr("xenomask.masks.BLOCK_PIXELS", 31 * 4)
    output = make_output()
    blocks = [soft_masks(output, rows) for rows in row_blocks(output)]
    assert len(blocks) == 4
    # not bit-equal: torch's sigmoid rounds the ends of a vector differently
    assert torch.allclose(torch.cat(blocks, 1), soft_masks(output), atol=1e-6)


def test_soft_masks__sigmoid_comes_after_the_resize():
    output = make_output(q=1, h=1, w=2, padded=(1, 2), used=(1, 2), image=(1, 4))
    output.mask_logits[0, 0] = torch.tensor([-8.0, 8.0])
    # a quarter of the way from -8 to 8 is -4, not a quarter of the way from sigmoid(-8) to sigmoid(8)
    assert soft_masks(output)[0, 0, 1].item() == pytest.approx(1 / (1 + np.exp(4)), abs=1e-6)


def test_semantic__drops_no_object():
    p = torch.tensor([[0.2, 0.3, 0.5]])
    assert semantic(p, torch.ones(1, 1, 1)).flatten().tolist() == pytest.approx([0.2, 0.3])


def test_class_probabilities__sum_to_one_with_no_object():
    assert torch.allclose(class_probabilities(make_output()).sum(1), torch.ones(6))
