"""Code in pieces, as programs have it, and where ftrace has a place in it."""

import struct
import time

import pytest
from krie.plugins.syscall_table import explained
from krie.plugins.syscall_table.begins import site_in
from krie.plugins.syscall_table.events import ENTRY, HANDLER
from krie.plugins.syscall_table.pieces import Piece, Site, cut, packed
from krie.plugins.syscall_table.watch import _first_difference

from .untouched import ENDBR, NOP, TEXT


@pytest.mark.parametrize("begin", ["f30f1efa", "660f1f00", "0f1f40d6", ""])
@pytest.mark.parametrize("there", ["0f1f440000", "6666666690", "e801020304", "cc1f440000"])
def test_where_ftrace_may_put_a_call(begin: str, there: str) -> None:
    assert site_in(bytes.fromhex(begin + there + "9090909090")) == len(begin) // 2


def test_where_ftrace_has_no_place() -> None:
    assert site_in(bytes.fromhex("f30f1efa" + "4883ec0890")) is None
    assert site_in(bytes.fromhex("e90102030466909090")) is None
    assert site_in(bytes.fromhex("e97bc5d70f1f440000")) is None  # a jump whose end makes a nop of what is left


def test_parts_keep_jumps_whole() -> None:
    assert cut(range(300), [range(126, 131), range(250, 256)]) == [range(126), range(126, 250), range(250, 300)]
    assert cut(range(128)) == [range(128)]
    assert cut(range(0)) == []


def test_pieces_as_programs_have_them() -> None:
    made = packed(
        [
            Piece(HANDLER, 1, ENDBR + NOP, ftrace=4),
            Piece(HANDLER, 2, ENDBR + NOP, ftrace=4),
            Piece(ENTRY, 3, bytes(16), sites=(Site(3, 5, 7),)),
        ]
    )
    assert len(made.pieces) == 3
    assert {len(each) for each in made.pieces} == {312}
    assert made.masks == [(b"\xff" * 4 + bytes(5)).ljust(128, b"\0"), (b"\xff" * 16).ljust(128, b"\0")]
    assert [len(each) for each in made.sites] == [512, 512]
    mask, starts = made.sites[1][:128], made.sites[1][128:256]
    assert mask == (bytes(3) + b"\xff" * 5).ljust(128, b"\0")
    assert starts[2:9] == b"\xff" + b"\3" * 5 + b"\xff"
    assert struct.unpack_from("=128h", made.sites[1], 256)[3:8] == (7,) * 5


def test_more_pieces_than_there_is_room_for() -> None:
    assert len(packed(Piece(ENTRY, each, bytes(8)) for each in range(2000)).pieces) == 1535


def test_the_first_difference() -> None:
    piece = Piece(HANDLER, 0, ENDBR + NOP + b"\x55" * 7, ftrace=4)
    assert _first_difference(piece, ENDBR + b"\xe8\1\2\3\4" + b"\x55" * 6 + b"\xcc") == 15
    assert _first_difference(piece, ENDBR + b"\xe9\1\2\3\4" + b"\x55" * 7) == 4
    assert _first_difference(piece, b"\xe9\1\2\3\4\0\0\0\0" + b"\x55" * 7) == 0


def test_what_explains_code(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {
        "list": ["ffffffff81000010  k  f+0x10    [OPTIMIZED]", "ffffffff81000100  k  g+0x0  [GONE]"],
        "enabled_functions": ["traced (1) R", "\ttramp: f+0x1/0x2"],
    }
    monkeypatch.setattr(explained, "_lines", lambda file, _: lists[file.name])
    causes = explained.Causes()
    assert causes.of(TEXT + 0x12, "f", 0) == "kprobe"
    assert causes.of(TEXT + 0x40, "f", 0) == ""
    assert causes.of(TEXT + 0x100, "g", 0) == ""
    assert causes.of(TEXT + 0x40, "traced", 0) == "ftrace"
    lists["enabled_functions"] = []
    assert causes.of(TEXT + 0x40, "traced", 1) == "ftrace"  # seen before that was read
    assert causes.of(TEXT + 0x40, "traced", time.clock_gettime_ns(time.CLOCK_BOOTTIME)) == ""
