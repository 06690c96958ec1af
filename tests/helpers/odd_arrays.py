"""Odd forms of proper arrays: types, byte orders, layouts, containers, and what is no array of that kind at all.

Each row is (name, what a user gives, the same data given properly); a proper of None: it must be refused.
"""

import numpy as np
import torch
from PIL import Image

H, W = 9, 12
rng = np.random.default_rng(7)


def strided(a):
    """The same array as every second row and column of a larger one."""
    big = np.zeros([2 * n for n in a.shape[:2]] + list(a.shape[2:]), a.dtype)
    big[::2, ::2] = a
    return big[::2, ::2]


def backwards(a):
    """The same array, its memory running backwards."""
    return np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def no_array(a):
    """What is refused wherever a picture (H, W) is asked for; `a` is proper."""
    f = a.astype(np.float32)
    hole, infinite = f.copy(), f.copy()
    hole[0, 0], infinite[0, 0] = np.nan, np.inf
    palette = Image.fromarray(a.astype(np.uint8)).convert("P")
    return [
        ("NaN", hole),
        ("infinity", infinite),
        ("no rows", a[:0]),
        ("no columns", a[:, :0]),
        ("one axis", a.ravel()),
        ("three axes", a[None]),
        ("no axis", a[0, 0]),
        ("masked", np.ma.masked_array(a, np.zeros(a.shape, bool))),
        ("complex", a.astype(complex)),
        ("objects", a.astype(object)),
        ("text", a.astype(str)),
        ("None", None),
        ("ragged", [[0, 1], [1]]),
        ("dates", a.astype(np.int64).astype("datetime64[s]")),
        ("fields", np.zeros(a.shape, [("a", "f4")])),
        ("palette", palette),
        ("on no device", torch.zeros(a.shape, device="meta")),
        ("sparse", torch.from_numpy(f).to_sparse()),
        ("a function", no_array),
        ("a folder", "/"),
    ]


# floats of few bits, and whole numbers: what other types can hold without rounding
SCORES = rng.integers(-40, 120, (H, W)).astype(np.float32) / 8
WHOLE = rng.integers(0, 100, (H, W)).astype(np.float32)
BINARY = (WHOLE > 60).astype(np.float32)


def maps():
    rows: list[tuple] = [("proper", SCORES, SCORES)]
    for t in ("f2", "f4", "f8", "g", ">f2", ">f4", ">f8"):
        rows.append((f"float {t}", SCORES.astype(t), SCORES))
    for t in ("u1", "i1", "u2", "i2", ">u2", ">i4", "u4", "i8", "u8", ">u8"):
        rows.append((f"whole {t}", WHOLE.astype(t), WHOLE))
    rows += [
        ("bool", BINARY.astype(bool), BINARY),
        ("Fortran", np.asfortranarray(SCORES), SCORES),
        ("strided", strided(SCORES), SCORES),
        ("strided half", strided(SCORES.astype("f2")), SCORES),
        ("backwards", backwards(SCORES), SCORES),
        ("read-only", read_only(SCORES), SCORES),
        ("list", SCORES.tolist(), SCORES),
        ("one value", np.broadcast_to(np.float32(2), (H, W)), np.full((H, W), 2, "f4")),
        ("torch", torch.from_numpy(SCORES), SCORES),
        ("torch bfloat16", torch.from_numpy(WHOLE).bfloat16(), WHOLE),
        ("torch gradient", torch.from_numpy(SCORES).double().requires_grad_(), SCORES),
        ("torch transposed", torch.from_numpy(SCORES.T.copy()).T, SCORES),
        ("PIL F", Image.fromarray(SCORES), SCORES),
        ("PIL L", Image.fromarray(WHOLE.astype("u1")), WHOLE),
        ("PIL 16 bits", Image.fromarray(WHOLE.astype("u2")), WHOLE),
    ]
    return rows + [(n, x, None) for n, x in no_array(SCORES)]


LABEL = np.zeros((H, W), np.uint8)
LABEL[2:7, 3:9], LABEL[0], LABEL[8, :4] = 1, 255, 1


