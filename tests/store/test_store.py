import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from xenomask.detector.fuse import ensemble
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.store import encode_map, map_format, map_ids, read_map, write_map
from xenomask.store.folder import check_frames
from xenomask.types import ScoreMap


def test_write_map__is_the_official_layout(tmp_path):
    value = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    write_map(tmp_path / "a.hdf5", ScoreMap(value, "eam"))
    with h5py.File(tmp_path / "a.hdf5") as f:
        assert list(f) == ["value"]
        data = f["value"]
        assert isinstance(data, h5py.Dataset)
        assert (data.dtype, data.shape, data.attrs["score"]) == (np.float16, (7, 9), "eam")
    assert np.array_equal(read_map(tmp_path / "a.hdf5"), value.astype(np.float16))
    assert map_ids(tmp_path) == ["a"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_write_map__refuses_and_leaves_nothing(tmp_path, bad):
    with pytest.raises(XenomaskError, match="NaN or infinity|beyond float16"):
        write_map(tmp_path / "a.hdf5", ScoreMap(np.full((2, 2), bad, np.float32), "eam"))
    assert list(tmp_path.iterdir()) == []


def test_read_map__foreign_and_damaged(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as f:
        f["scores"] = np.zeros((2, 2), np.float32)
    with pytest.raises(XenomaskError, match=r"no dataset 'value', only \['scores'\]"):
        read_map(path)
    for value, message in (
        (np.zeros((2, 2, 1), np.float32), r"not a float \(H, W\)"),
        (np.zeros((2, 2), np.int32), r"not a float \(H, W\)"),
        (np.array([[np.nan, 1]], np.float32), "1 NaN or infinite values"),
        (np.array([[1e6, 1]], np.float32), "beyond float16"),
    ):
        with h5py.File(path, "w") as f:
            f["value"] = value
        with pytest.raises(XenomaskError, match=message):
            read_map(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(XenomaskError, match="damaged or no HDF5"):
        read_map(path)
    with pytest.raises(XenomaskError, match="no folder of maps"):
        map_ids(tmp_path / "nowhere")


def edge_values(shape) -> np.ndarray:
    """Smooth values among which every kind of float16 is: -0, subnormals, the largest, those between two."""
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32).cumsum(axis=-1)
    special = np.array([-0.0, 0.0, 2**-24, -(2**-24), 2**-25, 2**-14, 65504, -65504, 1 + 2**-11, 1 + 3 * 2**-11])
    flat = value.reshape(-1)
    flat[: len(special)] = special.astype(np.float32)[: flat.size]
    return value


def bits(value) -> tuple:
    return value.shape, value.dtype, np.asarray(value).tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 700_000), (3, 5), (2, 300_000), (719, 1279), (1080, 1920)])
@pytest.mark.parametrize("layout", ["plain", "columns first", "read-only", "strided"])
def test_write_map__plain_h5py_reads_the_same_bits(tmp_path, shape, layout):
    value = edge_values(shape)
    expected = value.astype(np.float16)
    if layout == "columns first":
        value = np.asfortranarray(value)
    elif layout == "read-only":
        value.flags.writeable = False
    elif layout == "strided":
        value = np.repeat(value, 2, axis=1)[:, ::2]
    write_map(tmp_path / "a.hdf5", ScoreMap(value, "eam"))
    with h5py.File(tmp_path / "a.hdf5") as f:
        assert bits(np.asarray(f["value"])) == bits(expected)
    assert bits(read_map(tmp_path / "a.hdf5")) == bits(expected)
    stored = map_format(tmp_path / "a.hdf5")
    assert (stored.dtype, stored.size, stored.official) == (np.float16, shape, True)


def test_encode_map__rounds_every_float16_neighbour_as_numpy_does(tmp_path):
    half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (half[:-1] + half[1:]) / 2
    ticks = [half[:-1], between, np.nextafter(between, np.float32(0)), np.nextafter(between, np.float32(9e9))]
    value = np.stack([*ticks, *(-t for t in ticks)])
    (tmp_path / "a.hdf5").write_bytes(encode_map(value, None))
    assert bits(read_map(tmp_path / "a.hdf5")) == bits(value.astype(np.float16))


