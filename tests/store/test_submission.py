import json
import os
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from xenomask.cli.submission import app
from xenomask.datasets import Dataset, open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.store import read_map, write_map
from xenomask.store.submission import TRACKS, UNVERIFIED, check, check_method, write
from xenomask.types import ScoreMap

SIZE = (64, 96)
IDS = ["validation0000", "validation0001", "validation0002"]
COUNT = "has 3 photos; AnomalyTrack-all has 110 (100 test and 10 validation)"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return open_dataset("anomaly-track", write_scenes(tmp_path_factory.mktemp("drawn"), "anomaly-track", 3, size=SIZE))


def some_map(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


@pytest.fixture
def maps(tmp_path) -> Path:
    folder = tmp_path / "maps"
    folder.mkdir()
    for i, name in enumerate(IDS):
        write_map(folder / f"{name}.hdf5", ScoreMap(some_map(i), "eam"))
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def sent(maps, data) -> Path:
    """A good submission's folder, its files no links to anything."""
    folder = maps.parent / "out/anomaly_p/mine/AnomalyTrack-all"
    folder.mkdir(parents=True)
    for name in IDS:
        (folder / f"{name}.hdf5").write_bytes((maps / f"{name}.hdf5").read_bytes())
    return folder


def raw(path: Path, value: np.ndarray, **how) -> None:
    with h5py.File(path, "w") as f:
        f.create_dataset("value", data=value, **how)


def test_write__official_layout(maps, data):
    report = write(maps, data, maps.parent / "out", "mine")
    folder = maps.parent / "out/anomaly_p/mine/AnomalyTrack-all"
    assert report.folder == folder and sorted(p.name for p in folder.iterdir()) == [f"{i}.hdf5" for i in IDS]
    assert (report.frames, report.maps, report.errors) == (3, 3, ())
    assert report.bytes == sum(p.stat().st_size for p in folder.iterdir())
    assert [p.text for p in report.warnings] == [f"{data.root} {COUNT}: get them all before you submit"]
    for i in IDS:
        with h5py.File(folder / f"{i}.hdf5") as f:
            value = f["value"]
            assert isinstance(value, h5py.Dataset)
            assert (value.dtype, value.shape, list(f)) == (np.dtype("<f2"), SIZE, ["value"])
        assert (folder / f"{i}.hdf5").samefile(maps / f"{i}.hdf5")  # linked


@pytest.mark.parametrize("how", [{"dtype": "<f4"}, {"dtype": ">f2"}, {"compression": "lzf"}])
def test_write__encodes_other_kinds_anew(maps, data, how):
    value = some_map(0).astype(how.pop("dtype", "<f2"))
    raw(maps / f"{IDS[0]}.hdf5", value, **how)
    assert write(maps, data, maps.parent / "out", "mine").errors == ()
    target = maps.parent / f"out/anomaly_p/mine/AnomalyTrack-all/{IDS[0]}.hdf5"
    assert not target.samefile(maps / f"{IDS[0]}.hdf5")
    assert np.array_equal(read_map(target), some_map(0).astype(np.float16))


def test_write__copies_where_links_are_impossible(maps, data, monkeypatch):
    def refuse(*_):
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    folder = write(maps, data, maps.parent / "out", "mine").folder
    for i in IDS:
        assert not (folder / f"{i}.hdf5").samefile(maps / f"{i}.hdf5")
        assert (folder / f"{i}.hdf5").read_bytes() == (maps / f"{i}.hdf5").read_bytes()


def test_write__resumes_and_never_mixes_two_runs(maps, data):
    folder = write(maps, data, maps.parent / "out", "mine").folder
    (folder / f"{IDS[1]}.hdf5").unlink()
    kept = (folder / f"{IDS[0]}.hdf5").stat().st_mtime_ns
    assert write(maps, data, maps.parent / "out", "mine").maps == 3
    assert (folder / f"{IDS[0]}.hdf5").stat().st_mtime_ns == kept
    raw(maps / f"{IDS[2]}.hdf5", some_map(2), chunks=(7, 9))  # the same values as another file
    write(maps, data, maps.parent / "out", "mine")
    write_map(maps / f"{IDS[2]}.hdf5", ScoreMap(some_map(9), "eam"))
    with pytest.raises(XenomaskError, match="choose another method name"):
        write(maps, data, maps.parent / "out", "mine")
    assert np.array_equal(read_map(folder / f"{IDS[2]}.hdf5"), some_map(2).astype(np.float16))


def few_top(share: float) -> np.ndarray:
    """A map of which that share is tied at its maximum, 9."""
    value = some_map(0)
    value.reshape(-1)[: round(share * value.size)] = 9
    return value


FATAL = {
    "missing": (None, "missing", r"no map validation0001.hdf5 in"),
    "size": (some_map(0)[:, :50], "size", "map is 50x64, its photo 96x64"),
    "nan": (np.full(SIZE, np.nan, np.float16), "unreadable", "6144 NaN or infinite"),
    "constant": (np.full(SIZE, 0.5, np.float16), "constant", "every pixel is 0.5"),
    "signs of zero": (np.where(some_map(0) > 0, 0.0, -0.0).astype(np.float16), "constant", "every pixel is 0"),
    "mask": ((some_map(0) > 2.5).astype(np.float16), "binary", "two distinct values"),
    "saturated": (few_top(0.02).astype(np.float16), "saturated", "2.0 % of the pixels are at the maximum 9"),
}


@pytest.mark.parametrize("case", FATAL)
def test_check_and_write__what_is_fatal(maps, sent, data, case):
    value, kind, text = FATAL[case]
    for folder in (maps, sent):
        (folder / f"{IDS[1]}.hdf5").unlink()
        if value is not None:
            raw(folder / f"{IDS[1]}.hdf5", value.astype(np.float16))
    found = check(sent, data).errors
    assert [(p.frame, p.kind) for p in found] == [(IDS[1], kind)] and re.search(text, found[0].text)
    with pytest.raises(XenomaskError, match=rf"maps is no submission yet: {IDS[1]}: .*{text}"):
        write(maps, data, maps.parent / "other", "mine")
    assert not (maps.parent / "other").exists()


def test_check__all_at_once(sent, data):
    (sent / f"{IDS[0]}.hdf5").unlink()
    raw(sent / f"{IDS[1]}.hdf5", some_map(0)[:10])
    (sent / f"{IDS[2]}.hdf5").write_bytes(b"nothing")
    write_map(sent / "stranger.hdf5", ScoreMap(some_map(0), "eam"))
    (sent / "notes.txt").touch()
    report = check(sent, data)
    assert {(p.frame, p.kind) for p in report.errors} == {
        (IDS[0], "missing"), (IDS[1], "size"), (IDS[1], "type"), (IDS[2], "unreadable"), ("stranger", "no such frame"),
    }  # fmt: skip
    assert {p.kind for p in report.warnings} == {"photos", "other files"}


def test_check__warnings(sent, data):
    top = some_map(0)
    top[0, 0] = 20  # so that 9 is not the largest value of all maps
    write_map(sent / f"{IDS[0]}.hdf5", ScoreMap(top, "eam"))
    write_map(sent / f"{IDS[1]}.hdf5", ScoreMap(few_top(0.02), "eam"))
    write_map(sent / f"{IDS[2]}.hdf5", ScoreMap(np.round(few_top(0.009)), "eam"))
    report = check(sent, data)
    assert report.errors == ()
    assert [(p.frame, p.kind) for p in report.warnings] == [("", "photos"), (IDS[1], "tie"), (IDS[2], "few values")]


def test_check__finds_the_track_below(sent, data):
    for folder in (sent, sent.parent, sent.parents[1], sent.parents[2]):
        assert check(folder, data).folder == sent
    (sent.parents[1] / "other" / "AnomalyTrack-all").mkdir(parents=True)
    with pytest.raises(XenomaskError, match="holds 2 submissions; name one of"):
        check(sent.parents[2], data)
    with pytest.raises(XenomaskError, match="no folder .* `xenomask submission write`"):
        check(sent / "nowhere", data)
    moved = sent.rename(sent.parents[3] / "elsewhere")
    assert "folder" in {p.kind for p in check(moved, data).warnings}


def test_track__only_the_benchmarks_two(maps, data):
    for bad in ("folder", "cityscapes"):
        with pytest.raises(XenomaskError, match="unknown track of the benchmark"):
            write(maps, replace(data, name=bad), maps.parent / "out", "mine")
    no_photo = replace(data, frames=tuple(replace(f, image=None) for f in data.frames))
    with pytest.raises(XenomaskError, match="has no photo"):
        check(maps, no_photo)
    assert {t: TRACKS[t].frames for t in TRACKS} == {"anomaly-track": 110, "obstacle-track": 442}


@pytest.mark.parametrize("bad", ["", ".", "..", "a b", "a/b", "-a", "a.", "é", "x" * 65])
def test_check_method__refuses(bad):
    with pytest.raises(XenomaskError, match="letters, digits"):
        check_method(bad)


def test_cli__write_then_check(maps, data, tmp_path):
    common = ["--dataset", "anomaly-track", "--root", str(data.root), "--json", str(tmp_path / "report.json")]
    runner = CliRunner()
    wrote = runner.invoke(app, ["write", "--maps", str(maps), "--out", str(tmp_path / "out"), "--method", "m", *common])
    assert wrote.exit_code == 0 and "no errors, 1 warnings" in wrote.stdout
    assert "NOT verified: the upload" in wrote.stdout
    (tmp_path / f"out/anomaly_p/m/AnomalyTrack-all/{IDS[0]}.hdf5").unlink()
    checked = runner.invoke(app, ["check", str(tmp_path / "out"), *common])
    assert isinstance(checked.exception, XenomaskError) and "mend the errors" in str(checked.exception)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["unverified"] == UNVERIFIED
    assert [p["kind"] for p in report["problems"] if p["fatal"]] == ["missing"]
