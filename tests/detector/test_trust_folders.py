"""A detector's folder gives the maps that it was written for, or is refused in one line that names the part."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.cli import run
from helpers.folders import without_hashes
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.detector.folder import SHIPPED, assemble, describe_folder, record_files
from xenomask.errors import XenomaskError
from xenomask.models import load
from xenomask.queries import read_queries, write_queries
from xenomask.types import QuerySet

IMAGE = draw_scene(0, (60, 100)).image
PARTS = ["config.json", "model.safetensors", "xenomask.json", "query_analysis/queries.json"]


@pytest.fixture(scope="module")
def analysed(tiny_checkpoint, tmp_path_factory) -> Path:
    """A detector of one network, read by a score that its query analysis decides."""
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("analysed") / "c"))
    write_queries(checkpoint, QuerySet(load(checkpoint).sha256, {1: 0}, {2: 0.5}, (1,)))
    return assemble(checkpoint.parent / "d", "d", [("m", checkpoint)], [1.0], "maskomaly")


@pytest.fixture
def copy(analysed, tmp_path) -> Path:
    return Path(shutil.copytree(analysed, tmp_path / "copy"))


def refused(folder: Path, *said: str) -> None:
    """Both readers refuse it in one line with these words."""
    for read in (Detector.from_folder, describe_folder):
        with pytest.raises(XenomaskError) as e:
            read(folder)
        text = str(e.value)
        assert "\n" not in text and all(s in text for s in said), text


def test_folder__names_every_part(analysed):
    (row,) = json.loads((analysed / "detector.json").read_text())["members"]
    assert sorted(row["files"]) == sorted(PARTS)
    saved = Detector.from_folder(analysed).save(analysed.parent / "saved")
    (row,) = json.loads((saved / "detector.json").read_text())["members"]
    assert sorted(row["files"]) == sorted(PARTS)
    a, b = (Detector.from_folder(f).detect(IMAGE).value for f in (saved, analysed))
    assert np.array_equal(a, b)


def test_folder__the_shipped_one_names_every_part():
    for row in json.loads((SHIPPED / "nano/detector.json").read_text())["members"]:
        assert sorted(row["files"]) == sorted(PARTS)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("fault", ["missing", "changed", "fifo", "device", "link out", "broken link", "folder"])
def test_folder__part(copy, tmp_path, part, fault):
    path = copy / "m" / part
    if fault == "changed":
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    else:
        path.rename(tmp_path / "moved")
    if fault == "fifo":
        os.mkfifo(path)
    elif fault == "device":
        path.symlink_to("/dev/zero")
    elif fault == "link out":
        path.symlink_to(tmp_path / "moved")
    elif fault == "broken link":
        path.symlink_to("nowhere")
    elif fault == "folder":
        path.mkdir()
    refused(copy, f"m/{part}")


def test_folder__member_or_table_that_is_a_link_out(copy, tmp_path):
    (copy / "m").rename(tmp_path / "m")
    (copy / "m").symlink_to(tmp_path / "m")
    refused(copy, "is a link out of the folder")
    (copy / "m").unlink()
    (tmp_path / "m").rename(copy / "m")
    (copy / "detector.json").rename(tmp_path / "t.json")
    (copy / "detector.json").symlink_to(tmp_path / "t.json")
    refused(copy, "detector.json is a link out of the folder")


def test_folder__links_inside_are_followed(copy, tmp_path):
    (copy / "m/config.json").rename(copy / "kept.json")
    (copy / "m/config.json").symlink_to("../kept.json")
    (tmp_path / "alias").symlink_to(copy)
    Detector.from_folder(tmp_path / "alias")


def test_folder__of_the_hubs_cache_holds_links_to_its_blobs(copy, tmp_path):
    snapshot = tmp_path / "models--o--n/snapshots/abc"
    blobs = tmp_path / "models--o--n/blobs"
    blobs.mkdir(parents=True)
    for i, path in enumerate(p for p in copy.rglob("*") if p.is_file()):
        own = snapshot / path.relative_to(copy)
        own.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(i))
        own.symlink_to(os.path.relpath(blobs / str(i), own.parent))
    Detector.from_folder(snapshot)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "more.safetensors", "model.safetensors.index.json"])
def test_folder__a_file_that_it_does_not_name(copy, name):
    (copy / "m" / name).write_text("{}")
    refused(copy, f"m/{name} is not one of the files")


def test_folder__what_decides_no_map_is_free(copy):
    (copy / "m/notes.txt").write_text("mine")
    (copy / "m/._config.json").write_text("of a Mac")
    (copy / "README.md").write_text("mine")
    (copy / "m/query_analysis/outlier_iou.csv").write_text("")
    Detector.from_folder(copy)


@pytest.mark.parametrize("value", [5, [], {"config.json": 5}, {}])
def test_folder__table_of_hashes_that_lies(copy, value):
    table = json.loads((copy / "detector.json").read_text())
    table["members"][0]["files"] = value
    (copy / "detector.json").write_text(json.dumps(table))
    refused(copy, str(copy))


def test_folder__without_hashes_is_taken_with_a_warning_unless_a_needed_part_is_missing(copy, caplog):
    expected = Detector.from_folder(copy).detect(IMAGE).value
    without_hashes(copy)
    assert np.array_equal(Detector.from_folder(copy).detect(IMAGE).value, expected)
    assert f"xenomask assemble --out {copy}" in caplog.text
    record_files(copy)
    caplog.clear()
    assert np.array_equal(Detector.from_folder(copy).detect(IMAGE).value, expected) and not caplog.text
    without_hashes(copy)
    (copy / "m/xenomask.json").rename(copy / "kept")
    refused(copy, "without its xenomask.json")
    with pytest.raises(XenomaskError, match="without its xenomask.json"):
        record_files(copy)
    (copy / "kept").rename(copy / "m/xenomask.json")
    shutil.rmtree(copy / "m/query_analysis")
    refused(copy, "query_analysis/queries.json, which its score maskomaly reads", "xenomask queries")


def test_folder__changed_on_purpose_is_recorded_by_assemble(copy, capsys, caplog):
    shutil.rmtree(copy / "m/query_analysis")
    refused(copy, "m/query_analysis/queries.json is missing")
    assert run(capsys, "assemble", "--out", copy)[0] == 0
    assert "has no query analysis, which its score maskomaly reads" in caplog.text
    Detector.from_folder(copy)
    assert run(capsys, "assemble", "--out", copy, "--half")[0] == 2
    assert run(capsys, "assemble", "--out", SHIPPED / "nano")[0] == 2


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A"), ("é", "é")])
def test_members__of_one_name(tiny_checkpoint, tmp_path, names, capsys):
    pairs = [(n, tiny_checkpoint) for n in names]
    with pytest.raises(XenomaskError, match="two members of the detector .* are called"):
        assemble(tmp_path / "d", "d", pairs, [0.5, 0.5], "entropy")
    words = [w for n in names for w in ("--member", f"{n}={tiny_checkpoint}")]
    code, _, err = run(capsys, "assemble", "--out", tmp_path / "d", *words, "--score", "entropy")
    assert code == 2 and "name them apart" in err.replace("\n", " ") and not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_members__that_are_no_folder_names(tiny_checkpoint, tmp_path, name):
    with pytest.raises(XenomaskError):
        assemble(tmp_path / "d", "d", [(name, tiny_checkpoint)], [1.0], "entropy")


def test_queries__a_pipe_in_their_place_is_not_none(tiny_checkpoint, tmp_path):
    (tmp_path / "query_analysis").mkdir()
    os.mkfifo(tmp_path / "query_analysis/queries.json")
    with pytest.raises(XenomaskError, match="no ordinary file"):
        read_queries(tmp_path, "sha")
