"""What the plugin knows while the agent is armed: the places, names for what is found, and how much was looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from krie import ONLY, WORD, Json, KernelError, KernelFile, KernelMemory, Map, Maps, Symbols, loaded_modules

from . import explained
from .begins import is_ftraces
from .code_watch import CodeWatch
from .config import SyscallTableConfig
from .control import Control, Lost
from .derive import Derivation
from .derived import Derived
from .events import ABIS, ENTRY, HANDLER, WHERE, Activity, Hook, Wrapped
from .explain import MODULES_RANGE
from .handlers import Handler
from .kallsyms import Kallsyms, named
from .maps import DISPATCHERS, Entered, Kernel, Look
from .numbers import call_of
from .pieces import Piece, packed
from .pointers import SHIPPED
from .registers import NAMES, Change, Registers

TRAMPOLINES = (
    ("__kretprobe_trampoline", "kretprobe_trampoline"),
    ("arch_rethook_trampoline",),
    ("return_to_handler",),
)
"""Where the kernel lets functions return to that a tracer follows, by names that it has or had."""
CR4 = "CR4, as the kernel remembers it"
_WAIT_NS = 500_000_000
"""Looks of the timer are at least so far apart, and at most three times as far, and a timer's period."""
_MODULES = KernelFile("/proc/modules")
_SHOWN = 16
_CHARS = 383
_FRESH_S = 1.0
_BREAKPOINT = b"\xcc"
_FOLLOWED = (b"\xe8", b"\xe9")


