import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from helpers.folders import without_hashes
from helpers.places import SHARED
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import draw_scene, write_scenes
from xenomask.detector import Detector
from xenomask.detector.folder import assemble, record_files
from xenomask.errors import XenomaskError
from xenomask.evaluation.benchmark import benchmark
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.models import load
from xenomask.predict.photos import score_dataset, shard_of
from xenomask.queries import write_queries
from xenomask.scores import SCORES
from xenomask.store import map_ids
from xenomask.types import QuerySet

IMAGE = draw_scene(0, (60, 100)).image


def test_detector__is_the_weighted_sum_of_its_members(tiny_detector):
    pair = Detector.from_folder(tiny_detector)
    a, b = (pair.only(name).detect(IMAGE).value for name in ("a", "b"))
    found = pair.detect(IMAGE)
    assert found.value.shape == (60, 100) and found.score == "entropy"
    assert np.allclose(found.value, 0.25 * a + 0.75 * b, atol=1e-6)
    assert np.array_equal(pair.detect(IMAGE).value, found.value)
    assert pair.scale == (0.0, 1.0)


def test_detector__other_score_and_unknown_names(tiny_detector):
    pair = Detector.from_folder(tiny_detector)
    other = pair.with_score("rba")  # the weights .25 and .75 were for maps of entropy
    a, b = (other.only(name).detect(IMAGE).value for name in ("a", "b"))
    assert other.detect(IMAGE).score == "rba" and np.allclose(other.detect(IMAGE).value, (a + b) / 2, atol=1e-6)
    left = replace(pair, members=(replace(pair.members[0], weight=0.0), replace(pair.members[1], weight=1.0)))
    assert [m.weight for m in left.with_score("rba").members] == [0, 1]
    with pytest.raises(XenomaskError, match="unknown member of detector pair 'c'"):
        pair.only("c")
    with pytest.raises(XenomaskError, match="unknown detector 'nanoo'; did you mean 'nano'"):
        Detector.from_folder("nanoo")
    with pytest.raises(XenomaskError, match="is no detector folder"):
        Detector.from_folder(SHARED.parent / "main" if SHARED.is_dir() else ".")


