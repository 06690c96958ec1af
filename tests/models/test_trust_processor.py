"""A folder's image processor: the network's input equals that of transformers' own processor, or it is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor

from helpers.hf_folders import write
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector, Member
from xenomask.detector.folder import assemble
from xenomask.errors import XenomaskError
from xenomask.export import export_detector, open_exported
from xenomask.export.free import Free
from xenomask.export.fused import Fused
from xenomask.export.resize import Smooth
from xenomask.masks import PixelOutput
from xenomask.models import Network, load
from xenomask.models.preprocess import Preprocess, network_input
from xenomask.models.processor import FILE, HARMLESS, WHOLE, read_preprocess
from xenomask.scores import get_score
from xenomask.types import QuerySet

IMAGES = {size: draw_scene(0, size).image for size in ((61, 93), (90, 50), (64, 64))}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.1]
EDGES = {"shortest_edge": 48, "longest_edge": 80}
AS_IT_IS: dict[str, Any] = {"do_resize": False, "image_mean": MEAN, "image_std": STD}
NUMBERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no normalising": {"do_normalize": False},
    "no rescaling": {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 55.0]},
    "neither": {"do_rescale": False, "do_normalize": False},
    "another factor": {"rescale_factor": 1 / 127.5},
    "a factor of 1": {"rescale_factor": 1},
    "another factor alone": {"rescale_factor": 0.01, "do_normalize": False},
    "one mean": {"image_mean": 0.5, "image_std": 0.5},
    "null for false": {"do_rescale": None, "do_normalize": None},
    "what changes nothing": {"do_reduce_labels": True, "ignore_index": 255, "do_center_crop": True,
                             "crop_size": {"height": 8, "width": 8}, "do_convert_rgb": True},
}  # fmt: skip
PROCESSORS = {
    "mask2former": "Mask2Former", "maskformer": "MaskFormer", "oneformer": "OneFormer", "segformer": "Segformer",
    "upernet": "Segformer",
}  # fmt: skip
SIZES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "both edges": (tuple(PROCESSORS), {"size": EDGES}),
    "larger": (tuple(PROCESSORS), {"size": {"shortest_edge": 100, "longest_edge": 400}}),
    "the longest decides": (tuple(PROCESSORS), {"size": {"shortest_edge": 80, "longest_edge": 81}}),
    "shortest edge alone": (("oneformer", "segformer", "upernet"), {"size": {"shortest_edge": 47}}),
    "no longest edge": (("oneformer", "segformer"), {"size": {"shortest_edge": 47, "longest_edge": None}}),
    "as old files have it": (("mask2former", "maskformer"), {"size": 48, "max_size": 80}),
    "multiples of 8": (("mask2former", "maskformer"), {"size": EDGES, "size_divisor": 8}),
    "multiples of none": (("mask2former", "maskformer"), {"size": EDGES, "size_divisor": 0}),
    "nearest": (tuple(PROCESSORS), {"size": EDGES, "resample": 0}),
    "a square": (tuple(PROCESSORS), {"size": {"height": 64, "width": 64}}),
    "a height and a width": (tuple(PROCESSORS), {"size": {"height": 48, "width": 80}}),
    "as a list": (tuple(PROCESSORS), {"size": [48, 80]}),
    "as one number": (("segformer", "upernet"), {"size": 48}),
    "no multiple of 32": (tuple(PROCESSORS), {"size": {"height": 41, "width": 67}}),
    "fixed, multiples of none": (
        ("mask2former", "maskformer"),
        {"size": {"height": 41, "width": 67}, "size_divisor": 0},
    ),
    "fixed, bicubic": (tuple(PROCESSORS), {"size": {"height": 41, "width": 67}, "resample": 3}),
    "fixed, nearest": (tuple(PROCESSORS), {"size": {"height": 41, "width": 67}, "resample": 0}),
    "bicubic": (tuple(PROCESSORS), {"size": EDGES, "resample": 3}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hf")
    for kind in (*PROCESSORS, "eomt"):
        write(kind, root / kind)
    return root


def settled(folders: Path, kind: str, tmp_path: Path, stored: dict[str, Any], name: str | None = None) -> Path:
    folder = Path(shutil.copytree(folders / kind, tmp_path / kind))
    named = {} if name == "" else {"image_processor_type": f"{name or PROCESSORS[kind]}ImageProcessor"}
    (folder / FILE).write_text(json.dumps({**named, **stored}))
    return folder


def theirs(folder: Path, image: np.ndarray) -> torch.Tensor:
    """transformers' own network input: (1, 3, h, w), or for an EoMT one row a window."""
    return AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"].float()


