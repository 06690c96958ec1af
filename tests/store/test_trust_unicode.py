"""Names of maps in the form that macOS writes (NFD) are those of a data set in the other (NFC), and the reverse."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from helpers.cli import fails, run
from helpers.scenes import write as write_scenes
from xenomask.datasets import Dataset, open_dataset
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.predict.photos import score_dataset
from xenomask.store import map_ids, map_path
from xenomask.store.classes import class_ids, classes_photo, read_classes, write_classes

NAMES = ("Straße-ü", "Caf\u00e9", "\ud55c\uae00")  # Hangul comes apart, too


def renamed(folder: Path, form: Literal["NFC", "NFD"]) -> Path:
    """A folder whose files have their names in that form."""
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.rename(path.with_name(unicodedata.normalize(form, path.name)))
    return folder


@pytest.fixture
def scenes(tmp_path) -> Dataset:
    root = write_scenes(tmp_path / "scenes", 0).root
    for i, name in enumerate(NAMES):
        for d in ("images", "labels_masks"):
            (root / f"{d}/{i}.png").rename(root / f"{d}/{unicodedata.normalize('NFC', name)}.png")
    return open_dataset("folder", root)


@pytest.fixture
def maps(scenes, tiny_detector, tmp_path) -> Path:
    score_dataset(Detector.from_folder(tiny_detector), scenes, tmp_path / "maps")
    return tmp_path / "maps"


def decomposed(maps: Path) -> Path:
    copy = renamed(Path(shutil.copytree(maps, maps.with_name("nfd"))), "NFD")
    assert {p.name for p in copy.iterdir()} != {p.name for p in maps.iterdir()}
    return copy


def test_map_ids__of_either_form(maps):
    nfd = decomposed(maps)
    assert map_ids(nfd) == map_ids(maps) == sorted(unicodedata.normalize("NFC", n) for n in NAMES)
    assert all(map_path(nfd, i).is_file() and map_path(maps, i).is_file() for i in map_ids(maps))
    shutil.copyfile(map_path(maps, "Caf\u00e9"), nfd / "Caf\u00e9.hdf5")
    with pytest.raises(XenomaskError, match=r"two maps of frame .* \('Caf.*' and 'Caf.*'\): keep one") as e:
        map_ids(nfd)
    assert r"Cafe\u0301" in str(e.value) and r"Caf\xe9" in str(e.value)


def test_classes__are_found_in_either_form(tmp_path):
    name = unicodedata.normalize("NFC", NAMES[0])
    assert not name.isascii()
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        folder.mkdir()
        write_classes(folder / f"{unicodedata.normalize(form, name)}.png", np.full((2, 3), 7), photo="ab")
        assert class_ids(folder) == [name] and classes_photo(folder, name) == "ab"
        assert read_classes(folder, name).tolist() == [[7] * 3] * 2


def test_classes__of_npz_name_no_photo(tmp_path):
    np.savez(tmp_path / "a.npz", pred_id_labels=np.full((2, 3), 7))
    assert class_ids(tmp_path) == ["a"] and classes_photo(tmp_path, "a") is None


def test_commands__match_maps_of_the_other_form(maps, scenes, tiny_detector, tmp_path, capsys):
    nfd, data = decomposed(maps), ("--dataset", "folder", "--root", scenes.root)
    numbers = {}
    for name, folder in (("nfc", maps), ("nfd", nfd)):
        code, _, err = run(capsys, "evaluate", *data, "--maps", folder, "--json", tmp_path / f"{name}.json")
        assert code == 0, err
        numbers[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert numbers["nfc"] == numbers["nfd"] and numbers["nfd"]["frames"] == 3
    for words in (
        ("compare", maps, nfd, *data, "--resamples", 10),
        ("heatmaps", "--maps", nfd, *data, "--out", tmp_path / "heat"),
        ("report", maps, nfd, *data, "--out", tmp_path / "page.html"),
        ("agreement", maps, nfd, *data, "--threshold", 0.5, "--threshold", 0.5, "--out", tmp_path / "agree"),
        ("components", nfd, "--threshold", 0.5, "--out", tmp_path / "components.json"),
        ("score", *data, "--detector", tiny_detector, "--out", nfd),
    ):
        code, out, err = run(capsys, *words)
        assert code == 0, (words, err)
    assert "0 of them new" in out + err and len(list(nfd.glob("*.hdf5"))) == 3
    assert len(list((tmp_path / "heat").iterdir())) >= 3
    renamed(scenes.root, "NFD")  # and a data set from macOS with maps made elsewhere
    code, _, err = run(capsys, "evaluate", *data, "--maps", maps, "--json", tmp_path / "x.json")
    assert code == 0 and json.loads((tmp_path / "x.json").read_text()) == numbers["nfc"], err
    map_path(nfd, "Caf\u00e9").unlink()
    assert "Caf" in fails(capsys, "evaluate", *data, "--maps", nfd)
