"""Programs that roam, without a kernel; copies of one function; symbols."""

import os
import struct
import tracemalloc
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import krie.ground
import pytest
from krie.errors import AttachError
from krie.kernel import attach
from krie.kernel.attach import attach_somewhere
from krie.kernel.copies import copy_for
from krie.kernel.symbols import Symbols, addresses, functions
from krie.probe import AttachType, Program
from krie.roaming import Roaming, Trap

TRAP = Program(AttachType.KPROBE, "commit_creds", "p_check", argument=3, roaming=32)
OTHER = replace(TRAP, target="override_creds", argument=4, busy=True)
JUMP = 20
BEGIN = 0xFFFFFFFF81000040


class Kernel:
    """Takes kprobes at some offsets, and counts what is attached."""

    def __init__(self, boundaries: set[int]) -> None:
        self.boundaries = boundaries
        self.tried: list[int] = []
        self.error = 84  # EILSEQ

    def __call__(self, symbol: int, place: int, descriptor: int) -> int:
        assert not symbol
        offset = place - BEGIN
        self.tried.append(offset)
        if offset not in self.boundaries:
            raise OSError(self.error, os.strerror(self.error))
        return os.open("/dev/null", os.O_RDONLY)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], Kernel]:
    def make(boundaries: set[int]) -> Kernel:
        made = Kernel(boundaries)
        monkeypatch.setattr(attach, "_kprobe_event", made)
        return made

    return make


AVOIDED = {JUMP}


def test_offsets_are_tried_until_one_is_an_instruction(kernel: Callable[[set[int]], Kernel]) -> None:
    boundaries = {0, 4, 9, 12, 20, 40}
    tried = kernel(boundaries)
    found = set()
    for _ in range(200):
        offset, link = attach_somewhere(TRAP, 7, range(BEGIN, BEGIN + 400), AVOIDED)
        os.close(link)
        found.add(offset)
    assert found == {9, 12}  # behind the entry, within the first 32 bytes, and no jump
    assert set(tried.tried) <= set(range(5, 32))


def test_a_trap_stays_within_its_function(kernel: Callable[[set[int]], Kernel]) -> None:
    tried = kernel({JUMP})
    with pytest.raises(AttachError, match="no instruction in it can be probed"):
        attach_somewhere(TRAP, 7, range(BEGIN, BEGIN + 16), AVOIDED)
    assert max(tried.tried) == 15
    with pytest.raises(AttachError, match="no such function, or hides where it is"):
        attach_somewhere(TRAP, 7, range(0), AVOIDED)


def test_what_the_kernel_refuses_otherwise_is_said(kernel: Callable[[set[int]], Kernel]) -> None:
    kernel(set()).error = 1
    with pytest.raises(AttachError, match=r"commit_creds\+\d+: EPERM"):
        attach_somewhere(TRAP, 7, range(BEGIN, BEGIN + 400), AVOIDED)


class Attach:
    """Attaches at 10, 11, 12 ...; what it hands out can be asked whether it is closed."""

    def __init__(self) -> None:
        self.offset = 9
        self.links: list[int] = []
        self.refuses: set[str] = set()
        self.error = 1
        self.avoided: list[Container[int]] = []

    def __call__(self, program: Program, descriptor: int, code: range, avoided: Container[int]) -> tuple[int, int]:
        assert len(code) == len(program.target)
        self.avoided.append(avoided)
        if program.target in self.refuses:
            raise AttachError("attaching", self.error)
        self.offset += 1
        self.links.append(os.open("/dev/null", os.O_RDONLY))
        return self.offset, self.links[-1]

    def open(self) -> set[int]:
        """A number that was closed is soon given to the next one."""
        return {each for each in self.links if Path(f"/proc/self/fd/{each}").exists()}


@pytest.fixture
def jumps() -> set[int]:
    """Where the kernel has put a jump."""
    return set()


class Ground:
    """Lets move unless there is an obstacle."""

    def __init__(self) -> None:
        self.why = ""
        self.held: dict[int, int] = {}
        self.busy = False

    def settled(self) -> bool:
        return not self.busy

    def obstacle(self) -> str:
        return self.why

    def hold(self, descriptor: int, place: int = 0) -> None:
        self.held[descriptor] = place

    def release(self, descriptor: int) -> None:
        del self.held[descriptor]
        os.close(descriptor)


@pytest.fixture
def ground() -> Ground:
    return Ground()


