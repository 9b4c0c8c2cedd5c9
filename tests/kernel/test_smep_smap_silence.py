"""Ordinary work that reaches the guarded functions in every legal way: no check may fail, and many were made.

Those of smep_smap, and those of cfi, which locks some of the same functions.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule

pytestmark = [pytest.mark.needs("guest", "kprobe"), pytest.mark.slow]
CHECKS = ("smep_smap.register_check", "cfi.caller")
TRACEFS = Path("/sys/kernel/tracing")
STRESSORS = "--set 1 --cap 1 --exec 1 --clone 1 --key 1 --personality 1 --prctl 1"
Record = Callable[[str, object], None]
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups --"
WORK = {
    "su": "for n in 1 2 3; do su -s /bin/sh nobody -c id; done",
    "sudo": "for n in 1 2 3; do sudo -n -u nobody id && sudo -n id; done",
    "setuid programs": f"cd /; {NOBODY} passwd -S; {NOBODY} mount; {NOBODY} su -s /bin/sh -c id </dev/null; :",
    "namespaces": "unshare --mount --uts --ipc --net --pid --fork true && unshare --user --map-root-user --net true",
    "namespaces of nobody": f"sysctl -q kernel.unprivileged_userns_clone=1; cd /; {NOBODY} unshare -Ur id",
    "keys": "keyctl new_session; keyctl add user a b @s; keyctl request2 user nothing info @s; keyctl show @s",
    "bubblewrap": "bwrap --ro-bind / / --unshare-all --dev /dev --proc /proc true",
    "io_uring": "stress-ng --quiet --io-uring 2 --timeout 3",
    "helpers": """python3 -I -c "
import os, signal, socket
for family in range(20, 45):
    try: socket.socket(family, socket.SOCK_RAW).close()  # asks for a module
    except OSError: pass
open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/true')
for _ in range(5):
    child = os.fork()
    if not child: os.abort()
    os.waitpid(child, 0)
" """,
    "files": "for n in $(seq 50); do test -w /etc/passwd; done; ls -lR /etc > /dev/null",
    "network namespaces end": "for n in 1 2 3 4 5; do unshare --net --user --map-root-user true; done",
    "as root": f"stress-ng --quiet {STRESSORS} --timeout 20",
    "as nobody": f"cd /tmp && {NOBODY} stress-ng --quiet --temp-path /tmp {STRESSORS} --timeout 20",
}
MAY_FAIL = {"sudo", "setuid programs", "keys", "io_uring", "namespaces of nobody"}
"""Where guests differ in what they let be done; the kernel's functions are reached all the same."""


def shell(name: str, script: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0 or name in MAY_FAIL, f"{name}: {done.returncode}\n{done.stdout}\n{done.stderr}"


class Silence:
    """Counts checks, and those that fail, since it was made."""

    def __init__(self, agent: RunningAgent, record: Record) -> None:
        self._agent, self._record = agent, record
        agent.settle()  # attacks of the tests before may wait to be decided
        self._start = time.monotonic()
        self._failed = len(self._failures())
        self._checks, self._callers = self._sums()

    def _failures(self) -> list[Line]:
        return [line for kind in CHECKS for line in self._agent.lines(kind)]

    def _sums(self) -> tuple[int, int]:
        count = len(self._agent.lines("smep_smap.activity"))
        self._agent.wait("smep_smap.activity", count=count + 1)  # one look more
        self._agent.settle()  # which cfi takes at the same time
        kinds = ("smep_smap.activity", "cfi.activity")
        smep_smap, cfi = (sum(line["event"]["checks"] for line in self._agent.lines(kind)) for kind in kinds)
        return smep_smap, cfi

    def checks(self, name: str) -> int:
        """How many were made, of which none failed; they are part of the test's report."""
        subprocess.run(["/bin/true"], check=True)
        os.access("/", os.R_OK)
        self._agent.settle()
        assert len(self._failures()) == self._failed, self._failures()[-1]
        checks, callers = self._sums()
        made = checks - self._checks
        self._record(name, f"{made:,} ({made / (time.monotonic() - self._start):,.0f}/s)")
        self._record(f"{name}, callers", f"{callers - self._callers:,}")
        return made


@pytest.mark.parametrize("name", WORK)
def test_work_is_silent(agent: RunningAgent, name: str, record_property: Record) -> None:
    silence = Silence(agent, record_property)
    shell(name, WORK[name])
    assert silence.checks(name) > 0


def test_modules_come_and_go(agent: RunningAgent, test_module: TestModule, record_property: Record) -> None:
    silence = Silence(agent, record_property)
    test_module.unload()
    test_module.load()
    assert silence.checks("modules") > 0


FUNCTIONS = ("commit_creds", "prepare_kernel_cred", "override_creds", "set_memory_ro", "switch_task_namespaces")


def traceable() -> list[str]:
    listed = {line.split()[0] for line in (TRACEFS / "available_filter_functions").read_text().splitlines()}
    return [each for each in FUNCTIONS if each in listed]


@pytest.fixture
def return_probes() -> Iterator[None]:
    events = TRACEFS / "kprobe_events"
    names = traceable()
    events.write_text("".join(f"r:krie_silence/{each} {each}\n" for each in names))
    (TRACEFS / "events/krie_silence/enable").write_text("1")
    yield
    (TRACEFS / "events/krie_silence/enable").write_text("0")
    for each in names:  # a file of Python's own for appending looks for its end, which this one refuses
        descriptor = os.open(events, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, f"-:krie_silence/{each}\n".encode())
        os.close(descriptor)


@pytest.fixture
def function_graph() -> Iterator[None]:
    (TRACEFS / "set_graph_function").write_text("\n".join(traceable()))
    (TRACEFS / "current_tracer").write_text("function_graph")
    yield
    (TRACEFS / "current_tracer").write_text("nop")
    (TRACEFS / "set_graph_function").write_text("")


def traced(agent: RunningAgent) -> int:
    """Checks so far that found a tracer's return address."""
    return sum(line["event"]["traced"] for line in agent.lines("smep_smap.activity"))


def under_a_tracer(silence: Silence, name: str) -> None:
    shell("as root", "su -s /bin/sh nobody -c id; unshare --net true; stress-ng --quiet --set 1 --cap 1 --timeout 3")
    assert silence.checks(name) > 0


def test_perf_with_return_probes_is_silent(agent: RunningAgent, return_probes: None, record_property: Record) -> None:
    before = traced(agent)
    record = ["perf", "record", "-q", "-a", "-e", "krie_silence:*", "-o", "/tmp/krie-perf.data"]
    with subprocess.Popen([*record, "sleep", "60"], stderr=subprocess.DEVNULL) as perf:
        time.sleep(3)
        under_a_tracer(Silence(agent, record_property), "perf, return probes")
        perf.terminate()
    assert traced(agent) > before


def test_bpftrace_is_silent(agent: RunningAgent, record_property: Record) -> None:
    before = traced(agent)
    program = "".join(f"kretprobe:{each} {{ @[func] = count(); }} " for each in traceable())
    with subprocess.Popen(["bpftrace", "-e", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
        time.sleep(20)
        under_a_tracer(Silence(agent, record_property), "bpftrace, return probes")
        assert tracer.poll() is None
        tracer.terminate()
    assert traced(agent) > before


def test_function_graph_is_silent(agent: RunningAgent, function_graph: None, record_property: Record) -> None:
    under_a_tracer(Silence(agent, record_property), "function_graph")
