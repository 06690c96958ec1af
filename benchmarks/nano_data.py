"""The training scenes of the shipped networks, of several data sets: `images`, `labels`, `objects`, `objects-built`.

    python benchmarks/nano_data.py --data ../shared/data --out work_dirs/nano-data

What the sources leave unlabelled is filled with what the shipped detector takes it for, within what the source says of
it (of a vehicle: which kind), as none of these photos shows anything that is not ordinary. Only Cityscapes' void stays
void, for its things are of no class; but void that touches the lower edge is the own car, and labelled so.
"""

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import track

from xenomask import load_model
from xenomask.datasets.read import read_photo
from xenomask.datasets.synthetic import draw_scene
from xenomask.masks import class_probabilities, semantic, soft_masks
from xenomask.models import Network
from xenomask.types import CITYSCAPES_CLASSES, VOID

ID = {name: i for i, name in enumerate(CITYSCAPES_CLASSES)}
VEHICLES = ["car", "truck", "bus", "train", "motorcycle", "bicycle"]
STANDING = ["building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"]
# IDD-lite's seven groups -> what the detector may take them for; people share a group with animals, so nothing is said
GROUPS = {
    0: ["road"],
    1: ["sidewalk", "terrain", "road"],
    2: [],
    3: VEHICLES,
    4: STANDING,
    5: ["building", "wall", "fence", "vegetation", "pole"],
    6: ["sky"],
}
# Cut-outs that are built like vehicles or as large as one: they stand six times in `objects-built`.
BUILT = re.compile(
    "airplane|boat|helicopter|schooner|ketch|wheelchair|cannon|barrel|skateboard|refrigerator|inline-skate|grand-piano|"
    "umbrella|bed_|couch|bench|ferry|stove|oven",
    re.IGNORECASE,
)
LOWEST = 0.72  # of the photo's height: void that begins below and touches the lower edge is the own car


def own_car(label: np.ndarray) -> np.ndarray:
    """Void that touches the lower edge, and all of which lies low, becomes car."""
    out, H = label.copy(), label.shape[0]
    count, parts, stats, _ = cv2.connectedComponentsWithStats((label == VOID).astype(np.uint8), connectivity=4)
    for k in range(1, count):
        top, tall, area = stats[k, cv2.CC_STAT_TOP], stats[k, cv2.CC_STAT_HEIGHT], stats[k, cv2.CC_STAT_AREA]
        if top + tall == H and top >= LOWEST * H and area > 0.004 * label.size:
            out[parts == k] = ID["car"]
    return out


def shares(network: Network, image: np.ndarray) -> np.ndarray:
    """L_k of that photo, (K, H, W): masks are resized to a quarter of the photo, and their sums to all of it."""
    H, W = image.shape[:2]
    out = replace(network.predict(image), image_size=(H // 4, W // 4))
    small = semantic(class_probabilities(out), soft_masks(out)).cpu().numpy()
    return np.stack([cv2.resize(part, (W, H), interpolation=cv2.INTER_LINEAR) for part in small])


def filled(label: np.ndarray, likely: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The label, its void replaced by the likeliest class; with `groups`, by the likeliest that the group allows."""
    out = label.copy()
    if groups is None:
        return np.where(out == VOID, likely.argmax(0).astype(np.uint8), out)
    for group, names in GROUPS.items():
        ids = np.array([ID[n] for n in names], np.uint8)
        if len(ids):
            out = np.where(groups == group, ids[likely[ids].argmax(0)], out)
    return out


def write(out: Path, name: str, image: np.ndarray, label: np.ndarray) -> None:
    cv2.imwrite(str(out / "images" / f"{name}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 96])
    cv2.imwrite(str(out / "labels" / f"{name}.png"), label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("work_dirs/nano-data"))
    parser.add_argument("--drawn", type=int, default=150, help="synthetic scenes")
    args = parser.parse_args()
    data, out = args.data, args.out
    for part in ("images", "labels", "objects", "objects-built"):
        (out / part).mkdir(parents=True, exist_ok=True)
    for folder in ("ood_objects", "ood_objects_2"):
        for path in (data / folder).glob("*.webp"):
            link = out / "objects" / f"{folder}-{path.name}"
            if "hoof200" not in path.name and not link.exists():  # grey-scale
                os.symlink(path.resolve(), link)
    for path in sorted((out / "objects").iterdir()):
        for i in range(6 if BUILT.search(path.name) else 1):
            link = out / "objects-built" / (f"{i}-{path.name}" if i else path.name)
            if not link.exists():
                os.symlink(path.resolve(), link)

    torch.set_num_threads(1)
    train = data / "cityscapes_256" / "train"
    for path in track(sorted((train / "images").iterdir()), "cityscapes"):
        if (out / "labels" / f"cityscapes-{path.stem}.png").exists():
            continue
        label = cv2.imread(str(train / "labels" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(read_photo(path), (512, 256), interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (512, 256), interpolation=cv2.INTER_NEAREST)
        write(out, f"cityscapes-{path.stem}", image, own_car(label))
    for seed in range(args.drawn):
        scene = draw_scene(1_000_000 + seed, (720, 1280), anomalies=seed % 3)
        image = cv2.resize(scene.image, (512, 288), interpolation=cv2.INTER_AREA)
        write(out, f"drawn-{seed}", image, cv2.resize(scene.semantic, (512, 288), interpolation=cv2.INTER_NEAREST))
    network = load_model("src/xenomask/detectors/nano/nano-l")
    network = replace(network, preprocess=replace(network.preprocess, size=256))  # the photos are small
    for name in ("camvid", "idd_lite", "rtk"):
        folder = data / "driving_2" / name
        paths = [p for p in sorted((folder / "images").iterdir()) if not p.name.startswith("test_")]
        for path in track(paths, name):
            if (out / "labels" / f"{name}-{path.stem}.png").exists():
                continue
            image = read_photo(path)
            label = cv2.imread(str(folder / "labels" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
            raw = folder / "labels_raw" / f"{path.stem}.png"
            groups = cv2.imread(str(raw), cv2.IMREAD_GRAYSCALE) if raw.exists() else None
            label = filled(label, shares(network, image), groups)
            if name == "idd_lite":  # stored at 320x227, of photos of 16:9
                image = cv2.resize(image, (404, 227), interpolation=cv2.INTER_LINEAR)
                label = cv2.resize(label, (404, 227), interpolation=cv2.INTER_NEAREST)
            write(out, f"{name}-{path.stem}", image, label)
    print(f"{len(list((out / 'images').iterdir()))} scenes, {len(list((out / 'objects').iterdir()))} objects")


if __name__ == "__main__":
    main()
