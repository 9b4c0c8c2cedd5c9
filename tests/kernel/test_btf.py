"""The running kernel's types, as libbpf reads them."""

from pathlib import Path

import pytest
from krie import Btf

_COPIES = 8
_BTF_MIB = 3  # the least that a kernel's BTF has; libbpf keeps a copy of all of it


def anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.once
def test_types_that_nobody_uses_any_more_take_no_memory() -> None:
    assert Btf().size("task_struct")
    before = anonymous_mib()
    for _ in range(_COPIES):
        assert Btf().has_type("task_struct")
    assert anonymous_mib() - before < _COPIES * _BTF_MIB / 2
