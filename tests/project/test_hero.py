"""The picture of the first screen is what the default detector makes of its scene today."""

import numpy as np

import hero
from xenomask.picture_files import open_picture
from xenomask.pictures import read_rgb


def test_hero__is_current():
    drawn, kept = hero.hero().astype(int), read_rgb(open_picture(hero.OUT)).astype(int)
    assert drawn.shape == kept.shape
    # processors round differently: single pixels of a contour move, no more
    assert np.abs(drawn - kept).mean() < 1, "run python docs/scripts/hero.py"
