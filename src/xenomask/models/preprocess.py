"""Image -> network input: resize by a stated policy, normalise, pad right and bottom."""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from xenomask.arrays import ImageLike, Tensor, as_image
from xenomask.errors import unknown
from xenomask.shapes import Float32, UInt8
from xenomask.types import Size

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
LARGEST = 8192  # pixels of a photo's edge that a file may ask for


@dataclass(frozen=True)
class Preprocess:
    """How an image enters a network; stored with the checkpoint, never guessed."""

    # "shortest": shortest edge to `size`, but the longest at most `longest`; "longest": longest edge to
    # `size`; "fit": as large as fits into `size` x `longest` (MMSegmentation's keep_ratio); "truncated": "shortest"
    # with the other edge rounded down, as transformers does; "fixed": to height `size` and width `longest`, whatever
    # the photo's shape; "none"
    policy: Literal["shortest", "longest", "fit", "truncated", "fixed", "none"] = "shortest"
    size: int = 1024
    longest: int = 2048
    mean: tuple[float, float, float] = IMAGENET_MEAN  # RGB, 0..255
    std: tuple[float, float, float] = IMAGENET_STD
    divisor: int = 32  # padded right and bottom, after normalisation, with zeros
    antialias: bool = False  # average over the source pixels when shrinking (cv2 INTER_AREA)
    # "opencv", or how torchvision resizes for transformers: "nearest", or antialiased "bilinear" or "bicubic"
    resample: Literal["opencv", "nearest", "bilinear", "bicubic"] = "opencv"
    stretch: bool = False  # resized to multiples of the divisor, not padded to them
    black: bool = False  # padded before normalisation, with black


@dataclass(frozen=True)
class Prepared:
    """A photo as a network takes it: normalised and padded; `input_size` is the part that shows the photo."""

    x: Float32[Tensor, "1 3 ph pw"]
    input_size: Size
    image_size: Size


def check_preprocess(p: Preprocess) -> None:
    """Raises ValueError for settings, read from a file, that no photo can be prepared by."""
    if p.policy not in ("shortest", "longest", "fit", "truncated", "fixed", "none"):
        raise ValueError(f"unknown policy {str(p.policy)[:40]!r}")
    if p.resample not in ("opencv", "nearest", "bilinear", "bicubic"):
        raise ValueError(f"unknown resample {str(p.resample)[:40]!r}")
    least = 0 if p.policy == "none" else 1
    for name, value, low, high in (
        ("size", p.size, least, LARGEST), ("divisor", p.divisor, 1, 2048),
        ("longest", p.longest, 0 if p.policy == "longest" else least, 16 * LARGEST),
    ):  # fmt: skip
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} = {str(value)[:40]} is not in {low}..{high}")
    for name, values in (("mean", p.mean), ("std", p.std)):
        if type(values) is not tuple or len(values) != 3 or not all(type(v) in (int, float) for v in values):
            raise ValueError(f"{name} is not three numbers")
        if not all(abs(v) < 1e6 and (name == "mean" or v > 0) for v in values):
            raise ValueError(f"{name} = {values} is out of range")
    if not all(type(v) is bool for v in (p.antialias, p.stretch, p.black)):
        raise ValueError("antialias, stretch or black is neither true nor false")


def under(p: Preprocess, size_policy: str) -> Preprocess:
    """The settings under a size policy: "stored", or "native" for the image's own size; XenomaskError for another."""
    if size_policy not in ("stored", "native"):
        raise unknown("size policy", size_policy, ("stored", "native"))
    return replace(p, policy="none") if size_policy == "native" else p


def target_size(p: Preprocess, size: Size) -> Size:
    """The (height, width) that an image of `size` is resized to, before padding.

    >>> target_size(Preprocess("shortest", 1024, 2048), (720, 1280))
    (1024, 1820)
    >>> target_size(Preprocess("fit", 1024, 2048), (1080, 1920))
    (1024, 1820)
    >>> target_size(Preprocess("fixed", 384, 512), (720, 1280))
    (384, 512)
    """
    if p.policy == "none":
        return size
    if p.policy == "fixed":
        h, w = p.size, p.longest
    else:
        h, w = _truncated(p, size) if p.policy == "truncated" else _rounded(p, size)
    return (h + -h % p.divisor, w + -w % p.divisor) if p.stretch else (h, w)


def _truncated(p: Preprocess, size: Size) -> Size:
    H, W = size
    short, long = min(H, W), max(H, W)
    edge = float(p.size)
    if long / short * p.size > p.longest:
        edge = p.longest * short / long
    whole = max(1, round(edge))
    if short == whole:
        return size
    other = max(1, int(edge * long / short))
    return (whole, other) if H <= W else (other, whole)


def _rounded(p: Preprocess, size: Size) -> Size:
    H, W = size
    short, long = min(H, W), max(H, W)
    # "fit" is "shortest" under MMSegmentation's name: the smaller of the two scales either way
    scale = p.size / long if p.policy == "longest" else min(p.size / short, p.longest / long)
    return max(1, int(H * scale + 0.5)), max(1, int(W * scale + 0.5))


def input_size(p: Preprocess, size: Size) -> Size:
    """The (height, width) of the network's input for an image of `size`, its padding included.

    >>> input_size(Preprocess("shortest", 384, 2048), (720, 1280))
    (384, 704)
    """
    h, w = target_size(p, size)
    return h + -h % p.divisor, w + -w % p.divisor


def averages(p: Preprocess, size: Size) -> bool:
    """Whether an image of `size` is resized by averaging (cv2 INTER_AREA); otherwise bilinearly."""
    h, w = target_size(p, size)
    return p.antialias and p.resample == "opencv" and h < size[0] and w <= size[1]


def network_input(p: Preprocess, image: ImageLike) -> tuple[Float32[Tensor, "1 3 ph pw"], Size]:
    """`network_array`, as a tensor."""
    import torch

    x, used = network_array(p, image)
    return torch.from_numpy(x), used


def network_array(p: Preprocess, image: ImageLike) -> tuple[Float32[np.ndarray, "1 3 ph pw"], Size]:
    """The normalised, padded input of a network and the size of its part that shows the image (H, W, 3).

    Raises XenomaskError for what is no photo.
    """
    image = as_image(image)
    h, w = target_size(p, (image.shape[0], image.shape[1]))
    if (h, w) != image.shape[:2]:
        image = _resized(p, image, (h, w))
    padding = (0, -h % p.divisor), (0, -w % p.divisor), (0, 0)
    if p.black:
        image = np.pad(image, padding)
    x = (image.astype(np.float32) - np.array(p.mean, np.float32)) / np.array(p.std, np.float32)
    if not p.black:
        x = np.pad(x, padding)
    return np.ascontiguousarray(x.transpose(2, 0, 1))[None], (h, w)


def _resized(p: Preprocess, image: UInt8[np.ndarray, "H W 3"], size: Size) -> UInt8[np.ndarray, "h w 3"]:
    h, w = size
    if p.resample == "opencv":
        how = cv2.INTER_AREA if averages(p, (image.shape[0], image.shape[1])) else cv2.INTER_LINEAR
        return cv2.resize(image, (w, h), interpolation=how)
    import torch
    from torchvision.transforms.v2 import InterpolationMode, functional  # slow to import, and needed here alone

    how = InterpolationMode.NEAREST_EXACT if p.resample == "nearest" else InterpolationMode(p.resample)
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    return functional.resize(x, [h, w], interpolation=how, antialias=True)[0].numpy().transpose(1, 2, 0)
