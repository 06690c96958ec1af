"""What every converter gives back."""

from collections.abc import Mapping
from dataclasses import dataclass

from xenomask.models.network import Network


@dataclass(frozen=True)
class Converted:
    """A network made from a foreign checkpoint, and each of its tensors that was knowingly left out, with the reason."""

    network: Network
    dropped: Mapping[str, str]
