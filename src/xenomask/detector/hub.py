"""The Hugging Face Hub: a name -> a folder on this machine, and a folder -> the Hub. Only what is asked for moves.

Nothing here changes the environment or huggingface_hub's settings: HF_HUB_OFFLINE=1, HF_HOME, HF_ENDPOINT and HF_TOKEN
mean what they always mean. Downloads lie in huggingface_hub's own cache.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xenomask.detector.known import KNOWN, Known, by_hand
from xenomask.errors import XenomaskError, first_line
from xenomask.files import sha256

log = logging.getLogger(__name__)

PREFIX = "hf:"
# what is downloaded: data that nothing executes; never .py, never pickles
READ = ("*.json", "*.toml", "*.safetensors", "*.txt", "*.md")
# what is uploaded; merges.txt is the tokenizer's of a OneFormer
SHARED = ("*.safetensors", "*.json", "*.md", "merges.txt", "*/merges.txt")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".msgpack", ".h5")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@(?!.*\.\.)[\w./-]+)?")  # git has no ".." in names


@dataclass(frozen=True)
class Fetched:
    """A folder on this machine that a name stands for; `facts` say where it comes from."""

    name: str
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    known: Known | None = None


def is_remote(name: str) -> bool:
    """Whether a name asks for the Hub: a known detector's, or hf:org/name.

    >>> is_remote("maskomaly-paper"), is_remote("hf:org/name@v1"), is_remote("nano"), is_remote("org/name")
    (True, True, False, False)
    """
    return name in KNOWN or name.startswith(PREFIX)


def parse(name: str) -> tuple[str, str]:
    """'org/name@revision' -> (repository, revision); "hf:" before it may stand or not.

    >>> parse("hf:org/name"), parse("org/name@v1")
    (('org/name', 'main'), ('org/name', 'v1'))
    """
    bare = name.removeprefix(PREFIX)
    if not NAME.fullmatch(bare):
        raise XenomaskError(f"{name!r} is no Hub name: it is org/name or org/name@revision")
    repository, _, revision = bare.partition("@")
    return repository, revision or "main"


def fetch(name: str, token: str | None = None, advice: str = "go online once, or pass a folder") -> Fetched:
    """The folder of a known detector or of a Hub repository, downloaded where it is not on this machine yet.

    Within one call a cut connection is taken up where it broke; in a later one, files that were finished stay. Weights
    whose bytes are not those that the Hub states (SHA-256) are refused and removed.

    Raises XenomaskError for an unknown repository, one without safetensors, and where the Hub cannot be reached and
    nothing is cached; `advice` is what a repository's error then says to do.
    """
    if name not in KNOWN:
        repository, revision = parse(name)
        folder, facts = _repository(repository, revision, READ, token, advice)
        return Fetched(repository.partition("/")[2], folder, facts)
    known = KNOWN[name]
    facts = {"terms": known.terms, "from": known.source}
    if folder := placed(known):
        return Fetched(name, folder, {**facts, "placed_by_hand": True}, known)
    folder, hub = _repository(known.repository, known.revision, known.files, token, _advice(known))
    return Fetched(name, folder, {**facts, **hub}, known)


def fetch_network(name: str, device: str = "cpu", token: str | None = None):
    """The network of a known detector or of a Hub repository, its origin among its facts.

    Raises XenomaskError as `fetch` and `models.load` do, and for a repository that holds a detector instead.
    """
    found = fetch(name, token)
    if (found.folder / "detector.json").is_file():
        raise XenomaskError(f"{name} holds a detector, no single network: take Detector.from_hub")
    return network_of(found, device)


def network_of(found: Fetched, device: str = "cpu"):
    """The network in a folder that `fetch` gave, its origin among its facts; XenomaskError as `models.load` has it."""
    from xenomask.models import Preprocess, load

    network = load(found.folder, device)
    p = network.preprocess
    if found.known and found.known.edges and p.policy == "fixed":
        # NOTE: not its own processor's 384x384, which no published number was made with
        p = Preprocess("shortest", *found.known.edges, mean=p.mean, std=p.std)
    return replace(network, preprocess=p, facts={**network.facts, **found.facts})


def placed(known: Known) -> Path | None:
    """The folder of a known network that was placed by hand; its authors' own file is converted there, once."""
    folder = by_hand(known)
    original, converted = folder / known.original, folder / "converted"
    for path in (folder, converted):
        if (path / "config.json").is_file():
            return path
    if known.original and original.is_file():
        from xenomask.models.convert.recognise import convert

        return convert(original).network.save(converted)
    return None


def on_machine(known: Known) -> Path | None:
    """Where a known network lies on this machine, by hand or in the Hub's cache; the Hub is not asked."""
    from huggingface_hub import try_to_load_from_cache

    folder = by_hand(known)
    if any((folder / f).is_file() for f in ("config.json", "converted/config.json", known.original or "config.json")):
        return folder
    found = [try_to_load_from_cache(known.repository, f, revision=known.revision) for f in known.files]
    return Path(str(found[0])).parent if all(isinstance(f, str) for f in found) else None


def _advice(known: Known) -> str:
    folder = by_hand(known)
    original = f", or run `xenomask convert {known.original} --out {folder}`" if known.original else ""
    return (
        f"put {', '.join(known.files)} of https://huggingface.co/{known.repository} into {folder}{original}, or name a "
        "detector folder of your own"
    )


