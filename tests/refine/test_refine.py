"""Refinements against loops and counts by hand; inside a detector, its folder, its maps."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from helpers.cli import fails, run
from helpers.outputs import from_probabilities, make_output
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.detector.folder import describe_folder, fingerprint
from xenomask.detector.fuse import refined
from xenomask.detector.member import class_names
from xenomask.errors import XenomaskError
from xenomask.masks import MaskOutput, with_queries
from xenomask.refine import REFINEMENTS, Seen, get_refinement, parse_refinement
from xenomask.refine.boxes import kept, read_boxes
from xenomask.refine.cells import to_cells, to_pixels
from xenomask.refine.regions import class_regions, quantiles, trimmed_means
from xenomask.refine.traced import labelled, region_quantiles
from xenomask.types import ScoreMap

IMAGE = draw_scene(0, (60, 100)).image
NAMES = ("road", "car", "sky")
RNG = np.random.default_rng(0)
INSIDE = sorted(n for n, r in REFINEMENTS.items() if r.needs == "masks")


def scene(h=6, w=8, q=5):
    """A map, and masks with a cell a pixel: P (Q, K + 1), m (Q, h, w)."""
    p = RNG.dirichlet(np.ones(len(NAMES) + 1), q)
    m = RNG.uniform(0.01, 0.99, (q, h, w))
    return RNG.uniform(-1, 0, (h, w)).astype(np.float32), p, m


def seen(p, m) -> Seen:
    return Seen(from_probabilities(p, m), NAMES, -1.0)


def test_pooling__is_its_formula_in_loops():
    s, p, m = scene()
    m *= np.linspace(0, 1, 8)  # columns that no mask covers stay as they are
    m = m.clip(1e-9)
    found = get_refinement("pooling", {"up": 0.5, "down": 0.25})(s, seen(p, m))
    a = [sum(m[q, y, x] * s[y, x] for y in range(6) for x in range(8)) / m[q].sum() for q in range(len(m))]
    for y in range(6):
        for x in range(8):
            total = m[:, y, x].sum()
            change = min(1, total) * (sum(m[q, y, x] * a[q] for q in range(len(m))) / total - s[y, x])
            want = s[y, x] + (0.5 if change > 0 else 0.25) * change
            assert found[y, x] == pytest.approx(want, abs=1e-5)


def test_ugains__is_its_rule_in_loops():
    s, p, m = scene(q=9)
    m[8] = m[0]  # of two masks that are one, one is kept
    m[1] = 0.1  # and no pixel is in this
    found = get_refinement("ugains")(s, seen(p, m))
    masks = [x > 0.5 for x in m if (x > 0.5).any()]
    left = sorted(masks, key=lambda x: -s[x].mean())
    chosen: list[np.ndarray] = []
    for x in left:
        if all((x & y).sum() / (x | y).sum() < 0.7 for y in chosen):
            chosen.append(x)
    assert len(chosen) < len(masks)
    for y, x in np.ndindex(s.shape):
        inside = [s[c].mean() for c in chosen if c[y, x]]
        assert found[y, x] == pytest.approx(s[y, x] + (sum(inside) if inside else -1), abs=1e-5)


def test_vehicles__raise_each_region_to_its_quartile_and_nothing_else():
    L = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 1], [2, 2, 2, 2, 1]])  # two cars: 5 and 2 pixels
    p = np.full((3, 4), 0.01) + 0.97 * np.eye(3, 4)
    m = np.stack([np.where(k == L, 0.99, 0.01) for k in range(3)])
    s = np.array([[-0.9, -0.8, -0.1, -1, -1], [-0.7, -0.2, -0.3, -0.9, -0.5], [-0.4, 0, 0, 0, -0.6]], np.float32)
    found = get_refinement("vehicles")(s, seen(p, m))
    want = s.copy()
    # in rising order -.9 -.8 -.7 -.2 -.1, place floor(.75 * 4) = 3; of the second car -.6 -.5, place 0
    want[0, :2] = want[1, 0] = -0.2
    assert np.allclose(found, want, atol=1e-5)
    with pytest.raises(XenomaskError, match="none of the network's classes is one of car"):
        get_refinement("vehicles")(s, Seen(from_probabilities(p, m), ("a", "b", "c"), -1.0))


def test_masks__the_smallest_mask_decides():
    m = np.full((2, 2, 5), 0.1)
    m[0, :, :4], m[1, 0, :2] = 0.9, 0.8
    s = np.array([[0.1, 0.3, 0.5, 0.7, 9], [0.2, 0.2, 0.2, 0.2, 9]], np.float32)
    found = get_refinement("masks", {"blend": 1.0, "trim": 0.0})(s, seen(np.full((2, 4), 0.25), m))
    assert np.allclose(found, [[0.2, 0.2, 0.3, 0.3, 9], [0.3, 0.3, 0.3, 0.3, 9]], atol=1e-5)


def test_attenuation__by_hand():
    p, m = np.eye(3, 4) * 0.97 + 0.01, np.full((3, 1, 3), 0.01)
    for k in range(3):
        m[k, 0, k] = 0.99
    found = get_refinement("attenuation")(np.full((1, 3), -0.5, np.float32), seen(p, m))
    assert np.allclose(found, [[-0.5, -0.55, -0.825]], atol=1e-5)  # road 1, car .9, sky .35 of the way from -1


def test_regions__against_loops():
    value, ids = RNG.normal(size=(7, 9)).astype(np.float32), RNG.integers(0, 5, (7, 9))
    low, mean = quantiles(value, ids, 0.6), trimmed_means(value, ids, 0.2)
    for i in range(5):
        own = sorted(value[ids == i].tolist())
        n, cut = len(own), int(0.2 * len(own))
        assert (low[ids == i] == np.float32(own[int(0.6 * (n - 1))])).all()
        assert np.allclose(mean[ids == i], np.mean(own[cut : n - cut]), atol=1e-5)
    assert class_regions(np.zeros((2, 2), int), [0]).tolist() == [[1, 1], [1, 1]]


def by_flooding(value, classes, wanted, quantile):
    """Each cell's quantile of its region of a wanted class, its own value elsewhere: flooded cell by cell."""
    out, left = value.copy(), {(int(y), int(x)) for y, x in np.argwhere(np.isin(classes, wanted))}
    while left:
        region, edge = [], [left.pop()]
        while edge:
            y, x = edge.pop()
            region.append((y, x))
            for n in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if n in left and classes[n] == classes[y, x]:
                    left.remove(n)
                    edge.append(n)
        own = sorted(value[c] for c in region)
        for c in region:
            out[c] = own[int(quantile * (len(own) - 1))]
    return out


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.75, 0.9, 1.0])
def test_traced_regions__are_flooded_ones(quantile):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rough = rng.normal(size=(13, 21)).astype(np.float32)
        classes = np.digitize(cv2.GaussianBlur(rough, (0, 0), 1.5), [-0.15, 0, 0.15])
        value = rng.normal(size=(13, 21)).astype(np.float32)
        want = by_flooding(value, classes, [1, 3], quantile)
        found = region_quantiles(torch.from_numpy(value), torch.from_numpy(classes), [1, 3], quantile)
        assert np.abs(found.numpy() - want).max() < 1e-5
    nothing = region_quantiles(torch.from_numpy(value), torch.from_numpy(classes), [9], quantile)
    assert np.array_equal(nothing, value)


