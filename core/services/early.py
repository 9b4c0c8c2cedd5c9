"""What waits for a courier that is not there: decisions, and what is told of the policies that made them."""

from __future__ import annotations

from collections.abc import Sequence

from ..events.wire import Json
from .outbox import Outbox

Told = Sequence[dict[str, Json]]
"""Messages about a policy in force."""


class Early:
    """In their order, so that each decision is masked by the policy that made it."""

    def __init__(self, most: int) -> None:
        """`most`: decisions that may wait."""
        self._most = most
        self._lines: list[str | Told] = []

    def decision(self, line: str, policy: Told) -> bool:
        """Keep one that this policy made; False where too many wait."""
        if len(self._lines) >= self._most:
            return False
        self._lines += [line] if self._lines else [policy, line]
        return True

    def policy(self, told: Told) -> None:
        """Another policy is in force from here on."""
        if not self._lines:
            return  # the next decision says which
        if not isinstance(self._lines[-1], str):
            self._lines.pop()  # it decided nothing
        self._lines.append(told)

    def leave(self, outbox: Outbox, policy: Told) -> None:
        """Hand everything to a courier, or only the policy in force where nothing waits."""
        lines, self._lines = self._lines or [policy], []
        for each in lines:
            if isinstance(each, str):
                outbox.decision(each)
            else:
                for message in each:
                    outbox.tell(message)
