"""Components for other tools: masks come back bit for bit, and boxes, areas and scores are the map's."""

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from helpers.cli import fails, run, write_maps
from xenomask.errors import XenomaskError
from xenomask.objects.objects import decode_rle, encode_rle, find_objects, relative_box, to_fiftyone, to_supervision


def decode_by_hand(rle) -> np.ndarray:
    """COCO's compressed run lengths, written from their description, one letter after the other."""
    numbers, bits = [], []
    for letter in rle["counts"]:
        code = ord(letter) - 48
        bits += [code >> k & 1 for k in range(5)]
        if code < 32:
            number = sum(b << k for k, b in enumerate(bits[:-1])) - (bits[-1] << (len(bits) - 1))
            numbers.append(number + numbers[-2] if len(numbers) > 2 else number)
            bits = []
    height, width = rle["size"]
    pixels, on = [], False
    for n in numbers:
        pixels += [on] * n
        on = not on
    return np.array([[pixels[x * height + y] for x in range(width)] for y in range(height)], bool)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 9))))
def test_rle__comes_back_bit_for_bit(mask):
    rle = encode_rle(mask)
    assert (decode_by_hand(rle) == mask).all() and (decode_rle(rle) == mask).all()
    json.dumps(rle)


def test_rle__long_runs_and_negative_differences():
    mask = np.zeros((300, 200), bool)
    mask[:, 50:150] = True
    mask[10, 60] = mask[11, 90] = False
    assert (decode_by_hand(encode_rle(mask)) == mask).all()
    for whole in (np.zeros((7, 5), bool), np.ones((7, 5), bool)):
        assert (decode_by_hand(encode_rle(whole)) == whole).all()


def make_map(seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(60, 80))
    return ndimage.gaussian_filter(noise, 3).astype(np.float16)


@pytest.mark.parametrize("smallest", [1, 20])
def test_find_objects__are_scipys_components(smallest):
    value, threshold = make_map(), 0.05
    labelled: Any = ndimage.label(value > np.float16(threshold), np.ones((3, 3)))
    number, count = labelled
    truth = []
    for k in range(1, count + 1):
        ys, xs = np.nonzero(number == k)
        inside = value[ys, xs].astype(float)
        box = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        if len(ys) >= smallest:
            truth.append((box, len(ys), pytest.approx(inside.mean()), pytest.approx(inside.max())))
    found = find_objects(value, threshold, smallest)
    key = lambda t: tuple(map(int, t[0]))  # noqa: E731
    assert sorted(((f.box, f.area, f.score, f.peak) for f in found), key=key) == sorted(truth, key=key)
    rank = [f.area * (f.score - threshold) for f in found]
    assert rank == sorted(rank, reverse=True) and all(f.share == f.area / value.size for f in found)
    union = sum((decode_by_hand(f.rle).astype(int) for f in found), np.zeros(value.shape, int))
    assert union.max() == 1 and union.sum() == sum(f.area for f in found)


def test_find_objects__threshold_must_be_a_number():
    with pytest.raises(XenomaskError, match="not a finite number"):
        find_objects(make_map(), float("nan"))
    assert find_objects(make_map(), 1e9) == []


