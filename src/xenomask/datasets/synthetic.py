"""Seeded, procedurally generated street scenes with pasted anomalous objects, written in the real on-disk formats.

Nothing is downloaded and they contain no photo: they are for tests, for the demo and for trying a pipeline
out. A network's output for them is no measure of its output for photos.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from xenomask.errors import XenomaskError, unknown
from xenomask.files import atomic, make_dir
from xenomask.shapes import Float, UInt8
from xenomask.types import CITYSCAPES_CLASSES, VOID, Size, Tick, nothing

ID = {name: i for i, name in enumerate(CITYSCAPES_CLASSES)}
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """One synthetic scene: photo, Cityscapes train ids (255 under anomalous objects), 0 / 1 / 255 anomaly label."""

    image: UInt8[np.ndarray, "H W 3"]
    semantic: UInt8[np.ndarray, "H W"]
    anomaly: UInt8[np.ndarray, "H W"]


class _Canvas:
    """An image under construction: every shape paints its texture and its class."""

    def __init__(self, size: Size, rng: np.random.Generator):
        self.h, self.w = size
        self.rng = rng
        self.image = np.zeros((self.h, self.w, 3), np.float32)
        self.semantic = np.full(size, VOID, np.uint8)
        self.anomaly = np.zeros(size, np.uint8)

    def noise(self, cell: float, size: Size | None = None) -> Float[np.ndarray, "_ _"]:
        """Smooth noise in [-1, 1] with features of about `cell` pixels; of the canvas' size unless told."""
        h, w = size or (self.h, self.w)
        small = self.rng.standard_normal((max(2, int(h / cell)), max(2, int(w / cell))), np.float32)
        smooth = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
        return np.clip(smooth / 2, -1, 1)

    def polygon(self, points, colour: Colour, klass: str, grain: float = 0.15, cell: float = 12) -> None:
        """Paints a polygon of (x, y) points with a grained colour; only its bounding box is touched."""
        corners = np.round(points).astype(np.int32)
        x0, y0 = np.clip(corners.min(0), 0, (self.w, self.h))
        x1, y1 = np.clip(corners.max(0) + 1, 0, (self.w, self.h))
        if x0 >= x1 or y0 >= y1:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [corners - (x0, y0)], 1)
        inside, box = mask.astype(bool), (slice(y0, y1), slice(x0, x1))
        texture = 1 + grain * (0.6 * self.noise(cell, mask.shape) + 0.4 * self.noise(2, mask.shape))[..., None]
        self.image[box][inside] = (np.array(colour, np.float32) * texture)[inside]
        self.semantic[box][inside] = ID[klass]

    def shape(self, polygons) -> np.ndarray:
        """The boolean mask of some polygons."""
        mask = np.zeros((self.h, self.w), np.uint8)
        for points in polygons:
            cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
        return mask.astype(bool)


def _ground(c: _Canvas, x0: float, y0: float) -> None:
    """Sky, road with markings, sidewalks and curbs around the vanishing point (x0, y0)."""
    rows = np.linspace(0, 1, c.h, dtype=np.float32)[:, None, None]
    tint = c.rng.uniform(0.8, 1.05)
    c.image[:] = (
        np.array([150, 180, 215], np.float32) * tint * (1 - rows) + np.array([235, 235, 232], np.float32) * rows * 1.3
    )
    c.image *= 1 + 0.08 * c.noise(c.w / 6)[..., None]
    c.semantic[:] = ID["sky"]
    left, right = x0 - c.w * c.rng.uniform(0.55, 0.8), x0 + c.w * c.rng.uniform(0.55, 0.8)
    kerb = c.w * 0.35
    grey = c.rng.uniform(85, 125)
    c.polygon([(-c.w, c.h), (x0, y0), (2 * c.w, c.h)], (150, 143, 138), "sidewalk", 0.12, 30)
    c.polygon([(left - kerb * 0.06, c.h), (x0, y0), (right + kerb * 0.06, c.h)], (165, 163, 160), "sidewalk", 0.08)
    c.polygon([(left, c.h), (x0, y0), (right, c.h)], (grey, grey, grey * 1.02), "road", 0.1, 40)
    for t in np.arange(0.12, 1.0, 0.16):  # dashed centre line, shrinking towards the vanishing point
        a, b = t**1.8, (t + 0.07) ** 1.8
        middle = (left + right) / 2 - x0
        quad = [
            (x0 + middle * s + sign * 0.006 * c.w * s, y0 + (c.h - y0) * s)
            for s, sign in ((a, -1), (a, 1), (b, 1), (b, -1))
        ]
        c.polygon(quad, (215, 213, 205), "road", 0.05)


