import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.cli import fails, run
from helpers.outputs import make_output
from helpers.places import ROOT
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.export import ExportedDetector, export_detector, open_exported
from xenomask.export.content import MARK, stamped
from xenomask.export.free import Free, shrink
from xenomask.export.fused import Fused, score_rows
from xenomask.export.resize import Resize
from xenomask.masks import row_blocks, soft_masks
from xenomask.models.runtimes.graph import onnx_bytes, to_openvino, trace
from xenomask.models.runtimes.sessions import onnx_session, openvino_session
from xenomask.opening import with_refine
from xenomask.refine import REFINEMENTS, Seen
from xenomask.scores import SCORES, score_all
from xenomask.types import QuerySet

SIZE = (60, 100)
IMAGE = draw_scene(0, SIZE).image
REFINED = ["vehicles:quantile=.9", "pooling:up=.7", "attenuation:alpha=.5"]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def exported(tiny_detector, tmp_path_factory) -> dict[str, Path]:
    """The tiny pair as one ONNX file and its member a as one OpenVINO file, and member b's queries as ONNX."""
    folder, pair = tmp_path_factory.mktemp("exported"), Detector.from_folder(tiny_detector)
    pair = replace(pair, thresholds={"default": {"value": 0.5, "origin": "a test"}})
    export_detector(pair, folder / "pair.onnx", "onnx", size=SIZE, terms="for tests only")
    export_detector(pair.only("a"), folder / "a.xml", "openvino", size=SIZE)
    export_detector(pair.only("b"), folder / "b.onnx", "onnx", size=SIZE, queries=True)
    export_detector(pair.with_refine(REFINED), folder / "refined.onnx", "onnx", size=SIZE)
    assert not [p for p in folder.iterdir() if "part" in p.name]
    return {p.name: p for p in folder.iterdir()}


@pytest.mark.parametrize(
    ("size", "target", "area"),
    [
        ((60, 100), (64, 107), False), ((720, 1280), (384, 683), False), ((40, 60), (64, 96), False),
        ((45, 61), (20, 27), False), ((720, 1280), (384, 683), True), ((90, 121), (64, 86), True),
        ((128, 200), (64, 100), True), ((90, 120), (30, 40), True), ((200, 333), (31, 52), True),
    ],
)  # fmt: skip
def test_resize__equals_cv2_in_every_pixel(size, target, area):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
    found = Resize(size, target, area)(torch.from_numpy(image).float())
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_resize__equals_cv2_in_every_runtime(runtime):
    # INTER_AREA's sums have halves, so that a last bit moves a pixel by one level
    size, target = (720, 1280), (384, 683)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA)
    program = trace(Resize(size, target, True), torch.from_numpy(image).float())
    if runtime == "openvino":
        session = openvino_session(to_openvino(program, ["image"], ["score"]))
    else:
        session = onnx_session(onnx_bytes(program, ["image"], ["score"]))
    (found,) = session(image.astype(np.float32))
    assert np.array_equal(found, expected)


def test_fused__in_torch_is_the_detectors_own_map(tiny_detector):
    pair = Detector.from_folder(tiny_detector)
    with torch.inference_mode():
        found = Fused(pair, SIZE)(torch.from_numpy(IMAGE)[None])
    assert found.shape == (1, *SIZE)
    assert np.abs(found[0].numpy() - pair.detect(IMAGE).value).max() < 1e-6


def test_free__is_the_detectors_map_where_photos_have_the_exports_size(tiny_detector):
    """Not bit by bit: values that lie on a half are rounded in another order than cv2's."""
    pair = Detector.from_folder(tiny_detector)
    with torch.inference_mode():
        found = Free(pair, SIZE)(torch.from_numpy(IMAGE)[None])[0].numpy()
    assert found.shape == SIZE and np.abs(found - pair.detect(IMAGE).value).mean() < 1e-3


