"""Who is in those of the kernel's lists that change seldom: compared with who was there at the first look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .entry import Entry

NOBODY = "?"


@dataclass(frozen=True, slots=True)
class Change:
    """A function that came to a list, or went from it."""

    entry: Entry
    came: bool
    symbol: str
    """Of the function; empty where it has no name."""
    owner: str
    """Whose it is, or was when it came."""


@dataclass(frozen=True, slots=True)
class _Known:
    symbol: str
    owner: str


class Entered:
    """The lists as they were last told. Functions that are nobody's are told elsewhere, for as long as they are."""

    def __init__(self) -> None:
        """Nothing is known yet: what the first look finds is not told."""
        self._known: dict[str, dict[Entry, _Known]] = {}

    def changes(self, lists: Mapping[str, Iterable[Entry]]) -> set[tuple[str, Entry, bool]]:
        """List, function, and whether it came, in comparison with what is known. Lists that are new have none."""
        found = set()
        for name, entries in lists.items():
            known, now = self._known.get(name), set(entries)
            if known is not None:
                found |= {(name, each, True) for each in now - known.keys()}
                found |= {(name, each, False) for each in known.keys() - now}
        return found

    def take(
        self,
        lists: Mapping[str, Iterable[Entry]],
        changed: Iterable[tuple[str, Entry, bool]],
        name_of: Callable[[int], tuple[str, str]],
    ) -> list[Change]:
        """Know these changes from now on, and lists that are new; what is to be told of them.

        `name_of`: symbol and owner of a function, `NOBODY` where nobody has it.
        """
        for name in lists.keys() - self._known.keys():
            self._known[name] = {each: _Known(*name_of(each.function)) for each in lists[name]}
        told = []
        for name, entry, came in sorted(changed, key=lambda each: (each[2], each[0], each[1].address)):
            known = self._known[name]
            if came:
                known[entry] = _Known(*name_of(entry.function))
            who = known[entry] if came else known.pop(entry)
            if who.owner != NOBODY:
                told.append(Change(entry, came, who.symbol, who.owner))
        return told
