"""Lost processes are started again, so many times and with a line each."""

from __future__ import annotations

from collections.abc import Callable

from raysearch.distributed.cluster import brief
from raysearch.errors import UserError

RESTARTS = 5
"""How often what runs once, as the pool of evaluators, is started again after its process was lost."""


class Restarts:
    """How often something may be lost and started again, each time with one line.

    Args:
        what: as ``the pool of evaluators``.
        say: gets the lines.

    """

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self.what, self.say, self.count = what, say, 0

    def another(self, error: Exception) -> None:
        """Say that one more follows. Raises UserError when there were enough."""
        if self.count == RESTARTS:
            raise UserError(
                f"{self.what} was lost {RESTARTS + 1} times, now: {brief(error)}; look at this machine's memory, "
                "then --resume continues"
            ) from error
        self.count += 1
        self.say(f"{self.what} was lost and is started again ({self.count} of {RESTARTS}): {brief(error)}")
