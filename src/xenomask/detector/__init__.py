"""detector: members -> what predicts; one folder on disk, or one repository of the Hub."""

from xenomask.detector.detector import Detector as Detector
from xenomask.detector.member import Member as Member
from xenomask.detector.prediction import Prediction as Prediction
