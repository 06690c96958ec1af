"""Each data set of the catalogue as a tiny copy in its real on-disk format: read back, damaged, checked."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.catalogue import (
    COPIES,
    ROWS,
    Copy,
)
from helpers.places import ROOT
from xenomask.datasets import CODINGS, DATASETS, open_dataset
from xenomask.datasets.check import check
from xenomask.errors import XenomaskError


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write(root: Path, copy: Copy) -> np.ndarray:
    """Writes the copy and returns the label (2, W) that every frame of it says."""
    stored, says = (np.array([row, row[::-1]], np.uint8) for row in ROWS[copy.coding])
    for i in copy.ids:
        save(root / copy.photo.format(i), np.full((*stored.shape, 3), 99, np.uint8))
        save(root / copy.label.format(i), stored)
    return says


def frame_id(copy: Copy, i: str) -> str:
    """The id: sets whose file names repeat from folder to folder have the folder's name before it."""
    return {"street-hazards": "t5_", "idd": "119_", "sos": "sequence_001_"}.get(copy.name, "") + i


def said_by(act) -> str:
    with pytest.raises(XenomaskError) as e:
        act()
    return str(e.value)


@pytest.mark.parametrize("copy", COPIES, ids=str)
def test_every_set__is_read_from_its_own_format(tmp_path, copy):
    says = write(tmp_path, copy)
    data = open_dataset(copy.name, tmp_path, split=copy.split)
    assert [f.id for f in data.frames] == [frame_id(copy, i) for i in copy.ids]
    assert data.coding == ("train_ids" if DATASETS[copy.name].says == "train_ids" else "anomaly")
    for frame in data.labelled().frames:
        sample = data.sample(frame)
        assert sample.label is not None and np.array_equal(sample.label, says)
        assert sample.image.shape == (*says.shape, 3)
    found = check(copy.name, tmp_path, split=copy.split)
    assert (found.photos, found.labelled, found.problems) == (len(copy.ids), len(copy.ids), ())
    assert found.coding == copy.coding and found.values == {str(v): len(copy.ids) for v in sorted(ROWS[copy.coding][0])}
    assert found.anomalous == (len(copy.ids) if data.coding == "anomaly" else 0)


@pytest.mark.parametrize("copy", [c for c in COPIES if c.lost], ids=str)
def test_every_set__with_a_folder_missing_says_which_and_what_is_there(tmp_path, copy):
    write(tmp_path, copy)
    shutil.rmtree(tmp_path / copy.lost)

    def use():
        data = open_dataset(copy.name, tmp_path, split=copy.split).labelled()
        data.sample(data.frames[0])

    assert said_by(use) == copy.said.replace("ROOT", str(tmp_path))


@pytest.mark.parametrize("copy", [c for c in COPIES if c.coding != "lost_and_found_ids"], ids=str)
def test_every_set__with_a_foreign_label_value_names_it_and_what_it_looks_like(tmp_path, copy):
    write(tmp_path, copy)
    label = tmp_path / copy.label.format(copy.ids[0])
    stored = np.zeros_like(np.array(Image.open(label)))
    stored[0, 0] = copy.foreign
    save(label, stored)
    coding = CODINGS[copy.coding]
    line = (
        f"label {label} holds the values [{copy.foreign}], which {coding.name} has not ({coding.meaning}); {copy.like}"
    )
    data = open_dataset(copy.name, tmp_path, split=copy.split)
    assert said_by(lambda: [data.label(f) for f in data.frames]) == line
    assert check(copy.name, tmp_path, split=copy.split).problems == (line,)


def test_every_entry__has_a_copy_here_and_says_what_its_user_must_know():
    assert {c.name for c in COPIES} == DATASETS.keys()
    for name, entry in DATASETS.items():
        assert entry.name == name and entry.coding in CODINGS and entry.default in entry.splits
        # every command's default split must not be taken for another one's name
        assert entry.default == "val" or "val" not in entry.splits
        assert set(entry.counts) <= set(entry.splits)
        assert all((entry.title, entry.layout, entry.where, entry.licence, entry.conventions))


def test_every_entry__has_its_section_in_the_docs():
    text = (ROOT / "docs" / "datasets.md").read_text()
    sections = {s.split("`")[1]: " ".join(s.split()) for s in text.split("\n### ")[1:]}
    assert sections.keys() == DATASETS.keys()
    for name, entry in DATASETS.items():
        facts = (
            entry.title,
            entry.layout,
            entry.where,
            entry.licence,
            entry.conventions,
            CODINGS[entry.coding].meaning,
        )
        assert [fact for fact in facts if fact not in sections[name]] == []
        assert all(f"`{split}`" in sections[name] for split in entry.splits)
