import numpy as np
import pytest
from PIL import Image

from xenomask.datasets import open_dataset, read_label, read_photo
from xenomask.datasets.synthetic import LAYOUT_NAMES, draw_scene, write_scenes
from xenomask.errors import XenomaskError

SMALL = (72, 128)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_open_dataset__reads_what_synthetic_writes(tmp_path, layout):
    write_scenes(tmp_path, layout, 2, size=SMALL)
    training = layout == "train-ids"
    data = open_dataset("folder" if training else layout, tmp_path, coding="train_ids" if training else None)
    assert len(data.labelled().frames) == 2
    sample = data.sample(data.frames[0])
    assert sample.image.shape == (*SMALL, 3)
    assert sample.label is not None and sample.label.shape == SMALL
    anomalies = (sample.label == 1).any() and data.coding == "anomaly"
    assert anomalies == (layout not in ("cityscapes", "train-ids"))


def test_write_scenes__again_is_the_same_and_nothing_else_is_replaced(tmp_path):
    root = write_scenes(tmp_path, "anomaly-track", 2, size=SMALL)
    held = {p: p.read_bytes() for p in root.rglob("*.*") if p.is_file()}
    write_scenes(tmp_path, "anomaly-track", 2, size=SMALL)
    with pytest.raises(XenomaskError, match="validation0000.jpg is there and is not the scene to be drawn"):
        write_scenes(tmp_path, "anomaly-track", 2, size=SMALL, seed=1)
    assert {p: p.read_bytes() for p in root.rglob("*.*") if p.is_file()} == held and len(held) == 4


def test_draw_scene__is_a_function_of_its_seed():
    one, two, other = draw_scene(3, SMALL), draw_scene(3, SMALL), draw_scene(4, SMALL)
    assert np.array_equal(one.image, two.image)
    assert not np.array_equal(one.image, other.image)
    assert ((one.semantic == 255) >= (one.anomaly == 1)).all()


def test_open_dataset__finds_the_official_folder_below_the_root_and_renamed_copies(tmp_path):
    grey, label = np.zeros((4, 5), np.uint8), np.array([[0, 1, 255, 0, 0]] * 4, np.uint8)
    save(tmp_path / "a/dataset_AnomalyTrack/images/validation0000.jpg", grey)
    save(tmp_path / "a/dataset_AnomalyTrack/labels_masks/validation0000_labels_semantic.png", label)
    save(tmp_path / "a/dataset_AnomalyTrack/labels_masks/validation0000_labels_semantic_color.png", grey)
    save(tmp_path / "b/RoadObsticle21/images/0.webp", grey)
    save(tmp_path / "b/RoadObsticle21/labels_masks/0.png", label)
    official = open_dataset("anomaly-track", tmp_path / "a")
    renamed = open_dataset("obstacle-track", tmp_path / "b")
    assert [f.id for f in official.frames] == ["validation0000"]
    assert np.array_equal(official.label(official.frames[0]), label)
    assert [f.id for f in renamed.labelled().frames] == ["0"]


def test_open_dataset__needs_no_photos_to_evaluate(tmp_path):
    save(tmp_path / "labels_masks/x.png", np.zeros((4, 5), np.uint8))
    data = open_dataset("folder", tmp_path)
    assert [(f.id, f.image) for f in data.frames] == [("x", None)]
    with pytest.raises(XenomaskError, match="frame x .* has no photo"):
        data.sample(data.frames[0])


