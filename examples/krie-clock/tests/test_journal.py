"""A real agent on this kernel, which observes: what is done is seen."""

import sys

from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

SAME_ZONE = """
zone = (ctypes.c_int * 2)()
assert libc.syscall(96, None, zone) == 0  # gettimeofday
assert libc.syscall(164, None, zone) == 0, os.strerror(ctypes.get_errno())  # settimeofday
print(os.getpid())
"""
"""Changes nothing, also on a machine that others use."""


def test_a_zone_is_set(journal: JournalOfVictims, victims: Victims) -> None:
    tgid = int(victims.run(SAME_ZONE).stdout)
    (line,) = journal.exactly("clock.settime", 1, what="zone", seconds=0)
    assert (line["process"]["tgid"], line["decision"]["rules"]) == (tgid, [])


def test_neither_is_set(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run("assert libc.syscall(164, None, None) == 0")
    journal.none("clock.settime")


def test_the_time_is_read(journal: JournalOfVictims, victims: Victims) -> None:
    victims.execute([sys.executable, "-I", "-c", "import time; time.clock_gettime(time.CLOCK_REALTIME)"])
    journal.none("clock.settime")