def test_import__store_is_light():
    code = "import sys, xenomask.store; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_encode_map__threads_and_levels_change_no_value(tmp_path):
    value = edge_values((1200, 1000))
    for threads, level in ((2, 2), (1, 0), (1, 3)):
        (tmp_path / "a.hdf5").write_bytes(encode_map(value, "eam", threads=threads, level=level))
        assert bits(read_map(tmp_path / "a.hdf5")) == bits(value.astype(np.float16))
    assert bytes(encode_map(value, "eam", threads=2)) == bytes(encode_map(value, "eam"))


FOREIGN = {
    "contiguous": {},
    "official: gzip 9": {"compression": "gzip", "compression_opts": 9},
    "gzip and shuffle": {"compression": "gzip", "shuffle": True},
    "shuffle alone": {"shuffle": True, "chunks": (7, 11)},
    "odd chunks": {"compression": "gzip", "shuffle": True, "chunks": (7, 11)},
    "one chunk": {"compression": "gzip", "chunks": (45, 61)},
    "chunks larger than the map": {"compression": "gzip", "chunks": (64, 64), "maxshape": (None, None)},
    "checksum": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
}


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_read_map__foreign_files_as_plain_h5py_reads_them(tmp_path, kind, dtype):
    value = edge_values((45, 61)).astype(dtype)
    with h5py.File(tmp_path / "a.hdf5", "w") as f:
        f.create_dataset("value", data=value, **FOREIGN[kind])
    with h5py.File(tmp_path / "a.hdf5") as f:
        expected = np.asarray(f["value"]).astype(np.float16)
    assert bits(read_map(tmp_path / "a.hdf5")) == bits(expected) == bits(value.astype(np.float16))
    assert map_format(tmp_path / "a.hdf5").official == (dtype == "<f2" and kind != "lzf")