def test_traced_regions__their_limits():
    """Of more regions than REGIONS the lowest are raised; a region of many turns falls into parts, none is mixed."""
    value = torch.from_numpy(RNG.uniform(size=(40, 40)).astype(np.float32))
    many = torch.zeros(40, 40).long()
    many[1::4, 1::4] = many[1::4, 2::4] = many[1::4, 3::4] = 1  # a hundred regions of three
    found = region_quantiles(value, many, [1], 0.5)
    changed = (found - value).abs() > 1e-6
    assert int(labelled(many, [1]).unique().numel()) == 101
    assert not changed[1, :16].any() and changed[1, 17:20].any() and changed[37, 37:].any()  # all but four of them
    snake = torch.ones(40, 40).long()
    for i in range(1, 40, 2):  # a wall with a gap at one end, then at the other
        snake[i, slice(0, 39) if i % 4 == 1 else slice(1, 40)] = 0
    parts = labelled(snake, [1])
    assert 1 < parts[snake == 1].unique().numel() < 20 and (parts[snake == 0] == 0).all()


def test_tensors__are_refined_as_arrays_are():
    output = make_output(h=10, w=14, padded=(40, 56), used=(32, 48), image=(64, 96))
    value = RNG.uniform(-1, 0, (64, 96)).astype(np.float32)
    for given in (output, replace(output, mirrored=True)):
        for name in sorted(n for n, r in REFINEMENTS.items() if r.on_tensors):
            refine, own = get_refinement(name), Seen(given, ("car", "b", "bus", "d"), -1.0)
            found = refine.of(torch.from_numpy(value), own).numpy()
            assert np.allclose(found, refine(value, own), atol=1e-5), name
            assert np.abs(found - value).max() > 1e-3, name
    with pytest.raises(XenomaskError, match="photos of 9x5 are smaller than the network's masks, 12x8"):
        to_cells(torch.zeros(5, 9), output)


