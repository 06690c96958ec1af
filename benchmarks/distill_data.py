"""Scenes for a distillation: training photos with objects pasted in, as a folder data set that the teacher can score.

    D=work_dirs/distill-data; python benchmarks/distill_data.py configs/nano-l-large.toml --count 700 --out $D
    xenomask score --dataset folder --root $D/photos --tta mirror,288,384 --out work_dirs/distill-maps
    xenomask train configs/nano-l-distilled.toml

A recipe's own pasting comes after its teacher's maps were made; here the teacher sees the objects too.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from nano_data import write
from rich.progress import track

from xenomask.datasets import open_dataset
from xenomask.datasets.labelmap import read_label_map
from xenomask.train.config import read_config
from xenomask.train.cutouts import list_cutouts
from xenomask.train.paste import paste
from xenomask.types import CITYSCAPES_CLASSES, OUTLIER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recipe",
        type=Path,
        nargs="?",
        default=Path("configs/nano-l-large.toml"),
        help="its data and augment say what is pasted where",
    )
    parser.add_argument("--count", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/distill-data"))
    args = parser.parse_args()
    config = read_config(args.recipe)
    data, a = config.data, config.augment
    assert a.paste is not None
    frames = open_dataset(data.dataset, data.train, split="train", coding="train_ids", resize=data.resize)
    frames = replace(frames, labels=read_label_map(data.labels) if data.labels else None).labelled()
    cutouts = list_cutouts(a.paste, a.paste_coco)
    for part in ("images", "labels"):
        (args.out / part).mkdir(parents=True, exist_ok=True)
    (args.out / "photos").mkdir(exist_ok=True)  # without labels, which are none of anomalies
    if not (link := args.out / "photos" / "images").is_symlink():
        link.symlink_to(Path("..", "images"))
    ids = [f'{i} = "{name}"' for i, name in enumerate(CITYSCAPES_CLASSES)]
    table = [f"classes = {json.dumps(CITYSCAPES_CLASSES)}", 'other = "void"', "[ids]", *ids, f'{OUTLIER} = "outlier"']
    (args.out / "labels.toml").write_text("\n".join(table) + "\n")
    rng = np.random.default_rng(args.seed)
    for index in track(rng.permutation(len(frames.frames))[: args.count], "scenes"):
        sample = frames.sample(frames.frames[index])
        if rng.random() < a.paste_share:
            sample = paste(sample, cutouts, int(rng.integers(2**31)), a)
        assert sample.label is not None
        write(args.out, sample.id, sample.image, sample.label)


if __name__ == "__main__":
    main()
