"""The recipe: a TOML file -> TrainConfig, every key known and checked."""

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from xenomask.errors import XenomaskError, unknown
from xenomask.files import read_text

# the recipes that come with a wheel; a clone has them in its own folder configs/
SHIPPED = Path(__file__).parents[1] / "configs"


# what no photo, machine or run has more of: beyond, a number is a slip
MOST_STEPS, MOST_EDGE, MOST_IMAGES = 10**8, 8192, 2**16
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Edge = Annotated[int, Field(ge=16, le=MOST_EDGE)]  # pixels; the coarsest features are of stride 32


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: Any) -> Any:
        # pydantic would take true for 1 and "4" for 4
        wanted = str(cls.model_fields[info.field_name or ""].annotation)
        held = value if isinstance(value, list | tuple) else [value]
        if re.search(r"\b(int|float)\b", wanted):
            for v in held:
                if isinstance(v, bool | str):
                    raise ValueError(f"{json.dumps(v)} is no number")
        return value


class Data(_Table):
    """[data]: what is trained and validated on."""

    dataset: Literal["cityscapes", "acdc", "vistas", "idd", "camvid", "folder"] = "cityscapes"
    labels: Path | None = None  # label map: classes of one's own, see xenomask.datasets.labelmap
    train: Path  # root of the training frames (of all but folder: the data set's root)
    val: Path | None = None  # root of the validation frames (of all but folder: the same root)
    resize: tuple[Edge, Edge] | None = None  # (height, width) on loading, e.g. to undo a squeezed copy
    # what void teaches the masks: "outside" of every one, as published, or nothing; a pasted object is always outside
    void: Literal["outside", "ignored"] = "outside"
    val_frames: int = Field(default=100, ge=1, le=MOST_STEPS)  # validate on the first so many frames (sorted by id)


class Augment(_Table):
    """[augment]: in this order, see xenomask.train.augment."""

    # one of these, drawn evenly
    short_edge: tuple[Edge, ...] = Field(default=(192, 224, 256, 288, 320, 352, 384, 416, 448), min_length=1)
    longest: int = Field(default=4096, ge=16, le=2 * MOST_EDGE)  # the longest edge is never resized beyond
    crop: tuple[Edge, Edge] = (192, 384)  # (height, width); smaller images are padded with void
    crop_cap: float = Field(default=0.75, gt=0, le=1)  # largest share of one class in a crop; 1: any labelled crop
    flip: float = Field(default=0.5, ge=0, le=1)
    paste: Path | None = None  # folder of RGBA cut-outs pasted as outliers, before the rest
    paste_coco: Path | None = None  # COCO's instances file: then `paste` is the folder of its photos
    paste_share: float = Field(default=0.6, ge=0, le=1)  # of the examples that get one to `paste_most` of them
    paste_most: int = Field(default=3, ge=1, le=20)
    paste_least: float = Field(default=0.08, gt=0, le=2)  # smallest height, of the photo's
    paste_largest: float = Field(default=0.6, gt=0, le=2)  # largest; beyond 1 the object is cut off at the edges
    paste_depth: bool = False  # size by where the object stands: the lower in the photo, the nearer and larger
    paste_match: float = Field(default=0.0, ge=0, le=1)  # how far its colours move towards the place's; 0: not
    paste_soft: float = Field(default=0.0, ge=0, le=100)  # sigma of the soft inner edge, pixels of the photo; 0: none
    photometric: float = Field(default=0.5, ge=0, le=1)  # probability of each jitter: brightness, contrast, ...

    @field_validator("paste_coco")
    @classmethod
    def _with_its_photos(cls, value: Path | None, info: Any) -> Path | None:
        if value is not None and info.data.get("paste") is None:
            raise ValueError("needs paste, the folder of its photos")
        return value

    @field_validator("paste_largest")
    @classmethod
    def _not_below_the_smallest(cls, value: float, info: Any) -> float:
        if value < info.data.get("paste_least", 0):
            raise ValueError(f"must be at least paste_least, {info.data['paste_least']}")
        return value


class Exposure(_Table):
    """[exposure]: fine-tuning with pasted outliers (augment.paste), see xenomask.train.exposure."""

    loss: Literal["void", "rba", "mask2anomaly", "eam", "uno"] = "void"  # beside the set-prediction loss
    weight: float = Field(default=1.0, ge=0, le=1e4)  # of rba, mask2anomaly, eam
    margin: float | None = Field(default=None, ge=-100, le=100)  # theirs; None: each one's own
    released: bool = False  # the form that the authors released, defects and all
    tune: tuple[str, ...] = ()  # only parameters whose names contain one of these are trained; none: all


