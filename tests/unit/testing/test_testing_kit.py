"""The kit for plugin authors: rules and maps without a kernel, and what its modules say is public."""

import ast
import struct
from pathlib import Path

import pytest
from krie import KernelError, Map, Maps
from krie.errors import ConfigError
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.testing.events import build
from krie.testing.fakes import FakeMap, fake_maps
from krie.testing.rules import Rules

PLUGINS = Path(__file__).parents[3] / "plugins"


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules("runtime_integrity", executables={"apt": "/usr/bin/apt"})


def test_rules_fire_as_in_an_agent(rules: Rules) -> None:
    load = build(BpfCall, command="prog_load", helpers_known=True, helpers=("send_signal",))
    assert rules.fired(load) == {"BPF001", "BPF002"}
    assert rules.fired(load, program="apt") == {"BPF003"}
    assert rules.decide(load).rules[-1].errno == 1
    trace = build(Ptrace, operation="attach", target_known=True, uid=0, euid=0)
    assert rules.fired(trace) == set()
    assert rules.fired(trace, facts={"target": {"program": "sshd"}}) == {"PTRACE004"}
    assert rules.fired(build(SysctlWrite, name="kernel/core_uses_pid")) == set()


def test_tiers(rules: Rules) -> None:
    assert (rules.tier("SYSCTL001"), rules.tier("PTRACE004")) == ("kernel", "user")
    with pytest.raises(AssertionError, match="has the id NONE001"):
        rules.tier("NONE001")


def test_a_plugin_that_is_not_installed() -> None:
    with pytest.raises(ConfigError, match="names no installed plugin"):
        Rules("runtime_integrit")


def test_fake_maps_are_as_strict_as_real_ones() -> None:
    maps = fake_maps(a=FakeMap(entries=1), b=FakeMap("b", indexed=True, entries=2))
    assert isinstance(maps, Maps)
    assert isinstance(maps["a"], Map)
    one, two = struct.pack("=I", 1), struct.pack("=I", 2)
    maps["a"].set(one, bytes(8))
    assert (maps["a"].get(one), maps["a"].get(two), list(maps["a"].items())) == (bytes(8), None, [(one, bytes(8))])
    with pytest.raises(KernelError, match="has no room"):
        maps["a"].set(two, bytes(8))
    with pytest.raises(KernelError, match="sizes are 4 and 8 bytes"):
        maps["a"].set(one, b"short")
    assert (maps["a"].remove(one), maps["a"].remove(one)) == (True, False)
    maps["b"].set(one, b"12345678")
    assert list(maps["b"].array()) == [bytes(8), b"12345678"]
    with pytest.raises(KernelError, match="has no room"):
        maps["b"].set(two, bytes(8))


def test_shipped_plugins_use_public_names_only() -> None:
    for file in PLUGINS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module and node.module.startswith("krie"):
                # A command runs apart from the agent, and may read its configuration and use the lab.
                of_commands = file.name == "commands.py" and node.module.startswith(
                    ("krie.cli.command", "krie.config", "krie.output", "krie.testing")
                )
                assert node.module == "krie" or of_commands, f"{file}: {node.module}"
