"""Poison in the kernel's tables, on processes of this test's own: inherited, removed, limited in time.

On this machine only, where nothing refuses anything: in guests a poisoned process cannot even fork. See
enforcement/test_containment.py for that.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from krie.agent.loading import Attached
from krie.enforce.room import Room
from krie.enforce.verdicts import Verdict, Verdicts
from krie.events.core_maps import Flags
from krie.events.identity import Key
from krie.kernel.ring import Ring
from krie.testing.patience import PATIENCE_S

from .loading import core_alone

pytestmark = [pytest.mark.once, pytest.mark.needs("raw_tracepoint")]
VICTIM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
calls = {  # a command that no kernel has; nothing of the parent's memory; to be traced, once
    "bpf\\n": lambda: libc.syscall(321, 9999, ctypes.create_string_buffer(8), 8),
    "readv\\n": lambda: libc.syscall(310, os.getppid(), bytes(16), 1, bytes(16), 1, ctypes.c_ulong(0)),
    "traceme\\n": lambda: libc.syscall(101, 0, 0, 0, 0),
}
for line in sys.stdin:
    if line in calls:
        ctypes.set_errno(0)
        calls[line]()
        print(ctypes.get_errno(), flush=True)
    if line == "fork\\n":
        wait, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(wait, 1)
            os._exit(0)
        os.close(wait)
        print(child, flush=True)
    if line == "thread\\n":
        import threading
        threading.Thread(target=print, args=(0,), kwargs={"flush": True}).start()
    if line == "reap\\n":
        os.close(go)
        os.waitpid(child, 0)
        print(0, flush=True)
"""


@pytest.fixture(scope="module")
def armed() -> Iterator[Attached]:
    with core_alone() as made:
        made.arm()
        yield made


@pytest.fixture
def verdicts(armed: Attached) -> Iterator[Verdicts]:
    yield armed.verdicts
    for each in (*armed.verdicts.poisoned(), *armed.verdicts.bound()):
        armed.verdicts.clear(each)
    assert armed.verdicts.count() == 0


class Victim:
    """A process whose parent is not this one: children of the agent are its canaries."""

    def __init__(self, shell: subprocess.Popen[str]) -> None:
        self._shell = shell
        assert shell.stdin is not None
        assert shell.stdout is not None
        self._stdin, self._stdout = shell.stdin, shell.stdout
        self.tgid = int(self._stdout.readline())

    def do(self, command: str) -> int:
        self._stdin.write(f"{command}\n")
        self._stdin.flush()
        return int(self._stdout.readline())

    def end(self) -> None:
        self._stdin.close()
        self._stdout.close()
        self._shell.wait()


@contextmanager
def a_victim() -> Iterator[Victim]:
    script = 'exec 3<&0; "$@" <&3 & echo $!; wait'
    command = ["/bin/sh", "-c", script, "sh", sys.executable, "-IS", "-c", VICTIM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        victim = Victim(shell)
        yield victim
        victim.end()


@pytest.fixture(scope="module")
def key_of(armed: Attached) -> Iterator[Callable[[int], Key]]:
    """A process's key as the kernel has it: out of the record of its exec, since /proc knows only the clock's tick."""
    ring = Ring(armed.maps["krie_ring"])

    def find(tgid: int) -> Key:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for event in map(armed.types.decode, ring.read()):
                if event.tgid == tgid:
                    return Key(tgid, event.start_time)
        raise AssertionError(f"no record of {tgid}")

    yield find
    ring.close()


def poisoned(verdicts: Verdicts) -> set[int]:
    return {each.process.tgid for each in verdicts.poisoned()}


def later(seconds: float) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 1e9)


def test_children_inherit_and_ends_remove(verdicts: Verdicts, key_of: Callable[[int], Key]) -> None:
    with a_victim() as victim:
        key = key_of(victim.tgid)
        before = Verdict(key, 0, later(600), 7, 13)
        assert verdicts.poison(before)
        assert list(verdicts.poisoned()) == [before]
        child = victim.do("fork")
        (inherited,) = [each for each in verdicts.poisoned() if each.process.tgid == child]
        assert (inherited.until, inherited.rule, inherited.errno) == (before.until, 7, 13)
        assert inherited.process.start_time > key.start_time
        assert verdicts.count() == 2
        victim.do("thread")  # no process of its own, neither at its start nor at its end
        assert verdicts.count() == 2
        victim.do("reap")
        assert poisoned(verdicts) == {victim.tgid}
    assert verdicts.count() == 0


def test_others_inherit_nothing(verdicts: Verdicts, key_of: Callable[[int], Key]) -> None:
    with a_victim() as victim, a_victim() as other:
        verdicts.poison(Verdict(key_of(victim.tgid), 0, later(600), 1, 1))
        other.do("fork")
        assert poisoned(verdicts) == {victim.tgid}
        other.do("reap")


