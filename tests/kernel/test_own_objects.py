"""An enforcing agent's maps, programs and links are nobody else's: by no way of bpf(2), with a descriptor from before
the guard was on, or without. In guests only."""

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from krie.agent.admin import ask
from krie.errors import KernelError
from krie.kernel import bpf
from krie.kernel.btf import Btf
from krie.kernel.counting import instruction, returning
from krie.kernel.perf_event import SOFTWARE, perf_event
from krie.testing.agent import Line, RunningAgent
from krie.testing.bpf_objects import bpf_objects

from . import own_bpf
from .descriptors import descriptions
from .early import Early

pytestmark = pytest.mark.needs("guest", "kprobe")
TRACE_ITER = 28
_SET_BPF = 0x40042408  # PERF_EVENT_IOC_SET_BPF
_MAPS = ("krie_agent", "krie_busy", "krie_window", "krie_poisoned")
_PROGRAMS = ("krie_change", "gua_silence")
_PERF_EVENT = bpf.ProgType.PERF_EVENT
_EXIT = returning(0)
_DISARM = b"".join(
    (
        instruction(0xB7),  # r0 = 0
        instruction(0x79, 0x11, 24),  # r1 = the element's value
        instruction(0x15, 0x01, 1, 0),  # if r1 == 0 skip: the last call has none
        instruction(0x62, 0x01, 4, 0),  # armed = 0
        instruction(0x95),
    )
)
"""By an iterator: it writes what no other program may."""


class Site:
    """An agent that guards itself, and what was there, or taken, before it did."""

    def __init__(self, folder: Path) -> None:
        self.before = bpf_objects()
        self.pins = folder / "pins"
        self.pins.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", self.pins], check=True)
        self.iterator = -1
        self.early = Early(_MAPS, _PROGRAMS, self._pin)
        self.agent = RunningAgent(folder, plugins={"runtime_integrity": {"mode": "enforce"}}, guards=True)

    def _pin(self, name: str, descriptor: int) -> None:
        assert own_bpf.pin(descriptor, f"{self.pins}/{name}") == 0
        if name == "krie_agent":
            program = iterator(_DISARM)
            link = link_over(program, descriptor)
            self.iterator = fcntl.fcntl(link, fcntl.F_DUPFD_CLOEXEC, 600)
            self.before |= {("prog", number_of("prog", program)), ("link", number_of("link", link))}
            os.close(link)
            os.close(program)

    def objects(self) -> list[dict[str, Any]]:
        """As the agent lists them."""
        listed: list[dict[str, Any]] = ask(self.agent.run_dir, {"ask": "status"}, self.agent.timeout_s)["objects"]
        return listed

    @property
    def own(self) -> set[tuple[str, int]]:
        """Kinds and numbers of what came with the agent: in a guest nobody but it and this test loads anything."""
        return set(bpf_objects() - self.before)


