"""Compute a photo's heatmap with a file of `xenomask export --format onnx --size WxH`, without xenomask and torch.

python run_onnx.py nano.onnx street.jpg heatmap.png      # needs numpy, opencv, onnxruntime
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def main(model: str, photo: str, out: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["xenomask"])
    if about["kind"] != "map":
        sys.exit("this example is for files with a score, not for --queries")
    h, w = about["size"]
    if (image := cv2.imread(photo)) is None:
        sys.exit(f"cannot read {photo}")
    resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if image.shape[0] > h else cv2.INTER_LINEAR)
    batch = np.repeat(resized[None, :, :, ::-1], about["batch"] or 1, 0)  # BGR -> RGB; --batch N: N times the photo
    (score,) = session.run(["score"], {"image": batch})

    low, high = about["scale"]
    value = cv2.resize(score[0], (image.shape[1], image.shape[0]))
    grey = (np.clip((value - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)
    if threshold := about["thresholds"].get("default"):
        anomalous = (value >= threshold["value"]).astype(np.uint8)
        contours, _ = cv2.findContours(anomalous, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(colours, contours, -1, (255, 255, 255), 2)
    if not cv2.imwrite(out, colours):
        sys.exit(f"cannot write {out}")
    print(f"{about['name']}, {about['score']}: {score.min():.3f} .. {score.max():.3f} -> {out}")


main(*sys.argv[1:]) if len(sys.argv) == 4 else sys.exit(__doc__)
