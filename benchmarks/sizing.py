"""What a billion frames take: machines, hours, money, storage, what binds. Prints the tables of docs/fleets.md.

    python benchmarks/sizing.py [--costs benchmarks/sizing.json] [--frames 1e9] [--days 7] [--storage-gb-s 20]
    python benchmarks/sizing.py --measure NAME --root data/smiyc [--detector nano] [--device cpu] [--clock cpu]

The costs of a frame are read from a JSON file, one entry a kind of machine, and any is overruled by an option
(--network-ms 40). --measure times the stages one after the other, on one thread (or one GPU), over the photos of
AnomalyTrack, and puts means into that entry; what it cannot know (dollars, cores) is kept or taken from options.

The model. A CPU machine does everything on its cores, a frame on each. On a GPU machine the network and the score run
on the GPU while the cores decode and write: the slower of the two sets its rate. The storage is one for all machines.
"""

import argparse
import json
import math
import platform
import tempfile
import time
from pathlib import Path

STAGES = ("decode_ms", "network_ms", "score_ms", "write_ms")
INPUTS = (*STAGES, "photo_bytes", "map_bytes", "cores", "gpus", "dollars_per_hour")


def rates(m: dict) -> dict[str, float]:
    """Frames a second that each part of a machine can do."""
    if not m["gpus"]:
        return {"cores": 1000 * m["cores"] / sum(m[s] for s in STAGES)}
    return {
        "GPU (network, score)": 1000 * m["gpus"] / (m["network_ms"] + m["score_ms"]),
        "cores (decode, write)": 1000 * m["cores"] / (m["decode_ms"] + m["write_ms"]),
    }


def size(m: dict, o: argparse.Namespace) -> dict[str, float | str]:
    """The row of one kind of machine."""
    part, rate = min(rates(m).items(), key=lambda x: x[1])
    hours = o.frames / rate / 3600
    machines = math.ceil(hours / (24 * o.days))
    moved = m["photo_bytes"] + m["map_bytes"]
    enough = o.storage_gb_s * 1e9 / (rate * moved)
    return {
        "rate": rate, "part": part, "hours": hours, "machines": machines, "dollars": hours * m["dollars_per_hour"],
        "gb_s": machines * rate * moved / 1e9, "files_s": machines * rate, "storage_machines": enough,
        "photos_tb": o.frames * m["photo_bytes"] / 1e12, "maps_tb": o.frames * m["map_bytes"] / 1e12,
    }  # fmt: skip


