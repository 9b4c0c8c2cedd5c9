"""An enforcing agent guards itself. In guests only: nobody could end it but tgid 1, and a Ctrl-C."""

import ctypes
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.bpf_objects import Objects, bpf_objects, leftovers, objects_of
from krie.testing.module import TestModule, address_of

from .descriptors import descriptions

pytestmark = pytest.mark.needs("guest", "kprobe")
SWITCH = Path("/sys/kernel/debug/kprobes/enabled")
LOOKUP, GET_MAP, GET_LINK, DETACH = 1, 14, 30, 34
RDONLY = 8
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, *numbers: int) -> int:
    """The descriptor, or -errno."""
    attributes = ctypes.create_string_buffer(struct.pack(f"={len(numbers)}I", *numbers).ljust(64, b"\0"), 64)
    result = libc.syscall(321, command, attributes, 64)
    return int(result) if result >= 0 else -ctypes.get_errno()


def ids_of(agent: int, word: str) -> list[int]:
    """Numbers of the agent's maps or links, out of its open files' descriptions."""
    return [int(each[word]) for each in descriptions(agent).values() if word in each]


@pytest.fixture(scope="module")
def before() -> Objects:
    """What BPF there was without this agent."""
    return bpf_objects()


@pytest.fixture(scope="module")
def guarding(alone: None, tmp_path_factory: pytest.TempPathFactory, before: Objects) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("guarding")
    folder.chmod(0o700)
    agent = RunningAgent(folder, plugins={"runtime_integrity": {"mode": "enforce"}}, guards=True)
    with agent:
        yield agent
    assert agent.process.returncode == 0, agent.stderr


def attempts(agent: RunningAgent, attempt: str, count: int = 1) -> None:
    """It is told, with who did it."""
    lines: list[Line] = []
    while sum(line["event"]["count"] for line in lines) < count:
        lines = agent.wait("krie.guarded", lambda line: line["event"]["attempt"] == attempt, count=len(lines) + 1)
    if attempt != "kprobes_off":
        assert {line["event"]["stranger_tgid"] for line in lines} == {os.getpid()}
        assert lines[0]["event"]["stranger"]["exe"] == os.path.realpath(sys.executable)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP])
def test_it_takes_no_signals(guarding: RunningAgent, number: int) -> None:
    with pytest.raises(PermissionError):
        os.kill(guarding.process.pid, number)
    os.kill(guarding.process.pid, 0)  # asks whether it lives, no more
    attempts(guarding, "agent_signalled")


def test_it_is_not_traced(guarding: RunningAgent) -> None:
    assert libc.syscall(101, 16, guarding.process.pid, 0, 0) == -1
    assert ctypes.get_errno() == 1
    with pytest.raises(PermissionError):
        open(f"/proc/{guarding.process.pid}/mem", "rb").close()
    attempts(guarding, "agent_traced", 2)


def test_what_it_started_is_guarded_too(guarding: RunningAgent) -> None:
    """Its evaluators and its keeper: stopped or traced, they would decide and keep nothing."""
    tasks = Path(f"/proc/{guarding.process.pid}/task")
    children = [int(each) for task in tasks.iterdir() for each in (task / "children").read_text().split()]
    assert len(children) > 1
    for child in children:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            with pytest.raises(PermissionError):
                os.kill(child, number)
        assert libc.syscall(101, 16, child, 0, 0) == -1
        assert ctypes.get_errno() == 1
        assert not Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].startswith(" T")
    attempts(guarding, "agent_signalled", 2 * len(children))


def test_its_links_stay(guarding: RunningAgent) -> None:
    links = ids_of(guarding.process.pid, "link_id")
    assert links
    for number in links:
        link = bpf(GET_LINK, number)
        assert link >= 0
        assert bpf(DETACH, link) == -1
        os.close(link)
    attempts(guarding, "link_changed", len(links))


def test_its_maps_are_only_read(guarding: RunningAgent) -> None:
    maps = ids_of(guarding.process.pid, "map_id")
    assert len(maps) > 10
    for number in maps:
        assert bpf(GET_MAP, number, 0, 0) == -1
        read_only = bpf(GET_MAP, number, 0, RDONLY)
        assert read_only >= 0 or read_only == -1  # some maps can be opened by nobody but for writing
        os.close(read_only) if read_only >= 0 else None
    attempts(guarding, "map_opened", len(maps))


def test_the_policys_tables_are_only_read(guarding: RunningAgent) -> None:
    """They lie in a map that the agent holds no descriptor of: the map of maps does."""
    key, number = ctypes.c_uint32(0), ctypes.c_uint32(0)
    for outer in ids_of(guarding.process.pid, "map_id"):
        descriptor = bpf(GET_MAP, outer, 0, RDONLY)
        if descriptor >= 0 and "map_type:\t12\n" in Path(f"/proc/self/fdinfo/{descriptor}").read_text():
            attributes = struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(key), ctypes.addressof(number), 0)
            assert libc.syscall(321, LOOKUP, attributes, len(attributes)) == 0
        os.close(descriptor) if descriptor >= 0 else None
    assert number.value
    assert bpf(GET_MAP, number.value, 0, 0) == -1


def test_maps_of_others_are_not_its_business(guarding: RunningAgent) -> None:
    # Kernels before 5.11 count maps there (3ac1f01b43b6).
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    own = bpf(0, 2, 4, 8, 1)
    assert own >= 0
    info = Path(f"/proc/self/fdinfo/{own}").read_text()
    number = next(int(line.split()[1]) for line in info.splitlines() if line.startswith("map_id"))
    opened = bpf(GET_MAP, number, 0, 0)
    assert opened >= 0
    os.close(opened)
    os.close(own)


def test_the_switch_of_kprobes_is_not_opened_for_writing(guarding: RunningAgent) -> None:
    assert SWITCH.read_text() == "1\n"
    with pytest.raises(PermissionError):
        os.open(SWITCH, os.O_WRONLY)
    assert SWITCH.read_text() == "1\n"
    attempts(guarding, "kprobes_switched")


@pytest.mark.needs("test_module")
def test_kprobes_that_are_off_are_seen(guarding: RunningAgent, test_module: TestModule) -> None:
    with test_module.effect("write", address_of("kprobes_all_disarmed"), b"\1".hex()):
        attempts(guarding, "kprobes_off")
    assert SWITCH.read_text() == "1\n"


def test_others_are_signalled_as_ever(guarding: RunningAgent) -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        child.kill()
    assert child.returncode == -signal.SIGKILL


def test_a_ctrl_c_on_its_terminal_ends_it_and_leaves_nothing(guarding: RunningAgent, before: Objects) -> None:
    objects = objects_of(guarding.process.pid, before)
    assert {kind for kind, _ in objects} == {"prog", "map", "link"}
    assert guarding.stop() == 0
    assert leftovers(objects) == frozenset()
    (line,) = guarding.lines("krie.stopped")
    assert line["event"]["reason"] == "SIGINT"
    assert SWITCH.read_text() == "1\n"
    os.close(os.open(SWITCH, os.O_WRONLY))  # nobody minds any more
