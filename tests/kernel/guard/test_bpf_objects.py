"""Nobody takes, runs, reads or changes the BPF objects of an agent that guards itself. In guests only."""

import errno
import os
import signal
import struct

import pytest
from krie.agent.admin import ask
from krie.errors import KernelError, ProgramLoadError
from krie.kernel import bpf
from krie.testing.agent import RunningAgent

from .. import own_bpf
from ..descriptors import descriptions
from ..early import Early
from .attempts import attempts

pytestmark = pytest.mark.needs("guest", "kprobe")


def ids_of(agent: int, word: str) -> list[int]:
    """Numbers of the agent's maps, programs or links, out of its open files' descriptions."""
    return [int(each[word]) for each in descriptions(agent).values() if word in each]


@pytest.mark.parametrize(
    ("word", "get", "attempt"),
    [
        ("map_id", own_bpf.GET_MAP, "map_opened"),
        ("prog_id", own_bpf.GET_PROG, "program_opened"),
        ("link_id", own_bpf.GET_LINK, "link_opened"),
    ],
)
def test_nobody_gets_descriptors_of_its_objects(guarding: RunningAgent, word: str, get: int, attempt: str) -> None:
    """Not for reading either: a program may write through such a descriptor. As if they were gone, for lists' sake."""
    own = set(ids_of(guarding.process.pid, word))
    assert own
    flags = (0, own_bpf.RDONLY) if get == own_bpf.GET_MAP else (0, 0)
    assert {own_bpf.call(get, number, *flags) for number in own} == {-errno.ENOENT}
    attempts(guarding, attempt, len(own))


def test_the_policys_tables_are_hidden_too(guarding: RunningAgent) -> None:
    """They lie in a map that the agent holds no descriptor of: the map of maps does."""
    hidden = set()
    for number in own_bpf.numbers(own_bpf.NEXT_MAP):
        descriptor = own_bpf.call(own_bpf.GET_MAP, number, 0, own_bpf.RDONLY)
        hidden |= {number} if descriptor == -errno.ENOENT else set()
        os.close(descriptor) if descriptor >= 0 else None
    assert hidden > set(ids_of(guarding.process.pid, "map_id"))


def test_it_says_itself_what_it_has(guarding: RunningAgent) -> None:
    objects = ask(guarding.run_dir, {"ask": "status"}, guarding.timeout_s)["objects"]
    assert {"krie_agent", "krie_read"} <= {each["name"] for each in objects}
    assert {each["id"] for each in objects if each["kind"] == "link"} == set(ids_of(guarding.process.pid, "link_id"))


def test_a_descriptor_from_before_the_guard_runs_nothing(guarding: RunningAgent, early: Early) -> None:
    assert early.program["krie_change"] >= 0
    assert own_bpf.run(early.program["krie_change"], 3, 0) == -errno.EPERM  # KRIE_CHANGE_FLAGS: the guard off
    attempts(guarding, "program_run")
    with pytest.raises(PermissionError):
        os.kill(guarding.process.pid, signal.SIGTERM)


def test_no_program_writes_what_programs_only_read(guarding: RunningAgent, early: Early) -> None:
    assert early.map["krie_agent"] >= 0
    with pytest.raises(ProgramLoadError, match="EACCES"):
        own_bpf.write_by_a_socket_filter(early.map["krie_agent"], 4, 0)


def test_a_descriptor_from_before_the_guard_changes_nothing(guarding: RunningAgent, early: Early) -> None:
    for state in (early.map["krie_agent"], early.map["krie_busy"]):
        with pytest.raises(KernelError, match="EPERM"):
            bpf.update(state, bytes(4), bytes(8))
    # One that programs do write, and the verifier allows that.
    with pytest.raises(ProgramLoadError, match="EPERM"):
        own_bpf.write_by_a_socket_filter(early.map["krie_busy"], 4, 0)
    attempts(guarding, "map_written", 3)
    with pytest.raises(PermissionError):
        os.kill(guarding.process.pid, signal.SIGTERM)


def test_links_stay(guarding: RunningAgent) -> None:
    """Everybody's: which one a descriptor is, another thread could change after the look."""
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    program = bpf.prog_load(bpf.ProgramSpec("mine", bpf.ProgType.RAW_TRACEPOINT), code)
    link = bpf.raw_tracepoint_open(program, "sched_process_exit")
    assert own_bpf.call(own_bpf.DETACH, link) == -errno.EPERM
    os.close(link)
    os.close(program)
    attempts(guarding, "link_changed")


def test_maps_of_others_are_not_its_business(guarding: RunningAgent) -> None:
    own = own_bpf.call(0, 2, 4, 8, 1)
    assert own >= 0
    opened = own_bpf.call(own_bpf.GET_MAP, bpf.map_id(own), 0, 0)
    assert opened >= 0
    os.close(opened)
    os.close(own)