def report(table: dict[str, dict], o: argparse.Namespace) -> None:
    print(f"{o.frames:,.0f} frames in {o.days:g} days\n")
    print("| machine | decode, network, score, write (ms) | frames/s | bound by | machine-hours | machines | $ |")
    print("|---|---|---|---|---|---|---|")
    rows = {n: size(m, o) for n, m in table.items()}
    for n, r in rows.items():
        stages = ", ".join(f"{table[n][s]:,.1f}" for s in STAGES)
        print(f"| {n} | {stages} | {r['rate']:,.1f} | {r['part']} | {r['hours']:,.0f} | {r['machines']:,} | "
              f"{r['dollars']:,.0f} |")  # fmt: skip
    print("\n| machine | photos read (TB) | maps written (TB) | maps, $ a month | GB/s, all | maps/s, all | "
          f"machines that {o.storage_gb_s:g} GB/s feed |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for n, r in rows.items():
        month = r["maps_tb"] * o.storage_dollars
        print(f"| {n} | {r['photos_tb']:,.0f} | {r['maps_tb']:,.0f} | {month:,.0f} | {r['gb_s']:.2f} | "
              f"{r['files_s']:,.0f} | {r['storage_machines']:,.0f} |")  # fmt: skip
    print("\nWhere the bottleneck moves:\n")
    for n, m in table.items():
        print(f"- {n}: {_moves(m, rows[n])}")
    print("\nWhere the costs come from:\n")
    for n, m in table.items():
        print(f"- {n}: {m.get('origin', 'given')}")


def _moves(m: dict, row: dict) -> str:
    """How much faster the binding part may become before another one binds."""
    if not m["gpus"]:
        total = sum(m[s] for s in STAGES)
        first, second = sorted(STAGES, key=lambda s: -m[s])[:2]
        names = first.removesuffix("_ms"), second.removesuffix("_ms")
        rest = total - m[first]
        left = 1000 * m["cores"] / rest
        return (
            f"{100 * m[first] / total:.0f} % is {names[0]}; were it free, a machine did {left:,.0f} frames/s, most of "
            f"it {names[1]}"
        )
    (slow, low), (other, high) = sorted(rates(m).items(), key=lambda x: x[1])
    text = f"{slow} binds; made {high / low:.1f} times faster, {other} binds at {high:,.0f} frames/s a machine"
    return f"{text}; the storage from {row['storage_machines']:,.0f} machines on"


def measure(o: argparse.Namespace) -> dict:
    """Mean costs of a frame on one thread or one GPU, over the photos of AnomalyTrack."""
    import cv2
    import numba
    import torch

    from xenomask.cluster.records import source_commit
    from xenomask.datasets import open_dataset
    from xenomask.detector import Detector
    from xenomask.detector.fuse import ensemble
    from xenomask.scores import score_all
    from xenomask.store import write_map

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    cv2.setNumThreads(1)
    clock = time.process_time if o.clock == "cpu" else time.perf_counter
    data = open_dataset("anomaly-track", o.root)
    detector = Detector.from_folder(o.detector, o.device, o.runtime)
    sums: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    sizes, photo_bytes, map_bytes = set(), 0, 0

    def timed(stage: str, work):
        began = clock()
        found = work()
        if o.device.startswith("cuda"):
            torch.cuda.synchronize()
        sums[stage] += 1000 * (clock() - began)
        return found

    def scored(outputs):
        maps = [
            score_all(y, m.queries, [m.score])[m.score.name] for y, m in zip(outputs, detector.members, strict=True)
        ]
        return ensemble(maps, [m.weight for m in detector.members])

    frames = [f for f in data.frames if f.image][: o.photos]
    with tempfile.TemporaryDirectory(dir=o.scratch) as folder:
        for warm in (True, False):  # the first photo once more: compiling is not counted
            for f in frames[:1] if warm else frames:
                image = timed("decode_ms", lambda f=f: data.sample(f).image)
                outputs = timed("network_ms", lambda i=image: [m.network.predict(i) for m in detector.members])
                found = timed("score_ms", lambda y=outputs: scored(y))
                path = Path(folder) / f"{f.id}.hdf5"
                timed("write_ms", lambda p=path, s=found: write_map(p, s))
                if not warm:
                    sizes.add("x".join(map(str, image.shape[1::-1])))
                    photo_bytes += f.image.stat().st_size if f.image else 0
                    map_bytes += path.stat().st_size
            if warm:
                sums.update(dict.fromkeys(STAGES, 0.0))
    spent = f"{'processor' if o.clock == 'cpu' else 'wall'} time on {'one GPU' if o.device != 'cpu' else 'one thread'}"
    origin = (
        f"{spent}, mean of {len(frames)} photos of AnomalyTrack ({', '.join(sorted(sizes)[:3])}), detector "
        f"{o.detector}, runtime {o.runtime}, commit {source_commit()}, {platform.machine()}, "
        f"{time.strftime('%Y-%m-%d')}"
    )
    costs = {s: round(v / len(frames), 3) for s, v in sums.items()}
    bytes_each = {"photo_bytes": photo_bytes // len(frames), "map_bytes": map_bytes // len(frames)}
    return {**costs, **bytes_each, "origin": f"{origin}{'; ' + o.note if o.note else ''}"}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--costs", type=Path, default=Path(__file__).with_suffix(".json"))
    p.add_argument("--machine", action="append", help="only this one; again for more")
    p.add_argument("--frames", type=float, default=1e9)
    p.add_argument("--days", type=float, default=7)
    p.add_argument("--storage-gb-s", type=float, default=20, help="what the shared storage reads and writes together")
    p.add_argument("--storage-dollars", type=float, default=20, help="a TB and month")
    for name in INPUTS:
        p.add_argument(f"--{name.replace('_', '-')}", type=float, help="instead of the file's")
    p.add_argument("--measure", metavar="NAME", help="time the stages here and store them as this machine's")
    p.add_argument("--root", type=Path, help="of the data set, for --measure")
    p.add_argument("--detector", default="nano")
    p.add_argument("--device", default="cpu")
    p.add_argument("--runtime", default="torch")
    p.add_argument("--photos", type=int, default=10)
    p.add_argument("--scratch", type=Path, help="folder on the storage that maps are written to")
    p.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine that is busy")
    p.add_argument("--note", default="", help="kept with the measured costs")
    o = p.parse_args()
    table = json.loads(o.costs.read_text()) if o.costs.is_file() else {}
    given = {n: v for n in INPUTS if (v := getattr(o, n)) is not None}
    if o.measure:
        if o.root is None:
            p.error("--measure needs --root")
        kept = {"cores": 1, "gpus": 0, "dollars_per_hour": 0} | table.get(o.measure, {})
        table[o.measure] = kept | measure(o) | given
        o.costs.write_text(json.dumps(table, indent=1) + "\n")
        o.machine = [o.measure]
    if unknown := [n for n in o.machine or () if n not in table]:
        p.error(f"no machine {unknown[0]!r} in {o.costs}: {', '.join(table)}")
    report({n: table[n] | given for n in o.machine or table}, o)


if __name__ == "__main__":
    main()
