"""What KRIe says a write to a sysctl makes of it, against what the kernel makes of it: random texts, several types.

The sysctls are those of namespaces that the victim makes for itself, so nothing on the machine changes.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.fixtures import JournalOfVictims
from krie.testing.patience import wait_for
from krie.testing.victims import Victims

pytestmark = pytest.mark.needs("cgroup_sysctl")
KIND = "runtime_integrity.sysctl_write"
BLANKS = b" \t\n\v\f\r\xa0"
FAR = 42
"""With so many blanks in front, a number may lie beyond what is looked at."""
INT, LONG = 1 << 31, 1 << 63
EACH = 500
"""Writes to each sysctl."""
PROBED = "kernel/domainname"
"""What is written to find out what KRIe believes of writes behind a file's start."""
WRITE = """
import json
assert libc.unshare(0x40000000 | 0x08000000 | 0x04000000) == 0, ctypes.get_errno()  # network, IPC, UTS
path, writes = json.loads(sys.argv[1])
try:
    file = os.open("/proc/sys/" + path, os.O_RDWR)
except FileNotFoundError:
    print("null")
    raise SystemExit
found = []
for text, position in writes:
    before = os.pread(file, 200, 0).decode()
    try:
        error = 0 * os.pwrite(file, bytes.fromhex(text), position)
    except OSError as failed:
        error = failed.errno
    found.append((before, error, os.pread(file, 200, 0).decode()))
print(json.dumps(found))
"""


Result = tuple[str, int, str]
"""What a sysctl held before a write, the error, and what it held then."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A sysctl of a namespace: its handler takes numbers of this range, and refuses all others."""

    path: str
    handler: str
    least: int
    most: int

    def takes(self, number: int, text: bytes) -> bool:
        """Whether the handler takes this number; those without a sign refuse even -0."""
        signed = self.least < 0 or "dointvec" in self.handler
        return self.least <= number <= self.most and (signed or not text.strip(BLANKS).startswith(b"-"))


SCRATCH = (
    Scratch("net/ipv4/tcp_max_syn_backlog", "proc_dointvec", -INT, INT - 1),
    Scratch("kernel/msgmax", "proc_dointvec_minmax", 0, INT - 1),
    Scratch("net/ipv4/tcp_notsent_lowat", "proc_douintvec", 0, 2 * INT - 1),
    Scratch("kernel/shmmax", "proc_doulongvec_minmax", 0, LONG - 1),  # more is told as the most
    Scratch("kernel/sem", "proc_dointvec, a vector", -INT, INT - 1),
    Scratch("net/ipv4/ip_default_ttl", "proc_dou8vec_minmax or proc_dointvec_minmax", 1, 255),
)


def texts(seed: str, count: int) -> Iterator[tuple[bytes, int]]:
    """Texts and offsets: mostly near what is a number, some of anything."""
    draw = random.Random(seed)
    digits = {8: "01234567", 10: "0123456789", 16: "0123456789abcdefABCDEF"}

    def blanks(most: int) -> bytes:
        return bytes(draw.choice(BLANKS) for _ in range(draw.randint(0, most)))

    def number() -> bytes:
        base = draw.choice((8, 10, 10, 10, 16))
        start = {8: "0", 10: "", 16: draw.choice(("0x", "0X"))}[base]
        length = draw.choice((1, 1, 1, 2, 3, 5, 9, 10, 11, 18, 19, 20, 21, 22, 30))
        sign = draw.choice(("", "", "", "", "-", "+", "--", "- "))
        return (sign + start + "".join(draw.choice(digits[base]) for _ in range(length))).encode()

    for _ in range(count):
        kind = draw.random()
        if kind < 0.1:
            text = bytes(draw.choice(b"0123x- \n\t\0a,\xa0") for _ in range(draw.randint(1, 12)))
        elif kind < 0.15:
            text = blanks(6)
        elif kind < 0.2:
            text = (
                draw.choice((b" ", b"\t")) * draw.choice((40, 62, 70, 4090, 4096))
                + number()
                + draw.choice((b"", b"\n"))
            )
        elif kind < 0.25:
            text = number() + draw.choice((b" ", b"\n", b"\0")) * draw.choice((41, 63, 80, 4096))
        else:
            tail = draw.choice(
                (b"", b"", b"\n", b"\n", b" ", b"\t7", b" 7 8 9", b" x", b"x", b"\0", b"\0 1", b",1", b"\v")
            )
            text = draw.choice((b"", b"", blanks(3), blanks(3), blanks(70))) + number() + tail
        yield text or b"\n", draw.choice((0, 0, 0, 0, 0, 0, 1, 3, 4096))


