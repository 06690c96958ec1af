"""The loop-written truth that the package's fast code is held against: slow, plain, and sharing nothing with it."""

import itertools
import math

import numpy as np
from scipy import ndimage


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def bilinear(grid, y: float, x: float) -> float:
    """A grid's value at fractional cell coordinates (cell centres at whole numbers), clamped at its edges."""
    h, w = len(grid), len(grid[0])
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    fy, fx = y - y0, x - x0
    top = grid[y0][x0] * (1 - fx) + grid[y0][x1] * fx
    bottom = grid[y1][x0] * (1 - fx) + grid[y1][x1] * fx
    return top * (1 - fy) + bottom * fy


def resized(logits, padded, used, image):
    """Logits (Q or K, h, w) at the image's size: cells wholly in the padding dropped, then bilinear, pixel by pixel."""
    q, h, w = logits.shape
    keep_h, keep_w = math.ceil(used[0] * h / padded[0]), math.ceil(used[1] * w / padded[1])
    out = np.zeros((q, *image))
    for i in range(q):
        grid = logits[i, :keep_h, :keep_w].tolist()
        for y in range(image[0]):
            for x in range(image[1]):
                # image pixel centre -> network input -> mask cell
                v = (y + 0.5) * used[0] / image[0] * h / padded[0] - 0.5
                u = (x + 0.5) * used[1] / image[1] * w / padded[1] - 0.5
                out[i, y, x] = bilinear(grid, v, u)
    return out


def softmax(row):
    top = max(row)
    e = [math.exp(v - top) for v in row]
    return [v / sum(e) for v in e]


def semantic(p, m) -> np.ndarray:
    """L_k(x) by loops; p (Q, N), m (Q, H, W)."""
    q, n = p.shape
    out = np.zeros((n - 1, *m.shape[1:]))
    for k in range(n - 1):
        for i in range(q):
            out[k] += p[i, k] * m[i]
    return out


def logit_scores(L):
    """The scores that are defined on any class logits (K, H, W), pixel by pixel in float64."""
    K, (H, W) = len(L), L[0].shape
    out = {name: np.zeros((H, W)) for name in ("msp", "max_logit", "entropy_softmax", "energy")}
    for y in range(H):
        for x in range(W):
            pixel = L[:, y, x].tolist()
            soft = softmax(pixel)
            out["msp"][y, x] = 1 - max(soft)
            out["max_logit"][y, x] = -max(pixel)
            out["entropy_softmax"][y, x] = -sum(s * math.log(s) for s in soft if s > 0) / math.log(K)
            out["energy"][y, x] = -math.log(sum(math.exp(v) for v in pixel))
    return out


def scores(p, m):
    """Every baseline score from its formula, pixel by pixel in float64."""
    L = semantic(p, m)
    K, (H, W) = len(L), L[0].shape
    names = ("max_share", "entropy", "not_covered", "rba", "void_mass", "eam")
    out = logit_scores(L) | {name: np.zeros((H, W)) for name in names}
    for y in range(H):
        for x in range(W):
            pixel = L[:, y, x].tolist()
            share = [v / sum(pixel) for v in pixel]
            out["max_share"][y, x] = 1 - max(share)
            out["entropy"][y, x] = -sum(s * math.log(s) for s in share if s > 0) / math.log(K)
            out["not_covered"][y, x] = 1 - min(max(sum(pixel), 0), 1)
            out["rba"][y, x] = -sum(math.tanh(v) for v in pixel)
            out["void_mass"][y, x] = sum(p[i, -1] * m[i, y, x] for i in range(len(p)))
            out["eam"][y, x] = 1 - sum(m[i, y, x] * max(p[i, :-1]) for i in range(len(p)))
    return out


def uno(p, m):
    """UNO's score; p (Q, K + 2): known classes, outlier, no object."""
    out = np.zeros(m.shape[1:])
    for i in range(len(p)):
        out += m[i] * (p[i, -2] - max(p[i, :-2]))
    return out


def exposure(name, z, x, outlier, inlier, margin, released=False):
    """The losses of outlier exposure, pixel by pixel: class logits z (B, Q, N), mask logits x (B, Q, h, w)."""
    parts = {True: [], False: []}
    for b in range(len(z)):
        p = [softmax(row) for row in z[b]]
        for y in range(len(x[b][0])):
            for u in range(len(x[b][0][0])):
                m = [sigmoid(mask[y][u]) for mask in x[b]]
                L = [sum(p[q][k] * m[q] for q in range(len(m))) for k in range(len(p[0]) - 1)]
                if name == "rba":
                    s = -sum(math.tanh(v) for v in L)
                    losses = (s**2, max(0, s + margin) ** 2)
                    if released:
                        losses = (max(0, margin - s) ** 2, max(0, s) ** 2)
                elif name == "mask2anomaly":
                    s = -max(L) if released else 1 - max(L)
                    losses = (max(0, margin - s) ** 2, s**2 if released else max(0, s) ** 2)
                else:
                    s = 1 - sum(m[q] * max(p[q][:-1]) for q in range(len(m)))
                    losses = (max(0, margin - s) ** 2, s**2)
                if outlier[b][y][u]:
                    parts[True].append(losses[0])
                if inlier[b][y][u]:
                    parts[False].append(losses[1])
    return sum(sum(part) / len(part) for part in parts.values() if part) / 2


