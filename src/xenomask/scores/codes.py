"""How the fused kernels finish a score: the first number of a plan's step."""

MASKOMALY, SUM, MAX_LOGIT, MAX_SHARE, MSP, ENERGY, ENTROPY, ENTROPY_SOFTMAX, NOT_COVERED, RBA = range(10)
