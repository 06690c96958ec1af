"""Points huggingface_hub at a server of the test's."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import close_session


def point_at(monkeypatch, url: str, cache: Path, offline: bool = False) -> None:
    """What huggingface_hub reads from the environment when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    close_session()
