"""What `krie cfi explain` says: who may call a function, why it is locked, and what others get; likewise of acts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from krie import Decision, Json

from .act import Act
from .declaration import RIGHTS, Declaration, Indirect
from .events import NAMES, Caller
from .lock_file import LockedFunction, LockFile

CREDENTIALS = "commit_creds"
_KERNEL = "the kernel's own code, at a place that is not a caller: a gadget, a jump past a check"
_OTHER = "no code: a return to user memory, or to nowhere"
_MODULE = "a module"
_GAIN = ", with credentials that gain"
_FORGED = "one of the callers, reached by another way or forged as the return address"
_OWNERS = {_KERNEL: "kernel", _OTHER: "other", _MODULE: "module"}
WITHOUT = "who has not this right"
Decide = Callable[[type[Caller | Act], Mapping[str, Any]], Decision]
"""What the shipped rules decide about an event with these fields."""
_FOREIGN = f"{_FORGED}{_GAIN} in another system call than these"
_WITHOUT_RIGHT = f"{_FORGED}{_GAIN} in one of these, without the right to"


def of_function(name: str, lock: LockFile, declared: Declaration, decide: Decide) -> dict[str, Json]:
    """All that is known of a function, which `lock` has."""
    found = lock.functions[name]
    open_ = [each for each in found.taken if each not in declared.indirect]
    by_whom = outcomes(name, decide, certain=not open_) if _reached(found, declared) else {}
    return {
        "function": name,
        "release": lock.release,
        "locked": name in declared.functions and _reached(found, declared),
        "why": declared.functions[name].why if name in declared.functions else "",
        "callers": [*found.callers],
        "by_pointer": {each: [*_by(declared.indirect[each])] for each in found.taken if each in declared.indirect},
        "open": [*open_],
        "learnt": [*found.open],
        "gains": {each: [*row.gain] for each, row in declared.gains.items()} if name == CREDENTIALS else {},
        "rights": {each: row.right for each, row in declared.gains.items()} if name == CREDENTIALS else {},
        "outcomes": {who: [*rules] for who, rules in by_whom.items()},
    }


def of_act(name: str, declared: Declaration, decide: Decide) -> dict[str, Json]:
    """All that is declared of an act, and what who has no right to it gets."""
    row = declared.acts[name]
    return {
        "act": name,
        "right": row.right,
        "judged": row.judged,
        "why": row.why,
        "outcomes": {who: [*found] for who, found in _decided(Act, {WITHOUT: {"act": name}}, decide).items()},
    }


def outcomes(function: str, decide: Decide, *, certain: bool) -> dict[str, list[str]]:
    """By who calls it: the action of the shipped rules where a plugin enforces, and their ids. Empty: nothing is seen.

    `certain`: all callers by a pointer are known.
    """
    known = function if function in NAMES.values() else "other"
    common: dict[str, Any] = {"function": known, "certain": certain, "lock": "caller"}
    cases = {who: {**common, "owner": owner} for who, owner in _OWNERS.items()}
    if function == CREDENTIALS:
        cases |= {f"{who}{_GAIN}": {**case, "gain": ("euid0",)} for who, case in cases.items()}
        gained = {**common, "gain": ("euid0",), "owner": "kernel"}
        cases |= {_FOREIGN: {**gained, "lock": "path"}, _WITHOUT_RIGHT: {**gained, "lock": "right"}}
    otherwise = f"{_FORGED}, otherwise" if function == CREDENTIALS else _FORGED
    return {**_decided(Caller, cases, decide), otherwise: []}


def _decided(event: type[Caller | Act], cases: Mapping[str, Mapping[str, Any]], decide: Decide) -> dict[str, list[str]]:
    decisions = {who: decide(event, fields) for who, fields in cases.items()}
    return {
        who: [str(each.action), *(rule.id for rule in each.rules)] * bool(each.rules) for who, each in decisions.items()
    }


def function_in_words(answer: Mapping[str, Any], found: LockedFunction, declared: Declaration) -> Iterator[str]:
    """Lines for people, of what `of_function` says."""
    why = "not locked, since nothing calls it directly" if not _reached(found, declared) else "not locked"
    why = f"locked, since it {answer['why']}" if answer["locked"] else why
    why += "" if answer["why"] or not _reached(found, declared) else "; `functions` in [plugins.cfi] locks it"
    yield f"{answer['function']}, {answer['release']}: {why}"
    yield f"{len(found.callers)} direct callers{':' if found.callers else ''}"
    yield from (f"  {each}" for each in found.callers)
    for each in found.taken:
        how = (
            f"by pointers in {', '.join(_by(declared.indirect[each]))}: {declared.indirect[each].why}"
            if each in declared.indirect
            else "by pointers that nothing here knows of"
        )
        yield f"through {each}, {how}"
    if found.open:
        yield f"{len(found.open)} callers by a pointer that were learnt:"
        yield from (f"  {each}" for each in found.open)
    if answer["gains"]:
        yield "credentials may gain, in system call:"
        for call, row in declared.gains.items():
            yield f"  {call}: {', '.join(row.gain)}; {row.why}; takes {RIGHTS[row.right][1]}"
    if answer["outcomes"]:
        once = "A call" if answer["locked"] else "Once it is locked, a call"
        yield f"{once} gets, in mode enforce, by the shipped rules, if it comes from:"
    yield from _outcomes_in_words(answer)


def act_in_words(answer: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people, of what `of_act` says."""
    yield f"{answer['act']}, an act, judged where `acts` is set in [plugins.cfi]: {answer['why']}"
    yield f"takes: {answer['right']}"
    yield f"judged: {answer['judged']}"
    yield "It gets, in mode enforce, by the shipped rules:"
    yield from _outcomes_in_words(answer)


def _outcomes_in_words(answer: Mapping[str, Any]) -> Iterator[str]:
    for who, (action, *rules) in ((who, each or ("nothing is seen",)) for who, each in answer["outcomes"].items()):
        yield f"  {who}: {action}{' by ' if rules else ''}{', '.join(rules)}"


def _reached(found: LockedFunction, declared: Declaration) -> bool:
    """Whether any caller is known: else it is not locked (`derive` in derived.py)."""
    return bool(found.callers or found.open or declared.indirect.keys() & set(found.taken))


def _by(row: Indirect) -> list[str]:
    return [*row.callers, *row.jumps]
