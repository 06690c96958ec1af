"""The same commands by two source trees on synthetic scenes: exit codes, JSON keys and numbers, maps, folders' files.

    git worktree add /tmp/old d1a89a0
    python benchmarks/compare_trees.py /tmp/old/src src [--frames 3]

The second tree may call a command or an option otherwise (RENAMED). Numbers may differ by 1e-6, stored maps (float16)
by one step. Prints a line a command, and what differs; exits with 1 if anything does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

RENAMED = {"operate": "thresholds", "--looks": "--tta"}
# keys that only one tree has, with the reason
EXPECTED = {
    "settings": "new in a detector's fingerprint", "preprocess": "new in a detector's fingerprint",
    "objects": "of detect", "size": "of detect", "ignore": "in an exported file",
}  # fmt: skip
DATA = ["--dataset", "anomaly-track", "--root", "{data}"]
COMMANDS = [
    ["score", *DATA, "--detector", "nano", "--out", "maps"],
    ["score", *DATA, "--detector", "nano", "--score", "rba", "--out", "rba"],
    ["score", *DATA, "--detector", "nano", "--looks", "mirror,192", "--out", "tta"],
    ["detect", "{photo}", "--detector", "nano", "--out", "d", "--json", "detect.json"],
    ["explain", "{photo}", "--at", "300,200", "--detector", "nano", "--json", "explain.json"],
    ["evaluate", "--maps", "maps", *DATA, "--conventions", "all", "--resamples", "50", "--json", "evaluate.json"],
    ["compare", "maps", "rba", *DATA, "--resamples", "50", "--json", "compare.json"],
    ["benchmark", *DATA, "--detector", "nano", "--scores", "own,max_logit,entropy", "--resamples", "20", "--out", "b"],
    ["crossval", *DATA, "--detector", "nano", "--choose", "weights", "--cache", "cache", "--json", "crossval.json"],
    ["operate", "--maps", "maps", *DATA, "--f1", "--fpr", ".05", "--json", "operate.json"],
    ["calibrate", "--maps", "maps", *DATA, "--json", "calibrate.json"],
    ["components", "maps", "--threshold", "0.3", "--out", "components.json"],
    ["heatmaps", "--maps", "maps", *DATA, "--out", "h"],
    ["report", "maps", "rba", *DATA, "--out", "report.html"],
    ["diagrams", "maps", *DATA, "--out", "svg"],
    ["agreement", "maps", "rba", *DATA, "--out", "agreement"],
    ["assemble", "--out", "own", "--member", "s={shipped}/nano-s", "--member", "l={shipped}/nano-l", "--score", "rba"],
    ["score", *DATA, "--detector", "own", "--out", "own-maps"],
    ["export", "nano", "--size", "640x360", "--member", "nano-s", "--score", "max_logit", "--out", "n.onnx"],
    ["detect", "{photo}", "--detector", "n.onnx", "--out", "e", "--json", "exported.json"],
    ["datasets", "--json", "datasets.json"],
    ["scores"],
]  # fmt: skip


def run(tree: Path, words: list[str], folder: Path, renamed: bool, **names: str) -> tuple[int, str]:
    words = [RENAMED.get(w, w) if renamed else w for w in words]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, "-m", "xenomask.cli", *(w.format(**names) for w in words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def differences(a: object, b: object, where: str = "") -> list[str]:
    """What differs between two JSON values; keys of EXPECTED are let pass."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = [f"{where}.{k} only in one" for k in sorted(a.keys() ^ b.keys()) if k not in EXPECTED]
        return found + [d for k in a.keys() & b.keys() for d in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return [f"{where} has {len(a)} and {len(b)} entries"]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")]
    if isinstance(a, int | float) and isinstance(b, int | float):
        return [] if abs(a - b) <= 1e-6 * max(1, abs(a)) else [f"{where} {a} is {b}"]
    return [] if a == b or where.endswith(("sha256", "fingerprint")) else [f"{where} {str(a)[:60]} is {str(b)[:60]}"]


def unordered(x: object) -> object:
    """COCO annotations by photo and box: their order is another since objects are sorted by area x excess."""
    if isinstance(x, dict) and isinstance(rows := x.get("annotations"), list):
        rows = sorted(
            ({k: v for k, v in r.items() if k != "id"} for r in rows), key=lambda r: (r["image_id"], r["bbox"])
        )
        return {**x, "annotations": rows}
    return x


def compared(old: Path, new: Path) -> list[str]:
    """What differs between two folders: names, JSON files, maps."""
    files = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (old, new)]
    found = [f"{name} only in one" for name in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        if name.endswith(".json"):
            texts = ((f / name).read_text().replace(str(f), "FOLDER") for f in (old, new))
            found += [f"{name}: {d}" for d in differences(*(unordered(json.loads(t)) for t in texts))][:5]
        elif name.endswith(".hdf5"):
            a, b = (np.asarray(h5py.File(f / name)["value"], np.float32) for f in (old, new))
            step = np.spacing(np.abs(a).astype(np.float16)).astype(np.float32)
            if a.shape != b.shape or (np.abs(a - b) > step).any():
                found.append(f"{name}: maps differ by up to {np.abs(a - b).max():.2g}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, nargs="?", default=Path("src"))
    parser.add_argument("new", type=Path, nargs="?", default=Path("src"))
    parser.add_argument("--frames", type=int, default=3)
    args = parser.parse_args()
    trees = [t.resolve() for t in (args.old, args.new)]
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        base, folders = Path(scratch), [Path(scratch) / "old", Path(scratch) / "new"]
        scenes = ["synthetic", "--out", str(base / "at"), "--frames", str(args.frames), "--size", "640x360"]
        assert run(trees[0], scenes, base, False)[0] == 0
        photo = sorted((base / "at").rglob("images/*"))[0]
        for folder in folders:
            folder.mkdir()
        seen: set[str] = set()
        for words in COMMANDS:
            ends = []
            for i, (tree, folder) in enumerate(zip(trees, folders, strict=True)):
                names = {
                    "data": str(base / "at"),
                    "photo": str(photo),
                    "shipped": str(trees[0] / "xenomask/detectors/nano"),
                }
                ends.append(run(tree, words, folder, renamed=i == 1 and trees[0] != trees[1], **names))
            found = [d for d in compared(*folders) if d not in seen]
            seen |= set(found)
            if ends[0][0] != ends[1][0]:
                found.append(f"exit codes {ends[0][0]} and {ends[1][0]}: {ends[1][1].strip()[-200:]}")
            bad += bool(found)
            print(f"{'DIFFERS' if found else 'same   '} {' '.join(words)[:100]}", flush=True)
            for d in found:
                print(f"    {d}"[:200], flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