def _facades(c: _Canvas, x0: float, y0: float) -> None:
    """Rows of buildings on both sides, far ones first, with windows."""
    for side in (-1, 1):
        edge = np.linspace(0.06, 1.25, 6) ** 1.3 * c.w * 0.62
        for near, far in zip(edge[:0:-1][::-1], edge[:-1], strict=True):
            xa, xb = x0 + side * far, x0 + side * near
            base = c.rng.uniform(90, 190)
            colour = (base * c.rng.uniform(0.95, 1.1), base, base * c.rng.uniform(0.8, 0.98))
            tall = c.rng.uniform(0.7, 1.3)
            ta, tb = (y0 - tall * abs(x - x0) * 0.8 - c.h * 0.03 for x in (xa, xb))
            ba, bb = (y0 + abs(x - x0) * 0.25 + 2 for x in (xa, xb))
            c.polygon([(xa, ta), (xb, tb), (xb, bb), (xa, ba)], colour, "building", 0.12, 20)
            for u in np.linspace(0.12, 0.78, 4):
                for v in np.linspace(0.12, 0.72, 4):
                    quad = []
                    for du, dv in ((0, 0), (0.12, 0), (0.12, 0.13), (0, 0.13)):
                        s, x = u + du, xa + (xb - xa) * (u + du)
                        top, bottom = ta + (tb - ta) * s, ba + (bb - ba) * s
                        quad.append((x, top + (bottom - top) * (v + dv)))
                    dark = c.rng.uniform(35, 75)
                    c.polygon(quad, (dark, dark * 1.05, dark * 1.15), "building", 0.2, 6)


