"""The loops that NumPy has no fast form for, compiled by numba; their plain twins are in tests/helpers/naive.py.

They run on one thread and release the interpreter's lock: whoever has several frames and cores calls them from
several threads. Compiled code is cached beside this file, or in the user's cache folder; where neither can be written
to, it is compiled anew in each process (1 s).
"""

from typing import no_type_check

import numpy as np

from xenomask.jit import compiled


# no_type_check: jaxtyping's test hook would otherwise wrap what numba is to compile.
@compiled("uint16 n", "uint8 n", "uint8 256", "uint32 k 65536")
@no_type_check
def histogram(bits, label, kind, out):
    """Adds one to out[kind[label], bits] for every pixel of the flat uint16 `bits` and uint8 `label`.

    `kind` is uint8 (256,), `out` uint32 (n, 65536): 1 to 1.3 ns a pixel, where np.bincount of the selected
    pixels and their keys take 12.
    """
    # NOTE: two and four histograms in turn (against waiting for a counter just written) were slower except
    # on constant maps: docs/log.md, 2026-11-23.
    flat = out.reshape(-1)
    for i in range(bits.size):
        flat[(np.uint32(kind[label[i]]) << np.uint32(16)) | bits[i]] += np.uint32(1)


# error_model: a resample may have drawn no anomaly; its numbers become nan instead of an exception.
@compiled("float64 r n", "float64 r n", "float64 r", "float64 r", "float64 r 10", error_model="numpy")
@no_type_check
def advance(tp, fp, P, N, state):
    """Walks along one block of every resample's curve; see `resampling.curve_numbers`.

    `tp`, `fp` float64 (R, n): what each threshold of the block adds, from the largest down; `P`, `N` (R,) their
    totals; `state` (R, 10): tp, fp, recall, precision and fpr so far, then AUPR-sum, AUPR-trapz, AUROC, FPR95 (nan
    until reached), best F1.
    """
    for r in range(tp.shape[0]):
        t, f, recall, precision, fpr = state[r, 0], state[r, 1], state[r, 2], state[r, 3], state[r, 4]
        s, z, a, x, best = state[r, 5], state[r, 6], state[r, 7], state[r, 8], state[r, 9]
        for i in range(tp.shape[1]):
            dt, df = tp[r, i], fp[r, i]
            if dt == 0 and df == 0:
                continue
            t += dt
            f += df
            new_recall, new_precision, new_fpr = t / P[r], t / (t + f), f / N[r]
            s += (new_recall - recall) * new_precision
            z += (new_recall - recall) * (new_precision + precision) / 2
            a += (new_fpr - fpr) * (new_recall + recall) / 2
            recall, precision, fpr = new_recall, new_precision, new_fpr
            if np.isnan(x) and recall >= 0.95:
                x = fpr
            best = max(best, 2 * t / (t + f + P[r]))
        state[r, 0], state[r, 1], state[r, 2], state[r, 3], state[r, 4] = t, f, recall, precision, fpr
        state[r, 5], state[r, 6], state[r, 7], state[r, 8], state[r, 9] = s, z, a, x, best
