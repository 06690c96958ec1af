import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import naive
from helpers.outputs import make_output
from helpers.recipes import recipe
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.masks import class_probabilities, with_queries
from xenomask.models import build, load
from xenomask.models.network import with_outlier_class
from xenomask.scores import SCORES, score_all, score_of
from xenomask.train import read_config, train
from xenomask.train.augment import augment
from xenomask.train.config import Augment, Data, Exposure, Optim
from xenomask.train.cutouts import KNOWN, list_cutouts
from xenomask.train.exposure import (
    Counts,
    eam,
    exposure_loss,
    mask2anomaly,
    pixel_counts,
    rba,
    split,
    targets,
    tune_only,
)
from xenomask.train.loop import _open
from xenomask.train.paste import matched, paste
from xenomask.train.records import read_scalars
from xenomask.types import CITYSCAPES_CLASSES, OUTLIER, VOID, Sample

LOSSES: dict[str, Any] = {"rba": rba, "mask2anomaly": mask2anomaly, "eam": eam}
OWN_MARGIN = {"rba": float(np.tanh(1)), "mask2anomaly": 1.0, "eam": 1.0}
CASES = [("rba", False), ("rba", True), ("mask2anomaly", False), ("mask2anomaly", True), ("eam", False)]


def call(name, *args, released=False, **options):
    return LOSSES[name](*args, **({"released": True} if released else {}), **options)


