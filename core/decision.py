"""Decisions are values: what the policy answers for one event, and how several answers become one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple

_EPERM = 1


class Action(IntEnum):
    """What a rule asks for. The strongest of several wins."""

    ALLOW = 0
    LOG = 1
    OVERRIDE = 2
    """The operation is refused: its caller gets an error."""
    KILL = 3

    def __str__(self) -> str:
        """The name that policies and journals use."""
        return self.name.lower()


class Scope(IntEnum):
    """Whom a decision binds. The widest of several wins."""

    EVENT = 0
    """This operation."""
    PROCESS = 1
    """Poison: this process and its future children, until the time runs out or it is cleared."""
    HOST = 2
    """Every process but the agent and what the configuration exempts."""

    def __str__(self) -> str:
        """The name that policies and journals use."""
        return self.name.lower()


class Mode(IntEnum):
    """What a plugin's decisions lead to."""

    OBSERVE = 0
    """Decide and journal, touch nothing."""
    ENFORCE = 1
    """Carry out what was decided."""

    def __str__(self) -> str:
        """The name that the configuration and journals use."""
        return self.name.lower()


class FiredRule(NamedTuple):
    """One rule that fired for an event.

    A tuple, as `Decision`: decisions are remembered and shown to plugins, and no trick of theirs may change them.
    """

    id: str
    action: Action
    scope: Scope = Scope.EVENT
    errno: int = 0
    """The error that the caller gets; 0 unless the action is `override`."""
    ttl_s: int = 0
    """Seconds that a wider scope lasts; 0 for scope `event`."""

    @property
    def beyond_refusing(self) -> bool:
        """Whether it asks for more than that one operation fails."""
        return self.action is Action.KILL or (self.action is Action.OVERRIDE and self.scope is not Scope.EVENT)

    def refusing(self) -> FiredRule:
        """The same rule, asking for no more than that this operation fails."""
        return self._replace(action=Action.OVERRIDE, scope=Scope.EVENT, errno=self.errno or _EPERM, ttl_s=0)


class Decision(NamedTuple):
    """What the policy answers for one event."""

    action: Action
    scope: Scope
    errno: int
    ttl_s: int
    rules: tuple[FiredRule, ...]
    """All rules that fired, by id."""
    tier: str
    """`user`, or `kernel` when BPF decided on the first occurrence."""
    revision: str
    """Digest over all policies and data that were in force."""
    error: str = ""
    """Why part of the policy could not be evaluated; the configured reaction was added to the rules."""
    engine: str = ""
    """Who decided, where an OPA server is configured: `opa`, or `embedded`, which stood in; else empty."""

    def to_json(self) -> dict[str, Any]:
        """As the journal writes it."""
        answer: dict[str, Any] = {
            "action": str(self.action),
            "scope": str(self.scope),
            "errno": self.errno,
            "ttl_s": self.ttl_s,
            "rules": [{"id": each.id, "action": str(each.action)} for each in self.rules],
            "tier": self.tier,
            "revision": self.revision,
        }
        if self.engine:
            answer["engine"] = self.engine
        return {**answer, "error": self.error} if self.error else answer


def merge(fired: Iterable[FiredRule], *, tier: str, revision: str, error: str = "") -> Decision:
    """Merge rules by the strongest action; `policies/decision.rego` is the reference.

    Scope and time come from the rules with the strongest action only: the widest scope, and the longest time among the
    rules of that scope. The error is that of the first of them by id. A `log` elsewhere never widens a `kill`.
    """
    rules = tuple(sorted(set(fired), key=lambda rule: (rule.id, rule.action, rule.scope, rule.errno, rule.ttl_s)))
    action = max((rule.action for rule in rules), default=Action.ALLOW)
    strongest = [rule for rule in rules if rule.action == action]
    scope = max((rule.scope for rule in strongest), default=Scope.EVENT)
    return Decision(
        action=action,
        scope=scope,
        errno=strongest[0].errno if strongest else 0,
        ttl_s=max((rule.ttl_s for rule in strongest if rule.scope == scope), default=0),
        rules=rules,
        tier=tier,
        revision=revision,
        error=error,
    )
