"""Walks structures of the kernel's that change meanwhile.

Nothing is locked: what was read of a list while it changed is worth nothing. So a walk ends where it leads to no
memory, and whoever reports what it found looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from krie import AnyFile, KernelError, KernelFile, KernelMemory

Offsets = Mapping[tuple[str, str], int | None]

_POSSIBLE = KernelFile("/sys/devices/system/cpu/possible")
_OFFSETS = "__per_cpu_offset"
SYMBOLS = (_OFFSETS,)
_MOST = 65536
"""Elements of one list or tree: far more are nowhere."""


def possible(place: AnyFile = _POSSIBLE) -> list[int]:
    """Numbers of the CPUs that there may be. Raises `OSError`."""
    found: list[int] = []
    for part in place.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


@dataclass(frozen=True, slots=True)
class Walker:
    """The kernel's memory, and what is known of what lies where."""

    memory: KernelMemory
    address: Callable[[str], int]
    """Of the kernel's symbols; 0 where it does not tell."""
    offsets: Offsets
    """Of fields; None where the kernel has none, or does not tell."""

    def offset(self, type_name: str, path: str) -> int:
        """Raises `KernelError` where the kernel has no such field."""
        offset = self.offsets.get((type_name, path))
        if offset is None:
            raise KernelError(f"looking for {type_name}.{path}", 0)
        return offset

    def number(self, address: int, size: int = 8) -> int:
        """0 where it cannot be read: it has been freed meanwhile."""
        try:
            return self.memory.number(address, size)
        except KernelError:
            return 0

    def chain(self, first: int, last: int) -> Iterator[int]:
        """Elements whose first word leads to the next one, until `last`, 0, or no memory.

        Also until one comes again: an element that is moved meanwhile leads to another list, which never ends there.
        """
        seen = {0, last}
        while first not in seen and len(seen) < _MOST:
            yield first
            seen.add(first)
            first = self.number(first)

    def tree(self, root: int) -> Iterator[int]:
        """Nodes of a red-black tree, each once, from the address of its topmost one on; 0: of none."""
        waiting, seen = [root], {0}
        while waiting and len(seen) < _MOST:
            if (node := waiting.pop()) not in seen:
                yield node
                seen.add(node)
                waiting += (self.number(node + 8), self.number(node + 16))  # struct rb_node: its right, its left

    def on_each_cpu(self, name: str) -> Iterator[int]:
        """Addresses of a per-CPU variable; none where the kernel does not tell. Raises `KernelError`, `OSError`."""
        variable, table = self.address(name), self.address(_OFFSETS)
        if not variable or not table:
            return
        for cpu in possible():
            yield (variable + self.memory.number(table + 8 * cpu)) & 0xFFFF_FFFF_FFFF_FFFF
