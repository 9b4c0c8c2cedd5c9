"""An agent starts, and meanwhile ftrace is turned off, or the agent killed: what was attached ends only once ftrace is
on again, and no agent begins its work on probes that are silent.

What leaves ftrace while it is off makes it turn itself off for good, which `ftrace_works` finds.
"""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie.errors import ExitCode
from krie.kernel.mounts import mounted
from krie.libc import system_call
from krie.loader.forked import NAME
from krie.testing.agent import AgentFailed, RunningAgent
from krie.testing.bpf_objects import bpf_objects, leftovers
from krie.testing.module import TestModule, address_of
from krie.testing.patience import wait_for

from .stepping import Stepped
from .test_switches import TRACED, healthy, keepers, no_keeper_is_left, use
from .test_switches_off import REFUSED, SWITCHES, ftrace_works, off, warnings

pytestmark = pytest.mark.needs("guest", "kprobe")
_SYS_KCMP = 312  # x86-64
CLOCK_NANOSLEEP, TALKS = "230", ("44", "45", "46", "47")  # sendto, recvfrom, sendmsg, recvmsg
SENDMSG = 46
"""With descriptors. The loader makes it once before it attaches anything, and then for each program's links."""


def living() -> dict[int, int]:
    """All processes, with their parents; not every guest's init reaps what has ended."""
    found = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = each.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(each.parent.name)] = int(parent)
    return found


def waits_in(tgid: int) -> str:
    """The number of the system call in which a process sleeps; none, where it does not."""
    if Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        return ""
    return Path(f"/proc/{tgid}/syscall").read_text().split()[0]


def name_of(tgid: int) -> str:
    """As the kernel knows it; none, where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{tgid}/comm").read_text().rstrip()
    return ""


def links_of(tgid: int) -> set[int]:
    """What a process holds of what is attached."""
    found = set()
    for each in Path(f"/proc/{tgid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(number) for number in re.findall(r"^link_id:\s*(\d+)", each.read_text(), re.MULTILINE)}
    return found


def kprobes_of(tgid: int) -> list[int]:
    """Its descriptors of perf events, which kprobes are; they have no number by which they could be told apart."""
    found = []
    for each in Path(f"/proc/{tgid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += [int(each.name)] if os.readlink(each) == "anon_inode:[perf_event]" else []
    return found


def holds_those_of(tgid: int, other: int) -> bool:
    """Whether a process has each perf event that another one has."""
    own = kprobes_of(tgid)
    for theirs in kprobes_of(other):
        same = (place for place, mine in enumerate(own) if not system_call(_SYS_KCMP, tgid, other, 0, mine, theirs))
        if (place := next(same, None)) is None:
            return False
        own = own[place + 1 :] + own[:place]  # both got them in the same order: the next one is mostly the first
    return True


class Starting:
    """An agent that is about to be armed, and what it should have left nothing of."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        folder.chmod(0o700)
        no_keeper_is_left()  # of others
        self.objects, self.warnings = bpf_objects(), warnings()
        self.agent = RunningAgent(folder, **options)
        self._failed: list[AgentFailed] = []
        self._stepped: list[Stepped] = []
        self._thread = threading.Thread(target=self._start)
        self._thread.start()
        wait_for(lambda: hasattr(self.agent, "process"))

    def _start(self) -> None:
        try:
            self.agent.__enter__()
        except AgentFailed as error:
            self._failed.append(error)

    def loads(self) -> Stepped:
        """Its loader, stopped where it has loaded, and asks whether it may attach."""
        wait_for(self._loader)
        loader = Stepped(self._loader()[0])
        self._stepped.append(loader)
        loader.until(SENDMSG, lambda: True)
        assert not self.links()
        return loader

    def attaches(self) -> Stepped:
        """Its loader, stopped where it has attached its first programs, and the agent holds all of these, too."""
        loader = self.loads()
        loader.until(SENDMSG, self.links)
        assert not keepers()
        wait_for(lambda: self._has_all_of(loader.tgid))
        return loader

    def _loader(self) -> list[int]:
        ours = [each for each, parent in living().items() if parent == self.agent.process.pid]
        return [each for each in ours if name_of(each) == NAME]

    def _has_all_of(self, child: int) -> bool:
        agent = self.agent.process.pid
        return links_of(agent) >= set(self.links()) and holds_those_of(agent, child)

    def links(self) -> list[int]:
        """What was attached since, but for kprobes."""
        return [number for kind, number in bpf_objects() - self.objects if kind == "link"]

    def fails(self) -> str:
        """What it says then."""
        self._thread.join()
        assert self._failed
        return str(self._failed[0])

    def end(self) -> None:
        """Whatever became of it, and whoever was left standing where a test failed."""
        for each in self._stepped:
            with contextlib.suppress(ProcessLookupError):
                each.goes_on()
        self.agent.process.send_signal(signal.SIGCONT)
        self._thread.join()
        if not self._failed:
            self.agent.stop()

    def has_left_nothing(self) -> None:
        no_keeper_is_left()
        assert not leftovers(bpf_objects() - self.objects)
        healthy()
        ftrace_works()
        assert warnings() <= self.warnings


