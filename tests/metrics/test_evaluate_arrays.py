"""`xenomask.evaluate`: arrays in memory give the numbers of the command on the same maps."""

import json
import time

import numpy as np
import pytest
import torch

import xenomask
from helpers.cli import run
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.files import finite
from xenomask.metrics.frames import each_frame
from xenomask.store import write_map
from xenomask.types import ScoreMap


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(5)
    found = []
    for size in ((40, 60), (33, 71), (50, 50)):
        label = (rng.random(size) < 0.2).astype(np.uint8)
        label[:3] = 255
        found.append(((rng.random(size) + 0.4 * (label == 1)).astype(np.float16), label))
    return found


def test_evaluate__is_the_commands(tmp_path, capsys):
    root = write_scenes(tmp_path / "scenes", "folder", 4, size=(64, 96))
    data, rng = open_dataset("folder", root), np.random.default_rng(2)
    maps, labels = {}, {}
    (tmp_path / "maps").mkdir()
    for f in data.frames:
        labels[f.id] = data.label(f)
        maps[f.id] = (rng.random((64, 96)) + 0.3 * (labels[f.id] == 1)).astype(np.float32)
        write_map(tmp_path / f"maps/{f.id}.hdf5", ScoreMap(maps[f.id], "noise"))
    run(capsys, "evaluate", "--maps", tmp_path / "maps", "--dataset", "folder", "--root", root, "--track", "obstacle",
       "--resamples", 30, "--seed", 4, "--json", tmp_path / "e.json")  # fmt: skip
    found = xenomask.evaluate(maps, labels, track="obstacle", resamples=30, seed=4)
    assert json.loads(json.dumps(finite(found.to_json()))) == json.loads((tmp_path / "e.json").read_text())


def test_evaluate__takes_lists_generators_dicts_and_any_real_dtype(frames):
    maps, labels = zip(*frames, strict=True)
    expected = str(xenomask.evaluate(maps, labels, track="anomaly", resamples=0).numbers)  # NaN is NaN

    def same(m, t) -> bool:
        return str(xenomask.evaluate(m, t, track="anomaly", resamples=0).numbers) == expected

    assert same(list(maps), list(labels)) and same((m for m in maps), (t for t in labels))
    assert same(iter(maps), labels) and same(maps, iter(labels))
    assert same(dict(enumerate(maps)), dict(enumerate(labels)))
    assert same([m.astype(">f8") for m in maps], [t.astype(np.int64) for t in labels])
    assert same([torch.from_numpy(m) for m in maps], labels)
    assert same([ScoreMap(m.astype(np.float32), "noise") for m in maps], labels)  # what a detector gives


def test_evaluate__takes_one_frame_and_stacks(frames):
    value, label = frames[0]
    one = xenomask.evaluate(value, label, resamples=0).numbers
    assert one == xenomask.evaluate([value], [label], resamples=0).numbers
    assert one == xenomask.evaluate(ScoreMap(value.astype(np.float32), "noise"), label, resamples=0).numbers
    assert one == xenomask.evaluate(value[None], label[None], resamples=0).numbers
    assert one == xenomask.evaluate(value.tolist(), label.tolist(), resamples=0).numbers
    stack = np.stack([value, value[::-1]]), np.stack([label, label[::-1]])
    assert xenomask.evaluate(*stack, resamples=0).frames == ("0", "1")


@pytest.mark.parametrize(
    ("maps", "labels", "error"),
    [
        ([np.ones((2, 2))], [], "1 maps and 0 labels"),
        ([], [], "no frame"),
        ({"a": np.ones((2, 2))}, [np.ones((2, 2), int)], "one of them as a dict"),
        ({"a": np.ones((2, 2))}, {"b": np.ones((2, 2), int)}, "2 names have no map or no label, the first is 'a'"),
        ({1: np.ones((2, 2)), "1": np.ones((2, 2))}, {1: np.eye(2, dtype=int)}, "two of the maps have one name"),
        (np.ones((2, 2)), np.full((2, 2), 3), r"frame 0: .*other than 0 inlier, 1 anomaly, 255 void: \[3\]"),
        (np.ones((2, 3)), np.eye(2, dtype=int), "frame 0: .*differ|frame 0: .*size"),
        (np.full((2, 2), np.nan), np.eye(2, dtype=int), "frame 0: .*NaN"),
        (iter([np.full((2, 2), np.nan)]), [np.eye(2, dtype=int)], "map 0 holds NaN"),
        ("maps/", "labels/", "maps is a path"),
        (5, 3, "map"),
        (np.float32(5), np.uint8(1), r"map has the shape \(\)"),
    ],
)
def test_evaluate__refuses(maps, labels, error):
    with pytest.raises(XenomaskError, match=error):
        xenomask.evaluate(maps, labels)


def test_evaluate__knows_its_tracks(frames):
    with pytest.raises(XenomaskError, match="unknown track 'street'"):
        xenomask.evaluate(*frames[0], track="street")


def test_result__prints_itself(frames):
    maps, labels = zip(*frames, strict=True)
    found = xenomask.evaluate(maps, labels, track="anomaly", resamples=20)
    text, page = str(found), found._repr_html_()
    value = f"{found.numbers['exact']['aupr_sum']:.4f}"
    assert "AUPR-sum" in text and value in text and "sIoU" in text and max(map(len, text.splitlines())) <= 80
    assert value in page and page.startswith("<pre") and "\x1b" not in text


def test_dir__names_what_a_user_begins_with():
    assert "evaluate" in dir(xenomask) and callable(xenomask.evaluate)
    with pytest.raises(AttributeError, match="evalute"):
        _ = xenomask.evalute  # pyright: ignore


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_each_frame__stops_at_once(kind):
    """Ctrl-C, and a disk that goes away, do not wait for the frames that have not begun."""
    begun = []

    def work(i: str) -> None:
        begun.append(i)
        time.sleep(0.05)
        if i == "0":
            raise kind("stop")

    with pytest.raises(kind):
        each_frame([str(i) for i in range(40)], work, threads=2)
    assert len(begun) < 10