class Watch:
    """Taken when the probes are attached."""

    def __init__(
        self,
        maps: Maps,
        memory: KernelMemory,
        symbols: Kallsyms,
        config: SyscallTableConfig,
        handlers: Sequence[Handler],
    ) -> None:
        """Derive the places, and tell the programs. Raises `OSError`, `KernelError`."""
        pointers = (*(SHIPPED if config.shipped_pointers else ()), *config.pointers)
        self.derived: Derived = Derivation(symbols, memory).run(pointers)
        self._looks = maps["syscall_table_look"]
        self._handlers = maps["syscall_table_handlers"]
        self._before = (0, 0, 0)
        self._memory, self._causes = memory, explained.Causes()
        self._symbols = Symbols()  # within a start, of a text that is there; later it would hold up the first finding
        self._modules = ""
        self._read_at = 0.0
        self._registers = Registers(symbols.address, lambda address: address in self.derived.text)
        self._control = Control(memory, symbols.address)
        self._missing = list(self.derived.missing)
        self.places = self._push(maps)
        for handler in handlers:
            entered = Entered(number=handler.number, abi=handler.abi)
            self._handlers.set(WORD.encode(handler.index), entered.encode())
        trampolines = [next(filter(None, map(symbols.address, names)), 0) for names in TRAMPOLINES]
        maps[Kernel.C_NAME].set(ONLY, self._kernel(trampolines).encode())

    @property
    def unknown(self) -> list[str]:
        """What cannot be looked at here, in words."""
        return self.derived.unknown

    def facts(self, event: Hook | Wrapped) -> Mapping[str, Json]:
        """Names for the addresses of an event."""
        self._renew()
        if isinstance(event, Wrapped):
            return {
                "symbol": self._name(event.ip),
                "return_symbol": self._name(event.return_address),
                "owner": self._owner(event.return_address),
                "syscall": call_of(self._name(event.ip).partition("+")[0]),
            }
        piece = self.derived.pieces[event.piece] if event.piece < len(self.derived.pieces) else None
        first = _first_difference(piece, event.content) if piece is not None else None
        if first is None:  # it is as before
            first = event.address - piece.address if piece is not None else 0
        was = piece.expected[first : first + _SHOWN] if piece is not None else b""
        now = event.content[: len(piece.expected)][first : first + _SHOWN] if piece is not None else b""
        is_value = event.where == "register" and event.target == "none"
        leads_to = 0 if is_value else event.now or (_leads_to(piece, event.content, first) if piece is not None else 0)
        return {
            "place": self._place(event, piece, first),
            "syscall": self._syscall(event, piece),
            "symbol": self._name(leads_to),
            "was_symbol": "" if is_value else self._name(event.was),
            "owner": self._owner(leads_to) if leads_to else "",
            "explained": self._explained(event, piece, first),
            "bytes_was": was.hex(),
            "bytes_now": now.hex(),
        }

    def scan(self, code: CodeWatch | None) -> Iterator[Hook | Activity]:
        """What no program sees, and how much was looked at since the last time. `code`: what compares the code."""
        self._renew()  # so that names are there when something is found
        missing, self._missing = self._missing, []
        for each in missing:
            where, abi = WHERE[each.where], ABIS[each.abi]
            target = "kernel" if where == "table" else "none"  # its slots lead to handlers
            yield _hook(address=each.start, was=each.handler, number=each.number, where=where, abi=abi, target=target)
        yield from self._of_registers()
        yield self._activity(code)

    def _of_registers(self) -> Iterator[Hook]:
        for change in self._registers.look():
            target = "kernel" if change.now in self.derived.text else "other"
            yield _register(change, change.register, target)
        for lost in self._control.look():
            yield _register(lost, lost.address)

    def _push(self, maps: Maps) -> int:
        made = packed(self.derived.pieces)
        for name, values in (("masks", made.masks), ("sites", made.sites), ("pieces", made.pieces)):
            _fill(maps[f"syscall_table_{name}"], values)
        if left := len(self.derived.pieces) - len(made.pieces):
            self.derived.unknown.append(f"{left} pieces for which there is no room")
        return sum(_places_of(each) for each in self.derived.pieces[: len(made.pieces)])

    def _kernel(self, trampolines: Sequence[int]) -> Kernel:
        text, known = self.derived.text, bool(self.derived.text)
        ranges = sorted(self.derived.dispatchers, key=len, reverse=True)[:DISPATCHERS]
        dispatchers = [end for each in ranges for end in (each.start, each.stop)]
        return Kernel(
            text.start,
            text.stop,
            MODULES_RANGE.start if known else 0,
            MODULES_RANGE.stop if known else 0,
            _WAIT_NS,
            tuple(trampolines),
            tuple(dispatchers),
        )

    def _activity(self, code: CodeWatch | None) -> Activity:
        totals = [each for value in self._looks.array() for each in Look.each(value)]
        looks, unreadable = sum(each.looks for each in totals), sum(each.unreadable for each in totals)
        checked = sum(Entered.decode(value).checked for value in self._handlers.array())
        before, self._before = self._before, (looks, unreadable, checked)
        return Activity.without_header(
            looks=looks - before[0],
            unreadable=min(unreadable - before[1], 0xFFFF_FFFF),
            checked=checked - before[2],
            text_bytes=code.compared() if code is not None else 0,
            places=self.places,
            reference=code.reference if code is not None else "none",
            unknown=", ".join((*self.unknown, *(code.unknown if code is not None else ())))[:_CHARS],
        )

    def _renew(self) -> None:
        """Where modules came or went since the symbols were read, they are read again: hooks are rare."""
        listed = loaded_modules(_MODULES)
        modules = "\n".join(f"{each.tag} {each.size} {each.address:#x}" for each in listed)  # without users
        if modules != self._modules:
            self._read_symbols(modules)

    def _read_symbols(self, modules: str) -> None:
        self._symbols.renew()
        self._modules, self._read_at = modules, time.monotonic()

    def _name(self, address: int) -> str:
        if address in self.derived.names:
            return self.derived.names[address]
        return named(self._symbols, address, self._module(address))[0] if address else ""

    def _module(self, address: int) -> str:
        """The one that is listed there; empty: none."""
        for line in self._modules.splitlines():
            name, size, start = line.split()
            if int(start, 16) <= address < int(start, 16) + int(size):
                return name
        return ""

    def _owner(self, address: int) -> str:
        """`kernel`, a module's name, `bpf` and the like for code that these made; `?` for nobody's that is known."""
        if address in self.derived.text:
            return "kernel"
        if name := self._module(address):
            return name
        if time.monotonic() - self._read_at > _FRESH_S:  # tracers and BPF make and remove code without a module
            self._read_symbols(self._modules)
        return named(self._symbols, address, "")[1] or "?"

    def _place(self, event: Hook, piece: Piece | None, first: int) -> str:
        if event.where == "register":
            return NAMES.get(event.address, CR4)
        if piece is None:
            table = (each.name for each in self.derived.pieces if event.where == "table" == WHERE[each.where])
            return next(table, "") or self._name(event.address)
        if event.where in ("table", "pointer", "idt"):
            return f"{piece.name}+{event.address - piece.address + piece.offset:#x}"
        return f"{piece.name}+{piece.offset + first:#x}"

    def _syscall(self, event: Hook, piece: Piece | None) -> str:
        if event.where == "handler" and piece is not None:
            return call_of(piece.name)
        if event.was in self.derived.names:
            return call_of(self.derived.names[event.was])
        return ""

    def _explained(self, event: Hook, piece: Piece | None, first: int) -> str:
        if piece is None or event.restored or event.where not in ("handler", "entry", "dispatch"):
            return ""
        if cause := self._causes.of(piece.address + first, piece.name, event.time):
            return cause
        # A kprobe that is removed is taken off the list before its code goes, step by step.
        leads_to = _leads_to(piece, event.content, first)
        if leads_to and self._owner(leads_to) == explained.KPROBES:
            return "kprobe"
        return "kprobe" if event.content[first : first + 1] == _BREAKPOINT and self._is_as_before(piece) else ""

    def _is_as_before(self, piece: Piece) -> bool:
        try:
            content = self._memory.read(piece.address, len(piece.expected))
        except KernelError:
            return False
        return _first_difference(piece, content) is None


