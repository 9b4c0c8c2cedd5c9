"""Attempts are alike only where what they are about is: a process that executed something else is another target."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .site import NOBODY, Site, attacked

pytestmark = [pytest.mark.once, pytest.mark.needs("raw_tracepoint")]

READ = "call(310, tgid, vector, 1, vector, 1, 0)  # process_vm_readv"
WATCH = """file = call(298, attributes, tgid, -1, -1, 0)  # perf_event_open
    file < 0 or os.close(file)"""
WAYS = {"runtime_integrity.ptrace": READ, "runtime_integrity.perf_event_open": WATCH}
"""An attempt at a process, by the kind of its events."""
SETUP = """
import struct
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: or who became another user could not be looked at
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # each CPU has a budget of its own
memory = ctypes.create_string_buffer(8)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(memory), 8)
attributes = struct.pack("<2I4Q", 1, 112, 0, 0, 0, 0) + struct.pack("<Q", 1 | 1 << 5 | 1 << 6).ljust(72, bytes(1))
def child(code):
    tgid = os.fork()
    if not tgid:
        code()
        os._exit(0)
    return tgid
"""
EXECS = """
import json
def attempt(tgid):
    {way}
(wait, go), (closed, kept) = os.pipe(), os.pipe()
def target():
    os.close(closed)
    os.read(wait, 1)
    os.execv("/bin/sleep", ["sleep", "600"])  # which closes `kept`
first = child(target)
os.close(kept)
def flood():
    while True:
        attempt(first)
other = child(flood)
time.sleep(1)
for _ in range(1000):
    attempt(first)  # as equal ones of the other process are not: those of another thread
os.write(go, b"x")
os.read(closed, 1)
attempt(first)
os.kill(other, 9)
os.kill(first, 9)
print(json.dumps(first))
"""


@pytest.fixture(scope="module")
def site(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with attacked(tmp_path_factory.mktemp("targets"), "runtime_integrity") as made:
        yield made


@pytest.mark.parametrize("kind", WAYS)
def test_what_executed_another_program_is_another_target(site: Site, kind: str) -> None:
    """A rule about programs as targets would else not see it: for a second, the attempt passed for the one before."""
    with site.process(NOBODY, SETUP + EXECS.format(way=WAYS[kind])) as made:
        out, _ = made.communicate("\n")
        assert made.returncode == 0
    first = json.loads(out)
    site.agent.settle()
    lines = site.agent.lines(kind, lambda line: line["process"]["tgid"] == made.pid)
    seen = [Path(each["event"]["target"]["exe"]).name for each in lines if each["event"]["target_tgid"] == first]
    assert len(seen) > 1
    assert seen[-1] == "sleep"
    assert "sleep" not in seen[:-1]
