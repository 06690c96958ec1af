"""What the commands of the kill and read-only tests read."""

from helpers.world import world  # noqa: F401