def _hook(**fields: object) -> Hook:
    usual: dict[str, object] = {
        "address": 0,
        "was": 0,
        "now": 0,
        "content": b"",
        "number": -1,
        "piece": 0xFFFF_FFFF,
        "abi": "none",
        "trigger": "start",
        "target": "none",
        "restored": False,
        "own_module": False,
    }
    return Hook.without_header(**{**usual, **fields})


def _register(found: Change | Lost, address: int, target: str = "none") -> Hook:
    return _hook(
        address=address,
        was=found.was,
        now=found.now,
        number=found.cpu,
        where="register",
        trigger="scan",
        target=target,
        restored=found.restored,
    )


def _first_difference(piece: Piece, content: bytes) -> int | None:
    """In bytes, None where there is none.

    What ftrace may change differs only where something else stands there than it puts.
    """
    mask = bytearray(piece.mask)
    site = piece.ftrace
    if site is not None and not is_ftraces(content[site : site + 5]):
        mask[site : site + 5] = b"\xff" * 5
    pairs = zip(piece.expected, content, mask, strict=False)
    return next((index for index, (was, now, counts) in enumerate(pairs) if counts and was != now), None)


def _leads_to(piece: Piece, content: bytes, first: int) -> int:
    """Where a jump or call that begins at the first byte that differs leads; 0 where there is none."""
    code = content[first : first + 5]
    if piece.where in (HANDLER, ENTRY) and code[:1] in _FOLLOWED and len(code) == 5:
        relative = int.from_bytes(code[1:], "little", signed=True)
        return (piece.address + first + 5 + relative) & 0xFFFF_FFFF_FFFF_FFFF
    return 0


def _fill(table: Map, values: Sequence[bytes]) -> None:
    for index, value in enumerate(values):
        table.set(WORD.encode(index), value)


def _places_of(piece: Piece) -> int:
    if piece.sites:
        return len(piece.sites) + 1
    return {"table": len(piece.expected) // 8, "idt": len(piece.expected) // 16}.get(WHERE[piece.where], 1)
