"""The process table: who did it, also when it is gone."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie import Event
from krie.events.event import CONTAINER, INFLUENCE
from krie.events.identity import Identity, Key
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.processes.proc import TICK_NS, is_there, processes_in
from krie.processes.process import COMM_BYTES, NOTHING
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork
from krie.processes.table import ProcessTable, path_of
from krie.procfs import Procfs
from krie.testing.events import build

SHELL, TOOL = Identity(8, 100, 1), Identity(8, 200, 1)


def exec_of(path: str, **fields: Any) -> ProcessExec:
    components = b"".join(name.encode() + b"\0" for name in reversed(path.strip("/").split("/")))
    return build(ProcessExec, components=components.ljust(768, b"\0"), length=len(components), **fields)


def header(identity: Identity, **fields: int) -> dict[str, int]:
    return {"exe_dev": identity.dev, "exe_ino": identity.ino, "exe_generation": identity.generation, **fields}


def table(limit: int = 1000) -> ProcessTable:
    made = ProcessTable(limit, lambda _: NOTHING, lambda _: True)
    made.feed(exec_of("/usr/bin/bash", **header(SHELL, tgid=10, start_time=5)))
    return made


def fork(tgid: int, start_time: int, **more: int) -> ProcessFork:
    fields = {**header(SHELL, tgid=10, start_time=5), **more}
    child = {"child_tgid": tgid, "child_start_time": start_time, "child_parent_tgid": 10, "child_parent_start_time": 5}
    return build(ProcessFork, **fields, **child)


def action(tgid: int, start_time: int, identity: Identity) -> Event:
    return build(Ptrace, **header(identity, tgid=tgid, start_time=start_time, parent_tgid=10, parent_start_time=5))


def test_processes_whose_ends_were_lost_push_out_nobody_who_lives() -> None:
    """Who forks faster than the agent reads has records of ends lost, and could make it forget whom rules protect."""
    living = {Key(10, 5), Key(11, 6)}
    processes = ProcessTable(100, lambda _: NOTHING, living.__contains__)
    for tgid, start_time in living:
        processes.feed(exec_of("/usr/bin/sshd", **header(TOOL, tgid=tgid, start_time=start_time)))
    for tgid in range(1000, 3000):
        processes.feed(fork(tgid, 7))
    assert len(processes) <= 113
    assert [each for each in living if processes.find(each) is None] == []
    assert processes.evicted == 0


def test_where_all_live_the_table_has_a_limit_too() -> None:
    processes = table(limit=100)
    for tgid in range(1000, 1200):
        processes.feed(fork(tgid, 7))
    assert len(processes) <= 113
    assert processes.evicted > 0


def test_a_path_is_put_together_from_its_components() -> None:
    assert path_of(exec_of("/usr/bin/true")) == ("/usr/bin/true", True)
    assert path_of(exec_of("/memfd:x", deleted=True)) == ("/memfd:x (deleted)", True)
    assert path_of(exec_of("/a/b", truncated=True)) == (".../a/b", False)
    assert path_of(build(ProcessExec, length=4_000_000_000)) != ("", True)


def test_of_a_path_that_the_kernel_cut_proc_has_the_rest() -> None:
    """While the process lives, and runs the same."""
    own = os.getpid()
    cut = {"truncated": True, **header(TOOL, tgid=own, start_time=50)}
    processes = ProcessTable(10, lambda _: TOOL)
    processes.feed(exec_of("/deep/tool", **cut))
    found = processes.find(Key(own, 50))
    assert found is not None
    assert (found.exe, found.exe_known) == (os.readlink("/proc/self/exe"), True)
    for another, tgid in ((SHELL, own), (TOOL, 1 << 30)):  # it runs something else by now; it is gone
        processes = ProcessTable(10, lambda _, another=another: another)  # type: ignore[misc]
        processes.feed(exec_of("/deep/tool", **{**cut, "tgid": tgid}))
        found = processes.find(Key(tgid, 50))
        assert found is not None
        assert (found.exe, found.exe_known) == (".../deep/tool", False)


def test_bytes_of_a_path_are_kept_apart() -> None:
    raw = b"a\\x\xff\0"
    event = build(ProcessExec, components=raw.ljust(768, b"\0"), length=len(raw))
    assert path_of(event) == ("/a\\\\x\\xff", True)


def test_a_forked_child_runs_its_parents_executable_until_exec() -> None:
    processes = table()
    processes.feed(fork(11, 50))
    child = processes.actor(action(11, 50, SHELL))
    assert (child.exe, child.exe_known, child.parent) == ("/usr/bin/bash", True, Key(10, 5))
    processes.feed(exec_of("/opt/tool", **header(TOOL, tgid=11, start_time=50, parent_tgid=10, parent_start_time=5)))
    assert processes.actor(action(11, 50, TOOL)).exe == "/opt/tool"
    assert [each.exe for each in processes.ancestors(processes.actor(action(11, 50, TOOL)))] == ["/usr/bin/bash"]


def test_a_process_that_is_gone_is_still_known() -> None:
    processes = table()
    processes.feed(fork(11, 50))
    processes.feed(exec_of("/opt/tool", **header(TOOL, tgid=11, start_time=50)))
    processes.feed(build(ProcessExit, tgid=11, start_time=50))
    assert processes.actor(action(11, 50, TOOL)).exe == "/opt/tool"


def test_a_reused_number_is_another_process() -> None:
    processes = table()
    processes.feed(exec_of("/opt/tool", **header(TOOL, tgid=11, start_time=50)))
    found = processes.find(Key(11, 51))
    assert found is None
    assert processes.actor(action(11, 51, TOOL)).exe == "?"


def test_a_lost_exec_record_is_noticed_and_never_believed() -> None:
    processes = table()
    processes.feed(fork(11, 50))
    stranger = processes.actor(action(11, 50, TOOL))
    assert (stranger.exe, stranger.exe_known, stranger.identity) == ("?", False, TOOL)
    assert processes.contradicted == 1


def test_a_header_that_names_no_executable_contradicts_nothing() -> None:
    processes = table()
    ending = processes.actor(action(10, 5, NOTHING))  # it has let go of its memory already
    assert (ending.exe, ending.exe_known, ending.identity) == ("/usr/bin/bash", True, SHELL)
    assert processes.contradicted == 0


def test_a_kernel_thread_that_runs_a_program_contradicts_nothing() -> None:
    processes = table()
    processes.actor(action(12, 60, NOTHING))  # a helper, before its exec
    after = processes.actor(action(12, 60, TOOL))
    assert (after.identity, processes.contradicted) == (TOOL, 0)


TRACED, ENVIRONMENT, UNKNOWN = (
    next(bit for bit, word in INFLUENCE.items() if word == each) for each in ("traced", "environment", "unknown")
)


def made(processes: ProcessTable, tgid: int = 11) -> int:
    found = processes.find(Key(tgid, 50))
    assert found is not None
    return found.made


def test_what_influenced_its_makers_stays_known() -> None:
    processes = table()
    processes.feed(fork(11, 50, context=TRACED | CONTAINER))
    assert made(processes) == TRACED
    for _ in range(2):
        processes.feed(exec_of("/opt/tool", influence=ENVIRONMENT | 1, **header(TOOL, tgid=11, start_time=50)))
        assert made(processes) == TRACED | ENVIRONMENT
    assert processes.actor(replace(action(11, 50, TOOL), uid=7)).made == TRACED | ENVIRONMENT


def test_a_child_has_makers_of_its_own_and_a_brother_the_same() -> None:
    processes = table()
    processes.feed(fork(11, 50, context=TRACED))
    child = {"child_tgid": 12, "child_start_time": 50}
    maker = header(SHELL, tgid=11, start_time=50)
    processes.feed(build(ProcessFork, child_parent_tgid=11, child_parent_start_time=50, **child, **maker))
    assert made(processes, 12) == 0
    processes.feed(build(ProcessFork, child_parent_tgid=10, child_parent_start_time=5, **child, **maker))
    assert made(processes, 12) == TRACED


def test_makers_that_no_record_told_of_are_unknown() -> None:
    processes = table()
    processes.feed(exec_of("/opt/tool", **header(TOOL, tgid=11, start_time=50)))
    assert made(processes) == UNKNOWN
    assert processes.actor(action(12, 50, TOOL)).made == UNKNOWN
    processes.feed(fork(13, 50))
    assert processes.actor(action(13, 50, TOOL)).made == UNKNOWN  # it executed something meanwhile


def test_changed_credentials_are_taken_over() -> None:
    processes = table()
    event = replace(action(10, 5, SHELL), uid=7, euid=0)
    processes.actor(event)
    found = processes.find(Key(10, 5))
    assert found is not None
    assert (found.uid, found.euid) == (7, 0)


def test_it_forgets_the_ended_first_and_counts_the_others() -> None:
    processes = table(limit=3)
    processes.feed(fork(11, 50))
    processes.feed(fork(12, 51))
    processes.feed(build(ProcessExit, tgid=11, start_time=50))
    processes.feed(fork(13, 52))
    assert processes.find(Key(11, 50)) is None
    assert (processes.find(Key(10, 5)) is not None, processes.evicted, len(processes)) == (True, 0, 3)
    processes.feed(fork(14, 53))
    assert (processes.evicted, len(processes)) == (1, 3)


def test_a_name_in_proc_is_as_long_as_records_have_it(tmp_path: Path) -> None:
    """The kernel shows longer ones of its workers there: a rule would find one name or the other."""
    (tmp_path / "5").mkdir()
    fields = b"S 2 " + b"0 " * 17 + b"7 0"
    (tmp_path / "5/stat").write_bytes(b"5 (kworker/u8:3-events_unbound) " + fields)
    (tmp_path / "5/status").write_bytes(b"Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
    ((process, parent),) = processes_in(Procfs.at(tmp_path), lambda _: NOTHING)
    assert (process.comm, parent) == ("kworker/u8:3-ev", 2)
    assert len(process.comm) == COMM_BYTES


def test_seeding_reads_proc_and_meets_exact_start_times() -> None:
    own = Identity(1, 2, 3)
    processes = ProcessTable(100_000, lambda _: own)
    processes.seed()
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) * tick
    exact = Key(os.getpid(), started + tick // 3)
    found = processes.find(exact)
    assert found is not None
    assert found.exe == str(Path("/proc/self/exe").readlink())
    assert next(processes.ancestors(found)).key.tgid == os.getppid()
    assert processes.find(Key(os.getpid(), started + tick)) is None
    event = build(Ptrace, **header(own, tgid=exact.tgid, start_time=exact.start_time))
    assert processes.actor(event).key == exact
    before = len(processes)
    processes.actor(event)
    assert len(processes) == before


@pytest.mark.parametrize("file", ["stat", "status"])
@pytest.mark.parametrize("text", [b"", b"\0\xff", b"5 (a", b"5 (a) S 2", b"5 (a) " + b"x " * 50, b"Uid:\nGid:\n"])
def test_what_is_no_file_of_the_kernels_is_left_out_and_told(
    file: str, text: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5/stat").write_bytes(b"5 (a) S 2 " + b"0 " * 17 + b"7 0")
    (tmp_path / "5/status").write_bytes(b"Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
    proc = Procfs.at(tmp_path)
    assert is_there(Key(5, 7 * TICK_NS), proc)
    assert not is_there(Key(5, 8 * TICK_NS), proc)
    assert not is_there(Key(6, 7 * TICK_NS), proc)
    (tmp_path / "5" / file).write_bytes(text)
    assert list(processes_in(proc, lambda _: NOTHING)) == []
    assert "process 5 cannot be read" in caplog.text
    assert is_there(Key(5, 7 * TICK_NS), proc)