def compare(folder: Path, network: Network, atol: float = 1e-5) -> None:
    for image in IMAGES.values():
        ours, expected = network.prepare(image).x, theirs(folder, image)
        assert ours.shape == expected.shape
        assert torch.allclose(ours, expected, rtol=1e-5, atol=atol), (ours - expected).abs().max()


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers__are_rescaled_and_normalised_as_transformers_does(name, kind, folders, tmp_path):
    folder = settled(folders, kind, tmp_path, AS_IT_IS | NUMBERS[name])
    network = load(folder)
    compare(folder, network)
    assert "preprocess_note" not in network.facts


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, (kinds, _) in SIZES.items() for k in kinds])
def test_sizes__are_those_of_transformers(name, kind, folders, tmp_path):
    folder = settled(folders, kind, tmp_path, SIZES[name][1])
    network = load(folder)
    compare(folder, network)
    assert "preprocess_note" not in network.facts


@pytest.mark.parametrize("kind", ["mask2former", "segformer"])
def test_sizes__that_the_file_does_not_have(kind, folders, tmp_path):
    """transformers' default; a Segformer's is a square."""
    p, note = read_preprocess(settled(folders, kind, tmp_path, {}), kind)
    expected = ("truncated", 800, 1333, 32) if kind == "mask2former" else ("fixed", 512, 512, 1)
    assert ((p.policy, p.size, p.longest, p.divisor), note) == (expected, None)


@pytest.mark.parametrize("kind", ["mask2former", "segformer"])
def test_fixed_sizes__the_map_is_drawn_back_over_the_photo(kind, folders, tmp_path):
    """A photo's map is the one of its squeezed copy, widened: against transformers' masks at the photo's size."""
    network = load(settled(folders, kind, tmp_path, {"size": {"height": 64, "width": 64}}))
    image = IMAGES[61, 93]
    with torch.inference_mode():
        out: Any = network.module(pixel_values=theirs(tmp_path / kind, image))
    logits = out.logits if kind == "segformer" else out.masks_queries_logits
    whole = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)  # as post_process_... of transformers
    whole = F.interpolate(whole, (61, 93), mode="bilinear", align_corners=False)[0]
    found = network.predict(image)
    assert (found.padded_size, found.input_size, found.image_size) == ((64, 64), (64, 64), (61, 93))
    mine = found.class_map_logits if isinstance(found, PixelOutput) else found.mask_logits
    assert torch.allclose(mine, logits[0], atol=1e-4)
    once = F.interpolate(mine[None], (61, 93), mode="bilinear", align_corners=False)[0]
    assert (once - whole).abs().mean() < 0.02 * whole.std()  # the photo's size in one step, not in two


def test_fixed_sizes__a_look_at_another_edge_keeps_their_shape(folders, tmp_path):
    folder = settled(folders, "mask2former", tmp_path, {"size": {"height": 64, "width": 96}})
    one = Detector.from_folder(assemble(tmp_path / "d", "d", [("a", folder)], [1.0], "entropy"))
    looks = one.with_tta((32, 64), mirror=True)
    sizes = [m.network.predict(IMAGES[90, 50]).padded_size for m in looks.members]
    assert sizes == [(32, 64), (32, 64), (64, 96), (64, 96)]  # 32x48, to multiples of 32
    own = looks.members[2].network.prepare(IMAGES[64, 64]).x
    assert torch.allclose(own, theirs(folder, IMAGES[64, 64]), atol=1e-5)
    assert looks.detect(IMAGES[90, 50]).value.shape == (90, 50)


@pytest.mark.parametrize("named", ["Mask2FormerImageProcessorFast", "MaskFormerFeatureExtractor"])
def test_processors__of_older_names_and_by_the_network(named, folders, tmp_path):
    folder = settled(folders, "mask2former", tmp_path, {"size": EDGES}, "")
    compare(folder, load(folder))
    key = "feature_extractor_type" if named.endswith("Extractor") else "image_processor_type"
    (folder / FILE).write_text(json.dumps({key: named, "size": EDGES}))
    compare(folder, load(folder))


