"""plan: recipes + data set -> the steps from training to heatmaps and what waits for what; touches no disk."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenomask.errors import XenomaskError
from xenomask.files import MANIFEST

if TYPE_CHECKING:  # a job of the pipeline reads plans and needs no torch itself
    from xenomask.train.config import TrainConfig

FORMAT = 1
MOST_SHARDS = 10_000  # far more than any queue takes; a damaged plan would be listed shard by shard
OWN = ("configs", "logs", "steps", "detector", "maps", "heatmaps")  # folders of a run beside those of its members


@dataclass(frozen=True)
class Options:
    """What is done with the trained networks: how they are read and on what they are judged."""

    dataset: str
    root: Path
    split: str = "val"
    resize: str | None = None  # WxH
    score: str = "maskomaly"
    weights: tuple[float, ...] = ()  # empty: equal
    leave_one_out: bool = False
    shards: int = 1


@dataclass(frozen=True)
class Step:
    """One job: a `xenomask` command, the steps that it waits for, the files (in the run's folder) that it leaves."""

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...]
    outputs: tuple[str, ...]
    gpu: bool = True
    # how many jobs share it; each is told which it is by --shard I/N
    shards: int = 1


def shard_names(step: Step) -> tuple[str, ...]:
    """What the step's jobs are called: its name, or one name a shard.

    >>> shard_names(Step("score", (), (), (), shards=2))
    ('score-1of2', 'score-2of2')
    """
    if step.shards == 1:
        return (step.name,)
    return tuple(f"{step.name}-{i}of{step.shards}" for i in range(1, step.shards + 1))


def plan(recipes: Mapping[str, "TrainConfig"], options: Options, out: Path) -> tuple[Step, ...]:
    """The steps in an order in which each comes after all that it waits for.

    Every recipe (by the name of its member) is trained and its queries analysed, on its own validation photos and on
    the labelled anomalies; one detector is made of all, which is run on the data set. Raises XenomaskError for shards,
    weights and members' names that cannot be: the step that refuses them waits for all the training.
    """
    if not recipes:
        raise XenomaskError("a pipeline needs one recipe or more")
    _check_shards(options.shards)
    from xenomask.detector.folder import check_names
    from xenomask.detector.fuse import check_weights

    if options.weights:
        check_weights(options.weights, len(recipes))
    check_names(out / "detector", list(recipes))
    if odd := next((n for n in recipes if n.casefold() in OWN or "=" in n), None):
        raise XenomaskError(
            f"recipe {odd}.toml: its member would be called {odd!r}, which no member of a run can be (a folder of the "
            f"run itself: {', '.join(OWN)}, or a name with '='): rename the recipe"
        )
    data = ["--dataset", options.dataset, "--root", str(options.root), "--split", options.split]
    data += ["--resize", options.resize] if options.resize else []
    steps, members = [], []
    for name, recipe in recipes.items():
        folder = f"{name}/iter_{recipe.optim.iterations}"
        checkpoint = ["--checkpoint", str(out / folder)]
        steps += [
            Step(
                f"train-{name}",
                ("train", str(out / f"configs/{name}.toml"), "--work-dir", str(out / name)),
                (),
                (f"{folder}/model.safetensors",),
            ),
            Step(
                f"inlier-{name}",
                ("queries", "inlier", *checkpoint, *_own_photos(recipe)),
                (f"train-{name}",),
                (f"{folder}/query_analysis/specialized.csv",),
            ),
            # after the inlier analysis: both write into one file
            Step(
                f"outlier-{name}",
                ("queries", "outlier", *checkpoint, *data),
                (f"inlier-{name}",),
                (f"{folder}/query_analysis/outlier_iou.csv", f"{folder}/query_analysis/queries.json"),
            ),
        ]
        members += ["--member", f"{name}={out / folder}"]
    weights = [w for weight in options.weights for w in ("--weight", str(weight))]
    maps, loo = str(out / "maps"), ["--leave-one-out"] if options.leave_one_out else []
    judged = ["--maps", maps, *data]
    steps += [
        Step(
            "assemble",
            ("assemble", "--out", str(out / "detector"), *members, *weights, "--score", options.score),
            tuple(f"outlier-{name}" for name in recipes),
            ("detector/detector.json",),
            gpu=False,
        ),
        Step(
            "score",
            ("score", "--detector", str(out / "detector"), *data, "--out", maps, *loo),
            ("assemble",),
            ("maps/manifest.json",),
            shards=options.shards,
        ),
        Step(
            "evaluate",
            ("evaluate", *judged, "--json", str(out / "evaluation.json")),
            ("score",),
            ("evaluation.json",),
            gpu=False,
        ),
        Step(
            "heatmaps",
            ("heatmaps", *judged, "--out", str(out / "heatmaps")),
            ("score",),
            ("heatmaps/contact_sheet.jpg",),
            gpu=False,
        ),
    ]
    return tuple(steps)


def _check_shards(shards: int) -> None:
    if not 1 <= shards <= MOST_SHARDS:
        raise XenomaskError(f"{shards} shards: 1 to {MOST_SHARDS:,}")


def score_alone(arguments: Sequence[str], maps: Path, shards: int) -> tuple[Step, ...]:
    """The one step of scoring with a detector that exists; it waits for nothing. Raises XenomaskError for the shards.

    >>> score_alone(("--out", "/maps"), Path("/maps"), 2)[0].outputs
    ('/maps/manifest.json',)
    """
    _check_shards(shards)
    # an absolute path joined to the run's folder is itself
    return (Step("score", ("score", *arguments), (), (str(maps / MANIFEST),), shards=shards),)


def _own_photos(recipe: "TrainConfig") -> list[str]:
    """The ordinary scenes of a recipe: those it is validated on, or else trained on."""
    data = recipe.data
    root, split = (data.val, "val") if data.val else (data.train, "train")
    size = ["--resize", f"{data.resize[1]}x{data.resize[0]}"] if data.resize else []
    return ["--dataset", data.dataset, "--root", str(root), "--split", split, *size]


def to_json(steps: Sequence[Step]) -> dict[str, Any]:
    """The plan as it is stored in the run's folder."""
    return {"format": FORMAT, "steps": [asdict(s) for s in steps]}


def from_json(table: Mapping[str, Any], where: Path) -> tuple[Step, ...]:
    """Reads what `to_json` gave; raises XenomaskError where it is damaged."""
    try:
        if table["format"] != FORMAT:
            raise XenomaskError(f"{where} is of another version of xenomask (format {table['format']}, not {FORMAT})")
        steps = tuple(
            Step(
                str(s["name"]), tuple(map(str, s["command"])), tuple(map(str, s["after"])),
                tuple(map(str, s["outputs"])), bool(s["gpu"]), int(s["shards"]),
            )
            for s in table["steps"]
        )  # fmt: skip
        if odd := next((s for s in steps if not 1 <= s.shards <= MOST_SHARDS), None):
            raise ValueError(f"{odd.name} in {odd.shards} shards")
        return steps
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise XenomaskError(f"{where} is damaged: {e!r}") from e
