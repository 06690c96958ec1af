"""Frames read ahead of who looks at them: bounded, in order, and of live sources the newest only."""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from time import perf_counter

import numpy as np

from xenomask.predict.frames import Source


@dataclass(frozen=True)
class Frame:
    """A frame, its number among those read (from 0), and when it was there (`perf_counter`, seconds)."""

    number: int
    image: np.ndarray
    read_at: float
    read_seconds: float


def frames_of(
    source: Source, stop: threading.Event, *, limit: int | None = None, depth: int = 1
) -> Generator[Frame, None, None]:
    """At most `limit` frames that another thread reads, until they end or `stop` is set.

    Of a live source the newest: one that was not taken before the next came is dropped, which shows as a gap in the
    numbers. Of any other source every frame, at most `depth` of them (at least one) waiting. Raises what the source
    does.
    """
    images = source.frames
    if source.live:
        return _newest(images, stop, limit)
    return _ahead(images, stop, limit, depth)


def _read(images: Iterator[np.ndarray], number: int) -> Frame | None:
    begun = perf_counter()
    image = next(images, None)
    there = perf_counter()
    return None if image is None else Frame(number, image, there, there - begun)


def _ahead(
    images: Generator[np.ndarray, None, None], stop: threading.Event, limit: int | None, depth: int
) -> Generator[Frame, None, None]:
    few, numbers = islice(images, limit), count()
    try:
        with ThreadPoolExecutor(1, "read") as pool:
            waiting = deque(pool.submit(_read, few, next(numbers)) for _ in range(depth))
            while not stop.is_set() and (frame := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(_read, few, next(numbers)))
                yield frame
    finally:
        images.close()


def _newest(
    images: Generator[np.ndarray, None, None], stop: threading.Event, limit: int | None
) -> Generator[Frame, None, None]:
    slot: deque[Frame] = deque(maxlen=1)  # appending throws the stale one away
    change, leave = threading.Condition(), threading.Event()
    ended: list[BaseException | None] = []

    def read_all() -> None:
        few, trouble = islice(images, limit), None
        try:
            for number in count():
                frame = _read(few, number)
                if frame is None or leave.is_set():
                    break
                with change:
                    slot.append(frame)
                    change.notify()
            images.close()
        except BaseException as e:  # raised again where the frames are taken
            trouble = e
        with change:
            ended.append(trouble)
            change.notify()

    thread = threading.Thread(
        target=read_all, name="read", daemon=True
    )  # a camera that hangs must not hold the program
    thread.start()
    try:
        while not stop.is_set():
            with change:
                change.wait_for(lambda: slot or ended, timeout=0.1)
                frame = slot.popleft() if slot else None
            if frame is not None:
                yield frame
            elif ended:
                if ended[0] is not None:
                    raise ended[0]
                return
    finally:
        leave.set()
        thread.join(timeout=2)