@pytest.mark.parametrize(("n", "cells"), [(90, 40), (41, 40), (333, 32)])
def test_free__shrinking_is_cv2s_average(n, cells):
    """Against cv2 on float rows, which it does not round."""
    x = np.random.default_rng(0).random((n, 1), np.float32)
    matrix = shrink(cells, torch.tensor(float(cells)), torch.arange(float(n)), torch.tensor(True))
    expected = cv2.resize(x, (1, cells), interpolation=cv2.INTER_AREA)
    assert np.allclose(matrix.numpy() @ x, expected, atol=2e-3)  # cv2 leaves out shares of a pixel below .001


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_export__dynamic_takes_photos_of_any_size(tiny_detector, tmp_path, format):
    pair = Detector.from_folder(tiny_detector).with_score("max_logit")
    path = tmp_path / ("d.onnx" if format == "onnx" else "d.xml")
    assert export_detector(pair, path, format, size=SIZE, dynamic=True)["dynamic"] is True
    found = open_exported(path)
    for size in (SIZE, (81, 130), (130, 81), (47, 200)):
        photo = cv2.resize(IMAGE, size[::-1])
        with torch.inference_mode():
            expected = Free(pair, SIZE)(torch.from_numpy(photo)[None])[0].numpy()
        value = found.detect(photo).value
        assert value.shape == size and np.abs(value - expected).mean() < 1e-4, size


@pytest.mark.slow
@pytest.mark.parametrize(("format", "batch", "counts"), [
    ("onnx", None, range(1, 9)), ("openvino", None, range(1, 9)), ("onnx", 3, (1, 3, 8)), ("openvino", 2, (1, 5)),
])  # fmt: skip
@pytest.mark.parametrize("queries", [False, True])
def test_export__batches_give_the_maps_of_single_photos(tiny_detector, tmp_path, format, batch, counts, queries):
    one = Detector.from_folder(tiny_detector).only("a")
    photos = [draw_scene(s, SIZE).image for s in range(8)]
    true = [one.detect(p).value for p in photos]
    path = tmp_path / ("b.onnx" if format == "onnx" else "b.xml")
    assert export_detector(one, path, format, size=SIZE, batch=batch, queries=queries)["batch"] == batch
    found = open_exported(path)
    for n in counts:
        for photo, value in zip(found(photos[:n]), true[:n], strict=True):
            assert np.abs(photo.score_map.value - value).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_export__half_stores_the_weights_in_float16(tiny_detector, tmp_path, ending):
    """Networks whose weights are float16's own numbers lose nothing but what was folded into others."""
    pair, format = Detector.from_folder(tiny_detector), "onnx" if ending == ".onnx" else "openvino"
    for m in pair.members:
        m.network.module.half().float()
    found = {}
    for half in (False, True):
        path = tmp_path / f"{half}{ending}"
        assert export_detector(pair, path, format, size=SIZE, half=half)["half"] is half
        weights = path if ending == ".onnx" else path.with_suffix(".bin")
        found[half] = weights.stat().st_size, open_exported(path).detect(IMAGE).value
    assert found[True][0] < 0.8 * found[False][0]
    assert np.abs(found[True][1] - found[False][1]).mean() < 1e-3


class AllScores(nn.Module):
    """Every score of given logits, stacked."""

    def __init__(self, output, queries):
        super().__init__()
        self.output, self.queries = output, queries

    def forward(self, mask_logits):
        output = replace(self.output, mask_logits=mask_logits)
        blocks = [soft_masks(output, rows) for rows in row_blocks(output)]
        maps = [[score_rows(s, output, self.queries, m) for m in blocks] for s in SCORES.values()]
        return torch.stack([torch.cat(parts) for parts in maps])


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_scores__in_a_graph_are_the_scores(runtime):
    # 2100 x 70 pixels are more than one block of rows
    output = replace(make_output(image=(70, 2100), outlier_class=True), class_logits=make_output().class_logits * 3)
    queries = QuerySet(inlier={0: 1, 3: 2}, outlier={1: 0.5, 4: 0.4}, ground=(2,))
    expected = np.stack([m.value for m in score_all(output, queries, SCORES.values()).values()])
    assert np.ptp(expected.reshape(len(SCORES), -1), axis=1).min() > 1e-4
    program = trace(AllScores(output, queries), output.mask_logits)
    if runtime == "openvino":
        session = openvino_session(to_openvino(program, ["image"], ["score"]))
    else:
        session = onnx_session(onnx_bytes(program, ["image"], ["score"]))
    (found,) = session(output.mask_logits.numpy())
    assert np.abs(found - expected).max() < 2e-5


