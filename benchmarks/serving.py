"""`xenomask serve` under load on loopback: throughput, p50/p90/p99 from sending to the answer, memory, nothing lost.

    python benchmarks/serving.py --photos 2000 --clients 8

Starts the service itself (needs pip install 'xenomask[serve]'); each client sends its next photo once it is answered.
"""

import argparse
import concurrent.futures
import io
import json
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from xenomask.cluster.serve import Service, start
from xenomask.datasets.synthetic import draw_scene
from xenomask.errors import XenomaskError
from xenomask.opening import open_detector


def memory() -> float:
    """MB of all processes of Ray Serve's replicas, by their proportional share."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            if b"ServeReplica" in (folder / "cmdline").read_bytes():
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 1024


def main() -> None:
    """Print the table, and the same as JSON where --json names a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="nano-general")
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runtime")
    parser.add_argument("--port", type=int, default=8129)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--json")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    buffer = io.BytesIO()
    Image.fromarray(draw_scene(0, (height, width)).image).save(buffer, "jpeg", quality=92)
    photo, codes, seconds, lock = buffer.getvalue(), [], [], threading.Lock()
    service = Service(port=args.port, replicas=args.replicas, cpus=args.cpus, batch=args.batch, queue=4 * args.clients)
    opened = partial(open_detector, args.detector, "cpu", runtime=args.runtime)
    try:
        with start(opened, service) as address:

            def send(_: int) -> None:
                began = time.perf_counter()
                try:
                    with urllib.request.urlopen(urllib.request.Request(f"{address}/objects", photo)) as answer:
                        answer.read()
                        code = answer.status
                except urllib.error.HTTPError as e:
                    code = e.code
                with lock:
                    codes.append(code)
                    seconds.append(time.perf_counter() - began)

            for k in range(4):  # kernels and graphs
                send(k)
            codes.clear()
            seconds.clear()
            first, began = memory(), time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(args.clients) as clients:
                list(clients.map(send, range(args.photos // 2)))
                half = memory()
                list(clients.map(send, range(args.photos - args.photos // 2)))
            wall, last = time.perf_counter() - began, memory()
    except XenomaskError as e:
        print(f"skipped: {e}")
        return
    p50, p90, p99 = np.percentile(seconds, [50, 90, 99])
    found = {
        "photos": args.photos, "answered": codes.count(200), "photos/s": args.photos / wall, "p50 s": p50,
        "p90 s": p90, "p99 s": p99, "MB before": first, "MB half-way": half, "MB after": last,
    }  # fmt: skip
    print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items()))
    if args.json:
        with open(args.json, "w") as f:
            json.dump(vars(args) | found, f, indent=1)


if __name__ == "__main__":
    main()
