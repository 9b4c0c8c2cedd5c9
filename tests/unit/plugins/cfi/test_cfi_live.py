"""Locks of a running kernel: what comes into the maps, and what is told of it."""

import struct
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.plugins.cfi.derived import Derived
from krie.plugins.cfi.events import Activity, Caller
from krie.plugins.cfi.maps import OF_KERNEL, Count, Right
from krie.plugins.cfi.plugin import Cfi
from krie.testing.events import build

from .locked import BASE, FOUND, POINTER_CALL, Background, Maps, live, told


def test_the_lock_file_locks_at_once(kernel: Path) -> None:
    maps = Maps()
    live(maps)
    assert sorted(maps.legal) == [(BASE + 0x11, 1), (POINTER_CALL, 1)]  # prepare_kernel_cred's caller is ambiguous
    found = maps.kernel
    assert found is not None
    assert (found.locked, found.certain) == (1 << 1, 1 << 1)
    assert (found.text, found.text_end) == (BASE, BASE + 0x1000)
    assert found.modules == 0xFFFFFFFF83000000 < 0xFFFFFFFFC0000000 < found.modules_end
    assert found.trampolines == (0, 0, BASE + 0x100)
    assert Background.last.asked == ([range(BASE, BASE + 0x1000)], "00112233", ["f"])


def test_what_is_derived_locks_the_others(kernel: Path) -> None:
    maps = Maps()
    watched = live(maps)
    before = list(maps.legal)
    told(watched, FOUND)
    assert maps.legal == [*before, (0x33, 6)]  # of commit_creds only what the lock file has is legal
    assert maps.on == (1 << 1 | 1 << 6, 1 << 1 | 1 << 6)


def test_while_there_are_live_patches_nothing_is_certain(kernel: Path) -> None:
    (kernel / "livepatch/one").mkdir(parents=True)
    maps = Maps()
    watched = live(maps)
    assert maps.on == (1 << 1, 0)
    told(watched, FOUND)
    assert maps.on == (1 << 1 | 1 << 6, 0)
    (kernel / "livepatch/one").rmdir()
    list(watched.scan())
    assert maps.on == (1 << 1 | 1 << 6, 1 << 1 | 1 << 6)
    (kernel / "livepatch/two").mkdir()
    list(watched.scan())
    assert maps.on == (1 << 1 | 1 << 6, 0)


def test_who_may_gain_what(kernel: Path) -> None:
    maps = Maps()
    live(maps, None)
    assert maps.on == (0, 0)
    assert (
        maps.paths[59] == maps.paths[520] == maps.paths[65536 | 11] == 0b1011 | Right.OF_PROGRAM
    )  # execve: euid0, caps, uid
    assert maps.paths[272] == 0b0110 | Right.OF_NAMESPACE  # unshare: caps, userns
    assert maps.paths[122] == 0b1000 | Right.OF_USERS  # setfsuid: uid
    assert maps.paths[OF_KERNEL] == 0b1000 | Right.OF_PROGRAM  # the kernel starts a program: uid
    assert 1 not in maps.paths  # write


def test_the_lock_is_told_once_and_checks_are_counted(kernel: Path) -> None:
    maps = Maps()
    watched = live(maps)
    assert list(watched.scan()) == []
    event = told(watched, Derived(FOUND.legal, FOUND.certain, 3, ["+ commit_creds <- f+0x1", "more"]))
    assert (event.locked, event.callers, event.filed, event.differing, event.source) == (2, 3, 2, 2, "filed")
    assert (event.first, event.release, event.problem) == ("+ commit_creds <- f+0x1", "6.1", "")
    assert "prepare_kernel_cred" in event.unlocked.split()
    maps.counts = Count(7, 2, 1)
    (counted,) = watched.scan()
    assert isinstance(counted, Activity)
    assert (counted.checks, counted.failed, counted.traced) == (7, 2, 1)
    maps.counts = Count(9, 2, 1)
    (counted,) = watched.scan()
    assert isinstance(counted, Activity)
    assert (counted.checks, counted.failed) == (2, 0)


def test_a_derivation_that_fails_is_told(kernel: Path, caplog: pytest.LogCaptureFixture) -> None:
    event = told(live(Maps(), None), KernelError("deriving", 0, "no memory"))
    assert (event.locked, event.source, event.problem) == (0, "derived", "deriving; no memory")
    assert "no memory" in caplog.text


def test_a_full_map_is_told(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = Maps()
    watched = live(maps)

    def full(key: bytes, value: bytes) -> None:
        raise KernelError("changing a map", 7)

    monkeypatch.setattr(maps, "set", full)
    event = told(watched, FOUND)
    assert (event.locked, event.source) == (1, "filed")
    assert event.problem.startswith("changing a map")


def test_an_end_ends_the_derivation(kernel: Path) -> None:
    watched = live(Maps())
    watched.close()
    assert Background.last.stopped


def test_addresses_get_names(kernel: Path) -> None:
    stack = struct.pack("=2Q", BASE + 0x41, 0).ljust(160, b"\0")
    event = build(Caller, return_address=0xFFFFFFFFC0000005, kernel_stack=stack)
    facts = live(Maps()).facts(event)
    assert facts == {
        "return_symbol": "helper+0x5 [krie_test]",
        "return_module": "krie_test",
        "module_file": "",
        "stack_symbols": ["commit_creds+0x1"],
    }
    assert Cfi().krie_facts(Caller.NAME).keys() == facts.keys()  # type: ignore[union-attr]
    nowhere = live(Maps()).facts(build(Caller, return_address=5, kernel_stack=bytes(160)))
    assert nowhere == {"return_symbol": "", "return_module": "", "module_file": "", "stack_symbols": []}
