"""Every entry of detectron2's config is honoured, compared with the weights, harmless for a reason, or refused.

The truth is `READ`: what Mask2Former's own sources read of a config once a network is built for testing (from_config of
MaskFormer, MaskFormerHead, MSDeformAttnPixelDecoder and MultiScaleMaskedTransformerDecoder; D2SwinTransformer;
build_resnet_backbone; DefaultPredictor), and no table of ours.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from helpers.detectron2 import Checkpoint, written
from helpers.detectron2_config import DUMPED
from xenomask.cli.convert import app
from xenomask.errors import XenomaskError
from xenomask.models.convert.architecture import read_architecture
from xenomask.models.convert.common import recognised
from xenomask.models.convert.detectron2_config import check_config
from xenomask.models.convert.entries import Entries, dotted
from xenomask.models.convert.names import DETECTRON2
from xenomask.models.convert.recognise import convert
from xenomask.models.convert.yamlconfig import read_yaml
from xenomask.models.preprocess import Preprocess

USUAL = Preprocess("shortest", 1024, 2048, antialias=True)
HEAD = ("NAME", "PIXEL_DECODER_NAME", "IN_FEATURES", "NUM_CLASSES", "CONVS_DIM", "MASK_DIM", "NORM", "COMMON_STRIDE",
        "TRANSFORMER_ENC_LAYERS", "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES")  # fmt: skip
DECODER = ("TRANSFORMER_DECODER_NAME", "TRANSFORMER_IN_FEATURE", "NHEADS", "DIM_FEEDFORWARD", "HIDDEN_DIM",
           "NUM_OBJECT_QUERIES", "DEC_LAYERS", "ENFORCE_INPUT_PROJ", "PRE_NORM", "SIZE_DIVISIBILITY")  # fmt: skip
SWIN = ("EMBED_DIM", "DEPTHS", "NUM_HEADS", "WINDOW_SIZE", "PATCH_SIZE", "QKV_BIAS", "MLP_RATIO", "QK_SCALE", "APE",
        "PATCH_NORM", "OUT_FEATURES")  # fmt: skip
RESNET = ("DEPTH", "OUT_FEATURES", "NUM_GROUPS", "NORM", "WIDTH_PER_GROUP", "STRIDE_IN_1X1", "RES5_DILATION",
          "RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS", "DEFORM_ON_PER_STAGE")  # fmt: skip
READ = {
    ("INPUT", "FORMAT"), ("INPUT", "MIN_SIZE_TEST"), ("INPUT", "MAX_SIZE_TEST"), ("MODEL", "PIXEL_MEAN"),
    ("MODEL", "PIXEL_STD"), ("MODEL", "META_ARCHITECTURE"), ("MODEL", "BACKBONE", "NAME"),
    *(("MODEL", "SEM_SEG_HEAD", k) for k in HEAD), *(("MODEL", "MASK_FORMER", k) for k in DECODER),
}  # fmt: skip
BACKBONE = {"swin": {("MODEL", "SWIN", k) for k in SWIN}, "resnet": {("MODEL", "RESNETS", k) for k in RESNET}}
SUPPORTED_DEFAULTS = {
    *(("SEM_SEG_HEAD", k) for k in ("COMMON_STRIDE", "NORM", "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES")),
    *(("MASK_FORMER", k) for k in ("TRANSFORMER_DECODER_NAME", "ENFORCE_INPUT_PROJ", "PRE_NORM")),
    *(("SWIN", k) for k in ("PATCH_SIZE", "QKV_BIAS", "MLP_RATIO", "QK_SCALE", "APE", "PATCH_NORM", "OUT_FEATURES")),
}
HONOURED = {("INPUT", "MIN_SIZE_TEST"), ("INPUT", "MAX_SIZE_TEST"), ("MODEL", "PIXEL_MEAN"), ("MODEL", "PIXEL_STD"),
            ("MODEL", "MASK_FORMER", "SIZE_DIVISIBILITY")}  # fmt: skip


@cache
def shapes(kind: str) -> Any:
    """What the weights' shapes say, for the small Swin or a ResNet-50 of the real size."""
    how = {"resnet": True, "depths": (3, 4, 6, 3)} if kind == "resnet" else {}
    arrays: dict[str, Any] = Checkpoint(**how)
    if kind == "resnet":  # the test's is narrower
        arrays["backbone.stem.conv1.weight"] = np.zeros((64, 1, 1, 1))
        for i in range(4):
            arrays[f"backbone.res{i + 2}.0.conv3.weight"] = np.zeros((256 << i, 1, 1, 1))
    return read_architecture(recognised(arrays, DETECTRON2))


