"""Distillation: the loss against a loop, the soft target through the crops, and a training that follows a teacher."""

import math
import shutil

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.naive import sigmoid, softmax
from helpers.recipes import recipe
from xenomask.datasets import open_dataset
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.masks import class_probabilities, semantic, soft_masks, with_queries
from xenomask.models import load
from xenomask.train import train
from xenomask.train.augment import augment
from xenomask.train.config import Augment, Distill, Exposure, Optim
from xenomask.train.distill import distill_loss, soft_target
from xenomask.train.records import read_scalars
from xenomask.types import OUTLIER


def looped(z, x, y, outlier, weight, keep, old):
    """The same loss, image by image and cell by cell; y of None is padding, `old` the L of the network before."""
    total = 0.0
    for b in range(len(z)):
        p, ce, kl, uy, uu, yy = [softmax(row) for row in z[b]], [], [], 0.0, 0.0, 0.0
        for i in range(len(y[b])):
            for j in range(len(y[b][0])):
                t = y[b][i][j]
                if t is None:
                    continue
                m = [sigmoid(mask[i][j]) for mask in x[b]]
                L = [sum(p[q][k] * m[q] for q in range(len(m))) for k in range(len(p[0]) - 1)]
                u = min(max(1 - max(L), 0.01), 0.99)
                ce.append(-t * math.log(u) - (1 - t) * math.log(1 - u))
                uy, uu, yy = uy + u * t, uu + u * u, yy + t * t
                if not outlier[b][i][j]:
                    before = [max(old[b][k][i][j], 0.01) for k in range(len(L))]
                    now = [max(v, 0.01) for v in L]
                    kl.append(sum(a / sum(before) * math.log(a / sum(before) / (c / sum(now)))
                                  for a, c in zip(before, now, strict=True)))  # fmt: skip
        total += weight * (sum(ce) / max(len(ce), 1) + 1 - (2 * uy + 1) / (uu + yy + 1)) + keep * sum(kl) / max(
            len(kl), 1
        )
    return total / len(z)


@pytest.mark.parametrize("seed", range(6))
def test_loss__is_the_loop_written_one(seed):
    rng = np.random.default_rng(seed)
    b, q, n, h, w = (int(v) for v in rng.integers((1, 1, 2, 1, 1), (4, 5, 6, 6, 8)))
    z, x = (torch.tensor(rng.normal(0, 2, shape), requires_grad=True) for shape in ((b, q, n), (b, q, h, w)))
    y, outlier = rng.random((b, h, w)), rng.random((b, h, w)) < 0.3
    y[rng.random((b, h, w)) < 0.2] = np.nan
    old = torch.tensor(rng.random((b, n - 1, h, w)))
    labels = torch.tensor(np.where(outlier, OUTLIER, 3).astype(np.uint8))
    d = Distill(maps="x", weight=2.0, keep=0.7)  # pyright: ignore[reportArgumentType]
    found = distill_loss(d, z, x, torch.tensor(y), labels, b, old)
    soft = [[[None if math.isnan(v) else v for v in row] for row in image] for image in y.tolist()]
    expected = looped(z.tolist(), x.tolist(), soft, outlier.tolist(), 2.0, 0.7, old.tolist())
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(found, (z, x)))
    halves = [distill_loss(d, z[i:i + 1], x[i:i + 1], torch.tensor(y)[i:i + 1], labels[i:i + 1], b, old[i:i + 1])
              for i in range(b)]  # fmt: skip
    assert sum(halves).item() == pytest.approx(expected, rel=1e-9)  # pyright: ignore


