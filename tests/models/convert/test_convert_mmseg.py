"""Conversion of MMSegmentation's Mask2Former against the real thing's answers."""

import json
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig, SwinConfig
from typer.testing import CliRunner

from helpers.places import MICRO, SHARED, TESTS
from helpers.refusals import WRONG, one_wrong, refused
from xenomask.cli.convert import app
from xenomask.errors import XenomaskError
from xenomask.masks import with_queries
from xenomask.models import Network, load
from xenomask.models.convert import common
from xenomask.models.convert.architecture import backbone_name, read_architecture
from xenomask.models.convert.checkpoint import Inert, find_checkpoint, read_torch
from xenomask.models.convert.common import Weights, build, recognised, reordered
from xenomask.models.convert.entries import Entries
from xenomask.models.convert.mmseg import convert_mmseg
from xenomask.models.convert.mmseg_photos import CITYSCAPES, read_preprocess
from xenomask.models.convert.names import MMSEG, OPTIONAL, fits, renamed, theirs
from xenomask.models.convert.trainlog import read_miou
from xenomask.models.preprocess import Preprocess, network_input

GOLDEN = TESTS / "golden" / "mmseg"
TOLERANCE = 2e-3  # of logits up to 25: float32 noise may flip a bit of the decoder's attention mask
SIZES = ["128x256", "101x183"]


def golden(stem: str, size: str, folder: Path = GOLDEN) -> Any:
    return np.load(folder / f"{stem}_{size}.npz")


def difference(network: Network, answers: Any) -> float:
    """Largest difference of any logit, for the image normalised and not padded."""
    image = np.ascontiguousarray(answers["image_bgr"][..., ::-1])
    x, _ = network_input(replace(network.preprocess, policy="none", divisor=1), image)
    found = network(x)
    return max(
        float(np.abs(f[0].numpy() - answers[k]).max())
        for f, k in zip(found, ("class_logits", "mask_logits"), strict=True)
    )


def saved(folder: Path, tensors: dict[str, Tensor], **more: Any) -> Path:
    path = folder / "changed.pth"
    torch.save({"meta": {}, "state_dict": OrderedDict(tensors), **more}, path)
    return path


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return dict(read_torch(MICRO)["state_dict"])


@pytest.mark.parametrize("size", SIZES)
def test_convert__equals_the_real_one(size):
    assert difference(convert_mmseg(MICRO).network, golden("random_micro", size)) < TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_convert__a_real_runs_folder(size):
    folder = SHARED / "golden" / "mmseg"
    if not folder.is_dir():
        pytest.skip("needs the real run's folder in ../shared/golden, which is not part of the project")
    run = next((folder / "work_dirs").iterdir())
    network = convert_mmseg(run).network
    answers = golden("trained_run", size, folder)
    assert difference(network, answers) < TOLERANCE / 100
    facts = network.facts["converted"]
    assert (facts["file"], facts["iterations"], facts["miou"]) == ("iter_6.pth", 6, 0.30)
    # the whole way of a photo, with the padding
    output = with_queries(network.predict(np.ascontiguousarray(answers["image_bgr"][..., ::-1]), "native"))
    masks = torch.nn.functional.interpolate(output.mask_logits[None], output.padded_size, mode="bilinear")[0]
    scores = torch.einsum("qc,qhw->chw", output.class_logits.softmax(-1)[:, :-1], masks.sigmoid())
    h, w = output.image_size
    assert np.abs(scores[:, :h, :w].numpy() - answers["semantic_scores"]).max() < 1e-5


def test_convert__every_tensor_is_used_or_named(tensors):
    converted = convert_mmseg(MICRO)
    assert set(converted.dropped) == {k for k in tensors if k.endswith("relative_position_index")}
    weights = recognised(tensors, MMSEG)
    own = converted.network.module.state_dict()
    assert own.keys() - weights.found.keys() == {k for k in own if fits(k, OPTIONAL)}
    assert len(own.keys() - weights.found.keys()) == 3
    assert all(theirs(k, MMSEG.table) == source for k, source in weights.found.items())
    used = {source for source, _ in weights.found.values()}
    assert used | set(converted.dropped) == set(tensors)
    numbers = [sum(tensors[k].numel() for k in used), sum(own[k].numel() for k in weights.found)]
    assert numbers[0] == numbers[1]


