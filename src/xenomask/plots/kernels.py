"""The compiled loop behind the overlay: a video draws one for every frame."""

from typing import no_type_check

import numpy as np

from xenomask.jit import compiled


# no_type_check: jaxtyping's test hook would otherwise wrap what numba is to compile.
@compiled("uint8 H W 3", "float32 H W", "", "", "uint8 n 3", "", "uint8 H W 3")
@no_type_check
def blend(image, value, low, high, table, opacity, out):
    """Lays table[value on low..high] over image (H, W, 3), `opacity` of it at `high` and nothing at `low`, into out.

    `value` is float32 (H, W), `table` uint8 (colours, 3), `image` and `out` uint8. 1280x720 in one pass: NumPy's way
    made ten arrays of that size.
    """
    for y in range(value.shape[0]):
        for x in range(value.shape[1]):
            t = (value[y, x] - low) / (high - low)
            t = min(max(t, 0.0), 1.0)
            row = min(int(t * table.shape[0]), table.shape[0] - 1)
            share = opacity * t
            for c in range(3):
                out[y, x, c] = np.uint8(image[y, x, c] * (1 - share) + table[row, c] * share + 0.5)
