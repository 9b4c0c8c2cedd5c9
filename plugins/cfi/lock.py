"""The lock on the running kernel: fills the programs' maps, names addresses, tells what was found and counted."""

from __future__ import annotations

import logging
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence

from krie import ONLY, PRESENT, WORD, Json, KernelError, KernelFile, KernelMemory, Maps, Symbols, loaded_modules

from .background import Derivation
from .declaration import Declaration
from .derivation import THUNKS
from .derived import Callers, filed, named_by
from .events import FIRST_BYTES, Activity, Caller, Lock
from .live import BOUNDS, layout, locate
from .lock_file import LockFile
from .maps import Count, Kernel, Place
from .module_calls import READ, UNREAD, WITHOUT, ModuleCalls

_TRAMPOLINES = (
    ("__kretprobe_trampoline", "kretprobe_trampoline"),
    ("arch_rethook_trampoline",),
    ("return_to_handler",),
)
"""Where the kernel lets functions return to that a tracer follows, by names that it has or had."""
_TRACERS = frozenset(name for names in _TRAMPOLINES for name in names)
_MODULES_START = "_end"
_MODULES_END = 0xFFFFFFFFFF000000  # MODULES_END of x86-64
_MODULES, _LIVE_PATCHES = KernelFile("/proc/modules"), KernelFile("/sys/kernel/livepatch")
_log = logging.getLogger("krie")


class Live:
    """While the agent is armed."""

    def __init__(
        self, maps: Maps, memory: KernelMemory, declared: Declaration, lock: LockFile | None, further: Sequence[str]
    ) -> None:
        """Lock what the lock file has at once, and begin to derive the rest and to compare. Raises `KernelError`.

        `lock`: of this build, None where there is none. `further`: functions of the configuration.
        """
        self._counts, self._legal, self._kernel = (maps[each] for each in ("cfi_counts", "cfi_legal", Kernel.C_NAME))
        self._declared, self._file = declared, lock
        self._known = locate(
            {*BOUNDS, *_TRACERS, _MODULES_START, *declared.functions, *(named_by(lock, declared) if lock else ())},
            THUNKS if lock is not None else (),
        )
        self._modules: list[tuple[bytes, int]] = []
        self._symbols: Symbols | None = None  # read by the first scan
        self._before = (0, 0, 0)
        self._calls: ModuleCalls | None = None
        """Once it is known by which functions modules reach the locked ones."""
        self._patched = _live_patched()
        self.locked: dict[str, bool] = {}
        """Functions that are locked; whether all callers are known."""
        for number, gain in declared.paths().items():
            maps["cfi_paths"].set(WORD.encode(number), WORD.encode(gain))
        self._filed = filed(lock, declared, self._known, memory.read) if lock is not None else Callers({}, ())
        self._put(self._filed, self._filed.legal)
        build_id = lock.build_id if lock is not None else ""
        self._derivation: Derivation | None = Derivation(memory, layout(self._known), build_id, further)

    def close(self) -> None:
        """Wait for nothing any more."""
        for each in (self._derivation, self._calls):
            if each is not None:
                each.stop()

    def facts(self, event: Caller) -> dict[str, Json]:
        """Names for the addresses of an event; symbols are read again where modules came or went."""
        # Without the number of their users, which an attack changes, too: reading symbols takes tens of milliseconds.
        modules = [(each.raw, each.address) for each in loaded_modules(_MODULES)]
        symbols = self._names()
        if modules != self._modules:
            symbols.renew()
            self._modules = modules
        found = symbols.find(event.return_address)
        addresses = (each for (each,) in struct.iter_unpack("=Q", event.kernel_stack) if each)
        return {
            "return_symbol": str(found or ""),
            "return_module": (module := found.module if found is not None else ""),
            "module_file": self._calls.file(event.return_address, module, event.function) if self._calls else UNREAD,
            "stack_symbols": [str(symbols.find(each) or "") for each in addresses],
        }

    def _names(self) -> Symbols:
        if self._symbols is None:
            self._symbols = Symbols()
        return self._symbols

    def poll(self) -> Iterator[Lock]:
        """What the lock was made of, once: when that is known. Later what modules call, when that is read."""
        if self._calls is not None:
            self._calls.poll()
        if self._derivation is None:
            return
        try:
            derived = self._derivation.answer()
            if derived is None:
                return
            self._derivation = None
            self._put(derived, derived.legal.keys() - self._filed.legal.keys())
            through = {name: derived.through[name] for name in self.locked if name in derived.through}
            self._calls = ModuleCalls(self._legal, self._numbers(), through)
            self._calls.look(loaded_modules(_MODULES))
        except (KernelError, ValueError) as error:
            self._derivation = None
            _log.error("plugin cfi: %s; what the lock file does not have stays unlocked", error)
            yield self._told(0, [], str(error))
            return
        for name in sorted(self._declared.functions.keys() - self.locked.keys()):
            why = "no direct call of it" if name in self._known else "no such function, or several"
            _log.warning("plugin cfi does not lock %s: this kernel has %s", name, why)
        yield self._told(derived.callers, derived.differences)

    def scan(self) -> Iterator[Activity]:
        """What was checked since the last time.

        Where live patches came or went, what is certain changes: their functions take the place of legal callers.
        """
        if self._calls is not None:
            self._calls.look(loaded_modules(_MODULES))
        self._names()  # the first time takes long, and names must be there when something is found
        if (patched := _live_patched()) != self._patched:
            self._patched = patched
            self._switch({})
        counts = [Count.total(each) for each in self._counts.array()]
        now = (
            sum(each.checks for each in counts),
            sum(each.failed for each in counts),
            sum(each.traced for each in counts),
        )
        checks, failed, traced = (after - before for after, before in zip(now, self._before, strict=True))
        self._before = now
        if checks:
            yield Activity.without_header(checks=checks, failed=failed, traced=traced)

    def _put(self, callers: Callers, functions: Collection[str]) -> None:
        """First who may call, then that it counts."""
        numbers = self._numbers()
        for name in functions:
            for address in callers.legal[name]:
                self._legal.set(Place(address, numbers[name]).encode(), PRESENT)
        self._switch({name: name in callers.certain for name in functions})

    def _numbers(self) -> dict[str, int]:
        return {name: each.number for name, each in self._declared.functions.items()}

    def _switch(self, further: Mapping[str, bool]) -> None:
        """Lock these functions, too, and say which are certain."""
        self.locked |= further
        numbers = {name: 1 << self._declared.functions[name].number for name in self.locked}
        certain = sum(numbers[name] for name, each in self.locked.items() if each and not self._patched)
        self._kernel.set(ONLY, _kernel(self._known, sum(numbers.values()), certain).encode())

    def _told(self, callers: int, differences: Sequence[str], problem: str = "") -> Lock:
        return Lock.without_header(
            locked=len(self.locked),
            callers=callers,
            filed=sum(len(each.callers) for each in self._file.functions.values()) if self._file is not None else 0,
            differing=len(differences),
            source="filed" if self._file is not None else "derived",
            release=self._file.release if self._file is not None else "",
            first=(differences[0] if differences else "")[: FIRST_BYTES - 1],
            unlocked=" ".join(sorted(self._declared.functions.keys() - self.locked.keys()))[: FIRST_BYTES - 1],
            problem=problem[: FIRST_BYTES - 1],
        )


