"""The type checker that jaxtyping runs in tests: beartype, with an int wherever a float is asked for (PEP 484)."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
