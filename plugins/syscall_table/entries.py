"""Registers of each processor, and the kernel's copies of CR4, against its symbols: for `krie integrity`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from krie import Check, Difference, KernelError, KernelMemory, Symbols, kallsyms_text

from . import control, registers
from .control import Control
from .kallsyms import CODE, KALLSYMS, addresses_in
from .limits import NEVER, NO_CONTROL, NO_REGISTERS
from .registers import CPUS, NAMES, Registers

_LOOKS = 2
"""At the copies of CR4, see `Control`."""


def check(memory: KernelMemory, cpus: Path = CPUS) -> Iterable[Check]:
    """One look. `cpus`: where the registers are shown."""
    address = addresses_in(kallsyms_text(KALLSYMS), (*CODE, *registers.SYMBOLS, *control.SYMBOLS))
    limits, differences = [NEVER], []
    text = range(address("_stext"), address("_etext"))
    names = Symbols() if registers.shown(cpus) else None
    if names is None:
        limits.insert(0, NO_REGISTERS)
    for change in Registers(address, text.__contains__, cpus).look():
        place = f"{NAMES[change.register]} of CPU {change.cpu}"
        leads = str((names and names.find(change.now)) or f"{change.now:#x}")
        differences.append(Difference(change.register, place, _hex(change.was), _hex(change.now), leads))
    pinned = Control(memory, address)
    if not pinned.known:
        limits.insert(0, NO_CONTROL)
    try:
        lost = [each for _ in range(_LOOKS) for each in pinned.look()]
    except (KernelError, OSError) as error:
        lost = []
        limits.insert(0, f"the kernel's copies of CR4: {error}")
    for each in lost:
        place = f"CR4 of CPU {each.cpu}, as the kernel remembers it"
        differences.append(Difference(each.address, place, _hex(each.was), _hex(each.now)))
    looked = names is not None or pinned.known
    reference = "the kernel's symbols and the bits that it pins" if looked else ""
    yield Check("registers", reference=reference, differences=tuple(differences), not_looked_at=tuple(limits))


def _hex(value: int) -> str:
    """A number as people read it, unlike the bytes of other differences."""
    return f"{value:x}"
