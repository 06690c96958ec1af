"""The network whose one mask is what looks ordinary: against the distance by hand, through every way in and out."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from xenomask import load_model
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector, Member
from xenomask.detector.member import write_member
from xenomask.errors import XenomaskError
from xenomask.masks import with_queries
from xenomask.models.mahalanobis import Mahalanobis, MahalanobisConfig
from xenomask.models.runtimes.runtime import with_runtime
from xenomask.scores import get_score
from xenomask.train.mahalanobis import SHRINK, fit_mahalanobis
from xenomask.types import QuerySet


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """ImageNet weights as their package names them, but random."""
    import timm

    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("lite") / "lite0.pth"
    module = timm.create_model("tf_efficientnet_lite0")
    for name, t in module.state_dict().items():
        if name.endswith("running_var"):
            t.uniform_(0.5, 1.5)
    torch.save({k.replace("conv_stem", "_conv_stem"): v for k, v in module.state_dict().items()}, path)
    return path


@cache
def photo(i):
    return draw_scene(i, (72, 128)).image


def photos(n):
    return [photo(i) for i in range(n)]


@pytest.fixture(scope="module")
def network(weights):
    return fit_mahalanobis(photos(94), weights, edge=64, enlarge=2.0)


def member(network):
    return Member("ordinary", network, QuerySet(), get_score("max_logit"), 1.0)


def test_distance_is_mahalanobis(network, weights):
    f = []
    for image in photos(94):
        with torch.inference_mode():
            f.append(network.module.features(network.prepare(image).x)[0, :, :4, :7].flatten(1).T)
    f = torch.cat(f).double().numpy()
    assert len(f) == network.facts["fitted"]["cells"]  # 28 cells a photo, fewer than the 60 that are drawn
    cov = np.cov(f.T, bias=True)
    inverse = np.linalg.inv(cov + SHRINK * np.trace(cov) / len(cov) * np.eye(len(cov)))
    own = network.module.distance(torch.tensor(f[:50].T[None, :, :, None], dtype=torch.float32)).flatten()
    expected = [mahalanobis(x, f.mean(0), inverse) for x in f[:50]]
    np.testing.assert_allclose(own, expected, rtol=2e-3)


def test_mask_is_a_half_where_one_in_twenty_ordinary_cells_lies(network):
    masks = [network.predict(image).mask_logits[0, :4, :7] for image in photos(94)]
    assert np.mean(torch.stack(masks).numpy() < 0) == pytest.approx(0.05, abs=0.002)


def test_score_is_minus_the_mask(network):
    output = network.predict(photos(1)[0])
    found = Detector("d", (member(network),)).detect(photos(1)[0]).value
    assert output.class_logits.softmax(-1)[0, 0] == 1
    assert -1 <= found.min() <= found.max() <= 0
    assert found.std() > 0


def test_folder_and_graph_say_the_same(network, tmp_path):
    folder = network.save(tmp_path / "ordinary")
    again = load_model(folder)
    image = photos(100)[-1]
    expected = network.predict(image).mask_logits
    torch.testing.assert_close(with_queries(again.predict(image)).mask_logits, expected)
    assert again.settings == network.settings
    compiled = with_runtime(again, "onnxruntime")
    torch.testing.assert_close(with_queries(compiled.predict(image)).mask_logits, expected, rtol=1e-3, atol=1e-3)
    row = write_member(tmp_path, member(again))
    assert (row["name"], row["score"]) == ("ordinary", "max_logit")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classifier": "resnet18"}, "no EfficientNet"),
        ({"classifier": "hf-hub:someone/something"}, "timm has no"),
        ({"features": 640}, "no EfficientNet with 640 features"),
        ({"enlarge": 1000}, "not in 1..4"),
        ({"model_type": "other"}, "model_type is not mask2former or mahalanobis"),
    ],
)
def test_damaged_configs(network, tmp_path, changed, said):
    folder = network.save(tmp_path / "ordinary")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))
    with pytest.raises(XenomaskError, match=said):
        load_model(folder)


def test_too_few_photos(weights):
    with pytest.raises(XenomaskError, match="3 photos give 84 cells of 1280 features"):
        fit_mahalanobis(photos(3), weights, edge=64)


def test_views_and_other_scores_beside_a_mask_transformer(network):
    from xenomask.models import build

    score = get_score("max_logit")
    d = Detector("d", tuple(Member(*m, QuerySet(), score, 0.5) for m in (("m", build("tiny")), ("ordinary", network))))
    views = d.with_tta((64, 96), mirror=True)
    assert [m.name for m in views.members if m.name.startswith("ordinary")] == ["ordinary", "ordinary@mirror"]
    assert sum(m.weight for m in views.members) == pytest.approx(1)
    assert [m.weight for m in d.with_score("entropy").members] == [1, 0]  # of one class it is 0 / log 1
    assert [m.weight for m in d.with_score("rba").members] == [0.5, 0.5]


def test_a_config_of_the_default_values():
    assert Mahalanobis(MahalanobisConfig()).whiten.weight.shape == (1280, 1280, 1, 1)