def base(kind: str) -> dict[str, Any]:
    config = yaml.safe_load(DUMPED)
    if kind == "resnet":
        config["MODEL"]["BACKBONE"]["NAME"] = "build_resnet_backbone"
    return config


def entries(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for k, v in value.items():
            yield from entries(v, (*path, k))
    else:
        yield path, value


def others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2 + 0.5, None, "a"]
    return [f"{value}2"] if isinstance(value, str) else [[*value[:-1], "a"], value[:-1], None] if value else [5]


def changed(config: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = path
    return {**config, key: changed(config[key], tuple(rest), value) if rest else value}


def without(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    key, *rest = path
    if rest:
        return {**config, key: without(config[key], tuple(rest))}
    return {k: v for k, v in config.items() if k != key}


def read(config: dict[str, Any], kind: str = "swin") -> tuple[Preprocess, Entries]:
    e = Entries(config)
    return check_config(e, shapes(kind), USUAL), e


def refused(config: dict[str, Any], kind: str = "swin") -> str:
    with pytest.raises(XenomaskError) as e:
        read(config, kind)
    assert "\n" not in str(e.value) and len(str(e.value)) < 400
    return str(e.value)


def test_config__is_honoured():
    p = read(base("swin"))[0]
    assert p == Preprocess("shortest", 768, 1500, divisor=64, antialias=True)
    assert read(base("resnet"), "resnet")[0] == p
    for key, value, expected in (("MIN_SIZE_TEST", 0, ("none", 0, 0)), ("MAX_SIZE_TEST", 800, ("shortest", 768, 800))):
        p = read(changed(base("swin"), ("INPUT", key), value))[0]
        assert (p.policy, p.size, p.longest) == expected
    for kind, value, divisor in (("swin", -1, 32), ("resnet", -1, 1), ("swin", 0, 1), ("resnet", 1, 1)):
        config = changed(base(kind), ("MODEL", "MASK_FORMER", "SIZE_DIVISIBILITY"), value)
        assert read(config, kind)[0].divisor == divisor
    p = read(changed(base("swin"), ("MODEL", "PIXEL_STD"), [1, 2, 3]))[0]
    assert p.std == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_config__every_entry_changed_in_turn(kind):
    config = base(kind)
    usual, _ = read(config, kind)
    matters = READ | BACKBONE[kind]
    assert matters <= {path for path, _ in entries(config)}
    for path, value in entries(config):
        for other in others(value):
            new = changed(config, path, other)
            if path in matters:
                try:
                    found, _ = read(new, kind)
                except XenomaskError as e:
                    assert dotted(path) in str(e) and "\n" not in str(e)
                else:
                    assert path in HONOURED and found != usual, (path, other)
            else:
                found, e = read(new, kind)
                assert found == usual
                assert any(e.accounts.get(path[:n]) for n in range(1, len(path) + 1)), path


def test_config__what_is_left_out_is_the_projects_own_default():
    """Of each entry that matters, detectron2's and Mask2Former's default; the small network has none of them."""
    config = base("swin")
    for path in sorted(READ | BACKBONE["swin"]):
        new = without(config, path)
        if path[1:] in SUPPORTED_DEFAULTS:
            assert read(new)[0] == read(config)[0], path
        elif path in HONOURED:
            assert read(new)[0] != read(config)[0], path
        else:
            assert f"{dotted(path)}, left out and so" in refused(new)
    assert read(without(config, ("INPUT", "MIN_SIZE_TEST")))[0].size == 800
    assert read(without(config, ("INPUT", "MAX_SIZE_TEST")))[0].longest == 1333
    assert read(without(config, ("MODEL", "PIXEL_STD")))[0].std == (1.0, 1.0, 1.0)
    assert read(without(config, ("MODEL", "MASK_FORMER", "SIZE_DIVISIBILITY")))[0].divisor == 32


@pytest.mark.parametrize(
    "where", [("MODEL",), ("INPUT",), *(("MODEL", k) for k in ("MASK_FORMER", "SEM_SEG_HEAD", "SWIN", "BACKBONE"))]
)
def test_config__an_unknown_entry_is_refused_by_name(where):
    path = (*where, "SURPRISE")
    assert f"{dotted(path)} = 1 is not supported" in refused(changed(base("swin"), path, 1))


def test_config__of_the_checkpoint_and_of_the_config():
    stored = {"mean": (123.675, 116.28, 103.53), "std": None}
    assert check_config(Entries(base("swin")), shapes("swin"), USUAL, stored)
    with pytest.raises(XenomaskError, match="PIXEL_MEAN = .*, but the checkpoint has"):
        check_config(Entries(base("swin")), shapes("swin"), USUAL, {"mean": (1.0, 2.0, 3.0)})


# --- the file --------------------------------------------------------------------------------------------------------


def run(folder: Path, **files: str) -> Path:
    written(folder / "model_final.pkl", dict(Checkpoint()))
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "model_final.pkl"


def test_command__with_the_runs_config(tmp_path):
    done = CliRunner().invoke(app, [str(run(tmp_path, config=DUMPED)), "--config", str(tmp_path / "config.yaml"),
                                    "--out", str(tmp_path / "out")])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (
        "config: config.yaml" in done.output and "photos: shortest 768 x 1500, padded to multiples of 64" in done.output
    )
    (tmp_path / "other.yaml").write_text(DUMPED.replace("PRE_NORM: false", "PRE_NORM: true"))
    done = CliRunner().invoke(app, [str(tmp_path / "model_final.pkl"), "--config", str(tmp_path / "other.yaml"),
                                    "--out", str(tmp_path / "out")])  # fmt: skip
    assert isinstance(done.exception, XenomaskError) and "MODEL.MASK_FORMER.PRE_NORM = True" in str(done.exception)


def test_folder__has_its_config_beside_the_checkpoint(tmp_path):
    import torch

    torch.save({"model": {k: torch.from_numpy(v) for k, v in Checkpoint().items()}}, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (tmp_path / "config.yaml").write_text(DUMPED)
    assert convert(tmp_path).network.preprocess.size == 768
    assert convert(tmp_path / "model_final.pth").network.preprocess.size == 1024


def test_yaml__bases_and_tags_that_would_compute(tmp_path):
    (tmp_path / "configs" / "swin").mkdir(parents=True)
    config = yaml.safe_load(DUMPED)
    tag = "!!python/object/apply:eval ['[int(x) for x in range(3)]']"
    text = yaml.safe_dump(config).replace("IMAGE_SIZE: 1024", f"IMAGE_SIZE: {tag}")
    (tmp_path / "configs" / "base.yaml").write_text(text)
    own = tmp_path / "configs" / "swin" / "own.yaml"
    own.write_text("_BASE_: ../base.yaml\nINPUT: {MIN_SIZE_TEST: 512}\n")
    assert read(read_yaml(own))[0].size == 512
    own.write_text(f"_BASE_: ../base.yaml\nINPUT:\n  MIN_SIZE_TEST: {tag}\n")
    assert "INPUT.MIN_SIZE_TEST is computed by code, which is never run" in refused(read_yaml(own))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is no plain YAML"),
        ("- 1", "no YAML of named entries"),
        ("", "no YAML of named entries"),
        ("1: 2", "whose name is no text"),
        ("_BASE_: ../../secret.yaml", "lies outside"),
        ("_BASE_: own.yaml", "inherits from itself"),
        ("_BASE_: https://x/y.yaml", "no file beside it"),
        ("_BASE_: gone.yaml", "cannot be read"),
        ("a: &a [1, *a]", "more than|no plain YAML"),
        ("a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)), "more than"),
        ("[" * 5000, "no plain YAML"),
        ("a: " + "9" * 5000, "no plain YAML|no YAML"),
        ("a: \x00", "no plain YAML"),
        ('a: !!int ""', "no plain YAML"),
        ("a: !!bool perhaps", "no plain YAML"),
    ],
    ids=lambda value: value[:12],
)  # fmt: skip
def test_yaml__hostile_files_are_one_line(tmp_path, text, said):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(XenomaskError, match=said) as e:
        read_yaml(path)
    assert "\n" not in str(e.value)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(XenomaskError, match="UTF-16|UTF-8"):
        read_yaml(path)
