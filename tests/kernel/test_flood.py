"""Nobody's flood hides another's act: what a user may send, exactly how much was held back, and what goes through."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie.agent.admin import ask
from krie.agent.budget import LEAST_BURST, LEAST_PER_S, part
from krie.kernel.maps import possible_cpus
from krie.testing.agent import Line, fired

from .site import BURST, CODE, KIND, NOBODY, OTHER, RATE, Site, attacked
from .user_namespaces import CONTAINED

pytestmark = [pytest.mark.once, pytest.mark.needs("raw_tracepoint")]


def most(seconds: float) -> int:
    """More than this is not told of what one user did in so long a time: `RATE` of each, and twice that of others."""
    cpus = possible_cpus()
    burst, rate = part(BURST, cpus, LEAST_BURST), part(RATE, cpus, LEAST_PER_S)
    return int(cpus * (burst * 5 + 3 * rate * (seconds + 3)))


@pytest.fixture(scope="module")
def site(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with attacked(tmp_path_factory.mktemp("flood")) as made:
        yield made


def is_nobodys(line: Line) -> bool:
    return bool(line["process"]["uid"] == NOBODY)


def test_equal_attempts_are_told_once_a_second_and_counted_exactly(site: Site) -> None:
    count = 20_000
    alike, over = site.held()
    begun = time.monotonic()
    tgid = site.run(NOBODY, f"for _ in range({count}): ask(1)")
    took_s = time.monotonic() - begun
    alike_after, over_after = site.held()
    told = len(site.told(lambda line: line["process"]["tgid"] == tgid))
    assert told + alike_after - alike + over_after - over == count
    assert over_after == over
    assert possible_cpus() <= told <= most(took_s)
    assert {each["event"]["user"] for each in site.agent.lines("krie.held")} == {NOBODY}
    assert site.agent.lines("krie.loss") == []


def test_unlike_attempts_have_a_bound_too(site: Site) -> None:
    count = 20_000
    before = sum(site.held())
    tgid = site.run(NOBODY, f"for number in range({count}): ask(10000 + number)")
    held = sum(site.held()) - before
    told = len(site.told(lambda line: line["process"]["tgid"] == tgid))
    assert (told + held, held > 0) == (count, True)
    (*_, last) = [each for each in site.agent.lines("krie.held") if each["event"]["over"]]
    assert fired(last) == [("AGENT011", "log")]


def test_the_same_user_hides_nothing_behind_equal_attempts(site: Site) -> None:
    with (
        site.process(NOBODY, "while True: ask(2)") as flood,
        site.process(NOBODY, "ask(7001); time.sleep(600)") as culprit,
    ):
        assert flood.stdin is not None
        flood.stdin.write("\n")
        flood.stdin.flush()
        time.sleep(1)  # far beyond the budget
        culprit.communicate("\n")
        assert culprit.returncode == -signal.SIGKILL
        (line,) = site.told(lambda line: line["process"]["tgid"] == culprit.pid)
    assert line["done"] in (["killed"], ["signalled"])  # it may take its time to end


def test_another_user_is_told_whatever_is_flooded(site: Site) -> None:
    code = "number = 0\nwhile True:\n    number += 1\n    ask(100000 + number)"
    with site.process(NOBODY, code) as flood, site.process(OTHER, "ask(7001); time.sleep(600)") as culprit:
        assert flood.stdin is not None
        flood.stdin.write("\n")
        flood.stdin.flush()
        time.sleep(1)
        culprit.communicate("\n")
        assert culprit.returncode == -signal.SIGKILL
        assert len(site.told(lambda line: line["process"]["tgid"] == culprit.pid)) == 1


def test_the_kernel_decides_about_what_is_held_back(site: Site) -> None:
    code = "for number in range(5000): ask(200000 + number)\nask(7002)\nprint('went on', flush=True)"
    with site.process(NOBODY, code) as made:
        out, _ = made.communicate("\n")
        assert (made.returncode, out) == (-signal.SIGKILL, "")
        assert len(site.told(lambda line: line["process"]["tgid"] == made.pid and "killed" in line["done"])) == 1


def paid(site: Site, code: str) -> tuple[int, set[int], float]:
    """Run code as root. How it ended, who paid for what was held back meanwhile, and how long it took, s."""
    before, begun = len(site.agent.lines("krie.held")), time.monotonic()
    with site.process(0, code) as made:
        made.communicate("\n")
    took_s = time.monotonic() - begun
    site.held()
    return made.returncode, {each["event"]["user"] for each in site.agent.lines("krie.held")[before:]}, took_s


def test_users_of_a_namespace_are_the_one_who_made_it(site: Site, lacks: Callable[[str], NoReturn]) -> None:
    """Each of its users would otherwise have a budget of his own."""
    prepare = f"""
{CONTAINED}
def maker():
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})

