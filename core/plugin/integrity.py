"""`krie integrity`: one full look at the kernel now, by each installed plugin of KRIe's own that can take one.

Nothing of an agent is needed, neither a compiler nor the kernel's types: only a program of a dozen instructions that
reads memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ExitCode
from ..kernel.memory import KernelMemory, open_memory
from .installed import available
from .making import made

_OWN = "krie"
"""The distribution whose plugins are asked: nothing else is imported that no configuration names."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes, or a pointer, that are not as they should be, and no legal cause explains."""

    address: int
    place: str
    """Function or variable, and offset."""
    was: str
    """Bytes, or an address, hexadecimal; empty where it is not known."""
    now: str
    leads_to: str = ""
    """Where a pointer, jump or call there leads."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one look compared with what, and what it found."""

    name: str
    compared: int = 0
    """Bytes of memory."""
    reference: str = ""
    """With what; empty where nothing was compared."""
    explained: dict[str, int] = field(default_factory=dict)
    """Places that legally are not as they were built, by their cause."""
    differences: tuple[Difference, ...] = ()
    others: int = 0
    """Further ones that are not told."""
    not_looked_at: tuple[str, ...] = ()
    """What could not be looked at, and why."""
    needed: bool = False
    """Without what this compares the look is not a full one."""


def look(progress: Callable[[str], None]) -> list[Check]:
    """All checks. Raises `KernelError` where the kernel's memory cannot be read at all."""
    with ExitStack() as stack:
        memory, _ = open_memory(stack)
        return [check for one in _checks() for check in one(memory, progress)]


def _checks() -> Iterable[Callable[[KernelMemory, Callable[[str], None]], Iterable[Check]]]:
    for each in available().values():
        if each.dist is not None and each.dist.name == _OWN:
            check = getattr(made(each), "krie_integrity", None)
            if check is not None:
                yield check


def exit_code(checks: Sequence[Check]) -> ExitCode:
    """What `krie integrity` returns. Registers alone do not make a look, nor does a look without what is needed."""
    if any(each.differences for each in checks):
        return ExitCode.TAMPERED
    return ExitCode.OK if _is_full(checks) else ExitCode.DEGRADED


def _is_full(checks: Sequence[Check]) -> bool:
    return any(each.compared for each in checks) and all(each.compared for each in checks if each.needed)


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """For `krie integrity --json`, and for the table."""
    return {
        "intact": not any(each.differences for each in checks),
        "full": _is_full(checks),
        "checks": [asdict(each) for each in checks],
    }
