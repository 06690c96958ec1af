"""Maps -> their components above a threshold, in the forms that other tools read.

Photos are not needed: a component is what the official component metric sees of a map (score > threshold, compared in
float16; 8-connected).
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from xenomask.arrays import MapLike, MaskLike, as_half, as_map, as_mask, as_threshold, check_same_size
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir, portable, refuse_folder, refuse_input
from xenomask.metrics.components import binarise, label_components
from xenomask.shapes import Bool
from xenomask.store import MapFolder, Maps, as_maps
from xenomask.types import Size, Tick, nothing

if TYPE_CHECKING:
    from xenomask.objects.ignore import IgnoreRegion

SMALLEST = 0.001  # share of a photo: smaller components are noise more often than objects
# the class that networks take a mask (H, W) for, and its mean probability there
Nearest = Callable[[np.ndarray], tuple[str, float]]
CATEGORY = {"id": 1, "name": "anomaly", "supercategory": "anomaly"}


def smallest_area(share: float, pixels: int) -> int:
    """The fewest pixels of an object that is that share of a photo or more.

    >>> smallest_area(0.001, 1500), smallest_area(0.0, 1500), smallest_area(0.07, 100)
    (2, 0, 7)
    """
    return math.ceil(round(share * pixels, 6))  # .07 x 100 is 7.000000000000001


def percent(share: float) -> str:
    """A share of the photo as it is shown.

    >>> percent(0.0251), percent(0.00093)
    ('2.5 %', '0.09 %')
    """
    return f"{100 * share:.{1 if share >= 0.01 else 2}f} %"


@dataclass(frozen=True)
class AnomalyObject:
    """One component of a map above a threshold; `score` and `peak` are raw map values, no probabilities."""

    # x, y of its top left pixel, width, height
    box: tuple[int, int, int, int]
    # in pixels, and as a share of the photo
    area: int
    share: float
    # the map's mean and largest value over it
    score: float
    peak: float
    # its mask, as COCO's compressed run lengths: see decode_rle
    rle: dict[str, Any] = field(repr=False)
    # the class that the networks take it for, and its mean probability there; None where they do not say
    nearest_class: str | None = None
    nearest_probability: float | None = None

    @property
    def mask(self) -> Bool[np.ndarray, "H W"]:
        """Its pixels, at the photo's size."""
        return decode_rle(self.rle)

    def __str__(self) -> str:
        x, y, w, h = self.box
        said = f"{w}x{h} px at ({x}, {y}), {percent(self.share)} of the image, score {self.score:.3g}"
        return f"{said}; nearest class: {self.nearest}" if self.nearest else said

    @property
    def nearest(self) -> str:
        """Its nearest class and how probable it is, such as "road 5 %"; "" where the networks do not say."""
        share = self.nearest_probability
        return "" if share is None else f"{self.nearest_class} {100 * share:.0f} %"


def find_objects(
    value: MapLike,
    threshold: float,
    smallest: int = 1,
    *,
    ignored: MaskLike | None = None,
    nearest: Nearest | None = None,
) -> list[AnomalyObject]:
    """The components of a map (H, W) above the threshold with `smallest` pixels or more, the most anomalous first.

    Their order is that of area x (score - threshold): of a raw score, which may be negative, only what lies above the
    threshold counts. Pixels that are `ignored` (H, W) belong to none; `nearest` names the class of pixels. Raises
    XenomaskError for what is no finite map, for sizes that differ, and a threshold that is no finite number.
    """
    threshold = as_threshold(threshold)
    half = as_half(value)
    above = binarise(half, threshold)
    if ignored is not None:
        ignored = as_mask(ignored, "ignored region")
        check_same_size("map", half, "ignored region", ignored)
        above = above & ~ignored
    number, size = label_components(above)
    shown = size >= smallest
    shown[0] = False  # the background
    places = np.flatnonzero(above)  # in one dimension, which NumPy finds five times as fast as in two
    of = number.ravel()[places]
    places, of = places[shown[of]], of[shown[of]]
    places = places[np.argsort(of, kind="stable")]  # one component after the other, each row by row
    found = []
    for start, end in itertools.pairwise([0, *size[shown].cumsum()]):
        y, x = np.divmod(places[start:end], half.shape[1])
        left, top = int(x.min()), int(y[0])
        box = left, top, int(x.max()) + 1 - left, int(y[-1]) + 1 - top
        inside = half[y, x].astype(np.float64)
        name, probability = nearest(_mask(y, x, half.shape)) if nearest else (None, None)
        found.append(
            AnomalyObject(
                box, len(y), len(y) / half.size, float(inside.mean()), float(inside.max()),
                _rle(np.sort(x * len(half) + y), half.shape), name, probability,
            )
        )  # fmt: skip
    return sorted(found, key=lambda o: -o.area * (o.score - threshold))


