"""Lists of functions that the kernel calls, where modules enter themselves.

Notifiers, tracers, kprobes and packet filters; timers, work, threads, formats of programs and hooks of security modules
have files of their own.

A function there belongs to the kernel, to a module that is listed, or to code that BPF or ftrace made. What belongs to
nobody is a module's that hides, or memory that was filled by other means.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from functools import partial

from krie import Btf, KernelError, KernelMemory

from . import formats, hrtimers, pending, security_hooks, threads, walker
from .entry import Entry
from .walker import Offsets, Walker

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
_KPROBES, _KPROBE_BUCKETS = "kprobe_table", 64
_OF_KRETPROBES = "pre_handler_kretprobe"
"""What a kretprobe has for a handler of its kprobe."""
_CHANGING = (pending, hrtimers, threads, formats, security_hooks)
"""Modules whose lists may change while they are walked."""
SYMBOLS = (
    *walker.SYMBOLS,
    *(symbol for part in _CHANGING for symbol in part.SYMBOLS),
    _KPROBES,
    _OF_KRETPROBES,
    *(name for names in NOTIFIERS.values() for name in names),
    _TRACERS,
    _LAST_TRACER,
    _TRACEPOINTS,
    _TRACEPOINTS_END,
    _NET,
)
FIELDS = (
    *(field for part in _CHANGING for field in part.FIELDS),
    ("kprobe", "hlist"),
    ("kprobe", "list"),
    ("kprobe", "pre_handler"),
    ("kprobe", "post_handler"),
    ("kretprobe", "kp"),
    ("kretprobe", "handler"),
    ("kretprobe", "entry_handler"),
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
SIZES = (*pending.SIZES, *hrtimers.SIZES, *security_hooks.SIZES)
LASTING = frozenset({"notifiers", "packet filters", "binary formats", security_hooks.NAME})
"""Lists that change when modules come or go, or somebody configures the machine, and not while it just runs."""
_FLEETING = frozenset({"timers", "work items", "high-resolution timers", "kernel threads"})
"""What changes all the time: of an element that was freed while it was looked at, anything may be read."""
_KERNEL = 1 << 63
"""Addresses of the kernel's are not below."""
_MOST = 4096
"""Elements of one list: one that does not end is not a list."""
_MOST_TRACEPOINT_BYTES = 4 << 20


def offsets() -> dict[tuple[str, str], int | None]:
    """Those of `FIELDS` and `SIZES`, and of variables, in this kernel; None where it does not tell."""
    try:
        types = Btf()
    except KernelError:
        return dict.fromkeys(FIELDS)
    return {
        **{(name, path): types.offset(name, path) for name, path in FIELDS},
        **{(f"#{name}", path): types.size(name, path) for name, path in SIZES},
        **{("#variable", name): types.variable_size(name) for name in pending.VARIABLES},
    }


class FunctionLists:
    """All of this kernel's that are known here."""

    def __init__(
        self, memory: KernelMemory, address: Callable[[str], int], offsets: Offsets, heads: Collection[int]
    ) -> None:
        """`address` knows `SYMBOLS`, and `offsets` is of that function: 0 and None where the kernel does not tell.

        `heads`: the kernel's variables with the name of `formats.HEAD`.
        """
        self._memory, self._address, self._offsets = memory, address, offsets
        walker = Walker(memory, address, offsets)
        self._parts: dict[str, Callable[[], Iterator[Entry]]] = {
            "notifiers": self._notifiers,
            "tracers": self._tracers,
            "tracepoints": self._tracepoints,
            "packet filters": self._filters,
            "kprobes": self._kprobes,
            "timers": partial(pending.timers, walker),
            "work items": partial(pending.work, walker),
            "high-resolution timers": partial(hrtimers.hrtimers, walker),
            "kernel threads": partial(threads.threads, walker),
            "binary formats": partial(formats.formats, walker, heads),
        }
        if security_hooks.has_lists(walker):
            self._parts[security_hooks.NAME] = partial(security_hooks.security_hooks, walker)
        self._may_be_empty = {
            name
            for name, symbol in (
                ("kprobes", _KPROBES),
                ("packet filters", _NET),
                ("work items", pending.POOLS),
                ("high-resolution timers", hrtimers.BASES),
            )
            if address(symbol)
        }

    def entries(self) -> tuple[list[Entry], list[str]]:
        """All functions, and the names of lists that could not be read: what changes meanwhile may be among them."""
        lists, unknown = self.by_list()
        return [each for entries in lists.values() for each in entries], unknown

    def by_list(self) -> tuple[dict[str, list[Entry]], list[str]]:
        """The same by the names of lists, without those that could not be read."""
        found: dict[str, list[Entry]] = {}
        unknown = []
        for name, part in self._parts.items():
            try:
                entries = list(part())
            except (KernelError, OSError):
                unknown.append(name)
                continue
            sound = [each for each in entries if each.function >= _KERNEL]
            if (not sound and name not in self._may_be_empty) or (len(sound) < len(entries) and name not in _FLEETING):
                unknown.append(name)  # it was no list of functions
            else:
                found[name] = sound
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

    def _kprobes(self) -> Iterator[Entry]:
        hashed, listed = self._offset("kprobe", "hlist"), self._offset("kprobe", "list")
        if not (table := self._address(_KPROBES)):
            raise KernelError("looking for kprobes", 0)
        for bucket in range(table, table + 8 * _KPROBE_BUCKETS, 8):
            for node in self._chain(self._memory.number(bucket), 0, 0):
                probe = node - hashed
                yield from self._handlers(probe)
                head = probe + listed  # of several at one address
                for each in self._chain(self._memory.number(head), 0, head):
                    yield from self._handlers(each - listed)

    def _handlers(self, probe: int) -> Iterator[Entry]:
        before = self._offset("kprobe", "pre_handler")
        yield from self._function("kprobes", probe, before)
        yield from self._function("kprobes", probe, self._offset("kprobe", "post_handler"))
        if (of_return := self._address(_OF_KRETPROBES)) and self._memory.number(probe + before) == of_return:
            whole = probe - self._offset("kretprobe", "kp")
            yield from self._function("kprobes", whole, self._offset("kretprobe", "handler"))
            yield from self._function("kprobes", whole, self._offset("kretprobe", "entry_handler"))

    def _function(self, name: str, start: int, at: int | None) -> Iterator[Entry]:
        if at is not None and (found := self._memory.number(start + at)):
            yield Entry(name, start + at, found)

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
        heads = {name: at for name in _FILTERS if (at := self._offsets["net", f"nf.{name}"]) is not None}
        if not heads:
            raise KernelError("looking for packet filters", 0)
        for name, at in heads.items():
            for index in range(_FILTERS[name]):
                entries = self._memory.number(net + at + 8 * index)
                length = self._memory.number(entries, 2) if entries else 0
                for each in range(min(length, _MOST)):
                    address = entries + hooks + 16 * each
                    yield Entry(f"{name}[{index}]", address, self._memory.number(address))
