"""Nobody is asked and told anything on its own: the Hub is by an explicit request, and no package reports its use."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

# Whether the user keeps the Hub away, read before main() makes that everybody's default.
USER_OFFLINE = (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in (
    "1", "ON", "YES", "TRUE",
)  # fmt: skip


@contextmanager
def asking_hub() -> Iterator[None]:
    """Let the Hub be asked while it is open, unless the user's own HF_HUB_OFFLINE=1 forbids it."""
    # main() sets HF_HUB_OFFLINE=1 so that no library asks the network on its own. huggingface_hub reads the variable
    # once, when it is imported, into this constant, which it then asks before every request; it has no switch for a
    # single call. So the constant is turned for the length of an explicit request and turned back: what loads networks
    # afterwards is offline again. A Python user of the library has no such default, and nothing is turned for them.
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():  # as everywhere: bars are for people
        disable_progress_bars()
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = USER_OFFLINE
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def imported(package: str) -> ModuleType:
    """An optional package, imported without its reports; ImportError where it is not installed."""
    keep_reports()
    return import_module(package)


def keep_reports() -> None:
    """What is imported from here on in this process reports nothing to its makers.

    NOTE: openvino (2026.4.1) tells Google Analytics of each import, from a process that it forks for that; nncf reports
    as well. Both are silent where their package for it is missing, so it is kept from them.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] None: not to be imported
