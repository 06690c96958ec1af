"""The command line as its user meets it: the whole way, and every kind of bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails, run, write_maps
from xenomask.datasets.synthetic import write_scenes
from xenomask.models import load


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("drawn"), "anomaly-track", 3, size=(64, 96))


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """A `folder` data set of two labels, 2 x 3, without photos."""
    root = tmp_path_factory.mktemp("labels")
    (root / "labels_masks").mkdir()
    for name in "ab":
        Image.fromarray(np.array([[0, 1, 255], [0, 0, 1]], np.uint8)).save(root / f"labels_masks/{name}.png")
    return root


GOOD = np.array([[0.1, 0.9, 0.5], [0.2, 0.3, 0.8]], np.float16)


def test_whole_way__train_queries_assemble_score_evaluate_heatmaps(tmp_path, capsys, drawn):
    train_root = write_scenes(tmp_path / "train", "train-ids", 2, size=(64, 96))
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f'preset = "tiny"\nwork_dir = "{tmp_path}/work"\n[data]\ndataset = "folder"\ntrain = "{train_root}"\n'
        f'val = "{train_root}"\n[augment]\nshort_edge = [48, 80]\ncrop = [32, 64]\n'
        "[optim]\niterations = 2\nbatch = 2\n"
    )
    code, out, err = run(capsys, "train", recipe, "--device", "cpu")
    assert code == 0 and "trained:" in out, err
    checkpoint = tmp_path / "work/iter_2"
    data = ("--dataset", "anomaly-track", "--root", drawn)
    code, out, _ = run(
        capsys, "queries", "inlier", "--checkpoint", checkpoint, "--dataset", "folder", "--root", train_root,
        "--confidence", 0, "--ratio", 0.1, "--resize", "128x64",
    )  # fmt: skip
    assert code == 0 and "specialised queries on 2 frames" in out
    code, _, err = run(capsys, "queries", "outlier", "--checkpoint", checkpoint, *data, "--iou", 0.99)
    assert code == 0 and "outlier branch will be empty" in err
    code, out, _ = run(capsys, "queries", "outlier", "--checkpoint", checkpoint, *data, "--top-k", 2)
    assert code == 0 and "2 outlier queries on 3 frames" in out
    detector = tmp_path / "detector"
    code, _, err = run(
        capsys, "assemble", "--out", detector, "--member", f"m={checkpoint}", "--score", "maskomaly", "--half"
    )
    assert code == 0, err
    maps = tmp_path / "maps"
    for new in (3, 0):
        code, out, err = run(capsys, "score", "--detector", detector, *data, "--out", maps)
        assert code == 0 and f"3 maps in {maps}, {new} of them new" in out.replace("\n", ""), err
    code, out, err = run(capsys, "evaluate", "--maps", maps, *data, "--json", tmp_path / "numbers.json")
    assert code == 0 and "AUPR-sum" in out, err
    numbers = json.loads((tmp_path / "numbers.json").read_text())["exact"]
    assert set(numbers) == {
        "aupr_sum", "aupr_trapz", "auroc", "fpr95", "tpr_fpr5", "best_f1", "best_f1_threshold", "prevalence", "pixels",
        "positives",
    }  # fmt: skip
    code, out, err = run(capsys, "heatmaps", "--maps", maps, *data, "--out", tmp_path / "pictures")
    assert code == 0, err
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
        "contact_sheet.jpg", "validation0000.png", "validation0001.png", "validation0002.png",
    ]  # fmt: skip
    bench = "benchmark", "--detector", detector, *data, "--scores", "eam,own", "--out", tmp_path / "bench"
    for _ in range(2):  # the second finds its maps
        code, out, err = run(capsys, *bench)
        assert code == 0, err
        table = (tmp_path / "bench/table.md").read_text()
        assert re.search(r"\| m \| [^|]+ \| eam \| - \| exact \| 0\.\d{4} \(", table) and re.search(
            r"\| m \| [^|]+ \| maskomaly \| leave-one-out \|", table
        )
    assert {p.name for p in (tmp_path / "bench").iterdir()} == {
        "anomaly-track", "table.md", "table.csv", "table.tex", "table.json",
    }  # fmt: skip
    assert "student entry" in (tmp_path / "bench" / "table.csv").read_text()
    code, out, err = run(capsys, "crossval", "--detector", detector, *data, "--choose", "queries,weights,lambda")
    assert code == 0 and "held out" in out, err
    code, out, err = run(capsys, "compare", maps, maps, *data)
    assert code == 0 and "50.0 %" in out, err


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "p.jpg")
    return tmp_path / "p.jpg"


def test_detect__writes_map_heatmap_and_overlay(tmp_path, capsys, tiny_detector, photo):
    out = tmp_path / "out"
    code, text, err = run(
        capsys, "detect", photo, "--detector", tiny_detector, "--out", out, "--threshold", 0.5,
        "--json", tmp_path / "d.json",
    )  # fmt: skip
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == ["p.hdf5", "p_heatmap.png", "p_overlay.jpg"]
    row = json.loads((tmp_path / "d.json").read_text())["photos"][0]
    with h5py.File(out / "p.hdf5") as f:
        value = np.asarray(f["value"])
    assert value.shape == (40, 60) and row["max"] == pytest.approx(value.max(), abs=1e-3)


def test_detect__only_writes_what_is_asked_for(tmp_path, capsys, tiny_detector, photo):
    for only, endings in [("objects", []), ("overlay", [".jpg"]), ("map, heatmap", [".hdf5", ".png"])]:
        out = tmp_path / only.replace(", ", "-")
        code, said, _ = run(
            capsys, "detect", photo, "--detector", tiny_detector, "--out", out, "--only", only, "--threshold", "0"
        )
        assert code == 0 and sorted(p.suffix for p in out.iterdir()) == endings
        assert (str(out) in said.replace("\n", "")) == bool(endings)


@pytest.mark.parametrize("kind", ["L", "RGBA", "I;16"])
def test_detect__other_kinds_of_photo(tmp_path, capsys, tiny_detector, kind):
    array = np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)
    image = {
        "L": Image.fromarray(array),
        "RGBA": Image.fromarray(np.dstack([array] * 4)),
        "I;16": Image.fromarray(array.astype(np.uint16) * 257),
    }[kind]
    image.save(tmp_path / "p.png")
    code, _, err = run(capsys, "detect", tmp_path / "p.png", "--detector", tiny_detector, "--out", tmp_path / "out")
    assert code == 0, err


def test_detect__bad_photos(tmp_path, capsys, tiny_detector, photo):
    out = tmp_path / "out"
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:700])
    options = ("--detector", tiny_detector, "--out", out)
    assert "text.jpg is not an image" in fails(capsys, "detect", tmp_path / "text.jpg", *options)
    assert "cut.jpg is damaged" in fails(capsys, "detect", tmp_path / "cut.jpg", *options)
    assert "no such photo" in fails(capsys, "detect", tmp_path / "nowhere.jpg", *options)
    other = tmp_path / "other" / photo.name
    other.parent.mkdir()
    shutil.copy(photo, other)
    assert "have one name: their maps would" in fails(capsys, "detect", photo, other, *options)
    assert list(out.iterdir()) == []
    code, _, err = run(capsys, "detect", tmp_path, *options)  # the others are done
    assert code == 2 and "cut.jpg is damaged" in err and "text.jpg is not an image" in err
    assert [p.name for p in out.glob("*.hdf5")] == ["p.hdf5"]


@pytest.mark.parametrize(
    ("head", "said"),
    [(b"\0\0\0\x18ftypheic", "is HEIC, which cannot be read here: save it as JPEG"),
     (b"\0\0\0\x1cftypmif1", "is HEIC"), (b"\0\0\0\x1cftypisom", "is a video: xenomask video FILE")],
)  # fmt: skip
def test_detect__what_phones_write_is_named(tmp_path, capsys, tiny_detector, head, said):
    (tmp_path / "Bild von Jürgen.heic").write_bytes(head + bytes(3000))
    error = fails(capsys, "detect", tmp_path / "Bild von Jürgen.heic", "--detector", tiny_detector, "--out", tmp_path)
    assert "Bild von Jürgen.heic " + said in error


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_detect__names_that_are_no_text(tmp_path, tiny_detector, photo):
    for utf8 in ("0", "1"):
        name = tmp_path / os.fsdecode(b"M\xfcller Stra\xdfe " + utf8.encode() + b".jpg")
        name.write_bytes(photo.read_bytes())
        command = [
            sys.executable,
            "-m",
            "xenomask.cli",
            "detect",
            name,
            "--detector",
            tiny_detector,
            "--out",
            tmp_path / "o",
        ]
        env = {**os.environ, "PYTHONUTF8": utf8, "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "o" / (name.stem + "_heatmap.png")).is_file()
        gone = subprocess.run([*command[:4], str(name) + "x"], env=env, capture_output=True)
        assert gone.returncode == 2 and gone.stderr.startswith(b"error: no such photo: "), gone.stderr


def test_detect__photos_and_folder_are_looked_at_before_the_networks_load(tmp_path, capsys, photo):
    (tmp_path / "file").touch()
    for words in (["nowhere.jpg"], [tmp_path], [photo, "--out", tmp_path / "file"]):
        fails(capsys, "detect", *words, "--detector", "never-opened")


def test_words_in_another_order__say_the_right_one(capsys, photo):
    assert f"is a file, no command: xenomask detect {photo} --out out" in fails(capsys, photo)
    error = fails(capsys, "--out", "o", "detect", photo)
    assert "--out stands before the command: xenomask detect ... --out ..." in error


def test_detect__bad_detector_score_member_device(tmp_path, capsys, tiny_detector, photo):
    at = ("detect", photo, "--out", tmp_path / "out")
    assert "unknown detector 'nowhere'" in fails(capsys, *at, "--detector", "nowhere")
    assert "did you mean 'rba'" in fails(capsys, *at, "--detector", tiny_detector, "--score", "rbaa")
    assert "unknown member" in fails(capsys, *at, "--detector", tiny_detector, "--member", "x")
    assert "device nonsense" in fails(capsys, *at, "--detector", tiny_detector, "--device", "nonsense")


def test_output_folder_that_cannot_be_written(tmp_path, capsys, tiny_detector, photo, drawn):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", "/proc/nowhere"):
        for arguments in (
            ("detect", photo, "--detector", tiny_detector, "--out", out),
            ("score", "--dataset", "anomaly-track", "--root", drawn, "--detector", tiny_detector, "--out", out),
            ("synthetic", "--out", out, "--frames", 1, "--size", "96x64"),
        ):
            assert "cannot write" in fails(capsys, *arguments)


def test_evaluate__bad_maps_and_frames(tmp_path, capsys, labels):
    def evaluate(maps, root=labels):
        return fails(capsys, "evaluate", "--maps", maps, "--dataset", "folder", "--root", root)

    assert "no folder of maps" in evaluate(tmp_path / "nowhere")
    assert "the first is b" in evaluate(write_maps(tmp_path / "missing", a=GOOD))
    assert "belong to no frame" in evaluate(write_maps(tmp_path / "extra", a=GOOD, b=GOOD, c=GOOD))
    nan = GOOD.copy()
    nan[0, 2] = np.nan
    assert "holds 1 NaN" in evaluate(write_maps(tmp_path / "nan", a=nan, b=GOOD))
    size = evaluate(write_maps(tmp_path / "size", a=GOOD[:, :2], b=GOOD))
    assert "frame a: map is 2x2, its label 3x2" in size


def test_evaluate__labels_alone_are_enough(tmp_path, capsys, labels):
    maps = write_maps(tmp_path / "maps", a=GOOD, b=GOOD.astype(np.float64))
    code, _, err = run(capsys, "evaluate", "--maps", maps, "--dataset", "folder", "--root", labels, "--json",
                       tmp_path / "n.json")  # fmt: skip
    assert code == 0, err
    numbers = json.loads((tmp_path / "n.json").read_text())["exact"]
    assert (numbers["aupr_sum"], numbers["pixels"], numbers["positives"]) == (1.0, 10, 4)


def test_evaluate__bad_labels(tmp_path, capsys):
    maps = write_maps(tmp_path / "maps", a=GOOD)
    (tmp_path / "labels_masks").mkdir()
    for label, message in (
        (np.array([[0, 3, 0], [0, 0, 0]], np.uint8), "holds the values [3]"),
        (np.array([[0, 255, 0], [0, 0, 0]], np.uint8), "hold only 0 and 255, and 255 is void: no pixel is an anomaly"),
        (np.array([[1, 255, 1], [1, 1, 1]], np.uint8), "no pixel is labelled inlier"),
    ):
        Image.fromarray(label).save(tmp_path / "labels_masks/a.png")
        assert message in fails(capsys, "evaluate", "--maps", maps, "--dataset", "folder", "--root", tmp_path)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images/a.png")
    text = fails(capsys, "heatmaps", "--maps", maps, "--dataset", "folder", "--root", tmp_path, "--out",
                 tmp_path / "o", "--threshold", 0.5)  # fmt: skip
    assert "no pixel is labelled inlier" in text or "of one size" in text


def test_score__photo_and_label_of_different_size(tmp_path, capsys, tiny_detector):
    for folder, size in (("images", (40, 60)), ("labels_masks", (40, 61))):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / folder / "a.png")
    text = fails(capsys, "score", "--dataset", "folder", "--root", tmp_path, "--detector", tiny_detector, "--out",
                 tmp_path / "maps")  # fmt: skip
    assert "they must be of one size" in text
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["manifest.json"]


def test_score__shards(tmp_path, capsys, tiny_detector, drawn):
    command = "score", "--dataset", "anomaly-track", "--root", drawn, "--detector", tiny_detector, "--out"
    code, out, err = run(capsys, *command, tmp_path / "m", "--shard", "2/2")
    assert code == 0 and "1 maps in" in out, err
    assert [p.name for p in (tmp_path / "m").glob("*.hdf5")] == ["validation0001.hdf5"]
    for text in ("2", "a/b", "1/2/3", "-1/2"):
        assert f"shard '{text}' is not I/N, such as 2/8" in fails(capsys, *command, tmp_path / "x", "--shard", text)
    assert "shard 3/2 does not exist" in fails(capsys, *command, tmp_path / "x", "--shard", "3/2")


def test_queries__of_another_checkpoint(tmp_path, capsys, tiny_checkpoint, drawn):
    folder = load(tiny_checkpoint).save(tmp_path / "c")
    (folder / "query_analysis").mkdir()
    (folder / "query_analysis/queries.json").write_text(
        json.dumps({"checkpoint_sha256": "0" * 64, "inlier": {}, "outlier": {}, "ground": [], "origin": {}})
    )
    text = fails(capsys, "queries", "outlier", "--checkpoint", folder, "--dataset", "anomaly-track", "--root", drawn)
    assert "belongs to another checkpoint" in text
    text = fails(capsys, "queries", "inlier", "--checkpoint", tmp_path, "--dataset", "anomaly-track", "--root", drawn)
    assert "is no checkpoint folder" in text


def test_usage_errors_and_help(capsys):
    assert run(capsys, "detect")[0] == 2
    assert (
        fails(capsys, "synthetic", "--out", "x", "--size", "big")
        == "error: size 'big' is not WIDTHxHEIGHT, such as 512x256"
    )
    assert "did you mean 'folder'" in fails(capsys, "synthetic", "--out", "x", "--layout", "foldr")
    for command in ("detect", "video", "score", "evaluate", "heatmaps", "benchmark", "scores", "train", "assemble",
                    "synthetic", "demo", "queries inlier", "queries outlier"):  # fmt: skip
        code, out, _ = run(capsys, *command.split(), "--help")
        assert code == 0 and "Example: xenomask" in out, command


def test_help__every_command_is_in_one_group():
    import typer

    from xenomask.cli import app

    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    panels = {name: c.rich_help_panel for name, c in commands.items()}
    assert set(panels.values()) == {"Predict", "Evaluate", "Train", "Share", "Tools"}, panels
    assert panels["detect"] == "Predict" and panels["thresholds"] == "Evaluate" and "operate" not in panels


def test_scores__are_listed_with_their_formulas(capsys):
    code, out, _ = run(capsys, "scores")
    assert code == 0 and "sum_q P_q(k) m_q" in out.replace("\n", " ") and "maskomaly" in out


@pytest.mark.slow
def test_score__killed_at_any_point_ends_with_the_same_maps(tmp_path, tiny_detector, drawn, capsys):
    import signal
    import time

    arguments = ["score", "--detector", tiny_detector, "--dataset", "anomaly-track", "--root", drawn, "--out"]
    assert run(capsys, *arguments, tmp_path / "unbroken")[0] == 0
    command = [sys.executable, "-m", "xenomask.cli", *map(str, arguments), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if list(tmp_path.glob("killed/*.hdf5")):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    assert run(capsys, *arguments, tmp_path / "killed")[0] == 0

    def files(folder):
        return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}

    assert files(tmp_path / "killed") == files(tmp_path / "unbroken")


def test_full_disk__is_one_line_and_leaves_no_half_map(tmp_path, capsys, tiny_detector, photo, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("xenomask.files.os.fsync", full)
    text = fails(capsys, "detect", photo, "--detector", tiny_detector, "--out", tmp_path / "out")
    assert "No space left on device" in text
    assert list((tmp_path / "out").iterdir()) == []
