"""Modules that one view of the kernel shows and another one does not.

Rootkits take themselves off the kernel's list of modules, and with it out of /proc/modules and /proc/kallsyms, and
often out of /sys/module too. Their memory stays. Compared every `scan_interval_s`; modules that come or go meanwhile
are looked at again until they are settled.

Limits: a module that frees its own struct, or breaks that struct's pointer to itself, and is on no list, is not found.
Nor is code in memory that never belonged to a module.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from krie import Btf, Chars, Doc, Event, FlagSet, Hex64, KernelError, KernelMemory, Maps, addresses

from .config import RuntimeIntegrityConfig
from .module_views import KALLSYMS, PROC, SYMBOLS, SYSFS, Module, ModuleMemory, in_kallsyms, in_proc, in_sysfs
from .topic import Topic

_log = logging.getLogger("krie")
VIEWS = {1: "list", 2: "kset", 4: "memory", 8: "proc", 16: "sysfs", 32: "kallsyms"}
_FILES: Mapping[str, Callable[[], frozenset[str]]] = {"proc": in_proc, "sysfs": in_sysfs, "kallsyms": in_kallsyms}
_PLACES = {"proc": PROC, "sysfs": SYSFS, "kallsyms": KALLSYMS}
"""A kernel may have been built without one of them."""
_LOOKS = 5
"""So often in a row a module must be missing, since it may come or go at any of them."""
_BETWEEN_S = 0.1


@dataclass(frozen=True, slots=True)
class HiddenModule(Event):
    """A kernel module is seen in one place and not in another, where every module is. Found by comparison.

    Where a place lacks most modules, it is not they that hide: one event tells that, and names none of them.
    """

    KIND: ClassVar[int] = 0x010A
    NAME: ClassVar[str] = "runtime_integrity.hidden_module"

    address: Annotated[Hex64, Doc("its struct module; 0 where only files name it")]
    name: Annotated[str, Chars(64), Doc("what it calls itself; empty with address 0: no module, but a broken view")]
    seen: Annotated[
        tuple[str, ...],
        FlagSet("I", VIEWS),
        Doc("where it is: the kernel's `list`, the `kset` of its object, `memory` that no listed one has, or files"),
    ]
    missing: Annotated[tuple[str, ...], FlagSet("I", VIEWS), Doc("where it is not, and should be")]


@dataclass(frozen=True, slots=True)
class Hidden:
    """One module that is not everywhere."""

    name: str
    address: int
    seen: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class Look:
    """All views at about one moment."""

    before: list[Module]
    """The kernel's list before the other views were taken, and after."""
    after: list[Module]
    kset: list[Module]
    memory: list[Module]
    files: Mapping[str, frozenset[str]]
    """By the names of `VIEWS`, those that this kernel has."""

    def hidden(self) -> set[Hidden]:
        """Modules that are not in all views, but those that came or went during the look."""
        listed = {each.name for each in (*self.before, *self.after)}
        steady = {each.name for each in self.before if each.live and each in self.after}
        passing = listed - steady
        views = {
            "list": listed,
            "kset": {each.name for each in self.kset},
            **{view: set(names) for view, names in self.files.items()},
        }
        unlisted = {each.name for each in self.memory}
        places = {each.name: each.address for each in (*self.kset, *self.memory, *self.after)}
        all_names = set().union(*views.values(), unlisted) - passing
        broken = frozenset(view for view, names in views.items() if _lacks_most(all_names, names))
        found = {Hidden("", 0, frozenset(views) - broken, broken)} if broken else set()
        for name in all_names:
            missing = frozenset(view for view, names in views.items() if name not in names) - broken
            if missing:
                seen = frozenset(views) - missing - broken | ({"memory"} if name in unlisted else set())
                found.add(Hidden(name, places.get(name, 0), seen, missing))
        return found


def _lacks_most(all_names: Set[str], names: Set[str]) -> bool:
    """Whether a view lacks more than half of the modules, and more than the one that may hide."""
    lacking = len(all_names - names)
    return lacking > 1 and 2 * lacking > len(all_names)


@dataclass(slots=True)
class HiddenModules:
    """Tells each hidden module once, for as long as it stays as it is."""

    modules: ModuleMemory | None = None
    told: set[Hidden] = field(default_factory=set)
    trouble: str = ""

    def attach(self, _maps: Maps, memory: KernelMemory, _config: RuntimeIntegrityConfig) -> None:
        """Find out how this kernel keeps its modules."""
        places = {name: each[0] for name, each in addresses(SYMBOLS).items() if len(each) == 1}
        try:
            self.modules = ModuleMemory(memory, places, Btf())
        except LookupError as error:
            _log.warning("hidden modules are not looked for: %s", error.args[0])

    def scan(self) -> Iterator[HiddenModule]:
        """Those that are new, or hidden in another way than before."""
        found: set[Hidden] | None = None
        new: set[Hidden] = set()
        for turn in range(_LOOKS):
            if self.modules is None or (found is not None and not new):
                break
            if turn:
                time.sleep(_BETWEEN_S)
            if (look := self._look(self.modules)) is None:
                continue
            new = look - self.told if found is None else new & look
            found = look
        if found is None:
            self._say_nothing_is_seen()
            return
        self.told = (self.told & found) | new
        for each in sorted(new, key=lambda hidden: hidden.name):
            yield HiddenModule.without_header(
                address=each.address, name=each.name, seen=tuple(each.seen), missing=tuple(each.missing)
            )

    def _look(self, modules: ModuleMemory) -> set[Hidden] | None:
        """None where memory changed under the look."""
        try:
            before = modules.listed()
            kset = modules.in_kset()
            files = {name: view() for name, view in _FILES.items() if _PLACES[name].exists()}
            after = modules.listed()
            unlisted = modules.unlisted(after)
        except (KernelError, OSError) as error:
            self.trouble = str(error)
            return None
        return Look(before, after, kset, unlisted, files).hidden()

    def _say_nothing_is_seen(self) -> None:
        if self.modules is not None:
            _log.error("hidden modules were not looked for: %s", self.trouble)


def topic() -> Topic:
    """Hidden modules."""
    comparison = HiddenModules()
    return Topic(HiddenModule, attach=comparison.attach, scan=comparison.scan)
