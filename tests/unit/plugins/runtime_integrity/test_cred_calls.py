"""The system calls in which a thread acts by its own credentials, as C gets them."""

from __future__ import annotations

import pytest
from krie.plugins.runtime_integrity import cred_calls

SETS = {"NAMES": cred_calls.NAMES}
OTHERS = {"write": 1, "io_uring_enter": 426, "mount": 165, "init_module": 175, "finit_module": 313, "truncate": 76}
"""In which the kernel works in others' names."""


@pytest.mark.parametrize("name", SETS)
def test_bits_are_the_calls(name: str) -> None:
    words = {key: value for key, value in cred_calls.defines().items() if f"_{name}_" in key}
    found = {
        64 * word + bit
        for word in range(len(words))
        for bit in range(64)
        if words[f"RUNTIME_INTEGRITY_CALLS_{name}_{word}"] >> bit & 1
    }
    assert found == set(SETS[name].values())
    assert max(words.values()) < 1 << 63  # which C takes for a number with a sign


def test_no_call_is_in_two_sets_or_works_for_others() -> None:
    numbers = [number for calls in (*SETS.values(), OTHERS) for number in calls.values()]
    assert len(set(numbers)) == len(numbers)