def first(text: str) -> int:
    """The first number of a sysctl's text."""
    return int(text.split(maxsplit=1)[0])


def compare(scratch: Scratch, write: tuple[bytes, int], result: Result, event: Mapping[str, Any]) -> None:
    """Fails where the first number after the write is not the one that the event says it will be."""
    text, _ = write
    before, error, after = (result[0], result[1], min(first(result[2]), LONG - 1))
    assert event["old_int"] == min(first(before), LONG - 1)
    if event["change"] == "unread" and not error:
        assert len(text) - len(text.lstrip(BLANKS)) >= FAR, event
    elif event["change"] in ("none", "unread") or not scratch.takes(event["new_int"], text):
        assert result[2] == before, event
    else:
        assert after == event["new_int"], event


@pytest.mark.parametrize("scratch", SCRATCH, ids=lambda each: each.path)
def test_random_values(
    agent: RunningAgent,
    journal: JournalOfVictims,
    victims: Victims,
    lacks: Callable[[str], NoReturn],
    scratch: Scratch,
) -> None:
    writes = list(texts(scratch.path, EACH))
    wait_for(lambda: _knows_that_it_is_strict(agent, victims))
    found = _written(victims, scratch.path, writes)
    if found is None:
        lacks(f"sysctl: this kernel has no {scratch.path}")
    lines = [line for line in journal.lines(KIND) if line["event"]["name"] != PROBED]
    assert {line["event"]["name"] for line in lines} == {scratch.path}
    for write, result, line in zip(writes, found, lines, strict=True):
        compare(scratch, write, result, line["event"])
    seen = {line["event"]["change"] for line in lines}
    assert seen >= {"lower", "higher", "none", "unread"}
    assert sum(before != after for before, _, after in found) > 5


def test_a_value_and_its_newline_by_two_writes(
    agent: RunningAgent, journal: JournalOfVictims, victims: Victims
) -> None:
    _written(victims, "kernel/msgmax", [(b"4096", 0), (b"\n", 4), (b"1", 4), (b" \n", 0)])
    lines = journal.exactly(KIND, 4)
    changes = [line["event"]["change"] for line in lines]
    assert changes == ["lower", "none", "none", "none"]


def test_texts_are_no_numbers(agent: RunningAgent, journal: JournalOfVictims, victims: Victims) -> None:
    _written(victims, "kernel/domainname", [(b"example.org\n", 0), (b"7 of nine\n", 0)])
    first_line, second = journal.exactly(KIND, 2)
    assert (first_line["event"]["new"], first_line["event"]["change"]) == ("example.org\n", "unread")
    assert (second["event"]["new_int"], second["event"]["change"]) == (7, "other")


@pytest.mark.needs("guest")
def test_random_values_behind_the_start_of_an_old_kernel(
    agent: RunningAgent, journal: JournalOfVictims, victims: Victims
) -> None:
    """Where kernel.sysctl_writes_strict is 0, the kernel takes what is written at any offset.

    The last test here: KRIe does not believe that it is 1 again before it has looked twice.
    """
    scratch = SCRATCH[0]
    writes = [(text, 1 + position) for text, position in texts("behind", EACH)]
    strict = Path("/proc/sys/kernel/sysctl_writes_strict")
    strict.write_text("0\n")
    try:
        found = _written(victims, scratch.path, writes)
    finally:
        strict.write_text("1\n")
    assert found is not None
    lines = journal.exactly(KIND, len(writes), name=scratch.path)
    for write, result, line in zip(writes, found, lines, strict=True):
        compare(scratch, write, result, line["event"])


def _knows_that_it_is_strict(agent: RunningAgent, victims: Victims) -> bool:
    """Whether KRIe believes that the kernel ignores writes behind a file's start.

    It does not until its next scan where it could not look: an earlier test leaves it no descriptors for a while.
    """
    _written(victims, PROBED, [(b"x", 1)])
    agent.settle()
    lines = agent.lines(KIND, lambda line: line["event"]["name"] == PROBED and victims.mine(line))
    return bool(lines[-1]["event"]["change"] == "none")


def _written(victims: Victims, path: str, writes: list[tuple[bytes, int]]) -> list[Result] | None:
    """The result of each write; None where this kernel has no such sysctl."""
    found: list[Result] | None = []
    for start in range(0, len(writes), 100):  # one argument of a system call holds so much
        some = json.dumps([path, [(text.hex(), position) for text, position in writes[start : start + 100]]])
        more = json.loads(victims.run(WRITE, some).stdout)
        if more is None:
            return None
        assert found is not None
        found += more
    return found
