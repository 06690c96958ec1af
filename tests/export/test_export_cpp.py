"""examples/cpp/detect.cpp, compiled and run: its map is that of examples/run_onnx.py."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from helpers.places import ROOT
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.export import export_detector

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"
HEADERS = (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime")
SIZE = (60, 100)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    headers = next((h for h in HEADERS if h and (Path(h) / "onnxruntime_cxx_api.h").is_file()), None)
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if shutil.which("g++") is None or not libraries:
        pytest.skip("needs g++ and the library that lies in onnxruntime's wheel for Linux")
    if headers is None:
        pytest.skip("needs ONNX Runtime's headers, which its wheel lacks: apt install libonnxruntime-dev (Ubuntu 25.10)"
                    ", or name a release's folder `include` in ONNXRUNTIME_INCLUDE")  # fmt: skip
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # the wheel has neither
        (folder / name).symlink_to(libraries[0])
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-isystem", headers]
    command += [str(EXAMPLES / "cpp" / "detect.cpp"), f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    done = subprocess.run([*command, "-o", str(folder / "detect")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "detect"


def detect(program: Path, *words) -> subprocess.CompletedProcess:
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("dynamic", [False, True])
def test_detect__maps_as_run_onnx_does(program, tiny_detector, tmp_path, dynamic):
    model, photo = tmp_path / "pair.onnx", tmp_path / "street.ppm"
    export_detector(Detector.from_folder(tiny_detector), model, "onnx", size=SIZE, dynamic=dynamic)
    image = draw_scene(0, SIZE).image
    Image.fromarray(image).save(photo)
    done = detect(program, model, photo, tmp_path / "map.pfm")
    assert done.returncode == 0, done.stderr
    value = np.asarray(Image.open(tmp_path / "map.pfm"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    score = np.asarray(session.run(["score"], {"image": image[None]})[0])[0]
    assert np.abs(value - score).max() < 1e-5
    y, x = np.unravel_index(value.argmax(), SIZE)
    assert f"the highest at ({x}, {y})" in done.stdout
    command = [sys.executable, EXAMPLES / "run_onnx.py", model, photo, tmp_path / "heatmap.png"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"\S+ \.\. [\d.-]+", done.stdout)[0] == re.search(r"\S+ \.\. [\d.-]+", said)[0]  # pyright: ignore


def test_detect__errors_are_one_line(program, tiny_detector, tmp_path):
    model = tmp_path / "a.onnx"
    one, photo = Detector.from_folder(tiny_detector).only("a"), tmp_path / "photo.ppm"
    export_detector(one, model, "onnx", size=SIZE)
    export_detector(one, tmp_path / "queries.onnx", "onnx", size=SIZE, queries=True)
    whole = b"P6\n100 60\n255\n" + bytes(100 * 60 * 3)
    for file, data, said in (
        (model, whole[:-1], "is cut"), (model, b"no picture", "no binary 8-bit PPM"),
        (model, whole.replace(b"100", b"#\n100", 1), "without comments"),
        (model, whole.replace(b"100", b"99"), "is not 100x60: resize it"), (model, b"P6 0 0 255\n", "no binary"),
        (tmp_path / "queries.onnx", whole, "takes no photo"), (tmp_path / "none.onnx", whole, "none.onnx"),
    ):  # fmt: skip
        photo.write_bytes(data)
        done = detect(program, file, photo, tmp_path / "map.pfm")
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "usage:" in detect(program).stderr
