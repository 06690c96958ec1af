"""detectron2's Mask2Former (facebookresearch/Mask2Former, and RbA and Open-set-M2F, which build on it) -> Network.

The architecture is read from the shapes alone. Then every tensor that the network needs is looked up under the name
that the original gives it; what is left over must be on the short list of the knowingly dropped.

Not to be seen in the weights, and so taken from the published configurations: pre_norm off, stride in a ResNet's 3x3
convolution, as many attention heads in the decoder as in the pixel decoder.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, ResNetConfig, SwinConfig

from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.models import network
from xenomask.models.convert.arrays import read_arrays
from xenomask.models.convert.checkpoint import is_torch_file, read_torch
from xenomask.models.convert.common import Converted
from xenomask.models.network import Network
from xenomask.models.preprocess import Preprocess
from xenomask.models.presets import STAGES, without_warnings
from xenomask.types import CITYSCAPES_CLASSES

E, D, T = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder", "model.transformer_module"
HEAD, PIXEL, QUERY = "sem_seg_head", "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
CROSS, SELF, FFN = (f"{QUERY}.transformer_{n}_layers.#" for n in ("cross_attention", "self_attention", "ffn"))

# transformers' name: detectron2's. "#" is a number, the same in turn on both sides; "@" is weight, bias or a buffer;
# "[i]" is the i-th third of the rows.
SWIN = {
    f"{E}.swin.embeddings.patch_embeddings.projection.@": "backbone.patch_embed.proj.@",
    f"{E}.swin.embeddings.norm.@": "backbone.patch_embed.norm.@",
    # Both projects merge patches in the order of the Swin authors (offset outermost, down the column first: channel
    # p*C + c), so nothing is permuted here, unlike MMSegmentation's.
    f"{E}.swin.encoder.layers.#.downsample.reduction.@": "backbone.layers.#.downsample.reduction.@",
    f"{E}.swin.encoder.layers.#.downsample.norm.@": "backbone.layers.#.downsample.norm.@",
    **{f"{E}.hidden_states_norms.stage{i + 1}.@": f"backbone.norm{i}.@" for i in range(4)},
    **{
        f"{E}.swin.encoder.layers.#.blocks.#.{ours}": f"backbone.layers.#.blocks.#.{theirs}"
        for ours, theirs in {
            "layernorm_before.@": "norm1.@",
            "layernorm_after.@": "norm2.@",
            "attention.q_proj.@": "attn.qkv.@[0]",
            "attention.k_proj.@": "attn.qkv.@[1]",
            "attention.v_proj.@": "attn.qkv.@[2]",
            "attention.o_proj.@": "attn.proj.@",
            "attention.relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
            "mlp.fc1.@": "mlp.fc1.@",
            "mlp.fc2.@": "mlp.fc2.@",
        }.items()
    },
}
RESNET = {
    f"{E}.embedder.embedder.convolution.@": "backbone.stem.conv1.@",
    f"{E}.embedder.embedder.normalization.@": "backbone.stem.conv1.norm.@",
    **{
        f"{E}.encoder.stages.{i}.layers.#.{ours}.{part}.@": f"backbone.res{i + 2}.#.{theirs}{norm}.@"
        for i in range(4)
        for ours, theirs in {"shortcut": "shortcut", **{f"layer.{j}": f"conv{j + 1}" for j in range(3)}}.items()
        for part, norm in {"convolution": "", "normalization": ".norm"}.items()
    },
}
DECODERS = {
    f"{D}.level_embed": f"{PIXEL}.transformer.level_embed",
    f"{D}.input_projections.#.#.@": f"{PIXEL}.input_proj.#.#.@",
    **{
        f"{D}.encoder.layers.#.self_attn.{n}.@": f"{PIXEL}.transformer.encoder.layers.#.self_attn.{n}.@"
        for n in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    },
    f"{D}.encoder.layers.#.self_attn_layer_norm.@": f"{PIXEL}.transformer.encoder.layers.#.norm1.@",
    f"{D}.encoder.layers.#.fc1.@": f"{PIXEL}.transformer.encoder.layers.#.linear1.@",
    f"{D}.encoder.layers.#.fc2.@": f"{PIXEL}.transformer.encoder.layers.#.linear2.@",
    f"{D}.encoder.layers.#.final_layer_norm.@": f"{PIXEL}.transformer.encoder.layers.#.norm2.@",
    f"{D}.adapter_#.0.@": f"{PIXEL}.adapter_#.@",
    f"{D}.adapter_#.1.@": f"{PIXEL}.adapter_#.norm.@",
    f"{D}.layer_#.0.@": f"{PIXEL}.layer_#.@",
    f"{D}.layer_#.1.@": f"{PIXEL}.layer_#.norm.@",
    f"{D}.mask_projection.@": f"{PIXEL}.mask_features.@",
    f"{T}.queries_embedder.@": f"{QUERY}.query_embed.@",
    f"{T}.queries_features.@": f"{QUERY}.query_feat.@",
    f"{T}.level_embed.@": f"{QUERY}.level_embed.@",
    f"{T}.input_projections.#.@": f"{QUERY}.input_proj.#.@",
    # transformers keeps torch's fused attention across, and writes its own, with three matrices, among the queries
    f"{T}.decoder.layers.#.cross_attn.in_proj_@": f"{CROSS}.multihead_attn.in_proj_@",
    f"{T}.decoder.layers.#.cross_attn.out_proj.@": f"{CROSS}.multihead_attn.out_proj.@",
    f"{T}.decoder.layers.#.cross_attn_layer_norm.@": f"{CROSS}.norm.@",
    f"{T}.decoder.layers.#.self_attn.q_proj.@": f"{SELF}.self_attn.in_proj_@[0]",
    f"{T}.decoder.layers.#.self_attn.k_proj.@": f"{SELF}.self_attn.in_proj_@[1]",
    f"{T}.decoder.layers.#.self_attn.v_proj.@": f"{SELF}.self_attn.in_proj_@[2]",
    f"{T}.decoder.layers.#.self_attn.out_proj.@": f"{SELF}.self_attn.out_proj.@",
    f"{T}.decoder.layers.#.self_attn_layer_norm.@": f"{SELF}.norm.@",
    f"{T}.decoder.layers.#.fc1.@": f"{FFN}.linear1.@",
    f"{T}.decoder.layers.#.fc2.@": f"{FFN}.linear2.@",
    f"{T}.decoder.layers.#.final_layer_norm.@": f"{FFN}.norm.@",
    f"{T}.decoder.layernorm.@": f"{QUERY}.decoder_norm.@",
    f"{T}.decoder.mask_predictor.mask_embedder.#.0.@": f"{QUERY}.mask_embed.layers.#.@",
    "class_predictor.@": f"{QUERY}.class_embed.@",
}
TABLE = {**SWIN, **RESNET, **DECODERS}

BACKBONES = {  # by width and depths
    (96, 2, 2, 6, 2): "swin-t",
    (96, 2, 2, 18, 2): "swin-s",
    (128, 2, 2, 18, 2): "swin-b",
    (192, 2, 2, 18, 2): "swin-l",
    (64, 3, 4, 6, 3): "resnet-50",
    (64, 3, 4, 23, 3): "resnet-101",
}

# what of ours has no counterpart and keeps the value that it is built with
OWN = {
    f"{E}.swin.layernorm.weight": "norm of Swin's last output, which the stages' own norms replace",
    f"{E}.swin.layernorm.bias": "norm of Swin's last output, which the stages' own norms replace",
    "criterion.empty_weight": "class weights of the training loss",
}
DROPPED = {
    r"criterion\..*": "weights of the training loss; built anew from the configuration",
    r"pixel_(mean|std)": "moved into the preprocessing",
    r"backbone\..*\.relative_position_index": "follows from the window's size; compared with the network's own",
    r"backbone\..*\.num_batches_tracked": "a counter of training steps",
}


@dataclass(frozen=True)
class Sources:
    """The checkpoint's arrays by detectron2's current names, and what each was called in the file."""

    arrays: Mapping[str, Any]
    called: Mapping[str, str]
    where: str

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of an array that the architecture is read from."""
        if name not in self.arrays:
            raise XenomaskError(
                f"{self.where} lacks {name}: it is no Mask2Former of detectron2 with a Swin or a ResNet backbone"
            )
        shape = tuple(self.arrays[name].shape)
        if len(shape) != rank or min(shape) < 1:
            raise XenomaskError(f"{self.where}: {self.called[name]} has the shape {shape}, not one of {rank} sides")
        return shape

    def count(self, prefix: str) -> int:
        """How many numbered modules there are below `prefix`, by the highest number."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
        n = max((int(found[1]) + 1 for name in self.arrays if (found := pattern.match(name))), default=0)
        if n > 64:
            raise XenomaskError(f"{self.where} has a module {prefix}.{n - 1}: no network of this kind is that deep")
        return n


def convert_detectron2(path: Path, *, outlier_class: bool | None = None, content: Any = None) -> Converted:
    """Reads a .pkl or .pth of detectron2's Mask2Former; the file is never run.

    `outlier_class`: whether the last class before "no object" stands for outliers, as in Open-set-M2F's UNO
    (`NUM_CLASSES: 20`). The weights cannot tell; None takes 20 classes as Cityscapes' 19 and outliers, and any other
    number as none. `content` is what the file holds, where it was read before. Raises XenomaskError for a file that
    holds more than arrays, and for tensors missing, unknown or of another shape, by their names.
    """
    sources = _sources(path, content)
    config = _config(sources, outlier_class)
    with torch.device("meta"):  # shapes without memory: they are compared before anything is allocated
        wanted = _build(config, sources).state_dict()
    plan = {name: source_of(name) for name in wanted if name not in OWN and not name.endswith("num_batches_tracked")}
    _compare(sources, wanted, plan)
    module = _build(config, sources)
    _fill(module, sources, plan)
    dropped = _dropped(sources, module, plan)
    facts = {"converted": _facts(path, sources, config, dropped)}
    return Converted(Network(module.eval(), config, _preprocess(sources), facts=facts), dropped)


def _facts(path: Path, s: Sources, config: Any, dropped: Mapping[str, str]) -> dict[str, Any]:
    """What the model card keeps of where the network is from."""
    b, last = config.backbone_config, config.num_labels - 1
    width = b.embed_dim if b.model_type == "swin" else b.embedding_size
    return {
        "kind": "detectron2",
        "file": path.name,
        "sha256": sha256(path),
        "backbone": BACKBONES.get((width, *b.depths), f"{b.model_type} of width {width} and depths {list(b.depths)}"),
        "tensors": len(s.arrays),
        "dropped": {why: [n for n, w in dropped.items() if w == why] for why in dict.fromkeys(dropped.values())},
        "outlier_class": last if config.id2label[last] == "outlier" else None,
    }


# --- the file ----------------------------------------------------------------------------------------------------


def _sources(path: Path, found: Any = None) -> Sources:
    if found is None:
        found = read_torch(path) if is_torch_file(path) else read_arrays(path)
    tensors = (
        found.get("model", found) if isinstance(found, dict) else None
    )  # beside it: the optimizer's state, the author, the iteration
    if not isinstance(tensors, dict) or not tensors:
        raise XenomaskError(f"{path} holds no 'model': a dict of named tensors")
    total, arrays, called = 0, {}, {}
    for name, value in tensors.items():
        dense = value.layout == torch.strided if isinstance(value, Tensor) else isinstance(value, np.ndarray)
        if not dense:
            raise XenomaskError(f"{path}: {str(name)[:80]!r} is no dense tensor; convert the file of the model alone")
        total += value.nbytes
        arrays[_current(str(name))], called[_current(str(name))] = value, str(name)
    if len(arrays) != len(tensors):
        raise XenomaskError(f"{path} has the same tensor under an old name and a new one")
    if total > path.stat().st_size:  # views of one storage: each would become memory of its own
        raise XenomaskError(f"{path} is refused: its tensors claim {total} bytes, more than the file has")
    return Sources(arrays, called, str(path))


def _current(name: str) -> str:
    """The name as of Mask2Former's present code, which renames older checkpoints in the same way."""
    name = name.removeprefix("module.")  # of torch's DistributedDataParallel
    if name.startswith(f"{HEAD}.") and not name.startswith((f"{PIXEL}.", f"{QUERY}.")):
        name = name.replace(HEAD, PIXEL, 1)
    return name.replace(f"{QUERY}.static_query.", f"{QUERY}.query_feat.")


