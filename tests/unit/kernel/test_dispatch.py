"""Which programs run at which system call, by the maps that the dispatcher reads."""

from __future__ import annotations

import errno
import os
import struct
from types import SimpleNamespace

import pytest
from krie.errors import AttachError
from krie.kernel import dispatch
from krie.kernel.dispatch import LAYERS, SYSCALLS, Dispatcher
from krie.kernel.program import AttachType, Program
from krie.kernel.syscalls import numbers_of

PROGRAMS, WANTED = 3, 4


class Kernel:
    """Maps and links, as far as a dispatcher makes them."""

    def __init__(self) -> None:
        """Empty."""
        self.programs: dict[int, int] = {}
        self.wanted = bytes(SYSCALLS)
        self.layers: dict[int, int] = {}
        """Layer by descriptor of its dispatcher."""
        self.attached: list[int] = []

    def update(self, descriptor: int, key: bytes, value: bytes) -> None:
        if descriptor == WANTED:
            self.wanted = value
        else:
            self.programs[struct.unpack("=I", key)[0]] = struct.unpack("=I", value)[0]

    def delete(self, _descriptor: int, key: bytes) -> bool:
        return self.programs.pop(struct.unpack("=I", key)[0], None) is not None

    def load(self, layer: int) -> int:
        self.layers[100 + layer] = layer
        return 100 + layer

    def raw_tracepoint_open(self, program: int, name: str) -> int:
        assert name == "sys_enter"
        self.attached.append(program)
        return 200 + program

    def run(self, number: int, *, compat: bool = False) -> list[int]:
        """The programs that a system call runs, as bpf/dispatch.bpf.c finds them."""
        number &= ~0x40000000
        found = []
        for layer in (self.layers[each] for each in self.attached):
            slot = (layer * 2 + compat) * SYSCALLS + number
            if number < SYSCALLS and self.wanted[number] >> layer & 1 and slot in self.programs:
                found.append(self.programs[slot])
        return found


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    fake = SimpleNamespace(update=made.update, delete=made.delete, raw_tracepoint_open=made.raw_tracepoint_open)
    monkeypatch.setattr(dispatch, "bpf", fake)
    return made


@pytest.fixture
def dispatcher(kernel: Kernel) -> Dispatcher:
    return Dispatcher({"krie_syscalls": PROGRAMS, "krie_wanted": WANTED}, kernel.load)


def at(call: str, function: str = "f") -> Program:
    return Program(AttachType.SYSCALL, call, function)


@pytest.mark.parametrize(
    ("call", "native", "ia32"),
    [
        ("ptrace", (101, 521), (26,)),
        ("bpf", (321,), (357,)),
        ("setsockopt", (54, 541), (366,)),
        ("pidfd_send_signal", (424,), (424,)),
        ("socketcall", (), (102,)),
        ("read", (0,), (3,)),
        ("101", (101,), ()),
        ("467", (467,), (467,)),
        ("nobody_has_this", (), ()),
    ],
)
def test_numbers_of_system_calls(call: str, native: tuple[int, ...], ia32: tuple[int, ...]) -> None:
    found = numbers_of(call)
    assert (found.native, found.ia32) == (native, ia32)


def test_a_program_runs_at_its_call_by_every_caller_and_at_no_other(kernel: Kernel, dispatcher: Dispatcher) -> None:
    dispatcher.place(at("ptrace"), 7)
    assert kernel.run(101) == []  # nothing is attached yet
    assert list(dispatcher.attach()) == [("program:krie_dispatch", 100), ("link:krie_dispatch", 300)]
    assert [kernel.run(101), kernel.run(0x40000000 | 521), kernel.run(26, compat=True)] == [[7], [7], [7]]
    assert [kernel.run(26), kernel.run(101, compat=True), kernel.run(SYSCALLS + 101), kernel.run(0)] == [[]] * 4


def test_two_programs_at_one_call_both_run(kernel: Kernel, dispatcher: Dispatcher) -> None:
    dispatcher.place(at("bpf", "one"), 7)
    list(dispatcher.attach())
    dispatcher.place(at("bpf", "two"), 8)
    dispatcher.place(at("ptrace"), 9)
    assert [name for name, _ in dispatcher.attach()] == ["program:krie_dispatch.1", "link:krie_dispatch.1"]
    assert [kernel.run(321), kernel.run(357, compat=True), kernel.run(101)] == [[7, 8], [7, 8], [9]]
    assert list(dispatcher.attach()) == []


def test_a_program_that_is_removed_runs_no_longer_and_leaves_others_alone(
    kernel: Kernel, dispatcher: Dispatcher
) -> None:
    dispatcher.place(at("bpf"), 7)
    dispatcher.place(at("321", "native"), 8)
    dispatcher.place(at("socketcall"), 9)  # 102 of ia32, which is getuid for others
    dispatcher.place(at("102", "getuid"), 10)
    list(dispatcher.attach())
    dispatcher.remove(at("socketcall"))
    assert [kernel.run(102), kernel.run(102, compat=True)] == [[10], []]
    dispatcher.remove(at("102", "getuid"))
    assert kernel.wanted[102] == 0
    dispatcher.remove(at("bpf"))
    assert [kernel.run(321), kernel.run(357, compat=True)] == [[8], []]
    dispatcher.remove(at("ptrace"))  # which was never placed


def test_no_more_programs_than_layers(kernel: Kernel, dispatcher: Dispatcher) -> None:
    for number in range(LAYERS):
        dispatcher.place(at("bpf", f"f{number}"), number)
    with pytest.raises(AttachError, match=f"{LAYERS} programs are attached to it already") as refused:
        dispatcher.place(at("bpf", "one_too_many"), 9)
    assert refused.value.errno == errno.EBUSY
    list(dispatcher.attach())
    assert kernel.run(321) == list(range(LAYERS))


@pytest.mark.parametrize(("call", "why"), [("frobnicate", "no system call"), ("1024", "not below 1024")])
def test_calls_that_cannot_be_told_apart_are_refused(dispatcher: Dispatcher, call: str, why: str) -> None:
    with pytest.raises(AttachError, match=why):
        dispatcher.place(at(call), 7)


@pytest.mark.usefixtures("kernel")
def test_a_dispatcher_that_cannot_be_attached_says_so_and_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_program: int, _name: str) -> int:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr("krie.kernel.dispatch.bpf.raw_tracepoint_open", refuse)
    opened: list[int] = []

    def load(_layer: int) -> int:
        opened.append(os.open(os.devnull, os.O_RDONLY))
        return opened[-1]

    dispatcher = Dispatcher({"krie_syscalls": PROGRAMS, "krie_wanted": WANTED}, load)
    dispatcher.place(at("bpf"), 7)
    with pytest.raises(AttachError, match="krie_dispatch to sys_enter"):
        list(dispatcher.attach())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