def test_segments_and_boxes__by_hand():
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    ids = np.array([[0, 0, 7, 7], [3, 3, 7, 7], [3, 3, 3, 3]])
    found = get_refinement("segments", {"blend": 1.0, "trim": 0.0})(value, ids)
    assert np.allclose(found, [[0, 1, 4.5, 4.5], [47 / 6] * 2 + [4.5] * 2, [47 / 6] * 4])
    boxed = get_refinement("boxes")(value, [[1, 0.4, 2, 1.2, 0.9], [1, 0, 2, 1.7, 0.5], [0, 0, 4, 3, 0.1]])
    assert (boxed - value).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert len(kept(np.zeros((0, 5)), 0.5)) == 0
    for bad in (np.zeros((2, 4)), [[0, 0, -1, 2, 0.5]]):
        with pytest.raises(XenomaskError, match="boxes"):
            get_refinement("boxes")(value, bad)
    with pytest.raises(XenomaskError, match="segments"):
        get_refinement("segments")(value, ids[:2])


def test_boxes__in_both_forms_and_without_inliers(tmp_path):
    rows = [[0, 0, 4, 4, 0.5, "person"], [0, 0, 4, 4.5, 0.8, "box"], [8, 8, 2, 2, 0.4, "box"]]
    coco = [{"image_id": "a", "bbox": r[:4], "score": r[4], "category_id": r[5]} for r in rows]
    for name, table in (("own", {"a": rows}), ("coco", coco)):
        (tmp_path / name).write_text(json.dumps(table))
        assert read_boxes(tmp_path / name)["a"].tolist() == [r[:5] for r in rows]
        # the person counts as 1.0, suppresses the box of .8 and is dropped
        assert read_boxes(tmp_path / name, ["person"])["a"].tolist() == [rows[2][:5]]
    for bad, said in {
        "[1]": "entry 0", '{"a": [[1, 2]]}': "frame a has .* row of 5", '{"a": [[0, 0, 1, 1, NaN]]}': "five finite",
        '{"a": [], "a": []}': "no JSON", "x": "no JSON", '"x"': "no boxes", '[{"bbox": []}]': "bbox of 4 numbers",
        '{"a": [[0, 0, -1, 2, 0.5]]}': "width, height >= 0", '{"a": [[0, 0, 1, 2, 7]]}': "a score in 0..1",
        '{"a": [[0, 0, 1' + 400 * "0" + ', 2, 0.5]]}': "five finite",
    }.items():  # fmt: skip
        (tmp_path / "bad").write_text(bad)
        with pytest.raises(XenomaskError, match=f"{said}.*; give COCO results"):
            read_boxes(tmp_path / "bad")


def test_cells__padding_is_cut_and_mirrors_are_turned_back():
    output = make_output(h=10, w=14, padded=(40, 56), used=(32, 48), image=(64, 96))
    cells = to_cells(np.tile(np.arange(96, dtype=np.float32), (64, 1)), output)
    assert cells.shape == (8, 12) and np.allclose(cells[0], np.arange(12) * 8 + 3.5)
    back = to_pixels(cells, output)
    assert back.shape == (64, 96) and np.allclose(back[:, 4:-4], np.tile(np.arange(96), (64, 1))[:, 4:-4], atol=1e-4)
    m = output.mask_logits.clone()
    m[:, :8, :12] = m[:, :8, :12].flip(2)
    other = replace(output, mask_logits=m, mirrored=True)  # what a network would see of the mirror image
    value = RNG.uniform(-1, 0, (64, 96)).astype(np.float32)
    for name in INSIDE:
        refine, names = get_refinement(name), ("car", "b", "c", "d")
        a, b = (refine(value, Seen(o, names, -1.0)) for o in (output, other))
        assert np.allclose(a, b, atol=1e-5), name


def test_names__and_options_are_checked():
    for text, error in (
        ("poolin", "unknown refinement 'poolin'; did you mean 'pooling'"), ("pooling:upp=.1", "did you mean 'up'"),
        ("pooling:up=2", "not in 0..1"), ("pooling:up", "write NAME:OPTION=NUMBER"), ("pooling:up=nan", "not finite"),
        ("pooling:up=.5,up=.3", "up is given twice"),
        ("boxes", "needs boxes, which no detector has"),
    ):  # fmt: skip
        with pytest.raises(XenomaskError, match=error):
            parse_refinement(text)
    with pytest.raises(XenomaskError, match="map is 5x4, its photo 31x13"):
        get_refinement("pooling")(np.zeros((4, 5)), Seen(make_output(), NAMES, -1.0))


