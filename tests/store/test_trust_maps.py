"""Maps and networks' outputs are never taken for those of other photos, sizes or detectors; litter is cleared."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails
from helpers.cli import run as command
from helpers.scenes import SIZE, write
from xenomask.cluster.ray import Actor
from xenomask.datasets import Dataset, open_dataset
from xenomask.detector import Detector
from xenomask.detector.folder import assemble
from xenomask.errors import XenomaskError
from xenomask.evaluation.benchmark import benchmark
from xenomask.evaluation.crossval import crossval
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.evaluation.heatmaps import draw_heatmaps
from xenomask.files import atomic, create, remove_litter
from xenomask.models.runtimes import graph_cache
from xenomask.predict.cache import cache_outputs
from xenomask.predict.photos import open_maps, score_dataset, shard_of
from xenomask.store import map_ids, map_photo, read_map
from xenomask.store.manifest import claim
from xenomask.types import ScoreMap


@pytest.fixture
def a(tmp_path) -> Dataset:
    return write(tmp_path / "a", 1)


@pytest.fixture
def b(tmp_path) -> Dataset:
    return write(tmp_path / "b", 2)


@pytest.fixture(scope="module")
def pair(tiny_detector) -> Detector:
    return Detector.from_folder(tiny_detector)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


OTHER = "holds maps of other photos than these: 3 of 3 differ, the first is 0 .*: choose another folder"


def test_score__into_the_maps_of_another_root_is_refused(a, b, pair, tmp_path):
    score_dataset(pair, a, tmp_path / "maps")
    before = files(tmp_path / "maps")
    with pytest.raises(XenomaskError, match=OTHER):
        score_dataset(pair, b, tmp_path / "maps")
    with pytest.raises(XenomaskError, match="1 of 1 differ, the first is 1 "):
        score_dataset(pair, shard_of(b, 2, 3), tmp_path / "maps")
    assert files(tmp_path / "maps") == before


def test_score__on_the_command_line_refuses_in_one_line(a, b, capsys, tiny_detector, tmp_path):
    words = ["score", "--dataset", "folder", "--detector", str(tiny_detector), "--out", str(tmp_path / "maps")]
    command(capsys, *words, "--root", str(a.root))
    said = fails(capsys, *words, "--root", str(b.root))
    assert "holds maps of other photos than these" in said and "\n" not in said.strip()
    said = fails(capsys, *words, "--root", str(a.root), "--resize", "32x24")
    assert "its resize differ" in said


def test_score__a_moved_data_set_keeps_its_maps_and_a_replaced_photo_does_not(a, pair, tmp_path):
    score_dataset(pair, a, tmp_path / "maps")
    expected = evaluate_maps(tmp_path / "maps", a, resamples=0).numbers
    (tmp_path / "elsewhere").mkdir()
    a.root.rename(tmp_path / "elsewhere/moved")
    moved = open_dataset("folder", tmp_path / "elsewhere/moved")
    assert score_dataset(pair, moved, tmp_path / "maps") == 0
    assert evaluate_maps(tmp_path / "maps", moved, resamples=0).numbers == expected
    photo = moved.root / "images/1.png"
    before = photo.stat()
    pixels = np.array(Image.open(photo))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(photo)
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))  # a copy may keep its time
    with pytest.raises(XenomaskError, match="1 of 3 differ, the first is 1 .*images/1.png"):
        score_dataset(pair, moved, tmp_path / "maps")
    (tmp_path / "maps/1.hdf5").unlink()  # as the error says
    assert score_dataset(pair, moved, tmp_path / "maps") == 1


def test_score__another_resize_is_refused(a, pair, tmp_path):
    score_dataset(pair, a, tmp_path / "maps")
    with pytest.raises(XenomaskError, match="another run .its resize differ"):
        score_dataset(pair, replace(a, resize=(24, 32)), tmp_path / "maps")
    (tmp_path / "maps/manifest.json").write_text('{"dataset": "folder", "leave_one_out": false}')
    with pytest.raises(XenomaskError, match="does not say which photos"):
        score_dataset(pair, a, tmp_path / "maps")


def test_evaluate__says_that_the_maps_are_of_other_photos(a, b, pair, capsys, tmp_path):
    score_dataset(pair, a, tmp_path / "maps")
    with pytest.raises(XenomaskError, match="map .*0.hdf5 was made from another photo than .*b/images/0.png"):
        evaluate_maps(tmp_path / "maps", b, resamples=0)
    with pytest.raises(XenomaskError, match="another photo"):
        draw_heatmaps(tmp_path / "maps", b, tmp_path / "pictures")
    said = fails(capsys, "evaluate", "--maps", str(tmp_path / "maps"), "--dataset", "folder", "--root", str(b.root))
    assert "was made from another photo" in said
    shutil.rmtree(b.root / "images")  # labels alone: nothing says that they are of others
    assert evaluate_maps(tmp_path / "maps", open_dataset("folder", b.root), resamples=0).frames == ("0", "1", "2")


def test_benchmark__does_not_take_the_maps_of_another_root(a, b, pair, tmp_path):
    benchmark([pair], [None], [(a, "anomaly")], tmp_path / "bench", resamples=0)
    with pytest.raises(XenomaskError, match=OTHER):
        benchmark([pair], [None], [(b, "anomaly")], tmp_path / "bench", resamples=0)


def test_crossval__does_not_take_the_outputs_of_another_root_or_size(a, b, pair, tmp_path):
    one = pair.only("a")
    crossval(one, a, tmp_path / "cache", what=[])
    cache_outputs(one, open_dataset("folder", shutil.copytree(a.root, tmp_path / "copy")), tmp_path / "cache")
    with pytest.raises(XenomaskError, match="3 of 3 differ"):
        cache_outputs(one, b, tmp_path / "cache")
    with pytest.raises(XenomaskError, match="outputs of another network or data set .its resize differ"):
        cache_outputs(one, replace(a, resize=(24, 32)), tmp_path / "cache")


def test_actor__does_not_overwrite_the_map_of_another_photo(a, b, tiny_detector, pair, tmp_path):
    open_maps(pair, replace(a, frames=()), tmp_path / "maps")
    score_dataset(pair, a, tmp_path / "maps")
    from xenomask.store.manifest import keep_map

    found = ScoreMap(np.zeros(SIZE, np.float32), "entropy")
    with pytest.raises(XenomaskError, match="0.hdf5 was written meanwhile from another photo"):
        keep_map(tmp_path / "maps", b.frames[0], found, "f" * 64)
    actor = Actor(partial(Detector.from_folder, tiny_detector), replace(b, frames=()), tmp_path / "maps", False, 1)
    rows = {k: np.array([str(getattr(b.frames[0], k))], object) for k in ("id", "image", "label")}
    assert "was made from another photo" in actor(rows)["error"][0]


def test_map_photo__is_the_digest_of_the_file(a, pair, tmp_path):
    score_dataset(pair, a, tmp_path / "maps")
    done = subprocess.run(["sha256sum", str(a.frames[0].image)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs sha256sum")
    assert map_photo(tmp_path / "maps/0.hdf5") == done.stdout.split()[0]


def try_claim(folder: Path, i: int, ready: threading.Barrier, refused: list[tuple[int, str]]) -> None:
    ready.wait()
    try:
        claim(folder, {"detector": i % 2, "resize": None}, ())
    except XenomaskError as e:
        refused.append((i, str(e)))


def test_claim__of_many_at_once_exactly_one_kind_wins(tmp_path):
    for n in range(60):
        folder, ready, refused = tmp_path / str(n), threading.Barrier(4), []
        folder.mkdir()
        threads = [threading.Thread(target=try_claim, args=(folder, i, ready, refused)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(refused) == 2 and len({i % 2 for i, _ in refused}) == 1
        assert all("its detector differ" in e for _, e in refused)
        assert [p.name for p in folder.iterdir()] == ["manifest.json"]


def claim_often(folder: Path, name: str, ready: Any, rounds: int) -> None:
    """In a process of its own: what each round gave, as a line of a file."""
    with (folder / f"{name}.txt").open("w") as said:
        for n in range(rounds):
            ready.wait()
            try:
                claim(folder / str(n), {"detector": name, "resize": None}, ())
                print("won", file=said)
            except XenomaskError as e:
                print(e, file=said)


@pytest.mark.slow
def test_claim__of_two_processes_at_once_exactly_one_wins(tmp_path):
    rounds, own = 60, multiprocessing.get_context("spawn")
    for n in range(rounds):
        (tmp_path / str(n)).mkdir()
    ready = own.Barrier(2, timeout=120)
    both = [own.Process(target=claim_often, args=(tmp_path, name, ready, rounds)) for name in "ab"]
    for p in both:
        p.start()
    for p in both:
        p.join()
    assert [p.exitcode for p in both] == [0, 0]
    first, second = ((tmp_path / f"{name}.txt").read_text().splitlines() for name in "ab")
    assert len(first) == len(second) == rounds  # so what is said is one line
    for n, (a, b) in enumerate(zip(first, second, strict=True)):
        winner, other = ("a", b) if a == "won" else ("b", a)
        assert (a, b).count("won") == 1 and "its detector differ" in other, (a, b)
        assert json.loads((tmp_path / str(n) / "manifest.json").read_text())["detector"] == winner
        assert [p.name for p in (tmp_path / str(n)).iterdir()] == ["manifest.json"]


@pytest.mark.slow
def test_score__two_commands_at_once_into_one_folder(a, tiny_checkpoint, tmp_path):
    """One makes all maps; the other says in one line whose they are, and adds none."""
    detectors = [assemble(tmp_path / s, s, [("a", tiny_checkpoint)], [1.0], s) for s in ("entropy", "max_logit")]
    words = [sys.executable, "-m", "xenomask.cli", "--quiet", "score", "--dataset", a.name, "--root", str(a.root)]
    words = [*words, "--out", str(tmp_path / "out"), "--detector"]
    both = [subprocess.Popen([*words, str(d)], stderr=subprocess.PIPE, text=True) for d in detectors]
    said = [p.communicate()[1] for p in both]
    assert sorted(p.returncode for p in both) == [0, 2], said
    winner = [p.returncode for p in both].index(0)
    assert said[1 - winner].count("\n") == 1 and "holds maps of another run" in said[1 - winner]
    score_dataset(Detector.from_folder(detectors[winner]), a, tmp_path / "alone")
    assert map_ids(tmp_path / "out") == map_ids(tmp_path / "alone")
    for i in map_ids(tmp_path / "alone"):
        assert np.array_equal(read_map(tmp_path / f"out/{i}.hdf5"), read_map(tmp_path / f"alone/{i}.hdf5"))


def test_create__without_links_is_still_exclusive(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", none)
    assert create(tmp_path / "m", "one") and not create(tmp_path / "m", "two")
    assert (tmp_path / "m").read_text() == "one" and [p.name for p in tmp_path.iterdir()] == ["m"]


SCORED = """
import sys
from pathlib import Path
from xenomask.datasets import open_dataset
from xenomask.detector import Detector
from xenomask.predict.photos import score_dataset
done = []
def tick():
    done.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
