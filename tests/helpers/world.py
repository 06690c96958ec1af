"""What commands read, and shorthands for their arguments."""

import subprocess
import sys

import pytest

from helpers.places import TESTS
from xenomask.datasets.synthetic import write_scenes


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_detector, tiny_checkpoint) -> dict[str, str]:
    """Scenes, their maps, a checkpoint and an MMSegmentation one: what the commands below read."""
    folder = tmp_path_factory.mktemp("kill")
    root = write_scenes(folder / "set", "anomaly-track", 2, size=(64, 96))
    train = write_scenes(folder / "train", "train-ids", 2, size=(64, 96))
    names = {
        "root": str(root), "train": str(train), "maps": str(folder / "maps"), "detector": str(tiny_detector),
        "checkpoint": str(tiny_checkpoint), "golden": str(TESTS / "golden" / "mmseg"),
    }  # fmt: skip
    # of a score whose maps are not even: no submission may be
    words = ["score", *SET, "--detector", "{detector}", "--score", "max_logit", "--out", "{maps}"]
    run([word.format(**names) for word in words])
    return names


def run(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "xenomask.cli", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SET = ["--dataset", "anomaly-track", "--root", "{root}"]
TRAIN = ["--dataset", "folder", "--root", "{train}"]
