"""Text files of others: a byte order mark is no part of them, another encoding is named."""

import json
import re

import pytest

from helpers.places import ROOT
from xenomask.cli.detectors import _read_numbers
from xenomask.datasets.labelmap import read_label_map
from xenomask.detector.member import _table
from xenomask.errors import XenomaskError
from xenomask.files import read_object, read_text
from xenomask.models.convert.pyconfig import read_config as read_python
from xenomask.objects.oodis import _boxes
from xenomask.predict.cache import output_photo
from xenomask.train.config import read_config
from xenomask.train.cutouts import list_cutouts

SOURCE = ROOT / "src" / "xenomask"
RECIPE = ROOT / "configs" / "nano-s.toml"
READERS = {
    "text": (read_text, "a text"),
    "json": (read_object, '{"a": 1}'),
    "numbers": (_read_numbers, '{"a": 1}'),
    "label map": (read_label_map, 'classes = ["road"]\n[ids]\n7 = "road"\n'),
    "recipe": (read_config, RECIPE.read_text()),
    "python": (lambda path: read_python(path, path.parent), "a = dict(b=1)\n"),
}


def test_source__text_of_others_is_read_in_one_place_only():
    found = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if re.search(r"\.read_text\(", p.read_text())}
    assert found == {"report/page.py"}  # the package's own files


@pytest.mark.parametrize("name", READERS)
def test_readers__a_byte_order_mark_is_no_part_of_the_text(tmp_path, name):
    read, text = READERS[name]
    plain, marked = tmp_path / "f", tmp_path / "g" / "f"
    marked.parent.mkdir()
    plain.write_text(text, "utf-8")
    marked.write_text("\ufeff" + text.replace("\n", "\r\n"), "utf-8")
    want, got = read(plain), read(marked)
    if name == "label map":
        want, got = (want.classes, want.coding.table), (got.classes, got.coding.table)
    assert got == want


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_readers__another_encoding_is_one_line(tmp_path, name, encoding):
    read, text = READERS[name]
    (tmp_path / "f").write_text(text + "# \u00e4", encoding)
    with pytest.raises(XenomaskError, match="save it as UTF-8") as e:
        read(tmp_path / "f")
    assert str(tmp_path / "f") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", [n for n in READERS if n != "text"] + ["boxes", "card", "cut-outs", "outputs"])
def test_readers__what_is_nested_too_deeply_is_one_line(tmp_path, name):
    more = {
        "boxes": _boxes, "card": _table, "cut-outs": lambda path: list_cutouts(tmp_path, path), "outputs": output_photo
    }  # fmt: skip
    read = more[name] if name in more else READERS[name][0]
    deep = "[" * 100_000 + "]" * 100_000
    text = f"a = {deep}" if name in ("label map", "recipe", "python") else f'{{"a": {deep}}}'
    data = text.encode()
    (tmp_path / "f").write_bytes(len(data).to_bytes(8, "little") + data if name == "outputs" else data)
    with pytest.raises(XenomaskError) as e:
        read(tmp_path / "f")
    assert str(tmp_path / "f") in str(e.value) and "\n" not in str(e.value)
    if name in ("label map", "recipe"):  # no recursion in its reader
        (tmp_path / "f").write_text(f"a{'.a' * 20_000} = 1")
        with pytest.raises(XenomaskError) as e:
            read(tmp_path / "f")
        assert str(tmp_path / "f") in str(e.value) and "\n" not in str(e.value)


def test_read_object__still_json(tmp_path):
    (tmp_path / "f").write_text(json.dumps([1]))
    with pytest.raises(XenomaskError, match="it holds a list, not an object"):
        read_object(tmp_path / "f")