def _mask(y: np.ndarray, x: np.ndarray, shape: Size) -> Bool[np.ndarray, "H W"]:
    mask = np.zeros(shape, bool)
    mask[y, x] = True
    return mask


def encode_rle(mask: MaskLike) -> dict[str, Any]:
    """A mask (H, W) as COCO's compressed run lengths: {"size": [H, W], "counts": text}, column by column.

    Raises XenomaskError for what is no mask.

    >>> encode_rle(np.array([[False, True], [False, True]]))
    {'size': [2, 2], 'counts': '22'}
    """
    mask = as_mask(mask)
    return _rle(np.flatnonzero(mask.T), mask.shape)


def _rle(at: np.ndarray, shape: Size) -> dict[str, Any]:
    """The same of its pixels' places, rising and counted column by column."""
    edges = np.empty(0, np.intp)  # where runs begin and end
    if at.size:
        breaks = np.flatnonzero(np.diff(at) > 1)
        edges = np.stack([at[np.r_[0, breaks + 1]], at[np.r_[breaks, -1]] + 1], 1).ravel()
    counts = np.diff(np.r_[0, edges, math.prod(shape)]).tolist()
    if edges.size and not counts[-1]:
        counts.pop()  # a run that ends with the photo
    # Each count but the first three is stored as its difference to the last but one, in groups of five bits from
    # the lowest on; bit 32 says that another one follows, and 48 makes letters of them.
    text = []
    for i, count in enumerate(counts):
        rest = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text.append(chr((bits | 32 if more else bits) + 48))
    return {"size": list(shape), "counts": "".join(text)}


def decode_rle(rle: Mapping[str, Any]) -> Bool[np.ndarray, "H W"]:
    """The mask of what `encode_rle` wrote."""
    height, width = rle["size"]
    counts = run_lengths(rle["counts"])
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths as numbers; raises ValueError for what is none of theirs.

    >>> run_lengths("22")
    [2, 2]
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("the run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= 1 << shift if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def export_components(
    maps: Maps,
    threshold: float,
    out: Path,
    *,
    smallest: int = 1,
    ending: str = "",
    ignore: "IgnoreRegion | None" = None,
    tick: Tick = nothing,
) -> tuple[int, int]:
    """Writes the components of a folder of maps; returns how many maps and components there were.

    `out`: *.json is one COCO file of images and instances (a photo's file_name is its id and `ending`), *.jsonl one
    JSON object a line and image. Raises XenomaskError for other endings, no maps, and damaged ones.
    """
    if out.suffix not in (".json", ".jsonl"):
        raise XenomaskError(f"{out} ends neither with .json (one COCO file) nor with .jsonl (a line an image)")
    refuse_folder(out)
    refuse_input(out)
    maps = as_maps(maps)
    ids = _some_ids(maps)
    make_dir(out.parent)
    rows: list[tuple[str, Size, list[AnomalyObject]]] = []
    for i in ids:
        value = maps.read(i)
        ignored = None if ignore is None else ignore.at(value.shape)
        rows.append((i, value.shape, find_objects(value, threshold, smallest, ignored=ignored)))
        tick()
    if out.suffix == ".json":
        named = [(f"{i}{ending}", size, found) for i, size, found in rows]
        write_coco(out, named, f"components of the maps in {maps.path.name} above {threshold!r}")
    else:
        lines = [
            {**_image(number, f"{i}{ending}", size), "id": i, "threshold": threshold,
             "components": [asdict(f) for f in found]}
            for number, (i, size, found) in enumerate(rows, 1)
        ]  # fmt: skip
        with atomic(out) as part:
            part.write_text("\n".join(json.dumps(portable(line)) for line in lines) + "\n")
    return len(ids), sum(len(found) for _, _, found in rows)


def _some_ids(maps: MapFolder) -> list[str]:
    """The ids of its maps; XenomaskError where there is none."""
    if ids := maps.ids():
        return ids
    raise XenomaskError(f"{maps} holds no map; {maps.found_instead() or 'make some with `xenomask score`'}")


def write_coco(out: Path, rows: Sequence[tuple[str, Size, Sequence[AnomalyObject]]], description: str) -> None:
    """Writes one COCO file of photos (name, (height, width), objects): images, annotations, one category."""
    images = [_image(number, name, size) for number, (name, size, _) in enumerate(rows, 1)]
    flat = [(number, o) for number, (_, _, found) in enumerate(rows, 1) for o in found]
    annotations = [_annotation(k, number, o) for k, (number, o) in enumerate(flat, 1)]
    info = {"description": f"{description}, made by xenomask"}
    coco = {"info": info, "images": images, "annotations": annotations, "categories": [CATEGORY]}
    make_dir(out.parent)
    with atomic(out) as part:
        part.write_text(json.dumps(portable(coco)) + "\n")


def _image(number: int, name: str, size: Size) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": size[1], "height": size[0]}


