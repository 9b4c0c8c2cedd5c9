"""What the kernel believes to be in each processor's CR4, and which of its bits must be set for good.

The register itself nobody can read. Those who clear SMEP, SMAP or UMIP by the kernel's own functions change this copy;
the next write of the register by the kernel puts it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from krie import AnyFile, Btf, KernelError, KernelFile, KernelMemory

from .walker import Walker, possible

_COPY, _TYPE, _FIELD = "cpu_tlbstate", "tlb_state", "cr4"
_PINNED = "cr4_pinned_bits"
_ONLINE = KernelFile("/sys/devices/system/cpu/online")
_PER_CPU = "__per_cpu_offset"
SYMBOLS = (_COPY, _PINNED, _PER_CPU)


@dataclass(frozen=True, slots=True)
class Lost:
    """A processor's copy that lacks pinned bits, or has them again (`restored`)."""

    cpu: int
    address: int
    was: int
    """With all pinned bits."""
    now: int
    restored: bool


def field_offset() -> int | None:
    """Where the copy is in its variable; None where the kernel does not tell."""
    try:
        return Btf().offset(_TYPE, _FIELD)
    except KernelError:
        return None


class Control:
    """Tells what two looks in turn find: a processor that is being started has another copy for a moment."""

    def __init__(
        self,
        memory: KernelMemory,
        address: Callable[[str], int],
        offset: Callable[[], int | None] = field_offset,
        online: AnyFile = _ONLINE,
    ) -> None:
        """Remember which bits are pinned now. `address`: of the kernel's symbols, 0 for what it does not tell."""
        self._walker, self._online = Walker(memory, address, {}), online
        self._suspected: dict[int, int] = {}
        self._told: set[int] = set()
        self.pinned = memory.number(address(_PINNED)) if all(map(address, SYMBOLS)) else 0
        self._offset = offset() if self.pinned else None

    @property
    def known(self) -> bool:
        """Whether there is something to look at."""
        return bool(self.pinned) and self._offset is not None

    def look(self) -> Iterator[Lost]:
        """Nothing where the kernel does not tell. Raises `KernelError`, `OSError`."""
        if self._offset is None:
            return
        online = set(possible(self._online))
        copies = zip(possible(), self._walker.on_each_cpu(_COPY), strict=True)
        places = {cpu: copy + self._offset for cpu, copy in copies if cpu in online}
        suspected, self._suspected = self._suspected, {}
        for cpu, place in places.items():
            now = self._walker.number(place)
            lacks = now & self.pinned != self.pinned
            if not lacks and cpu in self._told:
                self._told.remove(cpu)
                yield Lost(cpu, place, now, now, restored=True)
            elif lacks and cpu not in self._told:
                self._suspected[cpu] = now
                if suspected.get(cpu) == now:
                    self._told.add(cpu)
                    yield Lost(cpu, place, now | self.pinned, now, restored=False)
