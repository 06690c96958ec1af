"""How the fused kernels finish a score: the first number of a plan's step; and what they leave out."""

MASKOMALY, SUM, MAX_LOGIT, MAX_SHARE, MSP, ENERGY, ENTROPY, ENTROPY_SOFTMAX, NOT_COVERED, RBA = range(10)

# of max_logit alone: what a query adds at most to the classes that can be the largest in a tile, where it is left out;
# a hundred of them change L by 1e-6
TOO_LITTLE = 1e-8
