import h5py
import numpy as np
import pytest

from xenomask.ensemble import ensemble
from xenomask.errors import XenomaskError
from xenomask.files import atomic, make_dir
from xenomask.store import map_ids, read_map, write_map
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
    with pytest.raises(XenomaskError, match="NaN, infinity or values beyond float16"):
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