@pytest.fixture
def made(jumps: set[int], ground: Ground) -> Iterator[tuple[Roaming, Attach]]:
    attach_ = Attach()
    descriptors = {"program:p_check.3": (3,), "program:p_check.4": (4,)}
    code_of = lambda names: {each: range(len(each)) for each in names}  # noqa: E731
    programs = [("p.one", TRAP), ("q.two", OTHER)]
    kernel = cast("krie.ground.Ground", ground)
    roaming = Roaming(programs, descriptors, code_of, jumps.__contains__, kernel, attach_)
    yield roaming, attach_
    roaming.close()
    roaming.close()
    assert not attach_.open()


def test_each_is_moved_and_then_detached_from_where_it_was(made: tuple[Roaming, Attach]) -> None:
    roaming, attach_ = made
    assert roaming.traps("p") == ()
    assert roaming.move() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 10),)
    assert str(roaming.traps("q")[0]) == "override_creds+0xb"
    assert roaming.move() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 12),)
    assert len(attach_.open()) == 2


def test_nothing_moves_while_the_kernel_would_leave_breakpoints(made: tuple[Roaming, Attach], ground: Ground) -> None:
    roaming, attach_ = made
    roaming.move()
    assert ground.held == dict(zip(attach_.links, (10, 11), strict=True))
    ground.why = "it lies"
    assert roaming.move() == {"p.one": "it lies", "q.two": "it lies"}
    assert roaming.draw_again() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 10),)
    assert len(attach_.links) == 2
    ground.why = ""
    assert roaming.draw_again() == {}
    assert roaming.traps("q") == (Trap("q.two", "override_creds", 12),)


def test_nothing_is_attached_near_what_has_not_left_yet(made: tuple[Roaming, Attach], ground: Ground) -> None:
    roaming, attach_ = made
    roaming.move()
    ground.busy = True
    assert roaming.move() == {}
    assert "not out of the kernel's text" in roaming.move()["p.one"]
    assert roaming.draw_again() == {}
    assert len(attach_.links) == 2
    ground.busy = False
    assert roaming.draw_again() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 12),)
    assert roaming.move() == {}
    assert len(attach_.links) == 6


def test_all_are_attached_before_one_is_released(
    made: tuple[Roaming, Attach], ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    roaming, attach_ = made
    roaming.move()
    attached = []

    def release(link: int) -> None:
        attached.append(len(attach_.links))
        Ground.release(ground, link)

    monkeypatch.setattr(ground, "release", release)
    roaming.move()
    assert attached == [4, 4]


def test_nothing_is_attached_within_reach_of_a_jump(made: tuple[Roaming, Attach]) -> None:
    """Nor is anything whose own jump would reach another one."""
    roaming, attach_ = made
    roaming.move()  # to 10
    attach_.offset = 15
    roaming.move()  # to 16
    assert [each in attach_.avoided[2] for each in (5, 6, 10, 14, 15)] == [False, True, True, True, False]


def test_what_has_no_other_place_stays_without_a_word(made: tuple[Roaming, Attach]) -> None:
    roaming, attach_ = made
    attach_.refuses, attach_.error = {"commit_creds"}, 2
    assert roaming.move().keys() == {"p.one"}  # it was nowhere
    attach_.refuses = set()
    roaming.move()
    attach_.refuses = {"commit_creds"}
    assert roaming.move() == {}
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 11),)


def test_what_cannot_move_stays(made: tuple[Roaming, Attach]) -> None:
    roaming, attach_ = made
    attach_.refuses = {"override_creds"}
    assert roaming.move().keys() == {"q.two"}
    assert roaming.traps("q") == ()  # it was nowhere
    attach_.refuses = {"commit_creds"}
    assert "EPERM" in roaming.move()["p.one"]
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 10),)
    assert len(roaming.traps("q")) == 1


def test_busy_places_without_a_jump_are_drawn_again(made: tuple[Roaming, Attach], jumps: set[int]) -> None:
    roaming, attach_ = made
    jumps.add(13)
    roaming.move()  # to 10 and 11
    for at in (12, 13, 13):
        assert roaming.draw_again() == {}
        assert roaming.traps("q") == (Trap("q.two", "override_creds", at),)
    assert roaming.traps("p") == (Trap("p.one", "commit_creds", 10),)
    assert len(attach_.open()) == 2
    jumps.clear()  # another kprobe lies within it
    roaming.draw_again()
    assert roaming.traps("q") == (Trap("q.two", "override_creds", 14),)
    jumps.add(14)
    attach_.refuses = {"override_creds"}
    assert "EPERM" in roaming.move()["q.two"]
    assert roaming.draw_again() == {}  # it stays, and jumps


