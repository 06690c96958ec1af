"""Detectors x scores x data sets -> maps on disk -> one table; each network is run once a frame, for all scores."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xenomask.datasets import Dataset, open_dataset
from xenomask.datasets.check import find
from xenomask.detector import Detector
from xenomask.detector.fuse import ensemble
from xenomask.detector.prediction import default_threshold
from xenomask.detector.predictor import Predictor
from xenomask.errors import XenomaskError, printable
from xenomask.evaluation.evaluate import evaluate_maps, reader
from xenomask.metrics import EvalResult
from xenomask.objects.oodis import measure_instances
from xenomask.predict.photos import open_maps
from xenomask.queries import without_frame
from xenomask.scores import Score, score_all
from xenomask.store import MapFolder, as_maps
from xenomask.store.manifest import folder_by, frame_digest, keep_map
from xenomask.types import ScoreMap, Size, Tick, nothing

# The data sets of a suite, in the order of its table; a root holds them side by side.
SUITES: dict[str, tuple[str, ...]] = {
    "smiyc-val": ("anomaly-track", "obstacle-track"),
    "road-val": (
        "anomaly-track", "obstacle-track", "fishyscapes-lost-and-found", "fishyscapes-static", "road-anomaly",
    ),
    "all": (),  # every evaluation set that is found
}  # fmt: skip


UNKNOWN = "unknown"  # what a checkpoint does not say


def open_suite(suite: str, root: Path, split: str = "val", resize: Size | None = None) -> list[Dataset]:
    """The data sets of a suite in `root`; of "all", every labelled evaluation set in it or in a folder of it.

    Raises XenomaskError where one is missing, none is found, or one is found twice.
    """
    if SUITES[suite]:
        return [open_dataset(name, root, split=split, resize=resize) for name in SUITES[suite]]
    if not root.is_dir():
        raise XenomaskError(f"no such folder: {root}")
    found: dict[str, tuple[Path, Path]] = {}
    for place in (root, *sorted(p for p in root.iterdir() if p.is_dir())):
        for entry, base in find(place):
            if entry.use != "evaluation" or entry.says != "anomaly":
                continue
            first, _ = found.setdefault(entry.name, (base, place))
            if first.resolve() != base.resolve():
                raise XenomaskError(f"{entry.name} lies in {first} and in {base}: name a --root that holds one of them")
    data = [open_dataset(name, place, split=split, resize=resize) for name, (_, place) in found.items()]
    if labelled := [d for d in data if d.labelled().frames]:
        return labelled
    raise XenomaskError(f"no labelled evaluation set in {root}: `xenomask datasets --root {root}` says what is there")


@dataclass(frozen=True)
class Method:
    """One line of the table: a detector as it is run."""

    detector: Predictor
    score: str
    # "ensemble" or the member that is run alone
    networks: str
    # "in-sample" or "leave-one-out" where the outlier queries were chosen on this data set, "of <data set>" where on
    # another, "-" where the score reads none
    queries: str

    @property
    def name(self) -> str:
        """The detector's."""
        return self.detector.name

    def describe(self) -> dict[str, Any]:
        """Return what table.json holds about it."""
        return self.detector.describe()

    @property
    def trained_on(self) -> str:
        """The data that its networks were trained on, as their checkpoints say."""
        return "; ".join(dict.fromkeys(_training_data(m.network.facts) for m in _used(self.detector))) or UNKNOWN

    @property
    def held_out(self) -> bool:
        """Whether each frame is scored with queries chosen on the others."""
        return self.queries == "leave-one-out"

    @property
    def folder(self) -> str:
        """The name of its folder of maps: a detector from elsewhere may be called ../../x, which leads nowhere here."""
        parts = [self.detector.name, self.networks, self.score, *(["leave-one-out"] if self.held_out else [])]
        return re.sub(r"[/\\]", "_", printable("-".join(parts)))


