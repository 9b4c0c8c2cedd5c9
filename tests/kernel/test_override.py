"""Refusal by bpf_override_return, for kernels that have it and nothing better: on the lab's kernel `override`.

Other probes of the plugin are alive there too, so this takes the alternative alone, without an agent.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
from krie.enforce.verdicts import Verdict, Verdicts
from krie.events.event import Event, EventTypes
from krie.events.identity import Key
from krie.kernel.features import Features
from krie.kernel.inspection import Inspector
from krie.kernel.maps import Maps
from krie.kernel.ring import Ring
from krie.plugin.contract import joined
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.plugin import RuntimeIntegrity
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork, process_sensor
from krie.testing.patience import PATIENCE_S

from .loading import loaded, sending
from .test_poison import a_victim

pytestmark = pytest.mark.needs("kprobe_override")
ONLY = "kprobe_override"
TYPES = EventTypes((BpfCall, Ptrace, SysctlWrite, ProcessExec, ProcessExit, ProcessFork))


class Alone(NamedTuple):
    maps: Maps
    verdicts: Verdicts
    ring: Ring


@pytest.fixture(scope="module")
def alone() -> Iterator[Alone]:
    whole = joined(RuntimeIntegrity().krie_sensor(RuntimeIntegrityConfig(), Features()))
    probes = tuple(
        replace(probe, alternatives=tuple(each for each in probe.alternatives if each.name == ONLY))
        for probe in whole.probes
        if probe.name in ("bpf", "ptrace")
    )
    with loaded(process_sensor(), replace(whole, probes=probes)) as (made, maps):
        assert made.loaded.chosen["runtime_integrity.bpf"] == made.loaded.chosen["runtime_integrity.ptrace"] == ONLY
        agent = Inspector(made.descriptors["program:krie_inspect"][0], maps["krie_inspected"]).agent()
        with sending(maps, agent.tgid) as ring:
            yield Alone(maps, Verdicts(maps, made.descriptors["program:krie_change"][0]), ring)


def events(alone: Alone, tgid: int, kind: type[Event]) -> list[Event]:
    """What was seen of a process, once there is something."""
    deadline = time.monotonic() + PATIENCE_S
    found: list[Event] = []
    while not found and time.monotonic() < deadline:
        found += [each for each in map(TYPES.decode, alone.ring.read()) if isinstance(each, kind) and each.tgid == tgid]
    return found


@pytest.mark.parametrize(
    ("command", "kind"), [("bpf", BpfCall), ("readv", Ptrace), ("traceme", Ptrace)], ids=["bpf", "readv", "traceme"]
)
def test_the_operation_fails_with_the_rules_error(alone: Alone, command: str, kind: type[Event]) -> None:
    with a_victim() as bystander, a_victim() as victim:
        before = victim.do(command)
        (seen,) = events(alone, victim.tgid, kind)
        assert before != 13
        assert (seen.done, seen.errno) == (0, 0)
        until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 600 * 10**9
        verdict = Verdict(Key(seen.tgid, seen.start_time), kind.KIND, until, 5, 13)
        alone.verdicts.bind(verdict)
        assert victim.do(command) == 13
        (seen,) = events(alone, victim.tgid, kind)
        assert (seen.done, seen.errno, seen.verdict) == (1, 13, 5)
        assert bystander.do(command) != 13
        alone.verdicts.clear(verdict)
        assert victim.do(command) != 13
