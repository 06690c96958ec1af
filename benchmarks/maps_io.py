"""How fast maps are written and read, and how large they are: prints Markdown tables.

Example: python benchmarks/maps_io.py --maps maps/at --maps maps/ot

Every writer runs once a repeat, one after the other, so that a busy machine is busy for all; figures are medians over
the repeats of the mean over the maps, scaled to a frame of 2048x1024. Writing ends at the bytes in memory (no disk),
reading starts at a file in the page cache. Without --maps it draws some: smooth, faintly and strongly noisy.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import mean, median

import cv2
import h5py
import numpy as np

from xenomask.store import encode_map, map_ids, read_map
from xenomask.store.write import LEVEL

FRAME = 2048 * 1024
ROWS = 256


@dataclass
class Writer:
    """One way to make the file's bytes of a float32 map, and what was measured of it."""

    name: str
    level: int
    shuffle: bool
    threads: int
    encode: Callable[[np.ndarray], bytes | memoryview]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    size: float = 0


def by_h5py(value: np.ndarray, level: int, shuffle: bool) -> memoryview:
    """As the official tool writes (gzip 9, no shuffle), and as xenomask did (gzip 1, shuffle)."""
    buffer = BytesIO()
    with h5py.File(buffer, "w") as f:
        half = value.astype(np.float16)
        f.create_dataset("value", data=half, compression="gzip", compression_opts=level, shuffle=shuffle)
    return buffer.getbuffer()


def by_library(value: np.ndarray, compress: Callable[[bytes, int], bytes], level: int, shuffle: bool) -> memoryview:
    """Chunks of whole rows, compressed by some zlib-like function."""
    half = value.astype(np.float16)
    buffer = BytesIO()
    with h5py.File(buffer, "w") as f:
        chunk = (min(ROWS, len(half)), half.shape[1])
        data = f.create_dataset("value", half.shape, half.dtype, chunks=chunk, compression="gzip", shuffle=shuffle)
        for y in range(0, len(half), ROWS):
            part = np.zeros(chunk, np.float16)
            part[: len(half) - y] = half[y : y + ROWS]
            raw = part.reshape(-1).view(np.uint8).reshape(-1, 2)
            data.id.write_direct_chunk((y, 0), compress((raw.T if shuffle else raw).tobytes(), level))
    return buffer.getbuffer()


LIBRARIES: dict[str, tuple[str, str, tuple[int, ...], bool]] = {
    "isal": ("isal.isal_zlib", "compress", (2,), False),
    "zlib-ng": ("zlib_ng.zlib_ng", "compress", (1, 2, 4), True),
    "deflate": ("deflate", "zlib_compress", (1, 3, 6), True),
}


def writers() -> list[Writer]:
    """The official writer first, then its shuffled twin: the sizes are relative to these two."""
    found = [
        Writer("h5py", level, shuffle, 1, partial(by_h5py, level=level, shuffle=shuffle))
        for level, shuffle in ((9, False), (9, True), (4, True), (1, True))
    ]
    for name, (module, function, levels, shuffle) in LIBRARIES.items():
        if importlib.util.find_spec(module.split(".")[0]) is None:
            print(f"{name} is not installed: left out\n")
            continue
        call = getattr(importlib.import_module(module), function)
        for level in levels:
            encode = partial(by_library, compress=call, level=level, shuffle=shuffle)
            found.append(Writer(name, level, shuffle, 1, encode))
    for level, threads in ((0, 1), (1, 1), (2, 1), (3, 1), (2, 2)):
        name = "**store**" if (level, threads) == (LEVEL, 1) else "store"
        found.append(Writer(name, level, True, threads, partial(encode_map, score=None, level=level, threads=threads)))
    return found


def plain(path: Path) -> np.ndarray:
    """What reading takes without us."""
    with h5py.File(path) as f:
        return np.asarray(f["value"])