def _repository(
    repository: str, revision: str, patterns: tuple[str, ...], token: str | None, advice: str
) -> tuple[Path, dict[str, Any]]:
    """The snapshot folder with its network's facts."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    stated, why = _stated(repository, revision, token)
    if stated is not None:
        _check_listing(repository, stated)
    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(patterns), token=token, library_name="xenomask",
                local_files_only=stated is None,
            )
        )  # fmt: skip
    except LocalEntryNotFoundError as e:
        reason = why or first_line(e)
        raise XenomaskError(f"{repository} is not on this machine and the Hub gives none ({reason}): {advice}") from e
    except Exception as e:  # what the HTTP client raises: httpx in huggingface_hub 1.x, httpx2 in 2.x; disk errors
        raise XenomaskError(
            f"the download of {repository} stopped ({first_line(e)}): run the same again, files that were finished are "
            "kept"
        ) from e
    _check_weights(folder, repository, stated or {})
    if why and why != OFFLINE:
        log.warning("the Hub gives no answer (%s): the cached copy of %s is used", why, repository)
    return folder, {"hub": {"repository": repository, "revision": revision, "commit": folder.name}}


OFFLINE = "HF_HUB_OFFLINE is set"


def _stated(repository: str, revision: str, token: str | None) -> tuple[dict[str, str | None] | None, str]:
    """Each file of the repository with the SHA-256 that the Hub states for it (None: a small one, kept in git).

    (None, why) where the Hub cannot be asked.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi(token=token, library_name="xenomask").model_info(
            repository, revision=revision, files_metadata=True, timeout=30
        )
    except OfflineModeIsEnabled:
        return None, OFFLINE
    except GatedRepoError as e:
        raise XenomaskError(
            f"https://huggingface.co/{repository} wants its terms accepted: do so there, then `hf auth login`"
        ) from e
    except RepositoryNotFoundError as e:
        raise XenomaskError(
            f"the Hub has no repository {repository} (or it is private: `hf auth login` or HF_TOKEN)"
        ) from e
    except RevisionNotFoundError as e:
        raise XenomaskError(f"the Hub's {repository} has no revision {revision}") from e
    except HFValidationError as e:
        raise XenomaskError(f"{repository!r} is no Hub name: {first_line(e)}") from e
    except Exception as e:  # no connection, a proxy, a server's error: see _repository
        return None, first_line(e)
    return {s.rfilename: s.lfs.sha256 if s.lfs else None for s in info.siblings or ()}, ""


def _check_listing(repository: str, stated: Mapping[str, str | None]) -> None:
    if any(f.endswith(".safetensors") for f in stated):
        return
    pickles = [f for f in stated if f.endswith(PICKLES)]
    if pickles:
        raise XenomaskError(
            f"{repository} has its weights as pickle only ({pickles[0]}), which xenomask does not download: ask its "
            "owner for model.safetensors, or download it yourself and pass the folder"
        )
    raise XenomaskError(f"{repository} holds no weights: it has no .safetensors file")


def _check_weights(folder: Path, repository: str, stated: Mapping[str, str | None]) -> None:
    """Refuses weights that are not those that the Hub states, and takes them out of the cache."""
    # huggingface_hub checks a file's length only. It names a cached blob after the Hub's hash, so that what was
    # downloaded earlier is checked offline too (but not on file systems without links).
    for path in sorted(folder.rglob("*.safetensors")):
        blob = path.resolve()
        named = blob.name if re.fullmatch(r"[0-9a-f]{64}", blob.name) else None
        expected = stated.get(path.relative_to(folder).as_posix()) or named
        if expected and sha256(blob) != expected:
            path.unlink()
            blob.unlink(missing_ok=True)
            raise XenomaskError(
                f"{path.name} of {repository} is not what the Hub states (SHA-256 {expected[:12]}...): it was removed; "
                "run the same again, and do not trust this connection if it happens twice"
            )


def upload(folder: Path, name: str, token: str | None = None, private: bool = False) -> str:
    """Uploads a detector folder's safetensors, JSON and Markdown files into a repository; returns its address.

    Raises XenomaskError without a token, without the right to write, and where the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    repository, revision = parse(name)
    if pickles := sorted(p.name for p in folder.rglob("*") if p.suffix in PICKLES):
        raise XenomaskError(f"{folder} has pickled weights ({pickles[0]}), which are not uploaded: convert them first")
    if token is None and get_token() is None:
        raise XenomaskError("no Hugging Face token: run `hf auth login`, or set HF_TOKEN to one that may write")
    api = HfApi(token=token, library_name="xenomask")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=list(SHARED), revision=revision,
            commit_message="xenomask detector",
        )  # fmt: skip
    except OfflineModeIsEnabled as e:
        raise XenomaskError(f"{repository} cannot be written: {OFFLINE}") from e
    except HfHubHTTPError as e:
        hint = " (the token may not write there)" if e.response.status_code in (401, 403) else ""
        raise XenomaskError(f"the Hub refused {repository}: HTTP {e.response.status_code}{hint}") from e
    except Exception as e:  # see _repository
        raise XenomaskError(f"the upload to {repository} stopped: {first_line(e)}") from e
    return f"{api.endpoint}/{repository}"
