"""What one module of this plugin brings: a topic is one event type with its probes, its C and its facts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from krie import (
    Alternative,
    AnyFile,
    AttachType,
    Enforcement,
    Event,
    Features,
    Json,
    KernelFile,
    KernelMemory,
    Maps,
    Probe,
    Program,
    Sensor,
    Shared,
)

from .config import RuntimeIntegrityConfig

PREFIX = "runtime_integrity"
"""The plugin's name, which its C functions start with."""
VERSION = "1"
REFUSES = frozenset({Enforcement.REFUSE, Enforcement.KILL})
KILLS = frozenset({Enforcement.KILL})
NATIVE_ONLY = "does not see 32-bit system calls"
SYSCALL_LIMITS = "arguments are read before the kernel copies them: the caller can change user memory meanwhile"
NO_PMU = 0
"""A type that nothing of sysfs has: it is that of hardware."""


def pmu_type(name: str) -> int:
    """The number by which perf_event_open(2) knows what measures; `NO_PMU` where this kernel has none of the name."""
    file = KernelFile(f"/sys/bus/event_source/devices/{name}/type")
    return int(file.read_text()) if file.exists() else NO_PMU


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. The plugin puts all of them together."""

    event: type[Event]
    probes: tuple[Probe, ...] = ()
    sources: tuple[str, ...] = ()
    """The C files with the functions of all alternatives, in this order."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """JSON Schema of each fact that `enrich` adds."""
    enrich: Callable[[Event], Mapping[str, Json] | None] = lambda _: None
    """The facts of an event of this topic's type."""
    scan: Callable[[], Iterable[Event]] = tuple
    """What a look at the kernel finds that no probe sees: see `krie.plugin.hookspecs.krie_scan`."""
    defines: Mapping[str, int] = field(default_factory=dict)
    """Constants for the C file, whatever is configured."""
    shared: tuple[type[Shared], ...] = ()
    """Keys and values of its maps."""
    needs: frozenset[AttachType] = frozenset()
    """A kernel that refuses all of these has nothing to see: the probes are left out. Empty: never."""
    attach: Callable[[Maps, KernelMemory, RuntimeIntegrityConfig], None] = lambda *_: None
    """Takes what `scan` compares with."""
    checked: Callable[[Collection[str], Mapping[str, int]], None] = lambda *_: None
    """See `krie.plugin.hookspecs.krie_checked`."""
    wanted: Callable[[RuntimeIntegrityConfig], bool] = lambda _: True
    """Whether its probes are configured."""
    restore: Callable[[Event], str | None] = lambda _: "there is nothing to put back"
    """See `krie.plugin.hookspecs.krie_restore`."""

    def sensor(self, config: RuntimeIntegrityConfig, features: Features) -> Sensor:
        """All of its C, whatever is wanted of it: what is compiled is the same for every configuration."""
        nothing_to_see = self.needs and self.needs <= features.refused.keys()
        return Sensor(
            name=PREFIX,
            version=VERSION,
            probes=self.probes if self.wanted(config) and not nothing_to_see else (),
            events=(self.event,),
            sources=tuple(map(files(__package__).joinpath, self.sources)),
            defines=self.defines,
            shared=self.shared,
        )


def hooked(
    attach: AttachType,
    hooks: Mapping[str, tuple[str, ...]],
    *,
    fields: frozenset[str],
    also: tuple[Program, ...] = (),
    limits: str = "",
) -> Alternative:
    """Programs at security hooks (by their names without `security_`), or at the functions that call them.

    `hooks` gives the names of each hook's C functions, which the manner of attaching ends: the same ones serve LSM and
    fmod_ret. `also`: programs beside them, which refuse nothing.
    """
    refuses = attach in (AttachType.LSM, AttachType.FMOD_RET)
    target = "" if attach is AttachType.LSM else "security_"
    end = "hook" if refuses else attach
    programs = tuple(
        Program(attach, f"{target}{hook}", f"{PREFIX}_{name}_{end}") for hook, names in hooks.items() for name in names
    )
    return Alternative(str(attach), (*programs, *also), fields=fields, can=REFUSES if refuses else KILLS, limits=limits)


def called(
    calls: Mapping[str, str],
    *,
    fields: frozenset[str],
    also: tuple[Program, ...] = (),
    limits: str = SYSCALL_LIMITS,
) -> Alternative:
    """The last resort: programs at the entry of system calls. `calls` gives the start of each one's C function."""
    programs = (
        Program(AttachType.SYSCALL, call, f"{PREFIX}_{name}_{AttachType.SYSCALL}") for call, name in calls.items()
    )
    return Alternative(
        str(AttachType.SYSCALL), (*programs, *also), fields=fields, can=KILLS, every_syscall=True, limits=limits
    )


def is_set(setting: AnyFile, value: str) -> bool:
    """Whether a setting of the kernel has this value; False where this kernel has no such setting."""
    try:
        return setting.read_text().strip() == value
    except OSError:
        return False