class Distill(_Table):
    """[distill]: a teacher's maps are learnt beside the labels, see xenomask.train.distill."""

    maps: Path  # folder that `xenomask score` wrote for the training photos, as they are trained on
    low: float = Field(default=-1.0, ge=-1e9, le=1e9)  # the map's values that stand for ordinary ...
    high: float = Field(default=0.0, ge=-1e9, le=1e9)  # ... and for anomalous: those of max_logit
    weight: float = Field(default=5.0, ge=0, le=1e4)  # of the map's two terms; 5 is that of the masks' own
    keep: float = Field(default=0.0, ge=0, le=1e4)  # of the divergence from the classes that `init` sees; 0: not asked


class Optim(_Table):
    """[optim]: AdamW, linear warm-up, then poly."""

    iterations: Steps
    batch: int = Field(default=4, ge=1, le=MOST_IMAGES)  # images a step, over all processes
    accumulate: int = Field(default=1, ge=1, le=MOST_IMAGES)  # parts in which each process computes its share
    lr: float = Field(default=4e-4, gt=0, le=1)
    backbone_lr: float = Field(default=0.25, ge=0, le=100)  # times lr
    weight_decay: float = Field(default=0.05, ge=0, le=10)  # none on norms, embeddings, relative position tables
    clip: float = Field(default=1.0, gt=0, le=1e9)  # norm of the whole model's gradient
    power: float = Field(default=0.9, gt=0, le=100)
    warmup: int = Field(default=100, ge=0, le=MOST_STEPS)
    ema: float = Field(default=0.0, ge=0, lt=1)  # decay of the weights' moving average, which is what is saved; 0: none


class Engine(_Table):
    """[engine]: how the steps are computed; none of it changes what is computed beyond rounding, but the precision."""

    precision: Literal["no", "bf16", "fp16"] = "no"
    shard: bool = False  # FSDP instead of DDP where several processes run (torchrun)
    checkpoint_activations: bool = False  # less memory, one more forward
    compile: bool = False  # torch.compile
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()  # beside the files of the work folder


class TrainConfig(_Table):
    """One training run."""

    preset: str
    queries: int | None = Field(default=None, ge=1, le=1000)  # number of queries; None: the preset's
    work_dir: Path
    seed: int = Field(default=0, ge=0, lt=2**63)
    # weights to start from: a checkpoint folder; or of the backbone alone: for a Swin a file or folder of microsoft's,
    # timm's or Hugging Face's names, or a Hub name (timm/..., microsoft/swin-...), for the nanos an EfficientNet-Lite
    init: Path | None = None
    save_every: int = Field(default=100, ge=1, le=MOST_STEPS)
    val_every: int = Field(default=1000, ge=1, le=MOST_STEPS)
    log_every: int = Field(default=20, ge=1, le=MOST_STEPS)
    keep: int = Field(default=2, ge=1, le=MOST_STEPS)  # newest checkpoints kept, beside the best
    workers: int = Field(default=0, ge=0, le=1024)  # processes that prepare batches
    threads: int | None = Field(default=None, ge=1, le=1024)  # torch's threads; None: torch decides
    data: Data
    augment: Augment = Field(default_factory=Augment)
    exposure: Exposure | None = None
    distill: Distill | None = None
    optim: Optim
    engine: Engine = Field(default_factory=Engine)


TABLES: dict[str, type[BaseModel]] = {
    "data": Data, "augment": Augment, "exposure": Exposure, "distill": Distill, "optim": Optim, "engine": Engine,
}  # fmt: skip


def checked(config: TrainConfig) -> TrainConfig:
    """The recipe, its values checked once more: `model_copy` takes whatever it is given.

    Raises XenomaskError that names the first wrong one.
    """
    try:
        return TrainConfig.model_validate(config.model_dump(warnings=False))
    except ValidationError as e:
        raise _explain(e, Path("the recipe")) from e


def _explain(error: ValidationError, path: Path) -> XenomaskError:
    """The first complaint of pydantic in the words of the file."""
    first = error.errors()[0]
    *tables, key = (str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = TrainConfig
        for table in tables:
            model = TABLES[table]
        where = f" in [{'.'.join(tables)}]" if tables else ""
        return XenomaskError(f"{path}: {unknown(f'key{where}', key, model.model_fields)}")
    said = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    shown = f", not {str(given)[:60]}" if first["type"] != "missing" and not isinstance(given, dict) else ""
    return XenomaskError(f"{path}: {'.'.join([*tables, key])}: {said}{shown}")


def read_config(path: Path) -> TrainConfig:
    """Reads a recipe; paths in it are relative to the current folder.

    `configs/NAME.toml` is also found where only the package is installed. Raises XenomaskError for a missing file, bad
    TOML, an unknown or missing key and a value out of range.
    """
    if path.parent == Path("configs") and not path.exists() and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    try:
        table = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise XenomaskError(f"no such recipe: {path}") from None
    except tomllib.TOMLDecodeError as e:
        raise XenomaskError(f"{path} is not valid TOML: {e}") from e
    except RecursionError as e:
        raise XenomaskError(f"{path} is nested too deeply") from e
    try:
        return TrainConfig.model_validate(table)
    except ValidationError as e:
        raise _explain(e, path) from e
