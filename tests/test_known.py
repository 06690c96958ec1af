"""Known detectors: their query sets and scores are applied to whatever network lies in their place."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from transformers import Mask2FormerForUniversalSegmentation

from fakehub import COMMIT, FakeHub, serve
from test_cli import fails, run
from test_convert_detectron2 import original
from test_hub import point_at
from xenomask import known as known_module
from xenomask.datasets.synthetic import draw_scene
from xenomask.detector import Detector
from xenomask.errors import XenomaskError
from xenomask.known import KNOWN, by_hand
from xenomask.masks import MaskOutput
from xenomask.models.presets import preset
from xenomask.scores import SCORES, get_score
from xenomask.scores.maskomaly import maskomaly
from xenomask.types import QuerySet
