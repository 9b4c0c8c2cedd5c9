"""Sensors without an agent, for tests of what programs do by themselves."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from krie.agent.loading import Attached, load_sensors
from krie.config import AgentConfig, Config
from krie.kernel.maps import Maps
from krie.kernel.ring import Ring
from krie.loader.launcher import LoadedSet, LoaderProcess
from krie.loader.messages import Request
from krie.loader.request import sensor_request
from krie.plugin.probe import Sensor
from krie.testing.needs import compiled_dir

_TIMEOUT_S = 600


@contextmanager
def loaded(*sensors: Sensor) -> Iterator[tuple[LoadedSet, Maps]]:
    """Compiled and attached, until the end; and their maps by name."""
    requests = tuple(map(sensor_request, sensors))
    request = Request(requests, 64, allow_every_syscall=False, compiled_dir=compiled_dir())
    with LoaderProcess(_TIMEOUT_S) as child:
        child.features()
        made = child.load(request, dict)  # nobody holds it: tests leave ftrace alone
    try:
        maps = {name[4:]: each[0] for name, each in made.descriptors.items() if name.startswith("map:")}
        yield made, Maps(maps)
    finally:
        made.close()


@contextmanager
def core_alone() -> Iterator[Attached]:
    """All that an agent without plugins attaches; nobody armed it."""
    agent = {"ring_mib": 1, "loader_timeout_s": _TIMEOUT_S, "compiled_dir": compiled_dir()}
    config = Config(agent=AgentConfig.model_validate(agent))
    with ExitStack() as stack:
        yield load_sensors(config, "test", lambda fault: pytest.fail(fault.error), stack, contain=True)


@contextmanager
def sending(maps: Maps, tgid: int) -> Iterator[Ring]:
    """What programs send, for which the process with this `tgid` is the agent."""
    maps["krie_agent"].set(bytes(4), tgid.to_bytes(4, "little") + b"\1\0\0\0")
    ring = Ring(maps["krie_ring"])
    try:
        yield ring
    finally:
        ring.close()