def _annotation(number: int, image: int, found: AnomalyObject) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": CATEGORY["id"], "bbox": list(found.box), "area": found.area,
        "score": found.score, "peak": found.peak, "iscrowd": 0, "segmentation": found.rle,
    }  # fmt: skip


def export_png16(maps: Maps, out: Path, *, tick: Tick = nothing) -> tuple[float, float]:
    """Writes <id>.png, 16-bit grey, for every map of a folder; returns the (low, high) that 0 and 65535 stand for.

    One range for the whole folder, its smallest and largest value, so that pictures can be compared and nothing is
    cut off; each file's text chunks `low` and `high` hold it. Raises XenomaskError for no maps, damaged ones, and
    where another picture of such a name lies there.
    """
    maps = as_maps(maps)
    ids = _some_ids(maps)
    make_dir(out)
    for path in filter(Path.exists, (out / f"{i}.png" for i in ids)):
        with path.open("rb") as f:
            own = b"tEXtlow" in f.read(4096)  # as write_png16 marks it
        if not own:
            raise XenomaskError(f"{path} is another picture, which a map would replace: choose another folder")
    ranges = [(float(v.min()), float(v.max())) for v in map(maps.read, ids)]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    for i in ids:
        write_png16(out / f"{i}.png", maps.read(i), (low, high))
        tick()
    return low, high


def write_png16(path: Path, value: MapLike, scale: tuple[float, float]) -> None:
    """Writes one map (H, W) as 16-bit grey: stored = 65535 (value - low) / (high - low), rounded, cut off at the ends.

    Raises XenomaskError for what is no finite map.
    """
    low, high = scale
    share = (as_map(value).astype(np.float64) - low) / ((high - low) or 1.0)
    stored = np.rint(share.clip(0, 1) * 65535).astype(np.uint16)
    text = PngInfo()
    for key, number in (("low", low), ("high", high)):
        text.add_text(key, repr(float(number)))
    with atomic(path) as part:
        Image.fromarray(stored).save(part, format="png", pnginfo=text)


def to_supervision(value: MapLike, threshold: float, smallest: int = 1) -> Any:
    """The components of a map as supervision's `Detections` (xyxy, mask, confidence = mean of the map).

    Raises XenomaskError where supervision is not installed.
    """
    try:
        import supervision  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise XenomaskError("supervision is not installed: pip install supervision") from e
    found = find_objects(value, threshold, smallest)
    if not found:
        return supervision.Detections.empty()
    boxes = np.array([f.box for f in found], float)
    boxes[:, 2:] += boxes[:, :2]
    return supervision.Detections(
        xyxy=boxes,
        mask=np.stack([decode_rle(f.rle) for f in found]),
        confidence=np.array([f.score for f in found]),
        class_id=np.zeros(len(found), int),
        data={"class_name": np.array([CATEGORY["name"]] * len(found))},
    )


def relative_box(bbox: tuple[int, int, int, int], size: Size) -> list[float]:
    """A box (x, y, width, height) in pixels as FiftyOne's shares of the photo's (height, width).

    FiftyOne goes back to pixels by int(share * size), which makes 457 of 458 / 720: a millionth of a pixel is added.
    """
    x, y, w, h = bbox
    return [(x + 1e-6) / size[1], (y + 1e-6) / size[0], w / size[1], h / size[0]]


def to_fiftyone(maps: Maps, photos: Sequence[Path], threshold: float, smallest: int = 1, field: str = "xenomask"):
    """A FiftyOne dataset of the photos, with the components of the map of each photo's stem in `field`.

    Raises XenomaskError where FiftyOne is not installed or has no database, and for a photo without a map.
    """
    try:
        import fiftyone  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise XenomaskError("FiftyOne is not installed: pip install fiftyone") from e
    maps = as_maps(maps)
    for photo in photos:
        if not (file := maps.file(photo.stem)).is_file():
            raise XenomaskError(f"{maps} holds no map {file.name} for {photo}; make it with `xenomask score`")
        maps.check_photo(photo.stem, photo)
    try:
        data = fiftyone.Dataset()
    except Exception as e:  # of many kinds, its own among them
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise XenomaskError(f"FiftyOne has no database: {reason} (its setting is FIFTYONE_DATABASE_URI)") from e
    for photo in photos:
        value = maps.read(photo.stem)
        shapes = []
        for f in find_objects(value, threshold, smallest):
            x, y, w, h = f.box
            shape, mask = relative_box(f.box, value.shape), decode_rle(f.rle)[y : y + h, x : x + w]
            shapes.append(fiftyone.Detection(label="anomaly", bounding_box=shape, mask=mask, confidence=f.score))
        sample = fiftyone.Sample(filepath=str(photo.resolve()))
        sample[field] = fiftyone.Detections(detections=shapes)
        data.add_sample(sample)
    return data
