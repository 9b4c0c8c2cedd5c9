"""Programs that roam, without a kernel."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import krie.agent.ground
import pytest
from krie.agent.roaming import Roaming
from krie.errors import AttachError, KernelError
from krie.kernel.attach import attach_somewhere
from krie.kernel.keeper import TRAP as TRAP_KIND
from krie.kernel.program import AttachType, Program, Trap
from krie.kernel.traps import Traps, suits

TRAP = Program(AttachType.KPROBE, "commit_creds", "p_check", argument=3, roaming=32)
OTHER = replace(TRAP, target="override_creds", argument=4)
BEGIN = 0xFFFFFFFF81000040
CALL, BRANCH, FAR_BRANCH, JUMP, BREAKPOINT, MOVE = b"\xe8", b"\x74", b"\x0f\x85", b"\xeb", b"\xcc", b"\x48"


class Kernel:
    """Has code, and takes kprobes at some offsets."""

    def __init__(self, code: dict[int, bytes], boundaries: set[int] | None = None, size: int = 400) -> None:
        self.boundaries = set(code) if boundaries is None else boundaries
        self.tried: list[int] = []
        self.error = errno.EILSEQ
        self.text = bytearray(MOVE * size)
        for offset, opcode in code.items():
            self.text[offset : offset + len(opcode)] = opcode

    def read(self, address: int, size: int) -> bytes:
        if address != BEGIN:
            raise KernelError("reading kernel memory", errno.EFAULT)
        return bytes(self.text[:size])

    def places(self, code: range) -> list[int]:
        return Traps(-1, 0, self.read, range(0)).places(code)

    def attach(self, address: int, descriptor: int) -> int:
        assert descriptor == 7
        offset = address - BEGIN
        self.tried.append(offset)
        if offset not in self.boundaries:
            raise OSError(self.error, os.strerror(self.error))
        return offset

    def draw(self, size: int = 400) -> int:
        traps = cast("Traps", self)
        offset, link = attach_somewhere(traps, TRAP, 7, range(BEGIN, BEGIN + size))
        assert link == offset
        return offset


def test_only_what_no_jump_of_the_kernels_can_cover_is_drawn() -> None:
    code = {4: CALL, 9: CALL, 14: MOVE, 16: BRANCH, 18: BREAKPOINT, 23: FAR_BRANCH, 30: JUMP, 31: CALL, 40: CALL}
    kernel = Kernel(code, {4, 9, 14, 16, 18, 23, 30, 40})  # 31 is in the middle of an instruction
    found = {kernel.draw() for _ in range(300)}
    assert found == {9, 16, 23, 30}  # behind the entry, within the first 32 bytes
    assert set(kernel.tried) == {9, 16, 23, 30, 31}


@pytest.mark.parametrize("error", [errno.EILSEQ, errno.EINVAL, errno.EEXIST])
def test_where_none_is_free_the_next_one_behind_is_taken(error: int) -> None:
    kernel = Kernel({9: CALL, 50: CALL, 60: CALL}, {50, 60})
    kernel.error = error
    assert {kernel.draw() for _ in range(20)} == {50}


def test_a_trap_stays_within_its_function() -> None:
    kernel = Kernel({9: CALL, 20: CALL}, {20})
    with pytest.raises(AttachError, match="no call or jump in it is free"):
        kernel.draw(16)
    assert kernel.tried == [9]
    with pytest.raises(AttachError, match="no such function, or hides where it is"):
        kernel.draw(0)


def test_what_the_kernel_refuses_otherwise_is_said() -> None:
    kernel = Kernel({9: CALL}, set())
    kernel.error = errno.EPERM
    with pytest.raises(AttachError, match=r"commit_creds\+9: EPERM"):
        kernel.draw()
    with pytest.raises(AttachError, match="code cannot be read"):
        attach_somewhere(cast("Traps", kernel), TRAP, 7, range(BEGIN + 1, BEGIN + 40))


@pytest.mark.parametrize("opcode", [*range(256)])
def test_what_suits(opcode: int) -> None:
    """As can_boost() of Linux 5.10 to 6.12 has it, leaving out what could be no whole opcode."""
    branches = {*range(0x70, 0x80), *range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB}
    assert suits(bytes((opcode, 0)), 0) is (opcode in branches)
    assert suits(bytes((0x0F, opcode)), 0) is (0x80 <= opcode < 0x90)
    assert not suits(b"\x0f", 0)


class Attach:
    """Attaches at 10, 11, 12 ...; what it hands out can be asked whether it is closed."""

    def __init__(self) -> None:
        self.offset = 9
        self.links: list[int] = []
        self.refuses: set[str] = set()
        self.error = 1

    def __call__(self, program: Program, descriptor: int, code: range) -> tuple[int, int]:
        assert len(code) == len(program.target)
        if program.target in self.refuses:
            raise AttachError("attaching", self.error)
        self.offset += 1
        self.links.append(os.open("/dev/null", os.O_RDONLY))
        return self.offset, self.links[-1]

    def open(self) -> set[int]:
        """A number that was closed is soon given to the next one."""
        return {each for each in self.links if Path(f"/proc/self/fd/{each}").exists()}


class Ground:
    """Lets move unless there is an obstacle."""

    def __init__(self) -> None:
        self.why = ""
        self.held: dict[int, tuple[int, str]] = {}

    def obstacle(self) -> str:
        return self.why

    def hold(self, descriptor: int, place: int, kind: str) -> None:
        self.held[descriptor] = (place, kind)

    def release(self, descriptor: int) -> None:
        del self.held[descriptor]
        os.close(descriptor)


@pytest.fixture
def ground() -> Ground:
    return Ground()


@pytest.fixture
def made(ground: Ground) -> Iterator[tuple[Roaming, Attach]]:
    attach_ = Attach()
    descriptors = {"program:p_check.3": (3,), "program:p_check.4": (4,)}
    code_of = lambda names: {each: range(len(each)) for each in names}  # noqa: E731
    programs = [("p.one", TRAP), ("q.two", OTHER)]
    roaming = Roaming(programs, descriptors, code_of, cast("krie.agent.ground.Ground", ground), attach_)
    yield roaming, attach_
    roaming.close()
    roaming.close()
    assert not attach_.open()


def test_each_is_moved_and_then_detached_from_where_it_was(
    made: tuple[Roaming, Attach], ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    roaming, attach_ = made
    assert roaming.traps("p") == ()
    assert roaming.move() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 10),)
    assert str(roaming.traps("q")[0]) == "override_creds+0xb"
    attached = []

    def release(link: int) -> None:
        attached.append(len(attach_.links))
        Ground.release(ground, link)

    monkeypatch.setattr(ground, "release", release)
    assert roaming.move() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 12),)
    assert attached == [3, 4]
    assert len(attach_.open()) == 2


def test_nothing_moves_while_the_kernel_would_leave_breakpoints(made: tuple[Roaming, Attach], ground: Ground) -> None:
    roaming, attach_ = made
    roaming.move()
    assert ground.held == dict(zip(attach_.links, ((10, TRAP_KIND), (11, TRAP_KIND)), strict=True))
    ground.why = "it lies"
    assert roaming.move() == {"p.one": "it lies", "q.two": "it lies"}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 10),)
    assert len(attach_.links) == 2
    ground.why = ""
    assert roaming.move() == {}
    assert roaming.traps("q") == (Trap("q.two", "override_creds", 13),)


def test_what_has_no_other_place_stays_without_a_word(made: tuple[Roaming, Attach]) -> None:
    roaming, attach_ = made
    attach_.refuses, attach_.error = {"commit_creds"}, 2
    assert roaming.move().keys() == {"p.one"}  # it was nowhere
    assert roaming.move() == {}  # and still is
    attach_.refuses = set()
    roaming.move()
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 12),)
    attach_.refuses = {"commit_creds"}
    assert roaming.move() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 12),)


def test_what_cannot_move_stays(made: tuple[Roaming, Attach]) -> None:
    roaming, attach_ = made
    attach_.refuses = {"override_creds"}
    assert roaming.move().keys() == {"q.two"}
    assert roaming.traps("q") == ()  # it was nowhere
    attach_.refuses = {"commit_creds"}
    assert "EPERM" in roaming.move()["p.one"]
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 10),)
    assert len(roaming.traps("q")) == 1