@dataclass(frozen=True)
class OwnMaps:
    """One line of the table: a folder of maps that something else made.

    Raises XenomaskError for a name that a table cannot hold.

    >>> OwnMaps("mine", MapFolder(Path("maps"), "{id}.npy")).folder
    'mine'
    """

    name: str
    maps: MapFolder
    score = networks = queries = trained_on = "-"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .+()-]{0,63}", self.name):
            raise XenomaskError(f"name {self.name!r} of maps: use up to 64 letters, digits, spaces and _ . + - ( )")

    @property
    def folder(self) -> str:
        """What it is called where methods are called by their folders."""
        return self.name

    def describe(self) -> dict[str, Any]:
        """Return what table.json holds about it."""
        return {"name": self.name, "maps": str(self.maps)}

    def of(self, dataset: str) -> MapFolder:
        """Return the maps of a data set: those in a folder of its name where there is one, else all."""
        below = self.maps.path / dataset
        return folder_by(below, self.maps.pattern, self.maps.key) if below.is_dir() else self.maps


@dataclass(frozen=True)
class Entry:
    """One method's result on one data set."""

    dataset: str
    method: Method | OwnMaps
    result: EvalResult


def methods(detector: Predictor, scores: Sequence[Score | None], dataset: str, members: bool = False) -> list[Method]:
    """Every way to run a detector that the table shows, once; None among `scores` stands for the detector's own.

    Scores that read outlier queries appear twice where those were chosen on this data set: in-sample and
    leave-one-out.
    """
    found: list[Method] = []
    seen: list[dict[str, Any]] = []
    for score in scores:
        whole = detector if score is None else detector.opened("score").with_score(score)
        if (description := whole.describe()) in seen:  # a score is named twice, or its own by its name, too
            continue
        seen.append(description)
        names = [m.name for m in _used(whole)] or whole.networks
        ways: dict[str, Predictor] = {names[0] if len(names) == 1 else "ensemble": whole}
        if members and len(names) > 1:
            ways |= {name: whole.opened("member").only(name) for name in names}
        for networks, own in ways.items():
            found += [Method(own, own.score_name, networks, kind) for kind in _kinds(own, dataset)]
    return found


def _kinds(detector: Predictor, dataset: str) -> list[str]:
    """Which queries a detector is run with on a data set: see `Method.queries`."""
    if "outlier" not in detector.reads:
        return ["-"]
    if dataset not in detector.chosen_on:
        return [f"of {', '.join(sorted(detector.chosen_on)) or 'none'}"]
    return ["in-sample", "leave-one-out"] if detector.members else ["in-sample"]


def _training_data(facts: Mapping[str, Any]) -> str:
    """One network's training data: a data set's name, or the last two folders of a path, with what was pasted.

    >>> _training_data({"trained": {"data": {"dataset": "folder", "train": "../x/mine/train"}, "augment": {}}})
    'mine/train'
    """
    try:
        if fitted := facts.get("fitted"):
            return f"{fitted.get('photos', 'unknown')} photos (fitted)"
        data, augment = facts["trained"]["data"], facts["trained"].get("augment", {})
        own = data["dataset"] if data["dataset"] != "folder" else "/".join(Path(data["train"]).parts[-2:])
        pasted = [Path(augment[k]).name for k in ("paste", "paste_coco") if augment.get(k)]
        return " + ".join([own, *(f"pasted {p}" for p in pasted)])
    except (KeyError, TypeError, AttributeError):
        return UNKNOWN


def write_maps(ways: Sequence[Method], data: Dataset, folder: Path, *, tick: Tick = nothing) -> None:
    """Writes folder/<method>/<frame>.hdf5 for every method and frame that has none yet.

    Raises XenomaskError where two methods have one name, or a folder holds maps of something else.
    """
    names = [w.folder for w in ways]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise XenomaskError(
            f"two methods are called {twice[0]}: give the detectors different names, or leave one of the scores out"
        )
    done = {w.folder: open_maps(w.detector, data, folder / w.folder, w.held_out) for w in ways}
    for frame in data.frames:
        pending = [w for w in ways if frame.id not in done[w.folder]]
        if pending:
            image, digest = data.sample(frame).image, frame_digest(frame)
            maps, outputs = _member_maps(pending, image, frame.id)
            for w in pending:
                used = _used(w.detector)
                own = [(maps[_key(m, w.held_out)], m.weight) for m in used]
                fused = ensemble(*zip(*own, strict=True)) if own else w.detector.detect(image)
                if isinstance(w.detector, Detector):
                    fused = w.detector.refined(fused, [outputs[_eye(m)] for m in used])
                keep_map(folder / w.folder, frame, fused, digest)
        tick()


