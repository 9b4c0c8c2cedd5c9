"""Lists of functions that the kernel calls, where modules enter themselves: notifiers, tracers, packet filters.

A function there belongs to the kernel, to a module that is listed, or to code that BPF or ftrace made. What belongs to
nobody is a module's that hides, or memory that was filled by other means.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from krie import Btf, KernelError, KernelMemory

NOTIFIERS = {
    "atomic_notifier_head": (
        "panic_notifier_list die_chain keyboard_notifier_list vt_notifier_list restart_handler_list inet6addr_chain "
        "netevent_notif_chain idle_notifier"
    ).split(),
    "blocking_notifier_head": (
        "module_notify_list reboot_notifier_list inetaddr_chain netlink_chain oom_notify_list pm_chain_head "
        "crypto_chain memory_chain"
    ).split(),
    "raw_notifier_head": ["netdev_chain"],
}
"""By the type of their heads."""
_TRACERS, _LAST_TRACER = "ftrace_ops_list", "ftrace_list_end"
_TRACEPOINTS, _TRACEPOINTS_END, _NET = "__start___tracepoints_ptrs", "__stop___tracepoints_ptrs", "init_net"
_FILTERS = {"hooks_ipv4": 5, "hooks_ipv6": 5, "hooks_arp": 3, "hooks_bridge": 5}
"""Of the first network namespace, with their length."""
SYMBOLS = (
    *(name for names in NOTIFIERS.values() for name in names),
    _TRACERS,
    _LAST_TRACER,
    _TRACEPOINTS,
    _TRACEPOINTS_END,
    _NET,
)
FIELDS = (
    ("notifier_block", "notifier_call"),
    ("notifier_block", "next"),
    *((head, "head") for head in NOTIFIERS),
    ("ftrace_ops", "func"),
    ("ftrace_ops", "next"),
    ("tracepoint", "funcs"),
    ("nf_hook_entries", "hooks"),
    *(("net", f"nf.{name}") for name in _FILTERS),
)
"""Whose places must be known."""
_KERNEL = 1 << 63
"""Addresses of the kernel's are not below."""
_MOST = 4096
"""Elements of one list: one that does not end is no list."""
_MOST_TRACEPOINT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A function in a list."""

    list: str
    address: int
    """Of the pointer to it."""
    function: int


def offsets() -> dict[tuple[str, str], int | None]:
    """Those of `FIELDS` in this kernel; None where it does not tell."""
    try:
        types = Btf()
    except KernelError:
        return dict.fromkeys(FIELDS)
    return {(name, path): types.offset(name, path) for name, path in FIELDS}


class FunctionLists:
    """All of this kernel's that are known here."""

    def __init__(
        self, memory: KernelMemory, address: Callable[[str], int], offsets: Mapping[tuple[str, str], int | None]
    ) -> None:
        """`address` knows `SYMBOLS`, and `offsets` those of `FIELDS`: 0 and None where the kernel does not tell."""
        self._memory, self._address, self._offsets = memory, address, offsets
        self._parts: dict[str, Callable[[], Iterator[Entry]]] = {
            "notifiers": self._notifiers,
            "tracers": self._tracers,
            "tracepoints": self._tracepoints,
            "packet filters": self._filters,
        }

    def entries(self) -> tuple[list[Entry], list[str]]:
        """All functions, and the names of lists that could not be read: what changes meanwhile may be among them."""
        found: list[Entry] = []
        unknown = []
        for name, part in self._parts.items():
            try:
                entries = list(part())
            except KernelError:
                entries = []
            if not entries or any(each.function < _KERNEL for each in entries):  # it was no list of functions
                unknown.append(name)
            else:
                found += entries
        return found, unknown

    def _offset(self, type_name: str, path: str) -> int:
        """Raises `KernelError` where the kernel has no such field."""
        offset = self._offsets[type_name, path]
        if offset is None:
            raise KernelError(f"looking for {type_name}.{path}", 0)
        return offset

    def _notifiers(self) -> Iterator[Entry]:
        call = self._offset("notifier_block", "notifier_call")
        following = self._offset("notifier_block", "next")
        for type_name, names in NOTIFIERS.items():
            head = self._offset(type_name, "head")
            for name in names:
                if address := self._address(name):
                    for block in self._chain(self._memory.number(address + head), following, 0):
                        yield Entry(name, block + call, self._memory.number(block + call))

    def _tracers(self) -> Iterator[Entry]:
        function, following = self._offset("ftrace_ops", "func"), self._offset("ftrace_ops", "next")
        if (head := self._address(_TRACERS)) and (last := self._address(_LAST_TRACER)):
            yield Entry(_TRACERS, last + function, self._memory.number(last + function))
            for each in self._chain(self._memory.number(head), following, last):
                yield Entry(_TRACERS, each + function, self._memory.number(each + function))

    def _chain(self, first: int, following: int, last: int) -> Iterator[int]:
        """Raises `KernelError` where it does not end."""
        for _ in range(_MOST):
            if first in (0, last):
                return
            yield first
            first = self._memory.number(first + following)
        raise KernelError("following a list that does not end", 0)

    def _tracepoints(self) -> Iterator[Entry]:
        begin, end = self._address(_TRACEPOINTS), self._address(_TRACEPOINTS_END)
        at = self._offset("tracepoint", "funcs")
        if not begin or end <= begin:
            return
        table = self._memory.read(begin, (end - begin) // 4 * 4)
        points = [begin + 4 * index + offset for index, (offset,) in enumerate(struct.iter_unpack("<i", table))]
        first, last = min(points), max(points)
        if last - first > _MOST_TRACEPOINT_BYTES:
            raise KernelError("reading tracepoints, which lie far apart", 0)
        content = self._memory.read(first, last - first + at + 8)
        for point in points:
            (functions,) = struct.unpack_from("<Q", content, point - first + at)
            yield from self._probes(functions) if functions else ()

    def _probes(self, functions: int) -> Iterator[Entry]:
        size = 24  # struct tracepoint_func, whose last one is empty
        for index in range(_MOST):
            address = functions + size * index
            if not (function := self._memory.number(address)):
                return
            yield Entry("tracepoints", address, function)

    def _filters(self) -> Iterator[Entry]:
        hooks = self._offset("nf_hook_entries", "hooks")
        if not (net := self._address(_NET)):
            return
        for name, count in _FILTERS.items():
            at = self._offsets["net", f"nf.{name}"]
            for index in range(count if at is not None else 0):
                entries = self._memory.number(net + (at or 0) + 8 * index)
                length = self._memory.number(entries, 2) if entries else 0
                for each in range(min(length, _MOST)):
                    address = entries + hooks + 16 * each
                    yield Entry(f"{name}[{index}]", address, self._memory.number(address))
