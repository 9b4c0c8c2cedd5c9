"""Looks records up in tables by the very code that programs in the kernel run, attached to nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from ..config import AgentConfig
from ..events.event import EventType
from ..events.numbers import ONLY
from ..kernel import bpf
from ..kernel.maps import Map, Maps
from ..loader.launcher import LoaderProcess
from ..loader.messages import Purpose, Request
from ..loader.record_source import trial_map, trial_program
from ..loader.request import sensor_request
from ..plugin.probe import Sensor
from .domain import Numbers
from .kernel_tables import KernelTables

_SMALLEST_RING = 1


class Trial:
    """One program a kind, run by BPF_PROG_TEST_RUN. Needs root. Raises `KrieError`."""

    def __init__(self, sensors: Iterable[Sensor], agent: AgentConfig, stack: ExitStack) -> None:
        """Load, and compile what no folder of the agent's has; `stack` lets go of everything."""
        requests = tuple(sensor_request(each) for each in sensors if each.sources)
        with LoaderProcess(agent.loader_timeout_s) as child:
            child.features()
            request = Request(
                requests,
                _SMALLEST_RING,
                allow_every_syscall=False,
                cache_dir=agent.cache_dir,
                purpose=Purpose.TRIAL,
                compiled_dir=agent.compiled_dir,
            )
            loaded = child.load(request)
        stack.callback(loaded.close)
        names = {name: each[0] for name, each in loaded.descriptors.items()}
        self._maps: Mapping[str, Map] = Maps(
            {name.removeprefix("map:"): each for name, each in names.items() if name.startswith("map:")}
        )
        self._programs = names
        self.tables = KernelTables(self._maps, loaded.loaded.kinds)

    def install(self, tables: Mapping[int, bytes], numbers: Numbers) -> None:
        """Bring tables into force, for these programs only."""
        self.tables.install(tables, numbers)

    def look_up(self, event_type: EventType, raw: bytes) -> tuple[int, int]:
        """Number of the rule, and of the generation."""
        record = self._maps[trial_map(event_type.c_name)]
        record.set(ONLY, raw)
        bpf.test_run(self._programs[f"program:{trial_program(event_type.c_name)}"], (0,))
        seen = event_type.layout.raw(record.get(ONLY) or bytes(len(raw)))
        return int(seen["verdict"]), int(seen["generation"])