@pytest.fixture(scope="module")
def site(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("objects")
    folder.chmod(0o700)
    bpf.allow_locked_memory()
    made = Site(folder)
    try:
        with made.agent:
            made.early.end()
            assert min(made.early.held()) >= 0
            yield made
            for each in made.pins.iterdir():
                each.unlink()
            made.early.close()
            os.close(made.iterator)
    finally:
        subprocess.run(["umount", made.pins], check=True)
    assert made.agent.process.returncode == 0, made.agent.stderr


def told(site: Site, attempt: str) -> int:
    """How often we were told of having tried this."""
    return sum(line["event"]["count"] for line in site.agent.lines("krie.guarded", lambda line: _is(line, attempt)))


def _is(line: Line, attempt: str) -> bool:
    return bool(line["event"]["attempt"] == attempt and line["event"]["stranger_tgid"] == os.getpid())


def wait_for_attempts(site: Site, attempt: str, before: int, count: int) -> None:
    lines = 1
    while told(site, attempt) < before + count:
        site.agent.wait("krie.guarded", lambda line: _is(line, attempt), count=lines)
        lines += 1


def number_of(kind: str, descriptor: int) -> int:
    """By which everybody knows the object."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    (number,) = (line.split("\t")[1] for line in lines if line.startswith(f"{kind}_id:"))
    return int(number)


def iterator(code: bytes) -> int:
    """An iterator over the elements of a map."""
    target = Btf().function_id("bpf_iter_bpf_map_elem")
    return bpf.prog_load(bpf.ProgramSpec("elements", bpf.ProgType.TRACING, TRACE_ITER, target), code)


def link_over(program: int, target: int) -> int:
    """A link of an iterator with a map."""
    named = ctypes.create_string_buffer(struct.pack("=I", target), 16)
    return own_bpf.call(
        own_bpf.LINK_CREATE, program, 0, TRACE_ITER, 0, ctypes.addressof(named), len(named), form="=IIIIQI"
    )


@pytest.mark.parametrize(
    ("kind", "get"), [("map", own_bpf.GET_MAP), ("prog", own_bpf.GET_PROG), ("link", own_bpf.GET_LINK)]
)
def test_nothing_that_came_with_the_agent_is_opened(site: Site, kind: str, get: int) -> None:
    numbers = {number for each, number in site.own if each == kind}
    assert numbers
    answers = {number: own_bpf.call(get, number, 0, 0) for number in numbers}
    assert {number: answer for number, answer in answers.items() if answer != -errno.ENOENT} == {}


@pytest.mark.parametrize("name", [*_MAPS, *_PROGRAMS])
def test_no_pin_leads_there(site: Site, name: str) -> None:
    assert own_bpf.unpin(f"{site.pins}/{name}") == -errno.ENOENT


Use = Callable[[int, int, int], int]
"""By a map and a program of the agent's, and a buffer's address."""
_USES: dict[str, tuple[str, Use]] = {
    "lookup": ("object_used", lambda at, _, to: own_bpf.call(own_bpf.LOOKUP, at, 0, to, to, 0, form="=IIQQQ")),
    "next_key": ("object_used", lambda at, _, to: own_bpf.call(own_bpf.NEXT_KEY, at, 0, 0, to, 0, form="=IIQQQ")),
    "delete": ("map_written", lambda at, _, to: own_bpf.call(own_bpf.DELETE, at, 0, to, 0, 0, form="=IIQQQ")),
    "freeze": ("map_written", lambda at, *_: own_bpf.call(own_bpf.FREEZE, at)),
    "lookup_batch": (
        "object_used",
        lambda at, _, to: own_bpf.call(own_bpf.LOOKUP_BATCH, 0, to, to, to, 1, at, 0, 0, form="=QQQQIIQQ"),
    ),
    "update_batch": (
        "map_written",
        lambda at, _, to: own_bpf.call(own_bpf.UPDATE_BATCH, 0, 0, to, to, 1, at, 0, 0, form="=QQQQIIQQ"),
    ),
    "pin_map": ("object_used", lambda at, *_: own_bpf.pin(at, "/sys/fs/bpf/taken")),
    "pin_program": ("object_used", lambda _, program, __: own_bpf.pin(program, "/sys/fs/bpf/taken")),
    "map_info": ("object_used", lambda at, _, to: own_bpf.call(own_bpf.GET_INFO, at, 80, to, form="=IIQ")),
    "program_info": ("object_used", lambda _, at, to: own_bpf.call(own_bpf.GET_INFO, at, 80, to, form="=IIQ")),
    "run": ("program_run", lambda _, program, __: own_bpf.run(program, 3, 0)),
    "attach": (
        "object_used",
        lambda _, at, to: own_bpf.call(own_bpf.RAW_TRACEPOINT_OPEN, to, at, form="=QI"),
    ),
    "cgroup": ("object_used", lambda _, program, __: own_bpf.call(8, 0, program, 18, 0)),
    "link": ("object_used", lambda _, program, __: own_bpf.call(own_bpf.LINK_CREATE, program, 0, 18, 0)),
    "bind_map": ("object_used", lambda at, program, _: own_bpf.call(own_bpf.BIND_MAP, program, at, 0)),
    "shape_of_inner": ("object_used", lambda at, *_: own_bpf.call(0, 12, 4, 4, 1, 0, at)),
    "extend": ("object_used", lambda _, program, __: own_bpf.call(own_bpf.PROG_LOAD, *(0,) * 28, program)),
}


@pytest.mark.parametrize("use", _USES)
def test_a_descriptor_from_before_the_guard_serves_no_command(site: Site, use: str) -> None:
    attempt, act = _USES[use]
    before = told(site, attempt)
    buffer = ctypes.create_string_buffer(b"sched_process_exit", 4096)
    target, program = site.early.map["krie_agent"], site.early.program["krie_change"]
    assert act(target, program, ctypes.addressof(buffer)) == -errno.EPERM
    wait_for_attempts(site, attempt, before, 1)


def test_nobody_has_it_in_a_map_of_maps_or_of_programs(site: Site) -> None:
    busy, change = site.early.map["krie_busy"], site.early.program["krie_change"]
    before = told(site, "map_written")
    alike = bpf.map_create(bpf.MapType.ARRAY, 4, 8, 1, "alike")
    maps = bpf.map_create(bpf.MapType.ARRAY_OF_MAPS, 4, 4, 1, "maps", inner=alike)
    programs = own_bpf.call(0, 3, 4, 4, 1)
    try:
        for holder, held in ((maps, busy), (programs, change)):
            with pytest.raises(KernelError, match="EPERM"):
                bpf.update(holder, bytes(4), struct.pack("=I", held))
        bpf.update(maps, bytes(4), struct.pack("=I", alike))
    finally:
        for each in (alike, maps, programs):
            os.close(each)
    wait_for_attempts(site, "map_written", before, 2)


def test_a_program_is_put_on_no_event_of_somebody_elses(site: Site) -> None:
    """By ioctl(2), which is no command of bpf(2), on a clock and by a second descriptor; programs of his own are."""
    program, mine = site.early.program["gua_silence"], bpf.prog_load(bpf.ProgramSpec("mine", _PERF_EVENT), _EXIT)
    before = told(site, "object_used")
    event, again = perf_event(SOFTWARE, 0, period=10**9), os.dup(program)
    try:
        for each in (program, again, site.early.program["krie_change"]):
            with pytest.raises(PermissionError):
                fcntl.ioctl(event, _SET_BPF, each)
        fcntl.ioctl(event, _SET_BPF, mine)
    finally:
        for each in (event, again, mine):
            os.close(each)
    wait_for_attempts(site, "object_used", before, 3)


def test_no_iterator_goes_over_a_map(site: Site) -> None:
    """Its program may write the elements, which the verifier does not compare with what programs may."""
    before = told(site, "object_used")
    program = iterator(_EXIT)
    mine = bpf.map_create(bpf.MapType.ARRAY, 4, 8, 1, "mine")
    try:
        assert link_over(program, site.early.map["krie_agent"]) == -errno.EPERM
        link = link_over(program, mine)
        assert link >= 0
        elements = own_bpf.call(own_bpf.ITER_CREATE, link, 0)
        assert elements >= 0
        assert os.read(elements, 64) == b""
        os.close(elements)
        os.close(link)
    finally:
        os.close(program)
        os.close(mine)
    wait_for_attempts(site, "object_used", before, 1)


def test_an_iterator_from_before_the_guard_goes_over_nothing(site: Site) -> None:
    before = told(site, "object_used")
    assert site.iterator >= 0
    assert own_bpf.call(own_bpf.ITER_CREATE, site.iterator, 0) == -errno.EPERM
    wait_for_attempts(site, "object_used", before, 1)


def test_iterators_over_all_objects_get_no_descriptor(site: Site) -> None:
    """They walk through everybody's objects, and can only read: what they find has to be opened by its number."""
    for kind in ("bpf_map", "bpf_prog", "bpf_link"):
        target = Btf().function_id(f"bpf_iter_{kind}")
        if not target:
            continue
        program = bpf.prog_load(bpf.ProgramSpec("all", bpf.ProgType.TRACING, TRACE_ITER, target), _EXIT)
        link = own_bpf.call(own_bpf.LINK_CREATE, program, 0, TRACE_ITER, 0)
        assert link >= 0, kind
        os.close(link)
        os.close(program)
    assert {answer for kind, number in site.own if kind == "map" for answer in (own_bpf.call(14, number, 0, 0),)} == {
        -errno.ENOENT
    }


@pytest.mark.parametrize("name", ["krie_busy", "krie_window", "krie_poisoned", "krie_alive", "guard_heart"])
def test_what_programs_alone_write_is_frozen(site: Site, name: str) -> None:
    """For whoever has a descriptor, and by whatever race: the kernel itself says no."""
    agent = descriptions(site.agent.process.pid).values()
    numbers = {each["id"] for each in site.objects() if each["kind"] == "map" and each["name"] == name}
    assert numbers
    assert {each["frozen"] for each in agent if int(each.get("map_id", -1)) in numbers} == {"1"}


def test_whoever_took_something_is_told(site: Site) -> None:
    """By the count of those who hold it: descriptors that are on their way over a socket, or pins, are in no /proc."""
    lines = site.agent.wait("krie.guarded", lambda line: _is(line, "object_held"))
    assert lines[0]["event"]["stranger_tgid"] == os.getpid()