def test_convert__checkpoint_folder_reads_back_equal(tmp_path):
    network = convert_mmseg(MICRO, GOLDEN / "config.py").network
    again = load(network.save(tmp_path / "micro"))
    a, b = network.module.state_dict(), again.module.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert (again.preprocess, again.facts) == (network.preprocess, json.loads(json.dumps(network.facts)))
    assert difference(again, golden("random_micro", "101x183")) < TOLERANCE


def old_name(name: str) -> str:
    return next((old for o, n in MMSEG.earlier if (old := renamed(name, n, o))), name)


def test_convert__layout_before_mmdets_refactor(tmp_path, tensors):
    old = {"module." + old_name(k): v for k, v in tensors.items()}
    assert sum("attentions.0" in k for k in old) == 2 * 8 + 3 * 4 and not any(".cross_attn" in k for k in old)
    a, b = (convert_mmseg(p).network for p in (MICRO, saved(tmp_path, old)))
    assert (a.facts["converted"]["layout"], b.facts["converted"]["layout"][:6]) == ("current", "before")
    mine, theirs = a.module.state_dict(), b.module.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)


def without_order(tensor: Tensor) -> Tensor:
    return tensor


def swapped_pixels(tensor: Tensor) -> Tensor:
    return tensor.reshape(*tensor.shape[:-1], -1, 4).transpose(-1, -2).reshape(tensor.shape)


def swap(name: str, a: str, b: str) -> str:
    return name.replace(a, "%").replace(b, a).replace("%", b)


# each undoes or spoils one step of the conversion: tensors under transformers' names in, the same out
ENCODER, DECODER = "level_module.decoder.encoder.layers.0.", "transformer_module.decoder.layers.1."
MUTATIONS: dict[str, tuple[str, str]] = {
    "qkv order": ("attention.q_proj", "attention.k_proj"),
    "decoder's qkv order": ("self_attn.q_proj", "self_attn.v_proj"),
    "norms of a Swin block": ("layernorm_before", "layernorm_after"),
    "norms of an encoder layer": (ENCODER + "self_attn_layer_norm", ENCODER + "final_layer_norm"),
    "first norms of a decoder layer": (DECODER + "cross_attn_layer_norm", DECODER + "self_attn_layer_norm"),
    "last norms of a decoder layer": (DECODER + "self_attn_layer_norm", DECODER + "final_layer_norm"),
    "layers of the decoder": ("transformer_module.decoder.layers.0.", "transformer_module.decoder.layers.1."),
    "layers of the encoder": ("level_module.decoder.encoder.layers.0.", "level_module.decoder.encoder.layers.1."),
    "blocks of the Swin": ("layers.2.blocks.0.", "layers.2.blocks.1."),
    "queries and positions": ("queries_embedder", "queries_features"),
    "mask head": ("mask_embedder.0.", "mask_embedder.1."),
}  # fmt: skip
ORDERS = {
    "pixel decoder's level embedding": "model.pixel_level_module.decoder.level_embed",
    "decoder's level embedding": "model.transformer_module.level_embed.weight",
    "cross attention's q, k, v": "model.transformer_module.decoder.layers.0.cross_attn.in_proj_weight",
    "classes": "class_predictor.weight",
}


def spoiled(tensors: dict[str, Tensor], change: Callable[[Weights], Weights]) -> Network:
    weights = recognised(tensors, MMSEG)
    config = read_architecture(weights)
    return Network(build(config, change(weights)), config, Preprocess("none"))


def test_mutations__none(tensors):
    assert difference(spoiled(tensors, lambda w: w), golden("random_micro", "101x183")) < TOLERANCE


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations__two_tensors_for_each_other(tensors, name):
    a, b = MUTATIONS[name]
    network = spoiled(tensors, lambda w: replace(w, found={swap(k, a, b): v for k, v in w.found.items()}))
    assert difference(network, golden("random_micro", "101x183")) > 100 * TOLERANCE


@pytest.mark.parametrize("name", ORDERS)
def test_mutations__order_of_rows(tensors, name):
    source, _ = theirs(ORDERS[name], MMSEG.table)
    network = spoiled({**tensors, source: tensors[source].flip(0)}, lambda w: w)
    assert difference(network, golden("random_micro", "101x183")) > 100 * TOLERANCE


