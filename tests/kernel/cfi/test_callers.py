"""Locked functions: who calls them from elsewhere is killed, who calls them as the kernel does is not noticed."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from krie.plugins.cfi.derivation import Code
from krie.plugins.cfi.live import BOUNDS, Kcore, code_of, layout, locate
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of

from .gadgets import elsewhere, returns_after
from .tasks import ATTACKS, BY_A_FORGED_ANSWER, EVERYDAY, SHELL

pytestmark = pytest.mark.needs("guest", "kprobe")
CALLER = "cfi.caller"
WRITE, EXECVE, CLONE_NEWUSER = 1, 59, 0x10000000
SIOCBRADDBR, SIOCBRDELBR = 0x89A0, 0x89A1
PATIENCE_S = 90
TRACEFS = Path("/sys/kernel/tracing")
Lacks = Callable[[str], NoReturn]
Record = Callable[[str, object], None]


def counted(agent: RunningAgent, what: str = "checks") -> int:
    return sum(line["event"][what] for line in agent.lines("cfi.activity"))


def test_the_callers_are_those_of_the_lock_file(locked: RunningAgent, lacks: Lacks) -> None:
    (line,) = locked.wait("cfi.lock", count=1)
    event = line["event"]
    print(event, file=sys.stderr)
    if event["source"] == "derived":
        lacks("lock_file: of this build: krie cfi derive --output plugins/cfi/locks makes it")
    assert (event["differing"], event["first"]) == (0, "")
    assert event["callers"] == event["filed"] > 40
    assert event["locked"] >= 6
    assert line["decision"]["rules"] == []


def test_everyday_calls_are_silent(locked: RunningAgent, record_property: Record) -> None:
    before = len(locked.lines(CALLER))
    subprocess.run([sys.executable, "-I", "-c", EVERYDAY], check=True)
    done = subprocess.run(["/bin/sh", "-c", SHELL], capture_output=True, text=True)
    assert done.returncode == 0, done
    locked.wait("cfi.activity", lambda _: counted(locked) >= 200)
    locked.settle()
    assert locked.lines(CALLER)[before:] == []
    record_property("checks", counted(locked))


def test_what_modules_call_is_legal_by_their_files(locked: RunningAgent, lacks: Lacks) -> None:
    """A bridge with the spanning tree protocol runs a program, by bridge.ko. Each later look at modules comes to it."""
    if subprocess.run(["modprobe", "bridge"], check=False).returncode:
        lacks("module: bridge")
    with bridge() as protocol:
        end = time.monotonic() + PATIENCE_S
        while True:
            before, checked = len(locked.lines(CALLER)), counted(locked)
            for switch in ("1", "0"):
                protocol.write_text(switch)
            locked.wait("cfi.activity", lambda _: counted(locked) > checked)  # noqa: B023 - called here
            if not (told := locked.lines(CALLER)[before:]):
                break
            assert {each["id"] for line in told for each in line["decision"]["rules"]} == {"CFI004"}
            assert {line["event"]["return_module"] for line in told} == {"bridge"}
            assert time.monotonic() < end, told


@contextmanager
def bridge() -> Iterator[Path]:
    """The file that says whether it has the protocol."""
    name = b"krie-bridge"
    with socket.socket() as asked:
        fcntl.ioctl(asked, SIOCBRADDBR, name + b"\0")
        try:
            yield Path(f"/sys/class/net/{os.fsdecode(name)}/bridge/stp_state")
        finally:
            fcntl.ioctl(asked, SIOCBRDELBR, name + b"\0")


def attack(agent: RunningAgent, folder: Path, command: str, rule: str, rounds: int) -> list[Line]:
    """Each is killed by this rule, and makes no file; what was told of them."""
    folder.chmod(0o755)

    def of_it(line: Line) -> bool:
        return rule in [each["id"] for each in line["decision"]["rules"]]

    before = len(agent.lines(CALLER, of_it))
    line = [sys.executable, "-I", "-c", ATTACKS, str(rounds), str(folder), command]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == f"{rounds} 0 0\n"
    lines = agent.wait(CALLER, of_it, count=before + rounds)[before:]
    assert {(tuple(each["done"]), each["decision"]["tier"]) for each in lines} == {(("poisoned", "killed"), "kernel")}
    assert {each["event"]["function"] for each in lines} == {"commit_creds"}
    return lines


def by_a_module() -> str:
    return f"hijack call {address_of('init_task'):x} 0 {address_of('commit_creds'):x} 0 0 0"


def returning_to(place: int, words: int, number: int = 0) -> str:
    return (
        f"hijack forged {address_of('init_task'):x} 0 {address_of('commit_creds'):x} {place:x} 0 {words:x} {number:x}"
    )


@pytest.fixture(scope="module")
def code() -> Code:
    kcore = Kcore()
    try:
        return code_of(kcore.read, layout(locate(BOUNDS)))
    finally:
        kcore.close()


@pytest.mark.needs("test_module")
def test_a_module_that_makes_root_is_killed(
    locked: RunningAgent, test_module: TestModule, rounds: int, tmp_path: Path
) -> None:
    for line in attack(locked, tmp_path, by_a_module(), "CFI002", rounds):
        event = line["event"]
        assert (event["lock"], event["owner"], event["return_module"]) == ("caller", "module", "krie_test")
        assert {"euid0", "caps", "uid"} == set(event["gain"])
        assert event["certain"] is True


@pytest.mark.needs("test_module")
def test_credentials_made_by_a_module_without_a_file_are_told(
    locked: RunningAgent, test_module: TestModule, tmp_path: Path
) -> None:
    def of_it(line: Line) -> bool:
        return "CFI007" in [each["id"] for each in line["decision"]["rules"]]

    end = time.monotonic() + PATIENCE_S
    while not (told := locked.lines(CALLER, of_it)):
        assert time.monotonic() < end
        attack(locked, tmp_path, by_a_module(), "CFI002", 1)
    event = told[0]["event"]
    assert (event["function"], event["return_module"], event["module_file"]) == (
        "prepare_kernel_cred",
        "krie_test",
        "none",
    )


@pytest.mark.needs("test_module")
def test_a_return_behind_another_call_is_killed(
    locked: RunningAgent, test_module: TestModule, rounds: int, tmp_path: Path, code: Code, lacks: Lacks
) -> None:
    """Nothing is wrong with it but that it is no caller: smep_smap is silent."""
    place, words, name = next(elsewhere(code), (0, 0, ""))
    if not place:
        lacks("gadget: a call that a return follows")
    silent = len(locked.lines("smep_smap.register_check"))
    for line in attack(locked, tmp_path, returning_to(place, words), "CFI001", rounds):
        event = line["event"]
        assert (event["lock"], event["owner"], event["certain"]) == ("caller", "kernel", True)
        assert (event["return_symbol"], int(event["return_address"], 16)) == (name, place)
    assert len(locked.lines("smep_smap.register_check")) == silent


@pytest.mark.needs("test_module")
def test_who_forges_the_return_to_a_caller_is_killed_for_the_gain(
    locked: RunningAgent, test_module: TestModule, rounds: int, tmp_path: Path, code: Code, lacks: Lacks
) -> None:
    """The lock on callers takes it for one. It is another system call that the caller belongs to."""
    place, words = a_caller(code, lacks)
    for line in attack(locked, tmp_path, returning_to(place, words), "CFI003", rounds):
        event = line["event"]
        assert (event["lock"], event["owner"], event["number"]) == ("path", "kernel", WRITE)
        assert int(event["return_address"], 16) == place
        assert {"euid0", "caps", "uid"} == set(event["gain"])


def a_caller(code: Code, lacks: Lacks) -> tuple[int, int]:
    """Where a caller of commit_creds() goes on, and how many words it takes from the stack before it returns."""
    callers = code.callers(["commit_creds"], {})["commit_creds"].returns
    found = ((each, words) for each in sorted(callers) if (words := returns_after(code, each)) is not None)
    place, words = next(found, (0, 0))
    if not place:
        lacks("gadget: a caller of commit_creds() that returns then")
    return place, words


@pytest.mark.needs("test_module")
def test_another_real_user_is_no_programs_to_give(
    locked: RunningAgent, test_module: TestModule, rounds: int, tmp_path: Path, code: Code, lacks: Lacks
) -> None:
    """In execve(2), as far as the kernel can tell, which may give what root has, but never does so like this."""
    for line in attack(locked, tmp_path, returning_to(*a_caller(code, lacks), EXECVE), "CFI003", rounds):
        event = line["event"]
        assert (event["lock"], event["owner"], event["number"]) == ("right", "kernel", EXECVE)
        assert {"euid0", "caps", "uid"} == set(event["gain"])


@pytest.mark.needs("test_module")
def test_a_gain_in_its_own_system_call_but_by_a_check_that_was_left_out_is_killed(
    locked: RunningAgent, test_module: TestModule, rounds: int
) -> None:
    """All is as ever, but that the kernel believes the task to have a capability that its credentials have not."""

    def of_it(line: Line) -> bool:
        return bool(line["event"]["lock"] == "right" and line["event"]["number"] != EXECVE)

    before = len(locked.lines(CALLER, of_it))
    line = [sys.executable, "-I", "-c", BY_A_FORGED_ANSWER, str(rounds)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    killed = json.loads(done.stdout)
    assert set(killed.values()) == {rounds}, killed
    lines = locked.wait(CALLER, of_it, count=before + rounds * len(killed))[before:]
    decisions = [([rule["id"] for rule in each["decision"]["rules"]], each["done"]) for each in lines]
    assert decisions == [(["CFI003"], ["poisoned", "killed"])] * len(lines)
    gains = {(each["event"]["number"], *sorted(each["event"]["gain"])) for each in lines}
    users = {(number, "euid0", "uid") for number in (105, 117)} | {(113, "uid"), (117, "uid"), (122, "uid")}
    assert gains == users | {(308, "userns")}


@pytest.mark.needs("test_module")
def test_a_gain_in_a_foreign_system_call_is_killed(
    locked: RunningAgent, test_module: TestModule, rounds: int, tmp_path: Path
) -> None:
    """The caller is legal, but its system call is another one: it is reached in the middle of write(2)."""
    command = f"hijack inside {address_of('init_task'):x} 0 {address_of('ksys_unshare'):x} {CLONE_NEWUSER:x} 0 0"
    for line in attack(locked, tmp_path, command, "CFI003", rounds):
        event = line["event"]
        assert (event["lock"], event["owner"], event["number"]) == ("path", "kernel", WRITE)
        assert event["return_symbol"].startswith("ksys_unshare+0x")
        assert {"caps", "userns"} == set(event["gain"])


@pytest.fixture
def return_probe() -> Iterator[None]:
    events = TRACEFS / "kprobe_events"
    events.write_text("r:krie_cfi/returns commit_creds\n")
    (TRACEFS / "events/krie_cfi/enable").write_text("1")
    yield
    (TRACEFS / "events/krie_cfi/enable").write_text("0")
    descriptor = os.open(events, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"-:krie_cfi/returns\n")
    os.close(descriptor)


@pytest.mark.needs("test_module")
def test_a_tracer_hides_the_caller_but_no_gain(
    locked: RunningAgent, test_module: TestModule, rounds: int, return_probe: None, tmp_path: Path
) -> None:
    before = counted(locked, "traced")
    subprocess.run([sys.executable, "-I", "-c", EVERYDAY], check=True)
    for line in attack(locked, tmp_path, by_a_module(), "CFI003", rounds):
        event = line["event"]
        assert (event["lock"], event["number"]) == ("path", WRITE)
        assert "trampoline" in event["return_symbol"]
    locked.wait("cfi.activity", lambda _: counted(locked, "traced") > before + rounds)
