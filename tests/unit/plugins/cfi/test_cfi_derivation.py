"""Callers out of code, on code written here."""

import struct

import pytest
from krie import ConfigError
from krie.plugins.cfi.declaration import Declaration, Indirect, parse, shipped
from krie.plugins.cfi.derivation import Code
from krie.plugins.cfi.derived import derive
from krie.plugins.cfi.lock_file import LockedFunction, lock_file_of

from .calling import BASE, BUILD, Text, by_pointer, declared


@pytest.mark.parametrize("entry", [0, 4, -9, -10])
def test_calls_to_each_way_in(entry: int) -> None:
    text = Text("caller", "locked")
    end = text.branch(b"\xe8", "caller", 16, text.at["locked"] + entry)
    assert text.of().callers(["locked"], {})["locked"].returns == {end}


def test_calls_elsewhere_are_not_its() -> None:
    text = Text("caller", "locked", "other")
    text.branch(b"\xe8", "caller", 16, text.at["locked"] + 1)
    text.branch(b"\xe8", "caller", 32, text.at["other"])
    assert text.of().callers(["locked"], {})["locked"].returns == frozenset()


@pytest.mark.parametrize("jump", [b"\xe9", b"\x0f\x84", b"\x0f\x8f", b"\xcc", b"\xcc\x84"])
def test_jumps_are_followed(jump: bytes) -> None:
    """The last two have a kprobe on them."""
    text = Text("caller", "first", "second", "locked")
    text.branch(jump, "second", 40, text.at["locked"])
    text.branch(b"\xe9", "first", 40, text.at["second"] + 4)
    end = text.branch(b"\xe8", "caller", 40, text.at["first"])
    assert end in text.of().callers(["locked"], {})["locked"].returns


def test_a_short_jump_comes_from_a_neighbour() -> None:
    text = Text("caller", "before", "locked")
    text.put("before", 250, bytes((0xEB, 4)))
    end = text.branch(b"\xe8", "caller", 8, text.at["before"])
    assert text.of().callers(["locked"], {})["locked"].returns == {end}


def test_jumps_in_a_circle_end() -> None:
    text = Text("caller", "first", "locked")
    text.branch(b"\xe9", "first", 0, text.at["locked"])
    text.branch(b"\xe9", "locked", 0, text.at["first"])
    end = text.branch(b"\xe8", "caller", 8, text.at["first"])
    assert text.of().callers(["locked"], {})["locked"].returns == {end}


def test_a_call_with_a_kprobe_on_it_counts() -> None:
    text = Text("caller", "locked")
    end = text.branch(b"\xcc", "caller", 16, text.at["locked"])
    assert end in text.of().callers(["locked"], {})["locked"].returns


def test_addresses_that_are_taken() -> None:
    text = Text("a", "b", "c", "d", "locked")
    for name in "abc":
        text.branch(b"\xe9", name, 100, text.at["locked"])
    text.put("d", 0, b"\x48\xc7\xc0" + struct.pack("<I", text.at["b"] & 0xFFFFFFFF))
    text.branch(b"\x48\x8d\x05", "d", 16, text.at["c"])
    code = text.of(struct.pack("<QQ", 1, text.at["a"]))
    assert {code.name(each) for each in code.callers(["locked"], {})["locked"].taken} == {"a", "b", "c"}


def test_the_list_of_static_calls_takes_no_address() -> None:
    """Once the kernel runs, a trampoline jumps where the static call leads, and its address lies in data."""
    text = Text("caller", "__SCT__hook", "locked")
    text.branch(b"\xe9", "__SCT__hook", 0, text.at["locked"])
    end = text.branch(b"\xe8", "caller", 16, text.at["__SCT__hook"])
    found = text.of(struct.pack("<Q", text.at["__SCT__hook"])).callers(["locked"], {})["locked"]
    assert (found.returns, found.taken) == (frozenset({end}), frozenset[int]())


def test_names() -> None:
    text = Text("first", "second")
    code = Code(
        bytes(text.code), BASE, [(BASE, "first"), (BASE + 256, "twice"), (BASE + 300, "twice"), (BASE - 1, "x")]
    )
    assert code.name(BASE) == "first"
    assert code.name(BASE + 301) == "first+0x12d"  # which `twice` would say nothing
    assert code.address("first+0x12d") == BASE + 301
    assert (code.address("twice"), code.address("x"), code.address("nothing+0x1")) == (0, 0, 0)
    assert code.callers(["twice", "nothing"], {}) == {}
    assert code.name(BASE - 1) == f"{BASE - 1:#x}"


