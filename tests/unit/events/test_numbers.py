"""Keys and values of maps that are one number in C."""

import pytest
from krie import LONG, ONLY, PRESENT, WORD, KernelError
from krie.events.numbers import Number
from krie.testing.fakes import FakeMap


@pytest.mark.parametrize(("number", "size"), [(WORD, 4), (LONG, 8), (Number("H"), 2)])
def test_what_is_encoded_is_decoded(number: Number, size: int) -> None:
    assert number.size == size
    largest = (1 << 8 * size) - 1
    assert [number.decode(number.encode(each)) for each in (0, 1, largest)] == [0, 1, largest]
    assert number.encode(1) == b"\1".ljust(size, b"\0")


def test_what_a_map_has_not_is_0() -> None:
    assert WORD.decode(None) == 0


def test_the_values_of_all_cpus_are_summed() -> None:
    assert LONG.total(LONG.encode(1) + LONG.encode(41)) == 42
    assert WORD.total((WORD.encode(1) + bytes(4)) * 3) == 3  # each CPU's value begins at a multiple of 8 bytes


def test_a_map_refuses_a_number_of_another_size() -> None:
    held = FakeMap("held", value_bytes=4)
    held.set(ONLY, PRESENT)
    assert WORD.decode(held.get(ONLY)) == 1
    with pytest.raises(KernelError, match="sizes are 4 and 4 bytes"):
        held.set(ONLY, LONG.encode(1))
