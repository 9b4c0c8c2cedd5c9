"""The process that compares the kernel's code: what is told of what it finds, and what happens when it ends."""

import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from krie import Child, ChildEnded
from krie.kernel.modules import LoadedModule
from krie.plugins.syscall_table import code_watch
from krie.plugins.syscall_table.areas import Stored
from krie.plugins.syscall_table.code_child import Report
from krie.plugins.syscall_table.code_watch import CodeWatch
from krie.plugins.syscall_table.entered import Change
from krie.plugins.syscall_table.entry import Entry
from krie.plugins.syscall_table.events import Listed
from krie.plugins.syscall_table.names import LIST, Difference

from .compared_code import FUNCTION, Memory

FOUND = Difference("text", FUNCTION, 2, b"\x90\x90", b"\x41\x42", b"1", "function+0x0", "", 0, "", "")


class Process:
    """What compares, as the agent sees it."""

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.sent: list[Any] = []
        self.socket, self.other = socket.socketpair()

    def send(self, value: object, _timeout_s: float | None = None) -> None:
        self.sent.append(value)

    def receive(self, _timeout_s: float | None = None) -> Any:
        if not self.answers:
            raise TimeoutError
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self, _grace_s: float = 0.0) -> str:
        self.socket.close()
        self.other.close()
        return "was ended by SIGKILL"


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    made: list[Process] = []

    def start(*_: object) -> Child:
        made.append(Process())
        return cast("Child", made[-1])

    monkeypatch.setattr(code_watch, "forked", start)
    return made


@pytest.fixture
def watch(memory: Memory, processes: list[Process], file: int) -> Iterator[CodeWatch]:
    memory.kernel.spare = (file, file, 5)
    made = CodeWatch(memory.kernel)
    yield made
    made.close()


def looked(*found: Difference) -> Report:
    """A look at all that is compared here."""
    return Report(100, found, areas=((FUNCTION, 50),))


def told(watch: CodeWatch, process: Process, *answers: object) -> list[Any]:
    process.answers.extend(answers)
    return list(watch.poll())


def test_each_difference_is_told_once_and_so_is_its_end(watch: CodeWatch, processes: list[Process]) -> None:
    (process,) = processes
    assert (watch.reference, watch.compared()) == ("none", 0)
    stored = Stored("image", "/boot/vmlinuz", (), (0, 0), ())
    assert told(watch, process, stored, Report(100)) == []
    assert (watch.reference, watch.compared(), watch.compared(), watch.unknown) == ("image", 100, 0, ())
    (event,) = told(watch, process, Report(100, (FOUND,), 3))
    assert (event.address, event.was, event.now, event.others) == (FUNCTION, b"\x90\x90", b"\x41\x42", 3)
    assert (event.reference, event.restored) == ("image", False)
    assert told(watch, process, Report(100, (FOUND,))) == []
    changed = replace(FOUND, digest=b"2", now=b"\x43\x44")
    (event,) = told(watch, process, Report(100, (changed,)))
    assert event.now == b"\x43\x44"
    assert told(watch, process, Report(0, unknown=("code: EFAULT",))) == []  # nothing was looked at
    assert watch.unknown == ("code: EFAULT",)
    (event,) = told(watch, process, looked())
    assert (event.restored, event.was, event.now, event.target) == (True, b"\x43\x44", b"\x90\x90", 0)
    assert told(watch, process, Report(100)) == []


def test_changes_of_lists_are_told(watch: CodeWatch, processes: list[Process]) -> None:
    """Also where no code was compared."""
    (process,) = processes
    changes = [Change(Entry("die_chain", 0x1000, FUNCTION), came, "hook [evil]", "evil") for came in (True, False)]
    events = told(watch, process, Report(0, changes=tuple(changes)))
    assert all(isinstance(each, Listed) for each in events)
    assert [(each.list, each.address, each.function, each.owner, each.came) for each in events] == [
        ("die_chain", 0x1000, FUNCTION, "evil", True),
        ("die_chain", 0x1000, FUNCTION, "evil", False),
    ]


