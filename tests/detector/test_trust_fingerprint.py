"""What a detector says of itself holds all that decides its maps: how photos are prepared, and its query sets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.cli import fails
from helpers.cli import run as command
from helpers.hf_folders import KINDS, write
from helpers.scenes import write as write_scenes
from xenomask.detector import Detector
from xenomask.detector.folder import assemble, describe_folder, fingerprint
from xenomask.errors import XenomaskError
from xenomask.evaluation.benchmark import benchmark
from xenomask.models.processor import FILE
from xenomask.predict.cache import cache_outputs
from xenomask.predict.photos import score_dataset
from xenomask.store import read_map
from xenomask.types import QuerySet

WINDOWS = {"size": {"shortest_edge": 32, "longest_edge": None}, "do_split_image": True}
PIXEL = ("segformer", "upernet", "upernet_swin")
PROCESSORS = (
    {"size": {"height": 64, "width": 64}},
    {"size": {"height": 64, "width": 96}},
    {"size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.5, 0.5]},
    {"size": {"height": 64, "width": 64}, "resample": 3},
)


def detector(kind: str, processor: dict, folder: Path, score: str = "entropy") -> Path:
    write(kind, folder / "network")
    (folder / "network" / FILE).write_text(json.dumps(processor))
    return assemble(folder / "d", "d", [("a", folder / "network")], [1.0], score)


@pytest.mark.parametrize("kind", ["maskformer", "mask2former"])
def test_fingerprint__holds_how_photos_are_prepared(kind, tmp_path):
    folders = [detector(kind, p, tmp_path / str(i)) for i, p in enumerate(PROCESSORS)]
    for folder in folders:
        assert describe_folder(folder) == Detector.from_folder(folder).describe()
        assert describe_folder(folder) == json.loads(json.dumps(describe_folder(folder)))
    assert len({fingerprint(describe_folder(f)) for f in folders}) == len(PROCESSORS)
    assert len({describe_folder(f)["members"][0]["sha256"] for f in folders}) == 1  # the weights are the same


@pytest.mark.parametrize("kind", KINDS)
def test_describe_folder__of_every_kind_is_that_of_the_loaded_detector(kind, tmp_path):
    processor = WINDOWS if "eomt" in kind else PROCESSORS[0]
    made = detector(kind, processor, tmp_path, "msp" if kind in PIXEL else "entropy")
    assert describe_folder(made) == Detector.from_folder(made).describe()
    kept = Detector.from_folder(made).save(tmp_path / "kept")
    assert fingerprint(describe_folder(kept)) == fingerprint(describe_folder(made))


def test_fingerprint__holds_the_configuration(tmp_path):
    """The same weights give other maps by another activation or another eps: config.json has them alone."""
    network, seen = tmp_path / "network", set()
    write("mask2former", network)
    changes = {"": 0, "activation_function": "gelu", "backbone": 0.1, "architectures": ["X"]}
    for i, (key, value) in enumerate(changes.items()):
        folder = Path(shutil.copytree(network, tmp_path / f"n{i}"))
        table = json.loads((folder / "config.json").read_text())
        if key == "backbone":
            table["backbone_config"]["layer_norm_eps"] = value
        elif key:
            table[key] = value
        (folder / "config.json").write_text(json.dumps(table))
        made = assemble(tmp_path / f"d{i}", "d", [("a", folder)], [1.0], "entropy")
        assert describe_folder(made) == Detector.from_folder(made).describe()
        seen.add(fingerprint(describe_folder(made)))
    assert len(seen) == 3  # who wrote it is none


def test_score__into_maps_of_another_preprocessor_is_refused(tmp_path, capsys):
    first, second = (detector("maskformer", p, tmp_path / str(i)) for i, p in enumerate(PROCESSORS[:2]))
    scenes = write_scenes(tmp_path / "scenes", 0)
    words = ["score", "--dataset", "folder", "--root", str(scenes.root), "--out", str(tmp_path / "maps")]
    assert command(capsys, *words, "--detector", str(first))[0] == 0
    assert "of another run (its members differ)" in fails(capsys, *words, "--detector", str(second))
    # what an older version wrote does not say how photos were prepared
    manifest = tmp_path / "maps/manifest.json"
    table = json.loads(manifest.read_text())
    del table["members"][0]["preprocess"]
    manifest.write_text(json.dumps(table))
    assert "(its members differ)" in fails(capsys, *words, "--detector", str(first))


def test_outputs__of_another_preprocessor_are_not_reused(tmp_path):
    first, second = (
        Detector.from_folder(detector("maskformer", p, tmp_path / str(i))) for i, p in enumerate(PROCESSORS[:2])
    )
    scenes = write_scenes(tmp_path / "scenes", 0)
    cache_outputs(first, scenes, tmp_path / "outputs")
    cache_outputs(first, scenes, tmp_path / "outputs")
    with pytest.raises(XenomaskError, match="its preprocess differ"):
        cache_outputs(second, scenes, tmp_path / "outputs")


def test_benchmark__of_one_checkpoint_in_two_detectors_gives_each_its_own_maps(tiny_detector, tmp_path):
    """The same weights, but other query sets, or photos prepared otherwise: the network looks once for each."""
    scenes = write_scenes(tmp_path / "scenes", 0)
    one = Detector.from_folder(tiny_detector).only("a")
    (member,) = one.members
    sets = [
        QuerySet(member.network.sha256, outlier={q: 0.5 for q in queries}, origin={"outlier": {"dataset": "another"}})
        for queries in ((0, 1), (2, 3))
    ]
    prepared = replace(member.network.preprocess, mean=(0.0, 0.0, 0.0))
    made = {
        "plain": replace(member, queries=sets[0]),
        "queries": replace(member, queries=sets[1]),
        "photos": replace(member, queries=sets[0], network=replace(member.network, preprocess=prepared)),
    }
    detectors = [replace(one, name=k, members=(m,)).with_score("maskomaly") for k, m in made.items()]
    benchmark(detectors, [None], [(scenes, "anomaly")], tmp_path / "together", resamples=0)
    for d in detectors:
        score_dataset(d, scenes, tmp_path / d.name)
    found = {p.parent.name: read_map(p) for p in (tmp_path / "together").rglob("0.hdf5")}
    assert len(found) == 3
    own = [read_map(tmp_path / d.name / "0.hdf5") for d in detectors]
    assert not any(np.array_equal(own[0], other) for other in own[1:])
    for name, value in found.items():
        (at,) = [i for i, d in enumerate(detectors) if d.name in name]
        assert np.array_equal(value, own[at]), name


def test_describe__of_weights_in_several_files(tmp_path):
    folder = tmp_path / "network"
    write("maskformer", folder).save_pretrained(folder, max_shard_size="40KB")  # pyright: ignore
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 1
    made = assemble(tmp_path / "d", "d", [("a", folder)], [1.0], "entropy")
    assert describe_folder(made) == Detector.from_folder(made).describe()
    shutil.rmtree(made)
