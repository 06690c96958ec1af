"""No load of a local folder or file opens a connection or says more than our own words.

Every kind of checkpoint is opened in a process of its own, in which a socket can neither be made nor a name looked up,
nor a process forked that might, and in which neither the Hub's own offline switch is set nor CI, where openvino does
not report.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.detectron2 import Checkpoint, plain, written
from helpers.hf_folders import KINDS, as_written_by_457, change_config, write
from helpers.places import MICRO
from xenomask.detector import Detector
from xenomask.detector.folder import assemble
from xenomask.errors import XenomaskError
from xenomask.export import export_detector
from xenomask.models import load

OPEN = """
import json, socket, sys
asked = []
class Forbidden(socket.socket):
    def __init__(self, *a, **k):
        asked.append(f"socket {a}")
        raise OSError("forbidden")
def forbidden(*a, **k):
    asked.append(f"name {a[:2]}")
    raise OSError("forbidden")
socket.socket = Forbidden
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = forbidden
sys.addaudithook(lambda event, _: asked.append(event) if event == "os.fork" else None)

from pathlib import Path
import numpy as np
from xenomask import load_model
from xenomask.detector import Detector
from xenomask.detector.find import is_exported
from xenomask.export import open_exported
from xenomask.models.convert.recognise import convert

photo = np.zeros((40, 60, 3), np.uint8)
for kind, name in json.loads(sys.argv[1]):
    if kind == "network":
        network = load_model(name)
        network.predict(photo, size_policy="native") if "eomt" not in name else network.predict(photo)
    elif kind == "convert":
        convert(Path(name)).network.predict(photo, size_policy="native")
    elif kind == "exported":
        assert is_exported(name)
        open_exported(Path(name)).detect(photo)
    elif kind == "detector":
        Detector.from_folder(name).detect(photo)
    else:
        load_model(name, kind).predict(photo)
    print(f"opened {name}", flush=True)
assert not asked, asked
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs code in a process of its own, in which the Hub's switches are not set."""
    own = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CI")}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=own)


def opened(pairs: list[tuple[str, str]]) -> list[str]:
    """Opens each in one process without a network; gives its stderr, without the lines on kernels compiled once.

    Fails where one cannot be opened or asks somebody.
    """
    done = run(OPEN, json.dumps(pairs))
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [name for _, name in pairs]
    return [line for line in done.stderr.splitlines() if not line.startswith("compiling ")]


def test_sockets__the_test_can_fail():
    code = OPEN.split("photo =")[0] + "import huggingface_hub\n"
    code += "try: huggingface_hub.repo_exists('a/b')\nexcept Exception: pass\nassert not asked, asked"
    done = run(code)
    assert done.returncode == 1 and "AssertionError: [" in done.stderr


def test_hugging_face_folders__of_every_kind_and_of_transformers_4(tmp_path):
    pairs = []
    for kind in KINDS:
        write(kind, tmp_path / kind)
        pairs.append(("network", str(tmp_path / kind)))
        if kind in ("maskformer", "mask2former_timm", "mask2former"):
            old = as_written_by_457(kind, Path(shutil.copytree(tmp_path / kind, tmp_path / f"{kind}-4.57")))
            pairs.append(("network", str(old)))
    lines = opened(pairs)
    assert all(line.endswith("no preprocessor_config.json: ImageNet's mean and std, 1024 x 2048") for line in lines)
    assert len(lines) == len(pairs)


@pytest.mark.slow
def test_own_folders_detectors_and_other_projects_files(tiny_checkpoint, tiny_detector, tmp_path):
    pairs = [
        ("network", str(tiny_checkpoint)), ("network", "nano-s"), ("detector", str(tiny_detector)),
        ("convert", str(MICRO)), ("convert", str(written(tmp_path / "d2.pkl", plain(Checkpoint())))),
    ]  # fmt: skip
    assert opened(pairs) == []


@pytest.mark.slow
def test_exported_files_and_runtimes(tiny_checkpoint, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    one = Detector.from_folder(assemble(tmp_path / "d", "d", [("a", tiny_checkpoint)], [1.0], "entropy"))
    export_detector(one, tmp_path / "a.onnx", "onnx", size=(40, 60))
    export_detector(one, tmp_path / "a.xml", "openvino", size=(40, 60))
    opened([
        ("exported", str(tmp_path / "a.onnx")), ("exported", str(tmp_path / "a.xml")),
        ("openvino", str(tiny_checkpoint)), ("onnxruntime", str(tiny_checkpoint)),
    ])  # fmt: skip


def test_doctor__imports_every_extra_and_asks_nobody():
    code = OPEN.split("from pathlib")[0] + "from xenomask.cli.doctor_checks import examine\n"
    done = run(code + "assert len(examine(offline=True)) > 5 and 'torch' in sys.modules\nassert not asked, asked")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["maskformer", "mask2former_timm"])
def test_old_config__gives_the_same_network(kind, tmp_path):
    module = write(kind, tmp_path)
    as_written_by_457(kind, tmp_path)
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = load(tmp_path).module(pixel_values=x), module(pixel_values=x)
    for name in ("class_queries_logits", "masks_queries_logits"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5)


def test_a_backbone_that_only_the_hub_knows__is_refused(tmp_path):
    write("mask2former", tmp_path)
    named = {"backbone": "swin-base", "backbone_config": None, "use_timm_backbone": False}
    change_config(tmp_path, lambda table: table.update(named))
    with pytest.raises(XenomaskError, match="names the backbone swin-base and has no backbone_config"):
        load(tmp_path)
    change_config(tmp_path, lambda table: table.update(backbone="org/swin-base"))
    with pytest.raises(XenomaskError, match="not a plain name of timm's"):
        load(tmp_path)
