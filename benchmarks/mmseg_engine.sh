#!/usr/bin/env bash
# `xenomask train --engine mmseg` with the real MMSegmentation, on a CPU: six iterations of a shrunken Mask2Former on drawn
# scenes, then its conversion. Not among the tests, for it installs packages (about 70 MB).
#
#   benchmarks/mmseg_engine.sh FOLDER          FOLDER is made, or used again
#
# PYTHON: an interpreter that has xenomask, default python; the new environment sees its packages (torch, numpy, ...).
#
# mmcv-lite has all of mmcv but its compiled operators. On a CPU none of them is called by a Mask2Former, only imported, so
# they are replaced by functions that raise; on a GPU take mmcv==2.1.0 itself.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
mkdir -p "$1" && cd "$1"
export PYTHONPATH=$here/src${PYTHONPATH:+:$PYTHONPATH}

if [ ! -f env/ready ]; then
    "$python" -m venv --clear --without-pip env
    site=$(env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/parent.pth"
    # --no-deps: torch, numpy and OpenCV stay as they are
    "$python" -m pip install --quiet --no-deps --target "$site" \
        mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0 mmsegmentation==1.2.2 addict==2.4.0 yapf==0.43.0 \
        termcolor==3.3.0 platformdirs pycocotools==2.0.11 terminaltables==3.1.10 shapely==2.2.0 prettytable==3.18.0 \
        wcwidth ftfy==6.3.1 regex six
    cat > "$site/sitecustomize.py" <<'SHIM'
import sys
import types
from importlib.machinery import ModuleSpec


class Missing(types.ModuleType):
    """mmcv's compiled operators, which mmcv-lite lacks: importable, and an error once called."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*args, **kwargs):
            raise NotImplementedError(f"mmcv-lite has no compiled {name}")

        return operator


found = sys.modules["mmcv._ext"] = Missing("mmcv._ext")
found.__spec__ = ModuleSpec("mmcv._ext", None)
SHIM
    touch env/ready
fi

if [ ! -e data/cityscapes/leftImg8bit/train ]; then
    "$python" -m xenomask.cli synthetic --out data/cityscapes --layout cityscapes --frames 4 --size 512x256
    for kind in leftImg8bit gtFine; do ln -s val "data/cityscapes/$kind/train"; done
fi

# the config that a run of that network dumped; it looks for data/cityscapes below the current folder
"$python" -m xenomask.cli train --engine mmseg "$here/tests/golden/mmseg/config.py" --python env/bin/python --work-dir run
"$python" - <<'LOOK'
from pathlib import Path

import numpy as np

from xenomask.models import load

network = load(Path("run/iter_6"))
out = network.predict(np.full((128, 256, 3), 90, np.uint8))
facts = network.facts["converted"]
print("looks at a photo:", tuple(out.class_logits.shape), tuple(out.mask_logits.shape), "mIoU", facts["miou"])
LOOK
