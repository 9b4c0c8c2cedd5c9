"""Who stands behind a process: what an attacker makes many of, and what a wrong rule hits many of."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from krie import Event
from krie.events.event import CONTAINER, INFLUENCED
from krie.events.identity import Identity, Key
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.processes.principal import Principal, Principals
from krie.processes.process import NOTHING, UNKNOWN_LINEAGE
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork
from krie.processes.table import ProcessTable
from krie.procfs import Procfs
from krie.testing.events import build

SINCE = 10**18


def test_a_container_pays_for_what_is_no_users_and_else_root() -> None:
    """However deep its processes go: a new PID namespace for each of them gives it no more room."""
    outside = build(ProcessExit, pid_ns=5)
    inside = [build(ProcessExit, pid_ns=each, container_ns=6, context=CONTAINER) for each in (6, 7, 8)]
    of_a_user_namespace = build(ProcessExit, pid_ns=9, context=CONTAINER)  # its owner pays, if that is not root
    for principal in (Principal("lineage", Key(7, 1)), Principal("program", Identity(1, 2, 3))):
        assert [principal.payer(each) for each in (outside, of_a_user_namespace, *inside)] == [0, 0, 6, 6, 6]
    assert {Principal("user", 1000).payer(each) for each in (outside, of_a_user_namespace, *inside)} == {1000}


@dataclass
class Machine:
    """Processes that fork, exec and end, and the table that is told."""

    table: ProcessTable
    ctimes: dict[str, int]
    tgids: int = 1

    def __post_init__(self) -> None:
        self.running: dict[int, dict[str, Any]] = {}
        self.init = self.start(0)

    def start(self, parent: int) -> int:
        """A process that was made by `parent`."""
        of = self.running.get(parent, {"uid": 0, "exe_ino": 1, "context": 0})
        if parent:
            child = {"child_tgid": self.tgids, "child_start_time": self.tgids * 10}
            made_by = {"child_parent_tgid": parent, "child_parent_start_time": parent * 10}
            self.table.feed(build(ProcessFork, **self.header(parent), **child, **made_by))
        self.running[self.tgids] = {**of, "parent_tgid": parent, "parent_start_time": parent * 10}
        self.tgids += 1
        return self.tgids - 1

    def header(self, tgid: int) -> dict[str, Any]:
        known = self.running[tgid]
        return {"tgid": tgid, "start_time": tgid * 10, "exe_dev": 8, "exe_generation": 0, **known, "euid": known["uid"]}

    def exec(self, tgid: int, ino: int) -> int:
        self.running[tgid]["exe_ino"] = ino
        raw = f"{ino}\0bin\0".encode()
        self.table.feed(build(ProcessExec, **self.header(tgid), components=raw.ljust(768, b"\0"), length=len(raw)))
        return tgid

    def end(self, tgid: int) -> None:
        self.table.feed(build(ProcessExit, **self.header(tgid)))
        for each in self.running.values():
            if each["parent_tgid"] == tgid:
                each |= {"parent_tgid": 1, "parent_start_time": 10}

    def run(self, parent: int, ino: int, **changes: int) -> int:
        tgid = self.start(parent)
        self.running[tgid] |= changes
        return self.exec(tgid, ino)

    def act(self, tgid: int) -> Event:
        return build(Ptrace, **self.header(tgid))

    def principals(self) -> Principals:
        def stat(path: str) -> os.stat_result:
            if (ctime := self.ctimes.get(path)) is None:
                raise FileNotFoundError(path)
            return SimpleNamespace(st_ino=int(Path(path).name), st_ctime_ns=ctime)  # type: ignore[return-value]

        return Principals(self.table, SINCE, stat)


@pytest.fixture
def machine() -> Machine:
    old = {f"/bin/{ino}": SINCE - 1 for ino in range(100, 200)}
    made = Machine(
        ProcessTable(100_000, lambda _: NOTHING), {**old, **{f"/bin/{ino}": SINCE for ino in range(200, 300)}}
    )
    made.exec(made.init, 100)
    return made


def counted(machine: Machine, *tgids: int) -> set[Principal]:
    of = machine.principals()
    return {of(machine.act(each)) for each in tgids}


def test_a_user_is_one_by_whatever_way_he_came(machine: Machine) -> None:
    sshd, cron = machine.run(machine.init, 110), machine.run(machine.init, 111)
    logins = [machine.run(parent, 120, uid=1000) for parent in (sshd, sshd, cron)]
    assert counted(machine, *logins) == {Principal("user", 1000)}
    assert len(counted(machine, *logins, machine.run(sshd, 120, uid=1001), sshd, cron)) == 4


def test_forks_and_double_forks_of_a_user_are_one(machine: Machine) -> None:
    shell = machine.run(machine.init, 110, uid=1000)
    found = []
    for _ in range(50):
        between = machine.start(shell)
        found.append(machine.start(between))
        machine.end(between)
    assert counted(machine, *found) == {Principal("user", 1000)}


def test_who_became_root_stays_the_user_that_he_was(machine: Machine) -> None:
    shell = machine.run(machine.init, 110, uid=1000)
    by_exploit = [machine.start(shell) for _ in range(30)]
    for number, each in enumerate(by_exploit):
        machine.running[each]["uid"] = number  # written into his credentials
    set_uid = [machine.run(shell, 120 + number, uid=0) for number in range(30)]
    assert counted(machine, *by_exploit, *set_uid) == {Principal("user", 1000)}


def test_a_container_is_one_whatever_users_its_root_takes(machine: Machine) -> None:
    runtime = machine.run(machine.init, 110)
    first = machine.run(runtime, 120, context=CONTAINER)
    others = [machine.run(first, 130 + number, uid=number) for number in range(30)]
    assert len(counted(machine, first, *others)) == 1


def test_copies_of_programs_count_by_their_lineage(machine: Machine) -> None:
    service = machine.run(machine.init, 110)
    copies = [machine.run(service, 200 + number) for number in range(30)]
    between = machine.start(service)
    orphans = [machine.run(between, 240 + number) for number in range(30)]
    machine.end(between)
    (found,) = counted(machine, *copies, *orphans)
    assert found == Principal("lineage", Key(service, service * 10))


def test_whose_forks_were_lost_are_one(machine: Machine) -> None:
    """A user can fork faster than all of it is told, and then become root by an exploit."""
    shell = machine.run(machine.init, 110, uid=1000)
    found = []
    for number in range(30):
        machine.running[machine.tgids] = {**machine.running[shell], "uid": 0, "exe_ino": 120 + number}
        machine.running[machine.tgids] |= {"parent_tgid": (1, 99_999)[number % 2], "parent_start_time": 10}
        found.append(machine.tgids)
        machine.tgids += 1
    assert counted(machine, *found) == {Principal("lineage", UNKNOWN_LINEAGE)}
    children = [machine.run(found[0], 150 + number) for number in range(9)]
    assert counted(machine, *children) == {Principal("lineage", UNKNOWN_LINEAGE)}


def test_programs_that_cannot_be_looked_at_count_by_their_lineage(machine: Machine) -> None:
    service = machine.run(machine.init, 110)
    assert {each.kind for each in counted(machine, *(machine.run(service, 500 + each) for each in range(9)))} == {
        "lineage"
    }


def test_programs_that_somebody_influences_count_by_their_lineage(machine: Machine) -> None:
    """One shell of root's has them all do what it wants."""
    shell = machine.run(machine.init, 110)
    programs = [machine.run(shell, 111 + number) for number in range(30)]
    assert len(counted(machine, *programs)) == 30
    for each in programs:
        machine.running[each]["context"] = INFLUENCED & -INFLUENCED
    assert counted(machine, *programs) == {Principal("lineage", Key(shell, shell * 10))}


