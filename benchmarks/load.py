"""How long loading a checkpoint folder takes, and how much memory: prints a line a preset.

Example: python benchmarks/load.py --preset swin-l --repeats 5

Each repeat is a process of its own, which first loads a tiny network, so that imports do not count, and has the file in
the page cache. Seconds are the least of the repeats. Memory is the rise of VmHWM (the peak of all resident pages, those
of mapped files included) over what was resident before, divided by the bytes of the network's tensors.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import sys, time
from pathlib import Path
from xenomask.models import load
def amount(what):
    words = Path("/proc/self/status").read_text().split()
    return 1024 * int(words[words.index(what) + 1])
load(Path(sys.argv[1]))
before = amount("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
began, used = time.perf_counter(), time.process_time()
found = load(Path(sys.argv[2]))
seconds, used = time.perf_counter() - began, time.process_time() - used
weight = sum(t.nbytes for t in found.module.state_dict().values())
print(seconds, used, (amount("VmHWM:") - before) / weight, weight)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", help="default: swin-l")
    parser.add_argument("--half", action="store_true", help="weights stored as float16")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    from xenomask.models import build

    with tempfile.TemporaryDirectory() as folder:
        tiny = build("tiny").save(Path(folder) / "tiny")
        for name in options.preset or ["swin-l"]:
            path = build(name).save(Path(folder) / name, half=options.half)
            rows = []
            for _ in range(options.repeats):
                call = [sys.executable, "-c", PROGRAM, str(tiny), str(path)]
                done = subprocess.run(call, capture_output=True, text=True, check=True)
                rows.append([float(x) for x in done.stdout.split()])
            seconds, used, ratio = (min(r[i] for r in rows) for i in range(3))
            print(
                f"{name}: {rows[0][3] / 2**20:.0f} MB of weights, {seconds:.2f} s ({used:.2f} s of processor time), "
                f"peak {max(r[2] for r in rows):.2f} x the weights; least time of {options.repeats}, "
                f"load average {os.getloadavg()[0]:.1f}; with {ratio:.2f} x at least",
                flush=True,
            )


if __name__ == "__main__":
    main()
