"""A score, data set, checkpoint format, map format, metric and refinement from outside: one object each."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.cli import run
from xenomask.datasets import catalogue
from xenomask.datasets.layout import Entry, Frame, Listing
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.metrics import table
from xenomask.models import load
from xenomask.models.convert import checkpoint, recognise
from xenomask.models.convert.common import Converted
from xenomask.refine import REFINEMENTS, Refinement, Seen
from xenomask.refine import register as register_refinement
from xenomask.scores import SCORES, Gather, Score, register, score_all
from xenomask.store import formats, read_map

# --- what an outsider writes: one object each ---

TOY = Score(
    "toy",
    "1 - max_q max_k P_q(k) m_q + a little of the masks' sum",
    (0.0, 1.0),
    gather=lambda p, queries, outlier: Gather(peaks={"best": p[:, :-1].amax(1)}, sums={"rest": p[:, -1] / len(p)}),
    finish=lambda found: 1 - found["best"] + found["rest"],
)


def frames(base: Path, split: str) -> Listing:
    """Photos and labels side by side: <id>.png, <id>_truth.png."""
    photos = (p for p in sorted((base / "toy").glob("*.png")) if not p.stem.endswith("_truth"))
    return Listing(tuple(Frame(p.stem, p, p.with_name(f"{p.stem}_truth.png")) for p in photos), "anomaly")


TOY_SET = Entry(
    name="toy-set", title="a toy", listing=frames, marks=("toy",), folders=("toy_set",), coding="anomaly",
    layout="toy/<id>.png, toy/<id>_truth.png", where="here", licence="none", conventions="none", track="anomaly",
)  # fmt: skip

RECALL_AT_HALF = table.Number("toy_tpr", "TPR at FPR .5", "higher", lambda c: float(c.recall[np.argmax(c.fpr >= 0.5)]),
                              "TPR at .5", 6)  # fmt: skip


def convert_toy(path: Path, config: Path | None, content) -> Converted:
    """A checkpoint that names the folder of another: its weights, doubled nowhere."""
    network = load(Path(bytes(content["toy.folder"].tolist()).decode()))
    return Converted(network, {"toy.folder": "says where the weights lie"})


TOY_FORMAT = recognise.Format("toy-format", "toy.", convert_toy)


def read_text_map(path: Path, key: str | None) -> np.ndarray:
    """A map as rows of numbers."""
    return np.loadtxt(path, delimiter=key or ",")


def less(value: np.ndarray, seen: Seen, *, by: float = 0.5) -> np.ndarray:
    """A map that counts less the more queries its network has."""
    return value - np.float32(by) * len(seen.output.class_logits)


TOY_REFINEMENT = Refinement("toy_less", "s - .5 Q", less, "masks", {"by": (0.0, 1.0)})


TOY_MAPS = formats.FileFormat(".csv", read_text_map)


@pytest.fixture
def extended():
    """All of them registered, by one public call each; taken back after the test."""
    register(TOY)
    catalogue.register(TOY_SET)
    table.register(RECALL_AT_HALF)
    recognise.register(TOY_FORMAT)
    formats.register(TOY_MAPS)
    register_refinement(TOY_REFINEMENT)
    yield
    for where, key in (
        (SCORES, "toy"), (catalogue.DATASETS, "toy-set"), (table.NUMBERS, "toy_tpr"), (recognise.FORMATS, "toy-format"),
        (formats.FORMATS, ".csv"), (REFINEMENTS, "toy_less"),
    ):  # fmt: skip
        del where[key]
    checkpoint.PROJECTS.remove("toy.")


@pytest.fixture
def scenes(tmp_path) -> Path:
    root = tmp_path / "toy_set"
    (root / "toy").mkdir(parents=True)
    for i in range(2):
        scene = draw_scene(i, (64, 96))
        Image.fromarray(scene.image).save(root / "toy" / f"s{i}.png")
        Image.fromarray(scene.anomaly).save(root / "toy" / f"s{i}_truth.png")
    return root


def test_extensions__are_used_by_every_command(extended, scenes, tmp_path, capsys, tiny_detector):
    data = ("--dataset", "toy-set", "--root", scenes)
    detector = ("--detector", tiny_detector, "--score", "toy", "--device", "cpu")

    def ok(*words) -> str:
        code, out, err = run(capsys, *words)
        assert code == 0, (words[0], err)
        return out

    photo = scenes / "toy" / "s0.png"
    assert "score toy" in ok("detect", photo, "--out", tmp_path / "d", *detector)
    ok("score", *data, "--out", tmp_path / "maps", *detector)
    pair = Detector.from_folder(tiny_detector).with_score("toy")
    whole = pair.detect(photo).value
    assert np.array_equal(read_map(tmp_path / "maps/s0.hdf5"), whole.astype(np.float16).astype(np.float32))
    image, by_torch = np.asarray(Image.open(photo)), np.zeros_like(whole)
    for m in pair.members:
        found = score_all(m.network.predict(image), m.queries, [TOY], "torch")["toy"]
        by_torch += np.float32(m.weight) * found.value
    assert np.abs(whole - by_torch).max() < 2e-6

    out = ok("evaluate", "--maps", tmp_path / "maps", *data, "--json", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())["exact"]["toy_tpr"]
    assert "TPR at FPR .5" in out and f"{found:.4f}" in out and 0 <= found <= 1
    out = ok("benchmark", *data, "--detector", tiny_detector, "--scores", "toy,entropy", "--out", tmp_path / "b")
    table = (tmp_path / "b/table.md").read_text()
    assert "TPR at .5" in table and "| toy |" in table and "toy" in out
    assert (
        "TPR at FPR .5"
        in (ok("report", tmp_path / "maps", *data, "--out", tmp_path / "r.html"), (tmp_path / "r.html").read_text())[1]
    )

    ok("explain", photo, "--at", "40,30", *detector, "--json", tmp_path / "x.json")
    answer = json.loads((tmp_path / "x.json").read_text())
    assert abs(answer["value"] - whole[30, 40]) < 1e-5

    queries = pair.members[0].network.config.num_queries
    ok("detect", photo, "--out", tmp_path / "less", *detector, "--refine", "toy_less:by=.25")
    assert np.abs(read_map(tmp_path / "less/s0.hdf5") - (whole - 0.25 * queries)).max() < 0.01

    ok("export", tiny_detector, "--size", "96x64", "--score", "toy", "--out", tmp_path / "toy.onnx")
    ok("detect", photo, "--out", tmp_path / "o", "--detector", tmp_path / "toy.onnx")
    assert np.abs(read_map(tmp_path / "o/s0.hdf5") - whole).max() < 2e-3  # a float16 step

    assert "toy-set" in ok("datasets") and "toy" in ok("scores")


def test_extensions__a_map_format(extended, scenes, tmp_path, capsys):
    for i in range(2):
        truth = np.asarray(Image.open(scenes / "toy" / f"s{i}_truth.png"))
        np.savetxt(tmp_path / f"s{i}_map.csv", np.where(truth == 1, 0.75, 0.25), delimiter=";")
    data = ("--dataset", "toy-set", "--root", scenes)
    named = ("--pattern", "{id}_map.csv", "--key", ";")
    code, _, err = run(capsys, "evaluate", "--maps", tmp_path, *data, *named, "--json", tmp_path / "e.json")
    assert code == 0, err
    found = json.loads((tmp_path / "e.json").read_text())["exact"]
    assert (found["aupr_sum"], found["fpr95"], found["best_f1_threshold"]) == (1, 0, 0.75)
    code, _, err = run(capsys, "heatmaps", "--maps", tmp_path, *data, *named, "--out", tmp_path / "h")
    assert code == 0 and (tmp_path / "h/s1.png").is_file(), err
    code, _, err = run(capsys, "evaluate", "--maps", tmp_path, *data)  # what the reader says becomes one line
    assert code == 2 and "2 .csv files lie there" in err and "'{id}_map.csv'" in err
    code, _, err = run(capsys, "evaluate", "--maps", tmp_path, *data, *named[:2])
    assert code == 2 and f"map {tmp_path / 's0_map.csv'} cannot be read: could not convert" in err


def test_extensions__a_checkpoint_format(extended, tmp_path, capsys, tiny_checkpoint):
    foreign = tmp_path / "foreign.pth"
    torch.save({"toy.folder": torch.tensor(list(str(tiny_checkpoint).encode()), dtype=torch.uint8)}, foreign)
    assert recognise.recognise(foreign) == "toy-format"
    code, _, err = run(capsys, "convert", foreign, "--out", tmp_path / "c")
    assert code == 0, err
    a, b = load(tmp_path / "c"), load(tiny_checkpoint)
    assert all(torch.equal(x, y) for x, y in zip(a.module.parameters(), b.module.parameters(), strict=True))


def test_extensions__names_that_are_taken_are_refused(extended):
    for add, what in ((register, TOY), (catalogue.register, TOY_SET), (table.register, RECALL_AT_HALF),
                      (recognise.register, TOY_FORMAT), (formats.register, TOY_MAPS),
                      (register_refinement, TOY_REFINEMENT)):  # fmt: skip
        with pytest.raises(XenomaskError, match="already"):
            add(what)  # pyright: ignore[reportArgumentType]
