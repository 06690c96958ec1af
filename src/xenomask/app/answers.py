"""What the page answers, as files, numbers and lines; knows nothing of gradio."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xenomask.app import session
from xenomask.app.session import Reading, Seen
from xenomask.store import ENDING, write_map

if TYPE_CHECKING:
    from xenomask.detector.explain import Answer

SHOWN = 900  # pixels of the longest edge up to which a small photo is enlarged


@dataclass(frozen=True)
class Picture:
    """A picture's file, and what it shows in words, for those who do not see it."""

    path: str
    alt: str


@dataclass(frozen=True)
class Drawn:
    """All that depends on score and sliders: of each detector its overlay and map, of the first the rest."""

    reading: Reading
    overlays: tuple[Picture, ...]
    maps: tuple[Picture, ...]
    downloads: list[str]
    rows: list[list[Any]]
    line: str
    numbers: dict[str, Any]


def enlargement(height: int, width: int) -> int:
    """How many times its size a photo is shown: whole numbers, so that a pixel stays a square.

    >>> enlargement(200, 300), enlargement(720, 1280)
    (3, 1)
    """
    return max(1, SHOWN // max(height, width))


def draw(
    folder: Path, kept: tuple[Seen, ...], score: str, mix: float | None, threshold: float | None, smallest: int
) -> Drawn:
    """Reads what was seen and writes pictures, map and JSON into the folder.

    `mix` as the first detector has it leaves the second its own; the second has a range, and so a threshold, of its
    own. Raises XenomaskError as `session.read` does.
    """
    if mix == session.own_mix(session.read_by(kept[0].detector, score)):
        mix = None
    overlays, maps, readings, components = [], [], [], []
    times = enlargement(*kept[0].image.shape[:2])
    for k, seen in enumerate(kept):
        r = session.read(seen, score, mix, threshold if k == 0 else None)
        found = session.found_in(r, smallest)
        heat, laid = session.pictures(r, found)
        name = "overlay" if k == 0 else "compared_overlay"
        said = f"{counted(len(found))} above {r.threshold:.4g}"
        laid_file = write_picture(folder / f"{name}.jpg", laid)  # of the photo's size: it can be downloaded
        if times > 1:
            laid_file = write_picture(folder / f"large_{name}.jpg", laid, times)
        overlays.append(Picture(laid_file, f"{seen.name} under its map: {said}"))
        heat_file = write_picture(folder / f"{name.replace('overlay', 'map')}.jpg", heat, times)
        low, high = r.scale
        maps.append(Picture(heat_file, f"score {r.score_map.score} of {seen.name}: dark {low:g}, bright {high:g}"))
        readings.append(r)
        components.append(found)
    first, found = readings[0], components[0]
    numbers = session.summary(first, found)
    write_map(folder / f"map{ENDING}", first.score_map)
    (folder / "components.json").write_text(json.dumps(numbers))
    downloads = [str(folder / f"map{ENDING}"), str(folder / "overlay.jpg"), str(folder / "components.json")]
    line = in_line(readings, [len(f) for f in components])
    return Drawn(first, tuple(overlays), tuple(maps), downloads, session.table(found), line, numbers)


def in_line(readings: list[Reading], components: list[int]) -> str:
    """One line on the photo and one on each detector: score, components, threshold."""
    height, width = readings[0].score_map.value.shape
    lines = [f"{readings[0].seen.name}, {width}x{height}"]
    for r, n in zip(readings, components, strict=True):
        more = f" (the first {session.BOXES} are numbered)" if n > session.BOXES else ""
        lines.append(
            f"{r.seen.title}: {counted(n)}{more} above {r.threshold:.4g}; largest {r.score_map.score} "
            f"{float(r.score_map.value.max()):.4g}"
        )
    return "\n".join(lines)


def counted(components: int) -> str:
    """Their number in words.

    >>> counted(0), counted(1)
    ('0 components', '1 component')
    """
    return f"{components} component{'' if components == 1 else 's'}"


def ask(folder: Path, seen: Seen, score: str, mix: float | None, at: tuple[int, int]) -> tuple["Answer", list[Picture]]:
    """Why the map is what it is at the pixel (x, y), and the masks of the queries that decided, written into the
    folder.

    Raises XenomaskError outside of the photo and as `session.read` does.
    """
    reading = session.read(seen, score, mix)
    answer = session.why(reading, at)
    masks = session.query_masks(reading, answer)
    return answer, [Picture(write_picture(folder / f"mask{k}.jpg", p), said) for k, (p, said) in enumerate(masks)]


def write_picture(path: Path, picture: np.ndarray, times: int = 1) -> str:
    """Writes RGB as JPEG, each pixel as a square of `times` x `times`; returns the path as gradio wants it."""
    picture = picture.repeat(times, 0).repeat(times, 1) if times > 1 else picture
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return str(path)
