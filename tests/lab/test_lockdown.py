"""A kernel that is locked down: what still works does, and what cannot work is said in one message."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from krie.errors import ExitCode
from krie.testing.lab import boot
from krie.testing.lab.cache import Cache
from krie.testing.lab.compiled import Configuration, compile_for
from krie.testing.lab.kernels import find

pytestmark = pytest.mark.slow
COMMANDS = ("integrity", "doctor", "run")
PLUGINS = ("runtime_integrity", "syscall_table")


@pytest.fixture(scope="module")
def found() -> Mapping[str, Any]:
    """What commands said, by mode. One guest for both modes: a mode can be raised while the kernel runs."""
    cache = Cache()
    kernel = find("debian-6.12", cache, print)
    folder = cache.folder("compiled")
    with cache.locked("compiled"):
        compile_for(kernel, [Configuration(PLUGINS)], folder)
    said: list[bytes] = []
    command = ["python", "tests/lab/locked_down.py", str(folder), str(kernel.image), kernel.release]
    outcome = boot.run(kernel, command, boot.Machine(), timeout_s=1500, output=said.append)
    text = b"".join(said).decode()
    assert (outcome.end, outcome.status) == (boot.End.EXITED, 0), text
    return dict(json.loads(text.splitlines()[-1]))


def test_all_works_under_integrity(found: Mapping[str, Any]) -> None:
    mode = found["integrity"]
    assert {name: mode[name]["status"] for name in COMMANDS} == dict.fromkeys(COMMANDS, ExitCode.OK), mode
    assert mode["closed"] == {"kprobes/enabled": True, "kprobes/list": False}
    doctor = json.loads(mode["doctor"]["output"])
    assert doctor["kernel"]["lockdown"] == "integrity"
    assert {each["state"] for each in doctor["probes"]} == {"alive", "attached"}
    assert all(each["reference"] for each in json.loads(mode["integrity"]["output"])["checks"])


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_works_under_confidentiality_and_why_is_said_once(found: Mapping[str, Any], command: str) -> None:
    ended = found["confidentiality"][command]
    assert ended["status"] == ExitCode.DEGRADED
    assert ended["output"] == ""
    (message,) = (line for line in ended["errors"].splitlines() if "arming" not in line)
    for part in ("refuses BPF programs to read its memory", "locked down (confidentiality)", "lockdown=integrity"):
        assert part in message
    assert "bpf_probe_read_kernel" not in message
