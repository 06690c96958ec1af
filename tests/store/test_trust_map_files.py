"""A map file of a stranger may be one float array of its own; it makes nobody read another file, or hold much."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from xenomask.errors import XenomaskError
from xenomask.store import map_format, map_photo, read_map, read_stored

READERS = (read_map, read_stored, map_format, map_photo)


def refused(path: Path, match: str) -> None:
    """Every way to open a map refuses it, in one line that names it."""
    for read in READERS:
        with pytest.raises(XenomaskError, match=match) as e:
            read(path)
        assert str(path) in str(e.value) and "\n" not in str(e.value)


@pytest.fixture
def secret(tmp_path) -> Path:
    """A file of 64 bytes that are somebody's own."""
    path = tmp_path / "secret"
    path.write_bytes(np.arange(32, dtype=np.float16).tobytes())
    return path


def test_external_storage__is_refused(tmp_path, secret):
    with h5py.File(tmp_path / "m.hdf5", "w") as f:
        f.create_dataset("value", (4, 8), np.float16, external=[(str(secret), 0, 64)])
    refused(tmp_path / "m.hdf5", "lie in other files")


def test_virtual_dataset__is_refused(tmp_path):
    with h5py.File(tmp_path / "source.hdf5", "w") as f:
        f["value"] = np.ones((4, 8), np.float16)
    layout = h5py.VirtualLayout((4, 8), np.float16)
    layout[:] = h5py.VirtualSource(str(tmp_path / "source.hdf5"), "value", (4, 8))
    with h5py.File(tmp_path / "m.hdf5", "w") as f:
        f.create_virtual_dataset("value", layout)
    refused(tmp_path / "m.hdf5", "lie in other files")


@pytest.mark.parametrize("link", ["external", "soft"])
def test_links__are_refused_and_not_followed(tmp_path, link):
    with h5py.File(tmp_path / "source.hdf5", "w") as f:
        f["value"] = np.ones((4, 8), np.float16)
    with h5py.File(tmp_path / "m.hdf5", "w") as f:
        f["own"] = np.ones((4, 8), np.float16)
        f["value"] = (
            h5py.ExternalLink(str(tmp_path / "source.hdf5"), "value") if link == "external" else (h5py.SoftLink("/own"))
        )
    os.mkfifo(tmp_path / "pipe")  # who follows a link to it waits for ever
    refused(tmp_path / "m.hdf5", "'value' is a link")
    with h5py.File(tmp_path / "p.hdf5", "w") as f:
        f["value"] = h5py.ExternalLink(str(tmp_path / "pipe"), "value")
    refused(tmp_path / "p.hdf5", "'value' is a link")


def test_pipe_and_folder__are_no_maps(tmp_path):
    os.mkfifo(tmp_path / "m.hdf5")
    (tmp_path / "d.hdf5").mkdir()
    for name in ("m.hdf5", "d.hdf5"):
        refused(tmp_path / name, "no regular file")


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 8)}, {"chunks": (2, 8), "compression": "gzip"}], ids=str)
def test_never_written__is_refused(tmp_path, options):
    with h5py.File(tmp_path / "m.hdf5", "w") as f:
        f.create_dataset("value", (4, 8), np.float16, **options)
    refused(tmp_path / "m.hdf5", "never written|2 of its 2 chunks are missing")


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"fletcher32": True}], ids=str)
def test_hole__is_refused_and_a_whole_map_of_the_same_kind_is_not(tmp_path, options):
    rows = np.arange(32, dtype=np.float32).reshape(4, 8)
    for name, written in (("hole", 2), ("whole", 4)):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as f:
            f.create_dataset("value", (4, 8), np.float32, chunks=(1, 8), **options)[:written] = rows[:written]
    refused(tmp_path / "hole.hdf5", "has holes: 2 of its 4 chunks are missing")
    assert np.array_equal(read_map(tmp_path / "whole.hdf5"), rows)


def test_long_double__is_refused(tmp_path):
    with h5py.File(tmp_path / "m.hdf5", "w") as f:
        f["value"] = np.ones((2, 2), np.longdouble)
    refused(tmp_path / "m.hdf5", "write it as float16, float32 or float64")


