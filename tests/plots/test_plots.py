import numpy as np
import pytest

from xenomask.errors import XenomaskError
from xenomask.plots import coloured, contact_sheet, figure, frame_title, overlay, panels

IMAGE = np.full((30, 50, 3), 100, np.uint8)
VALUE = np.linspace(0, 1, 1500, dtype=np.float32).reshape(30, 50)


def test_coloured__one_value_one_colour_whatever_else_is_in_the_map():
    one = coloured(np.array([[0.5, 0.0]], np.float32), (0.0, 1.0))
    other = coloured(np.array([[0.5, 0.9]], np.float32), (0.0, 1.0))
    assert one[0, 0].tolist() == other[0, 0].tolist()
    beyond = coloured(np.array([[7.0, 1.0, -3.0, 0.0]], np.float32), (0.0, 1.0))[0].tolist()
    assert beyond[0] == beyond[1] and beyond[2] == beyond[3]


def test_overlay__leaves_the_ordinary_and_outlines_the_threshold():
    drawn = overlay(IMAGE, VALUE, (0.0, 1.0), threshold=0.5)
    assert np.abs(drawn[0, 0].astype(int) - 100).max() <= 1
    assert (drawn == 255).all(-1).any()
    assert not (overlay(IMAGE, VALUE, (0.0, 1.0)) == 255).all(-1).any()


def test_figure__draws_all_kinds_of_labels(tmp_path):
    labels = {
        "none": None,
        "ordinary": np.zeros((30, 50), np.uint8),
        "all_void": np.full((30, 50), 255, np.uint8),
        "mixed": np.repeat(np.array([0, 1, 255], np.uint8), 500).reshape(30, 50),
    }
    for name, label in labels.items():
        picture = figure(IMAGE, VALUE, (0, 1), title=name, label=label, threshold=0.5)
        picture.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    figure(IMAGE, np.zeros_like(VALUE), (0, 1), title="constant", threshold=0.5).savefig(tmp_path / "constant.png")


def test_contact_sheet__holds_pictures_of_any_size():
    sheet = contact_sheet([IMAGE, IMAGE[:10], IMAGE, IMAGE[:, :20]], columns=3, width=60)
    assert sheet.shape == (2 * 6 + 36 + 90, 3 * 66, 3)


def test_frame_title__says_why_there_are_no_numbers():
    assert "no pixel numbers" in frame_title("a", None)
    numbers = {"aupr_sum": 0.5, "fpr95": 0.25, "best_f1": 0.1, "prevalence": 0.02}
    assert frame_title("a", numbers) == "a   AUPR 0.500   FPR95 0.250   best F1 0.100   anomaly 2.0 %"


def test_overlay__is_the_plain_formula():
    from matplotlib import colormaps

    rng = np.random.default_rng(0)
    image, value = rng.integers(0, 255, (30, 50, 3), np.uint8), rng.normal(0.5, 0.5, (30, 50)).astype(np.float32)
    t = np.clip((value.astype(np.float64) - 0.2) / 0.5, 0, 1)
    colours = np.floor(colormaps["inferno"](t)[..., :3] * 255)  # as bytes, matplotlib cuts
    expected = image * (1 - 0.8 * t[..., None]) + colours * 0.8 * t[..., None]
    assert np.abs(overlay(image, value, (0.2, 0.7)) - expected).max() < 0.51
    strided = np.asfortranarray(value)
    assert (overlay(image[::-1], strided[::-1], (0, 1))[::-1] == overlay(image, value, (0, 1))).all()


def test_colours__are_matplotlibs_inferno():
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    value = np.random.default_rng(0).normal(0, 2, (40, 50)).astype(np.float32)
    true = colormaps["inferno"](Normalize(-1, 1.5, clip=True)(value), bytes=True)[..., :3]
    assert np.array_equal(coloured(value, (-1, 1.5)), true)


def test_panels__show_photo_and_map_side_by_side():
    value = np.zeros((60, 90), np.float32)
    value[20:40, 30:60] = 1
    page = panels(np.full((60, 90, 3), 77, np.uint8), value, (0, 1), title="ü$^.jpg", threshold=0.5)
    assert page.shape[1] == 1400 and (page[100:400, 20:600] == 77).all()
    inferno = coloured(np.array([[0, 1]], np.float32), (0, 1))[0]
    assert (page[246, 960] == inferno[1]).all() and (page[100, 700] == inferno[0]).all()
    white = (page[150:330, 800:1100] > 240).all(-1)  # anti-aliased
    assert white.any()  # the contour
    assert panels(np.zeros((4, 900, 3), np.uint8), np.zeros((4, 900)), (0, 1), title="flat").shape[0] == 186
    with pytest.raises(XenomaskError, match="map is 4x4"):
        panels(np.zeros((5, 4, 3), np.uint8), np.zeros((4, 4)), (0, 1), title="")


@pytest.mark.parametrize("scale", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1), (0, 1e300), (-3e38, 3e38)])
def test_coloured__refuses_a_scale_that_float32_has_not(scale):
    with pytest.raises(XenomaskError, match="must rise"):
        coloured(VALUE, scale)