def test_nothing_is_inherited_when_the_time_is_over(verdicts: Verdicts, key_of: Callable[[int], Key]) -> None:
    with a_victim() as victim:
        verdicts.poison(Verdict(key_of(victim.tgid), 0, later(0), 1, 1))
        victim.do("fork")
        assert poisoned(verdicts) == {victim.tgid}
        victim.do("reap")


def test_poison_is_prolonged_and_never_shortened(verdicts: Verdicts) -> None:
    key = Key(4_000_000, 1)
    over, long, longer = (Verdict(key, 0, later(s), rule, rule) for rule, s in enumerate((0, 60, 120), 1))
    prolonged = replace(long, until=longer.until)  # the rule that poisoned it stays the reason
    for each, stands in ((over, over), (long, long), (longer, prolonged), (long, prolonged)):
        assert verdicts.poison(each)
        assert list(verdicts.poisoned()) == [stands]
    assert verdicts.count() == 1
    verdicts.clear(long)
    verdicts.clear(long)
    assert verdicts.count() == 0


def fill(verdicts: Verdicts, share: int) -> int:
    """How many processes one user can have poisoned."""
    until = later(600)
    made = (Verdict(Key(share << 14 | number, 1), 0, until, 1, 1, share) for number in range(1, 10_000))
    return next(number for number, each in enumerate(made) if not verdicts.poison(each))


def test_each_user_has_as_much_room_as_all_others_keep(verdicts: Verdicts) -> None:
    before = verdicts.left_out()
    assert [fill(verdicts, share) for share in (1000, 0, 33, 65535)] == [4096, 2048, 1024, 512]
    assert verdicts.count() == 4096 + 2048 + 1024 + 512
    assert verdicts.left_out() - before == 4
    for each in [each for each in verdicts.poisoned() if each.share == 1000]:
        verdicts.clear(each)
    assert fill(verdicts, 1000) == (8192 - 2048 - 1024 - 512) // 2


def test_who_has_most_makes_room_and_nobody_for_himself(verdicts: Verdicts) -> None:
    until = later(600)
    other, oldest, newest = (
        Verdict(Key(4_000_000 + number, 1), 0, until - number, 1, 1, share)
        for number, share in enumerate((1001, 1000, 1002))
    )
    assert verdicts.poison(other)
    assert verdicts.poison(oldest)
    fill(verdicts, 1000)
    count = verdicts.count()
    made: list[Verdict] = []
    room = Room(verdicts, made.append)
    assert not room.make(1000)
    assert room.make(1002)
    assert [each.process for each in made] == [oldest.process]
    assert verdicts.poison(newest, beyond_share=True)
    assert (verdicts.count(), verdicts.stands(other), verdicts.stands(oldest)) == (count, True, False)


def test_children_inherit_as_long_as_their_user_has_room(verdicts: Verdicts, key_of: Callable[[int], Key]) -> None:
    with a_victim() as one:
        assert verdicts.poison(Verdict(key_of(one.tgid), 0, later(600), 1, 1, 1000))
        with a_victim() as other:
            assert verdicts.poison(Verdict(key_of(other.tgid), 0, later(600), 1, 1, 1001))
            _inherit(verdicts, one, other)
    assert fill(verdicts, 1000) == 4096  # of which there were 4,095 when his own victim had ended


def _inherit(verdicts: Verdicts, full: Victim, other: Victim) -> None:
    assert fill(verdicts, 1000) == 4095
    count, left_out = verdicts.count(), verdicts.left_out()
    full.do("fork")
    assert (verdicts.count(), verdicts.left_out()) == (count, left_out + 1)
    child = other.do("fork")
    (inherited,) = [each for each in verdicts.poisoned() if each.process.tgid == child]
    assert (inherited.share, verdicts.count()) == (1001, count + 1)
    for victim in (full, other):
        victim.do("reap")
    assert verdicts.count() == count


def test_verdicts_on_operations(verdicts: Verdicts) -> None:
    one, other = (Verdict(Key(4_000_000, 1), kind, later(60), 1, 1) for kind in (0x0101, 0x0102))
    for each in (one, other):
        verdicts.bind(each)
    assert set(verdicts.bound()) == {one, other}
    verdicts.clear(one)
    assert list(verdicts.bound()) == [other]
    assert verdicts.count() == 0


def test_the_host_is_bound_and_freed(verdicts: Verdicts) -> None:
    verdicts.set_poison_time(5)
    verdicts.bind_host(Verdict(Key(0, 0), 0, 9, 2, 13))
    host = verdicts.host()
    assert host is not None
    assert (host.until, host.rule, host.errno) == (9, 2, 13)
    verdicts.free_host()
    assert verdicts.host() is None


def test_flags_and_count_share_a_word(verdicts: Verdicts) -> None:
    verdicts.set_flags(Flags.HOST | Flags.GUARD)
    assert (verdicts.flags(), verdicts.count()) == (Flags.HOST | Flags.GUARD, 0)
    with verdicts.watched():
        assert Flags.CANARY in verdicts.flags()
    assert verdicts.flags() == Flags.HOST | Flags.GUARD
    verdicts.set_flags(Flags(0))