def _blob(c: _Canvas, x: float, y: float, rx: float, ry: float, rough: float, corners: int = 40) -> np.ndarray:
    """A closed, irregular outline around (x, y)."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    wobble = sum(c.rng.normal(0, rough / k) * np.cos(k * angle + c.rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 5, 8))
    return np.stack([x + rx * (1 + wobble) * np.cos(angle), y + ry * (1 + wobble) * np.sin(angle)], 1)


def _trees(c: _Canvas, x0: float, y0: float) -> None:
    for _ in range(int(c.rng.integers(2, 6))):
        side, d = c.rng.choice((-1, 1)), c.rng.uniform(0.12, 0.5) * c.w
        x, foot, size = x0 + side * d, y0 + d * 0.25, d * 0.5
        trunk = max(2.0, size * 0.06)
        c.polygon(
            [(x - trunk, foot - size), (x + trunk, foot - size), (x + trunk, foot), (x - trunk, foot)],
            (75, 62, 50), "vegetation", 0.3, 4,
        )  # fmt: skip
        for _ in range(5):
            crown = _blob(c, x + c.rng.normal(0, size * 0.25), foot - size * c.rng.uniform(0.9, 1.5),
                          size * 0.38, size * 0.34, 0.18)  # fmt: skip
            green = c.rng.uniform(55, 95)
            c.polygon(crown, (green * 0.75, green, green * 0.5), "vegetation", 0.5, max(3, size / 14))


def _box_car(c: _Canvas, x: float, foot: float, w: float) -> None:
    """A car from behind: shadow, body, cabin, window, lamps, wheels."""
    h = w * 0.78
    base = c.rng.uniform(30, 220)
    colour = tuple(np.clip(base * c.rng.uniform(0.6, 1.2, 3), 15, 245))
    shadow = c.shape([_blob(c, x, foot, w * 0.55, h * 0.08, 0.02)])
    c.image[shadow] *= 0.4

    def quad(x1, x2, x3, x4, top, bottom):
        return [(x + x1 * w, foot - top * h), (x + x2 * w, foot - top * h),
                (x + x4 * w, foot - bottom * h), (x + x3 * w, foot - bottom * h)]  # fmt: skip

    for sign in (-1, 1):
        c.polygon(quad(sign * 0.36 - 0.08, sign * 0.36 + 0.08, sign * 0.36 - 0.08, sign * 0.36 + 0.08, 0.25, 0),
                  (22, 22, 24), "car", 0.2, 3)  # fmt: skip
    c.polygon(quad(-0.34, 0.34, -0.44, 0.44, 1.0, 0.5), colour, "car", 0.08, 20)
    c.polygon(quad(-0.3, 0.3, -0.37, 0.37, 0.93, 0.6), (40, 48, 56), "car", 0.3, 8)
    c.polygon(quad(-0.48, 0.48, -0.47, 0.47, 0.58, 0.12), colour, "car", 0.08, 20)
    for sign in (-1, 1):
        c.polygon(quad(sign * 0.4 - 0.06, sign * 0.4 + 0.06, sign * 0.4 - 0.06, sign * 0.4 + 0.06, 0.54, 0.4),
                  (190, 40, 35), "car", 0.1, 4)  # fmt: skip
    c.polygon(quad(-0.13, 0.13, -0.13, 0.13, 0.36, 0.24), (225, 225, 215), "car", 0.05, 4)


def _person(c: _Canvas, x: float, foot: float, h: float) -> None:
    coat = tuple(c.rng.uniform(30, 150, 3))
    legs = tuple(c.rng.uniform(25, 80, 3))
    for dx in (-0.07, 0.05):
        c.polygon([(x + dx * h, foot - 0.5 * h), (x + (dx + 0.1) * h, foot - 0.5 * h),
                   (x + (dx + 0.07) * h, foot), (x + dx * h, foot)], legs, "person", 0.2, 4)  # fmt: skip
    c.polygon(_blob(c, x + 0.02 * h, foot - 0.64 * h, 0.14 * h, 0.22 * h, 0.05), coat, "person", 0.2, 5)
    c.polygon(_blob(c, x + 0.02 * h, foot - 0.92 * h, 0.065 * h, 0.085 * h, 0.02), (190, 150, 125), "person", 0.1)


def _posts(c: _Canvas, x0: float, y0: float) -> None:
    for _ in range(int(c.rng.integers(1, 4))):
        side, d = c.rng.choice((-1, 1)), c.rng.uniform(0.15, 0.42) * c.w
        x, foot, size = x0 + side * d, y0 + d * 0.27, d * 0.75
        thick = max(1.5, size * 0.018)
        c.polygon([(x - thick, foot - size), (x + thick, foot - size), (x + thick, foot), (x - thick, foot)],
                  (105, 105, 108), "pole", 0.1)  # fmt: skip
        if c.rng.random() < 0.6:
            colour = ((40, 75, 160), (175, 35, 35), (225, 190, 40))[int(c.rng.integers(3))]
            c.polygon(_blob(c, x, foot - size * 0.93, size * 0.09, size * 0.09, 0.0), colour, "traffic sign", 0.05)


def _anomaly(c: _Canvas, x: float, foot: float, size: float) -> None:
    """Something that no street class is: a legged beast, a heap, a ball or a stack of boxes, loudly textured."""
    kind = int(c.rng.integers(4))
    if kind == 0:
        body = _blob(c, x, foot - 0.62 * size, 0.55 * size, 0.28 * size, 0.07)
        head = _blob(c, x + 0.62 * size, foot - 0.85 * size, 0.2 * size, 0.16 * size, 0.08)
        legs = [
            [(x + d * size, foot - 0.5 * size), (x + (d + 0.11) * size, foot - 0.5 * size),
             (x + (d + 0.08) * size, foot), (x + d * size, foot)]
            for d in (-0.45, -0.25, 0.2, 0.38)
        ]  # fmt: skip
        mask = c.shape([body, head, *legs])
    elif kind == 1:
        mask = c.shape([_blob(c, x, foot - 0.25 * size, 0.7 * size, 0.3 * size, 0.14)])
    elif kind == 2:
        mask = c.shape([_blob(c, x, foot - 0.4 * size, 0.42 * size, 0.42 * size, 0.01)])
    else:
        tilt = c.rng.uniform(-0.1, 0.1)
        mask = c.shape([
            [(x + (a + tilt * t) * size, foot - t * size), (x + (b + tilt * t) * size, foot - t * size),
             (x + (b + tilt * s) * size, foot - s * size), (x + (a + tilt * s) * size, foot - s * size)]
            for a, b, t, s in ((-0.5, 0.5, 0.45, 0), (-0.35, 0.4, 0.85, 0.46))
        ])  # fmt: skip
    shadow = c.shape([_blob(c, x, foot, 0.65 * size, 0.08 * size, 0.05)]) & ~mask
    c.image[shadow] *= 0.5
    one, two = c.rng.uniform(20, 235, (2, 3)).astype(np.float32)
    pattern = c.noise(max(3.0, size / c.rng.uniform(3, 8))) > 0
    shade = 1.15 - 0.5 * np.linspace(0, 1, c.h, dtype=np.float32)[:, None]
    paint = np.where(pattern[..., None], one, two) * (1 + 0.15 * c.noise(3)[..., None]) * shade[..., None]
    c.image[mask] = paint[mask]
    c.semantic[mask] = VOID
    c.anomaly[mask] = 1


def draw_scene(seed: int, size: Size = (720, 1280), *, anomalies: int = 1) -> Scene:
    """Draws a street scene; the same seed, size and number of anomalous objects give the same pixels.

    In the anomaly label, the lowest rows (where a car's bonnet would be) are void, as in the real sets.

    >>> scene = draw_scene(0, (72, 128))
    >>> scene.image.shape, sorted(set(scene.anomaly.ravel().tolist()))
    ((72, 128, 3), [0, 1, 255])
    """
    rng = np.random.default_rng([seed, anomalies])
    c = _Canvas(size, rng)
    x0, y0 = c.w * rng.uniform(0.42, 0.58), c.h * rng.uniform(0.4, 0.5)
    _ground(c, x0, y0)
    _facades(c, x0, y0)
    _trees(c, x0, y0)
    _posts(c, x0, y0)
    for _ in range(int(rng.integers(1, 4))):
        d = rng.uniform(0.12, 0.5)
        _person(c, x0 + rng.choice((-1, 1)) * c.w * (0.1 + 0.8 * d), y0 + c.h * d * 0.45, c.h * (0.06 + 0.42 * d))
    for depth in sorted(rng.uniform(0.05, 0.55, int(rng.integers(2, 5)))):
        side = rng.choice((-1, 1))
        _box_car(c, x0 + side * c.w * (0.03 + 0.5 * depth), y0 + (c.h - y0) * depth, c.w * (0.03 + 0.3 * depth))
    for depth in sorted(rng.uniform(0.25, 0.75, anomalies)):
        x = x0 + c.w * rng.uniform(-0.35, 0.35) * depth
        _anomaly(c, x, y0 + (c.h - y0) * depth, c.h * (0.08 + 0.4 * depth))
    c.semantic[-c.h // 40 :] = VOID
    c.anomaly[-c.h // 40 :] = VOID
    light = 1 + 0.12 * c.noise(c.w / 3)[..., None]
    image = cv2.GaussianBlur(c.image * light, (0, 0), max(0.4, c.w / 1600))
    image += rng.normal(0, 3, image.shape)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), c.semantic, c.anomaly)


Layout = Literal["anomaly-track", "obstacle-track", "fishyscapes-static", "folder", "cityscapes", "train-ids"]


def _label(scene: Scene, kind: str) -> UInt8[np.ndarray, "H W"]:
    """The label of that kind; "road" is the obstacle track's: void but for road and anomalous objects."""
    if kind == "road":
        return np.where((scene.anomaly == 1) | (scene.semantic == ID["road"]), scene.anomaly, VOID).astype(np.uint8)
    return scene.semantic if kind == "semantic" else scene.anomaly


def _paths(layout: str, root: Path, i: int) -> tuple[Path, Path, str]:
    """Photo, label and which kind of label, of frame i in that layout."""
    if layout == "anomaly-track":
        base = root / "dataset_AnomalyTrack"
        name = f"validation{i:04d}"
        return base / "images" / f"{name}.jpg", base / "labels_masks" / f"{name}_labels_semantic.png", "anomaly"
    if layout == "obstacle-track":
        base = root / "dataset_ObstacleTrack"
        name = f"validation_{i + 1}"
        return base / "images" / f"{name}.webp", base / "labels_masks" / f"{name}_labels_semantic.png", "road"
    if layout == "fishyscapes-static":
        base = root / "fs_static"
        return base / "images" / f"{i}.jpg", base / "labels_masks" / f"{i}.png", "anomaly"
    if layout == "cityscapes":
        name = f"drawn_{i:06d}_000019"
        photo = root / "leftImg8bit/val/drawn" / f"{name}_leftImg8bit.png"
        return photo, root / "gtFine/val/drawn" / f"{name}_gtFine_labelTrainIds.png", "semantic"
    folder, kind = ("labels_masks", "anomaly") if layout == "folder" else ("labels", "semantic")
    return root / "images" / f"{i:04d}.jpg", root / folder / f"{i:04d}.png", kind


# where a renamed copy is told by its photos' size
SIZES: dict[str, Size] = {"fishyscapes-static": (1024, 2048)}
LAYOUT_NAMES = ("anomaly-track", "obstacle-track", "fishyscapes-static", "folder", "cityscapes", "train-ids")


def check_scenes(frames: int, size: Size = (720, 1280), *, seed: int = 0) -> None:
    """Raises XenomaskError for numbers of which no scenes can be drawn."""
    if frames < 1 or min(size) < 64:
        raise XenomaskError(f"{frames} frames of {size[1]}x{size[0]} pixels: at least 1 frame and 64 pixels")
    if seed < 0:
        raise XenomaskError(f"seed {seed} is negative")


def write_scenes(
    root: Path,
    layout: str,
    frames: int,
    *,
    seed: int = 0,
    size: Size | None = None,
    tick: Tick = nothing,
) -> Path:
    """Writes frames in the on-disk format of that data set ("train-ids": a training folder); returns the root.

    Scenes with 19-class labels have no anomalous objects, scenes with anomaly labels one to three. Raises XenomaskError
    for an unknown layout, a bad number, an unwritable folder and where another picture of a scene's name lies already.
    """
    if layout not in LAYOUT_NAMES:
        raise unknown("layout", layout, LAYOUT_NAMES)
    size = size or SIZES.get(layout, (720, 1280))
    check_scenes(frames, size, seed=seed)
    for i in range(frames):
        photo, label, kind = _paths(layout, root, i)
        scene = draw_scene(seed * 10_000 + i, size, anomalies=0 if kind == "semantic" else 1 + i % 3)
        for path, array in ((photo, scene.image), (label, _label(scene, kind))):
            make_dir(path.parent)
            with atomic(path) as part:
                Image.fromarray(array).save(part, quality=92)
                if path.is_file() and path.read_bytes() != part.read_bytes():  # the real data set's names are the same
                    raise XenomaskError(f"{path} is there and is not the scene to be drawn: choose another folder")
        tick()
    return root
