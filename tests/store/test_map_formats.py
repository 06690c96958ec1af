"""Maps of other tools: every format gives the numbers of HDF5, and a hostile file is refused in one line."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails, run
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.evaluation.evaluate import evaluate_maps
from xenomask.store import MapFolder, map_path, read_map, read_stored, write_map
from xenomask.types import ScoreMap

SIZE = (64, 96)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), "folder", 3, size=SIZE)


@pytest.fixture(scope="module")
def values(scenes) -> dict[str, np.ndarray]:
    """{id: float16 (H, W)}: noise, higher on anomalies."""
    data, rng = open_dataset("folder", scenes), np.random.default_rng(0)
    return {f.id: (rng.random(SIZE) + 0.3 * (data.label(f) == 1)).astype(np.float16) for f in data.frames}


@pytest.fixture(scope="module")
def ours(values, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    for i, value in values.items():
        write_map(folder / f"{i}.hdf5", ScoreMap(value.astype(np.float32), "noise"))
    return folder


def h5(path: Path, value: np.ndarray, key: str = "value") -> None:
    with h5py.File(path, "w") as f:
        f[key] = value


def picture(path: Path, value: np.ndarray) -> None:
    Image.fromarray(value).save(path)


def version_3(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, version=(3, 0))
    return buffer.getvalue()


# name -> (pattern, key, how a float16 map is written)
WRITERS = {
    "hdf5 by key": ("{id}.h5", "scores/final", lambda p, v: h5(p, v, "scores/final")),
    "hdf5 float64": ("seen_{id}.hdf5", None, lambda p, v: h5(p, v.astype(np.float64))),
    "npy float16": ("{id}.npy", None, np.save),
    "npy float32": ("{id}_score.npy", None, lambda p, v: np.save(p, v.astype(np.float32))),
    "npy big-endian": ("{id}.npy", None, lambda p, v: np.save(p, v.astype(">f8"))),
    "npy columns first": ("{id}.NPY", None, lambda p, v: p.write_bytes(saved(np.asfortranarray(v)))),
    "npy version 3": ("{id}.npy", None, lambda p, v: p.write_bytes(version_3(v))),
    "npz alone": ("{id}.npz", None, lambda p, v: np.savez_compressed(p, whatever=v)),
    "npz value": ("{id}.npz", None, lambda p, v: np.savez(p, value=v, other=1 - v)),
    "npz by key": ("{id}.npz", "scores", lambda p, v: np.savez_compressed(p, scores=v, value=1 - v)),
    "tiff float": ("{id}.tiff", None, lambda p, v: picture(p, v.astype(np.float32))),
}


def evaluated(capsys, maps: Path, scenes: Path, *more) -> tuple[dict, str]:
    out = maps / "numbers.json"
    code, _, err = run(
        capsys, "evaluate", "--maps", maps, "--dataset", "folder", "--root", scenes, "--resamples", 20, "--json", out,
        *more,
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out.read_text())
    out.unlink()
    return found, err


@pytest.mark.parametrize("name", WRITERS)
def test_evaluate__gives_the_numbers_of_our_own_maps(name, scenes, values, ours, tmp_path, capsys):
    pattern, key, write = WRITERS[name]
    for i, value in values.items():
        write(tmp_path / pattern.replace("{id}", i), value)
    expected, quiet = evaluated(capsys, ours, scenes)
    assert "no manifest" not in quiet
    found, err = evaluated(capsys, tmp_path, scenes, "--pattern", pattern, *(("--key", key) if key else ()))
    assert found == expected
    assert err.count("not checked") == 1


@pytest.mark.parametrize("dtype", ["bool", "i1", "u1", "<u2", ">i4", "u8", "f4", ">f2", "longdouble"])
def test_npy__of_any_real_type_becomes_float16(dtype, tmp_path):
    value = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    np.save(tmp_path / "a.npy", value)
    np.savez(tmp_path / "a.npz", value)
    for name in ("a.npy", "a.npz"):
        found = read_map(tmp_path / name)
        assert found.dtype == np.float16 and found.tolist() == [[0, 1, 1], [1, 0, 1]]


def test_pictures__8_and_16_bits_are_one_scale(tmp_path):
    rows = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture(tmp_path / "a.png", rows)
    picture(tmp_path / "b.png", rows.astype(np.uint16) * 257)
    picture(tmp_path / "c.tif", rows.astype(np.uint16) * 257)
    picture(tmp_path / "d.TIF", rows.astype(np.int32))
    for name in ("a.png", "b.png", "c.tif", "d.TIF"):
        assert np.array_equal(read_map(tmp_path / name), rows), name
    picture(tmp_path / "e.png", np.array([[0, 1, 65534, 65535]], np.uint16))
    assert read_stored(tmp_path / "e.png")[0].tolist() == pytest.approx([0, 1 / 257, 65534 / 257, 255])


def test_pictures__colours_and_palettes_are_no_scores(tmp_path):
    picture(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    for name, why in (("a", "picture of colours"), ("b", "picture of colours"), ("c", "is not an image")):
        with pytest.raises(XenomaskError, match=why):
            read_map(tmp_path / f"{name}.png")


def test_report_heatmaps_components_compare__take_them_too(scenes, values, ours, tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    (ours / "manifest.json").write_text("{}")  # what `xenomask score` writes: read as ours whatever --pattern says
    for i, value in values.items():
        np.save(tmp_path / f"theirs/{i}_score.npy", value)
    data, named = ("--dataset", "folder", "--root", scenes), ("--pattern", "{id}_score.npy")
    for words in (
        ("report", tmp_path / "theirs", *data, "--out", tmp_path / "r.html", *named),
        ("heatmaps", "--maps", tmp_path / "theirs", *data, "--out", tmp_path / "h", *named),
        ("components", tmp_path / "theirs", "--threshold", 0.5, "--out", tmp_path / "c.json", *named),
        ("compare", ours, tmp_path / "theirs", *data, "--json", tmp_path / "d.json", *named),
        ("agreement", ours, tmp_path / "theirs", *data, "--out", tmp_path / "a", *named),
        ("thresholds", "--maps", tmp_path / "theirs", *data, "--f1", *named),
    ):
        code, _, err = run(capsys, *words)
        assert code == 0, (words[0], err)
        assert err.count("not checked") == 1, words[0]
    (ours / "manifest.json").unlink()
    assert all(row["difference"] in (0, None) for row in json.loads((tmp_path / "d.json").read_text()))
    run(capsys, "components", ours, "--threshold", 0.5, "--out", tmp_path / "e.json")
    a, b = (json.loads((tmp_path / name).read_text())["annotations"] for name in ("c.json", "e.json"))
    assert a == b and a


def test_nothing_fits__what_lies_there_is_named(scenes, values, tmp_path, capsys):
    for i, value in values.items():
        np.save(tmp_path / f"x_{i}_score.npy", value)
    first = sorted(values)[0]
    data = ("--dataset", "folder", "--root", scenes)
    wanted = f"3 .npy files lie there, named x_{first}_score.npy, "
    advice = "they look like folder: give --pattern 'x_{id}_score.npy'"
    for more in ((), ("--pattern", "{id}.npy"), ("--pattern", "{id}.tif")):
        code, _, err = run(capsys, "evaluate", "--maps", tmp_path, *data, *more)
        assert code == 2 and wanted in err and advice in err, err
    assert advice in fails(capsys, "heatmaps", "--maps", tmp_path, *data, "--out", tmp_path / "h")
    err = fails(capsys, "components", tmp_path, "--threshold", 1, "--out", tmp_path / "c.json")
    assert wanted in err and "give --pattern '{id}.npy'" in err
    for i in values:  # photos of the same names are not proposed
        picture(tmp_path / f"{i}.png", np.zeros(SIZE, np.uint8))
    np.save(tmp_path / f"{{id}}{first}.npy", 1)  # nor what no pattern can hold
    code, _, err = run(capsys, "evaluate", "--maps", tmp_path, *data)
    assert code == 2 and advice in err, err
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other/q.npy", np.ones(SIZE))
    err = fails(capsys, "evaluate", "--maps", tmp_path / "other", *data)
    assert f"1 .npy files lie there, named q.npy; none is named like a frame of folder, such as {first}" in err


def test_missing_and_extra_ids_and_sizes__are_refused(scenes, values, tmp_path, capsys):
    for i, value in values.items():
        np.save(tmp_path / f"{i}.npy", value)
    words = ("evaluate", "--maps", tmp_path, "--dataset", "folder", "--root", scenes, "--pattern", "{id}.npy")

    def failure() -> str:
        code, _, err = run(capsys, *words)
        assert code == 2
        return err

    first = sorted(values)[0]
    np.save(tmp_path / "stray.npy", values[first])
    assert "1 maps that belong to no frame of the data set, the first is stray" in failure()
    (tmp_path / "stray.npy").unlink()
    np.save(tmp_path / f"{first}.npy", values[first][1:])
    assert f"frame {first}: map is 96x63, its label 96x64" in failure()
    (tmp_path / f"{first}.npy").unlink()
    assert f"1 of 3 labelled frames have no map in {tmp_path}, the first is {first}" in failure()


@pytest.mark.parametrize("pattern", ["score.npy", "{id}{id}.npy", "a/{id}.npy", "../{id}.npy", ".{id}.npy", "{id}.jpg",
                                     "{id}", ""])  # fmt: skip
def test_pattern__that_names_no_file_of_a_known_format_is_refused(pattern):
    with pytest.raises(XenomaskError, match="pattern"):
        MapFolder(Path("m"), pattern)


def test_pattern__letters_of_shell_patterns_are_letters(tmp_path):
    np.save(tmp_path / "[a]*b.npy", np.ones((2, 2)))
    np.save(tmp_path / "ab.npy", np.ones((2, 2)))
    assert MapFolder(tmp_path, "[a]{id}.npy").ids() == ["*b"]
    assert MapFolder(tmp_path, "{id}b.npy").ids() == ["[a]*", "a"]


def test_key__of_a_file_without_names_and_of_what_is_not_there(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    picture(tmp_path / "a.png", np.ones((2, 2), np.uint8))
    np.savez(tmp_path / "a.npz", x=np.ones((2, 2)), y=np.ones((2, 2)))
    h5(tmp_path / "a.hdf5", np.ones((2, 2)), "group/scores")
    for name in ("a.npy", "a.png"):
        with pytest.raises(XenomaskError, match="has no key: leave --key out"):
            read_map(tmp_path / name, "x")
    with pytest.raises(XenomaskError, match=r"no array 'value', only \['x', 'y'\]; choose one with --key"):
        read_map(tmp_path / "a.npz")
    with pytest.raises(XenomaskError, match=r"no dataset 'value', only \['group'\]; choose one with --key"):
        read_map(tmp_path / "a.hdf5")
    for key in ("group", "group/x", "group/scores/x", "/", "a\0b", "\udcff"):
        with pytest.raises(XenomaskError):
            read_map(tmp_path / "a.hdf5", key)
    assert read_map(tmp_path / "a.hdf5", "group/scores").tolist() == [[1, 1], [1, 1]]


def test_key__a_link_on_the_way_is_not_followed(tmp_path):
    h5(tmp_path / "other.hdf5", np.ones((2, 2)), "group/scores")
    with h5py.File(tmp_path / "a.hdf5", "w") as f:
        f["group"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "group")
    with pytest.raises(XenomaskError, match="'group' is a link"):
        read_map(tmp_path / "a.hdf5", "group/scores")


# --- hostile files ---


def npy(header: str, data: bytes = b"", version: int = 1, size: int | None = None) -> bytes:
    text = header.encode()
    size = len(text) if size is None else size
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + text + data


def said(shape: str = "(2, 2)", descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def saved(value: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value, **options)
    return buffer.getvalue()


class Bad:
    def __reduce__(self):
        return os.system, ("touch owned",)


HOSTILE = {
    "empty": b"",
    "short": b"\x93NUM",
    "no npy": b"P5 4 4 255 and more",
    "version 9": npy(said(), bytes(16), 9),
    "objects": saved(np.array([[Bad()]], object), allow_pickle=True),
    "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N.",
    "strings": saved(np.array([["a", "b"]])),
    "records": saved(np.zeros((2, 2), [("a", "f4")])),
    "complex": saved(np.ones((2, 2), complex)),
    "dates": saved(np.zeros((2, 2), "M8[s]")),
    "huge shape": npy(said("(10000000, 10000000)"), bytes(64)),
    "more than is there": npy(said("(20000, 5000)"), bytes(64)),
    "overflowing shape": npy(said("(4294967296, 4294967296)"), bytes(64)),
    "negative shape": npy(said("(-2, -2)"), bytes(64)),
    "shape of floats": npy(said("(2.0, 2)"), bytes(64)),
    "shape of bools": npy(said("(True, True)"), bytes(64)),
    "shape of digits": npy(said(f"({'9' * 5000}, 2)"), bytes(64)),
    "no shape": npy("{'descr': '<f4'}"),
    "a list": npy("[1, 2]"),
    "a program": npy(said("__import__('os').getcwd()")),
    "deep": npy("(" * 9000),
    "deep signs": npy("-" * 9000 + "1"),
    "not text": npy("") [:8] + b"\x04\x00\xff\xfe\xfd\xfc",
    "long header": npy(said(), bytes(16), 2, 2**32 - 1),
    "header beyond the end": npy(said(), b"", 1, 9000),
    "odd size of floats": npy(said(descr="'<f3'"), bytes(64)),
    "sixteen-digit type": npy(said(descr="'<f9999999999'"), bytes(64)),
    "order": npy(said(order="'no'"), bytes(64)),
    "one axis": saved(np.ones(4, np.float32)),
    "three axes": saved(np.ones((1, 2, 2), np.float32)),
    "no pixel": saved(np.ones((0, 2), np.float32)),
    "NaN": saved(np.array([[np.nan, 1]])),
    "infinity": saved(np.array([[np.inf, 1]], np.float16)),
    "beyond float16": saved(np.array([[1e6, 1]])),
}  # fmt: skip


def refused(path: Path) -> str:
    with pytest.raises(XenomaskError) as e:
        read_map(path)
    assert str(path) in str(e.value) and "\n" not in str(e.value) and "Type-check" not in str(e.value)
    return str(e.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_npy__is_refused_in_one_line_alone_and_in_npz(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(HOSTILE[name])
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as f:
        f.writestr("value.npy", HOSTILE[name])
    refused(tmp_path / "a.npy")
    refused(tmp_path / "a.npz")
    assert not (tmp_path / "owned").exists()


def zipped(**options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as f:
        f.writestr("value.npy", saved(np.ones((8, 8), np.float32)))
    return buffer.getvalue()


def test_hostile_npz__is_refused_in_one_line(tmp_path):
    whole, path = zipped(), tmp_path / "a.npz"
    at = whole.rindex(b"PK\5\6")
    crc = whole.index(b"NUMPY") + 150
    cases = {
        "empty": b"", "no zip": b"x" * 100, "cut": whole[:-30], "end alone": whole[at:],
        "lzma": zipped(compression=zipfile.ZIP_LZMA), "bzip2": zipped(compression=zipfile.ZIP_BZIP2),
        "large contents": whole[: at + 12] + struct.pack("<I", 2**31) + whole[at + 16 :],
        "zip64": whole[:at] + b"PK\6\7" + bytes(16) + whole[at:],
        "encrypted": whole.replace(b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0"),
        "changed numbers": whole[:crc] + b"\7" + whole[crc + 1 :],
    }  # fmt: skip
    for name, data in cases.items():
        assert data != whole, name
        path.write_bytes(data)
        refused(path)
    with zipfile.ZipFile(path, "w") as f:
        f.writestr("readme.txt", "nothing")
    assert "only []" in refused(path)
    with zipfile.ZipFile(path, "w") as f:  # more than the header says
        f.writestr("value.npy", saved(np.ones((2, 2))) + b"more")
    refused(path)
    path.write_bytes(whole)
    assert read_map(path).tolist() == np.ones((8, 8)).tolist()


def test_files__flipped_or_cut_anywhere_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    for name, data in (("a.npy", saved(rng.random((6, 6)))), ("a.npz", zipped(compression=zipfile.ZIP_DEFLATED))):
        for _ in range(300):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), rng.integers(1, 4)):
                broken[at] = rng.integers(0, 256)
            (tmp_path / name).write_bytes(broken[: rng.integers(1, len(data))] if rng.random() < 0.2 else broken)
            try:
                read_map(tmp_path / name)
            except XenomaskError as e:
                assert "\n" not in str(e)


@pytest.mark.parametrize("ending", ["npy", "npz", "png", "tiff", "h5"])
def test_pipes_folders_and_nothing__are_no_maps(ending, tmp_path):
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    for name in ("pipe", "folder", "nothing"):
        refused(tmp_path / f"{name}.{ending}")


MEASURE = """
import resource, sys
from pathlib import Path
from xenomask.errors import XenomaskError
from xenomask.store import read_map
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
try:
    read_map(Path(sys.argv[1]))