def test_loss__pulls_where_the_shares_exceed_one():
    """Two sure queries on one pixel, L = 1.9, that the teacher calls anomalous: the masks have to give way."""
    z, x = torch.tensor([[[3.0, 0.0]] * 2]), torch.full((1, 2, 1, 1), 6.0, requires_grad=True)
    labels = torch.zeros((1, 1, 1), dtype=torch.uint8)
    d = Distill(maps="x")  # pyright: ignore[reportArgumentType]
    (gradient,) = torch.autograd.grad(distill_loss(d, z, x, torch.ones(1, 1, 1), labels, 1), x)
    assert (gradient > 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_soft_target__goes_where_the_photo_goes(seed):
    """Photo, label and target of one picture: resized by whole factors, cropped and mirrored they still agree."""
    picture = np.random.default_rng(seed).integers(0, 200, (20, 30)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    a = Augment(short_edge=(20, 40), crop=(24, 64), photometric=0)
    soft = picture.astype(np.float32)
    image, label, moved = augment(np.stack([picture] * 3, 2), picture % 19, a, np.random.default_rng(seed), soft)
    assert moved is not None and moved.shape == label.shape == (24, 64)
    there = ~np.isnan(moved)
    assert (label[~there] == 255).all() and (image[~there] == 0).all() and there.sum() in (20 * 30, 24 * 60)
    assert np.array_equal(moved[there], image[there][:, 0])  # exact where the blocks of 2x2 are kept whole or halved


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 3, size=(64, 96))


@pytest.fixture
def maps(scenes, tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for frame in open_dataset("folder", scenes, coding="train_ids").frames:
        with h5py.File(folder / f"{frame.id}.hdf5", "w") as file:
            file["value"] = np.full((64, 96), -0.25, np.float16)
    return folder


def test_target__is_cut_to_the_ends(scenes, maps):
    frame = open_dataset("folder", scenes, coding="train_ids").frames[0]
    label = np.zeros((64, 96), np.uint8)
    for low, high, y in ((-1, 0, 0.75), (-0.5, 0.5, 0.25), (0, 1, 0), (-3, -2, 1)):
        assert (soft_target(Distill(maps=maps, low=low, high=high), frame, label) == y).all()
    with pytest.raises(XenomaskError, match="the teacher has to see the photos as they are trained on"):
        soft_target(Distill(maps=maps), frame, label[:32])


@pytest.mark.slow
def test_training__goes_towards_the_teacher_and_keeps_the_classes(scenes, maps, tmp_path):
    """The teacher says .75 everywhere: the shares of the classes fall to a quarter, the likeliest one stays."""
    first = train(recipe(scenes, tmp_path / "first"))
    data = open_dataset("folder", scenes, coding="train_ids")
    image = data.sample(data.frames[0]).image

    def shares(folder):
        out = with_queries(load(folder).predict(image))
        return semantic(class_probabilities(out), soft_masks(out)).numpy()

    still = {"init": first, "augment": Augment(short_edge=(64,), crop=(64, 96), flip=0, photometric=0)}
    d = Distill(maps=maps, weight=100, keep=100)
    optim = Optim(iterations=40, batch=2, warmup=2, lr=1e-3)
    after = shares(train(recipe(scenes, tmp_path / "taught", distill=d, optim=optim, val_every=1000, **still)))
    before = shares(first)
    assert abs(after.max(0).mean() - 0.25) < abs(before.max(0).mean() - 0.25) / 2
    assert (after.argmax(0) == before.argmax(0)).mean() > 0.8


@pytest.mark.slow
def test_training__in_parts_and_resumed_is_the_same_step(scenes, maps, tmp_path):
    first = train(recipe(scenes, tmp_path / "first", optim=Optim(iterations=1, batch=2)))
    lasting = {"init": first, "distill": Distill(maps=maps, keep=0.5), "log_every": 1, "save_every": 1}
    losses = {}
    for name, parts in (("whole", 1), ("parts", 2)):
        optim = Optim(iterations=2, batch=2, warmup=0, accumulate=parts)
        end = train(recipe(scenes, tmp_path / name, optim=optim, **lasting))
        losses[name] = [row["loss"] for row in read_scalars(tmp_path / name) if "loss" in row]
        whole = load_file(end / "model.safetensors") if name == "whole" else None
        if whole:
            for left in (end, tmp_path / name / "last_checkpoint"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            again = load_file(train(recipe(scenes, tmp_path / name, optim=optim, **lasting)) / "model.safetensors")
            assert all(torch.equal(v, again[k]) for k, v in whole.items())
    assert losses["whole"][:2] == pytest.approx(losses["parts"], rel=1e-4)


@pytest.mark.parametrize(("changes", "said"), [
    ({"distill": {"keep": 1.0}}, "distill.keep holds the classes of `init`"),
    ({"distill": {"low": 1.0}}, "distill.high, 0.0, must be above distill.low, 1.0"),
    ({"distill": {}, "exposure": Exposure(loss="uno")}, "goes with every exposure.loss"),
    ({"distill": {"maps": "nowhere"}}, "no folder of maps nowhere"),
])  # fmt: skip
def test_recipe__that_cannot_work_is_one_line(scenes, maps, tmp_path, changes, said):
    table = {"maps": maps, **changes["distill"]}
    more = {k: v for k, v in changes.items() if k != "distill"}
    paste = {"augment": Augment(paste=tmp_path)} if more else {}
    with pytest.raises(XenomaskError, match=said):
        train(recipe(scenes, tmp_path / "work", distill=Distill(**table), **more, **paste))


def test_recipe__without_a_map_of_every_frame_is_refused(scenes, maps, tmp_path):
    next(iter(maps.iterdir())).unlink()
    with pytest.raises(XenomaskError, match="1 of 3 labelled frames have no map"):
        train(recipe(scenes, tmp_path / "work", distill=Distill(maps=maps)))
