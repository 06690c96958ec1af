"""Checkpoint folder -> Network: one that `Network.save` or `xenomask train` wrote, or one in Hugging Face's layout."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig

from xenomask.errors import XenomaskError, first_line
from xenomask.files import sha256
from xenomask.models import hf
from xenomask.models.config import CARD, CONFIG, WEIGHTS, read_card, read_config, refuse_stripped
from xenomask.models.convert.checkpoint import bare_names
from xenomask.models.device import check_device
from xenomask.models.network import OWN, Network, settings_of
from xenomask.models.preprocess import Preprocess
from xenomask.models.presets import without_warnings
from xenomask.models.weights import MAX_BUFFERS, Entry, check_shapes, fill, fill_buffers, own_buffers, read_header


def load(folder: Path, device: str = "cpu") -> Network:
    """Reads a checkpoint folder that `Network.save` or `xenomask train` wrote, or one in Hugging Face's layout.

    Raises XenomaskError for a missing or damaged file, weights of another architecture, and a device that cannot be
    used.
    """
    check_device(device)
    if (folder / CONFIG).is_file() and not (folder / CARD).is_file():
        refuse_stripped(folder)
        return hf.load_hf(folder, device)
    for name in (CONFIG, WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise XenomaskError(f"{folder} is no checkpoint folder: it has no {name}")
    config = _config(folder)
    p, card = read_card(folder / CARD)
    header = read_header(folder / WEIGHTS)
    with ThreadPoolExecutor(1) as pool:  # hashing takes about as long as all else, and another core
        digest = pool.submit(sha256, folder / WEIGHTS)
        module = _filled(config, folder / WEIGHTS, header)
        return Network(module.to(device).eval(), config, p, digest.result(), card, folder=folder)


def _config(folder: Path) -> PreTrainedConfig:
    stored = read_config(folder)
    kind = stored.get("model_type")
    if kind not in OWN:
        raise XenomaskError(f"checkpoint {folder} has a damaged {CONFIG}: its model_type is not {' or '.join(OWN)}")
    try:
        with without_warnings():
            config = OWN[kind][0].from_dict(stored)
    except Exception as e:  # its checks raise whatever they like
        raise XenomaskError(f"checkpoint {folder} has a damaged {CONFIG}: {first_line(e)}") from e
    return config


def _filled(config: PreTrainedConfig, weights: Path, header: Mapping[str, Entry]) -> nn.Module:
    """The module with the file's weights; nothing of its size is taken before all shapes were compared."""
    try:
        with torch.device("meta"):
            module = OWN[config.model_type][1](config)
    except Exception as e:  # whatever transformers and timm make of numbers that fit no network
        raise XenomaskError(f"{weights.parent / CONFIG} describes no network that can be built: {first_line(e)}") from e
    own = module.state_dict()
    bare = bare_names(header, own.__contains__, weights)
    header = {bare[name]: entry for name, entry in header.items()}
    check_shapes(own, header, str(weights), CONFIG)
    if sum(b.nbytes for _, _, b in own_buffers(module)) > MAX_BUFFERS:
        raise XenomaskError(f"{weights.parent / CONFIG} describes a network whose own tables take too much memory")
    if not fill_buffers(module):  # a backbone whose tables only its constructor computes
        module = OWN[config.model_type][1](config)
    fill(module, weights, header)
    return module.to(memory_format=torch.channels_last)  # pyright: ignore


def identity(folder: Path) -> tuple[str, str, Preprocess]:
    """`sha256`, `settings` and `preprocess` of the network in a checkpoint folder, from its files: nothing is loaded.

    Raises XenomaskError for damaged files, and OSError where the weights cannot be read.
    """
    if (folder / CARD).is_file():
        return sha256(folder / WEIGHTS), settings_of(_config(folder)), read_card(folder / CARD)[0]
    return hf.identity(folder)
