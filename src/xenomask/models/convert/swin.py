"""ImageNet's Swin weights -> transformers' SwinBackbone: microsoft/Swin-Transformer's names, timm's, Hugging Face's.

microsoft's are detectron2's without its prefix, so the table is that converter's. All three merge patches in the same
order (column outermost, then row, then channel), so no channel is moved; tests/train/test_init.py holds the features
of each against timm's.
"""

from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from xenomask.errors import XenomaskError
from xenomask.models.convert.architecture import read_swin
from xenomask.models.convert.checkpoint import is_torch_file, named_tensors, read_torch, state_dict
from xenomask.models.convert.common import compare, fill, recognised
from xenomask.models.convert.names import DETECTRON2, E, Names
from xenomask.models.weights import read_tensors

FILES = ("model.safetensors", "pytorch_model.bin")  # of a Hub folder, the first that is there
# what a classifier has beside its backbone, and what follows from the window's size
CLASSIFIER = ("head", "classifier", "pooler", "hidden_states_norms")
LEFT_OUT = (*(f"{name}.**" for name in CLASSIFIER), "**attn_mask", "**position_index")
# how names of microsoft's and timm's begin, and Hugging Face's
BEGINNINGS = ("patch_embed.", "layers.", "layers_", "embeddings.", "encoder.", "swin.")
HEADS = {"decode_head", "sem_seg_head"}
FRESH = f"{E}hidden_states_norms.**"  # the norms of the four outputs, which no classifier has
HF4 = {  # transformers 5: 4, which is also how both write files
    "attention.q_proj": "attention.self.query",
    "attention.k_proj": "attention.self.key",
    "attention.v_proj": "attention.self.value",
    "attention.o_proj": "attention.output.dense",
    "attention.relative_position_bias.": "attention.self.",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _tables(tensors: Mapping[str, Tensor]) -> Iterator[Names]:
    """microsoft's names, which are detectron2's without a prefix, and Hugging Face's two ways."""
    swin = f"{E}swin."
    rows = [(ours, theirs.removeprefix("backbone.")) for ours, theirs in DETECTRON2.table if ours.startswith(swin)]
    # timm's feature extractors lack the last norm, which transformers builds and never calls
    microsoft = [*rows, (f"{swin}layernorm.*", "norm.*")]
    five = [(ours, ours.removeprefix(swin)) for ours, _ in microsoft]
    four = [(ours, reduce(lambda name, way: name.replace(*way), HF4.items(), name)) for ours, name in five]
    # NOTE: timm (from 0.9 on) merges at the start of a stage, all others at the end of the one before
    timm = [(f"layers.{i + 1}.downsample.**", f"layers.{i}.downsample.**") for i in range(3)]
    at_end = any(name.startswith("layers.0.downsample.") for name in tensors)
    for table in (microsoft, five, four):
        yield Names(tuple(table), () if at_end else tuple(timm), dict.fromkeys(LEFT_OUT, "of the classifier"))


def load_swin(backbone: nn.Module, path: Path, name: str) -> None:
    """Fills a SwinBackbone from an ImageNet Swin's file, or a Hub folder; the norms of its outputs stay as they are.

    `name` is the network's, for errors. Raises XenomaskError for another width, depth or window, for tensors that are
    missing or unknown, and for what is no file of plain tensors.
    """
    path = _file(path)
    tensors = _read(path)
    own = {f"{E}{key}": value for key, value in backbone.state_dict().items()}
    try:
        weights = max((recognised(tensors, names) for names in _tables(tensors)), key=lambda w: len(w.found))
        if not any(".blocks." in key for key in weights.found):
            some = ", ".join(sorted(tensors)[:3])
            raise XenomaskError(f"it holds no Swin Transformer of microsoft's, timm's or Hugging Face's names: {some}")
        theirs, ours = described(read_swin(weights)), described(backbone.config)
        if theirs != ours:
            raise XenomaskError(f"it holds a Swin of {theirs}; the preset {name} has {ours}: another file is needed")
        compare(own, weights, f"does not fit the preset {name}", optional=[FRESH])
        fill(own, weights)
    except XenomaskError as e:
        raise XenomaskError(f"{path}: {e}") from e


def described(b: Any) -> str:
    """What tells one Swin from another."""
    depths, heads = ("-".join(map(str, numbers)) for numbers in (b.depths, b.num_heads))
    return f"width {b.embed_dim}, depths {depths}, heads {heads}, window {b.window_size}"


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if found := [path / f for f in FILES if (path / f).is_file()]:
        return found[0]
    raise XenomaskError(f"{path} holds no weights: neither {' nor '.join(FILES)}")


def _read(path: Path) -> dict[str, Tensor]:
    """The file's dense tensors by name, without a wrapper's prefix."""
    try:
        pickled = is_torch_file(path)
    except OSError as e:
        raise XenomaskError(
            f"no such weights: {path} ({e.strerror}); the recipe's comment says where to get them"
        ) from e
    content = read_torch(path) if pickled else read_tensors(path)
    if any(HEADS & {*str(name).split(".")} for name in state_dict(content, path)):
        raise XenomaskError(
            f"{path} is a whole network of MMSegmentation or detectron2: run `xenomask convert {path} --out FOLDER` "
            "and set init to that folder"
        )
    found = named_tensors(content, path, lambda name: name.startswith(BEGINNINGS))
    return {name.removeprefix("swin."): tensor for name, tensor in found.items()}