def case(b=2, q=3, n=4, size=(3, 5), seed=0):
    """Random class and mask logits, and disjoint pixels of outliers and inliers with some of neither."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(b, q, n, generator=g, dtype=torch.float64) * 2
    x = torch.randn(b, q, *size, generator=g, dtype=torch.float64) * 2
    kind = torch.randint(3, (b, *size), generator=g)
    return z.requires_grad_(), x.requires_grad_(), kind == 0, kind == 1


def three_pixels():
    """One query, P = (.9, 0, .1); an inlier pixel of mask 1, an outlier of .5, an inlier of 0."""
    z = torch.tensor([[[0.9, 1e-30, 0.1]]], dtype=torch.float64).log()
    x = torch.tensor([[[[60.0, 0.0, -60.0]]]], dtype=torch.float64)
    outlier = torch.tensor([[[False, True, False]]])
    return z, x, outlier, ~outlier


@pytest.mark.parametrize(("name", "released"), CASES)
@pytest.mark.parametrize("margin", [None, 0.3])
def test_loss__is_the_loop_written_one(name, released, margin):
    z, x, outlier, inlier = case()
    value = call(name, z, x, outlier, inlier, released=released, margin=margin)
    own = 5.0 if released and name == "rba" else OWN_MARGIN[name]
    expected = naive.exposure(
        name, z.tolist(), x.tolist(), outlier.tolist(), inlier.tolist(), own if margin is None else margin, released
    )
    assert value.item() == pytest.approx(expected, rel=1e-6)


# by hand: L of the class is .9, .45, 0; tanh: .716298, .421899, 0; tanh 1 = .761594
@pytest.mark.parametrize(
    ("name", "released", "value"),
    [
        ("rba", False, 0.5 * ((0.045296**2 + 0.761594**2) / 2 + 0.421899**2)),
        ("rba", True, 0.5 * (0 + 5.421899**2)),
        ("mask2anomaly", False, 0.5 * ((0.1**2 + 1) / 2 + 0.45**2)),
        ("mask2anomaly", True, 0.5 * ((0.9**2 + 0) / 2 + 1.45**2)),
        ("eam", False, 0.5 * ((0.1**2 + 1) / 2 + 0.45**2)),
    ],
)
def test_loss__of_three_pixels_by_hand(name, released, value):
    assert call(name, *three_pixels(), released=released).item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_loss__pushes_masks_off_outliers_and_onto_inliers(name):
    z, _, outlier, inlier = three_pixels()
    x = torch.zeros(1, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(call(name, z, x, outlier, inlier), [x])
    first, strange, last = gradient.flatten().tolist()
    assert strange > 0 > first == last  # descent lowers the mask where the gradient is positive


def test_released_rba__does_nothing_for_inliers():
    z, x, _, _ = case()
    everywhere, nowhere = torch.ones(2, 3, 5, dtype=torch.bool), torch.zeros(2, 3, 5, dtype=torch.bool)
    value = rba(z, x, nowhere, everywhere, released=True)
    assert value.item() == 0
    assert not any(g.any() for g in torch.autograd.grad(value, [z, x]))
    assert rba(z, x, nowhere, everywhere).item() > 0


def test_released_mask2anomaly__pushes_masks_off_inliers():
    z, _, outlier, inlier = three_pixels()
    gradients = {}
    for released in (True, False):
        x = torch.zeros(1, 1, 1, 3, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(mask2anomaly(z, x, outlier, inlier, released=released), [x])
        gradients[released] = g[0, 0, 0, 0].item()
    assert gradients[True] > 0 > gradients[False]


@pytest.mark.parametrize(("name", "released"), CASES)
def test_loss__of_no_pixels_is_zero_and_parts_sum_to_the_whole(name, released):
    z, x, outlier, inlier = case()
    none = torch.zeros_like(outlier)
    value = call(name, z, x, none, none, released=released)
    assert value.item() == 0 and not torch.autograd.grad(value, [x])[0].any()
    one_sided = call(name, z, x, outlier, none, released=released) + call(name, z, x, none, inlier, released=released)
    whole = call(name, z, x, outlier, inlier, released=released)
    assert one_sided.item() == pytest.approx(whole.item())
    n = Counts(float(inlier.sum()), float(outlier.sum()))
    parts = [
        call(name, z[i : i + 1], x[i : i + 1], outlier[i : i + 1], inlier[i : i + 1], released=released, whole=n)
        for i in (0, 1)
    ]
    assert sum(p.item() for p in parts) == pytest.approx(whole.item())


@pytest.mark.parametrize("size", [(32, 64), (30, 50), (33, 61)])
def test_pixel_counts__are_those_of_the_networks_masks(size):
    labels = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 254, 255, 18])[labels]
    network = build("tiny")
    _, masks = network(torch.zeros(2, 3, *size))
    outlier, inlier = split(labels, (masks.shape[2], masks.shape[3]))
    assert not (outlier & inlier).any()
    config: Any = network.config
    assert pixel_counts(labels, config.feature_strides[0]) == (inlier.sum().item(), outlier.sum().item())


def test_targets__a_pasted_object_stays_what_it_is_or_becomes_the_outlier_class():
    labels = torch.tensor([[[3, 254, 255, 18]]], dtype=torch.uint8)
    network = build("tiny")
    assert targets(labels, network).tolist() == [[[3, 254, 255, 18]]]
    assert targets(labels, with_outlier_class(network)).tolist() == [[[3, 19, 255, 18]]]


def test_exposure_loss__void_and_uno_have_none_and_weights_scale():
    z, x, _, _ = case(size=(4, 4))
    labels = torch.tensor([1, 254, 255, 2] * 4).view(1, 4, 4).expand(2, 4, 4)
    for e in (None, Exposure(), Exposure(loss="uno")):
        assert exposure_loss(e, z, x, labels).item() == 0
    for name in ("rba", "mask2anomaly", "eam"):
        one = exposure_loss(Exposure(loss=name), z, x, labels)
        assert one.item() > 0
        assert exposure_loss(Exposure(loss=name, weight=3), z, x, labels).item() == pytest.approx(3 * one.item())


# --- the outlier class -------------------------------------------------------------------------------------------


def test_with_outlier_class__only_uno_tells_the_two_apart():
    """Up to rounding: P of each known class and of none, hence every score but uno, are what they were."""
    torch.manual_seed(0)
    network = build("tiny")
    wide = with_outlier_class(network)
    assert not network.outlier_class and wide.outlier_class
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3)).astype(np.uint8)
    one, two = (with_queries(n.predict(image)) for n in (network, wide))
    assert two.class_logits.shape[1] == one.class_logits.shape[1] + 1
    assert torch.equal(one.mask_logits, two.mask_logits)
    assert torch.allclose(class_probabilities(one), class_probabilities(two), atol=1e-6)
    names = [s for s in SCORES.values() if s.name not in ("uno", "maskomaly_specialised")]
    before, after = score_all(one, None, names), score_all(two, None, names)
    for name in before:
        assert np.allclose(before[name].value, after[name].value, atol=1e-5), name
    p = two.class_logits.softmax(-1)
    assert torch.allclose(p[:, -1], p[:, -2])


def test_with_outlier_class__as_released_has_a_row_of_zeros():
    network = build("tiny")
    module: Any = with_outlier_class(network, released=True).module
    own: Any = network.module
    for new, old in zip(module.class_predictor.parameters(), own.class_predictor.parameters(), strict=True):
        assert not new[-2].any() and torch.equal(new[-1], old[-1]) and torch.equal(new[:-2], old[:-1])


def test_outlier_class__survives_the_disk(tmp_path):
    wide = with_outlier_class(build("tiny"))
    again = load(wide.save(tmp_path / "wide"))
    assert again.outlier_class and list(again.config.id2label.values())[-1] == "outlier"  # pyright: ignore
    image = np.zeros((40, 70, 3), np.uint8)
    assert np.array_equal(
        score_of(again.predict(image), None, "uno").value,
        score_of(wide.predict(image), None, "uno").value,
    )


# --- the stage ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 3, size=(64, 96))


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    for i, color in enumerate(((255, 0, 0), (0, 90, 200))):
        cutout = np.zeros((40, 30, 4), np.uint8)
        cutout[..., :3] = color
        cutout[5:35, 5:25, 3] = 255
        Image.fromarray(cutout).save(folder / f"thing_{i}.png")
    return folder


def exposed_recipe(scenes, objects, work_dir, exposure, **changes):
    a = Augment(short_edge=(48, 64, 80), crop=(32, 64), paste=objects, paste_share=1.0)
    return recipe(scenes, work_dir, augment=a, exposure=exposure, optim=Optim(iterations=4, batch=2), **changes)


@pytest.mark.slow
def annotated(scenes, folder):
    """The scenes with their anomalies annotated: 99 in the label files, and a label map that says so."""
    (folder / "labels").mkdir(parents=True)
    (folder / "images").symlink_to(scenes / "images")
    for i, path in enumerate(sorted((scenes / "labels").glob("*.png"))):
        label = np.asarray(Image.open(path)).copy()
        label[8:24, 10 + i : 40] = 99
        Image.fromarray(label).save(folder / "labels" / path.name)
    known = "\n".join(f'{i} = "{name}"' for i, name in enumerate(CITYSCAPES_CLASSES))
    classes = json.dumps(list(CITYSCAPES_CLASSES))
    (folder / "map.toml").write_text(f'classes = {classes}\n[ids]\n{known}\n99 = "outlier"\n')
    return folder / "map.toml"


def test_train__exposure_with_annotated_outliers_pastes_nothing(scenes, tmp_path):
    labels = annotated(scenes, tmp_path / "own")
    own = Data(dataset="folder", labels=labels, train=tmp_path / "own", val=tmp_path / "own", val_frames=2)
    e = Exposure(loss="rba")
    config = recipe(tmp_path / "own", tmp_path / "work", exposure=e, optim=Optim(iterations=4, batch=2), data=own)
    folder = train(config)
    assert load(folder).facts["trained"]["exposure"]["loss"] == "rba"
    data = _open(config, tmp_path / "own", "train")
    assert data is not None
    label = data.label(data.frames[0])
    stored = np.asarray(Image.open(tmp_path / "own/labels" / f"{data.frames[0].id}.png"))
    assert np.array_equal(label == OUTLIER, stored == 99) and set(np.unique(label)) <= {*range(19), OUTLIER, VOID}
    assert pixel_counts(torch.from_numpy(label)[None], 4).outlier > 0  # which the loss reads
    labels.write_text(labels.read_text().replace('99 = "outlier"', '99 = "void"'))
    with pytest.raises(XenomaskError, match="has no objects: set augment.paste, .* or data.labels"):
        train(config.model_copy(update={"work_dir": tmp_path / "w2"}))


@pytest.mark.parametrize("loss", ["void", "rba", "mask2anomaly", "eam", "uno"])
def test_train__with_exposure_reports_the_miou_before_and_after(scenes, objects, tmp_path, loss, caplog):
    config = exposed_recipe(scenes, objects, tmp_path, Exposure(loss=loss))
    with caplog.at_level(logging.INFO, "xenomask.train"):
        network = load(train(config))
    rows = {row["step"]: row["mIoU"] for row in read_scalars(tmp_path) if "mIoU" in row}
    assert sorted(rows) == [0, 4]
    assert network.facts["val_miou_before"] == rows[0] and network.facts["val_miou"] == rows[4]
    assert f"mIoU before {rows[0]:.4f}, after {rows[4]:.4f}" in caplog.text
    assert network.outlier_class == (loss == "uno")
    if loss == "uno":
        assert np.isfinite(score_of(network.predict(np.zeros((40, 70, 3), np.uint8)), None, "uno").value).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "e", [Exposure(loss="rba", tune=("class_predictor",)), Exposure(loss="uno")], ids=lambda e: e.loss
)
def test_train__exposure_goes_on_as_if_it_had_not_been_stopped(scenes, objects, tmp_path, e, monkeypatch):
    whole = load(train(exposed_recipe(scenes, objects, tmp_path / "a", e)))
    config = exposed_recipe(scenes, objects, tmp_path / "b", e)
    with monkeypatch.context() as m:
        m.setattr("xenomask.train.loop._validate", lambda *_: 1 / 0)  # at step 4, after the checkpoint of step 2
        with pytest.raises(ZeroDivisionError):
            train(config)
    again = load(train(config))
    one, two = whole.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert again.facts["val_miou_before"] == whole.facts["val_miou_before"]


@pytest.mark.slow
def test_train__in_parts_is_the_step_with_exposure(scenes, objects, tmp_path):
    losses = []
    for parts in (1, 2):
        config = exposed_recipe(
            scenes, objects, tmp_path / str(parts), Exposure(loss="mask2anomaly", weight=10), log_every=1
        )
        train(config.model_copy(update={"optim": Optim(iterations=1, batch=2, accumulate=parts)}))
        losses.append([row["loss"] for row in read_scalars(tmp_path / str(parts)) if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_train__only_named_parts_are_tuned(scenes, objects, tmp_path):
    start = build("tiny").save(tmp_path / "start")
    e = Exposure(loss="rba", tune=("class_predictor", "mask_embedder"))
    end = load(train(exposed_recipe(scenes, objects, tmp_path / "w", e, init=start))).module.state_dict()
    changed = {k for k, v in load(start).module.state_dict().items() if not torch.equal(v, end[k])}
    assert changed and all("class_predictor" in k or "mask_embedder" in k for k in changed)
    with pytest.raises(XenomaskError, match=r"exposure\.tune 'class_predicter'; did you mean 'class_predictor'"):
        tune_only(build("tiny").module, ("class_predicter",))


@pytest.mark.slow
def test_train__a_second_stage_keeps_the_outlier_class(scenes, objects, tmp_path):
    start = with_outlier_class(build("tiny")).save(tmp_path / "start")
    config = exposed_recipe(scenes, objects, tmp_path / "w", Exposure(loss="uno"), init=start)
    network = load(train(config))
    assert network.config.num_labels == 20  # pyright: ignore
    with pytest.raises(XenomaskError, match='has an outlier class, which only exposure.loss = "uno" trains'):
        train(config.model_copy(update={"exposure": Exposure(), "work_dir": tmp_path / "v"}))


@pytest.mark.parametrize(
    ("e", "message"),
    [
        (Exposure(loss="eam", released=True), "eam has one form"),
        (Exposure(released=True), "void has one form"),
        (Exposure(loss="uno", margin=1.0), "uno has no margin"),
        (Exposure(weight=2.0), "exposure.weight: void has no weight"),
    ],
)
def test_train__exposure_that_asks_for_nothing_is_named(scenes, objects, tmp_path, e, message):
    with pytest.raises(XenomaskError, match=message):
        train(exposed_recipe(scenes, objects, tmp_path, e))
    with pytest.raises(XenomaskError, match="set augment.paste"):
        train(recipe(scenes, tmp_path, exposure=Exposure()))


def test_list_cutouts__photos_are_no_cut_outs(tmp_path):
    picture = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
    picture.save(tmp_path / "a.jpg")
    with pytest.raises(XenomaskError, match=r"a.jpg has no transparency \(mode RGB\), .* need augment.paste_coco"):
        list_cutouts(tmp_path)
    picture.convert("P").save(tmp_path / "a.png", transparency=0)
    (tmp_path / "a.jpg").unlink()
    assert len(list_cutouts(tmp_path)) == 1


def test_recipe__outlines_without_their_photos_paste_nothing_so_they_are_refused(tmp_path):
    recipe_of = '[augment]\npaste_coco = "instances.json"\n[data]\ntrain = "t"\n[optim]\niterations = 1\n'
    (tmp_path / "r.toml").write_text('preset = "tiny"\nwork_dir = "w"\n' + recipe_of)
    with pytest.raises(XenomaskError, match="augment.paste_coco: needs paste, the folder of its photos"):
        read_config(tmp_path / "r.toml")


# --- pasting -----------------------------------------------------------------------------------------------------


def plain(size=(200, 400), value=90):
    return Sample(np.full((*size, 3), value, np.uint8), np.full(size, 3, np.uint8), "a", "drawn")


def rows_of(label):
    return np.flatnonzero((label == 254).any(1))


def test_paste__by_depth_objects_grow_with_their_feet(objects):
    files = list_cutouts(objects)
    sizes = []
    for seed in range(60):
        label = paste(plain(), files, seed, Augment(paste_depth=True, paste_most=1)).label
        assert label is not None
        rows = rows_of(label)
        assert np.array_equal(label, paste(plain(), files, seed, Augment(paste_depth=True, paste_most=1)).label)  # pyright: ignore
        # the object's lower edge is an eighth of its height above the file's
        if len(rows) and rows[-1] < 198 and rows[0] > 0:
            sizes.append((rows[-1] - 0.45 * 200, len(rows)))
    depth, height = np.array(sizes).T
    assert len(sizes) > 20 and (height <= 1.5 * 2.5 * (depth + 2)).all()
    ratio = np.log(height / (depth + height / 6))  # the file's foot is below
    assert np.corrcoef(np.log(depth + height / 6), np.log(height))[0, 1] > 0.4
    assert np.ptp(ratio) <= np.log(1.5 / 0.25) + 0.6


def test_paste__match_moves_the_colours_and_soft_edges_fade(objects):
    scene = np.random.default_rng(0).normal(60, 12, (40, 60, 3)).clip(0, 255).astype(np.uint8)
    thing = np.random.default_rng(1).normal(190, 25, (40, 60, 3)).clip(0, 255).astype(np.uint8)
    alpha = np.ones((40, 60), np.float32)
    assert np.abs(matched(thing, alpha, scene, 0.0).astype(int) - thing).max() <= 1
    half, full = (matched(thing, alpha, scene, s).mean() for s in (0.5, 1.0))
    assert abs(full - scene.mean()) < 4 and scene.mean() + 20 < half < thing.mean() - 20
    assert matched(thing, alpha, scene, 1.0).std() < thing.std()
    files = list_cutouts(objects)
    for seed in range(5):
        hard, soft = (paste(plain(), files, seed, Augment(paste_soft=s)) for s in (0.0, 2.0))
        changed = [(p.image != 90).any(-1) for p in (hard, soft)]
        assert not (changed[1] & ~changed[0]).any()  # nothing beyond the object's own edge
        assert len(np.unique(soft.image)) > len(np.unique(hard.image))


def test_augment__a_crop_is_not_chosen_for_what_was_pasted():
    label = np.full((64, 64), 254, np.uint8)
    label[:, :32] = 255
    image = np.zeros((64, 64, 3), np.uint8)
    a = Augment(short_edge=(64,), crop=(16, 16), crop_cap=1.0, photometric=0)
    calls = [augment(image, label, a, np.random.default_rng(s))[1] for s in range(3)]
    label[:] = 255
    for s, found in enumerate(calls):  # ten tries each, as in a photo that is all void
        where = np.random.default_rng(s)
        assert (augment(image, label, a, where)[1] == 255).all() and set(np.unique(found)) <= {254, 255}


def coco(folder, annotations, names=("person", "zebra")):
    categories = [{"id": i, "name": n} for i, n in enumerate(names)]
    images = [{"id": 7, "file_name": "photo.png"}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"categories": categories, "images": images, "annotations": annotations}))
    return path


def annotation(i=1, category=1, area=5000, segmentation=None, **more):
    box = [[10, 20, 69, 20, 69, 99, 10, 99]]
    return {"id": i, "image_id": 7, "category_id": category, "area": area, "iscrowd": 0,
            "segmentation": box if segmentation is None else segmentation, **more}  # fmt: skip


def test_coco__strangers_are_cut_out_by_their_outlines(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    two = [[10, 20, 69, 20, 69, 99, 10, 99], [40, 50, 99, 50, 99, 99, 40, 99]]  # they overlap
    given = [annotation(5), annotation(1, segmentation=two), annotation(2, category=0), annotation(3, area=900),
             annotation(4, iscrowd=1, segmentation={"counts": [1], "size": [2, 2]})]  # fmt: skip
    cutouts = list_cutouts(tmp_path, coco(tmp_path, given))
    assert len(cutouts) == 2  # a person, a small one and a crowd are left out
    union, box = (c.read() for c in cutouts)
    assert box.shape == (80, 60, 4) and (box[..., 3] == 255).all()
    assert np.array_equal(box[..., :3], photo[20:100, 10:70])
    assert union.shape == (80, 90, 4) and union[40, 40, 3] == 255 and union[5, 80, 3] == 0
    found = paste(plain(), cutouts, 0)
    assert found.label is not None and (found.label == 254).any()
    assert "person" in KNOWN and "zebra" not in KNOWN


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([annotation(category=0)], "no instance of a class that Cityscapes lacks"),
        ([annotation(segmentation={"counts": [], "size": [1, 1]})], "instance 1 is run-length coded; give polygons"),
        ([annotation(segmentation=[[1, 2, 3]])], "instance 1 has an outline of fewer than three points"),
        ([annotation(segmentation=[["a"] * 6])], "no COCO instances file: ValueError"),
        ([{"id": 3}], "no COCO instances file: KeyError"),
    ],
)
def test_coco__damaged_files_are_named(tmp_path, given, message):
    with pytest.raises(XenomaskError, match=message):
        list_cutouts(tmp_path, coco(tmp_path, given))
    with pytest.raises(XenomaskError, match="lacks 1 of the photos that .* names, photo.png first"):
        list_cutouts(tmp_path, coco(tmp_path, [annotation()]))
    (tmp_path / "photo.png").write_text("x")
    (cutout,) = list_cutouts(tmp_path, coco(tmp_path, [annotation()]))
    with pytest.raises(XenomaskError, match="photo.png is not an image"):
        cutout.read()
    with pytest.raises(XenomaskError, match="no such file"):
        list_cutouts(tmp_path, tmp_path / "nowhere.json")
    endless = (
        '{"categories": [], "images": [{"id": 1, "file_name": "a", "height": Infinity, "width": 3}], "annotations": []}'
    )
    (tmp_path / "i.json").write_text(endless)
    with pytest.raises(XenomaskError, match="no COCO instances file: OverflowError"):
        list_cutouts(tmp_path, tmp_path / "i.json")


def test_written_outputs__keep_the_outlier_class(tmp_path):
    from xenomask.predict.cache import read_output, write_output

    for output in (make_output(), replace(make_output(), outlier_class=True)):
        write_output(tmp_path / "o.safetensors", output)
        assert with_queries(read_output(tmp_path / "o.safetensors")).outlier_class == output.outlier_class
