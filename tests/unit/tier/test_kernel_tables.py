"""How one generation of the kernel's tables takes over from the one before."""

import os
import struct

import pytest
from krie import KernelError
from krie.events.identity import Identity
from krie.events.table_layout import EMPTY, SIZE
from krie.events.wire import NAME_BYTES
from krie.kernel import bpf
from krie.tier import kernel_tables
from krie.tier.domain import Numbers
from krie.tier.kernel_tables import KernelTables

from ..kernel_side import KernelSide

KINDS = (0x103, 0x201)
TABLE = b"\1" * SIZE
FILE = Identity(8, 100, 3)


def tables(kernel: KernelSide) -> KernelTables:
    return kernel.tables(kernel.maps, KINDS)


def name(text: bytes) -> bytes:
    return text.ljust(NAME_BYTES, b"\0")


def test_a_kind_without_a_table_has_an_empty_one() -> None:
    kernel = KernelSide()
    tables(kernel).install({0x201: TABLE}, Numbers())
    assert kernel.made == [(5000, [EMPTY, TABLE])]


def test_only_the_map_in_force_is_the_agents_own() -> None:
    kernel = KernelSide()
    made = tables(kernel)
    for number in (5000, 5001, 5002):
        made.install({}, Numbers())
        assert kernel.owned() == {number}


def test_numbers_are_there_before_the_tables_that_use_them_and_go_after_them() -> None:
    kernel = KernelSide()
    made = tables(kernel)
    made.install({}, Numbers({b"old": 1, b"kept": 2}, {FILE: 1}))
    kernel.log.clear()
    made.install({}, Numbers({b"kept": 2, b"new": 3}, {Identity(8, 200, 0): 2}))
    steps = [(what, where) for what, where, _ in kernel.log]
    took_over = steps.index(("set", "krie_tables"))
    assert set(steps[:took_over]) == {
        ("set", "krie_names"),
        ("set", "krie_programs"),
        ("set", "containment_own_maps"),
    }
    assert set(steps[took_over + 1 :]) == {
        ("remove", "krie_names"),
        ("remove", "krie_programs"),
        ("remove", "containment_own_maps"),
    }
    assert kernel.content["krie_names"] == {name(b"kept"): struct.pack("=I", 2), name(b"new"): struct.pack("=I", 3)}
    assert kernel.content["krie_programs"] == {struct.pack("=QII", 200, 8, 0): struct.pack("=I", 2)}


def test_executables_are_known_by_inode_device_and_generation() -> None:
    kernel = KernelSide()
    tables(kernel).install({}, Numbers(files={FILE: 7}))
    assert kernel.content["krie_programs"] == {struct.pack("=QII", 100, 8, 3): struct.pack("=I", 7)}


def test_what_was_in_force_stays_so_where_the_kernel_has_no_room() -> None:
    kernel = KernelSide()
    made = tables(kernel)
    first = Numbers({b"a": 1})
    made.install({}, first)
    kernel.full = True
    with pytest.raises(KernelError, match="ENOMEM"):
        made.install({}, Numbers({b"b": 2}))
    assert made.numbers is first
    assert kernel.owned() == {5000}
    assert name(b"a") in kernel.content["krie_names"]
    kernel.full = False
    made.install({}, Numbers({b"b": 2}))
    assert kernel.owned() == {5001}


def test_no_descriptor_of_a_map_stays_open() -> None:
    kernel = KernelSide()
    made = tables(kernel)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        made.install({}, Numbers())
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_containment_nothing_is_guarded() -> None:
    kernel = KernelSide(contain=False)
    made = tables(kernel)
    made.install({0x103: TABLE}, Numbers())
    made.install({}, Numbers())
    assert "containment_own_maps" not in kernel.content
    assert kernel.in_force == [False, False]


def test_generations_count_from_one_and_never_are_zero() -> None:
    made = tables(KernelSide())
    assert [made.next_generation() for _ in range(3)] == [1, 2, 3]
    made._given = 0xFFFFFFFE
    assert [made.next_generation() for _ in range(2)] == [0xFFFFFFFF, 1]


@pytest.mark.parametrize("forged", [False, True])
def test_tables_that_somebody_else_wrote_to_do_not_come_into_force(
    monkeypatch: pytest.MonkeyPatch, forged: bool
) -> None:
    """While they are made, others may open their map by its number: it is frozen, and then looked at."""
    content: dict[bytes, bytes] = {}
    done: list[str] = []
    made = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    monkeypatch.setattr(bpf, "allow_locked_memory", lambda: None)
    monkeypatch.setattr(bpf, "map_of_shape", lambda _: made)
    monkeypatch.setattr(bpf, "update", lambda _, key, value: content.__setitem__(key, value))

    def freeze(_: int) -> None:
        done.append("frozen")
        if forged:
            content[(1).to_bytes(4, "little")] = bytes(SIZE)

    def lookup(_: int, key: bytes, _size: int) -> bytes:
        done.append("read")
        return content[key]

    monkeypatch.setattr(bpf, "freeze", freeze)
    monkeypatch.setattr(bpf, "lookup", lookup)
    tables = [b"\1" * SIZE, b"\2" * SIZE]
    if forged:
        with pytest.raises(KernelError, match="somebody wrote there"):
            kernel_tables._new_map(tables)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(made)
    else:
        assert kernel_tables._new_map(tables) == made
        os.close(made)
    assert done == ["frozen", "read", "read"]
