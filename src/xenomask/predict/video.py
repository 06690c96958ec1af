"""Detector + video -> video with the map laid over it, and how long its frames took."""

import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir, remove_litter
from xenomask.objects import SMALLEST, IgnoreRegion, find_objects, ignored_in, smallest_area
from xenomask.plots import draw_boxes, overlay
from xenomask.predict.frames import Source
from xenomask.predict.smooth import Held, Smooth, follow
from xenomask.predict.stages import Frame, frames_of
from xenomask.predict.writer import Recording
from xenomask.store import ENDING, map_ids, write_map
from xenomask.store.manifest import claim
from xenomask.types import ScoreMap, Tick, nothing

FALLBACK_FPS = 25.0
LAST = 100_000  # frames whose times are kept: memory stays bounded in a run of days
WAITING = 2  # frames looked at but not yet written; a smaller number waits for hiccups of the disk
AHEAD = 8  # frames read before they are asked for, at most
LATENCIES = (50, 90, 99)


@runtime_checkable
class Looks(Protocol):
    """What a detector must do for a video."""

    @property
    def scale(self) -> tuple[float, float]: ...

    @property
    def ignore(self) -> IgnoreRegion | None: ...

    def detect(self, image: np.ndarray) -> ScoreMap: ...

    def describe(self) -> dict[str, Any]: ...


@dataclass
class Tally:
    """What happened, and the seconds that the last LAST frames took in each stage."""

    read: int = 0
    taken: int = 0
    looked_at: int = 0
    # seconds of the first detection, which builds graphs and compiles, and when it ended: no time below counts it
    first: float = 0.0
    ready: float = 0.0
    latency: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))
    stages: Mapping[str, deque[float]] = field(
        default_factory=lambda: {k: deque(maxlen=LAST) for k in ("read", "detect", "smooth", "draw_write")}
    )
    # when the last pictures were written, for the rate drawn on the frame
    written_at: deque[float] = field(default_factory=lambda: deque(maxlen=30))


@dataclass(frozen=True)
class Seen:
    """A frame, the map to show on it, and the detector's own where it looked."""

    frame: Frame
    held: Held
    raw: ScoreMap | None


@dataclass(frozen=True)
class VideoResult:
    """Counts, times in milliseconds, and why it ended early: `stopped` by the user, or `trouble` with the source.

    read = taken + dropped, taken = drawn but for a write that failed, written = drawn + repeated.
    """

    frames: Mapping[str, int]
    # of the first detection, which builds graphs and compiles: not counted in latencies, stages and fps
    first_ms: float
    latency_ms: Mapping[str, float]
    # median of each stage; "detect" over the frames looked at
    stages_ms: Mapping[str, float]
    fps: float
    video_fps: float
    stopped: bool
    trouble: str | None


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yields an event that the first Ctrl-C (SIGINT) or SIGTERM sets; the second one interrupts as usual."""
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def detect_video(
    detector: Looks,
    source: Source,
    out: Path,
    *,
    threshold: float | None = None,
    every: int = 1,
    smooth: Smooth = "none",
    alpha: float = 0.5,
    fps: float | None = None,
    limit: int | None = None,
    maps: Path | None = None,
    stop: threading.Event | None = None,
    tick: Tick = nothing,
) -> VideoResult:
    """Writes the video `out` (.mp4, .avi): each frame under the map of the last processed frame, as `follow` has it.

    Every `every`-th frame is processed; their raw maps go into `maps`, named by the frame's number in the source. The
    video has `fps`, or else the source's, or 25; a live one keeps its playing time. Setting `stop` ends it early. `out`
    then exists whole, also where the source broke off or the disk filled up: that is told in the result. Raises
    XenomaskError where there is no frame to write or the file cannot be written; `out` is as before then.
    """
    if not 0 < alpha <= 1:
        raise XenomaskError(f"alpha must be above 0 and at most 1, not {alpha:g}")
    if every < 1:
        raise XenomaskError(f"every must be 1 or more, not {every}")
    stop, tally, begun = stop or threading.Event(), Tally(), perf_counter()
    video_fps, trouble, recording, held = fps or source.fps or FALLBACK_FPS, None, None, None
    if maps is not None:
        _open_maps(maps, detector, source, every)
    frames = frames_of(source, stop, limit=limit, depth=min(every, AHEAD))
    remove_litter(out.parent, out.name)
    with atomic(out) as part:
        # left in the opposite order: what waits is written before the reader is ended
        with closing(frames), ThreadPoolExecutor(1, "write") as pool:
            pending: deque[Future[None]] = deque()
            try:
                for frame in frames:
                    if recording is None:
                        recording = Recording(part, video_fps, frame.image.shape[:2])
                        begun = frame.read_at - frame.read_seconds
                    seen = _look(detector, frame, held, tally, every=every, smooth=smooth, alpha=alpha)
                    held = seen.held
                    at = frame.read_at if source.live else None
                    path = None if maps is None else maps / f"{source.start + frame.number:06d}{ENDING}"
                    pending.append(pool.submit(_write, seen, recording, at, detector, threshold, path, tally))
                    while len(pending) > WAITING:
                        pending.popleft().result()
                    tick()
            except (XenomaskError, OSError) as e:
                trouble = str(e)
            trouble = trouble or _finish(pending)
        if recording is None or not recording.frames:
            nothing_yet = "stopped before the first frame: nothing was written"
            raise XenomaskError(trouble or (nothing_yet if stop.is_set() else f"no frames in {source.name}"))
        recording.close(out)
    return _result(tally, recording, begun, stop.is_set(), trouble)


def _finish(pending: Iterable[Future[None]]) -> str | None:
    """Waits for the last writes; returns why the first of them failed, if one did."""
    try:
        for job in pending:
            job.result()
    except (XenomaskError, OSError) as e:
        return str(e)


def _open_maps(folder: Path, detector: Looks, source: Source, every: int) -> None:
    make_dir(folder)
    if old := map_ids(folder):
        raise XenomaskError(f"{folder} already holds maps ({old[0]}{ENDING}): choose another --maps or empty it")
    made_by = {**detector.describe(), "video": source.name, "start": source.start, "every": every}
    claim(folder, made_by, ())


def _look(
    detector: Looks, frame: Frame, held: Held | None, tally: Tally, *, every: int, smooth: Smooth, alpha: float
) -> Seen:
    """Asks the detector where this frame's turn has come, and makes the map to show of that and the one held."""
    raw, begun = None, perf_counter()
    if tally.taken % every == 0:
        raw = detector.detect(frame.image)
        tally.looked_at += 1
        now = perf_counter()
        if tally.looked_at == 1:
            tally.first, tally.ready = now - begun, now
        else:
            tally.stages["detect"].append(now - begun)
    tally.read, tally.taken = frame.number + 1, tally.taken + 1
    tally.stages["read"].append(frame.read_seconds)
    begun = perf_counter()
    held = follow(held, frame.image, None if raw is None else raw.value, smooth, alpha)
    if smooth != "none":
        tally.stages["smooth"].append(perf_counter() - begun)
    return Seen(frame, held, raw)