def _used(detector: Predictor) -> list:
    """Its members that have a weight: the others' scores may not even be defined."""
    return [m for m in detector.members if m.weight > 0]


def _key(member, held_out: bool):
    return _eye(member), member.score.name, repr(sorted(member.score.options.items())), held_out


def _eye(member) -> tuple:
    """What is run once a frame: a network, as photos are prepared for it and shown to it, with its query sets."""
    n = member.network
    own = n.sha256 or id(n.module), n.settings, n.preprocess
    return *own, str(n.view), n.precision, n.runtime, repr(member.queries)


def _member_maps(ways: Sequence[Method], image, frame: str) -> tuple[dict[tuple, ScoreMap], dict[tuple, Any]]:
    """{key: map} of all members of the methods, and {network: output}; a network is run once, for all its scores."""
    networks = {_eye(m): m for w in ways for m in _used(w.detector)}
    found, outputs = {}, {}
    for eye, first in networks.items():
        output = outputs[eye] = first.network.predict(image)
        for held_out in (False, True):
            wanted = {_key(m, held_out): m for w in ways if w.held_out == held_out for m in _used(w.detector)
                      if _eye(m) == eye}  # fmt: skip
            # scores of one name but other options are told apart by their key
            scores = [replace(m.score, name=str(i)) for i, m in enumerate(wanted.values())]
            if scores:
                queries = without_frame(first.queries, frame) if held_out else first.queries
                maps = score_all(output, queries, scores)
                found |= {
                    k: ScoreMap(maps[str(i)].value, m.score.name) for i, (k, m) in enumerate(wanted.items())
                }  # fmt: skip
    return found, outputs


def benchmark(
    detectors: Sequence[Predictor],
    scores: Sequence[Score | None],
    data_sets: Sequence[tuple[Dataset, str]],
    folder: Path,
    *,
    maps: Sequence[OwnMaps] = (),
    members: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    tick: Tick = nothing,
) -> list[Entry]:
    """The numbers of every method on every (data set, track); the detectors' maps stay in folder/<data set>/<method>.

    `maps` are evaluated beside the detectors. `tick` is called once a frame that the networks saw. Maps that are there
    already are not made again. Raises XenomaskError as `evaluate_maps` does, and for a name that is given twice.
    """
    names = [m.name for m in (*detectors, *maps)]
    if twice := [m.name for m in maps if names.count(m.name) > 1]:
        raise XenomaskError(f"two methods are called {twice[0]}: give the maps another name")
    for data, _ in data_sets:
        for m in maps:
            reader(m.of(data.name), data)  # before the networks run
    entries = []
    for data, track in data_sets:
        ways = [w for d in detectors for w in methods(d, scores, data.name, members)]
        write_maps(ways, data.labelled(), folder / data.name, tick=tick)
        places = [(w, as_maps(folder / data.name / w.folder)) for w in ways]
        for method, place in (*places, *((m, m.of(data.name)) for m in maps)):
            result = evaluate_maps(place, data, track, resamples=resamples, seed=seed)
            entries.append(Entry(data.name, method, _with_instances(result, method, place, data)))
    return entries


def _with_instances(result: EvalResult, method: Method | OwnMaps, maps: MapFolder, data: Dataset) -> EvalResult:
    """The result with instance and box AP of the objects that the detector finds above its own threshold, if any."""
    threshold = default_threshold(method.detector) if isinstance(method, Method) else None
    if threshold is None or not isinstance(method, Method):
        return result
    found = measure_instances(maps, data, threshold, ignore=method.detector.ignore)
    return replace(result, numbers={**result.numbers, "instances": found})
