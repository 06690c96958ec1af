"""Shared fixtures: small mask outputs, a tiny detector, and the real data where it lies beside the project."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xenomask.detector.folder import assemble
from xenomask.masks import MaskOutput, PixelOutput
from xenomask.models import build

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Graphs that tests build are not kept in the user's folder, nor read from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XENOMASK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real data sets; a user's checkout has none."""
    if not (SHARED / "data" / "smiyc").is_dir():
        pytest.skip("needs the real data sets in ../shared/data, which are not part of the project")
    return SHARED / "data"


def without_hashes(detector: Path) -> Path:
    """The detector folder, its detector.json as before it named files: what else refuses them is then seen."""
    table = json.loads((detector / "detector.json").read_text())
    for row in table["members"]:
        row.pop("files", None)
    (detector / "detector.json").write_text(json.dumps(table))
    return detector


def make_output(
    q=6, n=5, h=5, w=7, padded=(20, 28), used=(18, 25), image=(13, 31), seed=0, dtype=torch.float32,
    outlier_class=False,
):  # fmt: skip
    """Random logits of a network whose input was padded."""
    g = torch.Generator().manual_seed(seed)
    return MaskOutput(
        class_logits=3 * torch.randn(q, n, generator=g).to(dtype),
        mask_logits=3 * torch.randn(q, h, w, generator=g).to(dtype),
        padded_size=padded,
        input_size=used,
        image_size=image,
        outlier_class=outlier_class,
    )


def make_pixel_output(k=5, h=5, w=7, padded=(20, 28), used=(18, 25), image=(13, 31), seed=0):
    """Random logits, of both signs, of a per-pixel network whose input was padded."""
    g = torch.Generator().manual_seed(seed)
    return PixelOutput(4 * torch.randn(k, h, w, generator=g), padded, used, image)


def from_probabilities(p, m) -> MaskOutput:
    """The MaskOutput whose P and soft masks (at the image's size) are the given ones."""
    p, m = torch.as_tensor(np.asarray(p)).double(), torch.as_tensor(np.asarray(m)).double()
    size = (m.shape[1], m.shape[2])
    return MaskOutput(p.log(), torch.logit(m), size, size, size)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint folder of the tiny preset, random weights."""
    torch.manual_seed(0)
    return build("tiny").save(tmp_path_factory.mktemp("tiny") / "iter_0")


@pytest.fixture(scope="session")
def tiny_detector(tiny_checkpoint) -> Path:
    """A detector folder with two tiny members."""
    torch.manual_seed(1)
    other = build("tiny").save(tiny_checkpoint.parent / "iter_1")
    out = tiny_checkpoint.parent / "detector"
    return assemble(out, "pair", [("a", tiny_checkpoint), ("b", other)], [0.25, 0.75], "entropy")
