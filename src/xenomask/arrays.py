"""What a user gives -> the arrays that the code takes: every public function that takes an array asks here.

What is unambiguous is converted (any real dtype, byte order and memory layout; tensors, PIL images, lists), the rest is
refused in one line. What fits already is handed on as it is, without a copy.
"""

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from xenomask.errors import XenomaskError, first_line
from xenomask.shapes import Bool, Float, Float16, Float32, Float64, Integer, UInt8, UInt16

if TYPE_CHECKING:
    from torch import Tensor
else:  # torch takes two seconds to import, and annotations alone need not wait for it
    Tensor = Any

# What the functions below take: an array of any real dtype, a torch tensor, a PIL image, nested lists.
MapLike = Annotated[Any, "map"]  # as_map, as_half
LabelLike = Annotated[Any, "label"]  # as_label, as_truth
MapsLike = Annotated[Any, "maps"]  # one, a stack, a list, a generator or a dict of them: xenomask.evaluate
LabelsLike = Annotated[Any, "labels"]
MaskLike = Annotated[Any, "mask"]  # as_mask
ImageLike = Annotated[Any, "image"]  # as_image; where paths are taken too: datasets.as_photo
TensorLike = Annotated[Any, "tensor"]  # masks.as_logits
NumbersLike = Annotated[Any, "numbers"]  # as_numbers, as_counts, as_keys

VOID = 255
HALF_MAX = float(np.finfo(np.float16).max)
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
# The largest value of 14-bit cameras: 16-bit numbers above it use all 16 bits.
FOURTEEN_BITS = 16383


def as_array(x: Any, what: str) -> np.ndarray:
    """Anything that holds real numbers as a plain array in native byte order.

    Raises XenomaskError for masked arrays, palettes, and what holds no real numbers.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise XenomaskError(
            f"the {what} is a masked array: fill it (x.filled(...)); void belongs into the label, as 255"
        )
    try:
        if is_tensor(x):
            x = _from_torch(x)
        elif getattr(x, "mode", None) in ("P", "PA") and _is_pil(x):
            raise XenomaskError(f"the {what} has a palette: convert it to grey values first (mode L)")
        a = np.asarray(x)
    except XenomaskError:
        raise
    except Exception as e:  # whatever the array of another library says: on a GPU, ragged lists, damaged pictures
        raise XenomaskError(f"the {what} is no array of numbers ({type(x).__name__}): {first_line(e)}") from e
    if a.dtype.kind not in "biuf":
        raise XenomaskError(f"the {what} holds {a.dtype} ({type(x).__name__}), not real numbers")
    if a.dtype == np.bool_ and a.view(np.uint8).max(initial=0) > 1:  # PIL's, and bytes that were viewed as bool
        return a.view(np.uint8) != 0
    if a.dtype.itemsize > 8:  # long double
        a = a.astype(np.float64)
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


def is_tensor(x: Any) -> bool:
    """Whether it is a tensor of torch, which is not imported for the question."""
    return any(c.__name__ == "Tensor" and c.__module__.split(".")[0] == "torch" for c in type(x).__mro__)


def _is_pil(x: Any) -> bool:
    return any(c.__module__.split(".")[0] == "PIL" for c in type(x).__mro__)


def _from_torch(x: Any) -> np.ndarray:
    try:
        return x.numpy(force=True)
    except TypeError:  # bfloat16 and 8-bit floats, which NumPy has not
        return x.float().numpy(force=True)


def _picture(x: Any, what: str) -> np.ndarray:
    """An array (H, W) with a pixel at least."""
    a = as_array(x, what)
    if a.ndim != 2 or not a.size:
        raise XenomaskError(f"the {what} has the shape {a.shape}, not (H, W) with at least one pixel")
    return a


def is_finite(value: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; for float16 by the bits, in a twentieth of isfinite's time."""
    if value.dtype == np.float16 and value.dtype.isnative:
        return int(np.bitwise_and(value.view(np.uint16), 0x7FFF).max(initial=0)) < 0x7C00
    if value.dtype.kind != "f" or not value.size:
        return True
    return math.isfinite(value.max()) and math.isfinite(value.min())  # NaN where one value is


def as_map(value: MapLike, what: str = "map") -> Float[np.ndarray, "H W"]:
    """An anomaly map as finite float16, float32 or float64 (H, W): floats keep their type, whole numbers become floats.

    Raises XenomaskError for another shape, an empty map, NaN and infinity.
    """
    a = _picture(value, what)
    if a.dtype.kind != "f":
        a = a.astype(np.float32 if a.dtype.itemsize <= 2 else np.float64)
    if not is_finite(a):
        raise XenomaskError(f"the {what} holds NaN or infinity")
    return a


def as_single(value: MapLike, what: str = "map") -> Float32[np.ndarray, "H W"]:
    """`as_map`, in float32; raises XenomaskError for values beyond it, too."""
    return _rounded(as_map(value, what), np.float32, what)


