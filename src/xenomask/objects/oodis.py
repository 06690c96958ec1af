"""Maps -> anomaly instances as the OoDIS benchmark reads them, and their average precision where labels are.

One folder a track; a text file an image with a line an instance: its mask (8-bit PNG, 255 inside), the label's number,
its score. Read from the public evaluator (kumuji/anomaly-benchmark-suite), which takes a line's first and last words.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xenomask.arrays import as_threshold
from xenomask.datasets import Dataset, Frame
from xenomask.datasets.read import photo_size
from xenomask.errors import XenomaskError, unknown
from xenomask.files import atomic, make_dir, read_text
from xenomask.metrics.detection import FrameBoxes, box_numbers, frame_boxes, true_boxes
from xenomask.metrics.instances import FrameInstances, frame_instances, instance_numbers
from xenomask.objects.ignore import IgnoreRegion, ignored_in
from xenomask.objects.objects import SMALLEST, AnomalyObject, find_objects, smallest_area
from xenomask.picture_files import open_picture
from xenomask.store import MapFolder, Maps, as_maps
from xenomask.types import Tick, nothing

# the benchmark's folder of each data set, and how many images its list of expected files has there. NOTE: fishyscapes
# is all of LostAndFound, train and test; Fishyscapes Static is no track
LOST_AND_FOUND = "fishyscapes"
TRACKS = {
    "anomaly-track": "roadanomaly", "obstacle-track": "roadobstacle",
    "lost-and-found": LOST_AND_FOUND, "fishyscapes-lost-and-found": LOST_AND_FOUND,
}  # fmt: skip
IMAGES = {"roadanomaly": 100, "roadobstacle": 412, LOST_AND_FOUND: 2239}
VALIDATION = "validation"  # begins the ids of SegmentMeIfYouCan's labelled photos, which are not submitted
ENDING = "_instanceIds_pred.txt"
BOX = ("image_id", "category_id", "bbox", "score")  # of COCO's results


@dataclass(frozen=True)
class Written:
    """What was written; `lowered` images had no instance above the threshold and got one below it.

    `numbers` are `ap`, `ap50`, `box_ap` and `box_ap50` over the labelled frames, empty where none has a label.
    """

    folder: Path
    images: int
    instances: int
    lowered: int
    numbers: dict[str, float]


def write_instances(
    maps: Maps, data: Dataset, threshold: float, out: Path, *, smallest: float = SMALLEST,
    ignore: IgnoreRegion | None = None, tick: Tick = nothing,
) -> Written:  # fmt: skip
    """Writes out/<track>/ for all frames of a data set, whole or not at all; smaller instances (a share) are left out.

    out/<track>.json holds their boxes, as the detection track reads them. The benchmark wants an instance in each
    image: where none lies above the threshold, the component of the map's largest value is written. An instance's
    score is its mean. Raises XenomaskError for another data set, a frame without a map, and a map of another photo or
    size.
    """
    if data.name not in TRACKS:
        raise unknown("track of OoDIS", data.name, TRACKS)
    threshold, maps = as_threshold(threshold), as_maps(maps)
    if lacking := sorted({f.id for f in data.frames} - set(maps.ids())):
        raise XenomaskError(
            f"{maps.path} has no map of {len(lacking)} of {len(data.frames)} frames, such as {lacking[0]}: the "
            "benchmark wants an instance in each image"
        )
    folder = make_dir(out) / TRACKS[data.name]
    held = {p.name.removesuffix(ENDING).removesuffix("_gtCoarse") for p in folder.glob(f"*{ENDING}")}
    if other := sorted(held - {f.id for f in data.frames}):
        raise XenomaskError(
            f"{folder} holds images that are not of {data.name}, such as {other[0]}: choose another --out"
        )
    found: list[tuple[FrameInstances, FrameBoxes]] = []
    boxes: list[dict[str, Any]] = []
    lowered = 0
    with atomic(folder) as part:
        part.mkdir()
        for frame in data.frames:
            value = _map_of(maps, data, frame)
            shown, below = _shown(value, threshold, smallest, ignore)
            name = frame.id + "_gtCoarse" * (folder.name == LOST_AND_FOUND)
            _write_frame(part, name, shown)
            name = _photo(name)
            boxes += [{"image_id": name, "category_id": 1, "bbox": list(o.box), "score": o.score} for o in shown]
            lowered += below
            if frame.label is not None:
                found.append(_judged(shown, data.label(frame)))
            tick()
    with atomic(folder.with_suffix(".json")) as part:
        part.write_text(json.dumps(boxes) + "\n")
    return Written(folder, len(data.frames), len(boxes), lowered, _numbers(found) if found else {})


def measure_instances(
    maps: Maps, data: Dataset, threshold: float, *, smallest: float = SMALLEST, ignore: IgnoreRegion | None = None
) -> dict[str, float]:
    """The numbers of `write_instances` over the labelled frames of any data set; nothing is written."""
    maps = as_maps(maps)

    def judge(frame: Frame) -> tuple[FrameInstances, FrameBoxes]:
        return _judged(_shown(_map_of(maps, data, frame), threshold, smallest, ignore)[0], data.label(frame))

    return _numbers([judge(f) for f in data.labelled().frames])


def _shown(
    value: np.ndarray, threshold: float, smallest: float, ignore: IgnoreRegion | None
) -> tuple[list[AnomalyObject], bool]:
    """The objects above the threshold, or, where none is, the highest region, and whether that was so."""
    fewest, ignored = smallest_area(smallest, value.size), ignored_in(ignore, value.shape)
    objects = find_objects(value, threshold, fewest, ignored=ignored)
    return objects or _highest(value, ignored), not objects


def _judged(shown: list[AnomalyObject], label: np.ndarray) -> tuple[FrameInstances, FrameBoxes]:
    scores = [o.score for o in shown]
    instances = frame_instances([o.mask for o in shown], scores, label)
    return instances, frame_boxes([o.box for o in shown], scores, true_boxes(label))


def _numbers(found: list[tuple[FrameInstances, FrameBoxes]]) -> dict[str, float]:
    return instance_numbers([i for i, _ in found]) | box_numbers([b for _, b in found])


def _map_of(maps: MapFolder, data: Dataset, frame: Frame) -> np.ndarray:
    value = maps.read(frame.id)
    maps.check_photo(frame.id, frame.image)
    if frame.image is not None and (size := data.resize or photo_size(frame.image)) != value.shape:
        raise XenomaskError(f"the map of {frame.id} has {value.shape}, its photo {size} pixels")
    return value


def _highest(value: np.ndarray, ignored: np.ndarray | None) -> list[AnomalyObject]:
    """The most anomalous component just below the map's largest value outside of what is ignored."""
    if ignored is not None and ignored.all():
        ignored = None  # an instance has to be in each image
    highest = (value if ignored is None else value[~ignored]).max()
    return find_objects(value, float(np.nextafter(np.float16(highest), np.float16(-np.inf))), ignored=ignored)[:1]


