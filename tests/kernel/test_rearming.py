"""An agent whose probes were silenced stays, says so, and has them back as soon as that can be."""

import contextlib
import errno
import os
import re
import signal
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from krie import AttachType, Program
from krie.agent.admin import ask
from krie.kernel import bpf
from krie.kernel.attach import Places, attach, load
from krie.kernel.mounts import cgroup2
from krie.kernel.static_keys import key_addresses, symbols_of
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.patience import wait_for
from krie.testing.victims import Victims

from . import own_bpf
from .descriptors import descriptions
from .test_switches import is_forged, keepers

SYSCTL = "runtime_integrity.sysctl_write"
LETS_PASS = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
"""Instructions of a program: return 1."""
OTHER = Program(AttachType.CGROUP_SYSCTL, "", "other_sysctl")


def states(agent: RunningAgent) -> dict[str, str]:
    """Of all probes, as the agent has them now."""
    return {each["name"]: each["state"] for each in ask(agent.run_dir, {"ask": "status"}, agent.timeout_s)["probes"]}


def map_of(agent: RunningAgent, name: str) -> int:
    """A descriptor of one of its maps, and of no other agent's."""
    for each in descriptions(agent.process.pid).values():
        if "map_id" in each:
            found = own_bpf.call(own_bpf.GET_MAP, int(each["map_id"]), 0, 0)
            assert found >= 0
            if bpf.object_name(found) == name:
                return found
            os.close(found)
    raise KeyError(name)


def name_of(line: Line) -> str:
    return f"{line['event']['plugin']}.{line['event']['probe']}"


def told(agent: RunningAgent, state: str, *, since: int = 0, of: Callable[[str], bool] = bool) -> list[Line]:
    """Wait until it tells that of one of these probes, after so many lines about probes."""
    before = agent.lines("krie.probe")[:since]

    def meant(line: Line) -> bool:
        return line["event"]["state"] == state and line not in before and of(name_of(line))

    return agent.wait("krie.probe", meant)


def links(tgid: int) -> set[int]:
    """Numbers of the links that a process holds."""
    return {int(each["link_id"]) for each in descriptions(tgid).values() if "link_id" in each}


def detach(agent: RunningAgent) -> set[int]:
    """All that somebody with a descriptor can; returns their numbers."""
    detached = set()
    for number in links(agent.process.pid):
        link = own_bpf.call(own_bpf.GET_LINK, number, 0)
        assert link >= 0
        answer = own_bpf.call(own_bpf.DETACH, link)
        os.close(link)
        assert answer in (0, -errno.EOPNOTSUPP)  # of most kinds nobody can
        detached |= set() if answer else {number}
    assert detached
    return detached


def kept_instead_of(gone: set[int], agent: RunningAgent) -> None:
    """The keeper has the links that the agent has now, and none of those."""
    (keeper,) = (tgid for tgid, parent in keepers().items() if parent == agent.process.pid)
    wait_for(lambda: links(keeper) == links(agent.process.pid) - gone, lambda: (links(keeper), gone))


@contextlib.contextmanager
def stopped(agent: RunningAgent) -> Iterator[None]:
    """It does nothing meanwhile."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        agent.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def somebody_elses() -> Iterator[None]:
    """A program of another owner where sysctls are written."""
    bpf.allow_locked_memory()
    tree = cgroup2()
    assert tree is not None
    with contextlib.closing(tree):
        places = Places(Path(), tree, lambda _: 0)
        program = load(OTHER, LETS_PASS, places)
        (link,) = attach(OTHER, program, places)
    try:
        yield
    finally:
        os.close(link)
        os.close(program)


@pytest.fixture(scope="module")
def observing(
    alone: None, whole_plugin: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgent]:
    """Nothing guards it. It looks at its probes when it is told to, and each second."""
    folder = tmp_path_factory.mktemp("observing")
    folder.chmod(0o700)
    plugins = {"runtime_integrity": {**whole_plugin, "mode": "observe"}}
    with RunningAgent(folder, plugins=plugins, agent={"canary_interval_s": 1, "scan_interval_s": 3600}) as agent:
        yield agent


@pytest.mark.once
@pytest.mark.needs("cgroup_sysctl")
def test_what_was_detached_is_attached_again(observing: RunningAgent) -> None:
    before = len(observing.lines("krie.probe"))
    detach(observing)
    told(observing, "silent", since=before, of=lambda probe: probe == SYSCTL)
    told(observing, "alive", since=before, of=lambda probe: probe == SYSCTL)
    assert states(observing)[SYSCTL] == "alive"


@pytest.mark.needs("guest", "test_module", "cgroup_sysctl")
def test_nothing_is_attached_again_while_a_static_key_lies(observing: RunningAgent, test_module: TestModule) -> None:
    """A branch is in the text for somebody else's program, and the key says that there is none: whoever attaches one
    makes the kernel stop with a BUG, and the guest is lost."""
    before = len(observing.lines("krie.probe"))
    key = key_addresses([OTHER], {each: [address_of(each)] for each in symbols_of([OTHER])})[OTHER]
    with contextlib.ExitStack() as stack:
        stack.enter_context(somebody_elses())
        with stopped(observing):
            gone = detach(observing)
            stack.enter_context(test_module.effect("write", key, "00000000"))
        observing.wait("krie.guarded", is_forged)
        why = f"probe {SYSCTL} could not be attached again: .*the static key at {key:#x} says another thing"
        wait_for(lambda: re.search(why, observing.stderr), lambda: observing.stderr)
    told(observing, "alive", since=before, of=lambda probe: probe == SYSCTL)
    kept_instead_of(gone, observing)


@pytest.mark.once
def test_who_stops_records_does_so_for_a_second(observing: RunningAgent) -> None:
    state = map_of(observing, "krie_agent")
    try:
        bpf.update(state, bytes(4), struct.pack("=II", observing.process.pid, 0))
        observing.wait("krie.guarded", lambda line: line["event"]["attempt"] == "disarmed")
        assert bpf.lookup(state, bytes(4), 8) == struct.pack("=II", observing.process.pid, 1)
    finally:
        os.close(state)


CHANGES_MEANWHILE = """
import time
def hear(word):
    while not os.path.exists(f"{sys.argv[1]}/{word}"):
        time.sleep(0.01)
theirs, mine = os.pipe()
child = os.fork()
if not child:
    os.read(theirs, 1)
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    os.read(theirs, 1)
    os._exit(libc.prctl(8, 0, 0, 0, 0))  # which is compared
open(f"{sys.argv[1]}/born", "w").close()
for word in ("disarmed", "armed"):
    hear(word)
    os.write(mine, b".")
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.needs("fentry", "fmod_ret")
def test_who_changed_legally_in_that_second_is_not_told(
    observing: RunningAgent, victims: Victims, tmp_path: Path
) -> None:
    state = map_of(observing, "krie_agent")
    armed, disarmed = (struct.pack("=II", observing.process.pid, each) for each in (1, 0))
    try:
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(victims.run, CHANGES_MEANWHILE, str(tmp_path))
            wait_for((tmp_path / "born").exists)
            bpf.update(state, bytes(4), disarmed)
            (tmp_path / "disarmed").touch()
            wait_for(lambda: bpf.lookup(state, bytes(4), 8) == armed)
            (tmp_path / "armed").touch()
            assert said.result().stdout == "0\n"
    finally:
        os.close(state)
    observing.settle()
    assert observing.lines("runtime_integrity.cred_tamper", victims.mine) == []