def as_half(value: MapLike, what: str = "map", *, check: bool = True) -> Float16[np.ndarray, "H W"]:
    """`as_map`, rounded to the nearest float16, as which maps are compared; XenomaskError for values beyond +-65504.

    Without `check` a float16 map is not looked through for NaN and infinity: the caller does that.
    """
    a = _picture(value, what)
    if a.dtype == np.float16 and not check:
        return a
    return _rounded(as_map(a, what), np.float16, what)


def _rounded(a: np.ndarray, dtype: type, what: str) -> np.ndarray:
    if a.dtype == dtype:
        return a
    with np.errstate(over="ignore"):
        rounded = a.astype(dtype)
    if not is_finite(rounded):
        raise XenomaskError(f"the {what} holds values beyond {np.dtype(dtype)} (+-{np.finfo(dtype).max:g})")
    return rounded


def as_label(label: LabelLike, what: str = "label") -> UInt8[np.ndarray, "H W"]:
    """A label as uint8 (H, W), from whole numbers in 0..255 of any integer type, or from bool (True is 1).

    Raises XenomaskError for another shape, floats, and values outside 0..255.
    """
    a = _picture(label, what)
    if a.dtype == np.uint8:
        return a
    if a.dtype == np.bool_:
        return a.view(np.uint8)
    if a.dtype.kind == "f":
        raise XenomaskError(f"the {what} is {a.dtype}: labels are whole numbers; round and convert it to uint8")
    low, high = int(a.min()), int(a.max())
    if low < 0 or high > 255:
        raise XenomaskError(f"the {what} holds {low if low < 0 else high}: labels are whole numbers in 0..255")
    return a.astype(np.uint8)


def as_truth(label: LabelLike, what: str = "label") -> UInt8[np.ndarray, "H W"]:
    """`as_label` for labels of anomalies; raises XenomaskError for values other than 0 inlier, 1 anomaly, 255 void."""
    a = as_label(label, what)
    if ((a > 1) & (a != VOID)).any():
        raise foreign_values(a, what)
    return a


def foreign_values(label: np.ndarray, what: str = "label") -> XenomaskError:
    """The error of a label of anomalies that holds other values."""
    found = np.setdiff1d(label, [0, 1, VOID]).tolist()
    return XenomaskError(f"{what} holds values other than 0 inlier, 1 anomaly, 255 void: {found[:8]}")


def as_mask(mask: MaskLike, what: str = "mask") -> Bool[np.ndarray, "H W"]:
    """A mask as bool (H, W), from bool or from numbers that are 0 and 1.

    Raises XenomaskError for another shape and other values.
    """
    a = _picture(mask, what)
    if a.dtype == np.bool_:
        return a
    if not ((a == 0) | (a == 1)).all():
        raise XenomaskError(f"the {what} holds {a.dtype} values other than 0 and 1: give it as bool, such as map > t")
    return a.astype(np.bool_)


def as_image(image: ImageLike, what: str = "photo") -> UInt8[np.ndarray, "H W 3"]:
    """A photo as contiguous uint8 RGB (H, W, 3).

    Grey is repeated, alpha dropped, (C, H, W) turned where the shape can be nothing else; a PIL image with an EXIF
    orientation is turned upright, as a file is. Floats in 0..1 and whole numbers in 0..255 of any type are taken as
    such; 16-bit numbers where they use more than 14 bits or are 8-bit ones times 257. Raises XenomaskError for all
    that could be read in two ways, for bool, NaN, infinity and empty arrays.
    """
    tensor = is_tensor(image)
    if _is_pil(image):
        image = _from_pil(image, what)
    a = as_array(image, what)
    if a.dtype == np.bool_:
        raise XenomaskError(f"the {what} is bool: a mask, not a photo")
    if not a.size or a.ndim not in (2, 3):
        one = "; give one photo at a time (x[0])" if a.ndim == 4 else ""
        raise XenomaskError(f"the {what} has the shape {a.shape}, not (H, W, 3) with at least one pixel{one}")
    a = a[..., None] if a.ndim == 2 else _channels_last(a, tensor, what)
    a = a[..., :3] if a.dtype == np.uint8 else _levels(a[..., :3], what)
    return np.ascontiguousarray(np.repeat(a, 3, axis=2) if a.shape[2] == 1 else a)


def _from_pil(image: Any, what: str) -> Any:
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        return image if image.mode[0] in "IF" else image.convert("RGB")
    except Exception as e:  # what decoders raise at the first look at the pixels
        raise XenomaskError(f"the {what} cannot be read: {first_line(e)}") from e


def _channels_last(a: np.ndarray, tensor: bool, what: str) -> np.ndarray:
    if a.shape[2] == 3 and not tensor:  # the form that is asked for
        return a
    last, first = a.shape[2] in CHANNELS, a.shape[0] in CHANNELS
    if first == last:
        why = (
            "could be (H, W, C) and (C, H, W)"
            if first
            else "is neither (H, W, C) nor (C, H, W) with 1, 3 or 4 channels"
        )
        raise XenomaskError(f"the {what} has the shape {a.shape}, which {why}: give it as (H, W, 3)")
    return a if last else a.transpose(1, 2, 0)


