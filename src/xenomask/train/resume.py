"""A run that goes on: what of its recipe may be another than before, and from which step which recipe holds.

The optimizer's state and the weights belong to a network; all else of a recipe may change under way. It then takes
effect from the step that is resumed, is logged, and stands in the checkpoint's "history".
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xenomask.datasets.labelmap import read_label_map
from xenomask.errors import XenomaskError
from xenomask.files import read_object
from xenomask.models.network import CARD, OUTLIER_NAME
from xenomask.models.presets import preset
from xenomask.train.config import TrainConfig
from xenomask.train.state import check_classes

log = logging.getLogger("xenomask.train")

# what decides the network, or is over at the first step; exposure.loss only where one of the two is "uno"
FIXED = ("preset", "queries", "init", "exposure.tune")
# what decides no number of a run
FREE = ("work_dir", "save_every", "val_every", "log_every", "keep", "workers", "threads", "engine.")
# what decides which frames the mIoU is of
VALIDATION = ("data.dataset", "data.labels", "data.val", "data.val_frames", "data.resize")
Changes = dict[str, list[Any]]  # key: [before, now]


def check_recipe(config: TrainConfig, step: int) -> Changes:
    """What of the recipe differs from the one that made work_dir/iter_<step>, but for what decides no number.

    Raises XenomaskError, with all differences in one line, for those that cannot take effect: of the network and its
    start; any at all where the run is at its end; fewer iterations than were made.
    """
    folder = config.work_dir / f"iter_{step}"
    check_classes(folder, expected_classes(config))
    changes = differences(stored_facts(folder).get("trained"), config)
    total = config.optim.iterations
    # a recipe of more iterations than were made just goes on
    wrong = {k: v for k, v in changes.items() if k in FIXED or (k == "exposure.loss" and "uno" in v) or step >= total}
    if wrong or step > total:
        why = "is at its end" if step >= total else "goes on with what it was begun with"
        listed = "; ".join(f"{k} = {said(now)}, was {said(before)}" for k, (before, now) in sorted(wrong.items()))
        raise XenomaskError(
            f"the run in {config.work_dir} {why} (iter_{step}), and this recipe is another: "
            f"{listed or f'optim.iterations = {total}'}; choose another work_dir (with iter_{step} as init, to build "
            "on it), or the recipe of before"
        )
    return changes


def said(value: Any) -> str:
    """A value in one short piece of text, as TOML has it where that differs from Python."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def expected_classes(config: TrainConfig) -> tuple[str, ...]:
    """The classes of the network that the recipe trains."""
    if config.data.labels:
        names = tuple(read_label_map(config.data.labels).classes)
    else:
        names = tuple(str(n) for _, n in sorted((preset(config.preset).config.id2label or {}).items()))
    unknown_too = config.exposure is not None and config.exposure.loss == "uno" and names[-1] != OUTLIER_NAME
    return (*names, OUTLIER_NAME) if unknown_too else names


def stored_facts(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of its training; empty where it says nothing."""
    return read_object(folder / CARD) if (folder / CARD).is_file() else {}


def differences(stored: Any, config: TrainConfig) -> Changes:
    """What of a stored recipe is another now, by its keys in the file; {} where none was stored."""
    if not isinstance(stored, Mapping):
        return {}
    try:  # with what later keys stand for when they are left out
        stored = TrainConfig.model_validate(dict(stored)).model_dump(mode="json")
    except ValidationError:  # of another version
        pass
    before, now = flat(stored), flat(config.model_dump(mode="json"))
    keys = [k for k in (*now, *(k for k in before if k not in now)) if not k.startswith(FREE)]
    return {k: [before.get(k), now.get(k)] for k in keys if before.get(k) != now.get(k)}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by dotted names.

    >>> flat({"seed": 0, "optim": {"lr": 0.1}, "exposure": None})
    {'seed': 0, 'optim.lr': 0.1, 'exposure': None}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:  # an empty list is what a key that was left out stands for
            found[f"{prefix}{key}"] = None if value == [] else value
    return found


def history(work_dir: Path, step: int | None, changes: Changes) -> list[dict[str, Any]]:
    """From which step on which keys of the recipe were others, for the checkpoint's facts; logs the new ones."""
    if step is None:
        return [{"from_step": 0}]
    before = stored_facts(work_dir / f"iter_{step}").get("history") or [{"from_step": 0}]
    if not changes:
        return before
    for key, (old, new) in changes.items():
        log.info("from step %d on: %s = %s, was %s", step, key, said(new), said(old))
    return [*before, {"from_step": step, "changed": changes}]


def same_validation(changes: Changes) -> bool:
    """Whether an mIoU of before can be compared with one of now."""
    return not any(k in VALIDATION for k in changes)