def maskomaly(p, m, outlier=(), ground=(), specialised=None, mix=0.6, confidence=0.7, border=0.1):
    """Maskomaly step by step with the pair loop, pixel by pixel."""
    q, n = p.shape
    H, W = m.shape[1:]
    top = [max(row) for row in p.tolist()]
    argmax = [row.index(max(row)) for row in p.tolist()]
    out = np.zeros((H, W))
    for y in range(H):
        for x in range(W):
            o, r = 0.0, 1.0
            for i in outlier:
                o = max(o, m[i, y, x] * top[i])
            for i in range(q):
                chosen = i in specialised if specialised is not None else argmax[i] != n - 1 and top[i] > confidence
                if chosen:
                    r = min(r, 1 - m[i, y, x] * top[i])
            known = [i for i in range(q) if argmax[i] != n - 1]
            if border is not None:
                for a in known:
                    for b in known:
                        if a < b and m[a, y, x] > border and m[b, y, x] > border:
                            r = 0.0
            for i in ground:
                r = min(r, 1 - m[i, y, x] * top[i])
            out[y, x] = mix * r + (1 - mix) * o
    return out


def iou_without_void(mask, label) -> float:
    """IoU of a boolean mask with label == 1, pixels of label 255 left out of both."""
    both = either = 0
    for m, v in zip(mask.ravel().tolist(), label.ravel().tolist(), strict=True):
        if v == 255:
            continue
        both += m and v == 1
        either += m or v == 1
    return both / either if either else 0.0


def pixel_numbers(scores_, labels):
    """AUPR-sum, AUPR-trapz, FPR95, best F1 and AUROC by walking down the distinct thresholds."""
    pairs = [(s, v) for s, v in zip(scores_, labels, strict=True) if v != 255]
    P = sum(v == 1 for _, v in pairs)
    N = len(pairs) - P
    step = trapezoid = auroc = best = 0.0
    fpr95 = None
    recall0, precision0, fpr0, tpr0 = 0.0, 1.0, 0.0, 0.0
    for t in sorted({s for s, _ in pairs}, reverse=True):
        tp = sum(s >= t and v == 1 for s, v in pairs)
        fp = sum(s >= t and v == 0 for s, v in pairs)
        recall, precision, fpr = tp / P, tp / (tp + fp), fp / N
        step += (recall - recall0) * precision
        trapezoid += (recall - recall0) * (precision + precision0) / 2
        auroc += (fpr - fpr0) * (recall + tpr0) / 2
        best = max(best, 2 * tp / (2 * tp + fp + P - tp))
        if fpr95 is None and recall >= 0.95:
            fpr95 = fpr
        recall0, precision0, fpr0, tpr0 = recall, precision, fpr, recall
    return {"aupr_sum": step, "aupr_trapz": trapezoid, "fpr95": fpr95, "best_f1": best, "auroc": auroc}


def count(score, label):
    """{value: pixels} of the anomalous and of the inlier pixels; -0 is 0."""
    found = {}, {}
    for s, y in zip(score, label, strict=True):
        if y != 255:
            own = found[0] if y == 1 else found[1]
            own[s + 0.0] = own.get(s + 0.0, 0) + 1
    return found


def official_curve(frames):
    """The official pixel curve from pixels: [(threshold, tp, fp)] from the largest threshold down, first point (0, 0).

    Per frame: quantile edges in float64 of float16 scores, half-open bins of which the last is closed.
    """
    bins = []
    for score, label in frames:
        score = score.astype(np.float16)
        parts = [score[label == 1], score[label == 0]]
        both = np.concatenate(parts)
        margin = max((both.max() - both.min()) * np.float16(0.01), np.float16(0.01))
        edges = {float(both.min() - margin), float(both.max() + margin)}
        for x in parts:
            if len(x):
                edges |= set(np.quantile(x, np.linspace(0, 1, min(384, len(x)))).tolist())
        edges = sorted(edges)
        for i, (low, high) in enumerate(zip(edges, edges[1:])):  # noqa: B905
            inside = [(x >= low) & ((x < high) | (i == len(edges) - 2)) for x in (p.astype(np.float64) for p in parts)]
            bins.append((low, int(inside[0].sum()), int(inside[1].sum())))
    points, tp, fp = [], 0, 0
    for threshold in sorted({b[0] for b in bins}, reverse=True):
        tp += sum(b[1] for b in bins if b[0] == threshold)
        fp += sum(b[2] for b in bins if b[0] == threshold)
        points.append((threshold, tp, fp))
    return points


