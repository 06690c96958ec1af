"""Items through stages that overlap: a thread a stage, bounded queues between them, order kept.

A stage is busy while its function runs. What overlaps is all that releases the interpreter's lock: decoding, PyTorch,
OpenVINO, compiled kernels, compression, the disk.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.types import Tick, nothing

DEPTH = 2  # items that may wait between two stages
DROPPED: Any = object()  # what a stage returns in place of an item that goes no further


@dataclass(frozen=True)
class Stage:
    """A step that every item takes: `work` is given one item and returns the next stage's.

    With a `batch`, it is given a list of up to so many items that follow each other and are `alike`, and returns a
    list of as many. For DROPPED the next stage is given nothing.
    """

    name: str
    work: Callable[[Any], Any]
    batch: int | None = None
    alike: Callable[[Any], Any] = lambda item: None


@dataclass(frozen=True)
class StageTimes:
    """What a stage did, in seconds; `first` is the part of `busy` that its first call took, where graphs are built."""

    name: str
    items: int
    busy: float
    first: float
    waited: float  # for something to do
    blocked: float  # for room in the queue behind it


@dataclass(frozen=True)
class Profile:
    """The stages of a run that took `wall` seconds."""

    stages: tuple[StageTimes, ...]
    wall: float

    @property
    def items(self) -> int:
        """How many went all the way."""
        return self.stages[-1].items

    @property
    def slowest(self) -> StageTimes:
        """The stage that was busy longest."""
        return max(self.stages, key=lambda s: s.busy)

    def share(self, stage: StageTimes) -> float:
        """The part of the run in which the stage was busy."""
        return stage.busy / self.wall if self.wall > 0 else 0.0

    def verdict(self) -> str:
        """Which stage is the slowest, and whether the others keep it busy."""
        s = self.slowest
        said = f"{s.name} is the slowest stage, busy {100 * self.share(s):.1f} % of {self.wall:.2f} s"
        return said if self.share(s) > 0.9 else f"{said}: in the rest it waited for others, or for the first item"

    def table(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "wall": self.wall,
            "slowest": self.slowest.name,
            "stages": [{**asdict(s), "share": self.share(s)} for s in self.stages],
        }


@dataclass(frozen=True)
class _Failed:
    """An error, which takes its item's place in the order."""

    stage: str
    items: str
    error: BaseException


_END = object()
# (name, item)
_Packet = tuple[str, Any]


def run(
    items: Iterable[Any],
    stages: Sequence[Stage],
    *,
    name: Callable[[Any], str] = str,
    depth: int = DEPTH,
    tick: Tick = nothing,
    tell: Callable[[Any], object] = lambda result: None,
) -> tuple[list[Any], Profile]:
    """Sends items through the stages; what the last one returned, in order, and how long each stage took.

    Between two stages wait at most `depth` items, so memory does not grow with their number. All is as in a loop over
    the items: an error is raised once the items before it are through all stages, and none behind it is (a
    XenomaskError then says the item's `name`, others have it as a note). On Ctrl-C every stage ends the item that
    it is at. `tick` is called in the caller's thread, once an item, after `tell`, which is given its result.
    """
    # the last queue is free: what is in it belongs to the caller already
    queues: list[Any] = [queue.Queue(depth) for _ in stages[1:]] + [queue.SimpleQueue()]
    stopped = [threading.Event() for _ in stages]
    started = threading.Event()  # no stage begins before all threads are the pool's: Ctrl-C then finds and joins them
    results: list[Any] = []
    failed: _Failed | None = None
    start = time.perf_counter()
    with ThreadPoolExecutor(len(stages), "xenomask-stage") as pool:
        try:
            sources: list[Any] = [_named(items, name), *map(_received, queues[:-1])]
            futures = [
                pool.submit(_work, stage, source, out, started, stopped[: i + 1], drain=i > 0)
                for i, (stage, source, out) in enumerate(zip(stages, sources, queues, strict=True))
            ]
            started.set()
            for packet in _received(queues[-1]):
                if isinstance(packet, _Failed):
                    failed = packet
                    continue
                results.append(packet[1])
                tell(packet[1])
                tick()
        finally:  # on Ctrl-C, or an error of tick's; otherwise they have ended
            for event in (*stopped, started):
                event.set()
    profile = Profile(tuple(f.result() for f in futures), time.perf_counter() - start)
    if failed is not None:
        raise _told(failed)
    return results, profile


def _told(failed: _Failed) -> BaseException:
    """The error, which says where it happened."""
    error = failed.error
    if isinstance(error, XenomaskError):
        if failed.items in str(error):
            return error
        told = XenomaskError(f"{failed.items}: {error}")
        told.__cause__ = error
        return told
    error.add_note(f"stage {failed.stage}, {failed.items}")
    return error


def _named(items: Iterable[Any], name: Callable[[Any], str]) -> Iterator[_Packet]:
    for item in items:
        yield name(item), item
        del item  # here and below: nothing that has gone on is kept while the next one is waited for


def _received(source: Any) -> Iterator[Any]:
    while (packet := source.get()) is not _END:
        yield packet
        del packet


def _groups(packets: Iterator[Any], stage: Stage) -> Iterator[list[Any] | _Failed]:
    """The packets that take the stage together; a failure alone, after those before it."""
    group: list[Any] = []
    kind: Any = None
    for packet in packets:
        if isinstance(packet, _Failed):
            if group:
                yield group
            yield packet
            return
        own = stage.alike(packet[1])
        if group and own != kind:
            full, group = group, []
            yield full
            del full
        kind = own
        group.append(packet)
        del packet
        if len(group) == (stage.batch or 1):
            full, group = group, []
            yield full
            del full
    if group:
        yield group


def _work(
    stage: Stage, packets: Iterator[Any], out: Any, started: threading.Event, stopped: Sequence[threading.Event],
    *, drain: bool,
) -> StageTimes:  # fmt: skip
    """A stage's thread; `stopped` holds the events of the stages up to this one, which is the last of them."""
    items, busy, first, waited, blocked = 0, 0.0, 0.0, 0.0, 0.0
    groups, at = _groups(packets, stage), ""
    started.wait()
    try:
        while not stopped[-1].is_set():
            at = "the next item"
            began = time.perf_counter()
            group = next(groups, None)
            got = time.perf_counter()
            waited += got - began
            if group is None or isinstance(group, _Failed):
                if group is not None:
                    out.put(group)
                break
            names = [n for n, _ in group]
            at = ", ".join(names)
            values = [v for _, v in group]
            del group
            made = stage.work(values) if stage.batch else [stage.work(values.pop())]
            del values
            done = time.perf_counter()
            busy += done - got
            first = first or done - got
            items += len(names)
            for packet in zip(names, made, strict=True):
                if packet[1] is not DROPPED:
                    out.put(packet)
            del made, packet
            blocked += time.perf_counter() - done
    except BaseException as e:
        for event in stopped:  # what lies behind the failed item is not begun; what is before it goes on
            event.set()
        out.put(_Failed(stage.name, at, e))
    finally:
        out.put(_END)
        if drain:  # nobody before this stage may wait for room for ever
            for _ in packets:
                pass
    return StageTimes(stage.name, items, busy, first, waited, blocked)
