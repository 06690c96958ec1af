"""explain: its numbers are the map's, and the queries that it names are the ones that decided."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Mask2FormerConfig, SegformerConfig

from helpers.cli import fails, run
from helpers.outputs import from_probabilities, make_output, make_pixel_output
from xenomask.cli.common import parse_point
from xenomask.detector import Detector, Member
from xenomask.detector.explain import Answer, MemberAnswer, explain, in_words
from xenomask.errors import XenomaskError
from xenomask.models.network import Network
from xenomask.models.presets import preset
from xenomask.scores import SCORES, get_score, score_all
from xenomask.types import QuerySet

QUERIES = QuerySet(inlier={0: 1, 3: 2}, outlier={1: 0.5, 4: 0.2}, ground=(5,))
POINTS = [(0, 0), (30, 12), (17, 5), (3, 11)]


def network(per_pixel: bool = False) -> Network:
    """What `explain` asks of a network: its kind and the names of its classes; it looks at nothing."""
    config = (
        SegformerConfig.from_dict({"num_labels": 5}) if per_pixel else Mask2FormerConfig.from_dict({"num_labels": 4})
    )
    return Network(torch.nn.Identity(), config, preset("tiny").preprocess)


def detector(score, *weights, queries=QUERIES, per_pixel=False) -> Detector:
    score = get_score(score) if isinstance(score, str) else score
    members = tuple(Member(f"m{i}", network(per_pixel), queries, score, w) for i, w in enumerate(weights))
    return Detector("test", members)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_explain__weighted_sum_of_members_is_the_maps_value(name):
    outlier = name == "uno"
    outputs = [make_output(seed=s, outlier_class=outlier) for s in (1, 2, 3)]
    found = detector(name, 0.25, 0.75, 0.0)
    maps = [score_all(o, QUERIES, [SCORES[name]], kernel="torch")[name].value for o in outputs]
    for x, y in POINTS:
        answer = explain(found, outputs, (x, y))
        assert answer.value == pytest.approx(0.25 * maps[0][y, x] + 0.75 * maps[1][y, x], abs=1e-5)
        assert sum(m.weight * m.value for m in answer.members) == pytest.approx(answer.value, abs=1e-9)
        assert [m.name for m in answer.members] == ["m0", "m1"]  # the one without weight has no part in it
        json.dumps([m.parts for m in answer.members], allow_nan=False)


@pytest.mark.parametrize("name", sorted(n for n, s in SCORES.items() if s.logit_scale))
def test_explain__per_pixel_network_answers_by_its_logits(name):
    output = make_pixel_output()
    value = score_all(output, None, [SCORES[name]])[name].value
    for x, y in POINTS:
        (member,) = explain(detector(name, 1.0, per_pixel=True), [output], (x, y)).members
        assert member.value == pytest.approx(value[y, x], abs=1e-5)
        assert member.votes == () and "no queries" in member.notes[0]


@pytest.mark.parametrize("options", [{"mix": 0.0}, {"mix": 1.0}, {"border": 0.5}, {"confidence": 0.2}])
def test_explain__follows_the_scores_options(options):
    output, score = make_output(seed=4), get_score("maskomaly", options)
    value = score_all(output, QUERIES, [score])["maskomaly"].value
    for x, y in POINTS:
        assert explain(detector(score, 1.0), [output], (x, y)).value == pytest.approx(value[y, x], abs=1e-5)


def one_pixel(rows, masks):
    """One pixel of 3 queries, 2 classes and the rest."""
    return from_probabilities(rows, np.reshape(masks, (-1, 1, 1)))


ROWS = [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]


def test_explain__maskomaly_names_the_queries_that_decided():
    # by hand: R = 1 - .9 * .5 (query 0 rejects), O = .8 * .7 (query 2), one known mask above .1, so no border
    output = one_pixel(ROWS, [0.5, 0.05, 0.7])
    (m,) = explain(detector("maskomaly", 1.0, queries=QuerySet(outlier={2: 0.4})), [output], (0, 0)).members
    first = {part: next(v for v in m.votes if v.part == part) for part in ("rejection", "outlier")}
    assert (first["rejection"].query, first["outlier"].query) == (0, 2)
    assert (first["rejection"].label, first["outlier"].label) == ("LABEL_0", "no known class")
    assert first["outlier"].roles == ("outlier",) and first["rejection"].roles == ("confident",)
    assert m.parts["R"] == pytest.approx(0.55, abs=1e-6) and m.parts["O"] == pytest.approx(0.56, abs=1e-6)
    assert m.value == pytest.approx(0.6 * 0.55 + 0.4 * 0.56, abs=1e-6)


def test_explain__border_lists_the_masks_that_crowd():
    output = one_pixel(ROWS, [0.5, 0.2, 0.7])
    (m,) = explain(detector("maskomaly", 1.0, queries=QuerySet(outlier={2: 0.4})), [output], (0, 0)).members
    assert [v.query for v in m.votes if v.part == "border"] == [0, 1]  # query 2 knows no class
    assert m.parts["R"] == 0 and any("border: 2 masks" in note for note in m.notes)


def test_explain__sums_list_the_largest_and_name_the_rest():
    output = make_output(q=20, seed=5)
    (m,) = explain(detector("void_mass", 1.0, queries=QuerySet()), [output], (4, 4)).members
    assert m.parts["constant"] + m.parts["no known class"] == pytest.approx(m.value, abs=1e-6)
    listed = sum(v.adds for v in m.votes) + m.parts["queries not listed"]
    assert listed == pytest.approx(m.value, abs=1e-6)


@pytest.mark.parametrize("name", ["rba", "entropy"])
def test_explain__terms_of_the_classes_sum_to_the_score(name):
    (m,) = explain(detector(name, 1.0), [make_output(seed=6)], (9, 9)).members
    assert sum(c["term"] for c in m.classes) == pytest.approx(m.value, abs=1e-6)
    assert [c["mass"] for c in m.classes] == sorted((c["mass"] for c in m.classes), reverse=True)


@pytest.mark.parametrize("at", [(-1, 0), (31, 0), (0, 13), (10**8, 0)])
def test_explain__point_outside_is_refused(at):
    with pytest.raises(XenomaskError, match="outside of the photo, which is 31x13"):
        explain(detector("rba", 1.0), [make_output()], at)


@pytest.mark.parametrize("text", ["", "3", "3,4,5", "a,b", "-1,2", "1.5,2", "٣,4", "9" * 5000 + ",1"])
def test_parse_point__refuses_what_is_no_point(text):
    with pytest.raises(XenomaskError, match="is not X,Y"):
        parse_point(text)


def test_explain__foreign_and_missing_queries_are_refused():
    with pytest.raises(XenomaskError, match="names query 77"):
        explain(detector("maskomaly", 1.0, queries=QuerySet(outlier={77: 0.1})), [make_output()], (0, 0))
    with pytest.raises(XenomaskError, match="needs inlier queries"):
        explain(detector("maskomaly_specialised", 1.0, queries=QuerySet()), [make_output()], (0, 0))


@pytest.mark.parametrize("name", ["class_logits", "mask_logits"])
def test_explain__damaged_logits_are_refused_as_the_map_is(name):
    output = make_output()
    damaged = replace(output, **{name: torch.full_like(getattr(output, name), torch.nan)})
    with pytest.raises(XenomaskError, match="logits hold NaN"):
        explain(detector("rba", 1.0), [damaged], (0, 0))


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_cli__json_holds_what_the_detectors_map_says(tmp_path, capsys, photo, tiny_detector):
    written = tmp_path / "e.json"
    code, out, _ = run(capsys, "explain", photo, "--at", "33,21", "--detector", tiny_detector, "--json", written)
    said = json.loads(written.read_text())
    torch.manual_seed(0)
    value = Detector.from_folder(tiny_detector).detect(np.array(Image.open(photo))).value
    assert code == 0 and "33,21" in out and "entropy" in out
    assert said["value"] == pytest.approx(float(value[21, 33]), abs=1e-5)
    assert sum(m["share"] for m in said["members"]) == pytest.approx(said["value"], abs=1e-9)


def test_cli__wrong_points_and_exported_files_are_one_line(tmp_path, capsys, photo, tiny_detector):
    assert "outside of the photo, which is 60x40" in fails(capsys, "explain", photo, "--at", "60,0")
    assert "is not X,Y" in fails(capsys, "explain", photo, "--at", "here")
    assert "no such photo" in fails(capsys, "explain", tmp_path / "none.jpg", "--at", "1,1")


def test_explain__of_a_changed_weight_is_another_share():
    outputs = [make_output(seed=1), make_output(seed=2)]
    found = detector("rba", 0.5, 0.5)
    one, other = explain(found, outputs, (3, 3)).members
    alone = replace(found, members=(replace(found.members[0], weight=1.0),))
    assert explain(alone, outputs[:1], (3, 3)).value == pytest.approx(one.value)
    assert one.share + other.share == pytest.approx((one.value + other.value) / 2)


def test_in_words_a_single_class_is_no_choice_between_classes():
    def said(*members):
        parts = [
            MemberAnswer("", "", "", w, 0.0, 0.0, {}, tuple({"label": k, "probability": p} for k, p in c), (), ())
            for w, c in members
        ]
        return in_words(Answer((0, 0), (1, 1), -0.2, tuple(parts)), -0.1)

    street, ordinary = (0.5, [("road", 0.02), ("car", 0.9)]), (0.5, [("ordinary", 0.784)])
    assert said(street, ordinary) == "not anomalous: below the threshold -0.1; car fits, 90 %; looks 78 % ordinary"
    assert said(ordinary) == "not anomalous: below the threshold -0.1; looks 78 % ordinary"
