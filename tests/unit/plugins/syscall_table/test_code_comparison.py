"""Comparing the kernel's code again and again: what is told, when, and what is only on its way."""

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from krie import Child, ChildEnded, KernelError, KernelMemory, Symbols
from krie.plugins.syscall_table import areas, code_watch
from krie.plugins.syscall_table.areas import Stored, areas_of, store, trapped, without_tracers
from krie.plugins.syscall_table.code_child import Report
from krie.plugins.syscall_table.code_watch import CodeWatch
from krie.plugins.syscall_table.comparison import Area, Comparison
from krie.plugins.syscall_table.events import Code as CodeEvent
from krie.plugins.syscall_table.explain import Code, Lists
from krie.plugins.syscall_table.image import NOP5
from krie.plugins.syscall_table.names import Difference
from krie.plugins.syscall_table.reference import NoReferenceError
from krie.plugins.syscall_table.runs import Ranges
from krie.plugins.syscall_table.tables import Tables

TEXT = range(0xFFFFFFFF81000000, 0xFFFFFFFF81004000)
MODULE = range(0xFFFFFFFFC0000000, 0xFFFFFFFFC0001000)
LABEL, FUNCTION, CALLER, PROBED = (TEXT.start + each for each in (0x108, 0x1800, 0x2000, 0x2FFE))
TABLES = Tables({LABEL: LABEL + 0x40})
NOTHING = Lists(frozenset(), frozenset())


class Memory:
    """A kernel's, that a test writes to."""

    def __init__(self) -> None:
        self.parts = {TEXT: bytearray(b"\x90" * len(TEXT)), MODULE: bytearray(b"\x90" * len(MODULE))}
        self.window = bytearray(8192)
        self.kernel = KernelMemory(0, self.window, self.run)

    def run(self, _program: int, arguments: tuple[int, ...]) -> int:
        address, size = arguments
        for part, content in self.parts.items():
            if address in part and address + size <= part.stop:
                self.window[:size] = content[address - part.start : address - part.start + size]
                return 0
        return -errno.EFAULT

    def write(self, address: int, content: bytes) -> None:
        for part, there in self.parts.items():
            if address in part:
                there[address - part.start : address - part.start + len(content)] = content


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    place = tmp_path / "kallsyms"
    place.write_text(f"{TEXT.start:016x} T first\n{FUNCTION:016x} T function\n{CALLER:016x} T ftrace_caller\n")
    return Symbols(place=place)


def no_bytes(_address: int, _size: int) -> bytes:
    return b""


def comparison(
    memory: Memory,
    symbols: Symbols,
    lists: Callable[[], Lists] = lambda: NOTHING,
    sleep: Callable[[float], None] = lambda _: None,
    traps: frozenset[int] = frozenset(),
) -> Comparison:
    content = bytes(memory.parts[TEXT])
    parts = [
        Area("text", TEXT.start, content, traps=set(traps)),
        Area("module", MODULE.start, bytes(memory.parts[MODULE]), near=True),
    ]
    code = Code(TEXT, no_bytes, no_bytes, symbols, TABLES, ())
    return Comparison(memory.kernel, parts, code, lists, lambda _: lists(), sleep)


def test_what_nothing_explains_is_found_with_what_it_was(memory: Memory, symbols: Symbols) -> None:
    compared = comparison(memory, symbols)
    assert compared.look() == []
    assert compared.compared == len(TEXT) + len(MODULE)
    memory.write(PROBED, b"\x41\x42\x43\x44")  # over the end of a page
    memory.write(LABEL, b"\xe9" + struct.pack("<i", 0x40 - 5))
    (wrong,) = compared.look()
    assert (wrong.section, wrong.address, wrong.was, wrong.now) == ("text", PROBED, b"\x90" * 4, b"\x41\x42\x43\x44")
    memory.write(PROBED, b"\x90" * 4)
    assert compared.look() == []


def test_parts_of_one_act_are_one_and_others_are_not(memory: Memory, symbols: Symbols) -> None:
    compared = comparison(memory, symbols)
    memory.write(FUNCTION, b"\x41\x90\x90\x42")
    memory.write(FUNCTION + 0x40, b"\x43")
    first, second = compared.look()
    assert (first.address, first.now, first.was) == (FUNCTION, b"\x41\x90\x90\x42", b"\x90" * 4)
    assert (second.address, second.now) == (FUNCTION + 0x40, b"\x43")


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_what_is_gone_or_another_at_the_next_look_is_not_told(memory: Memory, symbols: Symbols, turn: int) -> None:
    turns = iter(range(10))
    contents = iter((b"\x90", b"\x42"))

    def sleep(_seconds: float) -> None:
        if next(turns) == turn:
            memory.write(FUNCTION, next(contents))

    compared = comparison(memory, symbols, sleep=sleep)
    memory.write(FUNCTION, b"\x41")
    assert compared.look() == []


def test_what_the_kernel_lists_a_moment_later_is_explained(memory: Memory, symbols: Symbols) -> None:
    lists = deque([NOTHING, Lists(frozenset({FUNCTION}), frozenset())])

    def read() -> Lists:
        return lists.popleft() if len(lists) > 1 else lists[0]

    compared = comparison(memory, symbols, read)
    memory.write(FUNCTION, b"\xcc")
    assert compared.look() == []


