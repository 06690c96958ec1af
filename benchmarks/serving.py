"""`xenomask serve` under load on loopback: throughput, p50/p90/p99 from sending to the answer, memory, nothing lost.

    python benchmarks/serving.py --photos 40 --clients 1,2,4,8 --cpus 2     # to saturation: a row each
    python benchmarks/serving.py --photos 2000 --clients 4 --size 640x360   # does memory grow?

Starts the service itself (needs pip install 'xenomask[serve]'); each client sends its next photo once it is answered.
Memory is what the replicas and the HTTP proxy hold for themselves, after each tenth of the photos.
"""

import argparse
import collections
import concurrent.futures
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xenomask.cluster.serve import Service, start
from xenomask.datasets.synthetic import draw_scene
from xenomask.errors import XenomaskError
from xenomask.opening import open_detector


def memory() -> list[float]:
    """MB of Ray Serve's replicas and of its HTTP proxy, each process by its proportional share."""
    total = {b"ray::ServeReplica": 0, b"ray::ProxyActor": 0}
    for folder in Path("/proc").iterdir():
        try:
            kind = next(k for k in total if (folder / "cmdline").read_bytes().startswith(k))
            lines = (folder / "smaps_rollup").read_text().splitlines()
            total[kind] += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return [kb / 1024 for kb in total.values()]


def load(address: str, photos: Sequence[bytes], clients: int, count: int) -> dict[str, Any]:
    """One row: `count` photos, one after the other, sent by `clients` that wait for their answers."""
    codes, seconds, held, lock = collections.Counter(), [], [(0, *memory())], threading.Lock()

    def send(k: int) -> None:
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{address}/objects", photos[k % len(photos)])
            ) as answer:
                answer.read()
                code = str(answer.status)
        except urllib.error.HTTPError as e:
            code = str(e.code)
        except OSError as e:
            code = type(e).__name__
        with lock:
            codes[code] += 1
            seconds.append(time.perf_counter() - began)
            if len(seconds) % max(1, count // 10) == 0:
                held.append((len(seconds), *memory()))

    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(send, range(count)))
    wall = time.perf_counter() - began
    p50, p90, p99 = (float(q) for q in np.percentile(seconds, [50, 90, 99]))
    return {
        "clients": clients, "photos": count, "answers": dict(codes), "photos/s": count / wall, "p50 s": p50,
        "p90 s": p90, "p99 s": p99, "held": held,
    }  # fmt: skip


def main() -> None:
    """Print a row for each number of clients, and the same as JSON where --json names a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="nano-general")
    parser.add_argument("--photos", type=int, default=20, help="in each row")
    parser.add_argument("--clients", default="4", help="a number, or several with commas")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runtime")
    parser.add_argument("--port", type=int, default=8129)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--json")
    args = parser.parse_args()
    clients = [int(n) for n in args.clients.split(",")]
    width, height = map(int, args.size.split("x"))
    photos, rows = [], []
    for k in range(8):
        buffer = io.BytesIO()
        Image.fromarray(draw_scene(k, (height, width)).image).save(buffer, "jpeg", quality=92)
        photos.append(buffer.getvalue())
    service = Service(
        port=args.port, replicas=args.replicas, cpus=args.cpus, batch=args.batch, queue=4 * max(clients)
    )  # fmt: skip
    opened = partial(open_detector, args.detector, "cpu", runtime=args.runtime)
    try:
        with start(opened, service) as address:
            load(address, photos, 2 * args.replicas, 4 * args.replicas)  # kernels and graphs
            for n in clients:
                row = load(address, photos, n, args.photos)
                said = "  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
                print(said.partition("  held")[0], flush=True)
                rows.append(row)
    except XenomaskError as e:
        print(f"skipped: {e}")
        return
    print("photos answered, MB of the replicas and of the proxy:")
    print("; ".join(f"{n} {replicas:.0f} + {proxy:.0f}" for n, replicas, proxy in rows[-1]["held"]))
    if args.json:
        with open(args.json, "w") as f:
            json.dump(vars(args) | {"rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
