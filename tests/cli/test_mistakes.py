"""Plausible mistakes, each as its user makes it: exit code 2, one line that helps, no traceback, at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.video import write_clip
from xenomask.datasets.synthetic import write_scenes

# CPU seconds of a fresh process. About .5 on a quiet machine, of which the command line itself takes .3; loading torch
# takes 2 and networks 7. `TORCH`: only torch can say whether the device is there.
QUICK, TORCH = 1.5, 20.0
SET = "--dataset anomaly-track --root scenes"

# command, what its one line says
MISTAKES = {
    # commands and options
    "detct street.jpg": "no such command 'detct'. Did you mean 'detect'",
    "street.jpg": "is a file, no command: xenomask detect street.jpg",
    "--out o detect street.jpg": "--out stands before the command",
    "detect": "missing argument 'PHOTO' (help: xenomask detect --help)",
    "detect street.jpg --scores msp": "no such option: --scores (Possible options: --ignore, --score)",
    "detect street.jpg --threshold abc": "invalid value for '--threshold': Input should be a valid number",
    "detect street.jpg --batch 0": "invalid value for '--batch': Input should be greater than or equal to 1",
    "detect street.jpg --threshold": "option '--threshold' requires an argument (help: xenomask detect --help)",
    "detect street.jpg --threshold nan": "threshold nan is not a finite number",
    "detect street.jpg --alarms none": "invalid value for '--alarms': 'none' is not one of 'low', 'normal', 'high'",
    "slurm pipelin": "no such command 'pipelin'. Did you mean 'pipeline'? (help: xenomask slurm --help)",
    "detect street.jpg --alarms low --threshold .5": "leave --threshold out",
    # photos
    "detect streat.jpg": "no such photo: streat.jpg",
    "detect empty": "folder empty holds no picture",
    "detect *.jpeg": "no file matches *.jpeg",
    "detect empty.jpg": "empty.jpg is empty (0 bytes)",
    "detect dot.png": "dot.png is 40x1 pixels: less than 32 pixels a side show no scene",
    "detect text.jpg": "text.jpg is not an image",
    "detect drive.mp4": "drive.mp4 is a video: xenomask video FILE --out seen.mp4",
    "detect maps/a_score.npy": "a_score.npy is not an image",
    "detect street.jpg --quiet": "--quiet stands before the command: xenomask --quiet detect ...",
    "detect street.jpg --out file": "cannot write into folder file: it is a file",
    "detect street.jpg --json -": "- is no file's name here",
    "detect street.jpg --detector=": "the detector's name is empty",
    "detect street.jpg --json a.json --coco a.json": "--coco and --json both name a.json: give each a file of its own",
    "detect street.jpg --json empty": "cannot write empty: it is a folder",
    # names
    "detect street.jpg --detector nanno": "unknown detector 'nanno'; did you mean 'nano'?",
    "detect street.jpg --detector empty": "empty is no detector folder",
    "detect street.jpg --detector nano.onnx": "no such file: nano.onnx",
    "detect street.jpg --member nano-x": "unknown member of detector nano-general 'nano-x'; did you mean 'nano-l'?",
    "detect street.jpg --score mps": "unknown score 'mps'; did you mean 'msp'?",
    "detect street.jpg --runtime openvno": "unknown runtime 'openvno'; did you mean 'openvino'?",
    "detect street.jpg --device gpu": "device gpu cannot be used: there is no such kind: it is cpu, or cuda",
    "detect street.jpg --device cuda:99": "device cuda:99 cannot be used",
    # other commands
    "video rtsp://[::1 --out o.mp4": "rtsp://[::1 is no address: Invalid IPv6 URL",
    "video 99999999999 --out o.mp4": "no camera 99999999999",
    "warmup --size ²x2": "size '²x2' is not WIDTHxHEIGHT",
    "synthetic --layout folder --out s --seed -1": "Input should be greater than or equal to 0",
    "export made.onnx --size 640x360 --out again.onnx": "made.onnx is an exported file already",
    f"report maps {SET} --out r.pdf": "r.pdf does not end with .html",
    "video street.jpg --out o.mp4": "street.jpg is not a video",
    "video drive.mp4 --out o.gif": "must end in .mp4 or .avi",
    "video drive.mp4": "missing option '--out'",
    "detect street.jpg --tta miror": "unknown view for --tta 'miror'; did you mean 'mirror'?",
    "train nano-x.toml": "no such recipe: nano-x.toml",
    "convert nowhere.pth --out c": "no such file or folder: nowhere.pth",
    "explain street.jpg --at 640": "point '640' is not X,Y",
    f"score {SET} --out m --engine rya": "unknown engine 'rya'; did you mean 'ray'?",
    "score --dataset anomaly-trak --root scenes --out m": "'anomaly-trak'; did you mean 'anomaly-track'?",
    "score --dataset anomaly-track --root nowhere --out m": "no such folder: nowhere; --root",
    "score --dataset anomaly-track --root empty --out m": "neither images/ nor labels_masks/ in empty",
    f"score {SET} --out m --shard 2of8": "shard '2of8' is not I/N",
    "assemble --out mine --member s=s --threshold-origin m": "--threshold-origin says where --threshold comes from",
    "assemble --out mine --member s=nowhere": "no such file or folder: nowhere",
    "push empty me/mine": "empty is no detector folder",
    "ignore bottom:12% --into empty": "empty is no detector folder",
    f"evaluate {SET}": "missing option '--maps'",
    f"evaluate {SET} --maps nowhere": "no folder of maps nowhere; make one with `xenomask score`",
    f"evaluate {SET} --maps empty": "2 of 2 labelled frames have no map in empty",
    "evaluate --dataset anomaly-track --maps scenes --root maps": "neither images/ nor labels_masks/ in maps",
    f"compare maps {SET}": "compare needs two folders of maps or more",
    "benchmark --root scenes": "give either --suite (smiyc-val, road-val, all) or --dataset",
    "export nano --out nano.onnx": "give --size WxH",
    "export nano --size 640x360 --out nano.onnx --format onx": "unknown format 'onx'; did you mean 'onnx'?",
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A user's folder: a photo, a video, scenes, a map of another tool, an empty folder and two files that mislead."""
    folder = tmp_path_factory.mktemp("desk")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "street.jpg")
    Image.fromarray(np.zeros((1, 40, 3), np.uint8)).save(folder / "dot.png")
    (folder / "empty.jpg").touch()
    write_clip(folder / "drive.mp4", 3)
    write_scenes(folder / "scenes", "anomaly-track", 2, size=(64, 96))
    for name in ("empty", "maps"):
        (folder / name).mkdir()
    np.save(folder / "maps/a_score.npy", np.zeros((4, 4), np.float32))
    for name in ("text.jpg", "file", "made.onnx"):
        (folder / name).write_text("hello")
    return folder


def ask(words: list[str], folder: Path) -> tuple[int, str, float]:
    """Exit code, stderr and CPU seconds of a fresh `xenomask ...`."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "xenomask.cli", *words]
    with (folder / "stderr").open("w+") as err:
        process = subprocess.Popen(command, env=env, cwd=folder, stderr=err, stdin=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        return process.returncode, err.read(), used.ru_utime + used.ru_stime


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake__is_one_line_that_helps_at_once(line, desk):
    code, said, seconds = ask(line.split(), desk)
    assert code == 2 and "Traceback" not in said, said
    assert MISTAKES[line] in said and said.startswith("error: ") and said.count("\n") == 1, said
    assert seconds < (TORCH if "cuda" in line else QUICK), f"{seconds:.2f} s"
