"""The one pass over masks, compiled by numba: bilinear resize, sigmoid and all that scores gather, tile by tile.

A tile is a strip of COLUMNS pixels in up to ROWS image rows that read the same two mask rows. The queries are visited
once for each tile, and what the scores need of them is gathered in arrays that stay in the processor's cache: masks of
the image's size (Q, H, W) exist nowhere. A tile depends on nothing outside of it, so any number of threads gives the
same bits.

Letters: Q queries, K classes, h w mask cells. Gathered (see `plan.Plan`):
`peaks` (A, Q): max_q peaks[a, q] m_q; `crowds` (C, Q): how many q have a logit above crowds[c, q] (infinite: not
counted); `sums` (S, Q): sum_q sums[s, q] m_q; `classes` (Q, K): L_k = sum_q classes[q, k] m_q.
"""

from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xenomask.jit import compiled
from xenomask.scores.codes import (
    ENERGY,
    ENTROPY,
    ENTROPY_SOFTMAX,
    MASKOMALY,
    MAX_LOGIT,
    MAX_SHARE,
    MSP,
    NOT_COVERED,
    RBA,
    SUM,
    TOO_LITTLE,
)

COLUMNS, ROWS = 128, 4
# A mask below e^-30 (1e-13) is left out: 300 of them change a sum by 3e-11, less than float32 keeps of it beside 1e-3.
NEGLIGIBLE = np.float32(-30)

F = np.float32
ZERO, ONE, TWO = F(0), F(1), F(2)
ROUNDING = F(1e-6)  # see `_ends`
LITTLE = F(TOO_LITTLE)
LOG2E, LN2_HIGH, LN2_LOW = F(1.4426950408889634), F(0.693359375), F(-2.12194440e-4)
ROUND = F(12582912)  # 1.5 x 2^23: once added, the last bits of a float32 hold the nearest integer
ABSOLUTE, INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)  # bits above INFINITE are NaN
ONE_BITS, ROOT_HALF_BITS = np.int32(0x3F800000), np.int32(0x3F3504F3)
# e^r = 1 + r + r^2 (E2 + ... + E6 r^4) for |r| <= ln(2) / 2, interpolated at Chebyshev nodes, off by 1e-8
E2, E3, E4, E5, E6 = F(0.5), F(0.16666576266), F(0.04166655615), F(0.00836317893), F(0.0013926184)
UNCOVERED = F(1e-8)  # as in scores/semantic.py
CERTAIN = F(1e30)  # as masks.bounded
FAR = F(87)  # e^87 is the last power that float32 holds with room to spare

# Multiply-adds are fused; sums keep their order, so that the width of vectors changes no bit. NaN is refused before.
# numpy's division: Python's would test each divisor for zero.
HOW = {"fastmath": {"contract", "nsz", "nnan"}, "error_model": "numpy"}


@intrinsic
def _bits(typing, x):
    """A float32's bits, as int32."""
    return types.int32(types.float32), lambda _, build, __, a: build.bitcast(a[0], ir.IntType(32))


@intrinsic
def _float(typing, x):
    """The float32 with these bits."""
    return types.float32(types.int32), lambda _, build, __, a: build.bitcast(a[0], ir.FloatType())


def _select(build, order, a, b):
    # nnan, nsz: what LLVM wants before it takes a loop of these for a minimum
    return build.select(build.fcmp_ordered(order, a, b, flags=("nnan", "nsz")), a, b)


@intrinsic
def _larger(typing, a, b):
    """max of two float32, as a selection: of branches the compiler would make jumps, and no vectors."""
    return types.float32(types.float32, types.float32), lambda _, build, __, x: _select(build, ">", x[0], x[1])


@intrinsic
def _smaller(typing, a, b):
    """min of two float32, likewise."""
    return types.float32(types.float32, types.float32), lambda _, build, __, x: _select(build, "<", x[0], x[1])