def test_processor_config__alone_and_before_the_other_file(folders, tmp_path):
    folder = settled(folders, "oneformer", tmp_path, {"image_mean": [0.1] * 3, "image_std": [1.0] * 3})
    inner = {"image_processor_type": "OneFormerImageProcessor", "size": EDGES, "image_mean": MEAN, "image_std": STD}
    whole = {"image_processor": inner, "processor_class": "OneFormerProcessor", "task_seq_length": 9}
    (folder / WHOLE).write_text(json.dumps(whole))
    compare(folder, load(folder))
    (folder / FILE).unlink()
    compare(folder, load(folder))
    assert load(folder).preprocess.mean == pytest.approx((127.5, 102, 76.5))
    # without that key it is not about photos
    (folder / WHOLE).write_text(json.dumps({"processor_class": "OneFormerProcessor"}))
    (folder / FILE).write_text(json.dumps(inner))
    compare(folder, load(folder))
    (folder / WHOLE).write_text(json.dumps({"image_processor": 5}))
    with pytest.raises(XenomaskError, match="processor_config.json is damaged"):
        load(folder)


def test_eomt__padded_to_a_square_or_cut_into_windows(folders, tmp_path):
    square = {"size": {"shortest_edge": 32, "longest_edge": 32}, "do_pad": True, "do_split_image": False}
    folder = settled(folders, "eomt", tmp_path, square, "Eomt")
    compare(folder, load(folder))
    assert load(folder).predict(IMAGES[61, 93]).padded_size == (32, 32)
    windows = {"size": {"shortest_edge": 32, "longest_edge": None}, "do_split_image": True}
    (folder / FILE).write_text(json.dumps(windows))
    network = load(folder)
    for image in IMAGES.values():
        ours, pieces = network.prepare(image), theirs(folder, image)
        h, w = ours.input_size
        # the windows lie elsewhere (hf.WithWindows says why); the first and the last begin and end with the photo
        assert torch.allclose(ours.x[0, :, :32, :32], pieces[0], atol=1e-5)
        assert torch.allclose(ours.x[0, :, h - 32 : h, w - 32 : w], pieces[-1], atol=1e-5)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an entry that nobody knows": ({"do_sharpen": True}, "does not know its entry 'do_sharpen'"),
    "another processor": ({"image_processor_type": "ConvNextImageProcessor"}, "unknown image processor 'ConvNext'"),
    "code": ({"auto_map": {"AutoImageProcessor": "a/b--code.P"}}, "never run"),
    "a fixed padding": ({"pad_size": {"height": 64, "width": 64}}, "pad_size"),
    "largest height and width": ({"size": {"max_height": 64, "max_width": 64}}, "size .* is not supported"),
    "shortest edge alone": ({"size": {"shortest_edge": 64}}, "size .* is not supported"),
    "a word for a size": ({"size": "large"}, "size .* is not supported"),
    "no size": ({"size": {"shortest_edge": 0, "longest_edge": 9}}, "no number of pixels"),
    "three sides": ({"size": [1, 2, 3]}, "no height and width"),
    "no width": ({"size": {"height": 64, "width": 0}}, "no number of pixels"),
    "half a pixel": ({"size": {"height": 64.5, "width": 64}}, "no number of pixels"),
    "lanczos": ({"size": EDGES, "resample": 1}, "resample = 1 is not supported"),
    "a word for true": ({"do_normalize": "no"}, "neither true nor false"),
    "a factor of 0": ({"rescale_factor": 0}, "not above 0"),
    "a factor that is a word": ({"rescale_factor": "1/255"}, "no finite number"),
    "null for a mean": ({"image_mean": None}, "no finite number"),
    "two means": ({"image_mean": [0.5, 0.5]}, "2 means"),
    "words for means": ({"image_mean": ["a", "b", "c"]}, "no finite number"),
    "a deviation of 0": ({"image_std": [0.0, 1.0, 1.0]}, "std = .* is out of range"),
    "multiples of less than none": ({"size": EDGES, "size_divisor": -32}, "no number of pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused__in_one_line(name, folders, tmp_path):
    stored, message = REFUSED[name]
    folder = settled(folders, "mask2former", tmp_path, stored)
    with pytest.raises(XenomaskError, match=message) as e:
        load(folder)
    assert str(folder) in str(e.value) and "\n" not in str(e.value)


def test_every_entry_that_transformers_writes__is_known(folders, tmp_path):
    for kind, name in {**PROCESSORS, "eomt": "Eomt"}.items():
        folder = settled(folders, kind, tmp_path, {"size": EDGES}, name)
        AutoImageProcessor.from_pretrained(folder).save_pretrained(folder)
        read_preprocess(folder, kind) if kind != "eomt" else None
        assert len(json.loads((folder / FILE).read_text())) > 5
    assert all(HARMLESS.values())


@pytest.mark.parametrize("kind", ["segformer", "upernet", "upernet_swin"])
@pytest.mark.parametrize("size", [(61, 93), (90, 50), (45, 64)])
def test_per_pixel_networks__see_the_photo_without_padding(kind, size, tmp_path):
    module = write(kind, tmp_path)
    with torch.no_grad():
        for v in module.parameters():
            v += 0.2 * torch.randn(v.shape, generator=torch.Generator().manual_seed(len(v.shape)))
    module.save_pretrained(tmp_path)  # pyright: ignore
    (tmp_path / FILE).write_text(json.dumps({"image_processor_type": "SegformerImageProcessor", "do_resize": False}))
    image = draw_scene(1, size).image
    with torch.inference_mode():
        logits = module(pixel_values=theirs(tmp_path, image)).logits
    whole = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0]
    assert len(whole.argmax(0).unique()) > 1
    network = load(tmp_path)
    for policy in ("stored", "native"):
        found = network.predict(image, size_policy=policy)
        assert isinstance(found, PixelOutput) and found.padded_size == size
        assert torch.allclose(found.class_map_logits, logits[0], atol=1e-4)
        at_size = F.interpolate(found.class_map_logits[None], size, mode="bilinear", align_corners=False)[0]
        assert (at_size.argmax(0) == whole.argmax(0)).all()


EXPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "edges": ("mask2former", {"size": {"shortest_edge": 64, "longest_edge": 96}}),
    "a square": ("mask2former", {"size": {"height": 64, "width": 64}}),
    "bicubic, no multiple": ("oneformer", {"size": {"height": 45, "width": 70}, "resample": 3}),
    "nearest": ("maskformer", {"size": {"shortest_edge": 33, "longest_edge": 96}, "resample": 0}),
    "padded with black": ("eomt", {"size": {"shortest_edge": 32, "longest_edge": 32}, "do_pad": True,
                                   "do_split_image": False, "image_processor_type": "EomtImageProcessor"}),
}  # fmt: skip


def alone(folder: Path) -> Detector:
    """A detector of the folder's network, its weights stirred so that maps are no constants."""
    network = load(folder)
    with torch.no_grad():
        for v in network.module.parameters():
            v += 0.2 * torch.randn(v.shape, generator=torch.Generator().manual_seed(len(v.shape)))
    return Detector("d", (Member("a", network, QuerySet(), get_score("entropy"), 1.0),))


@pytest.mark.parametrize("name", EXPORTED)
def test_export__resizes_as_transformers_does(name, folders, tmp_path):
    kind, stored = EXPORTED[name]
    one = alone(settled(folders, kind, tmp_path, stored, "" if kind == "eomt" else None))
    expected, photo = one.detect(IMAGES[61, 93]).value, torch.from_numpy(IMAGES[61, 93])[None]
    with torch.inference_mode():
        found = Fused(one, (61, 93))(photo)[0].numpy()
        free = Free(one, (61, 93))(photo)[0].numpy()
        other = Free(one, (61, 93))(torch.from_numpy(IMAGES[90, 50])[None])[0].numpy()
    assert expected.std() > 5e-4 and np.abs(found - expected).max() < 1e-5
    # values that lie on a half are rounded in another order
    assert np.abs(free - expected).mean() < 0.1 * expected.std()
    assert other.shape == (90, 50) and other.std() > 5e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "format"), [("edges", "onnx"), ("a square", "openvino"), ("nearest", "openvino")])
def test_export__of_such_resizing_gives_the_detectors_map(name, format, folders, tmp_path):
    pytest.importorskip("onnxscript" if format == "onnx" else "openvino")
    one = alone(settled(folders, EXPORTED[name][0], tmp_path, EXPORTED[name][1]))
    path = tmp_path / ("a.onnx" if format == "onnx" else "a.xml")
    export_detector(one, path, format, size=(61, 93))
    found, expected = (d.detect(IMAGES[61, 93]).value for d in (open_exported(path), one))
    assert expected.std() > 1e-3 and np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("how", ["bilinear", "bicubic", "nearest"])
def test_smooth__is_torchvisions_resizing_in_every_pixel(how):
    sizes = [((61, 93), (64, 96)), ((61, 93), (48, 73)), ((90, 50), (90, 64)), ((64, 64), (37, 64)),
             ((45, 61), (99, 201)), ((300, 500), (20, 11)), ((64, 64), (1, 3))]  # fmt: skip
    for size, target in sizes:
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        for x in (image, (image > 127).astype(np.uint8) * 255):
            found = Smooth(size, target, how)(torch.from_numpy(x).float()).numpy()
            expected = network_input(
                Preprocess("fixed", *target, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1, resample=how), x
            )[0]
            assert np.array_equal(found, expected[0].permute(1, 2, 0).numpy())
