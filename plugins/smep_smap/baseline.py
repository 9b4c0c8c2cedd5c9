"""What the plugin knows of the running kernel: its symbols, its own probes' places, and how much was checked."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from krie import ONLY, Json, KernelFile, Maps, Symbols, Trap, kprobe_lines, loaded_modules

from .events import Activity, LostTrap, RegisterCheck
from .functions import NAMES
from .maps import Count, Kernel

_TRAMPOLINES = (
    ("__kretprobe_trampoline", "kretprobe_trampoline"),
    ("arch_rethook_trampoline",),
    ("return_to_handler",),
)
"""Where the kernel lets functions return to that a tracer follows, by names that it has or had."""
_WANTED = ("_stext", "_etext", "_end", "init_cred", *(name for names in _TRAMPOLINES for name in names))
_MODULES_END = 0xFFFFFFFFFF000000  # MODULES_END of x86-64
_MODULES, _KPROBES = KernelFile("/proc/modules"), KernelFile("/sys/kernel/debug/kprobes/list")


class Baseline:
    """Taken when the probes are attached."""

    def __init__(self, maps: Maps, traps: Callable[[], Sequence[Trap]], *, kernel_stack: bool = False) -> None:
        """Read the kernel's symbols, and tell the program what it needs of them. Raises `OSError`, `KernelError`.

        `kernel_stack`: whether the kernel's stack goes into records.
        """
        self._traps, self._counts = traps, maps["smep_smap_counts"]
        self._modules = _loaded()
        self._symbols = Symbols(_WANTED)
        self._unreadable = ""
        self._before: dict[int, tuple[int, ...]] = {}
        maps[Kernel.C_NAME].set(ONLY, _kernel(self._symbols, kernel_stack).encode())

    @property
    def unknown(self) -> list[str]:
        """What cannot be checked here, in words."""
        missing = [] if len(self._symbols) else ["where the kernel's code lies (kernel.kptr_restrict hides it)"]
        return missing + ([] if self._symbols.address("init_cred") else ["init_cred given to commit_creds()"])

    def facts(self, event: RegisterCheck) -> dict[str, Json]:
        """Names for the addresses of an event.

        Where modules came or went since the symbols were read, they are read again: a name that was another module's
        would be worse than the time that it takes, and hijacks are rare.
        """
        self._renew()
        found = self._symbols.find(event.return_address)
        addresses = (each for (each,) in struct.iter_unpack("=Q", event.kernel_stack) if each)
        return {
            "symbol": self._name(event.ip),
            "return_symbol": self._name(event.return_address),
            "return_module": found.module if found is not None else "",
            "stack_symbols": [self._name(each) for each in addresses],
        }

    def scan(self) -> Iterator[Activity | LostTrap]:
        """What was checked since the last time, and probes that are not where they were put."""
        yield from self._activity()
        yield from self._missing()

    def _renew(self) -> None:
        if (modules := _loaded()) != self._modules:
            self._symbols.renew()
            self._modules = modules

    def _name(self, address: int) -> str:
        found = self._symbols.find(address)
        return str(found) if found is not None else ""

    def _activity(self) -> Iterator[Activity]:
        totals = map(Count.total, self._counts.array())
        now: dict[int, tuple[int, ...]] = {
            number: (each.checks, each.failed, each.repeated, each.traced) for number, each in enumerate(totals)
        }
        new = {
            number: [after - before for after, before in zip(counts, self._before.get(number, (0,) * 4), strict=True)]
            for number, counts in now.items()
        }
        self._before = now
        checks, failed, repeated, traced = (sum(each[index] for each in new.values()) for index in range(4))
        if checks:
            busiest = NAMES.get(max(new, key=lambda number: new[number][0]), "other")
            yield Activity.without_header(
                checks=checks, failed=failed, repeated=repeated, traced=traced, busiest=busiest
            )

    def _missing(self) -> Iterator[LostTrap]:
        try:
            listed = _listed()
        except OSError as error:
            if str(error) != self._unreadable:
                self._unreadable = str(error)
                yield LostTrap.without_header(offset=0, state="unreadable", function="", reason=self._unreadable)
            return
        for trap in self._traps():
            line = listed.get(str(trap))
            if line is None:
                state, reason = "vanished", "no kprobe is listed there"
            elif "[DISABLED]" in line or "[GONE]" in line:
                state, reason = "disarmed", line
            else:
                continue
            yield LostTrap.without_header(offset=trap.offset, state=state, function=trap.target, reason=reason)


def _loaded() -> list[tuple[bytes, int]]:
    """Modules and where they lie; not how many use them, which an attack changes, too. Raises `OSError`."""
    return [(each.raw, each.address) for each in loaded_modules(_MODULES)]


def _listed() -> Mapping[str, str]:
    """The kernel's list of kprobes, by place; where several are at one, one that is disarmed. Raises `OSError`."""
    found: dict[str, str] = {}
    for line in kprobe_lines(_KPROBES):
        place = line.split()[2]
        if place not in found or "[DISABLED]" in line:
            found[place] = line
    return found


def _kernel(symbols: Symbols, kernel_stack: bool) -> Kernel:
    """What is not known is 0, and not checked."""
    known = len(symbols) > 0
    end = symbols.address("_end")
    ranges = (symbols.address("_stext"), symbols.address("_etext"), end, _MODULES_END) if known and end else (0,) * 4
    trampolines = tuple(next(filter(None, map(symbols.address, names)), 0) for names in _TRAMPOLINES)
    return Kernel(*ranges, symbols.address("init_cred"), trampolines, kernel_stack)
