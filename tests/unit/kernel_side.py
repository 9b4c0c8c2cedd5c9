"""The kernel's side of enforcement, in memory: its maps, the program that changes them, and what is attached.

Only what KRIe's C does there is done here; whoever reads the maps in tests is who would be bound by them.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from krie import AttachType, KernelError, Maps, Sensor
from krie.agent.load_facts import LoadFacts
from krie.agent.loading import Attached
from krie.decision import Mode
from krie.enforce.verdicts import Verdicts
from krie.events.agent import AGENT_EVENTS
from krie.events.enforcement import ENFORCEMENT_EVENTS
from krie.events.event import Event, EventTypes
from krie.events.identity import Identity, Key
from krie.events.table_layout import EMPTY
from krie.events.wire import NAME_BYTES
from krie.kernel.features import Features
from krie.loader.origin import Origin
from krie.plugin.report import ProbeReport
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.processes.binding import Bindings
from krie.procfs import Procfs
from krie.testing.events import build
from krie.testing.fakes import FakeMap, fake_maps
from krie.tier.kernel_tables import KernelTables
from krie.timings import Timings

AGENT = 77
NOBODY = Procfs.at(Path("/proc/sys"))
"""A folder without processes."""
_POISON, _CLEAR, _FLAGS, _EXPIRE, _POISON_BEYOND_SHARE = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class LoggedMap(FakeMap):
    """Keeps the order of writes to several maps."""

    log: list[tuple[str, str, bytes]] = field(default_factory=list)
    failing: set[tuple[str, str]] = field(default_factory=set)
    """What fails, and in which map."""

    def set(self, key: bytes, value: bytes) -> None:
        if ("set", self.name) in self.failing:
            raise KernelError(f"writing map {self.name}", 7)
        FakeMap.set(self, key, value)
        self.log.append(("set", self.name, value if self.name == "krie_tables" else key))

    def remove(self, key: bytes) -> bool:
        if ("remove", self.name) in self.failing:
            raise KernelError(f"removing from map {self.name}", 12)
        self.log.append(("remove", self.name, key))
        return FakeMap.remove(self, key)


class KernelSide:
    """What the agent finds when everything is loaded."""

    def __init__(self, *, contain: bool = True) -> None:
        self.log: list[tuple[str, str, bytes]] = []
        self.made: list[tuple[int, list[bytes]]] = []
        """Number and tables of each generation's map, in order."""
        self.failing: set[tuple[str, str]] = set()
        """`set` or `remove`, and the map in which that fails."""
        self.full = False
        """There is no room for another map."""
        sizes = {
            "krie_poisoned": (16, 32, False),
            "krie_verdicts": (16, 32, False),
            "krie_busy": (4, 16, True),
            "krie_settings": (4, 24, True),
            "krie_protected": (16, 4, False),
            "krie_enforcing": (4, 4, True),
            "krie_agent": (4, 8, True),
            "krie_tables": (4, 4, True),
            "krie_names": (NAME_BYTES, 4, False),
            "krie_programs": (16, 4, False),
            "krie_named": (16, 4, False),
            "process_running": (4, 32, True),
        }
        if contain:
            own = {
                **dict.fromkeys(("own_maps", "own_programs", "own_links", "mounts"), (4, 4, False)),
                **dict.fromkeys(("files", "folders", "ways"), (16, 4, False)),
                "counts": (16, 16, False),
            }
            sizes |= {f"containment_{name}": each for name, each in own.items()} | {
                "guard_heart": (4, 56, True),
                "containment_cgroups": (8, 8, False),
            }
        made = {
            name: LoggedMap(name, 900 + number, 1, key, value, 1024, indexed, {}, self.log, self.failing)
            for number, (name, (key, value, indexed)) in enumerate(sizes.items())
        }
        self.maps: Maps = fake_maps(**made)
        self.content: Mapping[str, dict[bytes, bytes]] = {name: each.content for name, each in made.items()}

    def run(self, _program: int, arguments: tuple[int, ...]) -> None:
        """`krie_change` of `bpf/verdict.bpf.c`."""
        command, tgid, start_time, until, rule, errno = arguments
        key = struct.pack("=QII", start_time, tgid, 0)
        _, flags = struct.unpack_from("=II", self.maps["krie_busy"].get(bytes(4)) or bytes(16))
        if command in (_POISON, _POISON_BEYOND_SHARE):
            self.content["krie_poisoned"][key] = key + struct.pack("=QII", until, rule, errno)
        elif command == _EXPIRE:
            known = self.content["krie_poisoned"].get(key)
            if known is not None and struct.unpack_from("=Q", known, len(key))[0] <= until:
                del self.content["krie_poisoned"][key]
        elif command == _CLEAR:
            self.content["krie_poisoned"].pop(key, None)
        elif command == _FLAGS:
            flags = tgid
        self.content["krie_busy"][bytes(4)] = struct.pack("=IIQ", len(self.content["krie_poisoned"]), flags, 0)

    def refused(self, process: Key, operation: int, count: int, rule: int = 0) -> None:
        """`containment.bpf.c` refused something."""
        key = struct.pack("=QII", process.start_time, process.tgid, operation)
        self.content["containment_counts"][key] = struct.pack("=QII", count, rule, 0)

    def new_map(self, tables: Sequence[bytes]) -> int:
        if self.full:
            raise KernelError("creating map krie_generation", 12)
        self.made.append((5000 + len(self.made), list(tables)))
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def number_of(self, descriptor: int) -> int:
        """Of the map that was made last; of others one that tells their descriptor."""
        return descriptor + 1000 if descriptor >= 900 else self.made[-1][0]

    def tables(self, maps: Mapping[str, Any], kinds: Sequence[int]) -> KernelTables:
        return KernelTables(maps, kinds, self.new_map, self.number_of)

    @property
    def in_force(self) -> list[bool]:
        """For each slot whether a table decides there."""
        return [each != EMPTY for each in self.made[-1][1]] if self.made else []

    def owned(self) -> set[int]:
        """Numbers of the maps that nobody but the agent may open."""
        return {int.from_bytes(key, "little") for key in self.content["containment_own_maps"]}


