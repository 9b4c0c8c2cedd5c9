"""Why bytes of the kernel's code may differ from what they were: each only by its own cause, at its own place."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from krie import KernelFile, Symbols, kernel_lines, kprobe_lines

from .image import NOP5
from .tables import Tables

NOPS = (NOP5, bytes.fromhex("6666666690"))
"""Of 5 bytes: since 5.13 and before, where the processor chose (a89dfde3dc3c)."""
NOP2 = bytes.fromhex("6690")
_CALL, _JUMP, _SHORT_JUMP, _BREAKPOINT, _RETURN = 0xE8, 0xE9, 0xEB, 0xCC, 0xC3
_XOR5 = bytes.fromhex("2e2e2e31c0")
"""What a static call to a function that returns 0 becomes."""
_WARN = bytes.fromhex("67480fb93a")
"""What a static call to __WARN_trap() becomes (7.3): an undefined instruction, of which the kernel makes a warning."""
MODULES_RANGE = range(0xFFFF_FFFF_C000_0000, 0xFFFF_FFFF_FF00_0000)
"""x86-64: modules, and code that is made while the kernel runs."""
_DS_PREFIX, _LOCK_PREFIX = b"\x3e", b"\xf0"
_PAGE = 4096
_KPROBES = KernelFile("/sys/kernel/debug/kprobes/list")
_HANDLED = KernelFile("/sys/kernel/tracing/enabled_functions")
_MASK = (1 << 64) - 1
_FTRACE_CALLERS = frozenset({"ftrace_caller", "ftrace_regs_caller"})
_FTRACE_SITES = frozenset({"ftrace_call", "ftrace_regs_call", "ftrace_graph_call"})
"""Instructions of the above that call the tracer, where there is one only."""
_GENERATED = re.compile(rb"\t\[(bpf|__builtin__ftrace|__builtin__kprobes)\]$", re.MULTILINE)


def target(code: bytes, address: int) -> int:
    """Where a call or jump of 5 bytes at this address leads."""
    return (address + 5 + int.from_bytes(code[1:5], "little", signed=True)) & _MASK


@dataclass(frozen=True, slots=True)
class Lists:
    """What the kernel says that it has patched, at one moment. None: it does not say."""

    kprobes: frozenset[int] | None = None
    handled: frozenset[str] | None = None
    """Functions that ftrace handles."""
    direct: Mapping[str, str] = field(default_factory=dict)
    """By the name of such a function that of what its first instruction calls without ftrace between, which may be a
    module's (763e34e74bb7): told by rule PROBE004."""
    generated: tuple[tuple[int, str], ...] = ()
    """Begin and kind of code that the kernel makes: `bpf`, `ftrace`, `kprobes`. In order."""

    def kind(self, address: int) -> str:
        """Of the generated code that begins at most a page before; empty where there is none."""
        index = bisect_right(self.generated, (address, "~")) - 1
        near = index >= 0 and address - self.generated[index][0] < _PAGE
        return self.generated[index][1] if near else ""


def read_lists(kallsyms: bytes) -> Lists:
    """Those of this moment. What cannot be read, as under lockdown, is None."""
    return brief_lists(tuple(sorted(_generated(kallsyms))))


def _generated(kallsyms: bytes) -> Iterator[tuple[int, str]]:
    """Without a look at each of some 200,000 lines: only those behind the kernel's own symbols name their owner."""
    others = kallsyms.find(b"\t")
    for each in _GENERATED.finditer(kallsyms, others) if others >= 0 else ():
        address, kind, _ = kallsyms[kallsyms.rfind(b"\n", 0, each.start()) + 1 : each.start()].split(b" ", 2)
        if kind in b"tTwW":
            yield int(address, 16), each[1].decode().rpartition("_")[2]


def brief_lists(generated: tuple[tuple[int, str], ...]) -> Lists:
    """The same with generated code as it was: to read all symbols takes long."""
    kprobes, handled = _lines(_KPROBES, kprobe_lines), _lines(_HANDLED, kernel_lines)
    return Lists(
        None if kprobes is None else frozenset(int(each.split()[0], 16) for each in kprobes if "[GONE]" not in each),
        None if handled is None else frozenset(each.split()[0] for each in handled if each[:1].strip()),
        _direct(handled or ()),
        generated,
    )