def test_read_map__holes_and_filters_left_out(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as f:  # the second chunk was never written, the first without its gzip
        data = f.create_dataset("value", (4, 4), np.float16, chunks=(2, 4), compression="gzip", fillvalue=2)
        data.id.write_direct_chunk((0, 0), np.arange(8, dtype=np.float16), filter_mask=1)
    with pytest.raises(XenomaskError, match="has holes: 1 of its 2 chunks are missing; make it again"):
        read_map(path)
    with h5py.File(path, "w") as f:
        data = f.create_dataset("value", (2, 4), np.float16, chunks=(2, 4), compression="gzip")
        data.id.write_direct_chunk((0, 0), np.arange(8, dtype=np.float16), filter_mask=1)
    assert read_map(path).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def write_stream(path, stream: bytes, dtype="<f2", shape=(4, 8)) -> None:
    """A file whose one chunk holds those very bytes."""
    with h5py.File(path, "w") as f:
        data = f.create_dataset("value", shape, dtype, chunks=shape, compression="gzip", shuffle=True)
        data.id.write_direct_chunk((0, 0), stream)


GOOD = zlib.compress(bytes(64))
BAD_STREAMS = {
    "a bomb": (zlib.compress(bytes(100_000_000)), "holds more than its 64 bytes"),
    "one byte more": (zlib.compress(bytes(65)), "holds more than its 64 bytes"),
    "one byte less": (zlib.compress(bytes(63)), "holds less than its 64 bytes"),
    "nothing": (zlib.compress(b""), "holds less than its 64 bytes"),
    "cut": (GOOD[:-5], "holds"),
    "checksum cut": (GOOD[:-1], "holds less than its 64 bytes|incomplete"),
    "wrong checksum": (GOOD[:-1] + b"\xff", "checksum"),
    "no stream": (b"\xff" * 20, "row 0, column 0"),
}


@pytest.mark.parametrize("kind", BAD_STREAMS)
def test_read_map__a_damaged_chunk(tmp_path, kind):
    stream, message = BAD_STREAMS[kind]
    for dtype in ("<f2", "<f4"):
        size = np.dtype(dtype).itemsize * 32
        shape = (4, 8) if size == 64 else (4, 4)
        write_stream(tmp_path / "a.hdf5", stream, dtype, shape)
        with pytest.raises(XenomaskError, match=rf"a.hdf5 is damaged: chunk .*({message})") as error:
            read_map(tmp_path / "a.hdf5")
        assert "\n" not in str(error.value)
    write_stream(tmp_path / "a.hdf5", GOOD)  # the same way, undamaged
    assert not read_map(tmp_path / "a.hdf5").any()


def test_read_map__forged_sizes_and_odd_values(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as f:
        f.create_dataset("value", (2**20, 2**20), np.float16, chunks=(8, 8), compression="gzip")
    with pytest.raises(XenomaskError, match="no photo's size"):
        read_map(path)
    with h5py.File(path, "w") as f:
        f.create_group("value")
    with pytest.raises(XenomaskError, match="'value' is a group"):
        read_map(path)
    with h5py.File(path, "w") as f:
        f["value"] = h5py.Empty("f2")
    with pytest.raises(XenomaskError, match=r"not a float \(H, W\)"):
        map_format(path)
    with pytest.raises(XenomaskError, match="at least one pixel"):
        write_map(path, ScoreMap(np.zeros((0, 3), np.float32), "eam"))


def test_read_map__bytes_flipped_anywhere(tmp_path):
    """Either the map, or one line that the user can read; never another error."""
    path, rng = tmp_path / "a.hdf5", np.random.default_rng(0)
    value = edge_values((31, 40))
    good = bytes(encode_map(value, "eam"))
    refused = 0
    for _ in range(300):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            assert read_map(path).ndim == 2
        except XenomaskError as e:
            refused += "\n" not in str(e)
    assert refused > 30


def test_read_map__threads_read_side_by_side(tmp_path):
    values = [edge_values((64, 50 + i)) for i in range(8)]
    for i, value in enumerate(values):
        write_map(tmp_path / f"{i}.hdf5", ScoreMap(value, "eam"))
    with ThreadPoolExecutor(4) as pool:
        for value, read in zip(values, pool.map(lambda i: read_map(tmp_path / f"{i}.hdf5"), range(8)), strict=True):
            assert bits(read) == bits(value.astype(np.float16))


def test_atomic__leaves_the_old_file_where_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_atomic__replaces_a_folder_whole(tmp_path):
    for text in ("old", "new"):
        with atomic(tmp_path / "d") as part:
            part.mkdir()
            (part / "f").write_text(text)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert (tmp_path / "d/f").read_text() == "new"


def test_make_dir__where_a_file_stands(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(XenomaskError, match="cannot write into folder"):
        make_dir(tmp_path / "file")
    with pytest.raises(XenomaskError, match="cannot write into folder"):
        make_dir(tmp_path / "file" / "below")


def test_ensemble__weights_are_checked():
    a, b = (ScoreMap(np.full((2, 2), v, np.float32), s) for v, s in ((1, "eam"), (3, "rba")))
    joined = ensemble([a, b], [0.25, 0.75])
    assert (joined.value == 2.5).all() and joined.score == "eam+rba"
    for weights, message in (([0.5], "1 weights for 2"), ([0.5, 0.6], "sum to 1"), ([1.5, -0.5], "must be >= 0")):
        with pytest.raises(XenomaskError, match=message):
            ensemble([a, b], weights)
    with pytest.raises(XenomaskError, match="different sizes"):
        ensemble([a, ScoreMap(np.zeros((2, 3), np.float32), "eam")], [0.5, 0.5])


def test_store__without_isal_writes_and_reads_the_same_kind_of_file(tmp_path):
    write_map(tmp_path / "ours.hdf5", ScoreMap(np.eye(300, 200, dtype=np.float32), "eam"))
    code = f"""
import sys
sys.modules["isal"] = None
import numpy as np
from pathlib import Path
from xenomask import store
from xenomask.types import ScoreMap
assert store.DEFLATE == "zlib"
assert (store.read_map(Path({str(tmp_path / "ours.hdf5")!r})) == np.eye(300, 200)).all()
store.write_map(Path({str(tmp_path / "plain.hdf5")!r}), ScoreMap(np.eye(300, 200, dtype=np.float32), "eam"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read_map(tmp_path / "plain.hdf5"), np.eye(300, 200))
    assert map_format(tmp_path / "plain.hdf5") == map_format(tmp_path / "ours.hdf5")


def test_check_frames__names_the_missing_and_the_extra():
    with pytest.raises(XenomaskError, match="1 of 2 labelled frames have no map .* the first is b"):
        check_frames({"a", "b"}, {"a", "b"}, {"a"}, Path("maps"))
    with pytest.raises(XenomaskError, match="1 maps that belong to no frame .* the first is c"):
        check_frames({"a"}, {"a", "b"}, {"a", "b", "c"}, Path("maps"))