def armed(
    kernel: KernelSide,
    *sensors: Sensor,
    reports: Sequence[ProbeReport] = (),
    modes: Mapping[str, Mode] | None = None,
    **more: object,
) -> Attached:
    """Everything that is asked of what was loaded and attached; all sensors enforce unless `modes` says otherwise."""
    types = EventTypes((*AGENT_EVENTS, *ENFORCEMENT_EVENTS, *(event for each in sensors for event in each.events)))
    kinds = tuple(event.KIND for each in sensors for event in each.events)
    parts = {
        "agent": own_header(),
        "beat": list,
        "holders": lambda _: [],
        "sending": SimpleNamespace(start=list, stop=list, is_on=lambda: True),
        "ground": SimpleNamespace(tick=list, turned_off=lambda: False, obstacle=str),
        "facts": LoadFacts(
            cast("Features", SimpleNamespace(release="6.12.0", refused={AttachType.LSM: "EPERM"})),
            Origin.CACHE,
            "",
            Timings("agent"),
        ),
        "inspector": SimpleNamespace(identify=identify),
        "bindings": Bindings(0, kernel.maps, lambda *_: None, NOBODY),
        "loaded": SimpleNamespace(
            loaded=SimpleNamespace(kinds=kinds, sensors=tuple(each.name for each in sensors)),
            descriptors={},
        ),
        "maps": kernel.maps,
        "plugins": SimpleNamespace(
            restorer=lambda _: None,
            sensors=sensors,
            facts=lambda _: {},
            degraded={},
            loaded=(),
            modes={each.name: Mode.ENFORCE for each in sensors} if modes is None else modes,
        ),
        "probes": SimpleNamespace(reports=list(reports), raised={}),
        "sensors": sensors,
        "types": types,
        "verdicts": Verdicts(kernel.maps, 0, kernel.run),
    }
    made = SimpleNamespace(**{**parts, **more})
    made.levers = lambda: Attached.levers(cast("Attached", made))
    return cast("Attached", made)


def own_header() -> Event:
    """As a program would have filled it for the agent."""
    return build(SysctlWrite, tgid=AGENT, tid=AGENT, start_time=5 * 10**9)


def identify(descriptor: int) -> Identity:
    """Which file it is, as this machine's kernel tells everybody."""
    status = os.fstat(descriptor)
    return Identity(status.st_dev & 0xFFFFFFFF, status.st_ino, 0)