def _direct(handled: Iterable[str]) -> dict[str, str]:
    found, function = {}, ""
    for line in handled:
        if line[:1].strip():
            function = line.split()[0]
        _, arrow, to = line.partition("-->")
        if arrow and "direct" in line:
            found[function] = to.split("+")[0].strip()
    return found


def _lines(file: KernelFile, read: Callable[[KernelFile], list[str]]) -> list[str] | None:
    try:
        return read(file)
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Code:
    """The kernel's code at one moment, and what is known of it."""

    text: range
    before: Callable[[int, int], bytes]
    """Bytes of the reference by address and size; fewer at the end of what is compared."""
    now: Callable[[int, int], bytes]
    symbols: Symbols
    tables: Tables
    lists: tuple[Lists, ...]
    """Read before the code and after: what one of them has may explain it."""
    boot: Callable[[int], int] = lambda _: 0
    """Where the place ends that the kernel patches while it boots, and that has this address; 0: it is none."""
    near: range = range(0)
    """Code whose own tables are not known, a module's or BPF's: jumps within it may become nops, and nops such jumps,
    but none another jump; calls of the kernel's functions, or of code that BPF or ftrace made, may become others."""
    locks: Callable[[int], int] = lambda _: 0
    """As `boot`, for prefixes that the kernel changes where its second processor comes (.smp_locks)."""
    modules: bool = False
    """Whether static calls may lead to functions of modules, too, as those of modules do."""

    def unexplained(self, run: range) -> Iterator[range]:
        """What of these addresses differs without a legal cause."""
        position = run.start
        wrong = 0
        while position < run.stop:
            _, end = self.cause(position)
            if end:
                if wrong:
                    yield range(wrong, position)
                wrong, position = 0, end
            else:
                wrong = wrong or position
                position += 1
        if wrong:
            yield range(wrong, run.stop)

    def cause(self, address: int) -> tuple[str, int]:
        """Why this byte may differ, and where that explanation ends; empty and 0 where nothing explains it."""
        for name, explain in (
            ("boot", self.boot),
            ("jump_label", self._jump_label),
            ("static_call", self._static_call),
            ("ftrace", self._ftrace),
            ("ftrace_call", self._ftrace_call),
            ("kprobe", self._kprobe),
            ("lock", self._lock),
            ("near", self._near),
            ("nop", self._nop),
        ):
            if end := explain(address):
                return name, end
        return "", 0

    def _jump_label(self, address: int) -> int:
        for site in range(address, address - 5, -1):
            if (to := self.tables.jump_labels.get(site)) is None:
                continue
            code = self.now(site, 5)
            short = code[:2] == NOP2 or (code[0] == _SHORT_JUMP and site + 2 + struct.unpack("b", code[1:2])[0] == to)
            long = code in NOPS or (code[0] == _JUMP and len(code) == 5 and target(code, site) == to)
            end = site + 2 if short else site + 5 if long else 0
            return end if end > address else 0
        return 0

    def _static_call(self, address: int) -> int:
        for site in range(address, address - 6, -1):
            if site not in self.tables.static_calls:
                continue
            code = self.now(site, 6)
            if code[:5] in (*NOPS, _XOR5, _WARN):
                return site + 5
            if code[0] in (_CALL, _JUMP) and self._is_function(target(code, site), site):
                return site + 5
            if code[0] == _RETURN and code[1:5] in (b"\xcc\xcc\xcc\xcc", self.before(site + 1, 4)):
                return site + 5
            if code[0] == 0x0F and code[1] & 0xF0 == 0x80 and self._is_function(target(code[1:], site + 1), site):
                return site + 6  # a conditional tail call (923510c88d2b, 6.3)
            return 0
        return 0

    def _is_function(self, address: int, site: int) -> bool:
        """The begin of a function, or what BPF made for a static call."""
        if address in self.text:
            return bool(self.symbols.names(address))
        kinds = {each.kind(address) for each in self.lists}
        if address in MODULES_RANGE and not any(kinds) and (self.modules or site in self.tables.registered):
            return bool(self.symbols.names(address))
        return "bpf" in kinds

    def _ftrace(self, address: int) -> int:
        found = self.symbols.find(address)
        if found is None:
            return 0
        begin = address - found.offset
        for site in (begin, begin + 4):
            if not site <= address < site + 5 or self.before(site, 5) not in NOPS:
                continue
            code = self.now(site, 5)
            if code in NOPS:
                return site + 5
            if len(code) < 5 or code[0] != _CALL or not self._is_handled(begin):
                continue
            if self.is_tracer(to := target(code, site)) or self._is_direct(begin, to):
                return site + 5
        return 0

    def is_tracer(self, address: int) -> bool:
        """What a function's first instruction may call where ftrace handles the function."""
        if address in self.text:
            return bool(self.symbols.names(address) & _FTRACE_CALLERS)
        return any(each.kind(address) in ("bpf", "ftrace") for each in self.lists)

    def _is_handled(self, begin: int) -> bool:
        names = self.symbols.names(begin)
        return any(each.handled is None or names & each.handled for each in self.lists)

    def _is_direct(self, begin: int, to: int) -> bool:
        called = {each.direct[name] for name in self.symbols.names(begin) for each in self.lists if name in each.direct}
        return bool(called & self.symbols.names(to))

    def _ftrace_call(self, address: int) -> int:
        for site in range(address, address - 5, -1):
            if not self.symbols.names(site) & _FTRACE_SITES:
                continue
            code = self.now(site, 5)
            to = target(code, site) if code[0] in (_CALL, _JUMP) else 0
            known = code in NOPS or (to in self.text and (bool(self.symbols.names(to)) or abs(to - site) < 256))
            return site + 5 if known else 0
        return 0

    def _kprobe(self, address: int) -> int:
        for site in range(address, address - 5, -1):
            if not any(each.kprobes is None or site in each.kprobes for each in self.lists):
                continue
            code = self.now(site, 5)
            if site == address and code[0] == _BREAKPOINT:
                return site + 1
            if code[0] == _JUMP and any(each.kind(target(code, site)) == "kprobes" for each in self.lists):
                return site + 5
        return 0

    def _lock(self, address: int) -> int:
        end = self.locks(address)
        return end if end and (self.before(address, 1), self.now(address, 1)) == (_DS_PREFIX, _LOCK_PREFIX) else 0

    def _nop(self, address: int) -> int:
        """Another nop in a nop's place, as kernels before 5.13 choose by the processor: it changes nothing."""
        for site in range(address, address - 5, -1):
            if self.before(site, 5) in NOPS and self.now(site, 5) in NOPS:
                return site + 5
        return 0

    def _near(self, address: int) -> int:
        for site in range(address, address - 5, -1) if self.near else ():
            before, now = self.before(site, 5), self.now(site, 5)
            if (before in NOPS and self._is_known(now, site)) or (now in NOPS and self._is_known(before, site)):
                return site + 5
            if self._leads_out(before, site) and self._leads_out(now, site):  # of a static call
                return site + 5
            short = (before[:2] == NOP2 and self._is_short(now, site)) or (
                now[:2] == NOP2 and self._is_short(before, site)
            )
            if address < site + 2 and short:
                return site + 2
        return 0

    def _is_known(self, code: bytes, site: int) -> bool:
        """A jump within this code, or what leads to a function."""
        jumps = len(code) == 5 and code[0] == _JUMP and target(code, site) in self.near
        return jumps or code in NOPS or self._leads_out(code, site)

    def _leads_out(self, code: bytes, site: int) -> bool:
        if len(code) < 5 or code[0] not in (_CALL, _JUMP):
            return False
        to = target(code, site)
        generated = any(each.kind(to) in ("bpf", "ftrace") for each in self.lists)
        return generated or (to in self.text and bool(self.symbols.names(to)))

    def _is_short(self, code: bytes, site: int) -> bool:
        """A short jump within this code."""
        return code[:1] == b"\xeb" and len(code) > 1 and site + 2 + struct.unpack("b", code[1:2])[0] in self.near
