"""TIFFs that Pillow decodes as other numbers than they say, written byte by byte; and int16 arrays."""

import struct

import numpy as np
import pytest

from xenomask.arrays import as_image
from xenomask.datasets import read_photo
from xenomask.errors import XenomaskError
from xenomask.picture_files import open_picture
from xenomask.pictures import read_numbers

GREY = np.linspace(0, 255, 12 * 9).astype(np.uint8).reshape(9, 12)


def tiff(path, strips: list[bytes], **tags):
    """An uncompressed little-endian TIFF of 12 x 9 pixels, after TIFF 6.0: header, strips, one directory."""
    fields = {256: (12,), 257: (9,), 259: (1,), 278: (9,), **{int(k[1:]): v for k, v in tags.items()}}
    data, offsets = b"", []
    for s in strips:
        offsets.append(8 + len(data))
        data += s + b"\0" * (len(s) % 2)
    fields |= {273: tuple(offsets), 279: tuple(map(len, strips))}
    start = 8 + len(data)
    entries, rest = b"", b""
    behind = start + 2 + 12 * len(fields) + 4
    for tag, values in sorted(fields.items()):
        kind, code = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"<{len(values)}{code}", *values)
        if len(packed) > 4:
            at = struct.pack("<I", behind + len(rest))
            rest += packed + b"\0" * (len(packed) % 2)
        else:
            at = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(values)) + at
    directory = struct.pack("<H", len(fields)) + entries + b"\0\0\0\0"
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + data + directory + rest)
    return path


def test_tiff__the_writer_here_writes_what_is_read(tmp_path):
    plain = tiff(tmp_path / "a.tif", [GREY.tobytes()], t258=(8,), t262=(1,), t277=(1,))
    assert (read_photo(plain)[..., 0] == GREY).all()
    negative = tiff(tmp_path / "b.tif", [(255 - GREY).tobytes()], t258=(8,), t262=(0,), t277=(1,))
    assert (read_photo(negative)[..., 0] == GREY).all()
    wide = tiff(tmp_path / "c.tif", [(GREY.astype("<u2") * 257).tobytes()], t258=(16,), t262=(1,), t277=(1,))
    assert (read_photo(wide)[..., 0] == GREY).all()


CASES = {
    "white is 0, 16 bits": ([(65535 - GREY.astype("<u2") * 257).astype("<u2").tobytes()],
                            {"t258": (16,), "t262": (0,), "t277": (1,)}),
    "white is 0, floats": ([(1 - GREY / 255).astype("<f4").tobytes()],
                           {"t258": (32,), "t262": (0,), "t277": (1,), "t339": (3,)}),
    "planes of 16 bits": ([(GREY.astype("<u2") * 257).tobytes()] * 3,
                          {"t258": (16, 16, 16), "t262": (2,), "t277": (3,), "t284": (2,)}),
    "signed, 8 bits": ([(GREY.astype(int) - 128).astype("i1").tobytes()],
                       {"t258": (8,), "t262": (1,), "t277": (1,), "t339": (2,)}),
    "a palette of 8 bits": ([GREY.tobytes()], {"t258": (8,), "t262": (3,), "t277": (1,), "t320": (*range(256),) * 3}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_tiff__what_pillow_misreads_is_refused(tmp_path, case):
    strips, tags = CASES[case]
    path = tiff(tmp_path / "x.tif", strips, **tags)
    for read in (read_photo, open_picture):
        with pytest.raises(XenomaskError, match="is a TIFF with .*: save it as PNG"):
            read(path)


def test_tiff__signed_16_bits_are_numbers_but_no_photo(tmp_path):
    tags = {"t258": (16,), "t262": (1,), "t277": (1,), "t339": (2,)}
    half = tiff(tmp_path / "x.tif", [(GREY.astype("<i2") * 128).tobytes()], **tags)
    with pytest.raises(XenomaskError, match="may hold negative"):
        read_photo(half)
    label = tiff(tmp_path / "y.tif", [(GREY.astype("<i2") - 3).tobytes()], **tags)
    assert (read_numbers(open_picture(label)) == GREY.astype(int) - 3).all()


def test_arrays__of_int16_have_15_bits_and_no_white():
    with pytest.raises(XenomaskError, match="int16 values .*: 16-bit photos are uint16"):
        as_image(np.repeat(GREY[..., None], 3, 2).astype(np.int16) * 128)
    small = np.repeat(GREY[..., None], 3, 2)
    assert (as_image(small.astype(np.int16)) == small).all()
