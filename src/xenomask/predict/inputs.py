"""What a user names -> photos. Nothing heavy is imported here: a mistyped path is refused at once."""

import glob
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from xenomask.errors import XenomaskError
from xenomask.files import MANIFEST, make_dir
from xenomask.picture_files import check_scene, is_picture, read_header

STDIN = "-"
HEATMAP, OVERLAY = "_heatmap.png", "_overlay.jpg"  # what `detect` draws beside <stem>.hdf5
FIRST = 20  # photos whose headers are read before the networks: a mistake shows in the first ones


def list_photos(given: Sequence[str | Path], lines: Iterable[str] = ()) -> list[Path]:
    """The photos that files, folders, patterns ("photos/*.jpg") and "-" (`lines`, a path each) name, in that order.

    Each is there once. Of a folder it is its pictures, by name, but for those that `detect` drew; its folders are not
    looked into. Raises XenomaskError for what is not there, and for a folder, a pattern or a list without a photo.
    """
    found: list[Path] = []
    for name in given:
        text, path = str(name), Path(name)
        if not text:
            raise XenomaskError("a photo's name is empty: is a variable of the shell not set?")
        if text == STDIN:
            listed = [line for raw in lines if (line := raw.rstrip("\r\n")) not in ("", STDIN)]
            if any("\0" in line for line in listed):
                raise XenomaskError(
                    "standard input is a file itself, or a list in UTF-16, not a list of paths: name it in place of -"
                )
            if not listed:
                raise XenomaskError("standard input names no photo: - reads a list of paths from it, one a line")
            found += list_photos(listed)
        elif path.is_dir():
            own = sorted(p for p in path.iterdir() if is_picture(p) and not _drawn(p))
            if not own:
                raise XenomaskError(f"folder {path} holds no picture{_below(path)}")
            found += own
        elif path.exists():
            found.append(path)
        elif glob.has_magic(text):
            own = sorted(p for p in map(Path, glob.glob(text, recursive=True)) if p.is_file() and not _drawn(p))
            if not own:
                raise XenomaskError(f"no file matches {text}")
            found += own
        else:
            raise XenomaskError(f"no such photo: {path}")
    return list(dict.fromkeys(found))


def _drawn(path: Path) -> bool:
    """Whether an earlier `detect` drew this picture: its map lies beside it."""
    stems = [path.name.removesuffix(e) for e in (HEATMAP, OVERLAY) if path.name.endswith(e)]
    return any(path.with_name(f"{s}.hdf5").is_file() for s in stems)


def _below(folder: Path) -> str:
    inner = _folders(folder)
    deeper = (q for p in inner for q in _folders(p))
    held = next((p for p in itertools.chain(inner, deeper) if any(map(is_picture, _inside(p)))), None)
    return f"; its folders are not looked into: name one, such as {held or inner[0]}" if inner else ""


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in _inside(folder) if p.is_dir() and p.name[0] != ".")


def _inside(folder: Path) -> list[Path]:
    """What a folder holds; nothing of one that may not be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def sizes_of(photos: Sequence[Path]) -> list[tuple[int, int]]:
    """The upright sizes of the first photos, each once, from their headers; what is no picture is left out."""
    found = []
    for photo in photos[:FIRST]:
        with suppress(XenomaskError):
            found.append(read_header(photo, "photo").upright)
    return list(dict.fromkeys(found))


def check_photos(photos: Sequence[Path], out: Path) -> None:
    """Makes the folder of results.

    Raises XenomaskError for a photo that is not there or is a folder, where none of the first is a picture of a scene's
    size, for two of one name, for one that would be written over, an unwritable folder, and one of `xenomask score`,
    whose maps would be.
    """
    for photo in photos:
        if photo.is_dir():
            several = photo / "*.jpg"
            raise XenomaskError(f"cannot read photo {photo}: it is a folder; name its photos, such as {several}")
        if not photo.exists():
            raise XenomaskError(f"no such photo: {photo}")
    bad = []
    for photo in photos[:FIRST]:
        try:
            check_scene(read_header(photo, "photo").upright, str(photo))
        except XenomaskError as e:
            bad.append(e)
    if bad and len(bad) == len(photos[:FIRST]):
        raise bad[0]
    if twice := sorted(s for s, n in Counter(p.stem for p in photos).items() if n > 1):
        one, other = [p for p in photos if p.stem == twice[0]][:2]
        raise XenomaskError(f"{one} and {other} have one name: their maps would overwrite each other; run them apart")
    drawn = {f"{p.stem}{ending}" for p in photos for ending in (HEATMAP, OVERLAY)}
    if lost := [p for p in photos if p.name in drawn and p.parent.resolve() == out.resolve()]:
        raise XenomaskError(f"{lost[0]} is a photo that another one's picture would replace: choose another --out")
    if (out / MANIFEST).is_file():
        raise XenomaskError(f"{out} holds maps of `xenomask score`, which these would replace: choose another --out")
    make_dir(out)