# --- the architecture --------------------------------------------------------------------------------------------


def _config(s: Sources, outlier_class: bool | None) -> Mask2FormerConfig:
    queries, hidden = s.shape(f"{QUERY}.query_feat.weight", 2)
    levels, feature = s.shape(f"{PIXEL}.transformer.level_embed", 2)
    attention = f"{PIXEL}.transformer.encoder.layers.0"
    rows = s.shape(f"{attention}.self_attn.attention_weights.weight", 2)[0]
    classes = s.shape(f"{QUERY}.class_embed.weight", 2)[0] - 1
    heads = rows // (levels * 4)  # 4 points per head and level, everywhere
    names = _classes(classes, outlier_class)
    with without_warnings(), _refusing(s):
        if levels not in (1, 3) or feature % 32 or not heads or feature % heads or hidden % heads or classes < 1:
            raise ValueError(f"{levels} levels, {feature} features, {heads} heads, {classes} classes")
        return Mask2FormerConfig(
            backbone_config=_backbone(s), feature_size=feature, hidden_dim=hidden,
            mask_feature_size=s.shape(f"{PIXEL}.mask_features.weight", 4)[0],
            encoder_feedforward_dim=s.shape(f"{attention}.linear1.weight", 2)[0],
            dim_feedforward=s.shape(f"{QUERY}.transformer_ffn_layers.0.linear1.weight", 2)[0],
            encoder_layers=s.count(f"{PIXEL}.transformer.encoder.layers"),
            # transformers counts the bare queries as a layer, as detectron2's DEC_LAYERS does
            decoder_layers=s.count(f"{QUERY}.transformer_ffn_layers") + 1,
            num_attention_heads=heads, num_queries=queries,
            enforce_input_projection=any(name.startswith(f"{QUERY}.input_proj.") for name in s.arrays),
            # RbA's pixel decoder attends on stride 32 only; the other three strides are convolutions (one_level)
            feature_strides=(4, 8, 16, 32) if levels == 3 else (4, 32, 32, 32),
            id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
        )  # fmt: skip


