"""What of the kernel's text, or which static key, changes where a program is attached: see `krie.kernel.keeper`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .attach import KPROBES, TRAMPOLINES
from .keeper import BREAKPOINT, KEY, TRAMPOLINE
from .program import AttachType, Program
from .symbols import functions

Place = tuple[str, str, int]
"""Where a program is attached: how, to what, and at which offset."""
Standing = Mapping[Place, tuple[str, int]]
"""What changes there: as `changes` says it."""


def place_of(program: Program) -> Place:
    """Where it is attached."""
    return str(program.attach), program.target, program.offset


def standing(programs: Iterable[Program], keys: Mapping[Program, int]) -> Standing:
    """The same as `changes`, by places."""
    return {place_of(each): found for each, found in changes(programs, keys).items()}


def changes(programs: Iterable[Program], keys: Mapping[Program, int]) -> Mapping[Program, tuple[str, int]]:
    """Kind and address of what is to be held of each of these while it is attached; others change nothing of the kind.

    `keys`: the static keys that attaching changes.
    """
    all_ = tuple(programs)
    functions_of = {
        each: f"bpf_lsm_{each.target}" if each.attach is AttachType.LSM else each.target
        for each in all_
        if each.attach in KPROBES | TRAMPOLINES
    }
    code = functions(set(functions_of.values())) if functions_of else {}
    found: dict[Program, tuple[str, int]] = {}
    for each, function in functions_of.items():
        kind = BREAKPOINT if each.attach in KPROBES else TRAMPOLINE
        known = code[function] and (kind == TRAMPOLINE or each.offset)
        found[each] = kind, code[function].start + each.offset if known else 0
    return {**found, **{each: (KEY, keys[each]) for each in all_ if keys.get(each, 0)}}