def components(mask, label, min_predicted, min_true):
    """(sIoU of the true, sIoU of the predicted, PPV of the predicted components), a component at a time.

    Straight from the definition: every component is a full-size mask, compared with every one that it touches.
    """
    eight = np.ones((3, 3))
    roi = label != 255
    pred, n = ndimage.label(mask & roi, eight)  # pyright: ignore
    for p in range(1, n + 1):
        if (pred == p).sum() < min_predicted:
            pred[pred == p] = 0
    true, n = ndimage.label(label == 1, eight)  # pyright: ignore
    for t in range(n + 1):
        if (true == t).sum() < min_true:
            roi = roi & (true != t)
    pred, true = np.where(roi, pred, 0), np.where(roi, true, 0)

    def siou(own, other):
        values = []
        for k in sorted(set(np.unique(own)) - {0}):
            me = own == k
            touching = np.isin(other, sorted(set(np.unique(other[me])) - {0}))
            elsewhere = touching & (own != 0) & ~me
            values.append((me & (other != 0)).sum() / ((me | touching).sum() - elsewhere.sum()))
        return values

    ppv = [(true[pred == p] != 0).mean() for p in sorted(set(np.unique(pred)) - {0})]
    return siou(true, pred), siou(pred, true), ppv


def read_at(grid, x, y) -> float:
    """A mask's value at x, y in [0, 1]: bilinear between cell centres, 0 beyond its edge."""
    h, w = len(grid), len(grid[0])
    u, v = x * w - 0.5, y * h - 0.5
    total = 0.0
    for i in range(h):
        for j in range(w):
            total += max(0.0, 1 - abs(v - i)) * max(0.0, 1 - abs(u - j)) * grid[i][j]
    return total


def set_loss(outputs, labels, num_classes, matching, many, few, no_object=0.1):
    """The set-prediction loss, pair by pair and point by point; every assignment is tried.

    `outputs` [(class logits [B][Q][N], mask logits [B][Q][h][w])]; `labels` [B][H][W]; points [output][image] of
    (x, y) for the matching, [output] of lists, one for each matched pair, of which the P - len(few) most uncertain
    of `many` count.
    """
    B = len(labels)
    present = [sorted({v for row in label for v in row} - {255}) for label in labels]
    masks = [[[[float(v == k) for v in row] for row in label] for k in ks] for label, ks in zip(labels, present)]  # noqa: B905
    normaliser = max(1, sum(len(ks) for ks in present))
    total = 0.0

    def entropy(logit, t):
        return -t * math.log(sigmoid(logit)) - (1 - t) * math.log(sigmoid(-logit))

    def dice(pairs):
        s = [sigmoid(x) for x, _ in pairs]
        both = sum(a * t for a, (_, t) in zip(s, pairs))  # noqa: B905
        return 1 - (2 * both + 1) / (sum(s) + sum(t for _, t in pairs) + 1)

    for o, (z, m) in enumerate(outputs):
        row, nll, weights = 0, 0.0, 0.0
        for b in range(B):
            Q = len(z[b])
            cost = []
            for q in range(Q):
                cost.append([])
                for k, mask in zip(present[b], masks[b]):  # noqa: B905
                    pairs = [(read_at(m[b][q], *p), read_at(mask, *p)) for p in matching[o][b]]
                    ce = sum(entropy(x, t) for x, t in pairs) / len(pairs)
                    cost[-1].append(-2 * softmax(z[b][q])[k] + 5 * ce + 5 * dice(pairs))
            n = len(present[b])
            if n <= Q:
                tries = [list(zip(qs, range(n))) for qs in itertools.permutations(range(Q), n)]  # noqa: B905
            else:
                tries = [list(zip(range(Q), ks)) for ks in itertools.permutations(range(n), Q)]  # noqa: B905
            best = min(tries, key=lambda pairs: sum(cost[q][k] for q, k in pairs))
            for q, k in sorted(best):
                points = sorted(many[o][row], key=lambda p: abs(read_at(m[b][q], *p)))
                points = points[: len(matching[o][b]) - len(few[o][row])] + few[o][row]
                pairs = [(read_at(m[b][q], *p), read_at(masks[b][k], *p)) for p in points]
                total += 5 * sum(entropy(x, t) for x, t in pairs) / len(pairs) / normaliser
                total += 5 * dice(pairs) / normaliser
                row += 1
            target = {q: present[b][k] for q, k in best}
            for q in range(Q):
                weight = 1.0 if q in target else no_object
                nll -= weight * math.log(softmax(z[b][q])[target.get(q, num_classes)])
                weights += weight
        total += 2 * nll / weights
    return total


def through(items, functions) -> list:
    """Items through functions, one after the other."""
    out = []
    for item in items:
        for f in functions:
            item = f(item)
        out.append(item)
    return out


def scored(detector, frames, read, write) -> None:
    """Looks at one frame after the other."""
    for frame in frames:
        write(frame, detector.detect(read(frame)))
