"""What a plugin contributes to the kernel side: static data, printable and testable without a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources.abc import Traversable

from ..events.event import Event
from ..events.shared import Shared
from ..kernel.program import Program


class Enforcement(StrEnum):
    """What a program can do about the operation that it sees."""

    REFUSE = "refuse"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to observe what a probe is about: all of its programs are attached, or none."""

    name: str
    """Short name, for people."""
    programs: tuple[Program, ...]
    fields: frozenset[str] = frozenset()
    """The event's own fields that hold a real value when they come from here."""
    can: frozenset[Enforcement] = frozenset()
    bystander: bool = False
    """Whoever runs when its programs do has nothing to do with what they tell, as one that a timer interrupts. They
    decide nothing, so rules that the kind's other probes can carry out are the kernel's."""
    every_syscall: bool = False
    """Makes every system call of every process slower; off unless `allow_syscall_tracepoints` is set."""
    limits: str = ""
    """What this way does not see, in one sentence for `krie doctor`."""


class CannotProve(Exception):
    """Raised by a canary where the kernel refuses its operation before any program is asked, as a setting demands: its
    text says which. A probe whose programs did not run then counts as attached, not as silent."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A place in the kernel to observe, with the ways to do so in order of preference."""

    name: str
    """Unique within the sensor, lower case."""
    event: type[Event] | None
    """What it emits; None for probes that only keep state."""
    alternatives: tuple[Alternative, ...]
    canary: Callable[[], None] | None = None
    """A harmless operation of the agent's own that makes every program of every alternative run, but those that are not
    `proven`. It is called at start and at an interval; None where nothing harmless exists, and the probe is then never
    shown as alive."""
    required: bool = False
    optional: bool = False
    """Kernels may do without what it is attached to: where it is missing that is told, and is not a failure."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """What a plugin contributes, or one part of it: `krie_sensor` returns one, or several that belong together."""

    name: str
    """The plugin's name: prefix of its event names and C functions."""
    version: str
    probes: tuple[Probe, ...] = ()
    events: tuple[type[Event], ...] = ()
    """All event types, those of the probes and those that `krie_scan` yields."""
    sources: tuple[Traversable, ...] = ()
    """The BPF C files with the functions of all alternatives. They are compiled together, in this order."""
    policies: Traversable | None = None
    """A folder of `.rego` files (package `krie.<name>`, tests in `*_test.rego`) and `.json` data."""
    types: tuple[str, ...] = ()
    """Kernel types that the C source needs besides those it names in `KRIE_READ(type, ...)`."""
    defines: Mapping[str, int] = field(default_factory=dict)
    """Constants for the C source; names must start with the upper-case plugin name. What is configured, or differs
    between machines, goes into a map (`krie_attached`): a constant that changes has everything compiled again. Those of
    an enumeration that C and Python share: `krie.constants`."""
    shared: tuple[type[Shared], ...] = ()
    """Keys and values of maps that C and Python share; names in C start with the plugin's. What another one has within
    comes after that."""