def _write(
    seen: Seen,
    recording: Recording,
    at: float | None,
    detector: Looks,
    threshold: float | None,
    path: Path | None,
    tally: Tally,
) -> None:
    begun = perf_counter()
    if path is not None and seen.raw is not None:
        write_map(path, seen.raw)
    value = seen.held.value
    ignored = ignored_in(detector.ignore, value.shape)
    picture = overlay(seen.frame.image, value, detector.scale, threshold, ignored)
    if threshold is not None:
        found = find_objects(value, threshold, smallest_area(SMALLEST, value.size), ignored=ignored)
        picture = draw_boxes(picture, [o.box for o in found])
    _draw_rate(picture, tally.written_at)
    recording.write(picture, at)
    now = perf_counter()
    tally.stages["draw_write"].append(now - begun)
    if tally.written_at:  # a frame that was read while the first one waited for its graph did not wait for detection
        tally.latency.append(now - max(seen.frame.read_at, tally.ready))
    tally.written_at.append(now)


def _draw_rate(picture: np.ndarray, written_at: deque[float]) -> None:
    """Frames a second, of the last 30, in the upper left corner: white with a black rim, readable on anything."""
    if len(written_at) < 2:
        return
    text = f"{(len(written_at) - 1) / (written_at[-1] - written_at[0]):.1f} fps"
    size = max(0.4, picture.shape[0] / 720)
    at = (round(10 * size), round(30 * size))
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1.5)):
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(1, round(width * size)), cv2.LINE_AA)


def _result(tally: Tally, recording: Recording, begun: float, stopped: bool, trouble: str | None) -> VideoResult:
    drawn = recording.frames - recording.repeated
    frames = {
        "read": tally.read,
        "dropped": tally.read - tally.taken,
        "looked_at": tally.looked_at,
        "drawn": drawn,
        "repeated": recording.repeated,
        "written": recording.frames,
    }
    latency = np.percentile(tally.latency or [tally.first], LATENCIES) * 1000
    stages = {k: 1000 * float(np.median(v)) for k, v in tally.stages.items() if v}
    names = [f"p{p}" for p in LATENCIES]
    now = perf_counter()
    fps = (drawn - 1) / (now - tally.ready) if drawn > 1 else drawn / (now - begun)
    return VideoResult(
        frames,
        1000 * tally.first,
        dict(zip(names, latency.tolist(), strict=True)),
        stages,
        fps,
        recording.fps,
        stopped,
        trouble,
    )
