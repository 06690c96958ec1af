"""Test-time augmentation: what `--tta` gives is what is had by hand from mirrored and resized photos."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import EomtConfig

from helpers.cli import fails, run
from helpers.naive import resized
from helpers.outputs import make_output, make_pixel_output
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.detector.explain import explain
from xenomask.detector.folder import store_threshold
from xenomask.errors import XenomaskError
from xenomask.evaluation.benchmark import benchmark
from xenomask.export import ExportedDetector, export_detector
from xenomask.masks import resized_logits, soft_masks
from xenomask.models.preprocess import Preprocess, target_size
from xenomask.models.runtimes.runtime import with_tta
from xenomask.models.tta import at_edge, tta_views
from xenomask.predict.cache import cache_outputs, read_output
from xenomask.predict.photos import detect_photos, score_dataset
from xenomask.scores import SCORES, add_score, score_all
from xenomask.store import read_map
from xenomask.types import QuerySet

IMAGE = draw_scene(0, (61, 101)).image  # padded right and bottom, so that the mirror image's padding lies elsewhere
QUERIES = QuerySet(inlier={0: 1, 3: 2}, outlier={1: 0.5, 4: 0.2}, ground=(5,))


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory) -> Path:
    """The shipped networks at 64 pixels as a detector folder: unlike random ones they see left and right apart."""
    nano = Detector.from_folder("nano")
    networks = [replace(m.network, preprocess=replace(m.network.preprocess, size=64)) for m in nano.members]
    parts = zip(nano.members, networks, ("a", "b"), (0.25, 0.75), strict=True)
    members = tuple(replace(m, name=name, network=n, weight=w) for m, n, name, w in parts)
    pair = replace(nano, name="pair", members=members, thresholds={}).with_score("eam")
    pair = replace(pair, members=tuple(replace(m, weight=w) for m, w in zip(pair.members, (0.25, 0.75), strict=True)))
    return pair.save(tmp_path_factory.mktemp("looks") / "pair")


def flip(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x[:, ::-1])


def by_hand(detector: Detector, edges, mirror: bool) -> np.ndarray:
    """The mean of the maps of a detector whose networks were told the edges, at the photo and its mirror image."""
    maps = []
    for edge in edges or [None]:
        members = detector.members
        if edge:  # the limit of the longest edge is out of reach of this photo
            sized = {"policy": "shortest", "size": edge, "longest": 10_000}
            networks = [replace(m.network, preprocess=replace(m.network.preprocess, **sized)) for m in members]
            members = tuple(replace(m, network=n) for m, n in zip(members, networks, strict=True))
        plain = replace(detector, members=members)
        maps.append(plain.detect(IMAGE).value)
        if mirror:
            maps.append(flip(plain.detect(flip(IMAGE)).value))
    return np.stack(maps).astype(np.float64).mean(0)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
@pytest.mark.parametrize(("edges", "mirror"), [((), True), ((48, 80), False), ((80,), False), ((48, 33), True)])
def test_tta__are_the_mean_of_the_maps_had_by_hand(pair_folder, edges, mirror, kernel):
    pair = Detector.from_folder(pair_folder)  # .25 and .75
    augmented = pair.with_tta(edges, mirror).with_kernel(kernel)
    assert len(augmented.members) == 2 * max(1, len(edges)) * (1 + mirror)
    expected = by_hand(pair, edges, mirror)
    assert np.abs(augmented.detect(IMAGE).value - expected).max() < 1e-6
    assert np.abs(expected - by_hand(pair, (), False)).max() > 1e-3  # this test can fail
    assert augmented.scale == pytest.approx(pair.scale)


def test_tta__the_mirrored_one_is_the_plain_one_at_the_mirrored_photo_to_the_bit(pair_folder):
    pair = Detector.from_folder(pair_folder)
    for edges, name in (((), "a@mirror"), ((48,), "a@48+mirror")):
        augmented = pair.with_tta(edges, mirror=True)
        plain = augmented.only(name.replace("+mirror", "").replace("@mirror", "")).detect(flip(IMAGE))
        assert np.array_equal(augmented.only(name).detect(IMAGE).value, flip(plain.value))


@pytest.mark.parametrize("make", [make_output, make_pixel_output])
def test_mirrored_output__reads_its_columns_from_the_right(make):
    output = make()
    logits = output.mask_logits if make is make_output else output.class_map_logits
    expected = resized(logits.double().numpy(), (20, 28), (18, 25), (13, 31))[:, :, ::-1]
    mirrored = replace(output, mirrored=True)
    assert np.abs(resized_logits(mirrored).numpy() - expected).max() < 1e-5
    assert np.abs(resized_logits(mirrored, slice(4, 9)).numpy() - expected[:, 4:9]).max() < 1e-5


@pytest.mark.parametrize("kernel", ["auto", "torch"])
@pytest.mark.parametrize("name", sorted(SCORES))
def test_scores__of_a_mirrored_output_are_mirrored(name, kernel):
    output = make_output(outlier_class=name == "uno")
    true = score_all(output, QUERIES, [SCORES[name]], kernel)[name].value
    mirrored = replace(output, mirrored=True)
    assert np.abs(score_all(mirrored, QUERIES, [SCORES[name]], kernel)[name].value - flip(true)).max() < 1e-6
    before = np.random.default_rng(0).random(true.shape, np.float32)
    onto = before.copy()
    add_score(mirrored, QUERIES, SCORES[name], 0.25, onto, kernel)
    assert np.abs(onto - (before + 0.25 * flip(true))).max() < 1e-6


def test_tta__share_weights_and_graphs(tiny_detector, monkeypatch):
    built = []

    def build(network, x):
        built.append(tuple(x.shape[2:]))
        return lambda x: (torch.zeros(len(x), 8, 20), torch.zeros(len(x), 8, x.shape[2] // 4, x.shape[3] // 4))

    monkeypatch.setattr("xenomask.models.runtimes.runtime._openvino", build)
    edges = (32, 64, 96, 128, 160, 192)  # more than the sizes whose graphs one `run` keeps
    before = Detector.from_folder(tiny_detector, runtime="openvino").only("a").with_tta(edges, mirror=True)
    after = Detector.from_folder(tiny_detector).only("a").with_tta(edges, mirror=True).with_runtime("openvino")
    for augmented in (before, after):
        assert len({id(m.network.module) for m in augmented.members}) == 1 and augmented.runtime == "openvino"
        built.clear()
        for _ in range(2):
            augmented.detect(np.zeros((64, 64, 3), np.uint8))
        assert built == [(e, e) for e in edges]
    (plain,) = Detector.from_folder(tiny_detector, runtime="openvino").only("a").members
    assert all(n.run is plain.network.run for n in with_tta(plain.network, tta_views((), mirror=True)))


def with_threshold(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    store_threshold(to, "default", 0.5, {})
    return to


def test_tta__are_described_and_drop_what_was_chosen_on_plain_maps(pair_folder, tmp_path):
    pair = Detector.from_folder(with_threshold(pair_folder, tmp_path / "d"))
    augmented = pair.with_tta((48,), mirror=True)
    assert pair.thresholds and not augmented.thresholds and augmented.calibration is None
    assert [m["look"] for m in augmented.describe()["members"]] == ["48", "48+mirror"] * 2
    assert all("look" not in m for m in pair.describe()["members"])  # stored fingerprints stay what they are
    assert augmented.name == "pair@mirror+48"
    assert augmented.with_score("rba").detect(IMAGE).score == "rba"
    data = open_dataset("anomaly-track", write_scenes(tmp_path / "at", "anomaly-track", 2, size=(64, 96)))
    score_dataset(augmented, data, tmp_path / "maps")
    for other in (pair, pair.with_tta(mirror=True), pair.with_tta((48,))):
        with pytest.raises(XenomaskError, match="holds maps of another run"):
            score_dataset(other, data, tmp_path / "maps")
    assert score_dataset(pair.with_tta((48,), mirror=True), data, tmp_path / "maps") == 0


def test_tta__what_is_chosen_on_their_maps_is_not_stored_in_the_plain_detector(pair_folder, tmp_path, capsys):
    folder = with_threshold(pair_folder, tmp_path / "d")
    data = "--dataset", "anomaly-track", "--root", write_scenes(tmp_path / "at", "anomaly-track", 2, size=(64, 96))
    # one look only: as many members as the plain detector
    assert run(capsys, "score", *data, "--out", tmp_path / "maps", "--detector", folder, "--tta", 48)[0] == 0
    said = fails(capsys, "thresholds", *data, "--maps", tmp_path / "maps", "--f1", "--into", folder)
    assert "did not make the maps" in said and "(other test-time augmentation)" in said


def test_tta__are_neither_saved_nor_exported(pair_folder, tmp_path):
    augmented = Detector.from_folder(pair_folder).with_tta(mirror=True)
    with pytest.raises(XenomaskError, match="a folder holds no test-time augmentation"):
        augmented.save(tmp_path / "d")
    with pytest.raises(XenomaskError, match="has test-time augmentation: export it without"):
        export_detector(augmented, tmp_path / "d.onnx", "onnx", size=(64, 96))
    assert list(tmp_path.iterdir()) == []


# What else reads networks


def test_explain__takes_a_look_apart_as_its_map_has_it(pair_folder):
    augmented = Detector.from_folder(pair_folder).with_tta((48,), mirror=True).with_score("maskomaly")
    value = augmented.detect(IMAGE).value
    outputs = [m.network.predict(IMAGE) for m in augmented.members]
    for x, y in ((0, 0), (100, 60), (37, 11)):
        answer = explain(augmented, outputs, (x, y))
        assert answer.value == pytest.approx(value[y, x], abs=1e-5)
        assert [m.name for m in answer.members] == ["a@48", "a@48+mirror", "b@48", "b@48+mirror"]


def test_detect__batches_and_photos_of_several_sizes(pair_folder, tmp_path):
    augmented = Detector.from_folder(pair_folder).with_tta((48, 33), mirror=True)
    photos = []
    for i, size in enumerate([(61, 101), (61, 101), (80, 50)]):
        photos.append(tmp_path / f"{i}.png")
        Image.fromarray(draw_scene(i, size).image).save(photos[-1])
    detect_photos(augmented, photos, tmp_path / "out", batch=2)
    for path in photos:
        alone = augmented.detect(np.asarray(Image.open(path))).value
        assert np.abs(read_map(tmp_path / f"out/{path.stem}.hdf5").astype(np.float32) - alone).max() < 1e-3


def test_benchmark__a_network_looks_once_a_look_and_plain_and_augmented_stand_side_by_side(pair_folder, tmp_path):
    data = open_dataset("anomaly-track", write_scenes(tmp_path / "at", "anomaly-track", 2, size=(64, 96)))
    pair = Detector.from_folder(pair_folder)
    augmented = pair.with_tta((48,), mirror=True)
    entries = benchmark([pair, augmented], [None, SCORES["rba"]], [(data, "anomaly")], tmp_path / "b", resamples=0)
    assert [e.method.name for e in entries] == ["pair", "pair", "pair@mirror+48", "pair@mirror+48"]
    for e in entries:
        frame = data.frames[0]
        found = read_map(tmp_path / "b/anomaly-track" / e.method.folder / f"{frame.id}.hdf5")
        own = e.method.detector.detect(data.sample(frame).image).value  # pyright: ignore[reportAttributeAccessIssue]
        assert np.abs(found.astype(np.float32) - own).max() < 1e-3 * max(1, np.abs(own).max())


def test_cached_outputs__stay_mirrored_and_are_not_taken_for_others(pair_folder, tmp_path):
    data = open_dataset("anomaly-track", write_scenes(tmp_path / "at", "anomaly-track", 1, size=(64, 96)))
    augmented = Detector.from_folder(pair_folder).only("a").with_tta(mirror=True)
    cache_outputs(augmented, data, tmp_path / "c")
    for m in augmented.members:
        (path,) = (tmp_path / "c" / m.name).glob("*.safetensors")
        true = m.network.predict(data.sample(data.frames[0]).image)
        assert torch.equal(soft_masks(read_output(path)), soft_masks(true))  # pyright: ignore
    (mirrored,) = augmented.only("a@mirror").members
    other = replace(augmented, members=(replace(mirrored, name="a", weight=1.0),))
    with pytest.raises(XenomaskError, match="holds outputs of another network"):
        cache_outputs(other, data, tmp_path / "c")


# Sizes


@pytest.mark.parametrize(
    ("p", "size", "expected"),
    [
        (Preprocess("shortest", 1024, 2048), (720, 1280), (288, 512)),
        (Preprocess("fit", 1024, 2048), (720, 1280), (288, 512)),
        (Preprocess("longest", 640, 0), (720, 1280), (288, 512)),
        (Preprocess("none", 0, 0), (720, 1280), (288, 512)),
        (Preprocess("shortest", 1024, 2048), (500, 8000), (36, 576)),  # the limit of the longest, 2048, shrinks too
    ],
)
def test_at_edge__is_the_shortest_edge_whatever_the_network_was_told(p, size, expected):
    assert target_size(at_edge(p, 288), size) == expected


# The command line


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.fromarray(IMAGE).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_detect__looks_by_option_and_says_that_the_threshold_is_left_out(pair_folder, tmp_path, photo, capsys):
    folder = with_threshold(pair_folder, tmp_path / "d")
    at = "detect", photo, "--detector", folder, "--out", tmp_path / "out", "--json", tmp_path / "n.json"
    code, _, err = run(capsys, *at, "--tta", "mirror,48,80")
    assert (
        code == 0 and err == "note: the stored threshold of pair is for maps without test-time augmentation: left out"
    )
    assert json.loads((tmp_path / "n.json").read_text())["threshold"] is None
    expected = by_hand(Detector.from_folder(pair_folder), (48, 80), True)
    assert np.abs(read_map(tmp_path / "out/p.hdf5").astype(np.float32) - expected).max() < 1e-3
    code, out, err = run(capsys, *at, "--tta", "mirror", "--threshold", ".4", "--score", "rba", "--member", "b")
    assert code == 0 and "score: rba, higher is more anomalous; an object scores above 0.4\n" in out and err == ""


def test_score__engines_are_handed_the_looks(tiny_detector, tmp_path, capsys, monkeypatch):
    handed = {}
    monkeypatch.setattr("xenomask.cli.fleet.on_slurm", lambda words, *rest: handed.setdefault("slurm", list(words)))
    monkeypatch.setattr("xenomask.cli.fleet.on_ray", lambda d, data, out, opened, *rest: handed.setdefault("r", opened))
    root = write_scenes(tmp_path / "at", "anomaly-track", 1, size=(64, 96))
    at = "score", "--dataset", "anomaly-track", "--root", root, "--out", tmp_path / "maps", "--tta", "mirror,48"
    for engine in ("slurm", "ray"):
        assert run(capsys, *at, "--detector", tiny_detector, "--engine", engine)[0] == 0
    assert handed["slurm"][-2:] == ["--tta", "mirror,48"] and handed["r"]["tta"] == "mirror,48"


def test_explain__looks_by_option(pair_folder, photo, capsys):
    code, out, err = run(capsys, "explain", photo, "--at", "3,4", "--detector", pair_folder, "--tta", "mirror,48")
    assert code == 0 and err == "" and "b@48+mirror: 0.375 x" in out


def test_tta__bad_ones_are_one_line(pair_folder, photo, tmp_path, capsys):
    at = "detect", photo, "--out", tmp_path / "out", "--detector", pair_folder, "--tta"
    for tta, message in (
        ("0", "edge 0 is no valid shortest edge: it is 32 to 4096 pixels"),
        ("mirror,99999", "edge 99999 is no valid shortest edge"),
        ("mirrror", "unknown view for --tta 'mirrror'; did you mean 'mirror'"),
        ("-288", "unknown view for --tta '-288'"),
        ("288.5", "unknown view for --tta '288.5'"),
        ("288x512", "unknown view for --tta '288x512'"),
        ("288,", "unknown view for --tta ''"),
        ("", "unknown view for --tta ''"),
        ("mirror,mirror", "name 'mirror' twice"),
        ("288, 288", "name '288' twice"),
        ("288,0288", "one is named twice"),
    ):
        assert message in fails(capsys, *at, tta)
    (tmp_path / "gone").mkdir()
    data = "--dataset", "anomaly-track", "--root", tmp_path / "gone", "--out", tmp_path / "maps"
    assert "unknown view for --tta 'mirrror'" in fails(capsys, "score", *data, "--engine", "slurm", "--tta", "mirrror")
    pair = Detector.from_folder(pair_folder)
    for edges in ((True,), (48, 48), ()):
        with pytest.raises(XenomaskError, match="view|edge"):
            pair.with_tta(edges)
    with pytest.raises(XenomaskError, match="has test-time augmentation already"):
        pair.with_tta((48,)).with_tta(mirror=True)


def test_tta__of_networks_whose_input_has_one_size(pair_folder):
    pair = Detector.from_folder(pair_folder)
    fused = ExportedDetector("map.onnx", lambda image: [], {}, "", (61, 101), pair.scale, "eam", {})
    with pytest.raises(XenomaskError, match="map.onnx is an exported file, of one forward pass: name"):
        fused.opened("tta")
    alone = pair.only("a")
    network = alone.members[0].network
    # as export.read opens a file of `xenomask export --queries`: no module, but a function for one size
    file = replace(network, module=nn.Module(), run=network, facts={"source": "queries.onnx"})
    for other, name in ((file, "queries.onnx"), (replace(network, config=EomtConfig(), facts={}), "this network")):
        exported = replace(alone, members=(replace(alone.members[0], network=other),))
        with pytest.raises(XenomaskError, match=f"{name} takes inputs of one size: it can take the mirror image"):
            exported.with_tta((48,), mirror=True)
        found = exported.with_tta(mirror=True).detect(IMAGE).value
        assert np.abs(found - by_hand(alone, (), True)).max() < 1e-6
