"""What clock gives to KRIe: one probe, its event, its rules; those of the sample, to be replaced."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

from krie import Alternative, AttachType, Enforcement, Probe, Program, Sensor, hookimpl, own_fields, system_call

from .events import SetTime

_SYS_SETTIMEOFDAY, _SYS_CLOCK_SETTIME = 164, 227  # x86-64
_CLOCK_MONOTONIC = 1


def canary() -> None:
    """Set neither the time nor the zone: the kernel asks its security hooks, and then has nothing to do.

    And ask for a clock that nobody can set, which only a program at the system call's entry sees.
    """
    system_call(_SYS_SETTIMEOFDAY, None, None)
    system_call(_SYS_CLOCK_SETTIME, _CLOCK_MONOTONIC, None)


class Plugin:
    """What KRIe calls, see `krie.plugin.hookspecs`: one object an agent. What you keep while it runs is attributes."""

    api = 1
    """The version of the contract that this is written for."""

    @hookimpl
    def krie_sensor(self) -> Sensor:
        """See `krie.plugin.hookspecs`."""
        everything = own_fields(SetTime)
        refuses = frozenset({Enforcement.REFUSE, Enforcement.KILL})
        return Sensor(
            name="clock",
            version=version("krie-clock"),
            probes=(
                Probe(
                    "settime",
                    SetTime,
                    (
                        Alternative(
                            "lsm",
                            (Program(AttachType.LSM, "settime", "clock_settime_hook"),),
                            fields=everything,
                            can=refuses,
                            limits="does not see what the kernel refuses before, for want of a capability",
                        ),
                        Alternative(
                            "fmod_ret",
                            (Program(AttachType.FMOD_RET, "security_settime64", "clock_settime_hook"),),
                            fields=everything,
                            can=refuses,
                        ),
                        Alternative(
                            "syscall",
                            (
                                Program(AttachType.SYSCALL, "settimeofday", "clock_by_timeofday_syscall"),
                                Program(AttachType.SYSCALL, "clock_settime", "clock_by_settime_syscall"),
                            ),
                            fields=everything,
                            can=frozenset({Enforcement.KILL}),
                            every_syscall=True,
                            limits="does not see 32-bit system calls",
                        ),
                    ),
                    canary,
                ),
            ),
            events=(SetTime,),
            sources=(files(__package__).joinpath("clock.bpf.c"),),
            policies=files(__package__).joinpath("policy"),
        )