detector, root, out = map(Path, sys.argv[1:])
score_dataset(Detector.from_folder(detector), open_dataset("folder", root), out, tick=tick)
print(done[11], done[-1], len(done))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux's /proc")
def test_score__memory_does_not_grow_with_the_number_of_photos(tiny_detector, tmp_path):
    """In megabytes; 36 photos of this size and their maps, kept, would be 230."""
    root, rng = tmp_path / "many", np.random.default_rng(0)
    for d in ("images", "labels_masks"):
        (root / d).mkdir(parents=True)
    for i in range(48):
        small = Image.fromarray(rng.integers(0, 256, (45, 80, 3), np.uint8))
        small.resize((1280, 720)).save(root / f"images/{i}.jpg")
        Image.new("L", (1280, 720)).save(root / f"labels_masks/{i}.png")
    words = [sys.executable, "-c", SCORED, str(tiny_detector), str(root), str(tmp_path / "maps")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    early, late, photos = map(int, done.stdout.split())
    assert photos == 48 and late - early < 60, (early, late)


KILLED = """
import os, signal, sys
from pathlib import Path
from xenomask.files import atomic
writing = [atomic(Path(sys.argv[1]) / name) for name in ("0.hdf5", "folder")]
for part in [w.__enter__() for w in writing]:
    part.mkdir() if part.name.endswith("folder") else part.write_bytes(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_remove_litter__removes_what_killed_processes_left_and_nothing_else(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == -9
    assert len(list(tmp_path.glob(".*.part.*"))) == 2
    (tmp_path / ".0badcafe.part.1.hdf5").touch()  # an older version's name
    os.utime(tmp_path / ".0badcafe.part.1.hdf5", (0, 0))
    (tmp_path / ".mine").touch()
    foreign = tmp_path / ".00000000-1-00000000.part.2.hdf5"  # another machine may be writing it
    foreign.touch()
    with atomic(tmp_path / "3.hdf5") as living:
        living.touch()
        remove_litter(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".mine", foreign.name, living.name])
    os.utime(foreign, (0, 0))
    remove_litter(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine", "3.hdf5"]


def test_score__clears_the_folder_of_a_killed_run(a, pair, tmp_path):
    (tmp_path / "maps").mkdir()
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "maps")]).returncode == -9
    score_dataset(pair, a, tmp_path / "maps")
    assert sorted(files(tmp_path / "maps")) == ["0.hdf5", "1.hdf5", "2.hdf5", "manifest.json"]


def test_graph_cache__counts_what_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_cache, "LIMIT", 3000)
    for n, name in enumerate(("old", "new", ".00000000-1-00000000.part.other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / graph_cache.FACTS).write_bytes(b"x" * 1000)
        os.utime(tmp_path / name, (n, n))
    graph_cache._shrink(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(graph_cache, "LIMIT", 2999)
    graph_cache._shrink(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".00000000-1-00000000.part.other", "new"]