def test_cli__coco_file_and_lines_say_the_same(tmp_path, capsys):
    values = {"a": make_map(1), "b": make_map(2), "c": np.zeros((60, 80), np.float16)}
    maps = write_maps(tmp_path / "maps", **values)
    for name in ("x.json", "x.jsonl"):
        code, out, _ = run(
            capsys, "components", maps, "--threshold", 0.05, "--out", tmp_path / name, "--ending", ".jpg"
        )
        assert code == 0 and "of 3 maps" in out
    coco = json.loads((tmp_path / "x.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [i["file_name"] for i in coco["images"]] == ["a.jpg", "b.jpg", "c.jpg"]
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"]) > 2
    assert {a["category_id"] for a in coco["annotations"]} == {c["id"] for c in coco["categories"]}
    for image, line in zip(coco["images"], lines, strict=True):
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert [(a["bbox"], a["area"], a["score"], a["segmentation"]) for a in own] == [
            (c["box"], c["area"], c["score"], c["rle"]) for c in line["components"]
        ]
        union = sum((decode_by_hand(a["segmentation"]).astype(int) for a in own), np.zeros((60, 80), int))
        assert (union == (values[line["id"]] > np.float16(0.05))).all()


def png_parts(data: bytes):
    """A PNG's header, text chunks and 16-bit rows, read without an image library."""
    at, parts = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    header = struct.unpack(">IIBBBBB", parts[0][1])
    text = dict(body.split(b"\0", 1) for kind, body in parts if kind == b"tEXt")
    return header, text, zlib.decompress(b"".join(body for kind, body in parts if kind == b"IDAT"))


def test_cli__png16_holds_the_map_on_one_stored_scale(tmp_path, capsys):
    import cv2

    values = {"a": make_map(1), "b": (10 * make_map(2)).astype(np.float16)}
    maps = write_maps(tmp_path / "maps", **values)
    out = tmp_path / "png"
    code, *_ = run(capsys, "components", maps, "--threshold", 0, "--out", tmp_path / "x.json", "--png16", out)
    assert code == 0
    scales = set()
    for name, value in values.items():
        header, text, _ = png_parts((out / f"{name}.png").read_bytes())
        assert header[:4] == (80, 60, 16, 0)  # width, height, bits, grey
        low, high = float(text[b"low"]), float(text[b"high"])
        scales.add((low, high))
        stored = cv2.imread(str(out / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert stored is not None and stored.dtype == np.uint16
        back = low + stored.astype(float) * (high - low) / 65535
        assert np.abs(back - value.astype(float)).max() <= (high - low) / 65535
    assert len(scales) == 1


def test_cli__flat_maps_and_bad_input(tmp_path, capsys):
    flat = write_maps(tmp_path / "flat", a=np.full((3, 4), 0.5, np.float16))
    code, *_ = run(capsys, "components", flat, "--threshold", 0.1, "--out", tmp_path / "f.json", "--png16", tmp_path)
    assert code == 0 and json.loads((tmp_path / "f.json").read_text())["annotations"][0]["area"] == 12
    assert "ends neither with .json" in fails(capsys, "components", flat, "--threshold", 1, "--out", tmp_path / "x.xml")
    (tmp_path / "none").mkdir()
    common = ("--threshold", 1, "--out", tmp_path / "x.json")
    assert "holds no map" in fails(capsys, "components", tmp_path / "none", *common)
    assert "no folder of maps" in fails(capsys, "components", tmp_path / "gone", *common)
    (tmp_path / "none" / "a.hdf5").write_text("no map")
    assert "damaged" in fails(capsys, "components", tmp_path / "none", *common)
    assert "not a finite number" in fails(
        capsys, "components", flat, "--threshold", "nan", "--out", tmp_path / "x.json"
    )
    assert not (tmp_path / "x.json").exists()


def test_to_supervision__says_what_the_objects_say():
    pytest.importorskip("supervision", reason="needs supervision, an optional package")
    value = make_map(3)
    found, detections = find_objects(value, 0.05), to_supervision(value, 0.05)
    assert len(detections) == len(found)
    for f, box, mask in zip(found, detections.xyxy, detections.mask, strict=True):
        assert (mask == decode_by_hand(f.rle)).all()
        assert tuple(box) == (f.box[0], f.box[1], f.box[0] + f.box[2], f.box[1] + f.box[3])
    assert len(to_supervision(value, 100.0)) == 0


def test_to_supervision__its_own_tools_take_what_we_give():
    sv = pytest.importorskip("supervision", reason="needs supervision, an optional package")
    value = make_map(3)
    detections = to_supervision(value, 0.05, 20)
    assert detections.area.tolist() == [f.area for f in find_objects(value, 0.05, 20)]
    assert sv.MaskAnnotator().annotate(np.zeros((*value.shape, 3), np.uint8), detections).any()
    assert len(sv.Detections.merge([detections, to_supervision(value, 100.0)])) == len(detections)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own, with NumPy 2
def test_cli__pycocotools_decodes_the_file(tmp_path, capsys):
    coco_api = pytest.importorskip("pycocotools.coco", reason="needs pycocotools, an optional package")
    values = {"a": make_map(1), "b": make_map(2)}
    maps = write_maps(tmp_path / "maps", **values)
    run(capsys, "components", maps, "--threshold", 0.05, "--out", tmp_path / "x.json")
    coco = coco_api.COCO(tmp_path / "x.json")
    for image in coco.imgs.values():
        own = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        masks = [coco.annToMask(a).astype(bool) for a in own]
        assert [int(m.sum()) for m in masks] == [a["area"] for a in own]
        assert (np.any(masks, 0) == (values[image["file_name"]] > np.float16(0.05))).all()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 8000), st.integers(1, 8000), st.data())
def test_relative_box__fiftyones_truncation_gives_the_pixels_back(height, width, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    left, top, wide, high = relative_box((x, y, w, h), (height, width))
    # eta's BoundingBox.coords_in: both corners by int(share * size)
    assert (int(width * left), int(height * top)) == (x, y)
    assert (int(width * (left + wide)), int(height * (top + high))) == (x + w, y + h)


@pytest.mark.filterwarnings("ignore")  # those of FiftyOne and of what it loads
def test_to_fiftyone__its_rendered_masks_are_ours(tmp_path):
    """Needs FiftyOne and its database: a MongoDB of its own or one that FIFTYONE_DATABASE_URI names."""
    pytest.importorskip("fiftyone", reason="needs FiftyOne, an optional package")
    big = np.kron(make_map(4), np.ones((12, 4), np.float16))  # 720 rows: 458 / 720
    maps = write_maps(tmp_path / "maps", a=big)
    Image.fromarray(np.zeros((*big.shape, 3), np.uint8)).save(tmp_path / "a.jpg")
    try:
        data = to_fiftyone(maps, [tmp_path / "a.jpg"], 0.05)
    except XenomaskError as e:
        pytest.skip(str(e))
    found = find_objects(big, 0.05)
    detections = data.first()["xenomask"].detections
    assert [d.confidence for d in detections] == [f.score for f in found] and len(found) > 3
    for d, f in zip(detections, found, strict=True):
        seen = d.to_segmentation(frame_size=(big.shape[1], big.shape[0])).mask > 0
        assert (seen == decode_by_hand(f.rle)).all()


@pytest.mark.parametrize("module", ["supervision", "fiftyone"])
def test_optional_tools__missing_ones_are_one_line(module, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(XenomaskError, match=f"pip install {module}"):
        if module == "supervision":
            to_supervision(make_map(), 0.1)
        else:
            to_fiftyone(tmp_path, [], 0.1)
