"""What programs of the agent's own answer about itself, and about the kernel's memory."""

import errno
from dataclasses import replace

import pytest
from krie import KernelError
from krie.events.core_maps import File, Inspected
from krie.events.event import Event
from krie.events.identity import Identity
from krie.events.layout import Layout
from krie.kernel.inspection import Inspector
from krie.kernel.memory import KernelMemory
from krie.testing.fakes import FakeMap

from ..kernel_side import AGENT, own_header

OWN = replace(own_header(), comm="krie", uid=0, gid=0)
HEADER = Layout(Event)


class Kernel:
    """Runs `krie_inspect`: the fields that are read from the task, and what the kernel's helpers say."""

    def __init__(self, **read_wrong: object) -> None:
        fields = {name: getattr(OWN, name) for name in (each.name for each in HEADER.data_fields)}
        self._header = Event(**{**fields, **read_wrong})
        self.answer = FakeMap("krie_inspected", 3, value_bytes=HEADER.size + Inspected.size())
        self.asked: list[int] = []

    def run(self, program: int, arguments: tuple[int, ...]) -> None:
        assert program == 9
        (descriptor,) = arguments
        self.asked.append(descriptor)
        told = Inspected(AGENT << 32 | AGENT, 0 << 32 | 0, File(100 + descriptor % 100, 8, 3), 2, "krie")
        self.answer.set(bytes(4), HEADER.encode(self._header) + told.encode())


def inspector(kernel: Kernel) -> Inspector:
    return Inspector(9, kernel.answer, kernel.run)


def test_the_agents_own_header() -> None:
    assert inspector(Kernel()).agent().tgid == AGENT


@pytest.mark.parametrize("wrong", [{"tgid": 5}, {"tid": 5}, {"uid": 5}, {"gid": 5}, {"comm": "other"}])
def test_a_field_that_is_read_at_the_wrong_place_ends_the_start(wrong: dict[str, object]) -> None:
    with pytest.raises(KernelError, match="fields say .*, the kernel says"):
        inspector(Kernel(**wrong)).agent()


def test_files_are_identified_by_descriptor() -> None:
    kernel = Kernel()
    assert inspector(kernel).identify(7) == Identity(8, 107, 3)
    assert kernel.asked == [7]


def test_holders_are_counted_by_descriptor() -> None:
    kernel = Kernel()
    assert inspector(kernel).holders(7) == 2
    assert kernel.asked == [7]


class Memory:
    """Some readable bytes of the kernel's, of which one run copies 16 into the window."""

    BEGIN = 0xFFFFFFFF81000000
    MOST = 16

    def __init__(self, content: bytes) -> None:
        self.content, self.window = content, bytearray(self.MOST)
        self.runs: list[tuple[int, ...]] = []

    def run(self, program: int, arguments: tuple[int, ...]) -> int:
        address, size = arguments
        self.runs.append(arguments)
        start = address - self.BEGIN
        if not (0 <= start <= start + size <= len(self.content) and size <= self.MOST):
            return -errno.EFAULT
        self.window[:] = self.content[start : start + size].ljust(self.MOST, b"\xee")
        return 0


def memory(content: bytes) -> KernelMemory:
    made = Memory(content)
    return KernelMemory(1, made.window, made.run)


def test_pieces_end_where_their_largest_size_ends() -> None:
    made = Memory(bytes(range(64)))
    read = KernelMemory(1, made.window, made.run).pieces(Memory.BEGIN + 10, 30)
    assert [(offset, len(piece)) for offset, piece in read] == [(0, 6), (6, 16), (22, 8)]
    assert made.runs == [(Memory.BEGIN + 10, 6), (Memory.BEGIN + 16, 16), (Memory.BEGIN + 32, 8)]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 32, 40])
def test_memory_is_read_in_pieces_and_no_byte_further(size: int) -> None:
    content = bytes(range(size))
    assert memory(content).read(Memory.BEGIN, size) == content


def test_memory_that_cannot_be_read_is_said_with_its_place() -> None:
    with pytest.raises(KernelError, match="reading kernel memory at 0xffffffff81000010: EFAULT"):
        memory(bytes(16)).read(Memory.BEGIN, 32)


def test_numbers() -> None:
    made = memory(b"\xe9\1\0\0\0\0\0\0\xcc")
    assert made.number(Memory.BEGIN + 1, 4) == 1
    assert made.number(Memory.BEGIN) == 0x1E9