def _levels(a: np.ndarray, what: str) -> UInt8[np.ndarray, "H W C"]:
    """Numbers of another type than uint8 as 0..255."""
    low, high = a.min(), a.max()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise XenomaskError(f"the {what} holds NaN or infinity")
    held = f"the {what} holds {a.dtype} values in {low:g} .. {high:g}"
    if low < 0:
        raise XenomaskError(f"{held}: a photo has none below 0; was it normalised already?")
    if a.dtype.kind == "f":
        if high <= 1:
            return np.rint(a.astype(np.float64) * 255).astype(np.uint8)
        if high > 255 or (a != np.rint(a)).any():
            raise XenomaskError(f"{held}: neither 0..1 nor whole numbers of 0..255; convert it to uint8")
        return a.astype(np.uint8)
    if high <= 255 and (a.dtype != np.uint16 or high == 0):
        return a.astype(np.uint8)
    if a.dtype == np.int16:  # 15 bits: neither scale fits
        raise XenomaskError(f"{held}: 16-bit photos are uint16; convert it to uint8")
    if high <= 65535 and not (a % 257).any():
        return (a // 257).astype(np.uint8)
    if not FOURTEEN_BITS < high <= 65535:
        raise XenomaskError(f"{held}: are they 8, 10, 12, 14 or 16 bits? convert it to uint8")
    return ((a.astype(np.uint32) + 128) // 257).astype(np.uint8)


def as_numbers(x: NumbersLike, what: str, ndim: int | None = None) -> Float64[np.ndarray, "..."]:
    """Real numbers as float64 of the same shape; raises XenomaskError for NaN and another number of axes."""
    a = as_array(x, what)
    if ndim is not None and a.ndim != ndim:
        raise XenomaskError(f"{what}: the shape {a.shape} has {a.ndim} axes, not {ndim}")
    a = a.astype(np.float64, copy=False)
    if np.isnan(a).any():
        raise XenomaskError(f"{what}: NaN among the numbers")
    return a


def as_counts(x: NumbersLike, what: str) -> Integer[np.ndarray, "n"]:
    """Counts (n,) as int64 (uint32 stays): types in which their sums cannot overflow.

    Raises XenomaskError for other shapes, floats, bool, and numbers below 0.
    """
    a = as_array(x, what)
    if a.ndim != 1 or a.dtype.kind not in "iu":
        raise XenomaskError(f"{what}: {a.dtype} {a.shape}, not whole numbers (n,)")
    if a.size and (a.min() < 0 or a.max() > np.iinfo(np.int64).max):
        raise XenomaskError(f"{what}: counts must be whole numbers from 0 on")
    return a if a.dtype == np.uint32 else a.astype(np.int64, copy=False)


def as_keys(x: NumbersLike, what: str) -> UInt16[np.ndarray, "n"]:
    """Ordered keys (n,) of float16 values as uint16; raises XenomaskError for what lies outside 0..65535."""
    a = as_counts(x, what) if getattr(x, "dtype", None) != np.uint16 else as_array(x, what)
    if a.ndim != 1 or (a.size and a.max() > 65535):
        raise XenomaskError(f"{what}: keys of float16 values are whole numbers (n,) in 0..65535")
    return a.astype(np.uint16, copy=False)


def check_same_size(what: str, a: np.ndarray, other: str, b: np.ndarray, hint: str = "") -> None:
    """Raises XenomaskError unless two pictures have one height and width."""
    if a.shape[:2] != b.shape[:2]:
        raise XenomaskError(
            f"{what} is {a.shape[1]}x{a.shape[0]}, its {other} {b.shape[1]}x{b.shape[0]}: "
            f"{hint or 'they must show the same pixels'}"
        )


def as_threshold(threshold: Any) -> float:
    """A threshold on a map as a float; raises XenomaskError for what is no finite real number.

    >>> as_threshold(np.float16(0.5))
    0.5
    """
    real = isinstance(threshold, int | float | np.integer | np.floating) and not isinstance(threshold, bool)
    with suppress(OverflowError):  # of an int beyond all floats
        if real and math.isfinite(threshold):
            return float(threshold)
    raise XenomaskError(f"threshold {threshold!r:.60} is not a finite number")


def check_same_length(what: str, **columns: np.ndarray) -> None:
    """Raises XenomaskError unless all columns are of one length."""
    lengths = {k: len(c) for k, c in columns.items()}
    if len(set(lengths.values())) > 1:
        raise XenomaskError(f"{what}: " + ", ".join(f"{n} {k}" for k, n in lengths.items()) + ", not as many of each")


def check_onto(onto: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises XenomaskError unless something can be added to this array: float32, of that shape, not read-only."""
    plain = isinstance(onto, np.ndarray) and not isinstance(onto, np.ma.MaskedArray)
    if not plain or onto.dtype != np.float32 or onto.shape != shape or not onto.flags.writeable:
        found = f"{onto.dtype} {onto.shape}" if plain else type(onto).__name__
        raise XenomaskError(f"a map is added to a writable float32 array {shape}, not to {found}")