def test_what_a_kprobe_covered_is_learnt_when_it_has_gone(memory: Memory, symbols: Symbols) -> None:
    memory.write(FUNCTION, b"\xcc")
    compared = comparison(memory, symbols, traps=frozenset({FUNCTION}))
    memory.write(FUNCTION, b"\x55")
    assert compared.look() == []
    memory.write(FUNCTION, b"\x56")
    (wrong,) = compared.look()
    assert (wrong.was, wrong.now) == (b"\x55", b"\x56")
    memory.write(FUNCTION + 1, b"\x57")  # beside it nothing is
    (wrong,) = compared.look()
    assert wrong.was == b"\x55\x90"


def test_a_module_may_go_meanwhile_and_the_kernel_may_not(memory: Memory, symbols: Symbols) -> None:
    compared = comparison(memory, symbols)
    del memory.parts[MODULE]
    memory.write(FUNCTION, b"\x41")
    assert len(compared.look()) == 1
    del memory.parts[TEXT]
    with pytest.raises(KernelError):
        compared.look()


def test_a_modules_jumps_may_become_nops_and_nothing_else(memory: Memory, symbols: Symbols) -> None:
    site = MODULE.start + 0x10
    inside = b"\xe9" + struct.pack("<i", 0x20)
    memory.write(site, NOP5 + b"\xeb\x10")
    compared = comparison(memory, symbols)
    for legal in (inside, b"\xe8" + struct.pack("<i", (FUNCTION - site - 5))):
        memory.write(site, legal)
        assert compared.look() == []
    memory.write(site + 5, b"\x66\x90")
    assert compared.look() == []
    memory.write(site + 5, b"\xeb\x12")  # another jump
    assert len(compared.look()) == 1
    memory.write(site + 5, b"\xeb\x10")
    memory.write(site, inside)
    again = comparison(memory, symbols)
    memory.write(site, b"\xe9" + struct.pack("<i", 0x30))
    assert len(again.look()) == 1
    for other in (b"\xe9" + struct.pack("<i", 0x2000), b"\xe8" + struct.pack("<i", 0x20), b"\x41" * 5):
        memory.write(site, other)
        assert len(compared.look()) == 1


def test_locks_come_with_a_second_processor(memory: Memory, symbols: Symbols) -> None:
    memory.write(FUNCTION, b"\x3e\x90\x90\x3e")
    compared = comparison(memory, symbols)
    compared._kernel = replace(compared._kernel, locks=Ranges([(FUNCTION, 1)]).end)
    memory.write(FUNCTION, b"\xf0")
    assert compared.look() == []
    memory.write(FUNCTION + 3, b"\xf0")
    assert [each.address for each in compared.look()] == [FUNCTION + 3]


def test_a_reference_of_what_is_there_is_without_tracers(memory: Memory, symbols: Symbols) -> None:
    call = b"\xe8" + struct.pack("<i", CALLER - FUNCTION - 5)
    memory.write(FUNCTION, call)
    memory.write(FUNCTION + 0x20, b"\xcc")
    memory.write(FUNCTION + 0x30, b"\xe9")
    content = bytearray(memory.parts[TEXT])
    code = Code(TEXT, no_bytes, no_bytes, symbols, TABLES, (NOTHING,))
    without_tracers(content, TEXT.start, [FUNCTION, FUNCTION + 0x20], code)
    place = FUNCTION - TEXT.start
    assert content[place : place + 5] == NOP5
    lists = Lists(frozenset({FUNCTION, FUNCTION + 0x20, FUNCTION + 0x30, MODULE.start}))
    whole = Ranges([(TEXT.start, len(TEXT))])
    expected = {FUNCTION + 0x20, *range(FUNCTION + 0x30, FUNCTION + 0x35)}
    assert trapped(content, TEXT.start, lists, whole) == expected
    assert trapped(content, TEXT.start, lists, Ranges([(FUNCTION + 0x20, 1)])) == {FUNCTION + 0x20}


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = os.memfd_create("reference", os.MFD_ALLOW_SEALING)
    yield descriptor
    os.close(descriptor)


def test_a_stored_reference_cannot_be_changed(
    memory: Memory, symbols: Symbols, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_release: str) -> Any:
        raise NoReferenceError("no image")

    monkeypatch.setattr(areas, "find", none)
    monkeypatch.setattr(areas, "_BETWEEN_S", 0)
    monkeypatch.setattr(areas, "read_lists", lambda _: NOTHING)
    memory.write(FUNCTION, b"\x41")
    known = {"_stext": TEXT.start, "_etext": TEXT.stop, "__start___jump_table": 1}
    made = store(file, memory.kernel, b"", symbols, lambda name: known.get(name, 0), "6")
    assert (made.reference, made.parts) == ("start", (("text", TEXT.start, len(TEXT), 0),))
    assert (made.unknown, made.why) == (("code before the agent's start", "read-only data"), "no image")
    ((text,), locks) = areas_of(made, file)
    assert text.before(FUNCTION - 1, 3) == b"\x90\x41\x90"
    assert list(locks) == []
    with pytest.raises(OSError, match="Operation not permitted"):
        os.pwrite(file, b"\x42", 0)
    without = store(file, memory.kernel, b"", symbols, lambda _: 0, "6")
    assert (without.reference, without.parts, without.unknown) == ("none", (), ("code",))


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


def told(watch: CodeWatch, process: Process, *answers: object) -> list[CodeEvent]:
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
    (event,) = told(watch, process, Report(100))
    assert (event.restored, event.was, event.now, event.target) == (True, b"\x43\x44", b"\x90\x90", 0)
    assert told(watch, process, Report(100)) == []


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


def test_a_module_that_was_unloaded_was_not_restored(watch: CodeWatch, processes: list[Process]) -> None:
    (process,) = processes
    assert len(told(watch, process, Report(100, (replace(FOUND, module="evil"),)))) == 1
    assert told(watch, process, Report(100)) == []


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
