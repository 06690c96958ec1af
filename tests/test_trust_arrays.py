"""Arrays of other types, orders and layouts: the right number or a refusal, at every public function and loop."""

import ast
import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from helpers.outputs import from_probabilities, make_pixel_output
from helpers.places import ROOT, TESTS
from xenomask import arrays, jit
from xenomask.detector import Detector, Member
from xenomask.detector.explain import explain_member
from xenomask.errors import XenomaskError
from xenomask.metrics import evaluate
from xenomask.models import build
from xenomask.objects.objects import find_objects
from xenomask.scores import SCORES, get_score, score_all
from xenomask.types import QuerySet

SOURCE = ROOT / "src"


def entries(**environment: str) -> subprocess.CompletedProcess[str]:
    own = os.environ | {"PYTHONPATH": f"{SOURCE}:{TESTS}", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, TESTS / "helpers/entries.py"], env=own, capture_output=True, text=True)


@pytest.mark.slow
def test_entries__every_function_that_takes_an_array_is_right_or_refuses():
    done = entries()
    assert done.stdout == ""
    assert done.returncode == 0 and "calls of" in done.stderr


@pytest.mark.slow
def test_entries__the_test_can_fail():
    said = entries(ENTRIES_SELFTEST="1").stdout
    assert "broken(value): float f2: result" in said and "broken(value): NaN: not refused" in said
    assert "broken: is no function that takes an array" in said


rng = np.random.default_rng(3)
TRUTH = (rng.random((40, 50)) < 0.2).astype(np.uint8)
SCORES_8BIT = np.clip(rng.normal(90 + 60 * TRUTH, 40), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("type_", ["u1", ">u2", "i4", "f2", ">f2", "f4", ">f8", "g"])
@pytest.mark.parametrize("label_type", ["u1", "i8", ">i2"])
def test_evaluate__any_real_type_gives_the_numbers_of_scikit_learn(type_, label_type):
    value = SCORES_8BIT.astype(type_)
    label = TRUTH.astype(label_type)
    label[:3] = 255
    valid = label.ravel() != 255
    found = evaluate(["a"], lambda i: (value, label), resamples=0).numbers["exact"]
    y, s = TRUTH.ravel()[valid], SCORES_8BIT.ravel()[valid].astype(float)
    assert found["aupr_sum"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)


def test_evaluate__a_bool_map_and_a_bool_label_are_one_and_nought():
    value = SCORES_8BIT > 120
    found = evaluate(["a"], lambda i: (value, TRUTH == 1), resamples=0).numbers["exact"]
    assert found["aupr_sum"] == pytest.approx(average_precision_score(TRUTH.ravel(), value.ravel()), abs=1e-12)


def test_find_objects__of_whole_numbers_are_those_counted_by_hand():
    value = np.zeros((6, 8), ">i2")
    value[1:3, 1:4], value[5, 7] = 9, 300
    found = find_objects(value, 5)
    assert [(i.box, i.area, i.score) for i in found] == [((7, 5, 1, 1), 1, 300.0), ((1, 1, 3, 2), 6, 9.0)]


def test_arrays__what_fits_is_not_copied():
    half, single = np.zeros((4, 5), np.float16), np.zeros((4, 5), np.float32)
    label, mask, photo = np.zeros((4, 5), np.uint8), np.zeros((4, 5), bool), np.zeros((4, 5, 3), np.uint8)
    for f, x in (
        (arrays.as_half, half), (arrays.as_map, single), (arrays.as_single, single), (arrays.as_label, label),
        (arrays.as_truth, label), (arrays.as_mask, mask), (arrays.as_image, photo),
    ):  # fmt: skip
        assert np.shares_memory(f(x), x) and f(x).shape == x.shape


def test_as_image__exif_of_a_pil_image_turns_it_as_it_turns_a_file(tmp_path):
    from PIL import Image

    from xenomask.datasets import read_photo

    stored = rng.integers(0, 255, (6, 8, 3), np.uint8)
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "p.png", exif=exif)
    with Image.open(tmp_path / "p.png") as opened:
        found = arrays.as_image(opened)
    assert np.array_equal(found, np.rot90(stored, -1)) and np.array_equal(found, read_photo(tmp_path / "p.png"))


