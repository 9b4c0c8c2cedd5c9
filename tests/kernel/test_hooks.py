"""Every security hook of this kernel was decided about: guarded, or why not."""

import re
from pathlib import Path

import pytest
from krie.events.operations import ALL, NOT_GUARDED, function_of

_HOOK = re.compile(r" [tT] bpf_lsm_(\w+)$", re.MULTILINE)
_NO_HOOKS = frozenset(
    """find_cgroup_shim func_proto get_retval_range has_d_inode_locked hook_returns_errno init is_sleepable_hook
    is_trusted verify_prog""".split()
)
"""Functions of the BPF security module itself with such names."""


@pytest.fixture
def symbols() -> str:
    return Path("/proc/kallsyms").read_text()


def test_no_hook_is_forgotten(symbols: str) -> None:
    guarded = {hook for each in ALL for hook in (each.hook, *each.further)}
    decided = guarded.union(*map(set, NOT_GUARDED.values()))
    assert set(_HOOK.findall(symbols)) - decided - _NO_HOOKS == set()


@pytest.mark.needs("lsm")
def test_what_is_guarded_is_there(symbols: str) -> None:
    """Under both names: the hook's, and that of the function which asks it."""
    for each in ALL:
        for name in (f"bpf_lsm_{each.hook}", function_of(each.hook)):
            assert re.search(rf" [tT] {name}$", symbols, re.MULTILINE), name
