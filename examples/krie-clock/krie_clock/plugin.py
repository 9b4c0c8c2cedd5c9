"""What clock gives to KRIe: one probe, its event, its rules."""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from importlib.resources import files

from krie import Alternative, AttachType, Enforcement, Probe, Program, Sensor, hookimpl, own_fields

from .events import SetTime

_SYS_SETTIMEOFDAY = 164  # x86-64
_libc = ctypes.CDLL(None, use_errno=True)


def canary() -> None:
    """Set neither the time nor the zone: the kernel asks its security hooks, and then has nothing to do."""
    _libc.syscall(_SYS_SETTIMEOFDAY, None, None)


@hookimpl
def krie_sensor() -> Sensor:
    """See `krie.hookspecs`."""
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
                        (Program(AttachType.LSM, "settime", "clock_settime_lsm"),),
                        fields=everything,
                        can=refuses,
                        limits="does not see what the kernel refuses before, for want of a capability",
                    ),
                    Alternative(
                        "fmod_ret",
                        (Program(AttachType.FMOD_RET, "security_settime64", "clock_settime_fmod_ret"),),
                        fields=everything,
                        can=refuses,
                    ),
                    Alternative(
                        "raw_tracepoint",
                        (Program(AttachType.RAW_TRACEPOINT, "sys_enter", "clock_settime_raw"),),
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
        sources=(files(__package__).joinpath("settime.bpf.c"),),
        policies=files(__package__).joinpath("policy"),
    )
