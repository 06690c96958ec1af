"""detector: members -> what predicts; one folder on disk, or one repository of the Hub."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a mistyped name is refused by detector.find, which loads no torch
    from xenomask.detector.detector import Detector as Detector
    from xenomask.detector.member import Member as Member
    from xenomask.detector.prediction import Prediction as Prediction

_LATER = {"Detector": "detector", "Member": "member", "Prediction": "prediction"}


def __getattr__(name: str) -> object:
    """What is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'xenomask.detector' has no attribute {name!r}")
    return getattr(import_module(f"xenomask.detector.{_LATER[name]}"), name)
