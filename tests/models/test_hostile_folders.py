"""Folders whose files lie (model.safetensors, config.json, detector.json, queries.json, ...): refused in one line."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.folders import without_hashes
from helpers.refusals import refused
from xenomask.detector import Detector
from xenomask.detector.folder import describe_folder
from xenomask.models import load
from xenomask.models.weights import read_header
from xenomask.queries import read_queries, write_queries
from xenomask.types import QuerySet

GB = 10**9


def peak() -> int:
    """The process' largest memory so far, in bytes; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text().split()
    except OSError:
        return 0
    return 1024 * int(status[status.index("VmHWM:") + 1])


@pytest.fixture(autouse=True)
def cheap():
    """Whatever a file says, no test may take half a gigabyte more than there was, nor many seconds."""
    before, began = peak(), time.monotonic()
    yield
    assert peak() - before < GB / 2 and time.monotonic() - began < 20


# --- safetensors ---------------------------------------------------------------------------------------------------


def framed(header: bytes, numbers: bytes = bytes(8), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + numbers


def one(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> bytes:
    return framed(json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode())


def two(a: tuple[int, int], b: tuple[int, int]) -> bytes:
    table = {n: {"dtype": "F32", "shape": [1], "data_offsets": o} for n, o in (("a", a), ("b", b))}
    return framed(json.dumps(table).encode())


ENTRY = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
HEADERS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "seven bytes": lambda: bytes(7),
    "no header": lambda: framed(b""),
    "huge length": lambda: framed(b"{}", length=2**63),
    "length beyond the file": lambda: framed(b"{}", length=100),
    "length into the numbers": lambda: framed(b"{" + ENTRY + b"}", length=60),
    "beyond the file": lambda: one(shape=[100], offsets=(0, 400)),
    "before the file": lambda: one(offsets=(-8, 0)),
    "begins later": lambda: one(shape=[1], offsets=(4, 8)),
    "ends earlier": lambda: one(shape=[1], offsets=(0, 4)),
    "terabytes": lambda: one(shape=[2**38], offsets=(0, 2**40 - 1)),
    "larger than any number": lambda: one(shape=[2**62, 2**62], offsets=(0, 8)),
    "empty and yet gigantic": lambda: one(shape=[0, 2**60], offsets=(0, 0)),
    "shape of another size": lambda: one(shape=[3]),
    "negative shape": lambda: one(shape=[-1, -2]),
    "fractional shape": lambda: one(shape=[2.0]),
    "shape of booleans": lambda: one(shape=[True, True], offsets=(0, 4)),
    "shape of a text": lambda: one(shape="22"),
    "forty sides": lambda: one(shape=[1] * 40 + [2]),
    "unknown type": lambda: one(dtype="F31"),
    "type of a list": lambda: one(dtype=[]),
    "one offset": lambda: one(offsets=(0,)),
    "no offsets": lambda: framed(b'{"a":{"dtype":"F32","shape":[2]}}'),
    "overlapping": lambda: two((0, 4), (0, 4)),
    "shifted": lambda: two((0, 4), (2, 6)),
    "doubled": lambda: framed(b"{" + ENTRY + b"," + ENTRY + b"}"),
    "no object": lambda: framed(b"[1,2,3]"),
    "entry of a number": lambda: framed(b'{"a":1}'),
    "no JSON": lambda: framed(b"{nothing"),
    "no text": lambda: framed(b"\xff\xfe\x00\x01"),
    "deep": lambda: framed(b"[" * 100_000),
    "deep and long": lambda: framed(b"[" * 100_000_000),
    "many digits": lambda: framed(b'{"a":' + b"9" * 100_000 + b"}"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_safetensors__whose_header_lies(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(HEADERS[name]())
    refused(read_header, path, said="damaged or no safetensors file", names=path)


def test_safetensors__header_of_a_good_file(tmp_path):
    tensors = {"b": torch.zeros(2, 3), "a": torch.ones(5, dtype=torch.int64), "c": torch.zeros(0, 4).half()}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = read_header(tmp_path / "a.safetensors")
    assert {k: (e.dtype, e.shape) for k, e in found.items()} == {k: (t.dtype, (*t.shape,)) for k, t in tensors.items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["own", "hf"])
def test_safetensors__of_no_numbers(copied, hf, value, kind):
    folder = copied if kind == "own" else hf
    tensors = load_file(folder / "model.safetensors")
    tensors["class_predictor.bias"][3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(load, folder, said="class_predictor.bias holds NaN or infinity", names=folder)


# --- a checkpoint's JSON -------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tiny_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copied"))


@pytest.fixture
def hf(tiny_checkpoint, tmp_path) -> Path:
    """The same in Hugging Face's layout."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "hf"))
    (folder / "xenomask.json").unlink()
    changed(folder / "config.json", "architectures", ["Mask2FormerForUniversalSegmentation"])
    return folder


def changed(path: Path, *change: Any) -> None:
    """The JSON file with the value at those keys replaced."""
    *keys, last, value = change
    table = inner = json.loads(path.read_text())
    for key in keys:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(table))


DEEP = "[" * 200_000 + "]" * 200_000
TEXTS = {
    "deep": DEEP, "deep objects": '{"a":' * 50_000, "a list": "[]", "a number": "5", "nothing": "",
    "twice": '{"a":1,"a":2}', "NaN": '{"a": NaN}', "digits": '{"a":' + "9" * 10_000 + "}", "cut": '{"a": [1, 2',
    "no text": "\udcff",
}  # fmt: skip
CONFIGS: dict[str, tuple[Any, ...]] = {
    "queries": ("num_queries", 10**9),
    "width": ("hidden_dim", 10**9),
    "width that might be": ("hidden_dim", 65536),
    "features": ("feature_size", -1),
    "layers": ("decoder_layers", 10**9),
    "many layers": ("encoder_layers", 5000),
    "layers of another kind": ("encoder_layers", "many"),
    "depths": ("backbone_config", "depths", [10**9, 1, 1, 1]),
    "no depths": ("backbone_config", "depths", []),
    "window": ("backbone_config", "window_size", 5000),
    "embedding": ("backbone_config", "embed_dim", 2**40),
    "labels": ("num_labels", 10**9),
    "heads": ("num_attention_heads", 0),
    "ratio": ("backbone_config", "mlp_ratio", 1e300),
    "infinite": ("backbone_config", "mlp_ratio", float("inf")),
    "digits": ("num_queries", 10**300),
    "kind": ("model_type", "llama"),
    "backbone of a kind": ("backbone_config", "model_type", "llama"),
    "backbone of a list": ("backbone_config", [1, 2]),
    "no backbone": ("backbone_config", None),
    "backbone by a name": ("backbone_config", {"model_type": "timm_backbone", "backbone": "hf-hub:a/b"}),
    "backbone in a folder": ("backbone_config", {"model_type": "timm_backbone", "backbone": "local-dir:/tmp"}),
    "code": ("auto_map", {"AutoConfig": "code.Config", "AutoModel": "code.Model"}),
    "code in the backbone": ("backbone_config", "auto_map", {"AutoBackbone": "a/b--code.Model"}),
    "kernel": ("attn_implementation", "kernels-community/x"),
    "kernel in the backbone": ("backbone_config", "_attn_implementation", "a/b"),
    "quantised": ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "method": ("to_dict", 5),
    "class": ("__class__", "x"),
}


@pytest.mark.parametrize("kind", ["own", "hf"])
@pytest.mark.parametrize("name", CONFIGS)
def test_config__that_lies(copied, hf, name, kind):
    folder = copied if kind == "own" else hf
    changed(folder / "config.json", *CONFIGS[name])
    refused(load, folder, names=folder)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("file", ["config.json", "xenomask.json"])
def test_json__of_a_checkpoint_that_is_none(copied, file, name):
    (copied / file).write_bytes(TEXTS[name].encode(errors="surrogateescape"))
    refused(load, copied, said="damaged", names=copied)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 10**9), ("size", "64"), ("size", 0), ("size", True), ("longest", -1), ("divisor", 0),
        ("divisor", 10**9), ("policy", "wide"), ("policy", []), ("mean", [1, 2]), ("mean", ["a", "b", "c"]),
        ("std", [0, 1, 1]), ("std", [1e-9, 1, float("inf")]), ("mean", "abc"), ("antialias", "yes"), ("more", 1),
    ],
)  # fmt: skip
def test_preprocess__that_lies(copied, key, value):
    changed(copied / "xenomask.json", "preprocess", key, value)
    refused(load, copied, said="xenomask.json is damaged", names=copied)


def test_huggingface__shards_outside_the_folder(hf, tmp_path):
    (hf / "model.safetensors").rename(tmp_path / "x.safetensors")
    index = {"metadata": {}, "weight_map": {"class_predictor.bias": "../x.safetensors"}}
    (hf / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(load, hf, said="is none inside the folder", names=hf)


def test_huggingface__bin_that_calls(hf, tmp_path):
    import os

    class Call:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    (hf / "model.safetensors").unlink()
    torch.save({"class_predictor.bias": Call()}, hf / "pytorch_model.bin")
    refused(load, hf, said="asks for", names=hf)
    assert not (tmp_path / "canary").exists()


# --- detectors and queries -----------------------------------------------------------------------------------------


@pytest.fixture
def detector(tiny_detector, tmp_path) -> Path:
    return without_hashes(Path(shutil.copytree(tiny_detector, tmp_path / "detector")))


@pytest.mark.parametrize("name", ["../../x", "/etc", "..", ".", "", "a/b", "a\nb", 5, None, ["a"], "b", "\0"])
def test_detector__member_outside_or_twice(detector, name):
    changed(detector / "detector.json", "members", 0, "name", name)
    for call in (Detector.from_folder, describe_folder):
        refused(call, detector, names=detector)


@pytest.mark.parametrize("weight", [float("nan"), 1e999, -1, 10**400, "0.25", None, True, [0.25]])
def test_detector__weight_that_is_none(detector, weight):
    changed(detector / "detector.json", "members", 0, "weight", weight)
    refused(Detector.from_folder, detector)


@pytest.mark.parametrize(
    "change",
    [
        ("members", []), ("members", {}), ("members", None), ("members", [[]]), ("members", [{}] * 10_000),
        ("members", 0, "score", []), ("members", 0, "score", "../x"), ("members", 0, "options", {"mix": []}),
        ("members", 0, "options", [1]), ("thresholds", {"default": {"value": "x"}}), ("thresholds", [1]),
        ("thresholds", {"default": {"value": float("inf")}}), ("calibration", {"fit": {"kind": []}}),
        ("calibration", 5),
    ],
    ids=str,
)  # fmt: skip
def test_detector__that_lies(detector, change):
    changed(detector / "detector.json", *change)
    refused(Detector.from_folder, detector)


@pytest.mark.parametrize("name", TEXTS)
def test_json__of_a_detector_that_is_none(detector, name):
    (detector / "detector.json").write_bytes(TEXTS[name].encode(errors="surrogateescape"))
    refused(Detector.from_folder, detector, said="damaged", names=detector)


@pytest.mark.parametrize(
    "change",
    [
        ("inlier", {"1": 10**9}), ("inlier", {"-1": 2}), ("inlier", {"x": 2}), ("inlier", [1]), ("inlier", {"1": 0.5}),
        ("inlier", {"9" * 5000: 1}), ("outlier", {"0": float("inf")}), ("outlier", {"0": "x"}),
        ("ground", 5), ("ground", [True]), ("ground", "12"), ("ground", [10**30]), ("origin", []),
        ("origin", {"outlier": 5}), ("origin", {"outlier": {"per_frame_iou": [1]}}), ("checkpoint_sha256", 5),
        ("origin", {"outlier": {"per_frame_iou": {"a": [0.1], "b": [0.1, 0.2]}, "iou": 0.2, "top_k": None}}),
    ],
    ids=lambda c: str(c)[:60],
)  # fmt: skip
def test_queries__that_lie(tmp_path, change):
    path = write_queries(tmp_path, QuerySet("sha", {1: 2}, {0: 0.5}, (1,)))
    changed(path, *change)
    refused(lambda p: read_queries(tmp_path, "sha"), path, said="damaged", names=path)


@pytest.mark.parametrize("name", TEXTS)
def test_json__of_queries_that_is_none(tmp_path, name):
    path = write_queries(tmp_path, QuerySet("sha"))
    path.write_bytes(TEXTS[name].encode(errors="surrogateescape"))
    refused(lambda p: read_queries(tmp_path, "sha"), path, said="damaged", names=path)


def test_queries__that_the_network_has_not(detector):
    sha = load(detector / "a").sha256
    write_queries(detector / "a", QuerySet(sha, {8: 1}))
    refused(Detector.from_folder, detector, said="names query 8, its network has 0..7", names=detector)
