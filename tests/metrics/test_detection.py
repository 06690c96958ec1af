"""Box AP against a loop that shares nothing with it, against pycocotools where that is installed, and by hand."""

import contextlib
import io
import math

import numpy as np
import pytest

from xenomask.errors import XenomaskError
from xenomask.metrics.detection import OVERLAPS, box_numbers, box_precision, frame_boxes


def slow_iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    union = a[2] * a[3] + b[2] * b[3] - common
    return common / union if union else 0


def slow_ap(frames, overlap):
    """The rule, box by box; precision at each of 101 recalls by a search of the whole list."""
    marks, total = [], 0
    for image, (boxes, scores, true) in enumerate(frames):
        total += len(true)
        taken = set()
        for k in sorted(range(len(boxes)), key=lambda i: (-scores[i], i))[:100]:
            best, chosen = min(overlap, 1 - 1e-10), None
            for g, t in enumerate(true):
                if g not in taken and slow_iou(boxes[k], t) >= best:
                    best, chosen = slow_iou(boxes[k], t), g
            taken |= {chosen} - {None}
            marks.append((-scores[k], image, chosen is not None))
    if not total:
        return math.nan
    marks.sort(key=lambda m: m[0])
    points, hits = [], 0
    for n, (_, _, hit) in enumerate(marks, 1):
        hits += hit
        points.append((hits / total, hits / n))
    # COCOeval's recalls are i * .01 in float64, of which some lie above i / 100, as 7 / 25 does not
    return sum(max((p for r, p in points if r >= i * 0.01), default=0) for i in range(101)) / 101


def drawn(seed):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(rng.integers(1, 5)):
        true = np.hstack([rng.integers(0, 30, (n := rng.integers(0, 5), 2)), rng.integers(1, 15, (n, 2))]).astype(float)
        near = true[rng.integers(0, len(true), 4)] + rng.integers(-2, 3, (4, 4)) if len(true) else np.zeros((0, 4))
        far = np.hstack([rng.uniform(0, 30, (3, 2)), rng.uniform(1, 15, (3, 2))])
        boxes = np.vstack([true[:2], near, far])
        boxes[:, 2:] = boxes[:, 2:].clip(1)
        frames.append(
            (boxes, rng.choice([0.1, 0.5, 0.7, 0.9], len(boxes)) if seed % 2 else rng.random(len(boxes)), true)
        )
    return frames


@pytest.mark.parametrize("seed", range(60))
def test_box_precision__as_the_slow_loop(seed):
    frames = drawn(seed)
    fast = [frame_boxes(*f) for f in frames]
    for overlap in (0.5, 0.75, 0.95):
        assert box_precision(fast, overlap) == pytest.approx(slow_ap(frames, overlap), abs=1e-12, nan_ok=True)


def coco_numbers(frames):
    """pycocotools' AP and AP50 of the same boxes."""
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    true = [(i, b.tolist()) for i, f in enumerate(frames, 1) for b in f[2]]
    said = [(i, b.tolist(), float(s)) for i, f in enumerate(frames, 1) for b, s in zip(f[0], f[1], strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(1, len(frames) + 1)], "categories": [{"id": 1}],
            "annotations": [
                {"id": k, "image_id": i, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
                for k, (i, b) in enumerate(true, 1)
            ],
        }  # fmt: skip
        truth.createIndex()
        found = truth.loadRes([{"image_id": i, "category_id": 1, "bbox": b, "score": s} for i, b, s in said])
        run = evaluation.COCOeval(truth, found, "bbox")
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, 0, 0, -1]
    return precision.mean(), precision[0].mean()


@pytest.mark.parametrize("seed", range(60))
def test_box_numbers__equal_pycocotools(seed):
    frames = [f for f in drawn(seed) if len(f[2])]
    if not frames:
        return
    ap, ap50 = coco_numbers(frames)
    found = box_numbers([frame_boxes(*f) for f in frames])
    assert found == pytest.approx({"box_ap": ap, "box_ap50": ap50}, abs=1e-12)


def test_box_precision__by_hand():
    one, two = [0, 0, 10, 10], [20, 20, 10, 10]
    # the surest is false: precision 1/2 up to recall 1/2 (51 of 101 points), none beyond
    frame = frame_boxes([[50, 50, 5, 5], one], [0.9, 0.5], [one, two])
    assert box_precision([frame], 0.5) == pytest.approx(0.5 * 51 / 101)
    # the second box on the same object is false, and the object is not found twice
    frame = frame_boxes([one, one, two], [0.9, 0.8, 0.7], [one, two])
    assert box_precision([frame], 0.5) == pytest.approx((51 + 50 * 2 / 3) / 101)
    # half of it: IoU exactly .5 counts
    assert box_precision([frame_boxes([[0, 0, 5, 10]], [0.9], [one])], 0.5) == 1
    assert box_precision([frame_boxes([[0, 0, 5, 10]], [0.9], [one])], 0.55) == 0
    assert box_numbers([frame_boxes([[0, 0, 8, 10]], [0.9], [one])])["box_ap"] == pytest.approx(0.7)
    assert box_precision([frame_boxes([], [], [one])], 0.5) == 0
    assert math.isnan(box_precision([frame_boxes([one], [0.5], [])], 0.5))
    assert len(OVERLAPS) == 10
    many = frame_boxes([[50, 50, 5, 5]] * 100 + [one], [0.9] * 100 + [0.5], [one])
    assert box_precision([many], 0.5) == 0  # the hundred surest alone


def test_refusals():
    with pytest.raises(XenomaskError, match="1 boxes and 2 scores"):
        frame_boxes([[0, 0, 1, 1]], [0.1, 0.2], [])
    with pytest.raises(XenomaskError, match="not \\(n, 4\\)"):
        frame_boxes([[0, 0, 1]], [0.1], [])
    with pytest.raises(XenomaskError, match="not \\(n, 4\\)"):
        frame_boxes([], [], [[0, 0, -1, 1]])
    with pytest.raises(XenomaskError):
        frame_boxes([[0, 0, math.nan, 1]], [0.1], [])
