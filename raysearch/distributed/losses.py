"""Why an actor was lost: its process ended, or its node went away and took it along."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from ray._private import state as ray_state

from raysearch.distributed.cluster import Actor
from raysearch.distributed.room import node_lives

LOST_STARTS = 8
"""How many processes may end while they start, or three times as many as there shall be, within :data:`LOST_WITHIN`."""
LOST_WITHIN = 600.0
"""Seconds. Lost starts are counted in time, not in turn: several may run out of memory at once, and others start."""


def node_of(actor: Actor) -> str:
    """Id of the node that an actor was given, also while its constructor runs and after its end; empty before."""
    return _table(actor).get("Address", {}).get("NodeID", "")


def ended_by_itself(actor: Actor) -> bool | None:
    """Whether the process of a lost actor ended while its node lives on; None while nobody knows.

    To be asked before the actor is killed for good, which would be its cause of death then. A machine that vanishes is missed
    by the cluster after some 13 s (measured, 2.60); until then its actors are out of reach, while a process that ends on a
    node that lives is known at once.
    """
    table = _table(actor)
    if not table:
        return None
    if not node_lives(table["Address"]["NodeID"]):
        return False
    if table["State"] != "DEAD":
        return None
    died = table["DeathCause"].actor_died_error_context
    return died.reason != died.NODE_DIED


def _table(actor: Actor) -> dict[str, Any]:
    found: Any = ray_state.state.actor_table(actor._actor_id.hex())
    return cast("dict[str, Any]", found)


class LostStarts:
    """Processes that ended while they started."""

    def __init__(self) -> None:
        self._when: deque[float] = deque()

    def another(self, now: float, *, of: int) -> str | None:
        """Count one more where ``of`` are wanted. Returns how many there were in how long, where that is too many."""
        self._when.append(now)
        while now - self._when[0] > LOST_WITHIN:
            self._when.popleft()
        if len(self._when) < max(LOST_STARTS, 3 * of):
            return None
        return f"{len(self._when)} evaluators were lost while they loaded the supernet, within {now - self._when[0]:.0f} s"
