"""What the judge may still spend: calls, and money where prices are given."""

from __future__ import annotations

from dataclasses import dataclass

from guardkit_judge.answer import Usage
from guardkit_judge.options import JudgeOptions, Price

_FREE = Price(input=0.0, output=0.0)


class SpentError(Exception):
    """The budget does not reach for another call."""


@dataclass
class Budget:
    """The budget of one process. A call is charged at its dearest before it is made (a token is a
    byte at least), and at what it used when that is known: the budget is never exceeded."""

    options: JudgeOptions
    calls: int = 0
    cost: float = 0.0

    def reserve(self, request_bytes: int, max_tokens: int) -> float:
        """Charge a call and return what was charged. Raises SpentError where it is too much."""
        limit = self.options.max_calls
        if limit is not None and self.calls >= limit:
            raise SpentError(f"its budget of {limit:,} calls is spent (max_calls)")
        charged = self._cost(request_bytes, max_tokens)
        most = self.options.max_cost
        if most is not None and self.cost + charged > most:
            raise SpentError(
                f"its budget of {most:g} is spent (max_cost): {self.cost:.6g}, and the next call "
                f"may cost {charged:.6g}"
            )
        self.calls += 1
        self.cost += charged
        return charged

    def settle(self, charged: float, usage: Usage | None) -> None:
        """Charge what a call used in place of what was reserved for it."""
        if usage is not None and usage.prompt_tokens > 0:
            self.cost += self._cost(usage.prompt_tokens, usage.completion_tokens) - charged

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        price = self.options.price_per_million or _FREE
        return (tokens_in * price.input + tokens_out * price.output) / 1e6