def _live_patched() -> bool:
    """Whether the kernel runs functions of live patches, or is about to."""
    return _LIVE_PATCHES.exists() and any(_LIVE_PATCHES.iterdir())


def _kernel(known: Mapping[str, range], locked: int, certain: int) -> Kernel:
    """What is not known is 0."""

    def address(*names: str) -> int:
        return next((known[name].start for name in names if name in known), 0)

    text, text_end, modules = map(address, ("_stext", "_etext", _MODULES_START))
    trampolines = tuple(address(*names) for names in _TRAMPOLINES)
    return Kernel(locked, certain, text, text_end, modules, _MODULES_END, trampolines)


def facts_schema() -> Mapping[str, Json]:
    """JSON Schema of what `Live.facts` adds to an event."""
    return {
        "return_symbol": {"type": "string", "description": "function and offset of `return_address`"},
        "return_module": {
            "type": "string",
            "description": "the module that it is in; `bpf` and `ftrace` for theirs, empty for the kernel",
        },
        "module_file": {
            "type": "string",
            "description": f"`{READ}`: the file of the module in which the return address lies was read, and makes no "
            f"such call there; `{WITHOUT}`: this module has no file of its build; empty: neither, or not known yet",
        },
        "stack_symbols": {
            "type": "array",
            "items": {"type": "string"},
            "description": "functions and offsets of `kernel_stack`",
        },
    }
