"""Looks of the kernel side find what a scan would find: the words agree with what the comparison calls good."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from krie.plugins.runtime_integrity.expected_words import MOST_WORDS, Expected, words
from krie.plugins.runtime_integrity.parameters import SHIPPED, Parameter
from krie.plugins.runtime_integrity.watched import Watched

ADDRESS = 0x1000
NUMBERS: list[dict[str, Any]] = [
    {"value": 0},
    {"value": -1, "signed": True},
    {"value": 300},
    {"least": 1},
    {"most": 1},
    {"least": -2, "most": 3, "signed": True},
    {"least": 1, "most": 3},
    {"baseline": "same"},
    {"baseline": "same", "signed": True},
    {"baseline": "not_lower"},
    {"baseline": "not_lower", "signed": True},
    {"baseline": "not_higher", "signed": True},
    {"baseline": "set"},
    {"baseline": "set", "signed": True},
    {"value": 1, "mask": 1},
    {"baseline": "same", "mask": 0xF0},
]


def agrees(expected: Expected, memory: bytes) -> bool:
    """As the program compares."""
    value = int.from_bytes(memory[: expected.length], "little") & expected.mask ^ expected.flip
    return expected.least <= value <= expected.most


@example(expectation={"baseline": "set", "signed": True}, size=1, numbers=(-1, 0))
@example(expectation={"value": 300}, size=1, numbers=(0, 255))
@example(expectation={"most": -200, "signed": True}, size=1, numbers=(0, -128))
@given(
    expectation=st.sampled_from(NUMBERS),
    size=st.sampled_from([1, 2, 4, 8]),
    numbers=st.tuples(*2 * [st.one_of(st.integers(-4, 4), st.integers(-(1 << 63), (1 << 63) - 1))]),
)
def test_numbers_are_judged_as_by_a_scan(expectation: dict[str, Any], size: int, numbers: tuple[int, int]) -> None:
    before, now = ((each % (1 << 8 * size)).to_bytes(size, "little") for each in numbers)
    one = Watched(Parameter(symbol="x", size=size, **expectation), ADDRESS, size, before)
    (word,) = words([one])
    assert (word.expected.address, word.expected.length) == (ADDRESS, size)
    assert agrees(word.expected, now) == (one.good(now) == now)


@pytest.mark.parametrize(
    ("before", "now", "fine"),
    [
        (b"/sbin/modprobe", b"/sbin/modprobe\0odd", True),
        (b"/sbin/modprobe", b"/sbin/modprobe2", False),
        (b"/sbin/modprobe", b"/sbin/modprob\0e", False),
        (b"/sbin/modprobe", b"/tmp/x", False),
        (b"", b"", True),
        (b"", b"/tmp/x", False),
        (b"core", b"|/tmp/x", False),
    ],
)
def test_texts_are_compared_up_to_their_end(before: bytes, now: bytes, *, fine: bool) -> None:
    one = Watched(Parameter(symbol="x", size=64, form="text", baseline="same"), ADDRESS, 64, before.ljust(64, b"\0"))
    there = now.ljust(64, b"\0")
    assert all(agrees(each.expected, there[each.offset :]) for each in words([one])) == fine


def test_a_text_that_fills_its_place_has_no_word_behind_it() -> None:
    one = Watched(Parameter(symbol="x", size=16, form="text", baseline="same"), ADDRESS, 16, b"x" * 16)
    assert [each.expected.address for each in words([one])] == [ADDRESS, ADDRESS + 8]


@pytest.mark.parametrize(("length", "count"), [(12, 2), (128, 16), (136, 0)])
def test_bytes_are_compared_where_they_are_few(length: int, count: int) -> None:
    one = Watched(Parameter(symbol="x", size=length, form="bytes", baseline="same"), ADDRESS, length, b"\1" * length)
    made = list(words([one]))
    assert len(made) == count
    for each in made:
        assert agrees(each.expected, b"\1" * each.expected.length)
        assert not agrees(each.expected, b"\2" + b"\1" * 7)


def test_variables_of_modules_are_left_to_scans() -> None:
    one = Watched(Parameter(symbol="module:x", size=4, value=0), ADDRESS, 4, bytes(4))
    assert list(words([one])) == []


def test_there_is_room_for_what_ships() -> None:
    sizes = {"text": 256, "bytes": 72, "number": 8}
    all_ = [Watched(each, ADDRESS, sizes[each.form], b"x" * sizes[each.form]) for each in SHIPPED]
    assert len(list(words(one for one in all_ if one.parameter.form != "text"))) < MOST_WORDS - 4 * 256 // 8