@intrinsic
def _fetch(typing, row, i):
    """Asks for the cache line of row[i], without waiting for it."""

    def generate(context, build, signature, a):
        pointer = build.gep(context.make_array(signature.args[0])(context, build, a[0]).data, [a[1]])
        whole, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
        call = build.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        build.call(call, [build.bitcast(pointer, byte), *(ir.Constant(whole, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(row, types.intp), generate


# no_type_check: jaxtyping's test hook would otherwise wrap what numba is to compile.
@compiled(**HOW)
@no_type_check
def _parts(x):
    """(n, e^r - 1) with x = n ln 2 + r, |r| <= ln(2) / 2: 2^n as a float."""
    x = _larger(_smaller(x, FAR), -FAR)
    shifted = x * LOG2E + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    g = (((E6 * r + E5) * r + E4) * r + E3) * r + E2
    power = _float(np.int32((_bits(shifted) << np.int32(23)) + ONE_BITS))
    return power, r * r * g + r


@compiled(**HOW)
@no_type_check
def _exp(x):
    power, rest = _parts(x)
    return power * rest + power


@compiled(**HOW)
@no_type_check
def _sigmoid(x):
    return ONE / (ONE + _exp(-x))


@compiled(**HOW)
@no_type_check
def _tanh(x):
    """(e^2x - 1) / (e^2x + 1) for x >= 0; the difference is formed without loss, so that small x keep their digits."""
    power, rest = _parts(TWO * _smaller(x, F(20)))
    minus_one = power * rest + (power - ONE)
    return minus_one / (minus_one + TWO)


@compiled(**HOW)
@no_type_check
def _log(x):
    """ln x of a normal float32 > 0: x = 2^n y, y in [.7, 1.4], ln y = 2 artanh((y - 1) / (y + 1)), off by 2e-9."""
    bits = _bits(x)
    n = (bits - ROOT_HALF_BITS) >> np.int32(23)
    y = _float(np.int32(bits - (n << np.int32(23))))
    s = (y - ONE) / (y + ONE)
    z = s * s
    series = (((F(1 / 9) * z + F(1 / 7)) * z + F(0.2)) * z + F(1 / 3)) * z
    f = F(np.int32(n))
    return f * LN2_HIGH + (f * LN2_LOW + TWO * (s * series + s))


@compiled(**HOW)
@no_type_check
def _add_classes(weights, four, masks, n, L):
    """L_k += sum over the first `four` of the waiting masks; L is read and written once for four queries."""
    for k in range(L.shape[0]):
        row = L[k]
        a, b, c, d = weights[0, k], weights[1, k], weights[2, k], weights[3, k]
        if four == 4:
            m0, m1, m2, m3 = masks[0], masks[1], masks[2], masks[3]
            for i in range(n):
                row[i] += (a * m0[i] + b * m1[i]) + (c * m2[i] + d * m3[i])
        else:
            for j in range(four):
                w, m = weights[j, k], masks[j]
                for i in range(n):
                    row[i] += w * m[i]


@compiled(**HOW)
@no_type_check
def _finish_classes(code, L, n, best, total, value):
    """One score of the class masses L (K, n); `best` and `total` (n,) are scratch."""
    K = L.shape[0]
    for i in range(n):
        best[i] = L[0, i]
        total[i] = ZERO
    if code == MAX_LOGIT or code == MSP or code == ENERGY or code == ENTROPY_SOFTMAX:
        for k in range(1, K):
            row = L[k]
            for i in range(n):
                best[i] = _larger(row[i], best[i])
        if code == MAX_LOGIT:
            for i in range(n):
                value[i] = -best[i]
            return
        for i in range(n):
            value[i] = ZERO
        for k in range(K):
            row = L[k]
            if code == ENTROPY_SOFTMAX:
                for i in range(n):
                    d = row[i] - best[i]
                    e = _exp(d)
                    total[i] += e
                    value[i] += e * d
            else:
                for i in range(n):
                    total[i] += _exp(row[i] - best[i])
        if code == MSP:
            for i in range(n):
                value[i] = ONE - ONE / total[i]
        elif code == ENERGY:
            for i in range(n):
                value[i] = -(best[i] + _log(total[i]))
        else:  # -sum s log s, s = e^d / T: log T - sum e^d d / T
            for i in range(n):
                value[i] = (_log(total[i]) - value[i] / total[i]) / F(np.log(K))
    elif code == MAX_SHARE or code == ENTROPY:
        for k in range(K):
            row = L[k]
            for i in range(n):
                total[i] += row[i] + UNCOVERED
                best[i] = _larger(row[i], best[i])
        if code == MAX_SHARE:
            for i in range(n):
                value[i] = ONE - (best[i] + UNCOVERED) / total[i]
            return
        for i in range(n):
            value[i] = ZERO
            total[i] = ONE / total[i]
        for k in range(K):
            row = L[k]
            for i in range(n):
                s = (row[i] + UNCOVERED) * total[i]
                value[i] -= s * _log(s)
        for i in range(n):
            value[i] = value[i] / F(np.log(K))
    elif code == NOT_COVERED:
        for k in range(K):
            row = L[k]
            for i in range(n):
                total[i] += row[i]
        for i in range(n):
            value[i] = ONE - _smaller(total[i], ONE)
    elif code == RBA:
        for k in range(K):
            row = L[k]
            for i in range(n):
                total[i] -= _tanh(row[i])
        for i in range(n):
            value[i] = total[i]


@compiled(**HOW)
@no_type_check
def _interpolate(row, left, right, share, out):
    """A mask row at the strip's columns."""
    for i in range(COLUMNS):
        a = _larger(_smaller(row[np.uintp(left[i])], CERTAIN), -CERTAIN)
        b = _larger(_smaller(row[np.uintp(right[i])], CERTAIN), -CERTAIN)
        out[i] = a + share[i] * (b - a)


@compiled("float32 Q h w", "int64 G 2", "", "", "float32 h G Q", "float32 h G Q", "bool Q", **HOW)
@no_type_check
def extremes(logits, cells, first, last, high, low, damaged):
    """The largest and smallest logit, high and low (h, G, Q), of each mask row in each strip, for some of the queries.

    `damaged` (Q,): whose masks hold NaN, in the padding too. `cells` (G, 2): the mask columns from, to that a strip's
    pixels read. The queries are walked one by one, as their masks lie in memory: read where `run` needs them, a hundred
    masks at a time, they took longer than all the rest.
    """
    for q in range(first, last):
        for r in range(logits.shape[1]):
            row = logits[q, r]
            most = np.int32(0)
            for i in range(row.shape[0]):
                most = max(most, np.int32(_bits(row[i]) & ABSOLUTE))
            damaged[q] |= most > INFINITE
            for s in range(cells.shape[0]):
                top, bottom = row[cells[s, 0]], row[cells[s, 0]]
                for i in range(cells[s, 0] + 1, cells[s, 1]):
                    top, bottom = _larger(row[i], top), _smaller(row[i], bottom)
                high[r, s, q] = _larger(_smaller(top, CERTAIN), -CERTAIN)
                low[r, s, q] = _larger(_smaller(bottom, CERTAIN), -CERTAIN)


@compiled(**HOW)
@no_type_check
def _ends(tops, bottoms, r0, r1, strip, high, low, most, fewest):
    """Between which logits, and which values of the mask, all pixels of a tile lie, for each query.

    Interpolation is a mean: no pixel has a logit above its cells' largest or below their smallest, but for rounding:
    two steps, each off by less than 3e-7 of the larger end.
    """
    for q in range(high.shape[0]):
        top = _larger(tops[r0, strip, q], tops[r1, strip, q])
        bottom = _smaller(bottoms[r0, strip, q], bottoms[r1, strip, q])
        slack = ROUNDING * _larger(_larger(top, -top), _larger(bottom, -bottom))
        high[q], low[q] = top + slack, bottom - slack
        most[q], fewest[q] = _sigmoid(high[q]) * (ONE + ROUNDING), _sigmoid(low[q]) * (ONE - ROUNDING)


@compiled(**HOW)
@no_type_check
def _candidates(classes, most, fewest, above, below, wanted, largest):
    """How many classes can be the largest somewhere in a tile: they are put first in `wanted`.

    A class cannot be if the largest values of all masks do not lift it above what another one has by their smallest.
    `largest` (Q,): what a query may add to one of them; those that add TOO_LITTLE are left out.
    """
    Q, K = classes.shape
    above[:] = ZERO
    below[:] = ZERO
    for q in range(Q):
        for k in range(K):
            above[k] += classes[q, k] * most[q]
            below[k] += classes[q, k] * fewest[q]
    least, count = ZERO, 0
    for k in range(K):
        least = _larger(below[k], least)
    for k in range(K):
        if above[k] >= least:
            wanted[count] = k
            count += 1
    for q in range(Q):
        share = ZERO
        for j in range(count):
            share = _larger(classes[q, wanted[j]], share)
        largest[q] = share * most[q]
    return count


@compiled(**HOW)
@no_type_check
def _pixels(q, r0, r1, y0, y1, logits, left, right, share, lower, held, held_row, m):
    """One query's logits at the tile's pixels; its rows at the strip's columns are kept for the next tile."""
    for r in (r0, r1):
        if held_row[r % 2, q] != r:
            held_row[r % 2, q] = r
            _interpolate(logits[q, r], left, right, share, held[r % 2, q])
    if r1 + 1 < logits.shape[1]:
        for i in range(left[0], right[COLUMNS - 1] + 1, 16):  # 64 bytes
            _fetch(logits[q, r1 + 1], i)
    upper, under = held[r0 % 2, q], held[r1 % 2, q]
    for y in range(y0, y1):
        f, line = lower[y], m[(y - y0) * COLUMNS : (y - y0 + 1) * COLUMNS]
        for i in range(COLUMNS):
            line[i] = upper[i] + f * (under[i] - upper[i])


@compiled(**HOW)
@no_type_check
def _unread(steps, peaks):
    """For each peak the crowd whose pixels never read it, as all scores put 0 there; -1: some score reads it."""
    crowd = np.full(peaks, -2, np.int64)
    for t in range(steps.shape[0]):
        if steps[t, 0] == MASKOMALY:
            a, c = steps[t, 1], steps[t, 3]
            crowd[a] = c if crowd[a] == -2 or crowd[a] == c else -1
            if steps[t, 2] >= 0:
                crowd[steps[t, 2]] = -1
    return crowd


@compiled(**HOW)
@no_type_check
def _finish(step, mix, gathered, counts, added, L, n, best, total, value):
    """One score of what was gathered."""
    code, a, b, c = step[0], step[1], step[2], step[3]
    if code == MASKOMALY:
        inside = gathered[a]
        for i in range(n):
            value[i] = ONE - inside[i]
        if c >= 0:
            crowd = counts[c]
            for i in range(n):
                value[i] = value[i] if crowd[i] < TWO else ZERO
        if b >= 0:
            outlier = gathered[b]
            for i in range(n):
                value[i] = mix * value[i] + (ONE - mix) * outlier[i]
        else:
            for i in range(n):
                value[i] = mix * value[i]
    elif code == SUM:
        total_mass = added[a]
        for i in range(n):
            value[i] = mix + total_mass[i]
    else:
        _finish_classes(code, L, n, best, total, value)


@compiled(
    "float32 Q h w", "float32 h G Q", "float32 h G Q", "int64 2 W", "float32 W", "int64 n 4", "float32 H", "int64 i 3",
    "float32 A Q", "float32 C Q", "float32 S Q", "float32 Q K", "int64 T 4", "float32 T", "", "", "", "float32 T H W",
    **HOW,
)  # fmt: skip
@no_type_check
def run(
    logits, tops, bottoms, columns, share, groups, lower, items, peaks, crowds, sums, classes, steps, mixes, weight,
    first, last, out,
):  # fmt: skip
    """Adds weight x scores to out (T, H, W) for the work items `first` to `last`.

    `tops`, `bottoms`: high and low of `extremes`. `columns` (2, W): the two mask columns that a pixel reads, `share`
    (W,) the second one's part. `groups` (G, 4): image rows from, to (at most ROWS), and the two mask rows that they
    read; `lower` (H,): the second one's part. `items` (I, 3): a strip and the groups from, to. The rest is a
    `plan.Plan`.
    """
    Q, W, T = logits.shape[0], share.shape[0], steps.shape[0]
    A, C, S, K = peaks.shape[0], crowds.shape[0], sums.shape[0], classes.shape[1]
    dense = S > 0 or K > 0
    alone = K > 0 and A + C + S == 0  # the largest class mass is all that is asked for
    for t in range(T):
        alone = alone and steps[t, 0] == MAX_LOGIT
    above, below, wanted, largest = np.empty(K, F), np.empty(K, F), np.arange(K), np.empty(Q, F)
    tile = COLUMNS * ROWS
    left, right, part = np.empty(COLUMNS, np.int32), np.empty(COLUMNS, np.int32), np.empty(COLUMNS, np.float32)
    # mask rows at the strip's columns: row r lies in slot r % 2, put there when a query first needs it
    held, held_row = np.empty((2, Q, COLUMNS), np.float32), np.empty((2, Q), np.int64)
    high, low, most, fewest = np.empty(Q, F), np.empty(Q, F), np.empty(Q, F), np.empty(Q, F)
    unread = _unread(steps, A)
    gathered, least = np.empty((A, tile), np.float32), np.empty(A, np.float32)
    counts, added, masses = np.empty((C, tile), F), np.empty((S, tile), F), np.empty((K, tile), F)
    k_all = K
    waiting, of_waiting = np.empty((4, tile), np.float32), np.empty((4, K), np.float32)
    z, best, total, value = np.empty(tile, F), np.empty(tile, F), np.empty(tile, F), np.empty(tile, F)
    for item in range(first, last):
        strip = items[item, 0]
        c0 = strip * COLUMNS
        width = min(COLUMNS, W - c0)
        for i in range(COLUMNS):  # past the image's edge: its last column again
            x = c0 + min(i, width - 1)
            left[i], right[i], part[i] = columns[0, x], columns[1, x], share[x]
        held_row[:] = -1
        for g in range(items[item, 1], items[item, 2]):
            y0, y1, r0, r1 = groups[g, 0], groups[g, 1], groups[g, 2], groups[g, 3]
            n = (y1 - y0) * COLUMNS
            _ends(tops, bottoms, r0, r1, strip, high, low, most, fewest)
            if alone:
                k_all = _candidates(classes, most, fewest, above, below, wanted, largest)
            L = masses[:k_all]
            # Crowds first. A query counts everywhere if even `low` is above the border, nowhere if not even `high` is;
            # and a pixel where two are counted needs no third.
            for c in range(C):
                crowd, everywhere = counts[c], ZERO
                for q in range(Q):
                    everywhere += ONE if low[q] > crowds[c, q] else ZERO
                crowd[:n] = everywhere
                for q in range(Q):
                    edge = crowds[c, q]
                    if everywhere >= TWO:
                        break
                    if high[q] <= edge or low[q] > edge:
                        continue
                    _pixels(q, r0, r1, y0, y1, logits, left, right, part, lower, held, held_row, z)
                    everywhere = TWO
                    for i in range(n):
                        crowd[i] += ONE if z[i] > edge else ZERO
                        everywhere = _smaller(crowd[i], everywhere)
            # A query can be left out of a peak if even `high` would not lift the lowest pixel of the tile. That one is
            # at least as high as any query's `low`, for which that query is visited; pixels that no score reads do not
            # matter: they start at the top.
            for a in range(A):
                peak, lowest = gathered[a], ZERO
                for q in range(Q):
                    lowest = _larger(peaks[a, q] * fewest[q], lowest)
                least[a] = lowest
                if unread[a] >= 0:
                    crowd, lowest = counts[unread[a]], ONE
                    for i in range(n):
                        peak[i] = ONE if crowd[i] >= TWO else ZERO
                        lowest = _smaller(peak[i], lowest)
                    least[a] = _larger(TWO * lowest, least[a])
                else:
                    peak[:n] = ZERO
            added[:, :n] = ZERO
            L[:, :n] = ZERO
            four = 0
            for q in range(Q):
                peaked = False
                for a in range(A):
                    peaked = peaked or peaks[a, q] * most[q] > least[a]
                added_too = largest[q] > LITTLE if alone else dense and high[q] > NEGLIGIBLE
                if not (peaked or added_too):
                    continue
                m = waiting[four] if K > 0 else z
                _pixels(q, r0, r1, y0, y1, logits, left, right, part, lower, held, held_row, m)
                for i in range(n):
                    m[i] = _sigmoid(m[i])
                for a in range(A):
                    w = peaks[a, q]
                    if w > ZERO:
                        peak, lowest = gathered[a], ONE
                        for i in range(n):
                            peak[i] = _larger(w * m[i], peak[i])
                            lowest = _smaller(peak[i], lowest)
                        least[a] = _larger(lowest, least[a])
                if not added_too:
                    continue
                for j in range(S):
                    w, row = sums[j, q], added[j]
                    for i in range(n):
                        row[i] += w * m[i]
                if K > 0:
                    for j in range(k_all):
                        of_waiting[four, j] = classes[q, wanted[j]]
                    four += 1
                    if four == 4:
                        _add_classes(of_waiting, 4, waiting, n, L)
                        four = 0
            _add_classes(of_waiting, four, waiting, n, L)
            for t in range(T):
                _finish(steps[t], mixes[t], gathered, counts, added, L, n, best, total, value)
                # In a loop of its own: fused with the sum, the product would not be rounded as NumPy's in ensemble.py.
                for i in range(n):
                    value[i] *= weight
                for y in range(y0, y1):
                    to, start = out[t, y], (y - y0) * COLUMNS
                    for i in range(width):
                        to[c0 + i] += value[start + i]
