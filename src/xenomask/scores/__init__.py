"""scores: MaskOutput + QuerySet -> ScoreMap, one number a pixel; raw, higher = more anomalous."""

from xenomask.scores.definition import SCORES as SCORES
from xenomask.scores.definition import Gather as Gather
from xenomask.scores.definition import Score as Score
from xenomask.scores.definition import get_score as get_score
from xenomask.scores.definition import register as register
from xenomask.scores.score import add_score as add_score
from xenomask.scores.score import as_released as as_released
from xenomask.scores.score import check_classes as check_classes
from xenomask.scores.score import check_queries as check_queries
from xenomask.scores.score import score_all as score_all
from xenomask.scores.score import score_of as score_of