class Refined(nn.Module):
    """A map as every refinement that graphs can hold changes it, by given logits."""

    def __init__(self, output, value, names):
        super().__init__()
        self.output, self.value, self.names = output, value, names

    def forward(self, mask_logits):
        seen = Seen(replace(self.output, mask_logits=mask_logits), self.names, -1.0)
        return torch.stack([r.of(self.value, seen) for r in REFINEMENTS.values() if r.on_tensors])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_refinements__in_a_graph_are_the_refinements(runtime):
    output = make_output(h=12, w=20, padded=(48, 80), used=(46, 70), image=(110, 175))
    value = np.random.default_rng(0).uniform(-1, 0, (110, 175)).astype(np.float32)
    names = ("car", "road", "bus", "sky")
    expected = [r(value, Seen(output, names, -1.0)) for r in REFINEMENTS.values() if r.on_tensors]
    assert len(expected) == 3 and min(np.abs(e - value).max() for e in expected) > 1e-2
    program = trace(Refined(output, torch.from_numpy(value), names), output.mask_logits)
    if runtime == "openvino":
        session = openvino_session(to_openvino(program, ["image"], ["score"]))
    else:
        session = onnx_session(onnx_bytes(program, ["image"], ["score"]))
    (found,) = session(output.mask_logits.numpy())
    assert np.abs(found - np.stack(expected)).max() < 1e-5


def test_exported__refined_is_the_refined_detectors_map(exported, tiny_detector):
    pair = Detector.from_folder(tiny_detector)
    found, want = open_exported(exported["refined.onnx"]), pair.with_refine(REFINED)
    assert np.abs(found.detect(IMAGE).value - want.detect(IMAGE).value).max() < 1e-4
    assert np.abs(want.detect(IMAGE).value - pair.detect(IMAGE).value).max() > 1e-3
    assert found.thresholds == {} and found.describe()["refine"] == want.describe()["refine"]
    for refine in (["none"], ["masks"]):
        with pytest.raises(XenomaskError, match="what refines its map is part of it"):
            with_refine(found, refine)
    assert with_refine(found, None) is found


@pytest.mark.slow
def test_export__batches_are_refined_photo_by_photo(tiny_detector, tmp_path):
    pair = Detector.from_folder(tiny_detector).with_refine(REFINED)
    photos = [draw_scene(s, SIZE).image for s in range(2)]
    export_detector(pair, tmp_path / "b.onnx", "onnx", size=SIZE, batch=2)
    for photo, found in zip(photos, open_exported(tmp_path / "b.onnx")(photos), strict=True):
        assert np.abs(found.score_map.value - pair.detect(photo).value).max() < 1e-4


def test_export__what_no_graph_refines(tiny_detector, tmp_path, capsys):
    """Such a file gives the map before, by that map's threshold; a file of logits is refined by who reads it."""
    pair = Detector.from_folder(tiny_detector)
    own = {"default": {"value": 0.5, "origin": "refined"}, "unrefined:default": {"value": 0.25, "origin": "before"}}
    better = replace(pair.with_refine(["masks"]), thresholds=own)
    with pytest.raises(XenomaskError, match="by masks, which no graph holds: export it with --refine none"):
        export_detector(better, tmp_path / "x.onnx", "onnx", size=SIZE)
    with pytest.raises(XenomaskError, match="by vehicles, which no graph for photos of any size holds"):
        export_detector(pair.with_refine(["vehicles"]), tmp_path / "x.onnx", "onnx", size=SIZE, dynamic=True)
    better.save(tmp_path / "better")
    at = ("export", tmp_path / "better", "--size", "100x60", "--out")
    code, _, err = run(capsys, *at, tmp_path / "x.onnx")
    assert code == 0 and "no graph holds the refinement masks of pair+masks: the file gives the map before it" in err
    found = open_exported(tmp_path / "x.onnx")
    assert found.name == "pair+masks-unrefined" and found.thresholds["default"]["value"] == 0.25
    assert np.abs(found.detect(IMAGE).value - pair.detect(IMAGE).value).max() < 1e-4
    code, _, err = run(capsys, *at, tmp_path / "q.onnx", "--queries", "--member", "a")
    assert code == 0 and "no graph" not in err, err
    logits, alone = open_exported(tmp_path / "q.onnx"), better.only("a")
    assert np.abs(logits.detect(IMAGE).value - alone.detect(IMAGE).value).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("file", "member"), [("pair.onnx", None), ("a.xml", "a"), ("b.onnx", "b")])