def loops_called_from_python() -> set[tuple[str, str]]:
    """(module, name) of every loop in a `kernels` module that another module names."""
    found = set()
    for path in (SOURCE / "xenomask").rglob("*.py"):
        if path.name.endswith("kernels.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            package = f"xenomask.{path.relative_to(SOURCE / 'xenomask').parts[0]}.kernels"
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(".kernels"):
                found |= {(node.module, a.name) for a in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kernels":
                found.add((package, node.attr))
    return found


def test_kernels__every_loop_that_python_calls_checks_its_arguments():
    called = {(m, n): getattr(importlib.import_module(m), n) for m, n in loops_called_from_python()}
    loops = {k: v for k, v in called.items() if callable(v)}
    assert len(loops) >= 10  # histogram, advance, extremes, run, forward, backward and four of training
    assert [k for k, v in loops.items() if not isinstance(v, jit.Kernel)] == []


def test_kernel__refuses_other_types_and_sizes_and_says_which():
    from xenomask.metrics.kernels import histogram

    bits, label, kind, out = np.zeros(4, "u2"), np.zeros(4, "u1"), np.zeros(256, "u1"), np.zeros((4, 65536), "u4")
    histogram(bits, label, kind, out)
    assert out[0, 0] == 4
    with pytest.raises(
        ValueError, match=r"metrics\.kernels\.histogram: label has the shape \(3,\), not \(n\) with n=4"
    ):
        histogram(bits, label[:3], kind, out)
    with pytest.raises(TypeError, match="histogram: bits is uint32, not uint16"):
        histogram(np.zeros(4, "u4"), label, kind, out)
    with pytest.raises(TypeError, match="bits is >u2"):
        histogram(np.zeros(4, ">u2"), label, kind, out)
    with pytest.raises(TypeError, match="bits is list"):
        histogram([0], label, kind, out)


ONE_CLASS = from_probabilities([[0.7, 0.3], [0.2, 0.8]], np.full((2, 3, 4), 0.5))


@pytest.mark.parametrize("name", ["msp", "max_share", "entropy", "entropy_softmax"])
def test_scores__that_compare_shares_refuse_a_single_class(name):
    score = get_score(name)
    for kernel in ("auto", "torch"):
        with pytest.raises(XenomaskError, match=f"score {name} is not defined for 1 class"):
            score_all(ONE_CLASS, None, [score], kernel)
    network = build("tiny", ["road"])
    with pytest.raises(XenomaskError, match="choose one of max_logit, .*, or"):
        Detector("d", (Member("a", network, QuerySet(), score, 1.0),))
    with pytest.raises(XenomaskError, match="not defined for 1 class"):
        explain_member(Member("a", network, QuerySet(), score, 1.0), ONE_CLASS, (0, 0))
    if score.logit_scale:
        with pytest.raises(XenomaskError, match="not defined for 1 class"):
            score_all(make_pixel_output(k=1), None, [score])


@pytest.mark.parametrize("name", [n for n, s in SCORES.items() if s.fewest == 1 and not s.needs and n != "uno"])
def test_scores__all_others_are_finite_and_the_same_by_both_ways_for_a_single_class(name):
    a, b = (score_all(ONE_CLASS, None, [get_score(name)], k)[name].value for k in ("auto", "torch"))
    assert np.allclose(a, b, atol=1e-6)


def test_add_score__refuses_logits_of_another_size_than_the_map():
    onto = np.zeros((3, 5), np.float32)
    from xenomask.scores import add_score

    with pytest.raises(XenomaskError, match=r"writable float32 array \(3, 4\), not to float32 \(3, 5\)"):
        add_score(ONE_CLASS, QuerySet(), get_score("rba"), 1.0, onto)
    assert not onto.any() and torch.isfinite(ONE_CLASS.mask_logits).all()


def test_points__an_index_beyond_the_masks_is_not_read():
    from xenomask.train.points import sample, sample_labels, uncertain

    masks, points, one = torch.zeros(2, 4, 5), torch.rand(1, 3, 2), torch.tensor([0])
    for bad in (torch.tensor([2]), torch.tensor([-1])):
        with pytest.raises(ValueError, match="index"):
            sample(masks, bad, points, one)
        with pytest.raises(ValueError, match="group"):
            sample(masks, one, points, bad)
        with pytest.raises(ValueError, match="image"):
            sample_labels(masks.long(), bad, one, points, one)
        with pytest.raises(ValueError, match="index"):
            uncertain(masks, bad, points, 2)