@pytest.mark.parametrize("wrong", [without_order, swapped_pixels])
def test_mutations__patch_merging(tensors, monkeypatch, wrong):
    monkeypatch.setattr(common, "reordered", wrong)
    assert difference(spoiled(tensors, lambda w: w), golden("random_micro", "101x183")) > 100 * TOLERANCE


def test_reordered__by_hand():
    # two channels of four pixels: top left, top right, bottom left, bottom right
    given = torch.tensor([[0, 1, 2, 3, 10, 11, 12, 13]])
    assert reordered(given).tolist() == [[0, 10, 2, 12, 1, 11, 3, 13]]


VICTIMS = [
    "backbone.stages.2.blocks.1.attn.w_msa.qkv.weight",
    "backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table",
    "backbone.stages.1.downsample.norm.bias",
    "backbone.patch_embed.projection.weight",
    "decode_head.pixel_decoder.level_encoding.weight",
    "decode_head.transformer_decoder.layers.1.self_attn.attn.in_proj_bias",
    "decode_head.transformer_decoder.layers.2.norms.2.weight",
    "decode_head.query_feat.weight",
    "decode_head.cls_embed.bias",
]


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("what", WRONG[:3])
def test_refused__by_the_tensors_name(tmp_path, tensors, victim, what):
    refused(convert_mmseg, saved(tmp_path, one_wrong(tensors, victim, what)), names=victim)


def test_refused__a_tensor_too_many(tmp_path, tensors):
    more = tensors | {"backbone.absolute_pos_embed": torch.zeros(1, 4)}
    refused(convert_mmseg, saved(tmp_path, more), said=r"has unknown 1 tensors \(backbone.absolute_pos_embed\)")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("num_queries=20", "num_queries=30", "num_queries = 30, but the weights' shapes say 20"),
        ("window_size=7", "window_size=12", "window_size = 12, but the weights' shapes say 7"),
        ("type='Mask2FormerHead'", "type='MaskFormerHead'", "decode_head.type = 'MaskFormerHead' is not supported"),
        ("bgr_to_rgb=True", "bgr_to_rgb=False", "model.data_preprocessor.bgr_to_rgb = False is not supported"),
        ("keep_ratio=True", "keep_ratio=False", "test_dataloader.dataset.pipeline[1].keep_ratio = False is not"),
        ("num_points=4", "num_points=8", "num_points = 8 is not supported, only 4"),
        ("mean=[", "mean=[1., ", "is not three numbers"),
    ],
)
def test_refused__config_that_says_something_else(tmp_path, old, new, said):
    text = (GOLDEN / "config.py").read_text()
    assert old in text
    (tmp_path / "other.py").write_text(text.replace(old, new))
    refused(convert_mmseg, MICRO, tmp_path / "other.py", names=said)


def test_preprocess__from_the_config():
    config: dict[str, Any] = {
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [1, 2, 3],
            "std": (4, 5, 6),
            "bgr_to_rgb": True,
            "test_cfg": {"size_divisor": 64},
        },
        "test_pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (640, 320), "keep_ratio": True},
            {"type": "PackSegInputs"},
        ],
    }
    expected = Preprocess("fit", 320, 640, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 64)
    assert read_preprocess(Entries(config)) == (expected, True)
    config["test_pipeline"][1] = {"type": "ResizeShortestEdge", "scale": 320, "max_size": 700}
    assert read_preprocess(Entries(config)) == (replace(expected, policy="shortest", longest=700), True)
    del config["test_pipeline"][1]
    assert read_preprocess(Entries(config)) == (replace(expected, policy="none", size=0, longest=0), True)
    del config["test_pipeline"]
    assert read_preprocess(Entries(config)) == (replace(expected, size=1024, longest=2048), False)
    assert convert_mmseg(MICRO).network.preprocess == CITYSCAPES == Preprocess("fit", 1024, 2048)


