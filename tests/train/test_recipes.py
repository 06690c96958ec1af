"""The two recipes of the paper's setting, value by value as MMSegmentation 1.2.2's configs have them."""

import numpy as np
import pytest

from helpers.places import ROOT
from xenomask.models.presets import PRESETS
from xenomask.train import read_config
from xenomask.train.augment import augment, crop, photometric, resize
from xenomask.train.config import Augment
from xenomask.train.optim import lr_factor

CONFIGS = ROOT / "configs"
RECIPES = {
    "swin-s": "mask2former_swin-s_8xb2-90k_cityscapes-512x1024",
    "swin-l": "mask2former_swin-l-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024",
}


@pytest.mark.parametrize("preset", RECIPES)
def test_recipe__is_the_published_one(preset):
    c = read_config(CONFIGS / f"{RECIPES[preset]}.toml")
    assert (c.preset, c.work_dir.name, c.data.dataset) == (preset, RECIPES[preset], "cityscapes")
    o = c.optim
    assert (o.iterations, o.batch, o.lr, o.backbone_lr, o.weight_decay) == (90_000, 16, 1e-4, 0.1, 0.05)
    assert (o.clip, o.power, o.warmup, o.ema) == (0.01, 0.9, 0, 0)
    assert lr_factor(o, 0) == 1 and lr_factor(o, 45_000) == pytest.approx(0.5**0.9) and lr_factor(o, 90_000) == 0
    a = c.augment
    assert a.short_edge == tuple(int(1024 * x * 0.1) for x in range(5, 21)) and a.longest == 4096
    assert (a.crop, a.crop_cap, a.flip, a.photometric, a.paste) == ((512, 1024), 0.75, 0.5, 0.5, None)
    assert (c.val_every, c.save_every, c.data.val_frames, c.engine.precision) == (5000, 5000, 500, "no")


@pytest.mark.parametrize("preset", RECIPES)
def test_preset__has_the_published_loss_and_regularisation(preset):
    config = PRESETS[preset]().config
    found = {k: getattr(config, k) for k in ("class_weight", "mask_weight", "dice_weight", "no_object_weight",
             "train_num_points", "oversample_ratio", "importance_sample_ratio", "num_queries",
             "decoder_layers")}  # fmt: skip
    assert found == {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0, "no_object_weight": 0.1,
                     "train_num_points": 12544, "oversample_ratio": 3.0, "importance_sample_ratio": 0.75,
                     "num_queries": 100, "decoder_layers": 10}  # fmt: skip
    assert config.backbone_config.drop_path_rate == 0.3  # pyright: ignore


def test_resize__keeps_the_ratio_and_the_longest_edge():
    image, label = np.zeros((100, 300, 3), np.uint8), np.zeros((100, 300), np.uint8)
    assert resize(image, label, 50, 4096)[1].shape == (50, 150)
    assert resize(image, label, 200, 400)[1].shape == (133, 400)


def test_crop__one_class_has_less_than_the_cap():
    """A photo of one class but for its right fifth: a random window of half its width seldom passes a cap of .75."""
    label = np.zeros((64, 200), np.uint8)
    label[:, 160:] = 1
    image = np.repeat(label[..., None], 3, 2)
    largest = []
    for seed in range(200):
        x, y, _ = crop(image, label, (64, 100), 0.75, np.random.default_rng(seed))
        assert x.shape == (64, 100, 3) and np.array_equal(x[..., 0], y)
        largest.append(np.bincount(y.ravel()).max() / y.size)
    # a draw passes where the window starts at 86 or later: 15 of 101; so ten draws fail with (86 / 101)^10 = .2
    assert 0.1 < np.mean(np.array(largest) >= 0.75) < 0.3


def test_crop__pads_what_is_missing_with_void():
    x, y, _ = crop(np.full((3, 4, 3), 7, np.uint8), np.full((3, 4), 2, np.uint8), (5, 6), 1.0, np.random.default_rng(0))
    assert (y[:3, :4] == 2).all() and (y == 255).sum() == 5 * 6 - 3 * 4
    assert (x[y == 255] == 0).all()


def test_photometric__grey_stays_grey_and_keeps_the_published_ranges():
    """On a grey photo only brightness (up to 32) and contrast (.5 to 1.5) act."""
    grey = np.full((4, 4, 3), 100, np.uint8)
    seen = []
    for seed in range(300):
        x = photometric(grey, 1.0, np.random.default_rng(seed))
        assert (x == x[0, 0, 0]).all()
        seen.append(int(x[0, 0, 0]))
    assert 33 <= min(seen) < 45 and 170 < max(seen) <= 198
    assert np.array_equal(photometric(grey, 0.0, np.random.default_rng(0)), grey)


def test_augment__depends_on_its_generator_alone():
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (40, 80, 3), np.uint8), rng.integers(0, 3, (40, 80), np.uint8)
    a = Augment(short_edge=(32, 40, 48), crop=(24, 40))
    one, two, other = (augment(image, label, a, np.random.default_rng(s)) for s in (5, 5, 6))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    assert not np.array_equal(one[0], other[0])
