"""What perf_event_open(2) is asked lies where this kernel reads it."""

import os

import pytest
from krie.kernel.btf import Btf
from krie.kernel.perf_event import DUMMY, SOFTWARE, PerfEventAttr, perf_event_open

_FIELDS = [each for each in PerfEventAttr._fields_ if not each[0].startswith("_")]
FLAGS = [each[0] for each in _FIELDS if len(each) == 3]
NUMBERS = [each[0] for each in _FIELDS if len(each) == 2]


def test_numbers_lie_where_the_kernel_has_them(btf: Btf) -> None:
    assert {name: getattr(PerfEventAttr, name).offset for name in NUMBERS} == {
        name: btf.offset("perf_event_attr", name) for name in NUMBERS
    }


def test_flags_are_the_bits_that_the_kernel_has(btf: Btf) -> None:
    struct = btf.type(btf.find("perf_event_attr"))
    members = btf.words(struct, "=III", struct.length)
    kernel_s = {btf.text(name): place & 0xFFFFFF for name, _, place in members}
    before = int.from_bytes(bytes(PerfEventAttr()), "little")
    for flag in FLAGS:
        now = int.from_bytes(bytes(PerfEventAttr(**{flag: 1})), "little")
        assert now == before | 1 << kernel_s[flag], flag


def test_it_says_its_own_size() -> None:
    assert PerfEventAttr(config=1).size == 72  # PERF_ATTR_SIZE_VER1


def test_an_event_is_opened_and_ends_on_exec() -> None:
    opened = perf_event_open(PerfEventAttr(type=SOFTWARE, config=DUMMY, exclude_kernel=1, exclude_hv=1), 0, -1)
    if opened < 0:
        pytest.skip(f"no perf events here: {os.strerror(-opened)}")
    try:
        assert not os.get_inheritable(opened)
    finally:
        os.close(opened)
