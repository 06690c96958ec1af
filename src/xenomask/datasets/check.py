"""What of a data set lies on disk: counted, its labels read, what is wrong collected instead of raised."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xenomask.datasets.catalogue import DATASETS, choose_split, get_entry, open_dataset
from xenomask.datasets.codings import CODINGS
from xenomask.datasets.layout import IMAGES_AND_LABELS, Dataset, Entry, Frame, contents, elsewhere, locate, sizes_differ
from xenomask.datasets.read import decode, photo_size, read_stored, stored_values, upright_label
from xenomask.errors import XenomaskError

Values = list[int] | list[tuple[int, ...]]


@dataclass(frozen=True)
class Finding:
    """What was found of one split of one data set."""

    name: str
    folder: str
    split: str
    frames: int = 0
    photos: int = 0
    labelled: int = 0
    # how many labels were read for what follows
    labels_read: int = 0
    # frames with an anomaly, of those read
    anomalous: int = 0
    # the coding that fits every label read
    coding: str = ""
    # stored label value or colour -> files that hold it
    values: Mapping[str, int] = field(default_factory=dict)
    # WxH -> photos of that size
    sizes: Mapping[str, int] = field(default_factory=dict)
    # what is odd but no error: photos without label, fewer frames than official
    notes: tuple[str, ...] = ()
    # what is wrong: one line each
    problems: tuple[str, ...] = ()


def find(root: Path) -> list[tuple[Entry, Path]]:
    """The data sets of the catalogue that seem to lie in `root`: by their folders' names, or as the root itself.

    A folder of images/ and labels_masks/ says nothing of whose they are, so there the name decides: the root of a
    `Validation_Dataset` pack yields each of the sets in it. Where nothing has a known name, `folder` is tried.
    """
    found: list[tuple[Entry, Path]] = []
    for entry in (e for e in DATASETS.values() if not e.free):
        base = locate(entry, root)
        if base is not None and (base != root or _is_own(entry, root)):
            found.append((entry, base))
    if not found and locate(DATASETS["folder"], root):
        found.append((DATASETS["folder"], root))
    return found


def _is_own(entry: Entry, root: Path) -> bool:
    """Whether a root that has the marks of this data set is its own folder."""
    if root.resolve().name in {Path(f).name for f in entry.folders}:
        return True
    if any((root / m).is_dir() for m in entry.marks if m not in IMAGES_AND_LABELS):
        try:  # several data sets have a folder leftImg8bit or train: what is in it decides
            return bool(entry.listing(root, entry.default).frames)
        except XenomaskError:
            return False
    return False


def check(
    name: str,
    root: Path,
    *,
    split: str = "val",
    quick: int | None = None,
) -> Finding:
    """Opens one data set, reads its labels (the first `quick`, or all) and its photos' sizes.

    Raises XenomaskError where the data set cannot even be listed; what is wrong with single files is in `problems`.
    """
    entry, data = get_entry(name), open_dataset(name, root, split=split)
    chosen = choose_split(entry, split)
    frames = [f for f in data.frames if f.label or f.image]
    some = [f for f in frames if f.label][:quick] if quick else frames
    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    problems: list[str] = []
    anomalous = labels_read = 0
    for frame in some:
        try:
            held, has_anomaly, size = _read(data, frame)
        except XenomaskError as e:
            problems.append(str(e))
        else:
            values.update(str(v) for v in held)
            sizes.update([f"{size[1]}x{size[0]}"])
            anomalous += has_anomaly
            labels_read += frame.label is not None
    photos, labelled = sum(f.image is not None for f in frames), sum(f.label is not None for f in frames)
    return Finding(
        name, str(locate(entry, root)), chosen, len(frames), photos, labelled, labels_read, anomalous,
        data.stored or data.coding, dict(sorted(values.items(), key=_by_value)), dict(sizes),
        tuple(_notes(entry, chosen, len(frames), photos, labelled, values.keys())), tuple(problems),
    )  # fmt: skip


def check_all(root: Path, *, split: str = "val", quick: int | None = None) -> list[Finding]:
    """Checks every data set that `find` sees in `root`; one that cannot be listed has that as its one problem.

    Raises XenomaskError where there is none.
    """
    found = find(root)
    if not found:
        hint = elsewhere(root, lambda p: bool(find(p)))
        raise XenomaskError(
            f"no data set of the catalogue in {root}; found {contents(root)}{hint} (`xenomask datasets` lists what is "
            "looked for; --dataset NAME says what is missing of one)"
        )
    findings = []
    for entry, base in found:
        try:
            findings.append(check(entry.name, root, split=split, quick=quick))
        except XenomaskError as e:
            findings.append(Finding(entry.name, str(base), split, problems=(str(e),)))
    return findings


def _read(data: Dataset, frame: Frame) -> tuple[Values, bool, tuple[int, ...]]:
    """The stored values of a frame's label, whether it says anomaly somewhere, and the frame's (height, width)."""
    size = photo_size(frame.image) if frame.image else None
    if frame.label is None:
        assert size is not None
        return [], False, size
    coding = CODINGS[data.stored_as(frame.label)]
    stored = read_stored(frame.label, coding)
    label = decode(stored, coding, frame.label)
    if frame.image:
        label = upright_label(label, frame.image)
    if size is not None and size != label.shape:
        raise XenomaskError(sizes_differ(frame, size, label.shape))
    return stored_values(stored), coding.says == "anomaly" and bool((label == 1).any()), label.shape


def _by_value(item: tuple[str, int]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdigit() else 1 << 30, item[0])


def _notes(
    entry: Entry, split: str, frames: int, photos: int, labelled: int, values: Collection[str]
) -> Iterator[str]:  # fmt: skip
    if entry.says == "anomaly" and entry.coding == "anomaly" and set(values) == {"0", "255"}:
        yield "labels hold only 0 and 255, and 255 is void: where it was meant as anomaly, save 1 in its place"
    official = entry.counts.get(split)
    if official and frames != official:
        yield f"{frames} frames, officially {official}"
    if photos < frames:
        yield f"{frames - photos} labels without photo: maps can be evaluated, nothing can be scored"
    if labelled < frames:
        yield f"{frames - labelled} photos without label"
