"""Where a network can compute."""

import torch

from xenomask.errors import XenomaskError, first_line


def check_device(name: str) -> None:
    """Raises XenomaskError unless this is the name of a device on which torch computes here, such as cpu or cuda:1."""
    try:
        # a sum that comes back: a tensor alone can be made on "meta", which holds no numbers
        if (torch.ones(2, device=name) + 1).sum().item() == 4:
            return
        reason = "it does not compute"
    except Exception as e:  # each backend that is not there says so in its own way
        unknown = "Expected one of" in str(e)  # torch lists twenty kinds
        reason = "there is no such kind: it is cpu, or cuda (cuda:1, ...) for a GPU" if unknown else first_line(e)
    raise XenomaskError(f"device {str(name)[:60]} cannot be used: {reason}")
