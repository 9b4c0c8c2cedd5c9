"""Who has objects of the agent's that nobody but the agent should have."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from krie.enforce.holders import Holder, Holders, words
from krie.enforce.self_defence import Held
from krie.kernel.bpf_listing import UsedObjects
from krie.procfs import Procfs

STATE, CHANGE, HOOK = Held("map", 7, "krie_agent"), Held("prog", 8, "krie_change"), Held("prog", 9, "sample_hook")
OWN = (STATE, CHANGE, HOOK)
STRANGER, CHILD = 4711, 4712


class Machine:
    """Processes with one open file each; how many hold what; and which objects use others."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.counts = {3: [1], 4: [1], 5: [4]}
        self.uses: list[UsedObjects] = []
        self.left_out: set[tuple[str, int]] = set()
        self.process(os.getpid(), 1, "map_id:\t7\n")
        self.process(CHILD, os.getpid(), "map_id:\t7\n")
        (proc / "self").mkdir()

    def process(self, tgid: int, parent: int, description: str) -> None:
        (self.proc / f"{tgid}/fdinfo").mkdir(parents=True)
        (self.proc / f"{tgid}/fdinfo/3").write_text(f"pos:\t0\n{description}")
        (self.proc / f"{tgid}/stat").write_text(f"{tgid} (a) name) S {parent} 1 1")

    def count(self, descriptor: int) -> int:
        counts = self.counts[descriptor]
        return counts.pop(0) if len(counts) > 1 else counts[0]

    def listed(self, leave_out: Iterable[tuple[str, int]]) -> list[UsedObjects]:
        self.left_out = set(leave_out)
        return self.uses

    def holders(self) -> Holders:
        return Holders(self.count, lambda: zip((3, 4, 5), OWN, strict=True), self.listed, Procfs.at(self.proc))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_agent_and_its_children_are_nobody_else(machine: Machine) -> None:
    """And what attaches a program holds it, too."""
    assert machine.holders().look(OWN) == []
    assert machine.left_out == {("map", 7), ("prog", 8), ("prog", 9)}


def test_who_has_a_descriptor_is_named_once(machine: Machine) -> None:
    machine.counts[3] = [2]
    machine.process(STRANGER, 1, "map_id:\t7\n")
    machine.process(STRANGER + 9, 1, "map_id:\t77\n")
    holders = machine.holders()
    (found,) = holders.look(OWN)
    assert found == Holder("map", 7, "krie_agent", "descriptor", STRANGER)
    assert words(found) == "process 4711 holds map krie_agent of the agent's"
    assert holders.look(OWN) == []


def test_a_pin_or_what_is_on_its_way_over_a_socket_is_counted(machine: Machine) -> None:
    machine.counts[4] = [2]
    (found,) = machine.holders().look(OWN)
    assert found == Holder("prog", 8, "krie_change", "descriptor")
    assert words(found) == "somebody holds program krie_change of the agent's"


def test_who_uses_it_at_the_moment_is_not_taken_for_a_holder(machine: Machine) -> None:
    machine.counts[4] = [2, 2, 1]
    assert machine.holders().look(OWN) == []


def test_others_programs_and_maps_that_use_it_are_named(machine: Machine) -> None:
    machine.uses = [
        UsedObjects("prog", 20, frozenset({("map", 7), ("map", 70)})),
        UsedObjects("map", 21, frozenset({("prog", 8)})),
        UsedObjects("map", 22, frozenset({("prog", 7)})),
    ]
    holders = machine.holders()
    assert [words(each) for each in holders.look(OWN)] == [
        "program 20 holds map krie_agent of the agent's",
        "map 21 holds program krie_change of the agent's",
    ]
    machine.uses = []
    assert holders.look(OWN) == []