def labels(masks=False):
    base = (LABEL == 1).astype(np.uint8) if masks else LABEL
    proper = base.astype(bool) if masks else base
    one = (LABEL == 1).astype(np.uint8)
    rows = [("proper", proper, proper)]
    for t in ("u1", "u2", "i2", ">u2", ">i4", "i4", "i8", "u8"):
        rows.append((f"whole {t}", base.astype(t), proper))
    rows += [
        ("bool", one.astype(bool), one.astype(proper.dtype)),
        ("i1", one.astype("i1"), one.astype(proper.dtype)),
        ("Fortran", np.asfortranarray(proper), proper),
        ("strided", strided(proper), proper),
        ("backwards", backwards(proper), proper),
        ("read-only", read_only(proper), proper),
        ("list", base.tolist(), proper),
        ("torch", torch.from_numpy(base), proper),
        ("torch long", torch.from_numpy(base).long(), proper),
        ("torch bool", torch.from_numpy(one).bool(), one.astype(proper.dtype)),
        ("PIL L", Image.fromarray(base), proper),
        ("PIL 1", Image.fromarray(255 * one).convert("1"), one.astype(proper.dtype)),
    ]
    refused = [
        ("255 as i1", LABEL.astype("i1")),
        ("value 256", base.astype("i4") + 256 * one.astype("i4")),
        ("floats", SCORES),
        ("three channels", np.stack([base] * 3, 2)),
    ]
    return rows + [(n, x, None) for n, x in [*refused, *no_array(base)]]


def truths():
    return [
        *labels(),
        ("class 2", 2 * (LABEL == 1).astype("u1"), None),
        ("grey 128", 128 * (LABEL == 1).astype("u1"), None),
    ]


def masks():
    return [
        *labels(masks=True),
        ("0 and 255", 255 * (LABEL == 1).astype("u1"), None),
        ("0 and 2", 2 * (LABEL == 1).astype("i4"), None),
    ]


PHOTO = rng.integers(0, 256, (H, W, 3), np.uint8)
GREY = np.repeat(PHOTO[..., :1], 3, 2)


def images(folder=None):
    f, one = PHOTO.astype(np.float32), PHOTO[..., 0]
    alpha = np.dstack([PHOTO, np.full((H, W), 9, np.uint8)])
    rows = [("proper", PHOTO, PHOTO)]
    for t in ("f2", "f4", "f8", "g", ">f4"):
        rows.append((f"0..1 {t}", (f / 255).astype(t), PHOTO))
    for t in ("f4", ">f8", "i2", "i4", ">i4", "i8", "u8", "u4"):
        rows.append((f"0..255 {t}", PHOTO.astype(t), PHOTO))
    rows += [
        ("u2 of 16 bits", PHOTO.astype("u2") * 257, PHOTO),
        (">u2 of 16 bits", (PHOTO.astype("u2") * 257).astype(">u2"), PHOTO),
        ("black u2", np.zeros((H, W, 3), "u2"), np.zeros((H, W, 3), "u1")),
        ("black f4", np.zeros((H, W, 3), "f4"), np.zeros((H, W, 3), "u1")),
        ("C first", PHOTO.transpose(2, 0, 1).copy(), PHOTO),
        ("torch C first", torch.from_numpy(PHOTO.transpose(2, 0, 1).copy()), PHOTO),
        ("torch 0..1", torch.from_numpy((f / 255).transpose(2, 0, 1).copy()), PHOTO),
        ("torch C last", torch.from_numpy(PHOTO), PHOTO),
        ("grey", one, GREY),
        ("grey 0..1", one / np.float32(255), GREY),
        ("one channel", one[..., None], GREY),
        ("one channel first", one[None], GREY),
        ("alpha", alpha, PHOTO),
        ("alpha 0..1", alpha / 255, PHOTO),
        ("Fortran", np.asfortranarray(PHOTO), PHOTO),
        ("strided", strided(PHOTO), PHOTO),
        ("backwards", backwards(PHOTO), PHOTO),
        ("BGR turned", PHOTO[..., ::-1].copy()[..., ::-1], PHOTO),
        ("read-only", read_only(PHOTO), PHOTO),
        ("list", PHOTO.tolist(), PHOTO),
        ("PIL", Image.fromarray(PHOTO), PHOTO),
        ("PIL alpha", Image.fromarray(alpha), PHOTO),
        ("PIL grey", Image.fromarray(one), GREY),
        (
            "PIL 1",
            Image.fromarray(255 * (one > 99).astype("u1")).convert("1"),
            np.repeat(255 * (one > 99).astype("u1")[..., None], 3, 2),
        ),
        ("PIL F", Image.fromarray(one / np.float32(255)), GREY),
        ("PIL 16 bits", Image.fromarray(one.astype("u2") * 257), GREY),
    ]
    if folder is not None:
        Image.fromarray(PHOTO).save(folder / "p.png")
        rows += [("path", folder / "p.png", PHOTO), ("its text", str(folder / "p.png"), PHOTO)]
    hole = f / 255
    hole[0, 0, 0] = np.nan
    refused = [
        ("bool", PHOTO > 9),
        ("8 bits in u2", PHOTO.astype("u2")),
        ("12 bits", PHOTO.astype("u2") * 16),
        ("normalised", f / 128 - 1),
        ("broken numbers", f * 0.99),
        ("slightly above 1", f / 250),
        ("NaN", hole),
        ("two channels", PHOTO[..., :2]),
        ("five channels", np.dstack([alpha, one])),
        ("a batch", PHOTO[None]),
        ("one axis", PHOTO.ravel()),
        ("either order", torch.zeros(3, 5, 3)),
        ("either order, alpha", np.zeros((3, 5, 4), "u1")),
        ("no rows", PHOTO[:0]),
        ("no columns", PHOTO[:, :0]),
        ("masked", np.ma.masked_array(PHOTO, PHOTO > 9)),
        ("complex", PHOTO.astype(complex)),
        ("objects", PHOTO.astype(object)),
        ("text", PHOTO.astype(str)),
        ("None", None),
        ("on no device", torch.zeros(3, H, W, device="meta")),
        ("ragged", [[0, 1], [1]]),
        ("no photo there", "/nowhere/p.png"),
    ]
    return rows + [(n, x, None) for n, x in refused]