def users():
    for user in range(1, 200):
        child = os.fork()
        if child == 0:
            os.setresuid(user, user, user)
            for _ in range(50):
                ask(3000 + user)
            os._exit(0)
        os.waitpid(child, 0)

namespace = Contained(users, "0 100000 1000", maker)
sys.exit(namespace.go() if namespace.made else 1)
"""
    failed, payers, took_s = paid(site, prepare)
    if failed:
        lacks("user_namespaces: a user cannot make one")
    assert payers == {NOBODY}
    told = site.told(lambda line: 100_000 <= line["process"]["uid"] < 101_000)
    assert 0 < len(told) <= most(took_s)


def test_a_user_namespace_of_roots_pays_for_itself(site: Site) -> None:
    """Whoever is in it would otherwise spend what root has, and hide what root's own processes do."""
    prepare = f"""
{CONTAINED}
def within():
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)  # whom nobody outside knows
    for _ in range(40):
        if not os.fork():
            assert not libc.unshare(0x10000000)  # another one, which is no other payer
            for _ in range(50):
                ask(5000)
            os._exit(0)
        os.wait()

namespace = Contained(within, "0 100000 1000")
sys.exit(namespace.go() if namespace.made else 1)
"""
    failed, payers, took_s = paid(site, prepare)
    assert not failed
    (payer,) = payers
    told = site.told(lambda line: line["event"]["number"] == 5000)
    inner = {each["process"]["namespaces"]["user"] for each in told}
    assert len(inner) > 1
    assert payer >= 0xF000_0000  # a namespace's number: PROC_DYNAMIC_FIRST
    assert payer not in inner
    assert 0 < len(told) <= most(took_s)


def test_a_container_is_one_whichever_users_its_root_becomes(site: Site) -> None:
    """It would otherwise spend, with their ids, what users outside have."""
    prepare = """
assert not ctypes.CDLL(None).unshare(0x20000000)  # CLONE_NEWPID
first = os.fork()
if first == 0:
    for user in range(1, 200):
        if not os.fork():
            os.setresuid(user, user, user)
            for _ in range(50):
                ask(3000 + user)
            os._exit(0)
        os.wait()
    os._exit(0)
os.waitpid(first, 0)
"""
    failed, payers, took_s = paid(site, prepare)
    assert not failed
    (payer,) = payers
    told = site.told(lambda line: line["process"]["container"])
    assert {each["process"]["namespaces"]["pid"] for each in told} == {payer}
    assert 0 < len(told) <= most(took_s)


@pytest.mark.parametrize(("flags", "user"), [(0x20000000, 0), (0x30000000, OTHER)], ids=["pid", "user"])
def test_a_container_is_one_however_many_namespaces_are_made_in_it(
    site: Site, lacks: Callable[[str], NoReturn], flags: int, user: int
) -> None:
    """Each PID namespace would otherwise be another one who pays; each user namespace its maker, whose id is chosen."""
    prepare = f"""
def within():
    if os.fork():
        return os.wait()[1]
    os.setresuid({user}, {user}, {user})
    if libc.unshare({flags}):
        os._exit(1)
    first = os.fork()
    if not first:
        for _ in range(50):
            ask(4000 + {user})
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))

assert not libc.unshare(0x20000000)  # CLONE_NEWPID
first = os.fork()
if not first:
    os._exit(any([within() for number in range(40)]))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))
"""
    failed, payers, took_s = paid(site, prepare)
    if failed:
        lacks("user_namespaces: a user cannot make one")
    (payer,) = payers
    told = site.told(lambda line: line["event"]["number"] == 4000 + user)
    inner = {each["process"]["namespaces"]["pid"] for each in told}
    assert len(inner) > 1
    assert payer not in {0, OTHER, *inner}
    assert 0 < len(told) <= most(took_s)


