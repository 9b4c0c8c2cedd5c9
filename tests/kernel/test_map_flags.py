"""What declarations in C say of who may write a map is so in the kernel: of all maps of an agent with all plugins."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from krie.agent.loading import Attached, load_sensors
from krie.config import Config
from krie.kernel import bpf
from krie.testing.needs import compiled_dir
from krie.tier.domain import Numbers
from krie.tier.kernel_tables import KernelTables

from . import own_bpf

pytestmark = [pytest.mark.long, pytest.mark.needs("raw_tracepoint")]
SOURCES = [each for folder in ("bpf", "plugins") for each in (Path(__file__).parents[2] / folder).rglob("*.bpf.c")]
DECLARED = re.compile(
    r'^(KRIE_STATE|KRIE_FOUND|BPF_F_TABLE)\("\w+", (?:\w+ )?\w+, (?:\w+ )?\w+, (\w+), \w+(.*)\);', re.M
)
WINDOWS = {"krie_window", "krie_spare_window"}
"""Made in Python: the agent maps them."""


@pytest.fixture(scope="module")
def observing(alone: None, agent_options: Mapping[str, Any]) -> Iterator[Attached]:
    agent = {"ring_mib": 1, "loader_timeout_s": 600, "compiled_dir": compiled_dir(), "allow_syscall_tracepoints": False}
    config = Config.model_validate({"agent": agent, "plugins": agent_options["plugins"]})
    with ExitStack() as stack:
        yield load_sensors(config, "test", lambda fault: pytest.fail(fault.error), stack, contain=True)


@pytest.fixture(scope="module")
def declared() -> dict[str, str]:
    """By map, the macro that declares it and what follows its size."""
    found = [each for path in SOURCES for each in DECLARED.findall(path.read_text())]
    return {name: f"{macro}{rest}" for macro, name, rest in found}


def told(descriptor: int) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def read_only(descriptor: int) -> bool:
    return bool(int(told(descriptor)["map_flags"], 16) & bpf.READ_ONLY)


def frozen(descriptor: int) -> bool:
    return told(descriptor)["frozen"] == "1"


def test_programs_write_nothing_that_they_should_only_read(observing: Attached, declared: dict[str, str]) -> None:
    state = {name for name, how in declared.items() if how == "KRIE_STATE"} & observing.maps.keys()
    assert {"krie_agent", "krie_limits", "krie_protected", "runtime_integrity_settings"} <= state
    assert {name for name, each in observing.maps.items() if read_only(each.descriptor)} == state


def test_bpf2_writes_nothing_that_programs_alone_should(observing: Attached, declared: dict[str, str]) -> None:
    found = {name for name, how in declared.items() if how in ("KRIE_FOUND", "BPF_F_TABLE, KRIE_FROZEN")}
    assert {"krie_busy", "krie_poisoned", "krie_inspected", "guard_heart", "runtime_integrity_given"} <= found
    of_it = found & observing.maps.keys() | WINDOWS
    assert {name for name, each in observing.maps.items() if frozen(each.descriptor)} == of_it


def test_nobody_writes_a_policys_tables(observing: Attached) -> None:
    tables = KernelTables(observing.maps, observing.loaded.loaded.kinds)
    tables.next_generation()
    tables.install({}, Numbers())
    opened = own_bpf.call(own_bpf.GET_MAP, tables.in_force.inner, 0, 0)
    assert opened >= 0
    try:
        assert read_only(opened)
        assert frozen(opened)
    finally:
        os.close(opened)