def test_detector__queries_of_other_weights_are_refused(tiny_detector, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(tiny_detector, folder)
    write_queries(without_hashes(folder) / "a", QuerySet("0" * 64))
    with pytest.raises(XenomaskError, match="belongs to another checkpoint"):
        Detector.from_folder(folder)


def test_detector__damaged_table(tiny_detector, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(tiny_detector, folder)
    (folder / "detector.json").write_text('{"name": "d", "members": [{"name": "a"}]}')
    with pytest.raises(XenomaskError, match="damaged"):
        Detector.from_folder(folder)
    table = json.loads((tiny_detector / "detector.json").read_text())
    table["members"][0]["weight"] = 0.9
    (folder / "detector.json").write_text(json.dumps(table))
    with pytest.raises(XenomaskError, match="sum to 1"):
        Detector.from_folder(folder)


def test_assemble__half_precision_readdresses_the_queries(tiny_checkpoint, tmp_path):
    network = load(load(tiny_checkpoint).save(tmp_path / "c"))
    write_queries(tmp_path / "c", QuerySet(network.sha256, inlier={1: 0}, outlier={2: 0.5}))
    folder = assemble(tmp_path / "d", "d", [("m", tmp_path / "c")], [1.0], "maskomaly", half=True)
    member = Detector.from_folder(folder).members[0]
    assert (member.queries.inlier, member.queries.outlier) == ({1: 0}, {2: 0.5})
    assert member.queries.checkpoint_sha256 == member.network.sha256 != network.sha256
    assert member.queries.origin["analysed_as"]["sha256"] == network.sha256


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = write_scenes(tmp_path_factory.mktemp("at"), "anomaly-track", 3, size=(64, 100))
    return open_dataset("anomaly-track", root)


def test_score_dataset__goes_on_where_it_stopped(tiny_detector, scenes, tmp_path):
    pair = Detector.from_folder(tiny_detector)
    assert score_dataset(pair, scenes, tmp_path / "m") == 3
    whole = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    (tmp_path / "m/validation0001.hdf5").unlink()
    assert score_dataset(pair, scenes, tmp_path / "m") == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()} == whole
    with pytest.raises(XenomaskError, match="holds maps of another run"):
        score_dataset(pair.with_score("rba"), scenes, tmp_path / "m")
    (tmp_path / "m/manifest.json").unlink()
    with pytest.raises(XenomaskError, match="maps of unknown origin"):
        score_dataset(pair, scenes, tmp_path / "m")


def test_score_dataset__shards_together_equal_the_whole(tiny_detector, scenes, tmp_path):
    pair = Detector.from_folder(tiny_detector)
    score_dataset(pair, scenes, tmp_path / "whole")
    parts = [shard_of(scenes, i, 2) for i in (1, 2)]
    assert sorted(f.id for p in parts for f in p.frames) == [f.id for f in scenes.frames]
    with ThreadPoolExecutor(2) as pool:  # at the same time, in one folder
        assert sum(pool.map(lambda part: score_dataset(pair, part, tmp_path / "dealt"), parts)) == 3
    whole, dealt = ({p.name: p.read_bytes() for p in (tmp_path / d).iterdir()} for d in ("whole", "dealt"))
    assert whole == dealt
    assert score_dataset(pair, shard_of(scenes, 4, 4), tmp_path / "dealt") == 0  # more shards than frames
    for number, count in ((0, 2), (3, 2), (1, 0)):
        with pytest.raises(XenomaskError, match=f"shard {number}/{count} does not exist"):
            shard_of(scenes, number, count)


def test_score_dataset__another_shard_may_begin_at_any_moment(tiny_detector, scenes, tmp_path, monkeypatch):
    pair, other = Detector.from_folder(tiny_detector), shard_of(scenes, 2, 2)

    def begun_before(folder):
        monkeypatch.setattr("xenomask.predict.photos.map_ids", map_ids)
        score_dataset(pair, other, folder)
        return map_ids(folder)

    # between this shard's first look at the folder and its next, the other writes its manifest and map
    monkeypatch.setattr("xenomask.predict.photos.map_ids", begun_before)
    assert score_dataset(pair, shard_of(scenes, 1, 2), tmp_path / "m") == 2
    assert len(map_ids(tmp_path / "m")) == 3


def with_outliers(detector_folder, tmp_path):
    """The detector, its outlier queries "chosen" so that each frame left out changes the choice."""
    folder = tmp_path / "d"
    shutil.copytree(detector_folder, folder)
    for name in ("a", "b"):
        iou = {f"validation000{i}": [0.9 if q == i else 0.0 for q in range(8)] for i in range(3)}
        origin = {"outlier": {"dataset": "anomaly-track", "iou": 0.25, "top_k": None, "per_frame_iou": iou}}
        sha = load(folder / name).sha256
        write_queries(folder / name, QuerySet(sha, outlier={0: 0.3, 1: 0.3, 2: 0.3}, origin=origin))
    return Detector.from_folder(record_files(folder)).with_score("maskomaly_no_border")


def test_score_dataset__leave_one_out_hides_the_frame_from_the_choice(tiny_detector, scenes, tmp_path):
    detector = with_outliers(tiny_detector, tmp_path)
    assert sorted(detector.without_frame("validation0001").members[0].queries.outlier) == [0, 2]
    score_dataset(detector, scenes, tmp_path / "in")
    score_dataset(detector, scenes, tmp_path / "out", leave_one_out=True)
    with pytest.raises(XenomaskError, match="were not chosen on folder"):
        score_dataset(detector, replace(scenes, name="folder"), tmp_path / "x", leave_one_out=True)
    in_sample, held_out = (evaluate_maps(tmp_path / d, scenes).numbers["exact"] for d in ("in", "out"))
    assert in_sample != held_out


def test_benchmark__equals_scoring_and_evaluating_one_by_one(tiny_detector, scenes, tmp_path):
    detector = with_outliers(tiny_detector, tmp_path)
    scores = [SCORES[s] for s in ("eam", "maskomaly_no_border")]
    entries = benchmark([detector], scores, [(scenes, "anomaly")], tmp_path / "bench", members=True)
    table = {(e.method.score, e.method.networks, e.method.queries): e.result.numbers for e in entries}
    assert len(table) == 9  # eam x 3 networks; maskomaly x 3 networks x 2 ways of choosing
    for key, chosen, loo in (
        (("eam", "ensemble", "-"), detector.with_score("eam"), False),
        (("eam", "b", "-"), detector.only("b").with_score("eam"), False),
        (("maskomaly_no_border", "ensemble", "in-sample"), detector, False),
        (("maskomaly_no_border", "ensemble", "leave-one-out"), detector, True),
    ):
        out = tmp_path / "-".join(key)
        score_dataset(chosen, scenes, out, leave_one_out=loo)
        expected = evaluate_maps(out, scenes, "anomaly").numbers
        assert str(table[key]) == str(expected), key  # str: nan equals nan