@pytest.fixture
def work_dir(tmp_path) -> Path:
    """A run's folder with the message hub that MMEngine pickles into its checkpoints."""
    buffer = type("HistoryBuffer", (), {"__module__": "mmengine.logging.history_buffer"})
    modules = {n: ModuleType(n) for n in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")}
    modules["mmengine.logging.history_buffer"].HistoryBuffer = buffer  # pyright: ignore
    history = buffer()
    vars(history).update(log=np.arange(3.0), last=np.float64(2), how=getattr)
    content = dict(read_torch(MICRO))
    content["meta"] = {"iter": 6, "cfg": (GOLDEN / "config.py").read_text(), "mmengine_version": "0.10.7",
                       "dataset_meta": {"classes": [f"kind {i}" for i in range(19)]}}  # fmt: skip
    content["message_hub"] = {"log_scalars": OrderedDict(loss=history)}
    sys.modules.update(modules)
    try:
        torch.save(content, tmp_path / "iter_6.pth")
    finally:
        for name in modules:
            del sys.modules[name]
    (tmp_path / "last_checkpoint").write_text("/elsewhere/work_dirs/run/iter_6.pth")
    (tmp_path / "20261122_205741" / "vis_data").mkdir(parents=True)
    shutil.copy(GOLDEN / "scalars.json", tmp_path / "20261122_205741" / "vis_data")
    return tmp_path


def test_work_dir__everything_that_the_run_says(work_dir):
    network = convert_mmseg(work_dir).network
    facts = network.facts["converted"]
    assert [facts[k] for k in ("file", "iterations", "miou", "miou_at", "config", "tensors")] == [
        "iter_6.pth", 6, 0.3, 6, "inside the checkpoint", 253,
    ]  # fmt: skip
    assert facts["versions"] == {"mmengine_version": "0.10.7"} and len(facts["sha256"]) == 64
    labels: Any = network.config.id2label
    assert labels[18] == "kind 18"
    assert isinstance(read_torch(work_dir / "iter_6.pth")["message_hub"]["log_scalars"]["loss"], Inert)
    assert "mmengine" not in sys.modules


def test_work_dir__log_alone_says_the_same(tmp_path):
    by_scalars = {3: 0.28, 6: 0.3}
    shutil.copy(GOLDEN / "run.log", tmp_path / "run.log")
    assert read_miou(tmp_path) == by_scalars
    text = (GOLDEN / "scalars.json").read_text()
    (tmp_path / "scalars.json").write_text('{"mIoU": [], "step": 1}\n{"mIoU": 5, "st\n' + text)
    assert read_miou(tmp_path) == by_scalars
    assert read_miou(tmp_path / "nothing") == {}


def test_read_miou__of_this_run_alone_and_past_damaged_lines(tmp_path):
    line = "Iter(train) [ 6/6]\nIter(val) [2/2]    aAcc: 1.0  mIoU: {}  mAcc: 2\n"
    (tmp_path / "another-run").mkdir()
    (tmp_path / "another-run" / "run.log").write_text(line.format("77.1"))
    assert read_miou(tmp_path) == {}
    (tmp_path / "20261122_205741").mkdir()
    (tmp_path / "20261122_205741" / "20261122_205741.log").write_text(line.format("...") + line.format("0.30"))
    assert read_miou(tmp_path) == {6: 0.3}


def test_find_checkpoint__which_of_a_folder(tmp_path):
    with pytest.raises(XenomaskError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    names = ["best_mIoU_iter_900.pth", "iter_900.pth", "iter_1000.pth"]
    for name, newest in zip(names, names, strict=True):
        (tmp_path / name).touch()
        assert find_checkpoint(tmp_path).name == newest
    (tmp_path / "last_checkpoint").write_text("/gone/iter_900.pth\n")
    assert find_checkpoint(tmp_path).name == "iter_900.pth"
    (tmp_path / "last_checkpoint").write_text("/gone/iter_5.pth")
    assert find_checkpoint(tmp_path).name == "iter_1000.pth"


def inverse(config: Mask2FormerConfig) -> dict[str, Tensor]:
    """MMSegmentation's tensors of that architecture, without memory, by the table read backwards."""
    with torch.device("meta"):
        own = Mask2FormerForUniversalSegmentation(config).state_dict()
    found: dict[str, list[Tensor]] = {}
    for name, tensor in own.items():
        if not fits(name, OPTIONAL[:2]):
            found.setdefault(theirs(name, MMSEG.table)[0], []).append(tensor)
    return {k: torch.cat(v) if len(v) == 3 else v[0] for k, v in found.items()}


def read_back(tensors: dict[str, Tensor], expected: Mask2FormerConfig) -> bool:
    """Whether the shapes tell that architecture; names of classes are not in them."""
    a, b = (c.to_dict() for c in (read_architecture(recognised(tensors, MMSEG)), expected))
    return all(a[k] == b[k] for k in a if k not in ("id2label", "label2id"))


HEAD = {"num_queries": 100, "hidden_dim": 256, "feature_size": 256, "mask_feature_size": 256, "encoder_layers": 6,
        "decoder_layers": 10, "encoder_feedforward_dim": 1024, "dim_feedforward": 2048,
        "num_attention_heads": 8, "num_labels": 19}  # fmt: skip
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
RESNET = Mask2FormerConfig(backbone_config=ResNetConfig(**STAGES), **HEAD)  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "embed", "depths", "window", "count", "millions"),
    [
        ("Swin-T", 96, (2, 2, 6, 2), 7, 481 - 12, 47.4),
        ("Swin-S", 96, (2, 2, 18, 2), 7, 649 - 24, 68.7),
        ("Swin-L", 192, (2, 2, 18, 2), 12, 649 - 24, 215.5),
    ],
)
def test_architecture__of_the_published_sizes(name, embed, depths, window, count, millions):
    heads = [embed // 32 << i for i in range(4)]
    swin = SwinConfig(image_size=32 * window, embed_dim=embed, depths=list(depths), num_heads=heads,
                      window_size=window, drop_path_rate=0.3, **STAGES)  # pyright: ignore  # fmt: skip
    expected = Mask2FormerConfig(backbone_config=swin, **HEAD)  # pyright: ignore
    tensors = inverse(expected)
    assert len(tensors) == count  # those measured in mmseg, without one relative_position_index a block
    assert sum(t.numel() for t in tensors.values()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert read_back(tensors, expected) and backbone_name(expected) == name


@pytest.mark.parametrize(
    ("name", "depths"), [("ResNet-50", (3, 4, 6, 3)), ("ResNet-101", (3, 4, 23, 3)), ("ResNet-152", (3, 8, 36, 3))]
)
def test_architecture__resnets_have_torchvisions_names(name, depths):
    expected = Mask2FormerConfig(backbone_config=ResNetConfig(depths=list(depths), **STAGES), **HEAD)  # pyright: ignore
    tensors = inverse(expected)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name.replace("-", "").lower()).state_dict()
    shapes = {f"backbone.{k}": v.shape for k, v in theirs.items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in tensors.items() if k.startswith("backbone.")} == shapes
    assert read_back(tensors, expected) and backbone_name(expected) == name


@pytest.mark.slow
def test_resnet__features_equal_torchvisions():
    # MMSegmentation's ResNet (style="pytorch") has torchvision's names, strides and weights
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50().eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.02) if p.dim() > 1 else torch.nn.init.normal_(p, 1.0, 0.3)
    tensors = {k: torch.zeros_like(v, device="cpu") for k, v in inverse(RESNET).items()}
    tensors |= {f"backbone.{k}": v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    network = resnet_of(tensors)
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        mine = network.module.model.pixel_level_module.encoder(x).feature_maps  # pyright: ignore
        for stage, feature in zip((theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), mine, strict=True):
            y = stage(y)
            assert torch.allclose(feature, y, atol=1e-4 * float(y.abs().max()))


def resnet_of(tensors: dict[str, Tensor]) -> Network:
    weights = recognised(tensors, MMSEG)
    assert weights.dropped == {}
    config = read_architecture(weights)
    return Network(build(config, weights), config, Preprocess("none"))


# --- the command -----------------------------------------------------------------------------------------------------


def test_command__says_what_it_found(work_dir, tmp_path):
    out = tmp_path / "converted" / "micro"
    done = CliRunner().invoke(app, [str(work_dir), "--out", str(out)])
    assert done.exit_code == 0, done.output
    for said in (
        "mmsegmentation, Mask2Former with Swin of width 16 and depths [2, 2, 2, 2] (window 7)",
        "queries 20, classes 19, decoder layers 3",
        "iterations: 6",
        "mIoU 0.3 at iteration 6",
        "tensors: 245 used, 8 left out",
        "xenomask queries inlier --checkpoint",
    ):
        assert said in done.output
    assert difference(load(out), golden("random_micro", "101x183")) < TOLERANCE


def test_command__never_replaces_a_folder_of_other_things(work_dir):
    done = CliRunner().invoke(app, [str(work_dir), "--out", str(work_dir)])
    assert isinstance(done.exception, XenomaskError) and "no checkpoint folder" in str(done.exception)
    assert (work_dir / "iter_6.pth").is_file()
