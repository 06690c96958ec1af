"""Instance AP against a loop that shares nothing with it, Cityscapes' own script where installed, counts by hand."""

import math

import numpy as np
import pytest
from PIL import Image

from xenomask.errors import XenomaskError
from xenomask.metrics.instances import OVERLAPS, average_precision, frame_instances, instance_numbers


def flood(label):
    """The 8-connected components of label 1, as sets of pixels."""
    todo, found = {(int(y), int(x)) for y, x in zip(*np.nonzero(label == 1), strict=True)}, []
    while todo:
        part, waiting = set(), [todo.pop()]
        while waiting:
            y, x = waiting.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            waiting += near
        found.append(part)
    return found


def slow_ap(frames, overlap, smallest):
    """The rule, pair by pair; precision and recall by counting the list anew for each score."""
    marks, missed, counted = [], 0, 0
    for masks, scores, label in frames:
        void = {(int(y), int(x)) for y, x in zip(*np.nonzero(label == 255), strict=True)}
        parts = flood(label)
        predicted = [{(int(y), int(x)) for y, x in zip(*np.nonzero(m), strict=True)} for m in masks]
        matched = set()
        for t in parts:
            if len(t) < smallest:
                continue
            counted += 1
            own = [i for i, p in enumerate(predicted) if p and len(p & t) / len(p | t) > overlap]
            matched |= set(own)
            if not own:
                missed += 1
                continue
            best = max(own, key=lambda i: scores[i])
            marks += [(scores[i], i == best) for i in own]
        small = set().union(*[t for t in parts if len(t) < smallest]) if parts else set()
        for i, p in enumerate(predicted):
            if p and i not in matched and len(p & (void | small)) / len(p) <= overlap:
                marks.append((scores[i], False))
    if not counted:
        return math.nan
    points = []
    for s in sorted({s for s, _ in marks}):
        kept = [r for v, r in marks if v >= s]
        points.append((sum(kept) / len(kept), sum(kept) / (sum(r for _, r in marks) + missed)))
    if not points:
        return 0.0
    points.append((1.0, 0.0))
    area = 0.0
    for k, (precision, recall) in enumerate(points):
        before = points[k - 1][1] if k else recall
        after = points[k + 1][1] if k + 1 < len(points) else 0.0
        area += precision * (before - after) / 2
    return area


def drawn(seed):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(rng.integers(1, 4)):
        label = np.zeros((24, 31), np.uint8)
        masks = []
        for _ in range(rng.integers(0, 6)):
            y, x, h, w = rng.integers(0, 20), rng.integers(0, 26), rng.integers(1, 9), rng.integers(1, 9)
            label[y : y + h, x : x + w] = rng.choice([1, 1, 255])
            m = np.zeros(label.shape, bool)
            m[max(0, y + rng.integers(-1, 2)) : y + h, x : x + w + rng.integers(0, 3)] = True
            masks.append(m)
        for _ in range(rng.integers(0, 3)):
            masks.append(rng.random(label.shape) < 0.05)
        frames.append((masks, rng.choice([0.2, 0.4, 0.6, 0.9], len(masks)), label))
    return frames


@pytest.mark.parametrize("seed", range(60))
def test_average_precision__as_the_slow_loop(seed):
    frames = drawn(seed)
    fast = [frame_instances(*f) for f in frames]
    for overlap in (0.5, 0.7, 0.95):
        for smallest in (1, 10):
            expected = slow_ap(frames, overlap, smallest)
            assert average_precision(fast, overlap, smallest) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(60))
