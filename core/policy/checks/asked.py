"""What the sets and arrays of rules are asked for: whether some text in one may be meant for another field."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...events.inline import NamePath


@dataclass(slots=True)
class Asked:
    """What one walk through a policy finds, for the next one."""

    alone: frozenset[NamePath] = frozenset()
    """Rules that are only ever asked whether they have a value of one certain enumeration."""
    _read: dict[NamePath, set[str]] = field(default_factory=dict)
    _by: dict[str, set[str]] = field(default_factory=dict)

    def read(self, rule: NamePath, place: str) -> None:
        """A rule is read there."""
        self._read.setdefault(rule, set()).add(place)

    def by(self, place: str, domain: str) -> None:
        """What is read there is asked for a value of this domain; empty: of any other."""
        self._by.setdefault(place, set()).add(domain)

    def again(self) -> bool:
        """End a walk; whether it found others than the one before, so that there must be one more."""
        before, self.alone = self.alone, frozenset(rule for rule in self._read if self._is_alone(rule))
        self._read, self._by = {}, {}
        return before != self.alone

    def _is_alone(self, rule: NamePath) -> bool:
        domains = set[str]().union(*(self._by.get(place, {""}) for place in self._read[rule]))
        return len(domains) == 1 and "" not in domains