def test_open_dataset__says_what_is_missing_and_what_is_there(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(XenomaskError, match="neither images/ nor labels_masks/ in .*; found pictures"):
        open_dataset("folder", tmp_path)
    with pytest.raises(XenomaskError, match="no such folder"):
        open_dataset("folder", tmp_path / "nowhere")
    with pytest.raises(XenomaskError, match="did you mean 'anomaly-track'"):
        open_dataset("anomaly_track", tmp_path)
    with pytest.raises(XenomaskError, match="leftImg8bit"):
        open_dataset("cityscapes", tmp_path)


def test_open_dataset__orphan_label_and_doubled_frame(tmp_path):
    grey = np.zeros((4, 5), np.uint8)
    save(tmp_path / "images/a.png", grey)
    save(tmp_path / "labels_masks/b.png", grey)
    with pytest.raises(XenomaskError, match="1 labels .* have no photo, the first is b"):
        open_dataset("folder", tmp_path)
    save(tmp_path / "images/b.png", grey)
    save(tmp_path / "images/b.jpg", grey)
    with pytest.raises(XenomaskError, match="two files for frame b"):
        open_dataset("folder", tmp_path)


def test_open_dataset__a_photo_whose_name_ends_like_a_picture_of_colours_keeps_its_label(tmp_path):
    for name in ("red_color", "b"):
        save(tmp_path / f"images/{name}.png", np.zeros((4, 5), np.uint8))
        save(tmp_path / f"labels_masks/{name}.png", np.eye(4, 5, dtype=np.uint8))
    save(tmp_path / "labels_masks/b_color.png", np.zeros((4, 5, 3), np.uint8))  # as the official sets have them
    assert [(f.id, f.label and f.label.name) for f in open_dataset("folder", tmp_path).frames] == [
        ("b", "b.png"), ("red_color", "red_color.png"),
    ]  # fmt: skip


def test_open_dataset__masks_of_anomalies_are_no_class_numbers(tmp_path):
    save(tmp_path / "images/a.png", np.zeros((2, 2), np.uint8))
    save(tmp_path / "labels_masks/a.png", np.array([[0, 1], [0, 255]], np.uint8))
    with pytest.raises(XenomaskError, match="no labelled frame; .* into labels/, not labels_masks/"):
        open_dataset("folder", tmp_path, coding="train_ids").labelled()
    save(tmp_path / "labels/a_labelIds.png", np.array([[7, 26], [0, 33]], np.uint8))
    for coding, want in (("train_ids", [[0, 13], [255, 18]]), ("anomaly", [[0, 1], [0, 255]])):
        data = open_dataset("folder", tmp_path, coding=coding)
        assert data.label(data.frames[0]).tolist() == want


def test_sample__sizes_must_agree(tmp_path):
    save(tmp_path / "images/a.png", np.zeros((4, 5), np.uint8))
    save(tmp_path / "labels_masks/a.png", np.zeros((4, 6), np.uint8))
    data = open_dataset("folder", tmp_path)
    with pytest.raises(XenomaskError, match="is 5x4, its label .* 6x4"):
        data.sample(data.frames[0])


def test_sample__squeezed_copies_are_widened_on_loading(tmp_path):
    save(tmp_path / "images/a.png", np.zeros((8, 8), np.uint8))
    save(tmp_path / "labels/a.png", np.tile(np.array([0, 0, 0, 0, 1, 1, 1, 255], np.uint8), (8, 1)))
    data = open_dataset("folder", tmp_path, resize=(8, 16))
    sample = data.sample(data.frames[0])
    assert sample.image.shape == (8, 16, 3)
    assert sample.label is not None and np.bincount(sample.label[0]).tolist()[:2] == [8, 6]


def test_read_label__values_outside_the_coding(tmp_path):
    path = save(tmp_path / "l.png", np.array([[0, 2, 7]], np.uint8))
    with pytest.raises(XenomaskError, match=r"holds the values \[2, 7\], which anomaly has not .*; .* like train_ids"):
        read_label(path, "anomaly")
    assert read_label(path, "train_ids").tolist() == [[0, 2, 7]]
    with pytest.raises(XenomaskError, match="colour mode RGB; anomaly needs one channel"):
        read_label(save(tmp_path / "rgb.png", np.zeros((2, 2, 3), np.uint8)), "anomaly")


def test_label_ids__become_train_ids(tmp_path):
    name = "c_000000_000019"
    save(tmp_path / f"leftImg8bit/val/c/{name}_leftImg8bit.png", np.zeros((1, 4, 3), np.uint8))
    save(tmp_path / f"gtFine/val/c/{name}_gtFine_labelIds.png", np.array([[7, 26, 0, 33]], np.uint8))
    data = open_dataset("cityscapes", tmp_path)
    assert data.label(data.frames[0]).tolist() == [[0, 13, 255, 18]]


def test_label_ids__of_frames_without_train_ids_are_not_passed_over(tmp_path):
    """createTrainIdLabelImgs that was stopped half-way: half of the frames would train nothing."""
    for name in ("c_000000_000019", "c_000001_000019"):
        save(tmp_path / f"leftImg8bit/train/c/{name}_leftImg8bit.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / f"gtFine/train/c/{name}_gtFine_labelIds.png", np.array([[7, 26, 0, 33]], np.uint8))
    half = save(tmp_path / "gtFine/train/c/c_000000_000019_gtFine_labelTrainIds.png", np.zeros((1, 4), np.uint8))
    with pytest.raises(XenomaskError, match="1 frames have no label .*TrainIds.*, the first is .*c_000001.*labelIds"):
        open_dataset("cityscapes", tmp_path, split="train")
    half.unlink()
    assert len(open_dataset("cityscapes", tmp_path, split="train").labelled().frames) == 2


@pytest.mark.parametrize("kind", ["grey", "rgba", "grey16", "palette", "rgb16", "cmyk", "1x1"])
def test_read_photo__kinds_that_work(tmp_path, kind):
    ramp = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    path = tmp_path / "p.png"
    if kind == "grey16":
        Image.fromarray(ramp.astype(np.uint16) * 257).save(path)
    elif kind == "rgb16":
        import cv2

        cv2.imwrite(str(path), np.repeat(ramp[..., None].astype(np.uint16) * 257, 3, 2))
    elif kind == "rgba":
        Image.fromarray(np.dstack([ramp] * 3 + [np.full_like(ramp, 9)])).save(path)
    elif kind == "palette":
        Image.fromarray(ramp).convert("P").save(path)
    elif kind == "cmyk":
        path = tmp_path / "p.jpg"
        Image.fromarray(np.dstack([ramp] * 3)).convert("CMYK").save(path)
    elif kind == "1x1":
        ramp = ramp[:1, :1]
        Image.fromarray(ramp).save(path)
    else:
        Image.fromarray(ramp).save(path)
    photo = read_photo(path)
    assert photo.shape == (*ramp.shape, 3) and photo.dtype == np.uint8
    if kind != "cmyk":
        assert np.array_equal(photo, np.repeat(ramp[..., None], 3, 2))


def test_read_photo__content_counts_not_the_name(tmp_path):
    path = tmp_path / "really_a_jpeg.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, format="JPEG")
    assert read_photo(path).shape == (8, 8, 3)


def test_read_photo__exif_orientation(tmp_path):
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_photo(tmp_path / "turned.jpg").shape == (6, 4, 3)


def test_read_photo__what_is_no_whole_image(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(XenomaskError, match="is not an image"):
        read_photo(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(XenomaskError, match="is empty"):
        read_photo(tmp_path / "empty.jpg")
    with pytest.raises(XenomaskError, match="no such photo"):
        read_photo(tmp_path / "nowhere.jpg")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("cut.jpg", "cut.png", "cut.webp"):
        whole = save(tmp_path / name, noise).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(XenomaskError, match="damaged"):
            read_photo(tmp_path / name)


def test_real_sets__are_found_with_their_counts_and_shares(real_data):
    at = open_dataset("anomaly-track", real_data / "smiyc").labelled()
    ot = open_dataset("obstacle-track", real_data / "smiyc").labelled()
    fs = open_dataset("fishyscapes-static", real_data / "Validation_Dataset").labelled()
    assert [len(d.frames) for d in (at, ot, fs)] == [10, 30, 30]
    labels = [at.label(f) for f in at.frames]
    share = sum((x == 1).sum() for x in labels) / sum((x != 255).sum() for x in labels)
    assert share == pytest.approx(0.148, abs=5e-4)