def test_exported__gives_the_detectors_map(exported, tiny_detector, file, member):
    detector = Detector.from_folder(tiny_detector)
    detector = detector.only(member) if member else detector
    found = open_exported(exported[file])
    assert np.abs(found.detect(IMAGE).value - detector.detect(IMAGE).value).max() < 1e-4
    assert (found.scale, found.score_name, found.name) == (detector.scale, "entropy", "pair")


def test_exported__photos_of_another_size_are_resized_and_said_once(exported, tiny_detector, caplog):
    found = open_exported(exported["pair.onnx"])
    large = cv2.resize(IMAGE, (150, 90), interpolation=cv2.INTER_LINEAR)
    for _ in range(2):
        value = found.detect(large).value
    assert value.shape == (90, 150) and len(caplog.records) == 1
    assert "was exported for 100x60 photos: one of 150x90 is resized" in caplog.text
    assert np.abs(value - Detector.from_folder(tiny_detector).detect(large).value).mean() < 0.01
    with pytest.raises(XenomaskError, match=r"network input 128x64\), this one needs 96x64: export with"):
        open_exported(exported["b.onnx"]).detect(np.zeros((64, 80, 3), np.uint8))


def test_exported__says_what_it_is(exported, tiny_detector):
    model = onnx.load(exported["pair.onnx"])
    about = json.loads({p.key: p.value for p in model.metadata_props}["xenomask"])
    pair = Detector.from_folder(tiny_detector)
    assert [m["sha256"] for m in about["members"]] == [m.network.sha256 for m in pair.members]
    assert [m["weight"] for m in about["members"]] == [0.25, 0.75]
    assert (about["size"], about["score"], about["scale"], about["terms"]) == (
        [60, 100], "entropy", [0.0, 1.0], "for tests only",
    )  # fmt: skip
    assert about["members"][0]["classes"][13] == "car" and about["thresholds"]["default"]["value"] == 0.5
    assert str(Path.cwd()).encode() not in exported["pair.onnx"].read_bytes()  # no paths of this machine
    found = open_exported(exported["pair.onnx"])
    assert isinstance(found, ExportedDetector) and found.networks == ("a", "b")
    assert found.describe()["members"] == pair.describe()["members"]


@pytest.mark.parametrize("queries", [False, True])
def test_exported__a_threshold_that_is_no_number_is_damage(tiny_detector, tmp_path, queries):
    found = replace(Detector.from_folder(tiny_detector).only("a"), thresholds={"default": {"value": "x"}})
    export_detector(found, tmp_path / "f.onnx", "onnx", size=SIZE, queries=queries)
    with pytest.raises(XenomaskError, match="f.onnx has damaged metadata"):
        open_exported(tmp_path / "f.onnx")


def test_export__says_the_terms_of_the_card_that_save_writes(tiny_detector, tmp_path, capsys):
    saved = Detector.from_folder(tiny_detector).save(tmp_path / "d")
    done = ("export", saved, "--size", "100x60", "--member", "a", "--format", "openvino", "--out", tmp_path / "f.xml")
    assert run(capsys, *done)[0] == 0
    terms = cast("ExportedDetector", open_exported(tmp_path / "f.xml")).metadata["terms"]
    assert terms == "not stated: whoever shares this detector says here what its training data and weights allow"