def columns(proper, whole):
    """Forms of a column (n,): floats of few bits, or whole numbers."""
    rows = [("proper", proper, proper)]
    types = ("u2", "i4", ">i4", "i8", ">u8", "u4") if whole else ("f2", "f4", "f8", "g", ">f2", ">f8")
    rows += [(t, proper.astype(t), proper) for t in types]
    rows += [
        ("strided", np.repeat(proper, 2)[::2], proper),
        ("backwards", proper[::-1].copy()[::-1], proper),
        ("read-only", read_only(proper), proper),
        ("list", proper.tolist(), proper),
        ("torch", torch.from_numpy(proper), proper),
    ]
    hole = proper.astype(np.float32)
    hole[0] = np.nan
    refused = [
        ("NaN", hole),
        ("two axes", proper[None]),
        ("masked", np.ma.masked_array(proper, proper > 1)),
        ("complex", proper.astype(complex)),
        ("objects", proper.astype(object)),
        ("text", proper.astype(str)),
        ("None", None),
        ("one too many", np.append(proper, proper[-1:])),
    ]
    if whole:
        refused += [("below 0", -1 - proper.astype(np.int64)), ("halves", proper + 0.5)]
    return rows + [(n, x, None) for n, x in refused]


def tensors(proper):
    """Forms of a network's logits or batch."""
    rows = [("proper", proper, proper), ("double", proper.double(), proper), ("array", proper.numpy(), proper)]
    rows += [
        ("strided", proper.repeat_interleave(2, -1)[..., ::2], proper),
        ("gradient", proper.clone().requires_grad_(), proper),
        ("bfloat16", proper.bfloat16(), proper.bfloat16().float()),
        ("half", proper.half(), proper.half().float()),
        ("big-endian", proper.numpy().astype(">f4"), proper),
    ]
    refused = [
        ("complex", proper + 0j),
        ("an axis more", proper[None]),
        ("an axis less", proper[0]),
        ("nothing", proper[..., :0]),
        ("None", None),
        ("text", "x"),
        ("objects", proper.numpy().astype(object)),
        ("masked", np.ma.masked_array(proper.numpy(), proper.numpy() > 9)),
    ]
    return rows + [(n, x, None) for n, x in refused]