def test_detector__refines_the_fused_map_and_knows_it(tiny_detector, tmp_path):
    pair = Detector.from_folder(tiny_detector)
    better = pair.with_refine(["pooling", "attenuation:alpha=.5"])
    outputs = pair.infer([pair.prepare(IMAGE)])[0]
    value = pair.fuse(outputs).value
    names = [tuple(class_names(m, 19))[:-1] for m in pair.members]
    for r in better.refine:
        a, b = (r(value, Seen(with_queries(o), n, 0.0)) for o, n in zip(outputs, names, strict=True))
        value = 0.25 * a + 0.75 * b
    assert np.allclose(better.detect(IMAGE).value, value, atol=1e-5)
    assert np.abs(value - pair.detect(IMAGE).value).max() > 1e-3
    own = fingerprint(better.describe())
    assert own != fingerprint(pair.describe()) and "refine" not in pair.describe()
    stored = Detector.from_folder(better.save(tmp_path / "d"))
    assert np.array_equal(stored.detect(IMAGE).value, better.detect(IMAGE).value)
    assert describe_folder(tmp_path / "d") == stored.describe() and fingerprint(stored.describe()) == own
    assert "refined by pooling (up 0.5, down 0.5)" in (tmp_path / "d/README.md").read_text()
    assert stored.with_refine([]).refine == () and stored.with_refine(stored.refine) is stored
    assert replace(pair, thresholds={"default": {"value": 0.1}}).with_refine(["pooling"]).thresholds == {}
    table = json.loads((tmp_path / "d/detector.json").read_text())
    for bad in ([{"name": "x", "options": {}}], [{"name": "boxes", "options": {}}], [{}], 3):
        (tmp_path / "d/detector.json").write_text(json.dumps({**table, "refine": bad}))
        with pytest.raises(XenomaskError):
            Detector.from_folder(tmp_path / "d")


def test_detector__a_single_query_has_nothing_to_average(tiny_detector):
    pair = Detector.from_folder(tiny_detector).with_refine(["pooling"])
    size = (60, 100)
    alone = MaskOutput(torch.zeros(1, 2), torch.zeros(1, 4, 6), size, size, size)
    found = ScoreMap(RNG.uniform(0, 1, size).astype(np.float32), "entropy")
    outputs = pair.infer([pair.prepare(IMAGE)])[0]
    both = refined(pair.refine, found, pair.members, [outputs[0], alone], 0.0)
    assert np.array_equal(both.value, pair.only("a").refined(found, [outputs[0]]).value)
    with pytest.raises(XenomaskError, match="no network has several masks"):
        refined(pair.refine, found, pair.members, [alone, alone], 0.0)


def test_command__refine_in_and_around_a_detector(tiny_detector, tmp_path, capsys):
    from PIL import Image

    from helpers.scenes import write
    from xenomask.store import read_map

    Image.fromarray(IMAGE).save(tmp_path / "p.png")
    write(tmp_path / "data", 0)
    own = ("--detector", tiny_detector, "--device", "cpu")
    data = ("--dataset", "folder", "--root", tmp_path / "data")
    better = Detector.from_folder(tiny_detector).with_refine(["pooling:up=.2"])
    code, out, err = run(capsys, "detect", tmp_path / "p.png", *own, "--refine", "pooling:up=.2", "--out", tmp_path)
    assert code == 0 and "no threshold is stored for pair+pooling with score" in out, err
    assert np.abs(read_map(tmp_path / "p.hdf5") - better.detect(IMAGE).value).max() < 1e-3
    code, _, err = run(capsys, "score", *data, *own, "--refine", "pooling", "--out", tmp_path / "m")
    assert code == 0, err
    assert json.loads((tmp_path / "m/manifest.json").read_text())["refine"][0]["name"] == "pooling"
    assert "refine differ" in fails(capsys, "score", *data, *own, "--out", tmp_path / "m").replace("detector, ", "")
    assert "none leaves out" in fails(
        capsys, "score", *data, *own, "--refine", "none", "--refine", "masks", "--out", tmp_path / "n"
    )
    code, _, err = run(capsys, "benchmark", *data, "--detector", tiny_detector, "--refine", "pooling", "--out",
                       tmp_path / "b", "--resamples", 0)  # fmt: skip
    assert code == 0, err
    for i in range(3):
        assert np.array_equal(read_map(tmp_path / f"b/folder/pair+pooling-ensemble-entropy/{i}.hdf5"),
                              read_map(tmp_path / f"m/{i}.hdf5"))  # fmt: skip
    code, out, err = run(capsys, "explain", tmp_path / "p.png", "--at", "9,5", *own, "--refine", "pooling:up=.2",
                         "--json", tmp_path / "x.json")  # fmt: skip
    assert code == 0 and "refined by pooling:" in out, err
    answer = json.loads((tmp_path / "x.json").read_text())
    assert answer["value"] == pytest.approx(float(better.detect(IMAGE).value[5, 9]), abs=1e-6)
    shares = sum(m["share"] for m in answer["members"])
    assert answer["refined"] == pytest.approx(answer["value"] - shares, abs=1e-6)
    better.save(tmp_path / "better")
    assert "--refine none" in fails(capsys, "crossval", *data, "--detector", tmp_path / "better")
