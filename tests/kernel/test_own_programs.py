"""Programs that the agent runs itself change nothing for whoever does not know the secret of its start.

Of an agent that only observes: one that guards itself lets nobody else run them, so that nothing would show whether
they ask. Each run is tried with the secret, too, or a test would pass where it changes nothing anyway.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from krie import addresses
from krie.agent.loading import Attached
from krie.enforce.verdicts import Verdict
from krie.events.agreed import SECRET, SECRET_ARGUMENT
from krie.events.core_maps import Change, Flags
from krie.events.identity import Key
from krie.events.numbers import ONLY
from krie.kernel.maps import Map

from . import own_bpf
from .descriptors import descriptions
from .loading import core_alone

pytestmark = [pytest.mark.once, pytest.mark.needs("raw_tracepoint")]
LATE, POISONED, OTHER = 2**63, 4_000_000, 4_000_001
"""An end of poison, and tgids that no process has."""
ACTS = {
    "inspect": ("krie_inspect", "krie_inspected", (1,)),
    "peek": ("krie_peek", "krie_peeked", (0, 64)),  # which fails, and says so
    "poison": ("krie_change", "krie_poisoned", (Change.POISON, OTHER, 1, LATE, 1, 1)),
    "poison beyond a share": ("krie_change", "krie_poisoned", (Change.POISON_BEYOND_SHARE, OTHER, 1, LATE, 1, 1)),
    "clear": ("krie_change", "krie_poisoned", (Change.CLEAR, POISONED, 1)),
    "expire": ("krie_change", "krie_poisoned", (Change.EXPIRE, POISONED, 1, LATE)),
    "set flags": ("krie_change", "krie_busy", (Change.FLAGS, 0)),
    "note a process": ("process_running_now", "process_running", (os.getpid(), 0)),
    "beat": ("guard_beat", "guard_heart", ()),
}
"""A program, the map in which it shows that it ran, and arguments by which that map changes."""


@pytest.fixture(scope="module")
def observing() -> Iterator[Attached]:
    with core_alone() as made:
        assert isinstance(made.beat, partial)
        yield made


@pytest.fixture
def busy(observing: Attached) -> Iterator[Attached]:
    """A process is poisoned, and a flag is set."""
    verdicts = observing.verdicts
    assert verdicts.poison(Verdict(Key(POISONED, 1), 0, LATE, 1, 1))
    verdicts.set_flags(Flags.CANARY)
    yield observing
    verdicts.set_flags(Flags(0))
    for each in list(verdicts.poisoned()):
        verdicts.clear(each)


@contextmanager
def opened_by_number(descriptor: int) -> Iterator[int]:
    """As anybody with the right opens it while nothing guards it."""
    number = int(descriptions(os.getpid())[descriptor]["prog_id"])
    opened = own_bpf.call(own_bpf.GET_PROG, number, 0, 0)
    assert opened >= 0
    try:
        yield opened
    finally:
        os.close(opened)


def run(program: int, arguments: tuple[int, ...], secret: int) -> None:
    given = (*arguments, *(0,) * (SECRET_ARGUMENT - len(arguments)), secret)
    assert own_bpf.run(program, *given) == 0


def contents(table: Map) -> list[tuple[bytes, bytes]]:
    return sorted(table.items())


def test_no_program_is_left_out(observing: Attached) -> None:
    programs = {name for name in observing.loaded.descriptors if name.startswith("program:")}
    attached = {f"program:{label}" for label in observing.programs()}
    assert programs - attached == {f"program:{program}" for program, *_ in ACTS.values()}


@pytest.mark.parametrize("act", ACTS)
def test_without_the_secret_it_changes_nothing(busy: Attached, act: str) -> None:
    name, table, arguments = ACTS[act]
    assert isinstance(busy.beat, partial)
    secret = int(busy.beat.keywords["secret"])
    before = contents(busy.maps[table])
    with opened_by_number(busy.loaded.descriptors[f"program:{name}"][0]) as program:
        for wrong in (0, SECRET, secret ^ 1, secret ^ 1 << 63):
            run(program, arguments, wrong)
            assert contents(busy.maps[table]) == before
        run(program, arguments, secret)
        assert contents(busy.maps[table]) != before


def test_without_the_secret_nobody_puts_memory_before_the_agent(observing: Attached) -> None:
    """The spare program is alike the one that the agent reads by; its secret goes to a process that reads, too."""
    assert observing.memory.spare is not None
    descriptor, _, secret = observing.memory.spare
    window, (text,) = observing.maps["krie_spare_window"], addresses({"_stext"})["_stext"]
    before = window.get(ONLY)
    with opened_by_number(descriptor) as program:
        for wrong in (0, SECRET, secret ^ 1, secret ^ 1 << 63):
            run(program, (text, 64), wrong)
            assert window.get(ONLY) == before
        run(program, (text, 64), secret)
        assert window.get(ONLY) != before
