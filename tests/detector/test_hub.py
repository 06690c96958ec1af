"""The Hub, played by a server on this machine: what is asked of it, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from PIL import Image

from helpers.cli import fails, run
from helpers.fakehub import COMMIT, FakeHub, serve
from helpers.folders import without_hashes
from helpers.hub import point_at
from xenomask import load_model, offline
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector, hub
from xenomask.detector.folder import SHIPPED, describe_folder, fingerprint, write_card
from xenomask.errors import XenomaskError
from xenomask.models import load
from xenomask.types import QuerySet

IMAGE = draw_scene(0, (60, 100)).image


@pytest.fixture
def fake(monkeypatch, tmp_path, tiny_detector, tiny_checkpoint):
    own = FakeHub({"me/pair": tiny_detector})
    server = serve(own)
    point_at(monkeypatch, own.url, tmp_path / "cache")
    yield own
    close_session()
    server.shutdown()
    server.server_close()


def asked(own: FakeHub) -> list[str]:
    """The requests about repositories; huggingface_hub has some about itself."""
    return [r for r in own.requests if " /api/models/" in r or "/resolve/" in r]


@pytest.fixture(scope="session")
def hf_folder(tiny_checkpoint, tmp_path_factory) -> Path:
    """A network as `save_pretrained` writes it, with code and a pickle beside it that must stay away."""
    folder = tmp_path_factory.mktemp("plain")
    load(tiny_checkpoint).module.save_pretrained(folder)  # pyright: ignore
    (folder / "modeling_evil.py").write_text("raise SystemExit\n")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


def test_from_hub__a_detector_is_the_one_that_was_put_there(fake, tiny_detector):
    found = Detector.from_hub("me/pair")
    here = Detector.from_folder(tiny_detector)
    assert found.describe() == here.describe()
    assert np.array_equal(found.detect(IMAGE).value, here.detect(IMAGE).value)
    commit = {"repository": "me/pair", "revision": "main", "commit": COMMIT}
    assert [m.network.facts["hub"] for m in found.members] == [commit, commit]
    before = len(asked(fake))
    Detector.from_hub("hf:me/pair@" + COMMIT)
    again = asked(fake)[before:]
    assert not [r for r in again if r.startswith("GET") and "/resolve/" in r]  # nothing is downloaded twice


def test_from_hub__a_plain_network_without_its_code_and_pickles(fake, hf_folder, tmp_path):
    fake.repositories["org/net"] = hf_folder
    found = Detector.from_hub("org/net")
    assert (found.name, found.score_name, len(found.members)) == ("net", "rba", 1)
    assert found.detect(IMAGE).value.shape == (60, 100)
    assert not [r for r in asked(fake) if r.endswith((".py", ".bin"))]
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.suffix in (".py", ".bin")]
    assert load_model("org/net").facts["hub"]["commit"] == COMMIT
    assert load_model("hf:org/net@main").sha256 == found.members[0].network.sha256
    with pytest.raises(XenomaskError, match="holds a detector, no single network"):
        load_model("me/pair")


def test_fetch__a_cut_connection_is_taken_up_where_it_broke(fake, tiny_detector, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # 10 MB otherwise: more than this file has
    fake.cut = "a/model.safetensors"
    found = hub.fetch("me/pair")
    assert fake.ranges == ["a/model.safetensors"]
    name = "a/model.safetensors"
    assert (found.folder / name).read_bytes() == (tiny_detector / name).read_bytes()


def test_fetch__bytes_that_are_not_the_stated_ones_are_refused_and_removed(fake, monkeypatch, tmp_path):
    fake.lie = "b/model.safetensors"
    with pytest.raises(XenomaskError, match=r"model.safetensors of me/pair is not what the Hub states") as e:
        hub.fetch("me/pair")
    assert "\n" not in str(e.value)
    point_at(monkeypatch, fake.url, tmp_path / "cache", offline=True)
    with pytest.raises(XenomaskError, match="not on this machine"):
        hub.fetch("me/pair")


def test_fetch__cached_bytes_that_rotted_are_found_offline(fake, monkeypatch, tmp_path):
    blob = (hub.fetch("me/pair").folder / "a/model.safetensors").resolve()
    if not all(c in "0123456789abcdef" for c in blob.name):
        pytest.skip("no links on this file system: nothing here says what the bytes should be")
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    point_at(monkeypatch, fake.url, tmp_path / "cache", offline=True)
    with pytest.raises(XenomaskError, match="not what the Hub states"):
        hub.fetch("me/pair")


def test_fetch__offline_takes_the_cache_and_asks_nobody(fake, monkeypatch, tmp_path):
    online = hub.fetch("me/pair")
    before = len(fake.requests)
    point_at(monkeypatch, fake.url, tmp_path / "cache", offline=True)
    assert hub.fetch("me/pair") == online
    with pytest.raises(XenomaskError, match=r"other/one is not on this machine .*HF_HUB_OFFLINE is set"):
        hub.fetch("other/one")
    assert len(fake.requests) == before


def test_fetch__without_a_connection_takes_the_cache_and_says_so(fake, monkeypatch, tmp_path, caplog):
    online = hub.fetch("me/pair")
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # nobody listens there
    assert hub.fetch("me/pair") == online
    assert "the cached copy of me/pair is used" in caplog.text
    with pytest.raises(XenomaskError, match="not on this machine") as e:
        hub.fetch("other/one")
    assert "\n" not in str(e.value)


def test_fetch__what_is_not_there_or_not_safe(fake, tmp_path):
    for name, files, message in (
        ("org/pickles", {"config.json": "{}", "pytorch_model.bin": "x"}, r"pickle only \(pytorch_model.bin\)"),
        ("org/empty", {"README.md": "x"}, "holds no weights"),
    ):
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        for f, text in files.items():
            (folder / f).write_text(text)
        fake.repositories[name] = folder
        with pytest.raises(XenomaskError, match=message):
            hub.fetch(name)
    assert not [r for r in asked(fake) if "/resolve/" in r]
    with pytest.raises(XenomaskError, match="the Hub has no repository no/such"):
        hub.fetch("no/such")
    with pytest.raises(XenomaskError, match="me/pair has no revision v9"):
        hub.fetch("me/pair@v9")
    for bad in ("hf:pair", "a/b/c", "hf:../x", "hf:", "a/b@../x"):
        with pytest.raises(XenomaskError, match="is no Hub name"):
            hub.fetch(bad)


def test_from_hub__a_members_name_that_leads_elsewhere(fake, tiny_detector, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "evil")
    table = json.loads((folder / "detector.json").read_text())
    table["members"][0]["name"] = "../../../other"
    (folder / "detector.json").write_text(json.dumps(table))
    fake.repositories["org/evil"] = folder
    with pytest.raises(XenomaskError, match="is no folder inside it"):
        Detector.from_hub("org/evil")


def test_folders_and_shipped_names_ask_nobody(fake, tiny_detector, tiny_checkpoint, tmp_path, monkeypatch):
    Detector.from_folder(tiny_detector)
    load_model(tiny_checkpoint)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(XenomaskError, match="unknown checkpoint folder"):
        load_model("checkpoints/misspelt")
    for name in ("me/pair", "maskomaly-paper", "hf:me/pair"):
        with pytest.raises(XenomaskError):
            Detector.from_folder(name)
    assert fake.requests == []


def test_save__reads_back_as_the_same_detector(tiny_detector, tmp_path):
    pair = Detector.from_folder(tiny_detector).with_score("maskomaly_no_border")
    folder = pair.save(tmp_path / "again")
    back = Detector.from_folder(folder)
    assert np.array_equal(back.detect(IMAGE).value, pair.detect(IMAGE).value)
    assert back.describe()["members"][0]["options"] == {"border": None}
    assert (folder / "README.md").read_text().startswith("---\nlicense: other\n")
    pair.save(folder)  # its own kind may be replaced
    (tmp_path / "thesis").mkdir()
    with pytest.raises(XenomaskError, match="exists and is no detector folder"):
        pair.save(tmp_path / "thesis")


def test_save__the_shipped_half_precision_weights_keep_their_hashes(tmp_path):
    nano = Detector.from_folder("nano")
    folder = nano.save(tmp_path / "nano")
    assert fingerprint(describe_folder(folder)) == fingerprint(nano.describe())
    assert Detector.from_folder(folder).thresholds == nano.thresholds
    card = (folder / "README.md").read_text()
    assert "Cityscapes, whose terms allow non-commercial use only" in card and "license_name: cityscapes" in card


def test_save__a_hugging_face_network_keeps_where_it_came_from(fake, tmp_path):
    from typing import Any

    import torch
    from transformers import EomtConfig, EomtForUniversalSegmentation

    sizes: dict[str, Any] = dict(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8, num_blocks=1,
        num_queries=5, num_register_tokens=1, num_upscale_blocks=1,
    )  # fmt: skip
    torch.manual_seed(0)
    EomtForUniversalSegmentation(EomtConfig(**sizes)).eval().save_pretrained(tmp_path / "net")
    fake.repositories["org/cityscapes_eomt"] = tmp_path / "net"
    found = Detector.from_hub("org/cityscapes_eomt")
    folder = found.save(tmp_path / "saved")
    back = Detector.from_folder(folder)
    assert back.describe() == found.describe()
    assert back.members[0].network.facts["hub"]["commit"] == COMMIT
    written = (folder / "README.md").read_text() + (folder / "detector.json").read_text()
    assert str(tmp_path) not in written  # no path of this machine is shared
    assert "non-commercial" in written


def test_card__numbers_of_evaluate_and_only_those(tiny_detector, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "d")
    numbers = {"exact": {"aupr_sum": 0.5, "fpr95": None}, "frames": 3, "intervals": {"exact": {}}}
    card = write_card(folder, numbers).read_text()
    assert "| exact | aupr_sum | 0.5 |" in card and "| exact | fpr95 | - |" in card and "3 frames" in card
    assert "| a | 0.25 | entropy |" in card and "| b | 0.75 | entropy |" in card
    assert "Cityscapes" not in card and "not stated" in card
    with pytest.raises(XenomaskError, match="no numbers of `xenomask evaluate --json`"):
        write_card(folder, {"loss": 1})
    with pytest.raises(XenomaskError, match="shipped detector"):
        write_card(SHIPPED / "nano")
    (without_hashes(folder) / "a/xenomask.json").write_text("{")
    with pytest.raises(XenomaskError, match="xenomask.json is damaged"):
        write_card(folder)


def test_push__weights_json_and_a_card_and_nothing_else(fake, tiny_detector, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "d")
    (folder / "notes.py").write_text("secret = 1\n")
    (folder / "a/scratch.csv").write_text("1\n")
    write_card(folder)
    address = hub.upload(folder, "me/mine", token="hf_good", private=True)
    assert address == f"{fake.url}/me/mine"
    assert fake.created[0]["name"] == "mine" and fake.tokens == {"Bearer hf_good"}
    assert fake.created[0].get("private") or fake.created[0].get("visibility") == "private"
    kinds = ("config.json", "model.safetensors", "xenomask.json")
    assert set(fake.committed) == {"README.md", "detector.json", *(f"{m}/{k}" for m in "ab" for k in kinds)}
    assert fake.committed["a/model.safetensors"] == (tiny_detector / "a/model.safetensors").read_bytes()


def test_push__from_python_and_back(fake, tiny_detector, tmp_path):
    pair = Detector.from_folder(tiny_detector)
    pair.push_to_hub("me/mine", token="hf_good")
    for name, content in fake.committed.items():
        path = tmp_path / "there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    fake.repositories["me/mine"] = tmp_path / "there"
    assert np.array_equal(Detector.from_hub("me/mine").detect(IMAGE).value, pair.detect(IMAGE).value)


def test_push__what_is_refused(fake, tiny_detector, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_detector, tmp_path / "d")
    with pytest.raises(XenomaskError, match="no Hugging Face token: run `hf auth login`"):
        hub.upload(folder, "me/mine")
    with pytest.raises(XenomaskError, match=r"HTTP 403 \(the token may not write there\)"):
        hub.upload(folder, "me/mine", token="hf_bad")
    (folder / "a/pytorch_model.bin").write_bytes(b"")
    with pytest.raises(XenomaskError, match="pickled weights"):
        hub.upload(folder, "me/mine", token="hf_good")
    (folder / "a/pytorch_model.bin").unlink()
    point_at(monkeypatch, fake.url, tmp_path / "cache", offline=True)
    with pytest.raises(XenomaskError, match="HF_HUB_OFFLINE is set"):
        hub.upload(folder, "me/mine", token="hf_good")
    assert fake.committed == {}


@pytest.fixture
def as_cli(fake, monkeypatch, tmp_path):
    """The state in which main() leaves huggingface_hub where the user has said nothing: offline."""
    point_at(monkeypatch, fake.url, tmp_path / "cache", offline=True)
    monkeypatch.setattr(offline, "USER_OFFLINE", False)
    return fake


def test_cli__goes_online_on_request_alone(as_cli, tiny_detector, tmp_path, capsys, monkeypatch):
    photo = tmp_path / "p.png"
    Image.fromarray(IMAGE).save(photo)
    detect = ("detect", photo, "--out", tmp_path / "out", "--device", "cpu", "--detector")
    code, _, err = run(capsys, *detect, tiny_detector)
    assert (code, as_cli.requests) == (0, []), err
    monkeypatch.setattr(offline, "USER_OFFLINE", True)
    error = fails(capsys, *detect, "hf:me/pair")
    assert error.startswith("error: me/pair is not on this machine") and as_cli.requests == []
    monkeypatch.setattr(offline, "USER_OFFLINE", False)
    code, out, err = run(capsys, *detect, "hf:me/pair", "--score", "eam")
    assert code == 0 and "score eam" in out, err
    assert any("/resolve/" in r for r in as_cli.requests) and constants.HF_HUB_OFFLINE
    assert "no repository no/such" in fails(capsys, *detect, "hf:no/such") and constants.HF_HUB_OFFLINE


def test_cli__push_writes_the_card_it_uploads(as_cli, tiny_detector, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(tiny_detector, tmp_path / "d")
    numbers = tmp_path / "n.json"
    numbers.write_text(json.dumps({"exact": {"aupr_sum": 0.25}, "frames": 10}))
    push = ("push", folder, "me/mine", "--numbers", numbers)
    (tmp_path / "broken.json").write_text("{")
    error = fails(capsys, *push[:-1], tmp_path / "broken.json")
    assert "broken.json is damaged" in error and "the numbers of `xenomask evaluate --json`" in error
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    code, out, err = run(capsys, *push)
    assert code == 0 and f"shared as {as_cli.url}/me/mine" in out, err
    assert b"| exact | aupr_sum | 0.25 |" in as_cli.committed["README.md"]
    assert "is there already and would not show" in fails(capsys, *push)


@pytest.mark.slow
def test_cli__in_a_process_of_its_own_by_the_environment_alone(fake, tiny_detector, tmp_path):
    """Fetch, then the same with the user's HF_HUB_OFFLINE=1: as the user meets it, from import to exit."""
    photo = tmp_path / "p.png"
    Image.fromarray(IMAGE).save(photo)
    drop = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "XENOMASK_HOME")
    kept = {k: v for k, v in os.environ.items() if k not in drop}
    environment = {**kept, "HF_ENDPOINT": fake.url, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "xenomask.cli", "detect", str(photo), "--out", str(tmp_path / "out")]
    command += ["--detector", "hf:me/pair", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    before = len(fake.requests)
    assert any("/resolve/" in r for r in fake.requests)
    environment["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, len(fake.requests)) == (0, before), done.stderr


def test_queries__an_unpublished_iou_is_null_in_the_file(tmp_path):
    from xenomask.queries import read_queries, write_queries

    path = write_queries(tmp_path, QuerySet("0" * 64, outlier={49: float("nan"), 3: 0.5}))
    assert json.loads(path.read_text())["outlier"] == {"49": None, "3": 0.5}
    back = read_queries(tmp_path, "0" * 64).outlier
    assert np.isnan(back[49]) and back[3] == 0.5
