"""`detector(photo)`: what three lines of Python give, held against the parts that it is made of."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageShow

import xenomask
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector, Prediction
from xenomask.errors import XenomaskError
from xenomask.objects import find_objects
from xenomask.picture_files import open_picture
from xenomask.pictures import read_rgb


@pytest.fixture(scope="module")
def detector():
    return Detector.load("nano-general")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return draw_scene(3, (96, 160)).image


def test_call__is_detect_whatever_the_photo_is(detector, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "street.png")
    expected = detector.detect(photo).value
    for form in (photo, tmp_path / "street.png", str(tmp_path / "street.png"), Image.fromarray(photo),
                 torch.from_numpy(photo).permute(2, 0, 1)):  # fmt: skip
        found = detector(form)
        assert isinstance(found, Prediction) and (found.score_map.value == expected).all()
        assert (found.image == photo).all()


def test_call__of_a_list_keeps_its_order_and_batches_what_is_of_one_size(detector, photo):
    other = photo[:64]
    found = detector([photo, other, photo[:, ::-1]])
    for seen, image in zip(found, (photo, other, photo[:, ::-1]), strict=True):
        assert np.abs(seen.score_map.value - detector.detect(image.copy()).value).max() < 2e-3
    assert detector([]) == []


def test_prediction__objects_mask_and_pictures(detector, photo, tmp_path):
    found = detector(photo)
    limit = float(np.quantile(found.score_map.value, 0.9))
    threshold = detector.thresholds["default"]["value"]
    assert found.threshold == threshold
    assert [o.box for o in found.objects] == [o.box for o in find_objects(found.score_map.value, threshold, 16)]
    some = found.objects_above(limit, smallest=0.01)
    assert some and all(o.share >= 0.01 and o.mask.sum() == o.area for o in some)
    assert all(o.nearest_class in detector.members[0].network.config.id2label.values() for o in some)
    assert (found.mask(limit) == (found.score_map.value >= limit)).all()
    assert found.save(tmp_path / "new/out.png") == tmp_path / "new/out.png"
    assert (read_rgb(open_picture(tmp_path / "new/out.png")) == found.overlay()).all()
    assert found._repr_png_().startswith(b"\x89PNG")


def test_show__in_a_notebook_on_a_display_and_where_there_is_neither(detector, photo, monkeypatch):
    found, seen = detector(photo), []
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ImageShow, "show", lambda image: seen.append(image.size) or True)
    with pytest.raises(XenomaskError, match=r'^no display, .* \.save\("out\.jpg"\)$'):
        found.show()
    monkeypatch.setenv("DISPLAY", ":0")
    found.show()
    notebook = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=1), display=SimpleNamespace(display=seen.append)
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    found.show()
    assert seen == [(160, 96), found]


def test_prediction__without_a_threshold_says_what_to_do(detector, photo, tmp_path):
    assert detector.with_score("rba")(photo).threshold == detector.thresholds["rba:default"]["value"]
    assert detector.with_score("max_logit") is detector
    found = replace(detector, thresholds={}).with_score("entropy")(photo)
    assert found.threshold is None
    for ask in (lambda: found.objects, found.mask):
        with pytest.raises(XenomaskError, match=r"no threshold for score entropy: give one"):
            ask()
    found.save(tmp_path / "x.jpg")
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(XenomaskError, match="not a finite number"):
            found.mask(wrong)
    with pytest.raises(XenomaskError, match="the photo is 31x96 pixels: less than 32"):
        detector(photo[:, :31])
    with pytest.raises(XenomaskError, match=r"no share of the photo"):
        found.objects_above(0.1, smallest=50)
    with pytest.raises(XenomaskError, match=r"written as \.jpg"):
        found.save(Path("x.gif"))


def test_load__and_dir_of_the_package():
    assert {"Detector", "evaluate"} <= set(dir(xenomask)) and xenomask.Detector is Detector
    with pytest.raises(XenomaskError, match="nano"):
        Detector.load("nanoo")