def test_export__cannot_be_asked_for(tiny_detector, tmp_path, capsys):
    at = ("export", tiny_detector, "--out", tmp_path / "f.onnx")
    assert "give --size WxH" in fails(capsys, *at)
    assert "leave --dynamic or --batch out" in fails(capsys, *at, "--size", "100x60", "--dynamic", "--batch", "2")
    for bad in ("0", "65", "two"):
        assert "a number from 1 to 64, or dynamic" in fails(capsys, *at, "--size", "100x60", "--batch", bad)
    one = (*at, "--size", "100x60", "--member", "a")
    assert "whose size is fixed: leave --dynamic out" in fails(capsys, *one, "--dynamic", "--queries")
    assert "has a, b: choose one with --member" in fails(capsys, *at, "--size", "100x60", "--queries")
    assert "did you mean 'onnx'" in fails(capsys, *at, "--size", "100x60", "--format", "onx")
    assert "ends in .xml" in fails(capsys, *at, "--size", "100x60", "--format", "openvino")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_detect_and_benchmark__take_an_exported_file(exported, tmp_path, capsys):
    Image.fromarray(IMAGE).save(tmp_path / "p.png")
    at = ("detect", tmp_path / "p.png", "--out", tmp_path / "out", "--detector")
    code, out, err = run(capsys, *at, exported["pair.onnx"])
    assert code == 0 and "score: entropy, higher is more anomalous; an object scores above 0.5\n" in out, err
    assert "its score entropy is part of it" in fails(capsys, *at, exported["pair.onnx"], "--score", "rba")
    assert "its members are fused inside" in fails(capsys, *at, exported["pair.onnx"], "--member", "a")
    assert "runs in onnxruntime, not in torch" in fails(capsys, *at, exported["pair.onnx"], "--runtime", "torch")
    assert "in openvino on the CPU: leave --device" in fails(capsys, *at, exported["a.xml"], "--device", "cuda")
    code, out, _ = run(capsys, *at, exported["b.onnx"], "--score", "rba")
    assert code == 0 and "score rba" in out
    data = ("--dataset", "anomaly-track", "--root", tmp_path / "scenes", "--out", tmp_path / "bench")
    assert run(capsys, "synthetic", "--out", tmp_path / "scenes", "--frames", 2, "--size", "100x64")[0] == 0
    code, out, err = run(capsys, "benchmark", "--detector", exported["pair.onnx"], *data)
    assert code == 0 and "| ensemble | unknown | entropy | - |" in (tmp_path / "bench/table.md").read_text(), err


def damage(path: Path, folder: Path, how) -> Path:
    model = onnx.load(path)
    how(model)
    data = model.SerializeToString()
    if MARK in data:  # what else refuses it than the hash of its content
        data, _ = stamped(data)
    (folder / "bad.onnx").write_bytes(data)
    return folder / "bad.onnx"


def outside(model) -> None:
    tensor = next(t for t in model.graph.initializer if len(t.raw_data) > 100)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def outside_in_a_subgraph(model) -> None:
    node = model.graph.node.add(op_type="Constant", output=["hidden"])
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[9])
    tensor.external_data.add(key="location", value="/etc/passwd")
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
    node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)


def lie(model) -> None:
    tensor = next(t for t in model.graph.initializer if len(t.raw_data) > 100)
    tensor.dims[0] *= 1000


def other_size(model) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 10_000


def no_metadata(model) -> None:
    del model.metadata_props[:]


def half_metadata(model, lacks: str = "scale") -> None:
    text = next(p for p in model.metadata_props if p.key == "xenomask")
    text.value = json.dumps({k: v for k, v in json.loads(text.value).items() if k != lacks})


def deep_metadata(model) -> None:
    next(p for p in model.metadata_props if p.key == "xenomask").value = 99999 * "["


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (outside, "keeps weights in other files"), (outside_in_a_subgraph, "keeps weights in other files"),
        (lie, "bad.onnx"), (other_size, "says that it takes 1 photos of"),
        (no_metadata, "was not written by `xenomask export`"), (half_metadata, "has damaged metadata"),
        (partial(half_metadata, lacks="describe"), "has damaged metadata"), (deep_metadata, "has damaged metadata"),
    ],
)  # fmt: skip
def test_open__hostile_and_foreign_onnx_files(exported, tmp_path, how, message):
    with pytest.raises(XenomaskError, match=message) as e:
        open_exported(damage(exported["pair.onnx"], tmp_path, how))
    assert "\n" not in str(e.value)


