"""A hijacked kernel is caught where exploits end: seen where it is observed, and empty-handed where it is enforced."""

import contextlib
import errno
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import Line, RunningAgent, fired
from krie.testing.fixtures import JournalOfVictims
from krie.testing.module import TestModule, address_of
from krie.testing.patience import wait_for
from krie.testing.victims import Victims

from . import hijacks
from .hijacks import SHAPES

pytestmark = pytest.mark.needs("guest", "kprobe")
CHECK = "smep_smap.register_check"
ROUNDS = 3
Lacks = Callable[[str], NoReturn]


ATTACKS = [(name, end) for name in SHAPES for end in ("return", "escape")]


@pytest.fixture
def possible(lacks: Lacks) -> list[tuple[str, str]]:
    """The attacks that this processor does not prevent."""
    for feature in ("smep", "smap"):
        if hijacks.has(feature) and f"no_{feature}" not in os.environ.get("KRIE_MAY_LACK", "").split():
            lacks(f"no_{feature}: this processor prevents some attacks")
    return [(name, end) for name, end in ATTACKS if not hijacks.prevented(SHAPES[name])]


@pytest.mark.needs("test_module")
def test_what_is_observed_succeeds_and_is_told_once(
    journal: JournalOfVictims,
    victims: Victims,
    test_module: TestModule,
    attacker: Path,
    tmp_path: Path,
    possible: list[tuple[str, str]],
) -> None:
    for name, end in possible:
        folder = tmp_path / f"{name} {end}"
        folder.mkdir()
        done = victims.execute(hijacks.command(attacker, ROUNDS, folder, SHAPES[name], end))
        assert (name, end, done.stdout) == (name, end, f"0 {ROUNDS} {ROUNDS} 0\n")
        assert {each.stat().st_uid for each in folder.iterdir()} == {0}
    lines = iter(journal.exactly(CHECK, ROUNDS * len(possible), function="commit_creds", traced=False))
    for name, _ in possible:
        shape = SHAPES[name]
        for line in itertools.islice(lines, ROUNDS):
            event = line["event"]
            assert event["failed"] == sorted(shape.failed)
            assert event["place"] == ("trap" if shape.past else "entry")
            assert event["symbol"].startswith("commit_creds+0x")
            assert event["return_module"] == ("" if shape.past or "return_user" in shape.failed else "krie_test")
            assert (line["process"]["uid"], line["would"], line["done"]) == (65534, ["poison", "kill"], [])


def is_of_set_memory_ro(line: Line) -> bool:
    return bool(line["event"]["function"] == "set_memory_ro")


def told_or_moved(agent: RunningAgent, offset: int) -> bool:
    """What was disarmed at this offset."""
    disarmed = "[DISABLED]" in hijacks.places_in("set_memory_ro").get(offset, "")
    return not disarmed or bool(agent.lines("smep_smap.trap", is_of_set_memory_ro))


@pytest.mark.needs("test_module")
def test_a_disarmed_trap_is_told(agent: RunningAgent, test_module: TestModule) -> None:
    told: list[Line] = []
    for _ in range(10):  # it may be moved away before a scan comes
        places = hijacks.places_in("set_memory_ro")
        offset, line = max(places.items())
        with contextlib.ExitStack() as effects:
            try:
                effects.enter_context(test_module.effect("disarm", address_of("get_kprobe"), int(line.split()[0], 16)))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):  # it is gone, or went while it was looked at
                    raise
                time.sleep(1)
                continue
            assert "[DISABLED]" in hijacks.places_in("set_memory_ro").get(offset, "[DISABLED]")
            wait_for(partial(told_or_moved, agent, offset))
        agent.settle()
        if told := agent.lines("smep_smap.trap", is_of_set_memory_ro):
            break
    assert told, "no disarmed trap was told"
    assert told[0]["event"]["state"] == "disarmed"
    assert fired(told[0]) == [("SMEP005", "log")]


def test_traps_move(agent: RunningAgent) -> None:
    before = hijacks.places_in("prepare_kernel_cred")
    wait_for(
        lambda: hijacks.places_in("prepare_kernel_cred").keys() != before.keys(), lambda: f"still at {sorted(before)}"
    )


def test_functions_that_cannot_be_probed_are_told(agent: RunningAgent) -> None:
    told = {
        line["event"]["probe"]: line["event"]
        for line in agent.lines("krie.probe", lambda line: line["event"]["plugin"] == "smep_smap")
    }
    assert told["commit_creds"]["state"] == "alive"
    for name, event in told.items():
        assert (
            event["state"] in {"alive", "attached"}
            or "has no such function" in event["reason"]
            or ("ENOENT" in event["reason"] or "EINVAL" in event["reason"])
        ), (name, event)
    assert not [event for event in told.values() if event["blind"]]


def test_everyday_changes_of_credentials_are_checked_and_silent(
    agent: RunningAgent, journal: JournalOfVictims, victims: Victims
) -> None:
    def checks() -> int:
        return sum(line["event"]["checks"] for line in agent.lines("smep_smap.activity"))

    agent.wait("smep_smap.activity", count=len(agent.lines("smep_smap.activity")) + 1)
    before = checks()
    victims.run("for n in range(200): os.setresuid(n, n, 0); os.setresuid(0, 0, 0); os.access('/', os.R_OK)")
    agent.wait("smep_smap.activity", lambda _: checks() - before >= 400)
    journal.none(CHECK)


@pytest.fixture(scope="module")
def enforcing(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("enforcing")
    folder.chmod(0o700)
    with RunningAgent(
        folder,
        plugins={"smep_smap": {"mode": "enforce"}},
        enforcement={"guard": False, "breaker_processes": 10_000},
    ) as agent:
        yield agent


@pytest.mark.needs("test_module")
@pytest.mark.parametrize("rounds", [20, pytest.param(100, marks=pytest.mark.long)])
def test_what_is_enforced_ends_empty_handed(
    enforcing: RunningAgent,
    test_module: TestModule,
    attacker: Path,
    tmp_path: Path,
    possible: list[tuple[str, str]],
    rounds: int,
) -> None:
    """By a system call's normal end no further instruction runs; by an iretq they do, and no file is made."""
    tmp_path.chmod(0o755)
    for name, end in possible:
        shape = SHAPES[name]
        before = len(enforcing.lines(CHECK))
        killed, ran, made, other = hijacks.attack(hijacks.command(attacker, rounds, tmp_path, shape, end))
        print(f"{name}, {end}: {killed} of {rounds} killed, {ran} ran on in user mode, {made} files", file=sys.stderr)
        assert (name, end, killed, made, other) == (name, end, rounds, 0, 0)
        assert ran == 0 if end == "return" else ran >= rounds // 2  # an interrupt may come first, and end it
        lines = enforcing.wait(CHECK, count=before + rounds)[before:]
        assert {(tuple(line["event"]["failed"]), tuple(line["done"])) for line in lines} == {
            (tuple(sorted(shape.failed)), ("poisoned", "killed"))
        }
        assert {line["decision"]["tier"] for line in lines} == {"kernel"}
    assert not list(tmp_path.iterdir())