def test_a_wrong_rule_hits_many_programs_and_services(machine: Machine) -> None:
    programs = [machine.run(machine.init, 110 + number) for number in range(30)]
    assert len(counted(machine, *programs)) == 30
    made_since = [machine.run(machine.init, 200 + number) for number in range(30)]
    assert len(counted(machine, *made_since)) == 30  # children of tgid 1, which only root can have made


def test_processes_of_before_the_agent_have_an_ancestry(machine: Machine, tmp_path: Path) -> None:
    def process(tgid: int, parent: int, uid: int, *in_namespaces: int) -> None:
        folder = tmp_path / str(tgid)
        folder.mkdir()
        (folder / "stat").write_text(f"{tgid} (x) S {parent} {' '.join(['0'] * 17)} {tgid * 10} 0")
        spid = " ".join(map(str, (tgid, *in_namespaces)))
        (folder / "status").write_text(f"Uid:\t{uid} {uid} 0 0\nGid:\t0 0 0 0\nNSpid:\t{spid}\n")

    table = ProcessTable(1000, lambda _: NOTHING)
    for each in ((30, 20, 0), (1, 0, 0), (20, 10, 1000), (10, 1, 0), (40, 10, 0, 1), (50, 40, 7, 2), (60, 10, 0)):
        process(*each)
    table.seed(Procfs.at(tmp_path))
    of = Principals(table, SINCE)

    def of_tgid(tgid: int) -> Principal:
        return of(build(Ptrace, tgid=tgid, start_time=tgid * 10 * 10_000_000, uid=0, euid=0, gid=0))

    service = Key(10, 10 * 10 * 10_000_000)
    assert of_tgid(30) == of_tgid(20) == Principal("user", 1000)
    assert of_tgid(60) == of_tgid(50) == of_tgid(40) == Principal("lineage", service)