except XenomaskError as e:
    print(peak() - before, e)
"""


def bombs(folder: Path) -> list[Path]:
    """Small files that claim much: 8 GB by the header, 1 GB packed into 1 MB, a table of contents of 30 MB."""
    with zipfile.ZipFile(folder / "packed.npz", "w", zipfile.ZIP_DEFLATED) as f, f.open("value.npy", "w") as part:
        part.write(npy(said("(16384, 16384)")))
        for _ in range(1024):
            part.write(bytes(2**20))
    with zipfile.ZipFile(folder / "short.npz", "w", zipfile.ZIP_DEFLATED) as f, f.open("value.npy", "w") as part:
        part.write(npy(said("(2, 2)")))
        for _ in range(1024):
            part.write(bytes(2**20))
    with (folder / "hole.npy").open("wb") as f:
        f.write(npy(said("(65536, 32768)")))
        f.truncate(2**33 + 128)
    with zipfile.ZipFile(folder / "many.npz", "w") as f:
        for i in range(40_000):
            f.writestr(f"{i:0200}.npy", b"")
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_bombs__take_little_memory(tmp_path):
    found = bombs(tmp_path)
    assert len(found) == 4
    for path in found:
        done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
        megabytes, said = done.stdout.split(" ", 1)
        assert int(megabytes) < 20 and str(path) in said, (path, done.stdout)


def test_benchmark__puts_own_maps_beside_detectors_and_in_a_paper_s_table(
    scenes, values, tmp_path, capsys, tiny_detector
):
    for i, value in values.items():
        (tmp_path / "theirs/folder").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"theirs/folder/{i}.npy", value)  # below a folder of the data set's name
    words = ("benchmark", "--dataset", "folder", "--root", scenes, "--resamples", 0, "--out", tmp_path / "b", "--maps",
             f"theirs_2={tmp_path / 'theirs'}", "--pattern", "{id}.npy")  # fmt: skip
    code, out, err = run(capsys, *words, "--json", tmp_path / "t.json")
    assert code == 0 and err.count("not checked") == 1, err
    (row,) = json.loads((tmp_path / "t.json").read_text())["rows"]  # no detector was asked for
    expected, _ = evaluated(capsys, tmp_path / "theirs/folder", scenes, "--pattern", "{id}.npy", "--resamples", 0)
    assert row["numbers"]["exact"] == expected["exact"] and row["detector"]["name"] == "theirs_2"
    assert "| folder | theirs_2 | - | - | - | - | exact |" in (tmp_path / "b/table.md").read_text()
    assert "theirs_2" in out

    code, out, err = run(
        capsys, *words, "--detector", tiny_detector, "--scores", "max_logit", "--layout", "paper", "--device", "cpu"
    )
    assert code == 0, err
    aupr, f1 = (100 * expected[c][k] for c, k in (("official", "aupr_trapz"), ("components", "f1_mean")))
    paper = (tmp_path / "b/paper.md").read_text()
    line = next(line for line in paper.splitlines() if line.startswith("| theirs"))
    assert f"{aupr:.2f}" in line and f"{f1:.2f}" in line
    tex = (tmp_path / "b/paper.tex").read_text()
    assert "- theirs_2: trained on unknown\n" in paper and "% theirs_2: trained on unknown\n" in tex
    assert tex.count("\\\\\n") == 4 and "theirs\\_2 & " in tex and "\\multicolumn{3}{c}{folder}" in tex
    rows = [
        line.removesuffix(" \\\\").split(" & ")[1:] for line in tex.splitlines() if line.startswith(("the", "pair"))
    ]
    assert len(rows) == 2
    for a, b, better in zip(*rows, (max, min, max), strict=True):
        numbers = [float(c.removeprefix("\\textbf{").rstrip("}")) for c in (a, b)]
        assert [c.startswith("\\textbf") for c in (a, b)] == [n == better(numbers) for n in numbers]


def test_benchmark__refuses_maps_without_a_name_and_names_twice(scenes, ours, tmp_path, capsys):
    words = ("benchmark", "--dataset", "folder", "--root", scenes, "--out", tmp_path / "b")
    assert "is not NAME=DIR" in fails(capsys, *words, "--maps", ours)
    assert "use up to 64 letters" in fails(capsys, *words, "--maps", f"a|b={ours}")
    assert "two methods are called a" in fails(capsys, *words, "--maps", f"a={ours}", "--maps", f"a={ours}")
    assert "no folder of maps" in fails(capsys, *words, "--maps", f"a={tmp_path / 'nowhere'}")


def test_python__takes_a_folder_or_its_description(scenes, values, ours, tmp_path):
    for i, value in values.items():
        np.save(tmp_path / f"{i}.npy", value)
    data, theirs = open_dataset("folder", scenes), MapFolder(tmp_path, "{id}.npy")
    a, b = (evaluate_maps(m, data, resamples=0) for m in (ours, theirs))
    assert a.numbers == b.numbers
    first = sorted(values)[0]
    assert map_path(ours, first) == MapFolder(ours).file(first) and str(theirs).endswith("{id}.npy")
    assert theirs.read(first).tobytes() == values[first].tobytes()