def test_open__damaged_files(exported, tmp_path, monkeypatch):
    whole = exported["pair.onnx"].read_bytes()
    for name, data in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("noise", b"\x93" * 999)):
        (tmp_path / f"{name}.onnx").write_bytes(data)
        with pytest.raises(XenomaskError, match=f"{name}.onnx (is damaged|is empty|was not written|is no valid)"):
            open_exported(tmp_path / f"{name}.onnx")
    shutil.copy(exported["a.xml"], tmp_path / "a.xml")
    with pytest.raises(XenomaskError, match=r"lacks its weights, a\.bin"):
        open_exported(tmp_path / "a.xml")
    weights = exported["a.bin"].read_bytes()
    (tmp_path / "a.bin").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(XenomaskError, match="a.xml is damaged or no OpenVINO file"):
        open_exported(tmp_path / "a.xml")
    with pytest.raises(XenomaskError, match="no such file"):
        open_exported(tmp_path / "nowhere.onnx")
    one = openvino.opset13.parameter([1], np.float32)  # pyright: ignore
    foreign = openvino.Model([openvino.opset13.relu(one)], [one], "f")  # pyright: ignore
    openvino.serialize(foreign, str(tmp_path / "f.xml"), str(tmp_path / "f.bin"))
    with pytest.raises(XenomaskError, match="was not written by"):
        open_exported(tmp_path / "f.xml")
    for module, file in (("onnxruntime", "pair.onnx"), ("openvino", "a.xml")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(XenomaskError, match=rf"{module} is not installed: pip install 'xenomask\["):
            open_exported(exported[file])


@pytest.mark.slow
@pytest.mark.parametrize(("example", "file"), [("run_onnx.py", "pair.onnx"), ("run_openvino.py", "a.xml")])
def test_examples__run_without_xenomask_and_torch(exported, tmp_path, example, file):
    Image.fromarray(IMAGE).save(tmp_path / "p.png")
    arguments = [example, str(exported[file]), str(tmp_path / "p.png"), str(tmp_path / "heatmap.png")]
    code = (
        "import runpy, sys\nsys.modules['torch'] = sys.modules['xenomask'] = None\n"
        f"sys.argv = {arguments!r}\nrunpy.run_path({str(EXAMPLES / example)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("pair, entropy: 0."), done.stderr
    heatmap = cv2.imread(str(tmp_path / "heatmap.png"))
    assert heatmap is not None and heatmap.shape == (*SIZE, 3)
    assert len((EXAMPLES / example).read_text().splitlines()) <= 40


# What an exported graph may be made of: operators that TensorRT and OpenVINO have, and no Einsum, Loop, If or NonZero.
OPERATORS = {
    "Add", "And", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Concat",
    "Constant", "Conv", "Cos", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "GridSample", "Identity",
    "InstanceNormalization", "IsNaN", "LayerNormalization", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min",
    "Mul", "Neg", "Not", "Or", "Pad", "Pow", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape",
    "Resize", "Round", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tile",
    "TopK", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
OPSET = 20


def test_export__has_no_einsum_and_no_odd_operators(exported):
    for file in exported.values():
        if file.suffix == ".onnx":
            model = onnx.load(file)
            assert {n.op_type for n in model.graph.node} <= OPERATORS
            assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", OPSET)]


@pytest.mark.parametrize(("batch", "most"), [(1, 0), (None, 8)])
def test_serving__names_types_and_shapes_are_the_graphs(exported, tmp_path, batch, most):
    from xenomask.export import write_serving
    from xenomask.export.read import _open_onnx

    file = next(f for f in exported.values() if f.suffix == ".onnx" and _open_onnx(f)[0]["kind"] == "map")
    metadata = {**_open_onnx(file)[0], "batch": batch}
    write_serving(file, metadata, tmp_path / "models")
    session = onnxruntime.InferenceSession(tmp_path / "models/triton" / file.stem / "1/model.onnx")
    text = (tmp_path / "models/triton" / file.stem / "config.pbtxt").read_text()
    kinds = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    for port in (*session.get_inputs(), *session.get_outputs()):
        dims = ", ".join(map(str, port.shape if batch else port.shape[1:]))  # Triton's own axis comes before
        assert f'{{ name: "{port.name}", data_type: {kinds[port.type]}, dims: [ {dims} ] }}' in text
    assert f"max_batch_size: {most}\n" in text
    (config,) = json.loads((tmp_path / "models/ovms/config.json").read_text())["model_config_list"]
    assert (tmp_path / "models/ovms" / config["config"]["base_path"] / "1/model.onnx").is_file()
    assert config["config"]["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}
    with pytest.raises(XenomaskError, match="exists"):
        write_serving(file, metadata, tmp_path / "models")
