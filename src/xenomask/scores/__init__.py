"""scores: MaskOutput + QuerySet -> ScoreMap, one number a pixel; raw, higher = more anomalous."""

from xenomask.scores.maskomaly import as_released as as_released
from xenomask.scores.score import SCORES as SCORES
from xenomask.scores.score import Score as Score
from xenomask.scores.score import add_score as add_score
from xenomask.scores.score import check_classes as check_classes
from xenomask.scores.score import check_queries as check_queries
from xenomask.scores.score import get_score as get_score
from xenomask.scores.score import score_all as score_all