def _write_frame(folder: Path, name: str, objects: list[AnomalyObject]) -> None:
    lines = []
    for i, o in enumerate(objects):
        png = f"{name}_instanceIds_{i}_1.png"
        Image.fromarray(o.mask.astype(np.uint8) * 255).save(folder / png)
        lines.append(f"{png} 1 {o.score:.6f}")
    (folder / f"{name}{ENDING}").write_text("\n".join(lines) + "\n")


def _photo(name: str) -> str:
    """The photo's name, by which the detection track calls an image."""
    return f"{name}.png".replace("_gtCoarse.png", "_leftImg8bit.png")


def zip_instances(out: Path, archive: Path, name: str, paper: str = "", code: str = "") -> None:
    """Checks the three tracks in a folder and writes them with description.txt into one zip, without validation images.

    Beside it, <archive>_detection.zip takes the tracks' boxes alone: as the benchmark's verify_submission.py wants
    both. Raises XenomaskError where a track or an image of its test set is missing, an image has no instance, a mask is
    missing, of another size than the others, not 8-bit, or has another box than the track's own.
    """
    for value in (name, paper, code):
        if "\n" in value or (value is name and not value.strip()):
            raise XenomaskError("a method's name is one line of text, and so are its links")
    files, boxes = {}, {}
    for track, wanted in IMAGES.items():
        texts = [p for p in sorted((out / track).glob(f"*{ENDING}")) if not p.name.startswith(VALIDATION)]
        if len(texts) != wanted:
            raise XenomaskError(
                f"{out / track} has {len(texts)} of the benchmark's {wanted} test images: write all of it with "
                "`submission instances" + " --dataset lost-and-found --split all" * (track == LOST_AND_FOUND) + "`"
            )
        own = _boxes(out / f"{track}.json")
        for text in texts:
            masks, image = _check_frame(text), _photo(text.name.removesuffix(ENDING))
            if list(masks.values()) != [b["bbox"] for b in own.get(image, [])]:
                raise XenomaskError(f"{text} and {out / track}.json have other boxes: write the track again")
            files |= {f"{track}/{p.name}": p for p in (text, *masks)}
        tested = [b for image, found in own.items() if not image.startswith(VALIDATION) for b in found]
        boxes[f"{track}.json"] = json.dumps(tested) + "\n"
    make_dir(archive.parent)
    with atomic(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("description.txt", f"name: {name}\npaper_link: {paper}\ncode_link: {code}\n")
        for track in IMAGES:
            z.mkdir(track)  # the benchmark's check counts these entries
        for inside, path in files.items():
            z.write(path, inside)
    with atomic(archive.with_name(f"{archive.stem}_detection.zip")) as part, zipfile.ZipFile(part, "w") as z:
        for inside, text in boxes.items():
            z.writestr(inside, text, zipfile.ZIP_DEFLATED)


def _boxes(path: Path) -> dict[str, list[dict[str, Any]]]:
    """{image: its entries} of a track's boxes."""
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for b in json.loads(read_text(path)):
            found.setdefault(b["image_id"], []).append({k: b[k] for k in BOX})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise XenomaskError(f"{path} does not hold the track's boxes ({str(e)[:80]}): write the track again") from e
    return found


def _check_frame(text: Path) -> dict[Path, list[int]]:
    """An image's masks, each with its box as COCO has it; XenomaskError for what the benchmark cannot read."""
    lines = [line.split() for line in read_text(text).splitlines() if line.strip()]
    if not lines:
        raise XenomaskError(f"{text} names no instance; the benchmark wants one or more an image")
    sizes, found = set(), {}
    for words in lines:
        path = text.parent / words[0]
        if len(words) != 3 or Path(words[0]).name != words[0] or not path.is_file():
            raise XenomaskError(f"{text} names {words[0][:80]!r}, which is no mask beside it")
        mask = open_picture(path, "mask").image
        if (mask.format, mask.mode) != ("PNG", "L"):
            raise XenomaskError(f"{path} is {mask.format} {mask.mode}, not a PNG of 8-bit grey")
        sizes.add(mask.size)
        x0, y0, x1, y1 = mask.getbbox() or (0, 0, 0, 0)
        found[path] = [x0, y0, x1 - x0, y1 - y0]
    if len(sizes) > 1:
        raise XenomaskError(f"{text} names masks of different sizes")
    return found
