"""What every converter gives back."""

from collections.abc import Mapping
from dataclasses import dataclass

from xenomask.models.network import Network


@dataclass(frozen=True)
class Converted:
    """A network made from a foreign checkpoint, and why each tensor that was left out was."""

    network: Network
    dropped: Mapping[str, str]
