"""Arrays with a dtype and a shape, for annotations: `Float32[np.ndarray, "h w"]`.

They are jaxtyping's for type checkers, and wherever jaxtyping is imported before: the tests check each call with it.
Else they stand for the array's type alone: jaxtyping loads unittest.mock and asyncio, 40 ms at each start.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import (
        Bool,
        Float,
        Float16,
        Float32,
        Float64,
        Int,
        Int32,
        Int64,
        Integer,
        Shaped,
        UInt8,
        UInt16,
    )
else:

    class Shaped:
        """An array, of whatever dtype and shape is named."""

        def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
            return array_and_shape[0]

    Bool = Float = Float16 = Float32 = Float64 = Int = Int32 = Int64 = Integer = UInt8 = UInt16 = Shaped

__all__ = [
    "Bool", "Float", "Float16", "Float32", "Float64", "Int", "Int32", "Int64", "Integer", "Shaped", "UInt8", "UInt16",
]  # fmt: skip