def test_average_precision__equals_cityscapesscripts(seed, tmp_path, monkeypatch):
    script = pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    frames, truths, texts = [(m, s - seed % 2, y) for m, s, y in drawn(seed)], [], []  # of odd seeds negative scores
    for k, (masks, scores, label) in enumerate(frames):
        numbered = np.where(label == 255, 0, 7).astype(np.int32)  # unlabelled, which is void, and road
        for i, part in enumerate(flood(label)):
            for pixel in part:
                numbered[pixel] = 26001 + i  # cars
        Image.fromarray(numbered).save(tmp_path / f"{k}.png")
        for i, m in enumerate(masks):
            Image.fromarray(m.astype(np.uint8)).save(tmp_path / f"{k}-{i}.png")
        text = "".join(f"{k}-{i}.png 26 {s}\n" for i, s in enumerate(scores))
        (tmp_path / f"{k}.txt").write_text(text)
        truths.append(str(tmp_path / f"{k}.png"))
        texts.append(str(tmp_path / f"{k}.txt"))
    for name, value in {"quiet": True, "minRegionSizes": np.array([10] * 3), "predictionPath": str(tmp_path)}.items():
        monkeypatch.setattr(script.args, name, value)
    monkeypatch.setattr(np, "in1d", lambda a, b: np.isin(a, b).ravel(), raising=False)  # numpy 2.4 has it no more
    script.setInstanceLabels(script.args)
    matches = script.matchGtWithPreds(texts, truths, script.instances2dict(truths, False), script.args)
    theirs = script.evaluateMatches(matches, script.args)[0, script.args.instLabels.index("car")]
    ours = [average_precision([frame_instances(*f) for f in frames], float(t)) for t in script.args.overlaps]
    assert ours == pytest.approx(theirs.tolist(), abs=1e-12, nan_ok=True)


def square(y, x, n=5):
    m = np.zeros((20, 20), bool)
    m[y : y + n, x : x + n] = True
    return m


def test_average_precision__by_hand():
    label = (square(0, 0) | square(10, 10)).astype(np.uint8)
    # the most confident is false: at .9 precision 0, at .5 a half of recall a half
    one = frame_instances([square(14, 0), square(0, 0)], [0.9, 0.5], label)
    # points from the lowest score on: (1/2, 1/2), (0, 0), (1, 0): 1/2 * (1/2 - 0) / 2
    assert average_precision([one], 0.5) == pytest.approx(0.125)
    both = frame_instances([square(0, 0), square(10, 10)], [0.9, 0.5], label)
    # (1, 1), (1, 1/2), (1, 0): 1/4 + 1/2 + 1/4
    assert average_precision([both], 0.5) == pytest.approx(1.0)
    assert instance_numbers([both]) == {"ap": 1.0, "ap50": 1.0}
    # 15 of 25 + 25 - 15 pixels: IoU 3/7
    shifted = frame_instances([square(0, 2)], [0.5], label)
    assert average_precision([shifted], 0.4) == pytest.approx(0.25 + 0.0 + 0.25)
    assert average_precision([shifted], 0.5) == 0


def test_average_precision__void_and_small_instances_excuse_a_prediction():
    label = square(0, 0).astype(np.uint8)
    label[10:15, 10:15] = 255
    label[18, 18:20] = 1  # 2 pixels
    tiny = np.zeros((20, 20), bool)
    tiny[18, 18:20] = True
    frame = frame_instances([square(0, 0), square(10, 10), tiny], [0.3, 0.9, 0.8], label)
    assert average_precision([frame], 0.5) == 1.0
    without = frame_instances([square(0, 0)], [0.3], label)
    assert average_precision([without], 0.5) == 1.0
    assert average_precision([without], 0.5, smallest=1) < 1  # the small one is missed


def test_refusals():
    label = square(0, 0).astype(np.uint8)
    with pytest.raises(XenomaskError, match="infinite"):
        frame_instances([square(0, 0)], [math.inf], label)
    with pytest.raises(XenomaskError, match="1 masks and 2 scores"):
        frame_instances([square(0, 0)], [0.1, 0.2], label)
    with pytest.raises(XenomaskError):
        frame_instances([square(0, 0)[:5]], [0.1], label)
    with pytest.raises(XenomaskError):
        frame_instances([square(0, 0)], [math.nan], label)
    assert math.isnan(average_precision([frame_instances([], [], label * 0)], 0.5))
    assert len(OVERLAPS) == 10 and OVERLAPS[-1] == 0.95