class Service:
    """A cgroup, and what manages the service in it."""

    def __init__(self) -> None:
        root = next(each.point for each in mounted("cgroup2") if each.root == "/")
        self._folder = root / "krie-of-a-test.service"
        self._folder.mkdir()

    def take(self, tgid: int) -> None:
        (self._folder / "cgroup.procs").write_text(f"{tgid}\n")

    def ends(self) -> None:
        """As where systemd finds that the main process has gone."""
        for each in (self._folder / "cgroup.procs").read_text().split():
            os.kill(int(each), signal.SIGKILL)
        wait_for(lambda: not (self._folder / "cgroup.procs").read_text())
        self._folder.rmdir()


@pytest.fixture
def starting(alone: None, agent_options: Mapping[str, Any], tmp_path: Path) -> Iterator[Starting]:
    plugins = {name: agent_options["plugins"][name] for name in ("runtime_integrity", "smep_smap")}
    made = Starting(tmp_path, {"plugins": plugins, "agent": {"scan_interval_s": 3600, "roaming_interval_s": 3600}})
    yield made
    made.end()
    SWITCHES["ftrace"].write_text("1\n")


def says_what_is_off(starting: Starting) -> None:
    assert re.search("attaching probes; .*write 1 to /proc/sys/kernel/ftrace_enabled", starting.fails())
    assert starting.agent.process.returncode == ExitCode.DEGRADED


def test_ftrace_is_turned_off_while_programs_are_loaded(starting: Starting, lacks: Callable[[str], NoReturn]) -> None:
    loader = starting.loads()
    with off("ftrace") as done:
        loader.goes_on()
        if not done:
            lacks(REFUSED)
        says_what_is_off(starting)
        assert not leftovers(bpf_objects() - starting.objects)  # nothing was attached, and nobody stays for it
    starting.has_left_nothing()


def test_ftrace_is_turned_off_before_the_canaries(starting: Starting, lacks: Callable[[str], NoReturn]) -> None:
    loader = starting.attaches()
    with off("ftrace") as done:
        loader.goes_on()
        if not done:
            lacks(REFUSED)
        says_what_is_off(starting)
        assert keepers()
    starting.has_left_nothing()


@pytest.mark.needs("test_module")
def test_the_loader_is_killed_while_it_attaches_and_ftrace_is_disabled_in_memory(
    starting: Starting, test_module: TestModule
) -> None:
    """When the agent has not heard of all that it attached. What ended now would leave calls of what is freed."""
    loader = starting.attaches()
    attached = starting.links()
    with test_module.effect("write", address_of("ftrace_disabled"), "01000000"):
        loader.is_killed()
        assert "the loader was ended by SIGKILL" in starting.fails()
        use()
        assert set(attached) <= set(starting.links())
    starting.has_left_nothing()


@pytest.mark.long
@pytest.mark.needs("test_module")
def test_its_service_is_stopped_while_it_attaches_and_ftrace_is_disabled_in_memory(
    starting: Starting, test_module: TestModule
) -> None:
    """First SIGTERM comes to the agent, and once that has ended, SIGKILL to all that is left of the service."""
    service = Service()
    loader, agent = starting.attaches(), starting.agent.process
    attached = starting.links()
    for each in (agent.pid, loader.tgid):
        service.take(each)
    with test_module.effect("write", address_of("ftrace_disabled"), "01000000"):
        agent.terminate()
        loader.goes_on()
        assert "SIGTERM ended the start" in starting.fails()
        assert agent.returncode == -signal.SIGTERM
        service.ends()
        use()
        assert set(attached) <= set(starting.links())
    starting.has_left_nothing()


def test_the_agent_is_killed_while_its_probes_are_attached_and_ftrace_is_off(
    starting: Starting, lacks: Callable[[str], NoReturn]
) -> None:
    """When it has no keeper yet."""
    loader, agent = starting.attaches(), starting.agent.process
    child = loader.tgid
    os.kill(agent.pid, signal.SIGSTOP)
    loader.goes_on()
    wait_for(lambda: waits_in(child) in TALKS)  # it has attached all, and tells so
    assert TRACED.read_text()
    assert not keepers()
    with off("ftrace") as done:
        agent.kill()
        starting.fails()
        if done:
            # Its answer reaches nobody, and it waits between two looks.
            wait_for(lambda: waits_in(child) == CLOCK_NANOSLEEP)
            assert bpf_objects() - starting.objects
    wait_for(lambda: child not in living())
    starting.has_left_nothing()
    if not done:
        lacks(REFUSED)