def timed(run: Callable[[], object]) -> tuple[object, float, float]:
    """Result, CPU and wall milliseconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    return result, 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)


def measure(maps: list[np.ndarray], repeats: int, folder: Path) -> list[Writer]:
    """Every writer and both readers on every map."""
    found = writers()
    for _ in range(repeats):
        for w in found:
            figures = []
            w.size = 0
            for m in maps:
                data, cpu, wall = timed(lambda w=w, m=m: w.encode(m))
                assert isinstance(data, bytes | memoryview)
                w.size += len(data)
                path = folder / "map.hdf5"
                path.write_bytes(data)
                value, _, read = timed(lambda p=path: read_map(p))
                other, _, slow = timed(lambda p=path: plain(p))
                assert np.array_equal(np.asarray(value), np.asarray(other))
                figures.append((cpu, wall, read, slow))
            for into, column in zip((w.cpu, w.wall, w.read, w.plain), zip(*figures, strict=True), strict=True):
                into.append(sum(column) * FRAME / pixels(maps))
    return found


def print_table(title: str, found: list[Writer]) -> None:
    nine, shuffled = found[0].size, found[1].size
    print(f"### {title}\n")
    print("| writer | level | shuffle | threads | write CPU ms | write ms | size / gzip 9 | size / gzip 9 shuffled "
          "| read_map ms | plain h5py read ms |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for w in found:
        times = [f"{median(t):.1f}" for t in (w.cpu, w.wall)]
        reads = [f"{median(t):.1f}" for t in (w.read, w.plain)]
        row = [w.name, str(w.level), "yes" if w.shuffle else "no", str(w.threads), *times]
        print("| " + " | ".join([*row, f"{w.size / nine:.2f}", f"{w.size / shuffled:.2f}", *reads]) + " |")
    print()


def print_threads(maps: list[np.ndarray], repeats: int, folder: Path) -> None:
    """What a second thread brings."""
    paths = [folder / f"{i}.hdf5" for i in range(len(maps))]
    for path, m in zip(paths, maps, strict=True):
        path.write_bytes(encode_map(m, None))
    ways = {
        "read_map": (read_map, paths),
        "plain h5py": (plain, paths),
        "encode_map": (partial(encode_map, score=None), maps),
    }
    print("| frames in threads | 1 thread ms | 2 threads ms | speed-up |\n|---|---|---|---|")
    for name, (run, items) in ways.items():
        one, two = (median(in_threads(run, items, n) for _ in range(repeats)) for n in (1, 2))
        print(f"| {name} | {one * FRAME / pixels(maps):.1f} | {two * FRAME / pixels(maps):.1f} | {one / two:.2f} |")
    print()


def in_threads(run: Callable, items: list, threads: int) -> float:
    """Wall milliseconds for all of them once."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(abs, range(threads)))
        return timed(lambda: list(pool.map(run, items * 4)))[2] / 4


def pixels(maps: list[np.ndarray]) -> int:
    return sum(m.size for m in maps)


def drawn() -> dict[str, list[np.ndarray]]:
    """Maps of 2048x1024 that nobody's network made."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.normal(size=(16, 32)).astype(np.float32), (2048, 1024), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(size=smooth.shape).astype(np.float32)
    return {f"drawn, smooth + {s:g} noise": [smooth + np.float32(s) * noise] * 2 for s in (0, 0.002, 0.05)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, action="append", default=[], help="folder of maps; may be repeated")
    parser.add_argument("--frames", type=int, default=4, help="maps of each folder, spread over it")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    kinds = {}
    for folder in args.maps:
        ids = map_ids(folder)
        picked = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, args.frames).astype(int))]
        maps = [read_map(folder / f"{i}.hdf5").astype(np.float32) for i in picked]
        kinds[f"{folder.name}: {len(maps)} maps of {mean(m.size for m in maps) / 1e6:.1f} Mpx"] = maps
    with tempfile.TemporaryDirectory() as folder:
        for title, maps in (kinds or drawn()).items():
            print_table(title, measure(maps, args.repeats, Path(folder)))
            print_threads(maps, args.repeats, Path(folder))


if __name__ == "__main__":
    main()
