"""The derivation for the agent: in a child, since it takes a second and some 100 MB, while the agent waits."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from krie import KernelError, KrieError

from . import lock_file
from .declaration import Declaration
from .derivation import Code
from .live import Read, running_build_id, running_code


@dataclass(frozen=True, slots=True)
class Derived:
    """What may call the locked functions of the running kernel."""

    legal: Mapping[str, list[int]]
    """Return addresses by function, of those that can be locked: derived, filed, and behind known calls by pointer."""
    certain: list[str]
    """Functions of which all callers are known."""
    callers: int
    filed: int
    differences: list[str] = field(default_factory=list)
    release: str = ""
    """Of the lock file; empty where this build has none."""


def derive(code: Code, declared: Declaration, lock: lock_file.LockFile | None, build_id: str) -> Derived:
    """Hold what the code says against the lock file. `lock`: None where this build has none.

    What either knows is legal: a tracer may stand on a call right now. Which of the two has more is told.
    """
    callers = code.callers(declared.functions)
    live = lock_file.lock_file_of("", build_id, code, callers)
    known = {name: each.callers for name, each in lock.functions.items()} if lock is not None else {}
    legal: dict[str, list[int]] = {}
    certain: list[str] = []
    for name, found in callers.items():
        places = set(found.returns) | {address for each in known.get(name, ()) if (address := code.address(each))}
        taken = [code.name(each) for each in found.taken]
        for each in taken:
            for caller in declared.indirect[each].callers if each in declared.indirect else ():
                places |= code.indirect_calls(caller)
        if places:
            legal[name] = sorted(places)
            if code.has_data and all(each in declared.indirect for each in taken):
                certain.append(name)
    differences = []
    if lock is not None:
        # What an administrator added is in no lock file of KRIe's.
        both = lock.functions.keys() & live.functions.keys()
        differences = lock_file.differences(_only(lock, both), _only(live, both))
    return Derived(
        legal,
        certain,
        sum(len(each.returns) for each in callers.values()),
        sum(map(len, known.values())),
        differences,
        lock.release if lock is not None else "",
    )


def derive_isolated(read: Read, declared: Declaration) -> Derived:
    """Of the running kernel. Raises `KernelError`."""
    with tempfile.TemporaryFile() as result:
        tgid = os.fork()
        if not tgid:
            _child(read, declared, result.fileno())
        os.waitpid(tgid, 0)
        result.seek(0)
        raw = result.read()
    try:
        answer: dict[str, Any] = json.loads(raw)
    except ValueError as error:
        raise KernelError("deriving the callers of locked functions", 0, "the child crashed") from error
    if problem := answer.get("problem"):
        raise KernelError("deriving the callers of locked functions", 0, str(problem))
    return Derived(**answer)


def _child(read: Read, declared: Declaration, result: int) -> None:
    """It must not return into the parent's code, whatever happens."""
    try:
        build = running_build_id()
        found = derive(running_code(read), declared, lock_file.shipped(build), build)
        answer: dict[str, Any] = asdict(found)
    except KrieError as error:
        answer = {"problem": str(error)}
    except BaseException as error:
        answer = {"problem": f"{type(error).__name__}: {error}"}
    try:
        data = json.dumps(answer).encode()
        while data:
            data = data[os.write(result, data) :]
    finally:
        os._exit(0)


def _only(lock: lock_file.LockFile, names: Any) -> lock_file.LockFile:
    return lock.model_copy(update={"functions": {each: lock.functions[each] for each in names}})