def _classes(n: int, outlier_class: bool | None) -> list[str]:
    known = len(CITYSCAPES_CLASSES)
    has = n == known + 1 if outlier_class is None else outlier_class
    inliers = n - 1 if has else n
    names: list[str] = [*CITYSCAPES_CLASSES] if inliers == known else [f"class {i}" for i in range(inliers)]
    return [*names, "outlier"] if has else names


def _backbone(s: Sources) -> SwinConfig | ResNetConfig:
    if any(name.startswith("backbone.res2.") for name in s.arrays):
        stages = [f"backbone.res{i}" for i in range(2, 6)]
        if "backbone.res2.0.conv3.weight" not in s.arrays:
            raise XenomaskError(f"{s.where} has a ResNet of two convolutions a block (R18, R34): not supported")
        return ResNetConfig(
            embedding_size=s.shape("backbone.stem.conv1.weight", 4)[0],
            hidden_sizes=[s.shape(f"{stage}.0.conv3.weight", 4)[0] for stage in stages],
            depths=[s.count(stage) for stage in stages],
            **STAGES,
        )
    embed, _, patch, _ = s.shape("backbone.patch_embed.proj.weight", 4)
    blocks = [f"backbone.layers.{i}.blocks" for i in range(s.count("backbone.layers"))]
    tables = [s.shape(f"{b}.0.attn.relative_position_bias_table", 2) for b in blocks]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    if len(blocks) != 4 or not 2 <= window <= 16 or any((embed << i) % t[1] for i, t in enumerate(tables)):
        raise ValueError(f"a Swin of {len(blocks)} stages, window {window}, heads {[t[1] for t in tables]}")
    return SwinConfig(
        image_size=32 * window, patch_size=patch, embed_dim=embed, depths=[s.count(b) for b in blocks],
        num_heads=[heads for _, heads in tables], window_size=window, drop_path_rate=0.3,
        mlp_ratio=s.shape(f"{blocks[0]}.0.mlp.fc1.weight", 2)[0] / embed,
        qkv_bias=any(name.endswith(".attn.qkv.bias") for name in s.arrays), **STAGES,
    )  # fmt: skip