def test_a_difference_that_grew_is_told_and_not_called_restored(watch: CodeWatch, processes: list[Process]) -> None:
    (process,) = processes
    assert len(told(watch, process, Report(100, (FOUND,)))) == 1
    (event,) = told(watch, process, Report(100, (replace(FOUND, length=3),)))
    assert (event.length, event.restored) == (3, False)


def test_what_too_many_differences_hide_is_not_called_restored(watch: CodeWatch, processes: list[Process]) -> None:
    (process,) = processes
    assert len(told(watch, process, Report(100, (FOUND,)))) == 1
    (event,) = told(watch, process, Report(100, (replace(FOUND, address=FUNCTION + 64),), 70))
    assert not event.restored


@pytest.mark.parametrize(("section", "restored"), [("module", 0), ("bpf", 0), (LIST, 1)])
def test_what_went_with_its_code_was_not_restored(
    watch: CodeWatch, processes: list[Process], section: str, restored: int
) -> None:
    """Entries of lists lie in variables, which are compared with nothing."""
    (process,) = processes
    assert len(told(watch, process, looked(replace(FOUND, section=section)))) == 1
    elsewhere = Report(100, areas=((FUNCTION - 50, 50), (FUNCTION + 1, 50)))
    assert len(told(watch, process, elsewhere)) == restored


def test_what_came_later_is_restored_however_often_one_looks(
    watch: CodeWatch, processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    (process,) = processes
    monkeypatch.setattr(code_watch, "loaded_modules", lambda: [LoadedModule(b"late", 4096, "Live", FUNCTION)])
    assert len(told(watch, process, looked(replace(FOUND, module="late")))) == 1
    assert [each.restored for each in told(watch, process, looked())] == [True]


def test_looks_are_asked_for_one_at_a_time(watch: CodeWatch, processes: list[Process]) -> None:
    (process,) = processes
    assert process.sent == [None]  # there is no reference yet
    watch.ask()
    watch.ask()
    assert len(process.sent) == 1  # the first look is on its way
    assert told(watch, process, Report(100)) == []
    assert len(process.sent) == 2
    assert told(watch, process, Report(100)) == []
    assert len(process.sent) == 2


def test_modules_that_come_or_go_are_looked_at_soon(
    watch: CodeWatch, processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not each at once: a look reads all symbols again."""
    (process,) = processes
    assert told(watch, process, Report(100)) == []
    late = [LoadedModule(b"late", 4096, "Live", FUNCTION)]
    monkeypatch.setattr(code_watch, "loaded_modules", lambda: late)
    clock = [watch._asked + 4]
    monkeypatch.setattr(code_watch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert told(watch, process) == []
    assert watch.idle
    clock[0] += 2
    assert told(watch, process) == []
    assert len(process.sent) == 2
    clock[0] += 10
    assert told(watch, process, Report(100)) == []
    assert watch.idle  # they are the same


def test_a_process_that_ends_is_replaced_and_goes_on_with_the_reference(
    watch: CodeWatch, processes: list[Process], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored = Stored("start", "", (), (0, 0), (), (), "no image")
    assert told(watch, processes[0], stored, Report(100, (FOUND,)), ChildEnded())[0].now == b"\x41\x42"
    assert watch.unknown == ("code: the process that compares it was ended by SIGKILL",)
    assert "with what it was at the agent's start: no image" in caplog.text
    assert "was ended by SIGKILL" in caplog.text
    assert list(watch.poll()) == []
    assert len(processes) == 1
    monkeypatch.setattr(code_watch, "_AGAIN_S", -1)
    assert list(watch.poll()) == []
    assert processes[1].sent == [stored]
    assert told(watch, processes[1], Report(100, (FOUND,))) == []  # it was told
