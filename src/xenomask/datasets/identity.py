"""Whether a folder is the data set that it is opened as.

Many sets lie on disk as `images` and `labels_masks`; whose numbers are printed is decided by their own signs, not by
what the user asked for: first the official ids, then how many photos of which size there are, then the folder's name.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from xenomask.datasets.layout import IMAGES_AND_LABELS, Entry, Frame, images_and_labels
from xenomask.datasets.read import photo_size
from xenomask.errors import XenomaskError
from xenomask.types import Size


def refuse_other(entry: Entry, base: Path, frames: Sequence[Frame], catalogue: Iterable[Entry]) -> None:
    """Raises XenomaskError where a folder of images/ and labels_masks/ is another data set's, or of no known one."""
    if (complaint := _complaint(entry, base, frames, catalogue)) is not None:
        raise XenomaskError(f"{entry.name}: {complaint}")


def is_own(entry: Entry, base: Path, catalogue: Iterable[Entry]) -> bool:
    """Whether a folder that has the marks of a data set is that data set's, as far as can be told."""
    if not entry.copies or not any((base / d).is_dir() for d in IMAGES_AND_LABELS):
        return True
    try:
        return _complaint(entry, base, images_and_labels(entry.name, base), catalogue) is None
    except XenomaskError:
        return False


def _complaint(entry: Entry, base: Path, frames: Sequence[Frame], catalogue: Iterable[Entry]) -> str | None:
    if not entry.copies or not frames or not _plain(base, frames):
        return None
    known = [e for e in catalogue if e.copies]
    called = f"its frames are called {frames[0].id}, ..."
    sizes = _sizes(frames, {n for e in known for n, _ in e.copies})
    counted = f"it has {len(frames)} frames" + "".join(f" of {w}x{h}" for h, w in sorted(sizes)[:1])
    names = {base.name, base.resolve().name}
    signs = (
        ([e for e in known if e.ids and any(re.fullmatch(e.ids, f.id) for f in frames)], called),
        ([e for e in known if sizes and any((len(frames), s) in e.copies for s in sizes) and len(sizes) == 1], counted),
        ([e for e in known if names & {e.name, *(Path(f).name for f in e.folders)}], "by its folder's name"),
    )
    insist = "; to use it all the same: --dataset folder"
    if len(signs[0][0]) > 1:
        return f"{base} holds frames of {' and of '.join(e.name for e in signs[0][0])}: put each into its own folder"
    for owners, why in signs:
        if entry in owners:
            return None
        if owners:
            other = owners[0].name
            return f"{base} looks like {other} ({why}): name the folder of {entry.name}, or --dataset {other}{insist}"
    folders = " or ".join(entry.folders)
    return (
        f"nothing says that {base} is it: {called} {counted}, and its name is not {folders}. It looks like a folder of "
        f"your own: --dataset folder; if it is {entry.name} all the same, call it {entry.folders[0]}"
    )


def _plain(base: Path, frames: Sequence[Frame]) -> bool:
    """Whether these frames lie in images/ and labels_masks/, which no data set has for itself."""
    first = frames[0].image or frames[0].label
    return first is not None and first.parent in [base / d for d in IMAGES_AND_LABELS]


def _sizes(frames: Sequence[Frame], counts: set[int]) -> set[Size]:
    """The sizes of the pictures, where as many are known of some data set; of what cannot be read none."""
    if len(frames) not in counts:
        return set()
    found = set()
    for picture in (f.image or f.label for f in frames):
        try:
            found |= {photo_size(picture)} if picture else set()
        except XenomaskError:
            return set()
    return found
