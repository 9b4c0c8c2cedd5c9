"""Which BPF program is attached where: static data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AttachType(StrEnum):
    """Where a BPF program can be attached."""

    LSM = "lsm"
    """A security hook of the kernel, by its name without `security_`. Can refuse. Needs `bpf` in lsm=."""
    FMOD_RET = "fmod_ret"
    """A function named `security_*`: can refuse as LSM does, needs no boot parameter."""
    FENTRY = "fentry"
    """Entry of a kernel function, with its arguments."""
    KPROBE = "kprobe"
    """An instruction of a kernel function; `offset` bytes behind its start."""
    KRETPROBE = "kretprobe"
    """The return of a kernel function: its program runs when what the function does is done."""
    KPROBE_OVERRIDE = "kprobe_override"
    """Entry of a function that the kernel lets be replaced by an error, such as `__x64_sys_ptrace`: can refuse. Needs a
    kernel with CONFIG_BPF_KPROBE_OVERRIDE, which distributions leave out."""
    TRACEPOINT = "tracepoint"
    """`group/name`, with the arguments formatted as tracefs describes."""
    RAW_TRACEPOINT = "raw_tracepoint"
    """A tracepoint by its name, with the raw arguments."""
    SYSCALL = "syscall"
    """Entry of one system call, by its name (or native number), for callers of every kind. The program is that of a raw
    tracepoint at sys_enter. All such programs together cost every other system call one small program."""
    CGROUP_SYSCTL = "cgroup_sysctl"
    """Every access to /proc/sys by processes below the root of the cgroup v2 tree. Can refuse. Has no target."""
    PERF_EVENT = "perf_event"
    """A CPU clock on each CPU; the target is the period in ns."""


@dataclass(frozen=True, slots=True)
class Program:
    """One BPF program: a function of the sensor's C source and the place it is attached to."""

    attach: AttachType
    target: str
    function: str
    """Name in C; must start with `<plugin>_`. The kernel keeps 15 characters of a name, so there it is shorter, with a
    number by which no two programs have the same: `krie.loader.program_name`."""
    offset: int = 0
    optional: bool = False
    """Left out, and named as such, where this kernel has no such function: then there is nothing to see."""
    proven: bool = True
    """The canary makes it run. False for what cannot be done without harm: that it is attached must do."""
    argument: int = 0
    """A number of 32 bits for the function, which asks for it by `krie_self() >> 32`: one function can serve many
    places, and knows by it in which one it runs. Not 0 where a function is attached more than once."""
    roaming: int = 0
    """For kprobes: attached not at `offset` but at an instruction drawn at random among the first so many bytes of the
    target, at start and again every `agent.roaming_interval_s`; 0: it stays. Only calls and jumps are drawn (see
    `krie.kernel.traps`): where none of them is free there, the next one behind, and where the target has none at all,
    the program is not attached. Whether it ever runs is up to chance. Each run takes an exception: this is not for
    functions that ordinary work calls all the time."""
    through: str = ""
    """Not attached, but loaded as if it were: other programs of the same attach type and target go on to it, by a tail
    call to element 0 of this map (BPF_PROG_ARRAY) of the C source. It comes before them in its alternative, has a map
    that no other attach type uses, and cannot be `proven`."""

    @property
    def label(self) -> str:
        """Tells apart the places of one function."""
        return f"{self.function}.{self.argument:x}" if self.argument else self.function


@dataclass(frozen=True, slots=True)
class Trap:
    """Where one program is attached now."""

    probe: str
    """`<plugin>.<probe>`"""
    target: str
    offset: int

    def __str__(self) -> str:
        """As the kernel lists kprobes."""
        return f"{self.target}+{self.offset:#x}"
