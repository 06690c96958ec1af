"""Shared fixtures: a tiny detector, and the real data where it lies beside the project."""

import sys
from pathlib import Path

import pytest
import torch

from helpers.places import SHARED, TESTS
from xenomask.detector.folder import assemble
from xenomask.models import build
from xenomask.offline import keep_reports

# the asserts in helpers tell what they compared, as those in tests do
unread = {f"helpers.{p.stem}" for p in (TESTS / "helpers").glob("[a-z]*.py")} - sys.modules.keys()
pytest.register_assert_rewrite(*sorted(unread))
keep_reports()  # some tests import openvino themselves


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