def test_where_the_kernel_puts_no_jumps_drawing_ends(made: tuple[Roaming, Attach]) -> None:
    roaming, attach_ = made
    roaming.move()
    for _ in range(20):
        roaming.draw_again()
    drawn = len(attach_.links)
    assert drawn < 20
    roaming.draw_again()
    assert len(attach_.links) == drawn
    roaming.move()
    roaming.draw_again()
    assert len(attach_.links) == drawn + 3


def instruction(code: int, registers: int, immediate: int) -> bytes:
    return struct.pack("<BBhI", code, registers, 0, immediate)


def test_a_copy_knows_which_one_it_is() -> None:
    self_ = instruction(0x18, 3, 0x73656C66) + instruction(0, 0, 0x6B726965)
    map_ = instruction(0x18, 0x11, 0x73656C66) + instruction(
        0, 0, 0x6B726965
    )  # a map's descriptor, whatever its number
    rest = instruction(0xB7, 0, 1) + instruction(0x95, 0, 0)
    copied = copy_for(5, 0x123, self_ + map_ + rest + self_)
    mine = instruction(0x18, 3, 5) + instruction(0, 0, 0x123)
    assert copied == mine + map_ + rest + mine


LISTED = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000040 T commit_creds
ffffffff81000040 t __alias_of_it
ffffffff81000100 t twice
ffffffff81000200 t twice
ffffffff82000000 D init_cred
ffffffffc0000000 t helper\t[krie_test]
ffffffffc0000020 t bpf_prog_1_x\t[bpf]
ffffffffa0000000 t helper\t[lower]
ffffffffa0000010 d data\t[lower]
"""


def test_symbols_and_addresses(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text(LISTED)
    symbols = Symbols(["init_cred", "_stext", "nothing"], place)
    names = ("init_cred", "_stext", "nothing")
    assert [symbols.address(each) for each in names] == [0xFFFFFFFF82000000, 0xFFFFFFFF81000000, 0]
    code = functions(["commit_creds", "twice", "nothing", "helper"], place)
    assert (code["commit_creds"].start, len(code["commit_creds"])) == (BEGIN, 0xC0)
    assert [len(code[each]) for each in ("twice", "nothing", "helper")] == [0, 0, 0]
    assert str(symbols.find(0xFFFFFFFF81000103)) == "twice+0x3"
    assert str(symbols.find(0xFFFFFFFFC0000021)) == "bpf_prog_1_x+0x1 [bpf]"
    assert symbols.find(0xFFFFFFFFC0000001) is not None
    assert symbols.find(0x1000) is None
    assert str(symbols.find(0xFFFFFFFF81000041)) == "commit_creds+0x1"
    assert symbols.find(0xFFFFFFFFD0000000) is None
    assert str(symbols.find(0xFFFFFFFFA0000011)) == "helper+0x11 [lower]"


def test_addresses_by_name(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text(LISTED)
    names = ("twice", "helper", "krie_test:helper", "lower:data", "init_cred", "nothing", "init", "ice")
    assert addresses(names, place) == {
        "twice": (0xFFFFFFFF81000100, 0xFFFFFFFF81000200),
        "krie_test:helper": (0xFFFFFFFFC0000000,),
        "lower:data": (0xFFFFFFFFA0000010,),
        "init_cred": (0xFFFFFFFF82000000,),
    }


def test_symbols_take_a_small_part_of_what_the_kernel_lists(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text("".join(f"{0xFFFFFFFF81000000 + 16 * n:016x} t some_function_{n}\n" for n in range(20_000)))
    tracemalloc.start()
    symbols = Symbols((), place)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(symbols) == 20_000
    assert held < 20_000 * 45
    assert most < 20_000 * 150


def test_hidden_addresses_are_no_addresses(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text("".join(f"{0:016x} {line[17:]}\n" for line in LISTED.splitlines()))
    symbols = Symbols(["init_cred"], place)
    assert (len(symbols), symbols.address("init_cred")) == (0, 0)
    assert len(functions(["commit_creds"], place)["commit_creds"]) == 0
