"""Known detectors: their query sets and scores are applied to whatever network lies in their place."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub.utils import close_session
from transformers import Mask2FormerForUniversalSegmentation

from helpers import naive
from helpers.cli import fails, run
from helpers.detectron2 import Checkpoint, plain, written
from helpers.fakehub import FakeHub, serve
from helpers.hub import point_at
from xenomask import load_model, offline
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.detector.known import KNOWN, by_hand
from xenomask.errors import XenomaskError
from xenomask.masks import class_probabilities, soft_masks, with_queries
from xenomask.models import load
from xenomask.models.presets import preset
from xenomask.scores import get_score, score_of

IMAGE = draw_scene(0, (24, 40)).image
PAPER = "maskomaly-paper"


@pytest.fixture(scope="module")
def random_hundred(tmp_path_factory) -> Path:
    """A Mask2Former with Swin of tiny widths, random weights and 100 queries, as Hugging Face writes it."""
    config = preset("tiny").config
    config.num_queries = 100
    torch.manual_seed(3)
    module = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        # Untrained queries say much the same of everything. These differ, are sharp, and mostly sure of no object, so
        # that every branch of the score has work.
        module.class_predictor.weight *= 40
        module.class_predictor.bias[-1] += 11
        module.model.transformer_module.queries_features.weight *= 5
        module.get_parameter("model.transformer_module.decoder.mask_predictor.mask_embedder.2.0.weight").mul_(400)
    folder = tmp_path_factory.mktemp("hundred")
    module.save_pretrained(folder)
    stored = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "size": [384, 384]}
    (folder / "preprocessor_config.json").write_text(json.dumps(stored))
    return folder


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """No Hub, an empty cache, and an own $XENOMASK_HOME."""
    own = FakeHub()
    server = serve(own)
    point_at(monkeypatch, own.url, tmp_path / "cache", offline=True)
    monkeypatch.setenv("XENOMASK_HOME", str(tmp_path / "xm"))
    monkeypatch.setattr(offline, "USER_OFFLINE", False)
    yield own
    close_session()
    server.shutdown()
    server.server_close()


def place(name: str, folder: Path) -> Path:
    target = by_hand(KNOWN[name])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(folder)
    return target


def test_maskomaly_paper__reads_the_placed_network_by_the_released_queries(nobody, random_hundred):
    place(PAPER, random_hundred)
    found = Detector.from_hub(PAPER)
    (row,) = found.describe()["members"]
    assert (row["score"], row["weight"]) == ("maskomaly", 1.0)
    assert (row["outlier_queries"], row["ground_queries"], row["inlier_queries"]) == ([31, 32, 49, 83], [19, 24], [])
    assert row["options"] == {"inlier": "confident", "mix": 0.6, "confidence": 0.7, "border": 0.1}
    member = found.members[0]
    # NOTE: shortest edge 1024 as the published numbers; at full size the oracle, pixel by pixel, would take minutes
    output = with_queries(member.network.predict(IMAGE, size_policy="native"))
    value = score_of(output, member.queries, member.score).value
    p, m = class_probabilities(output), soft_masks(output, slice(0, 24))
    whole = naive.maskomaly(p.numpy(), m.numpy(), outlier=(49, 31, 83, 32), ground=(19, 24))
    assert np.allclose(value, whole, atol=1e-5)
    for other in ({"outlier": (1, 2, 3, 4)}, {"ground": (5, 6)}):  # the query sets matter on this network
        sets = {"outlier": (49, 31, 83, 32), "ground": (19, 24), **other}
        assert not np.allclose(value, naive.maskomaly(p.numpy(), m.numpy(), **sets), atol=1e-3), other
    assert np.isnan(list(member.queries.outlier.values())).all()  # their IoUs were not published
    assert member.network.preprocess.size == 1024 and nobody.requests == []
    assert "non-commercial" in member.network.facts["terms"]


def test_maskomaly_paper__detect_and_keep_as_a_folder(nobody, random_hundred, tmp_path, capsys):
    from PIL import Image

    place(PAPER, random_hundred)
    Image.fromarray(IMAGE).resize((40, 32)).save(tmp_path / "p.png")
    code, out, err = run(
        capsys, "detect", tmp_path / "p.png", "--out", tmp_path / "out", "--detector", PAPER, "--device", "cpu"
    )
    assert code == 0 and "score maskomaly" in out, err
    kept = Detector.from_hub(PAPER).save(tmp_path / "own")
    table = json.loads((kept / "detector.json").read_text())
    assert table["members"][0]["options"]["mix"] == 0.6
    back, first = (d.describe()["members"][0] for d in (Detector.from_folder(kept), Detector.from_hub(PAPER)))
    assert {k: v for k, v in back.items() if k != "sha256"} == {k: v for k, v in first.items() if k != "sha256"}
    card = (kept / "README.md").read_text()
    assert "31, 32, 49, 83" in card and "19, 24" in card and "non-commercial" in card
    assert nobody.requests == []


@pytest.mark.parametrize("name", ["mask2former-swin-s", "eomt-l"])
def test_baselines__are_read_without_query_sets(name, nobody, random_hundred):
    place(name, random_hundred)  # what decides is the table's score; the folder's own config says what is built
    found = Detector.from_hub(name)
    (row,) = found.describe()["members"]
    assert (row["score"], row["outlier_queries"], row["ground_queries"]) == ("rba", [], [])
    assert get_score(KNOWN[name].score).needs == ()


def test_known__photos_have_the_size_of_its_published_numbers(nobody, random_hundred, tmp_path):
    """Its repository's processor squeezes them to 384x384; another folder's is followed."""
    folder = Path(shutil.copytree(random_hundred, tmp_path / "copy"))
    stored = {"size": {"height": 384, "width": 384}, "image_mean": [0.5, 0.4, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(stored))
    assert load(folder).preprocess.policy == "fixed"
    place(PAPER, folder)
    for network in (Detector.from_hub(PAPER).members[0].network, load_model(PAPER)):
        p = network.preprocess
        assert (p.policy, p.size, p.longest, p.divisor, p.resample) == ("shortest", 1024, 2048, 32, "opencv")
        assert p.mean == pytest.approx((127.5, 102, 76.5))
    kept = Detector.from_hub(PAPER).save(tmp_path / "own")
    assert Detector.from_folder(kept).members[0].network.preprocess.size == 1024


def test_known__from_the_hub_only_its_files_and_its_commit(nobody, random_hundred, tmp_path, monkeypatch, capsys):
    known = KNOWN[PAPER]
    nobody.repositories[known.repository] = random_hundred
    (random_hundred / "README.md").write_text("not asked for\n")
    code, out, _ = run(capsys, "detectors")
    assert code == 0 and all(name in out for name in ("nano", *KNOWN)) and nobody.requests == []
    point_at(monkeypatch, nobody.url, tmp_path / "cache")
    found = Detector.from_hub(PAPER)
    commit = {"repository": known.repository, "revision": known.revision, "commit": known.revision}
    assert found.members[0].network.facts["hub"] == commit
    got = {r.rpartition("/")[2] for r in nobody.requests if r.startswith("GET") and "/resolve/" in r}
    assert got == set(known.files)
    before = len(nobody.requests)
    point_at(monkeypatch, nobody.url, tmp_path / "cache", offline=True)
    assert Detector.from_hub(PAPER).describe() == found.describe()
    assert load_model(PAPER).facts["hub"] == commit
    code, out, _ = run(capsys, "detectors")
    assert out.count("(on this machine)") == 1 and len(nobody.requests) == before


def test_known__offline_says_which_files_go_where(nobody, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(offline, "USER_OFFLINE", True)
    photo = tmp_path / "p.png"
    cv2.imwrite(str(photo), np.zeros((32, 64, 3), np.uint8))
    error = fails(capsys, "detect", photo, "--out", tmp_path, "--detector", PAPER, "--device", "cpu")
    folder = tmp_path / "xm/known/maskomaly-paper"
    for part in (
        "HF_HUB_OFFLINE is set", "put config.json, preprocessor_config.json, model.safetensors of "
        "https://huggingface.co/facebook/mask2former-swin-large-cityscapes-semantic into " + str(folder),
        f"`xenomask convert model_final_17c1ee.pkl --out {folder}`",
    ):  # fmt: skip
        assert part in error
    assert nobody.requests == []
    assert "did you mean 'maskomaly-paper'" in fails(capsys, "detect", photo, "--detector", "maskomaly-papr")


def test_known__detectron2s_own_file_placed_by_hand(nobody, tmp_path, capsys):
    folder = by_hand(KNOWN[PAPER])
    folder.mkdir(parents=True)
    pkl = written(folder / "model_final_17c1ee.pkl", plain(Checkpoint(queries=100)))
    found = Detector.from_hub(PAPER)
    assert found.describe()["members"][0]["outlier_queries"] == [31, 32, 49, 83]
    pkl.unlink()  # it was converted once and for all
    assert Detector.from_hub(PAPER).describe() == found.describe()
    elsewhere = written(tmp_path / "model_final_fa26ae.pkl", plain(Checkpoint(queries=100)))
    code, _, err = run(capsys, "convert", elsewhere, "--out", by_hand(KNOWN["mask2former-swin-s"]))  # as the line says
    assert code == 0, err
    assert Detector.from_hub("mask2former-swin-s").score_name == "rba" and nobody.requests == []


def test_known__a_network_of_fewer_queries_is_refused(nobody, tiny_checkpoint):
    place(PAPER, tiny_checkpoint)
    with pytest.raises(XenomaskError, match="the query set names query .*, the network has 0..7"):
        Detector.from_hub(PAPER).detect(IMAGE)


def test_known__leave_one_out_needs_an_analysis_of_ones_own(nobody, random_hundred):
    place(PAPER, random_hundred)
    with pytest.raises(XenomaskError, match="needs the outlier analysis"):
        Detector.from_hub(PAPER).without_frame("validation0001")
