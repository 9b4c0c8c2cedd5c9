"""Variables of the kernel that hold another value than they should, however that was written.

A write through /proc/sys is an event of its own (`sysctl_write`); this finds what a write to the kernel's memory
leaves. Compared every `scan_interval_s`; between two scans by looks of the kernel side (`parameter_look`). Limits: who
did it is not known.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from krie import (
    U32,
    U64,
    Btf,
    Chars,
    Choice,
    Doc,
    Event,
    Hex64,
    KernelError,
    KernelFile,
    KernelMemory,
    Maps,
    Pad4,
    addresses,
    kprobe_lines,
)

from .config import RuntimeIntegrityConfig
from .parameters import NUMBER_BYTES, SHIPPED, Parameter
from .topic import Topic
from .watched import Watched

_log = logging.getLogger("krie")
_KPROBES, _LIST = "/kprobes/enabled", KernelFile("/sys/kernel/debug/kprobes/list")
_BREAKPOINTS = (b"\xcc", b"\xe9")
"""What a kprobe puts into the text: int3 or, where it is optimized, a jump."""
STATES = {1: "differs", 2: "agrees", 3: "unwatched"}


@dataclass(frozen=True, slots=True)
class KernelParameter(Event):
    """A variable of the kernel has an unexpected value, or its expected one again. Found by comparison."""

    KIND: ClassVar[int] = 0x0109
    NAME: ClassVar[str] = "runtime_integrity.kernel_parameter"

    since: Annotated[U64, Doc("when the difference was first found, ns since boot; 0 unless `differs`")]
    address: Annotated[Hex64, Doc("where the variable lies; 0 where that is not known")]
    length: Annotated[U32, Doc("its bytes")]
    offset: Annotated[U32, Doc("of these, the first that differs; 0 for numbers and text")]
    symbol: Annotated[str, Chars(64), Doc("the variable; `variable.field` for a field")]
    expected: Annotated[str, Chars(128), Doc("what it should be, in words: `0`, `at least 1`, a text, bytes")]
    found: Annotated[str, Chars(128), Doc("what it is")]
    interface: Annotated[str, Chars(96), Doc("the file by which the kernel lets it be set; empty for none")]
    reason: Annotated[str, Chars(120), Doc("unwatched: why it cannot be compared on this kernel")]
    state: Annotated[
        str, Choice("I", STATES), Doc("`agrees`: again; `unwatched`: told once for each variable that is left out")
    ]
    pad: Pad4 = b""


@dataclass(slots=True)
class WatchedParameters:
    """All variables that are watched."""

    memory: KernelMemory | None = None
    watched: dict[str, Watched] = field(default_factory=dict)
    untold: dict[str, tuple[Parameter, str]] = field(default_factory=dict)
    """Those that are left out, with the reason, until the journal has them."""

    def attach(self, _maps: Maps, memory: KernelMemory, config: RuntimeIntegrityConfig) -> None:
        """Find the variables and note what they hold."""
        shipped = {each.name: each for each in SHIPPED} if config.shipped_parameters else {}
        wanted = {**shipped, **{each.name: each for each in config.parameters}}
        self.memory = memory
        self.take(wanted, addresses({each.symbol for each in wanted.values()}), Btf())
        if self.untold:
            _log.info("kernel parameters that are not watched on this kernel: %s", ", ".join(sorted(self.untold)))

    def take(self, wanted: Mapping[str, Parameter], places: Mapping[str, tuple[int, ...]], btf: Btf) -> None:
        """The same, with addresses and types given."""
        assert self.memory is not None
        for name, parameter in wanted.items():
            try:
                address, size = _place(parameter, places.get(parameter.symbol, ()), btf)
                self.watched[name] = Watched(parameter, address, size, self.memory.read(address, size))
            except (LookupError, KernelError) as error:
                self.untold[name] = (parameter, error.args[0] if isinstance(error, LookupError) else str(error))

    def scan(self) -> Iterator[KernelParameter]:
        """Each new difference, each that is over, and once what is not watched."""
        untold, self.untold = self.untold, {}
        for name, (parameter, why) in untold.items():
            yield _event(parameter, name, state="unwatched", reason=why)
        for name, one in list(self.watched.items()):
            try:
                yield from self._look(name, one)
            except KernelError as error:  # a module that went, for instance
                del self.watched[name]
                yield _event(one.parameter, name, state="unwatched", reason=str(error), address=one.address)

    def _look(self, name: str, one: Watched) -> Iterator[KernelParameter]:
        assert self.memory is not None
        now = self.memory.read(one.address, one.size)
        good = one.good(now)
        places = {"address": one.address, "length": one.size}
        found, offset = one.shown(now, good)
        expected = one.expectation() or one.shown(good, now)[0]
        if now == good:
            if one.told is not None:
                one.told, one.since = None, 0
                yield _event(one.parameter, name, state="agrees", found=found, expected=expected, **places)
            return
        one.since = one.since or time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if one.told != now:
            one.told = now
            told = {"found": found, "expected": expected, "since": one.since, "offset": offset}
            yield _event(one.parameter, name, state="differs", **told, **places)

    def restore(self, event: Event) -> str | None:
        """Write it back by its interface; None, or why that was not done."""
        assert self.memory is not None
        one = self.watched.get(event.symbol) if isinstance(event, KernelParameter) else None
        if one is None or not one.parameter.interface:
            return "the kernel has no interface to put it back by"
        try:
            now = self.memory.read(one.address, one.size)
            if (good := one.good(now)) != now:
                if one.parameter.interface.endswith(_KPROBES) and self._armed():
                    return "kprobes are armed whatever it says; the agent puts it right itself, where that is safe"
                _write(one.parameter.interface, one.as_written(_enabling(one, good)))
            now = self.memory.read(one.address, one.size)
        except (OSError, KernelError) as error:
            return str(error)
        if now != one.good(now):
            return f"{one.parameter.interface} was written, and it still is {one.shown(now, now)[0]}"
        one.told, one.since = None, 0  # the next difference is a new one
        return None

    def _armed(self) -> bool:
        """Whether a breakpoint stands where one is listed, or that cannot be told: arming kprobes on ftrace a second
        time makes the kernel trace all functions when the last one goes. Raises `OSError`, `KernelError`."""
        assert self.memory is not None
        lines = [each for each in kprobe_lines(_LIST) if "[DISABLED]" not in each]
        places = [int(each.split()[0], 16) for each in lines if "[FTRACE]" not in each]
        if not places or not all(places):
            return bool(lines)
        return any(self.memory.read(each, 1) in _BREAKPOINTS for each in places)


def _enabling(one: Watched, good: bytes) -> bytes:
    """kprobes/enabled is the opposite of the variable behind it."""
    return bytes([not good[0]]) if one.parameter.interface.endswith(_KPROBES) else good


def _write(path: str, text: bytes) -> None:
    KernelFile(path).write_bytes(text)


def _place(parameter: Parameter, places: Iterable[int], btf: Btf) -> tuple[int, int]:
    """Address and size. Raises `LookupError` with the reason why there is none."""
    found = tuple(places)
    if len(found) != 1 or not found[0]:
        raise LookupError(
            "this kernel lists no such symbol"
            if not found
            else "kernel.kptr_restrict hides addresses"
            if not any(found)
            else f"{len(found)} symbols have this name"
        )
    offset: int | None = 0
    if parameter.type:
        offset = btf.offset(parameter.type, parameter.field) if parameter.field else 0
        size = btf.size(parameter.type, parameter.field)
    else:
        size = parameter.size or btf.variable_size(parameter.symbol.rpartition(":")[2])
    if size is None or offset is None:
        raise LookupError("BTF does not tell its size; give one")
    if parameter.form == "number" and size not in NUMBER_BYTES:
        raise LookupError(f"has {size} bytes and so is not a number")
    return found[0] + offset, size


def _event(parameter: Parameter, name: str, **fields: object) -> KernelParameter:
    empty = {"since": 0, "address": 0, "length": 0, "offset": 0, "expected": "", "found": "", "reason": ""}
    known = {"symbol": name, "interface": parameter.interface}
    return KernelParameter.without_header(**{**empty, **known, **fields})


def topic(comparison: WatchedParameters) -> Topic:
    """Variables of the kernel."""
    return Topic(KernelParameter, attach=comparison.attach, scan=comparison.scan, restore=comparison.restore)