def test_a_flood_delays_no_decision(site: Site) -> None:
    """How many records lie before it is what delays one; the time itself is the machine's."""
    with site.process(NOBODY, "while True: ask(4)") as flood:
        assert flood.stdin is not None
        flood.stdin.write("\n")
        flood.stdin.flush()
        time.sleep(1)
        before, begun = os.stat(site.agent.journal).st_size, time.monotonic()
        time.sleep(1)
        grown, took_s = os.stat(site.agent.journal).st_size - before, time.monotonic() - begun
    assert grown < 2000 * possible_cpus() * 150 * took_s  # bytes of a line, times records a second


MANY = """
for number in range(30):
    child = os.fork()
    if child == 0:
        if number % 3 and os.fork():
            os._exit(0)  # whose child is the first process's now, or a reaper's
        if number % 3 == 2:
            os.setsid()
        if number % 3 == 0:
            program = f'{folder}/{{number}}'
            shutil.copy('{python}', program)
            os.execve(program, [program, '-IS', '-c', code + 'ask(7002)'], {{'PYTHONHOME': '{home}'}})
        ask(7002)
        os._exit(1)
    os.waitpid(child, 0)
"""


def test_a_user_trips_no_breaker(site: Site, tmp_path: Path) -> None:
    """By no number of processes, orphans and copies of programs: what he tries next is killed as the first one was."""
    for each in (tmp_path, *tmp_path.parents):
        each.chmod(each.stat().st_mode | 0o111)
    tmp_path.chmod(0o777)
    names = {"folder": str(tmp_path), "home": sys.base_prefix, "python": os.path.realpath(sys.executable)}
    code = f"import shutil\ncode = {CODE!r}\n{MANY.format(**names)}"
    hit = "KERNEL"

    def state() -> dict[str, Any]:
        site.agent.settle()
        return next(
            each
            for each in ask(site.agent.run_dir, {"ask": "status"}, site.agent.timeout_s)["breakers"]
            if each["rule"] == hit
        )

    killed = len(site.told(lambda line: "killed" in line["done"]))
    with site.process(NOBODY, f"{code}\nask(7002)\nprint('went on', flush=True)") as made:
        out, _ = made.communicate("\n")
        assert (made.returncode, out) == (-signal.SIGKILL, "")
    assert len(site.told(lambda line: "killed" in line["done"])) == killed + 31
    assert (state()["processes"], state()["tripped"]) == (1, False)


SPAWNS = """
for _ in range(1000):
    os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)
"""
"""Their records alone take more than a MiB."""


def test_what_matters_has_room_where_the_rest_filled_the_ring(site: Site) -> None:
    """While nobody reads, processes come and go until their records find no room any more."""
    with site.process(OTHER, "ask(7001)\nprint(flush=True)\ntime.sleep(600)") as culprit:
        assert culprit.stdin is not None
        assert culprit.stdout is not None
        site.agent.process.send_signal(signal.SIGSTOP)
        try:
            site.run(NOBODY, SPAWNS)
            culprit.stdin.write("\n")
            culprit.stdin.flush()
            culprit.stdout.readline()
        finally:
            site.agent.process.send_signal(signal.SIGCONT)
        assert culprit.wait() == -signal.SIGKILL
        assert len(site.told(lambda line: line["process"]["tgid"] == culprit.pid)) == 1
    site.agent.wait("krie.loss")
    lost = {(line["event"]["lost_kind"], line["event"]["cause"]) for line in site.agent.lines("krie.loss")}
    assert ("process.exec", "ring_full") in lost
    assert KIND not in {kind for kind, _ in lost}