@pytest.mark.parametrize(
    ("call", "size"),
    [
        (b"\xff\xd0", 2),
        (b"\x41\xff\xd3", 3),
        (b"\xff\x50\x08", 3),
        (b"\xff\x54\x24\x08", 4),
        (b"\xff\x15\0\0\0\0", 6),
        (b"\xff\x90\0\x01\0\0", 6),
        (b"\xff\x94\x24\0\x01\0\0", 7),
    ],
)
def test_calls_by_a_pointer(call: bytes, size: int) -> None:
    text = Text("caller", "other")
    text.put("caller", 10, call)
    text.put("other", 10, call)
    assert text.of().indirect_calls("caller") == {text.at["caller"] + 10 + size}


def test_calls_of_a_thunk_are_calls_by_a_pointer() -> None:
    text = Text("caller", "__x86_indirect_thunk_rax", "other")
    end = text.branch(b"\xe8", "caller", 10, text.at["__x86_indirect_thunk_rax"])
    text.branch(b"\xe8", "caller", 30, text.at["other"])
    assert text.of().indirect_calls("caller") == {end}
    assert text.of().indirect_calls("nothing") == set()


def test_callers_by_pointer_are_legal_where_they_are_known() -> None:
    text, code = by_pointer()
    unknown = derive(code, declared(), None)
    assert (unknown.legal, unknown.certain) == ({"locked": [BASE + 21]}, [])
    known = derive(code, declared(through=["pointer"]), None)
    assert (known.legal, known.certain) == ({"locked": [BASE + 21, text.at["pointer"] + 18]}, ["locked"])
    assert (known.callers, known.differences) == (1, [])


def test_without_data_nothing_is_certain() -> None:
    """A pointer may lie there."""
    text = Text("caller", "locked")
    text.branch(b"\xe8", "caller", 16, text.at["locked"])
    found = derive(text.of(), declared(), None)
    assert (found.legal, found.certain) == ({"locked": [BASE + 21]}, [])
    assert derive(text.of(bytes(8)), declared(), None).certain == ["locked"]


def test_what_has_no_caller_is_not_locked() -> None:
    text = Text("caller", "locked")
    assert derive(text.of(), declared(), None).legal == {}


def test_a_lock_file_is_held_against_the_code() -> None:
    _, code = by_pointer()
    rows = declared(through=["pointer"])
    filed = lock_file_of("6.1", BUILD, code, code.callers(["locked"], {}))
    same = derive(code, rows, filed)
    assert same.differences == []
    other = filed.model_copy(
        update={"functions": {"locked": LockedFunction(callers=["caller+0x30"], taken=["through"])}}
    )
    changed = derive(code, rows, other)
    assert changed.differences == ["- locked <- caller+0x30", "+ locked <- caller+0x15"]


def test_what_is_shipped_locks_what_it_says() -> None:
    found = shipped()
    assert {"commit_creds", "prepare_kernel_cred", "set_memory_rw"} <= found.functions.keys()
    assert [each.number for each in found.functions.values()] == list(range(1, len(found.functions) + 1))


def test_who_calls_what_jumps_by_a_pointer_is_a_caller() -> None:
    text = Text("caller", "jumping", "locked", "other")
    end = text.branch(b"\xe8", "caller", 16, text.at["jumping"])
    text.put("jumping", 16, b"\xff\xe0")
    text.branch(b"\xe8", "other", 16, text.at["locked"])
    code = text.of(struct.pack("<Q", text.at["locked"]))
    found = code.callers(["locked"], {"locked": ["jumping", "nothing"], "nothing": ["other"]})["locked"]
    assert found.returns == {end, text.at["other"] + 21}
    jumps = Indirect(jumps=["jumping"], why="a")
    rows = Declaration(declared().functions, {"locked": jumps}, {}, {})
    derived = derive(code, rows, None)
    assert (derived.legal["locked"], derived.certain) == (sorted(found.returns), ["locked"])


def test_somebody_must_call() -> None:
    with pytest.raises(ConfigError, match=r"indirect\.f: .*say who calls it"):
        parse('schema = 1\n[functions]\n[indirect.f]\nwhy = "a"', "here")
