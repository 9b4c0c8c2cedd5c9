"""What is changed and put back between two scans is told: the kernel side looks by itself. In guests only."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of

pytestmark = pytest.mark.needs("guest", "test_module")
CHANGES = [("modprobe_path", b"/tmp/x\0"), ("ftrace_dump_on_oops", b"\1")]
SCANLESS_S = 5
ATTEMPTS = 20
BEHIND_A_LINE = 'echo ready; read -r _; exec "$0"'
"""To start a process takes a guest longer than the timer waits between two looks; to execute something does not."""


def looks(agent: RunningAgent, **fields: object) -> list[Line]:
    return agent.lines(
        "runtime_integrity.parameter_look",
        lambda line: all(line["event"][name] == value for name, value in fields.items()),
    )


def wait(agent: RunningAgent, count: int, **fields: object) -> Line:
    agent.wait(
        "runtime_integrity.parameter_look",
        lambda line: all(line["event"][name] == value for name, value in fields.items()),
        count=count,
    )
    return looks(agent, **fields)[-1]


@pytest.mark.parametrize(("symbol", "bytes_"), CHANGES)
def test_what_no_scan_sees_is_told_twice(
    observer: RunningAgent, test_module: TestModule, symbol: str, bytes_: bytes
) -> None:
    before = {state: len(looks(observer, symbol=symbol, state=state)) for state in ("differs", "agrees")}
    with test_module.effect("write", address_of(symbol), bytes_.hex()):
        line = wait(observer, before["differs"] + 1, symbol=symbol, state="differs")
        assert [each["id"] for each in line["decision"]["rules"]] == ["KPARAM004"]
        assert line["event"]["found"].startswith(bytes_.hex() if symbol == "modprobe_path" else "1")
    line = wait(observer, before["agrees"] + 1, symbol=symbol, state="agrees")
    assert line["decision"]["rules"] == []
    observer.settle()
    assert len(looks(observer, symbol=symbol, state="differs")) == before["differs"] + 1  # once
    # Nobody but the looks of the kernel side has seen it: this agent scans once an hour.
    told = observer.lines("runtime_integrity.kernel_parameter", lambda line: line["event"]["symbol"] == symbol)
    assert [each for each in told if each["event"]["state"] != "unwatched"] == []


def test_a_set_uid_program_is_a_reason_to_look(observer: RunningAgent, test_module: TestModule, tmp_path: Path) -> None:
    program = tmp_path / "set_uid"
    shutil.copy("/bin/true", program)
    program.chmod(0o4755)
    address = address_of("ftrace_dump_on_oops")
    for _ in range(ATTEMPTS):  # the timer may look first
        count = len(looks(observer, symbol="ftrace_dump_on_oops", state="differs"))
        restored = len(looks(observer, symbol="ftrace_dump_on_oops", state="agrees"))
        command = ["/bin/sh", "-c", BEHIND_A_LINE, str(program)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with test_module.effect("write", address, b"\1".hex()):
                process.communicate(b"\n")
                line = wait(observer, count + 1, symbol="ftrace_dump_on_oops", state="differs")
            assert process.returncode == 0
        wait(observer, restored + 1, symbol="ftrace_dump_on_oops", state="agrees")
        if line["event"]["trigger"] == "exec":
            assert line["process"]["comm"] == "set_uid"
            return
    pytest.fail(f"no look was taken at {ATTEMPTS} execs of a set-uid program")


def test_an_untouched_system_is_silent(observer: RunningAgent) -> None:
    before = len(looks(observer))
    time.sleep(SCANLESS_S)
    observer.settle()
    assert len(looks(observer)) == before
