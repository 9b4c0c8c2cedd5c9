"""Verdicts as the agent writes them and as programs in the kernel read them."""

import struct

import pytest
from krie import KernelError
from krie.enforce.verdicts import Verdict, Verdicts, share_of
from krie.events.core_maps import Flags
from krie.events.identity import Identity, Key

from ..kernel_side import KernelSide

ONE, OTHER = Key(41, 7 * 10**9), Key(42, 8 * 10**9)
KIND = 0x103


def made() -> tuple[KernelSide, Verdicts]:
    kernel = KernelSide()
    return kernel, Verdicts(kernel.maps, 0, kernel.run)


def test_poison_is_read_back_and_taken_back() -> None:
    _, verdicts = made()
    verdict = Verdict(ONE, 0, 10**12, 5, 13)
    assert verdicts.poison(verdict)
    verdicts.poison(Verdict(OTHER, 0, 10**12, 5, 13))
    assert verdicts.count() == 2
    assert next(verdicts.poisoned()) == verdict
    verdicts.clear(verdict)
    assert [each.process for each in verdicts.poisoned()] == [OTHER]
    assert verdicts.count() == 1


def test_a_full_table_is_said() -> None:
    kernel = KernelSide()
    verdicts = Verdicts(kernel.maps, 0, lambda _, arguments: None)  # the program had no room
    assert not verdicts.poison(Verdict(ONE, 0, 10**12, 5, 13))


def test_the_share_is_the_users_and_beyond_it_is_asked_for() -> None:
    asked = []
    verdicts = Verdicts(KernelSide().maps, 0, lambda _, arguments: asked.append(arguments))
    verdict = Verdict(ONE, 0, 10**12, 5, 13, share_of(3 * 65536 + 1000))
    verdicts.poison(verdict)
    verdicts.poison(verdict, beyond_share=True)
    assert asked == [(how, 41, 7 * 10**9, 10**12, 5, 13 | 1000 << 16) for how in (1, 5)]


def test_a_container_has_a_share_of_its_own() -> None:
    assert (share_of(65534), share_of(0xF0000000 + 1000)) == (32766, 32768 + 1000)


def test_refusals_bind_one_kind_and_are_taken_back_alone() -> None:
    kernel, verdicts = made()
    one, other = Verdict(ONE, KIND, 10**12, 5, 13), Verdict(ONE, KIND + 1, 10**12, 5, 13)
    for each in (one, other):
        verdicts.bind(each)
    assert kernel.content["krie_verdicts"][struct.pack("=QII", 7 * 10**9, 41, KIND)] == struct.pack(
        "=QIIQII", 7 * 10**9, 41, KIND, 10**12, 5, 13
    )
    verdicts.clear(one)
    assert list(verdicts.bound()) == [other]
    assert list(verdicts.poisoned()) == []


def test_the_host_is_bound_and_freed_beside_the_time_of_poison() -> None:
    kernel, verdicts = made()
    verdicts.set_poison_time(99)
    verdicts.set_flags(Flags.GUARD)
    assert verdicts.host() is None
    verdicts.bind_host(Verdict(Key(0, 0), 0, 10**12, 5, 13))
    assert verdicts.host() == Verdict(Key(0, 0), 0, 10**12, 5, 13)
    assert kernel.content["krie_settings"][bytes(4)] == struct.pack("=QQII", 99, 10**12, 5, 13)
    verdicts.free_host()
    assert verdicts.host() is None
    assert verdicts.flags() == Flags.GUARD
    assert kernel.content["krie_settings"][bytes(4)] == struct.pack("=QQII", 99, 0, 0, 0)


def test_canaries_are_counted_while_they_run_whatever_they_raise() -> None:
    _, verdicts = made()
    verdicts.set_flags(Flags.GUARD)
    seen = []

    def canary() -> None:
        seen.append(verdicts.flags())
        raise KernelError("a canary")

    with pytest.raises(KernelError), verdicts.watched():
        canary()
    assert seen == [Flags.GUARD | Flags.CANARY]
    assert verdicts.flags() == Flags.GUARD


def test_protected_files_replace_those_before() -> None:
    kernel, verdicts = made()
    verdicts.protect([Identity(8, 100, 1), Identity(8, 200, 1)])
    verdicts.protect([Identity(8, 200, 1), Identity(9, 300, 2)])
    assert len(kernel.content["krie_protected"]) == 3  # until the others are no longer in force
    verdicts.protect_only([Identity(8, 200, 1), Identity(9, 300, 2)])
    assert set(kernel.content["krie_protected"]) == {struct.pack("=QII", 200, 8, 1), struct.pack("=QII", 300, 9, 2)}
    verdicts.protect_only([])
    assert kernel.content["krie_protected"] == {}


def test_which_sensors_may_act() -> None:
    kernel, verdicts = made()
    verdicts.enforce([True, False, True])
    assert kernel.content["krie_enforcing"] == {
        struct.pack("=I", number): struct.pack("=I", may) for number, may in enumerate((1, 0, 1))
    }
