"""A third party's plugin with a program of each attach type: attached, proven alive by a canary, and sending."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie.errors import AttachError
from krie.kernel.attach import Places, attach, load
from krie.kernel.counting import returning
from krie.kernel.features import Features
from krie.kernel.program import AttachType, Program
from krie.testing.agent import Line, RunningAgent
from krie.testing.patience import wait_for

from . import example

PROBES = {
    "raw_tracepoint": ("raw_tracepoint", "sched_process_exec"),
    "tracepoint": ("tracepoint", "sched/sched_process_exec"),
    "syscall": ("syscall", "wait4"),
    "syscall_of_two": ("syscall", "wait4"),
    "perf_event": ("perf_event", "100000000"),
    "lsm": ("lsm", "bprm_check_security"),
    "fmod_ret": ("fmod_ret", "security_bprm_check"),
    "fentry": ("fentry", "security_bprm_check"),
    "kprobe": ("kprobe", "security_bprm_check"),
    "kprobe_inside": ("kprobe", "security_bprm_check"),
    "kretprobe": ("kretprobe", "security_bprm_check"),
}
NUMBERS = {name: number for number, name in enumerate(PROBES, 1)}
SOURCE = "".join(example.seen(f"example_{name}", value=str(number)) for name, number in NUMBERS.items())


def _second_instruction(function: str) -> int:
    """The first offset behind 0 at which the kernel takes a kprobe, which it does at instructions only."""
    places = Places(Path("/nowhere"), None, lambda _: 0)
    for offset in range(1, 16):
        program = Program(AttachType.KPROBE, function, "krie_try", offset)
        descriptor = load(program, returning(0), places)
        try:
            for each in attach(program, descriptor, places):
                os.close(each)
        except AttachError:
            continue
        finally:
            os.close(descriptor)
        return offset
    raise AssertionError(f"{function} takes no kprobe behind its start")


@pytest.fixture(scope="module")
def every_type(tmp_path_factory: pytest.TempPathFactory, features: Features) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("every_type")
    folder.chmod(0o700)
    inside = 1 if AttachType.KPROBE in features.refused else _second_instruction(PROBES["kprobe"][1])
    places = {
        name: (type_, target, f"example_{name}", inside if name == "kprobe_inside" else 0)
        for name, (type_, target) in PROBES.items()
    }
    plugin = example.write(folder / "plugin", places, SOURCE, f"{example.EXECS}; {example.BUSY}")
    with RunningAgent(folder, plugins={"example": {}}, plugin_folders=[plugin]) as agent:
        yield agent


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.needs(type_)) for name, (type_, _) in PROBES.items()]
)
def test_a_program_is_attached_proven_alive_and_sends(
    every_type: RunningAgent, lacks: Callable[[str], NoReturn], name: str
) -> None:
    (probe,) = every_type.lines("krie.probe", lambda line: line["event"]["probe"] == name)
    if name == "lsm" and "canary never arrived" in probe["event"]["reason"]:
        lacks("lsm: the kernel's lsm= does not name bpf")
    state = (probe["event"]["state"], probe["event"]["alternative"])
    assert state == ("alive", "only"), probe["event"]["reason"]
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    mine = {os.getpid(), child}

    def is_mine(line: Line) -> bool:
        return line["process"]["tgid"] in mine and line["event"]["count"] == NUMBERS[name]

    def seen() -> list[Line]:
        if name == "perf_event":  # which comes to whoever has the CPU at that moment: on a busy machine often another
            example.be_busy()
        return every_type.lines("example.seen", is_mine)

    wait_for(seen)
    assert seen()[0]["event"] == {"count": NUMBERS[name]}
