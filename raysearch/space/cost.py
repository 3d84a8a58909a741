"""What a subnet costs, in closed form, and the budget that it must keep. No model is built here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from raysearch.bounds import NotNegative, Positive, check_numbers
from raysearch.errors import UserError

Quantity = Literal["params", "macs", "latency"]
"""What networks are cheap or dear in: parameters, multiply-accumulates, milliseconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one subnet costs."""

    params: int
    """Parameters that the extracted subnet holds."""
    macs: int
    """Multiply-accumulates of one forward pass of one image."""
    latency_ms: float | None = None
    """Predicted milliseconds of one forward pass of a batch, where a latency table was fitted."""

    def of(self, quantity: Quantity) -> float:
        """How much of it. Latency must have been predicted."""
        value = {"params": self.params, "macs": self.macs, "latency": self.latency_ms}[quantity]
        assert value is not None, "no latency was predicted"
        return value


@dataclass(frozen=True, slots=True)
class Constraint:
    """A budget: inclusive limits on parameters, multiply-accumulates and latency. None means no limit."""

    min_params: NotNegative | None = None
    """Fewest parameters, as 5e6."""
    max_params: NotNegative | None = None
    """Most parameters, as 6e6."""
    min_macs: NotNegative | None = None
    """Fewest multiply-accumulates per image, as 1e9."""
    max_macs: NotNegative | None = None
    """Most multiply-accumulates per image, as 1.5e9."""
    max_latency_ms: Positive | None = None
    """Most milliseconds per forward pass, measured on the evaluator's device."""

    def __post_init__(self) -> None:
        """Raises UserError for a limit that is not positive and finite; :meth:`check_band` for min above max."""
        check_numbers(self)

    def check_band(self) -> None:
        """Raises UserError for a lower limit above the upper one.

        Not done at once: limits come one by one from a recipe and from the command line, which may replace but one of a pair.
        """
        for name, low, high in (("params", self.min_params, self.max_params), ("macs", self.min_macs, self.max_macs)):
            if low is not None and high is not None and low > high:
                raise UserError(f"empty band: min-{name} {low:,.0f} is above max-{name} {high:,.0f}; give both limits")

    @property
    def quantity(self) -> Quantity:
        """What the budget is of: latency where that is limited, MACs where they are and parameters are not, else parameters."""
        if self.max_latency_ms is not None:
            return "latency"
        macs = self.min_macs is not None or self.max_macs is not None
        return "macs" if macs and self.min_params is None and self.max_params is None else "params"

    def around(self, cost: Cost, *, within: float) -> Constraint:
        """The same budget, in which :attr:`quantity` differs from ``cost`` by at most a share ``within``.

        Not from below for a latency, which has no lower limit.
        """
        if self.quantity == "latency":
            most = cost.of("latency") * (1 + within)
            return replace(self, max_latency_ms=most if self.max_latency_ms is None else min(most, self.max_latency_ms))
        name, value = self.quantity, cost.of(self.quantity)
        low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
        low = value * (1 - within) if low is None else max(low, value * (1 - within))
        high = value * (1 + within) if high is None else min(high, value * (1 + within))
        return replace(self, **{f"min_{name}": low, f"max_{name}": high})

    def admits(self, cost: Cost) -> bool:
        """Whether ``cost`` keeps every limit."""
        return self.distance(cost) == 0

    def exceeded_by(self, cost: Cost) -> bool:
        """Whether ``cost`` is above an upper limit."""
        pairs = ((cost.params, self.max_params), (cost.macs, self.max_macs), (cost.latency_ms, self.max_latency_ms))
        return any(value is not None and high is not None and value > high for value, high in pairs)

    def distance(self, cost: Cost) -> float:
        """How far ``cost`` lies outside the band, relative to the limit that it breaks; 0 inside."""
        total = 0.0
        for value, low, high in (
            (cost.params, self.min_params, self.max_params),
            (cost.macs, self.min_macs, self.max_macs),
        ):
            if low is not None and value < low:
                total += (low - value) / low
            if high is not None and value > high:
                total += (value - high) / max(high, 1)
        if self.max_latency_ms is not None and cost.latency_ms is not None and cost.latency_ms > self.max_latency_ms:
            total += (cost.latency_ms - self.max_latency_ms) / self.max_latency_ms
        return total

    def __str__(self) -> str:
        """The band as people write it, for example ``5,000,000 <= params <= 6,000,000``."""
        parts: list[str] = []
        for name, low, high in (("params", self.min_params, self.max_params), ("macs", self.min_macs, self.max_macs)):
            if low is not None or high is not None:
                left = f"{low:,.0f} <= " if low is not None else ""
                right = f" <= {high:,.0f}" if high is not None else ""
                parts.append(f"{left}{name}{right}")
        if self.max_latency_ms is not None:
            parts.append(f"latency <= {self.max_latency_ms:g} ms")
        return ", ".join(parts) or "no limit"