def test_a_float_that_numpy_has_not__is_converted_by_hdf5_or_refused(tmp_path):
    """16 bits with the exponent of a float32 (bfloat16): its bits read as float16 would be other numbers."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    for name, filters in (("plain", ()), ("gzip", (1,))):
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if filters:
            plan.set_chunk((2, 2))
            plan.set_deflate(1)
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as f:
            data = h5py.h5d.create(f.id, b"value", kind, h5py.h5s.create_simple((2, 2)), plan)
            data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([[1, -2], [0.5, 3]], np.float32))
    assert read_map(tmp_path / "plain.hdf5").tolist() == [[1, -2], [0.5, 3]]
    with pytest.raises(XenomaskError, match="write it with gzip alone"):
        read_map(tmp_path / "gzip.hdf5")


def test_unknown_filter__is_refused(tmp_path):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((2, 2))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd, by a plugin
    with h5py.File(tmp_path / "m.hdf5", "w") as f:
        data = h5py.h5d.create(f.id, b"value", h5py.h5t.IEEE_F16LE, h5py.h5s.create_simple((2, 2)), plan)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((2, 2), np.float16))
    refused(tmp_path / "m.hdf5", "HDF5 filter 32015: write it with gzip or without")


def test_gzip_with_checksum_and_filters_left_out__as_hdf5_reads_them(tmp_path):
    """HDF5 leaves gzip out where it does not help: with noise, for some chunks."""
    rng = np.random.default_rng(0)
    value = np.concatenate([rng.normal(size=(16, 64)), np.zeros((16, 64))]).astype(np.float32)
    for options in ({}, {"shuffle": True}, {"fletcher32": True}, {"shuffle": True, "fletcher32": True}):
        with h5py.File(tmp_path / "m.hdf5", "w") as f:
            f.create_dataset("value", data=value, chunks=(8, 64), compression="gzip", **options)
        assert np.array_equal(read_stored(tmp_path / "m.hdf5"), value), options


def test_damaged_provenance__is_refused(tmp_path):
    for held in ("ab" * 32, np.bytes_("ab"), np.zeros(2**20), h5py.Empty("S64")):
        with h5py.File(tmp_path / "m.hdf5", "w") as f:
            f["value"] = np.ones((2, 2), np.float16)
            f.create_group("big")
            try:
                f["value"].attrs["photo_sha256"] = held
            except (OSError, RuntimeError):  # HDF5 stores no attribute of that size
                continue
        with pytest.raises(XenomaskError, match="photo_sha256 is no SHA-256"):
            map_photo(tmp_path / "m.hdf5")


MEASURE = """
import resource, sys
from pathlib import Path
from xenomask.errors import XenomaskError
from xenomask.store import map_format, read_map, read_stored
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for read in (map_format, read_map, read_stored):
    try:
        read(Path(sys.argv[1]))
    except XenomaskError:
        pass
print(peak() - before)
"""


def forged(path: Path, kind: str) -> None:
    """Files of some KB that claim much."""
    with h5py.File(path, "w") as f:
        if kind == "holes":
            f.create_dataset("value", (30_000, 30_000), np.float64, chunks=(64, 64), compression="gzip")
        elif kind == "many chunks":
            f.create_dataset("value", (8000, 8000), np.float16, chunks=(1, 1), compression="gzip")
        elif kind == "never written":
            f.create_dataset("value", (16_000, 16_000), np.float64)
        elif kind == "zeros":
            f.create_dataset("value", data=np.zeros((4000, 16_000), np.float16), chunks=(4000, 16_000), compression=9)
        elif kind == "zeros in double":
            f.create_dataset("value", data=np.zeros((4000, 4000)), chunks=(2000, 4000), compression=9)
        else:
            f.create_dataset("value", (4, 4), np.float16, chunks=(2**14, 2**14), maxshape=(None, None),
                             compression="gzip")  # fmt: skip
            f["value"].id.write_direct_chunk((0, 0), b"x")


@pytest.mark.parametrize(
    "kind", ["holes", "many chunks", "never written", "zeros", "zeros in double", "a chunk larger than all"]
)
def test_memory__does_not_follow_what_a_file_claims(tmp_path, kind):
    forged(tmp_path / "m.hdf5", kind)
    assert (tmp_path / "m.hdf5").stat().st_size < 2**18
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "m.hdf5")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 300