@contextmanager
def _refusing(s: Sources) -> Iterator[None]:
    """Turns what a library says of an impossible architecture into one line about the file."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError) as e:
        text = " ".join(str(e).split())[:200]
        raise XenomaskError(f"the shapes in {s.where} describe no Mask2Former that can be built: {text}") from e


def _build(config: Mask2FormerConfig, s: Sources) -> nn.Module:
    with _refusing(s):
        module = network._module(config)
    pixel: Any = module.get_submodule(D)
    # what is built here must be what `load` builds from config.json alone
    if min(config.feature_strides[1:]) == 32 and pixel.num_feature_levels != 1:
        raise XenomaskError(
            f"{s.where} has a pixel decoder whose attention sees stride 32 only, as RbA's models with one decoder "
            "layer; that of transformers always sees three strides, and cannot take these weights"
        )
    return module


# --- the tensors -------------------------------------------------------------------------------------------------


def _rules() -> list[tuple[re.Pattern[str], str]]:
    leaf = "(weight|bias|running_mean|running_var)"
    return [(re.compile(re.escape(k).replace(r"\#", r"(\d+)").replace("@", leaf)), v) for k, v in TABLE.items()]


RULES = _rules()


def source_of(name: str) -> tuple[str, int | None]:
    """detectron2's name for one of our tensors, and which third of it, if a third.

    >>> source_of("model.pixel_level_module.encoder.swin.encoder.layers.0.blocks.1.attention.k_proj.bias")
    ('backbone.layers.0.blocks.1.attn.qkv.bias', 1)
    """
    for pattern, target in RULES:
        if found := pattern.fullmatch(name):
            for part in found.groups():
                target = re.sub("[#@]", part, target, count=1)
            target, _, third = target.partition("[")
            return target, int(third[0]) if third else None
    raise KeyError(f"no rule for {name}")  # a tensor that transformers added: the table wants a row


def _compare(s: Sources, wanted: Mapping[str, Tensor], plan: Mapping[str, tuple[str, int | None]]) -> None:
    """Refuses missing, unknown and misshapen tensors, by name."""
    expected = {}
    for name, (source, third) in plan.items():
        rows, *rest = wanted[name].shape
        expected[source] = (rows if third is None else 3 * rows, *rest)
    named = {source: s.called.get(source, source) for source in {*expected, *s.arrays}}
    missing = [named[n] for n in sorted(expected.keys() - s.arrays.keys())]
    unknown = [named[n] for n in sorted(s.arrays.keys() - expected.keys()) if not _why_dropped(n)]
    shapes = [
        f"{named[n]}: {tuple(s.arrays[n].shape)} instead of {shape}"
        for n, shape in expected.items()
        if n in s.arrays and tuple(s.arrays[n].shape) != shape
    ]
    kinds = [named[n] for n in expected if n in s.arrays and not _is_float(s.arrays[n])]
    parts = [
        f"{what} {len(names)} tensors ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("lacks", missing),
            ("has unknown", unknown),
            ("has other shapes for", shapes),
            ("has no floats in", kinds),
        )
        if names
    ]
    if parts:
        raise XenomaskError(f"{s.where} is no Mask2Former of detectron2 as its other shapes say: it {'; '.join(parts)}")


def _is_float(value: np.ndarray | Tensor) -> bool:
    return value.is_floating_point() if isinstance(value, Tensor) else value.dtype.kind == "f"


def _tensor(value: np.ndarray | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))


@torch.no_grad()
def _fill(module: nn.Module, s: Sources, plan: Mapping[str, tuple[str, int | None]]) -> None:
    own = module.state_dict()
    for name, (source, third) in plan.items():
        value = _tensor(s.arrays[source])
        own[name].copy_(value if third is None else value.chunk(3)[third])


def _why_dropped(name: str) -> str | None:
    return next((why for pattern, why in DROPPED.items() if re.fullmatch(pattern, name)), None)


def _dropped(s: Sources, module: nn.Module, plan: Mapping[str, tuple[str, int | None]]) -> dict[str, str]:
    """Each dropped tensor with its reason; a window's index must be the one that the network computes."""
    ours = {source: name for name, (source, _) in plan.items()}
    for name, value in s.arrays.items():
        table = ours.get(name.removesuffix("_index") + "_bias_table")
        if table and name.endswith(".relative_position_index"):
            bias: Any = module.get_submodule(table.removesuffix(".relative_position_bias_table"))
            if not torch.equal(_tensor(value).flatten().long(), bias.relative_position_index):
                raise XenomaskError(f"{s.where}: {s.called[name]} is not the usual order of a window's positions")
    return {s.called[n]: why for n in s.arrays if (why := _why_dropped(n))}


def _preprocess(s: Sources) -> Preprocess:
    """detectron2's test-time setting; mean and deviation from the file, where it has them."""
    # detectron2 resizes by Pillow, which averages when it shrinks: 1080 rows to 1024 differ from Pillow's by .4 to .5
    # grey levels in the mean with `antialias` and by .8 to .9 without (three photos of SegmentMeIfYouCan)
    p = Preprocess("shortest", 1024, 2048, antialias=True)
    values: dict[str, tuple[float, ...]] = {}
    for name in ("mean", "std"):
        if (found := s.arrays.get(f"pixel_{name}")) is not None:
            flat = _tensor(found.reshape(-1)[:4]).double()
            if len(flat) != 3 or not flat.isfinite().all() or (name == "std" and (flat <= 0).any()):
                raise XenomaskError(f"{s.where}: pixel_{name} must be three numbers, and a deviation more than 0")
            values[name] = tuple(round(x, 4) for x in flat.tolist())  # they are float32 there: 123.6750030517578
    return replace(p, **values)
