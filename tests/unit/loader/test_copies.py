"""Copies of one program know which one they are, and a secret stands where it belongs."""

import struct

from krie.loader.copies import copy_for, with_secret


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


def test_a_secret_is_written_over_its_place_and_nothing_else() -> None:
    secret, other = (struct.pack("<BBhIBBhI", 0x18, 1, 0, low, 0, 0, 0, 0x6B726965) for low in (0x73656372, 0x73656C66))
    written = with_secret(0x1122334455667788, other + secret)
    assert written == other + struct.pack("<BBhIBBhI", 0x18, 1, 0, 0x55667788, 0, 0, 0, 0x11223344)
    assert with_secret(0, other) == other
