"""Callers by a pointer, learnt from a journal: places that the derivation cannot know, as they were seen under work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from krie import ConfigError

from .derivation import Code
from .events import Caller
from .lock_file import LockFile


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a journal gave."""

    lock: LockFile
    added: list[str]
    """`function <- place`, of what the lock file did not have."""
    refused: list[str]
    """The same with a reason, of what is not believed."""


def seen_in(journals: Iterable[Path]) -> dict[str, dict[str, str]]:
    """By function the places that called it, each with its owner (the kernel or a module's name), that no lock knew.

    Raises `ConfigError` for a file that is not a journal.
    """
    found: dict[str, dict[str, str]] = {}
    for place in journals:
        try:
            with place.open() as lines:
                for number, line in enumerate(lines, 1):
                    _take(json.loads(line), found, f"{place}:{number}")
        except OSError as error:
            raise ConfigError(str(place), f"cannot be read: {error.strerror}") from error
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
            raise ConfigError(str(place), f"is not a journal: {error}") from error
    return found


def _take(line: object, found: dict[str, dict[str, str]], where: str) -> None:
    if not isinstance(line, dict):
        raise ConfigError(where, "is not a line of a journal")
    if line.get("kind") != Caller.NAME:
        return
    event = line.get("event")
    names = ("function", "lock", "owner", "return_symbol", "return_module")
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in names):
        raise ConfigError(where, f"is not an event {Caller.NAME}")
    if event["lock"] == "caller":
        owner = event["return_module"] if event["owner"] == "module" else event["owner"]
        found.setdefault(event["function"], {})[event["return_symbol"]] = owner


def learn(lock: LockFile, code: Code, seen: Mapping[str, Mapping[str, str]]) -> Learnt:
    """Add to the lock file what is behind a call by a pointer in this kernel's own code; nothing else is believed.

    A function that has no such callers (nothing takes its address) learns none, since a call from elsewhere is an
    attack then, whoever recorded it.
    """
    functions = dict(lock.functions)
    added, refused = [], []
    for name, places in sorted(seen.items()):
        for place, owner in sorted(places.items()):
            what = f"{name} <- {place or 'no code of the kernel'}"
            if reason := _reason(lock, code, name, place, owner):
                refused.append(f"{what}: {reason}")
            elif place not in functions[name].open:
                known = functions[name]
                functions[name] = known.model_copy(update={"open": sorted({*known.open, place})})
                added.append(what)
    return Learnt(lock.model_copy(update={"functions": functions}), added, refused)


def _reason(lock: LockFile, code: Code, name: str, place: str, owner: str) -> str:
    """Why a place is not believed; empty where it is."""
    if name not in lock.functions:
        return "the lock file does not have this function"
    if owner != "kernel":
        return f"calls from elsewhere than the kernel's own code are not learnt ({owner or 'nobody'})"
    if not lock.functions[name].taken:
        return "nothing takes this function's address, so nobody calls it by a pointer"
    if code.address(place) not in code.indirect_calls(place.partition("+")[0]):
        return "it is not behind a call by a pointer in this kernel"
    return ""
