"""`contrib/`: the unit for systemd and its folders, started as the page says, in a guest whose init is systemd."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie.testing.lab import boot
from krie.testing.lab.acceleration import kvm_works
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import find
from krie.testing.needs import COMPILED_VARIABLE

from .init import MACHINE
from .test_stock_kernels import ONE_PLACE
from .units import compile_units

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
(PAGE,) = re.findall(
    r"^## As a service\n.*?^```sh\n(.*?)^```",
    (ROOT / "docs/how-to/install.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the guest's script found: one boot for all."""
    kernel, cache = find("debian-6.12", Cache(), print), Cache()
    compiled = f"{COMPILED_VARIABLE}={compile_units(kernel, cache)}"
    said: list[bytes] = []
    command = ["env", compiled, sys.executable, "-m", "tests.lab.service", PAGE]
    machine = replace(MACHINE, kvm=kvm_works(kernel.image, cache))
    outcome = boot.run(kernel, command, machine, timeout_s=3000, output=said.append)
    text = b"".join(said).decode(errors="replace")
    assert (outcome.end, outcome.status) == (boot.End.EXITED, 0), "\n".join([text, *outcome.console])
    return dict(json.loads(text.splitlines()[-1]))


def test_the_pages_commands_start_an_agent_that_guards_itself(found: dict[str, Any]) -> None:
    assert (found["started"]["ActiveState"], found["started"]["SubState"]) == ("active", "running")
    assert found["ready"] == found["status"]["tgid"] == int(found["started"]["MainPID"])
    assert found["status"]["modes"]["runtime_integrity"] == "enforce"
    assert found["status"]["guard"]
    assert found["status"]["programs"] == "compiled_dir"


def test_the_folders_are_for_root_alone(found: dict[str, Any]) -> None:
    open_to_all = ("/etc/krie", "/etc/krie/policies")
    assert found["folders"] == {each: "0o755" if each in open_to_all else "0o700" for each in found["folders"]}


def test_what_the_unit_takes_away_blinds_no_probe(found: dict[str, Any]) -> None:
    doctor = found["doctor"]
    assert (doctor["healthy"], doctor["problems"], doctor["degraded"], doctor["blind_rules"]) == (True, [], {}, [])
    states = {each["name"]: each["state"] for each in doctor["probes"]}
    assert {name for name, state in states.items() if state not in ("alive", "attached")} == set(ONE_PLACE)
    assert doctor["containment"]["refused"] == doctor["containment"]["of"]
    assert {each["state"] for each in doctor["guard"]["probes"]} <= {"alive", "attached"}


def test_a_stranger_cannot_end_it(found: dict[str, Any]) -> None:
    assert found["kill"] == "PermissionError"
    assert "agent_signalled" in found["guarded"]


def test_a_stranger_cannot_weaken_a_protected_sysctl(found: dict[str, Any]) -> None:
    assert (found["weaken"], found["protected"]) == ("PermissionError", "1")
    # By whom: a process that was there before the agent, which therefore read of it in /proc.
    assert found["refused"] == [["override", str(Path(sys.executable).resolve())]]


def test_systemd_reloads_it(found: dict[str, Any]) -> None:
    assert (found["reload"], found["policies"]) == (0, ["loaded"])
    assert found["reloaded"]["ActiveState"] == "active"
    assert found["reloaded"]["MainPID"] == found["started"]["MainPID"]


def test_systemd_stops_it(found: dict[str, Any]) -> None:
    stopped = found["stopped"]
    assert (found["stop"], found["ends"]) == (0, 1)
    assert (stopped["ActiveState"], stopped["Result"], stopped["NRestarts"]) == ("inactive", "success", "0")
    assert (stopped["ExecMainStatus"], stopped["ControlGroup"]) == ("0", "")
