"""Files that mean harm, or are broken: refused in one line, nothing executed, no memory taken."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.places import MICRO
from helpers.refusals import refused
from xenomask.models.convert.checkpoint import MAGIC, read_checkpoint
from xenomask.models.convert.mmseg import convert_mmseg
from xenomask.models.convert.pyconfig import Unread, lookup, merge, read_config, read_config_text
from xenomask.models.convert.recognise import convert, recognise

MB = 1024 * 1024


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def with_pickle(path: Path, data: bytes, method: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
    """A zip as torch.save writes it, with that pickle in it."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
        for name, content in entries.items():
            archive.writestr(f"archive/data/{name}", content)
    return path


def dumped(content: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(content, protocol)


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


def code(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


PICKLES: dict[str, Callable[[Path], bytes]] = {
    "exec": lambda c: dumped({"state_dict": Call(exec, code(c))}),
    "eval in the meta": lambda c: dumped({"meta": Call(eval, code(c)), "state_dict": {}}),
    "os.system": lambda c: dumped(Call(__import__("os").system, f"touch {c}")),
    "subprocess": lambda c: dumped([Call(subprocess.check_call, ["touch", str(c)])]),
    "newer protocol": lambda c: dumped(Call(exec, code(c)), 4),
    "import": lambda c: dumped(Call(__import__, "antigravity")),
    "getattr, then called": lambda c: b"\x80\x02cbuiltins\ngetattr\nX\x01\x00\x00\x00aX\x05\x00\x00\x00upper\x86R)R.",
    "instance": lambda c: b"\x80\x02(cos\nsystem\nX\x05\x00\x00\x00touchtR.",
    "old instance": lambda c: b"(S'touch x'\nios\nsystem\n.",
    "torch's own loader": lambda c: dumped(Call(torch.load, "x")),
    "torch.hub": lambda c: dumped(Call(torch.hub.load, "x", "y")),
    "large bytearray": lambda c: dumped(Call(bytearray, 2**40)),
    "large tensor": lambda c: dumped(Call(torch.zeros, 2**40)),
    "nested lists": lambda c: b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "nested tuples": lambda c: b"\x80\x02)" + b"\x85" * 300_000 + b".",
    "opcodes without end": lambda c: b"\x80\x02" + b"N0" * 600_000 + b".",
    "far memo": lambda c: b"\x80\x02Nr\xff\xff\xff\x7f.",
    "text that is not there": lambda c: b"\x80\x02X\xff\xff\xff\x7fabc.",
    "no end": lambda c: b"\x80\x02}",
    "empty": lambda c: b"",
    "noise": lambda c: bytes(range(256)),
    "no dict": lambda c: dumped([1, 2]),
    "no tensors": lambda c: dumped({"state_dict": {"a": 1}}),
    # each copy of the memoized dict is small in the file
    "copies of copies": lambda c: b"\x80\x02](}q\x00(" + b"".join(b"K%cK\x00" % i for i in range(256)) + b"u"
    + b"ccollections\nOrderedDict\nh\x00\x85R" * 60_000 + b"e.",
    "texts of texts": lambda c: b"\x80\x02](X" + struct.pack("<I", MB) + b"a" * MB + b"q\x00"
    + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00utf-32\x86R" * 2_000 + b"e.",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.startswith("nested") else n for n in PICKLES]
)
def test_pickle__refused_and_never_run(tmp_path, canary, name, kind):
    data = PICKLES[name](canary)
    path = tmp_path / "hostile.pth"
    if kind == "zip":
        with_pickle(path, data)
    else:  # as before torch 1.6: magic number, protocol, system, content, storages
        head = dumped(0x1950A86A20F9469CFC6C) + dumped(1001) + dumped({"little_endian": True})
        assert MAGIC in head
        path.write_bytes(head + data + dumped([]))
    refused(read_checkpoint, path, names=path, longest=500)
    assert not canary.exists()


def test_pickle__nested_too_deeply_to_compare(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cnumpy\ndtype\n)" + b"\x85" * 50_001 + b"R.")
    refused(convert, tmp_path / "a.pkl", said="it is nested too deeply")


def stored(**more: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": OrderedDict(a=torch.zeros(1000)), **more}, file)
    return file.getvalue()


@pytest.mark.parametrize("cut", [3, 100, 1000, -1, -30])
def test_zip__cut_off(tmp_path, cut):
    path = tmp_path / "cut.pth"
    path.write_bytes(stored()[:cut])
    refused(read_checkpoint, path, said="cut off|damaged|no file of torch.save")


def test_zip__bombs(tmp_path):
    path = with_pickle(tmp_path / "deflated.pth", bytes(300 * MB), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MB
    refused(read_checkpoint, path, said="compressed zip")
    with_pickle(path, dumped({}), a=bytes(1000))
    data = path.read_bytes()  # the directory claims 4 GB for its entry
    size = struct.pack("<I", 1000)
    assert data.count(size * 2) == 2
    path.write_bytes(data.replace(size * 2, struct.pack("<I", 2**32 - 2) * 2))
    refused(read_checkpoint, path, said="claim more bytes")
    with_pickle(path, dumped({}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", dumped({}))
    refused(read_checkpoint, path, said="2 entries")


def test_zip__none_at_all(tmp_path):
    (tmp_path / "page.pth").write_text("<html>404</html>")
    for call in (read_checkpoint, recognise):
        refused(call, tmp_path / "page.pth", said="no file of torch.save|neither a file")
    refused(read_checkpoint, tmp_path / "nothing.pth", said="no checkpoint")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(1).expand(2**40), "not stored in full"),
        (torch.zeros(2, 2).to_sparse(), "not|asks for"),
        (torch.zeros(3, device="meta"), "not|asks for"),
    ],
)
def test_tensors__that_claim_more_than_they_hold(tmp_path, tensor, said):
    torch.save({"state_dict": {"decode_head.a": tensor}}, tmp_path / "a.pth")
    refused(read_checkpoint, tmp_path / "a.pth", said=said)


def test_tensors__that_share_their_bytes(tmp_path):
    one = torch.zeros(100_000)
    torch.save({"state_dict": {f"a{i}": one[i:] for i in range(100)}}, tmp_path / "a.pth")
    refused(read_checkpoint, tmp_path / "a.pth", said="share their bytes")


@pytest.mark.parametrize("name", ["a\nerror: b", "\x1b[2Ja", "a" * 1000, ""])
def test_tensors__whose_names_are_none(tmp_path, name):
    torch.save({"state_dict": {name: torch.zeros(1)}}, tmp_path / "a.pth")
    assert refused(read_checkpoint, tmp_path / "a.pth", said="which no layer can have").isprintable()


def test_meta__of_wrong_kinds_is_passed_over(tmp_path):
    content = torch.load(MICRO, weights_only=True)
    content["meta"] = {"iter": [], "cfg": 5, "experiment_name": {}, "dataset_meta": [], "mmengine_version": 1}
    torch.save(content, tmp_path / "a.pth")
    facts = convert_mmseg(tmp_path / "a.pth").network.facts["converted"]
    assert (facts["iterations"], facts["experiment"], facts["versions"]) == (None, None, {})


@pytest.mark.parametrize(
    "name", ["backbone.stages.2.blocks.999.norm1.bias", "decode_head.transformer_decoder.layers.998.norms.0.bias"]
)
def test_architecture__of_a_thousand_layers_by_one_name(tmp_path, name):
    tensors = dict(torch.load(MICRO, weights_only=True)["state_dict"])
    torch.save({"state_dict": tensors | {name: torch.zeros(16)}}, tmp_path / "a.pth")
    refused(convert_mmseg, tmp_path / "a.pth", said="missing")


@pytest.mark.slow
def test_memory__under_one_gigabyte(tmp_path, canary):
    """All hostile pickles in one process of its own, whose peak is measured."""
    paths = [with_pickle(tmp_path / f"{i}.pth", make(canary)) for i, make in enumerate(PICKLES.values())]
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from xenomask.errors import XenomaskError\n"
        "from xenomask.models.convert.checkpoint import read_checkpoint\n"
        "for p in sys.argv[1:]:\n"
        "    try:\n        read_checkpoint(Path(p))\n"
        "    except XenomaskError:\n        continue\n"
        "    raise SystemExit(p)\n"
        # NOTE: not ru_maxrss, which a process inherits from the one that started it
        "status = Path('/proc/self/status').read_text().split()\n"
        "print(int(status[status.index('VmHWM:') + 1]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000  # MB, of which importing torch and transformers takes some 500
    assert not canary.exists()


# --- configs ---------------------------------------------------------------------------------------------------------


def refused_config(text: str) -> str:
    return refused(read_config_text, text, "hostile.py", said="^config hostile.py", longest=400)


CODE = {
    "import": "import os",
    "from import": "from mmengine.config import read_base",
    "with": "with read_base():\n    from .a import *",
    "loop": "for i in range(10):\n    pass",
    "while": "while True:\n    pass",
    "function": "def f():\n    pass",
    "class": "class A:\n    pass",
    "if": "if True:\n    a = 1",
    "try": "try:\n    a = 1\nexcept E:\n    pass",
    "call": "a = open('canary', 'w')",
    "call by attribute": "a = ().__class__.__bases__[0].__subclasses__()",
    "bare call": "print(1)",
    "method": "a = 'x'.join(['a'])",
    "update by code": "a = dict()\na.update(open('canary', 'w'))",
    "lambda": "a = lambda: 1",
    "comprehension with code": "a = [__import__('os').system('touch canary') for _ in [1]]",
    "comprehension with attribute": "a = [x.__class__ for x in [1]]",
    "f-string with code": "a = f'{open(chr(99))}'",
    "walrus": "a = [(b := 1)]",
    "attribute": "a = dict()\nb = a.items",
    "unpacked target": "a, b = 1, 2",
    "item assigned": "a = dict()\na['b'] = 1",
    "delete": "a = 1\ndel a",
    "name unknown": "a = __builtins__",
    "base at hand": "_base_ = './other.py'",
    "base that is none": "_base_ = 5",
    "division by zero": "a = 1 / 0",
    "power": "a = 9 ** 9 ** 9",
    "shift": "a = 1 << 10 ** 10",
    "huge product": "a = " + " * ".join(["999999999"] * 9),
    "huge number": "a = " + "9" * 10_000,
    "huge list": "a = [0] * 10 ** 10",
    "huge list by numbers": "a = [0] * 10000000000",
    "doubling": "a = [0] * 1000\n" + "a = a + a\n" * 50,
    "copies": "a = [0] * 9999\n" + "b = list(a)\n" * 50,
    "huge text": "a = 'x' * 10000000000",
    "format": "a = '%1000000000d' % 1",
    "infinite": "a = int(1e999)",
    "dict of no dict": "a = dict(5)",
    "not hashable": "a = {[]: 1}",
    "nested brackets": "a = " + "[" * 5000 + "]" * 5000,
    "nested signs": "a = " + "-" * 50_000 + "1",
    "nested sums": "a = " + "1+" * 50_000 + "1",
    "nested calls": "a = " + "dict(a=" * 1000 + "1" + ")" * 1000,
    "too large": "a = 1\n" * 100_000,
    "syntax": "a = = 1",
    "null": "a = 1\0",
}


@pytest.mark.parametrize("name", CODE)
def test_config__code_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused_config(CODE[name])
    assert not list(tmp_path.iterdir())


def test_config__error_names_the_line():
    assert "config hostile.py, line 3: Import is code" in refused_config("a = 1\n\nimport os\n")
    assert "the call open(...) is code, which is never run" in refused_config("a = open('canary')")


def test_config__what_is_understood():
    found = read_config_text(
        "# a comment\n'''text'''\nn = 19\nmodel = dict(type='A', w=[1.0] * n + [0.1], size=(512, -2 * 4), **dict(x=None"
        "))\n"
        "scales = [int(1024 * x * 0.1) for x in range(5, 21)]\nkeys = {'a': dict(b=1)}\n"
        "keys.update({f'stage.{i}': 1 for i in range(4)})\nkeys.update(dict(c=1))\n"
        "half: float = n / 2\nlast = model['w'][-1]\nok = not True\n",
        "a.py",
    )
    assert (found["model"]["w"], found["model"]["size"]) == ([1.0] * 19 + [0.1], (512, -8))
    assert (found["half"], found["last"], found["ok"], lookup(found, "model.x", 5)) == (9.5, 0.1, False, None)
    assert isinstance(found["scales"], Unread)
    refused(lookup, found, "keys.a.b", said="line [0-9]+: keys.a.b is computed")
    assert lookup(found, "model.nothing.more", "default") == "default"


def test_config__bases_as_mmsegmentation_lays_them(tmp_path):
    models, bases = tmp_path / "configs" / "mask2former", tmp_path / "configs" / "_base_"
    models.mkdir(parents=True)
    bases.mkdir()
    (bases / "runtime.py").write_text("log = 'INFO'\ncrop = (512, 1024)\n")
    (models / "r50.py").write_text(
        "_base_ = ['../_base_/runtime.py']\nmodel = dict(backbone=dict(type='ResNet', depth=50), head=dict(a=1, b=2))\n"
    )
    (models / "swin.py").write_text(
        "_base_ = './r50.py'\ndepths = [2, 2]\nsize = _base_.crop\nalso = '{{_base_.log}}'\nthird = {{_base_.log}}\n"
        "model = dict(backbone=dict(_delete_=True, type='Swin', depths=depths), head=dict(b=_base_.model.head.a))\n"
    )
    found = read_config(models / "swin.py")
    assert found["model"] == {"backbone": {"type": "Swin", "depths": [2, 2]}, "head": {"a": 1, "b": 1}}
    assert (found["log"], found["size"], found["third"]) == ("INFO", (512, 1024), "INFO")


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("../outside.py", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("inside/../../outside.py", "lies outside"),
        ("link.py", "lies outside"),
        ("mmdet::_base_/a.py", "another package"),
        ("https://example.com/a.py", "another package"),
        ("a.py", "inherits from itself"),
        ("missing.py", "cannot be read"),
        (".", "cannot be read"),
        ("binary.py", "save it as UTF-8"),
    ],
)
def test_config__bases_refused(tmp_path, base, said):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "outside.py").write_text("secret = 1")
    (folder / "link.py").symlink_to(tmp_path / "outside.py")
    (folder / "binary.py").write_bytes(b"\xff\xfe\x00")
    (folder / "a.py").write_text(f"_base_ = {base!r}\n")
    refused(read_config, folder / "a.py", said=said)


def test_config__two_bases_that_assign_the_same(tmp_path):
    for name in "bc":
        (tmp_path / f"{name}.py").write_text("x = 1")
    (tmp_path / "a.py").write_text("_base_ = ['b.py', 'c.py']")
    refused(read_config, tmp_path / "a.py", said="two bases assign x")


def test_config__short_files_that_become_large_are_refused(tmp_path):
    shared = "a0 = dict(v=1)\n" + "".join(f"a{i} = dict(x=a{i - 1}, y=a{i - 1})\n" for i in range(1, 25))
    assert "holds more than 100000 entries" in refused_config(shared)
    for i in range(8):  # 16^8 readings
        (tmp_path / f"c{i}.py").write_text(f"_base_ = ['c{i + 1}.py'] * 16\n")
    (tmp_path / "c8.py").write_text("")
    refused(read_config, tmp_path / "c0.py", said="at most 32 are read for a config")
    (tmp_path / "c0.py").write_text("_base_ = ['c8.py'] * 32\nx = 1\n")
    assert read_config(tmp_path / "c0.py") == {"x": 1}


def test_merge__dict_over_no_dict():
    refused(merge, {"a": {"b": 1}}, {"a": 5}, "a.py", said="say _delete_=True")
    assert merge({"a": {"_delete_": True, "b": 1}}, {"a": 5}, "") == {"a": {"b": 1}}


def test_config__inside_a_checkpoint_is_read_likewise(tmp_path, canary):
    tensors = torch.load(MICRO, weights_only=True)["state_dict"]
    torch.save({"meta": {"cfg": f"import os\n{code(canary)}"}, "state_dict": tensors}, tmp_path / "a.pth")
    refused(convert_mmseg, tmp_path / "a.pth", said="inside a.pth, line 1: Import is code")
    assert not canary.exists()


# --- which project ---------------------------------------------------------------------------------------------------


def test_recognise__by_content(tmp_path):
    torch.save({"model": {"sem_seg_head.predictor.query_feat.weight": torch.zeros(2)}}, tmp_path / "d2.pth")
    (tmp_path / "d2.pkl").write_bytes(dumped({"model": {}}))
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    found = [recognise(p) for p in (MICRO, tmp_path / "d2.pth", tmp_path / "d2.pkl")]
    assert found == ["mmsegmentation", "detectron2", "detectron2"]
    refused(recognise, tmp_path / "other.pth", said="no project that xenomask converts.*conv.weight")
    refused(convert, tmp_path / "d2.pth", said="query_feat.weight has the shape")
