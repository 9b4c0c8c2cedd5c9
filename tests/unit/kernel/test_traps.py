"""Events of tracefs that own what a trap may leave in the text, without a kernel."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.kernel import traps
from krie.kernel.traps import Traps, address_of

PLACE, OTHER = 0xFFFFFFFF81000110, 0xFFFFFFFF81000120
TEXT = range(0xFFFFFFFF81000000, 0xFFFFFFFF81000200)
MOVE, CALL = b"\x48", b"\xe8"
AGENT = 4194301  # more than any process may have
DEAD = 4194302


class Kernel:
    """A folder that looks like tracefs, and a text in which perf events arm and disarm breakpoints."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.off = folder, False
        (folder / "events").mkdir()
        (folder / "kprobe_events").touch()
        self.text = {PLACE: b"\xe8", OTHER: b"\x74"}
        self.opened: dict[int, int] = {}
        self.closed: list[int] = []
        self.refuses = 0
        self.descriptor = os.open(folder, os.O_RDONLY)
        self.made = Traps(self.descriptor, AGENT, self.read, TEXT)
        monkeypatch.setattr(traps, "perf_event", self.open)
        monkeypatch.setattr(os, "close", self.close)
        monkeypatch.setattr(traps, "_FIRST_PID_NAMESPACE", os.stat("/proc/self/ns/pid").st_ino)

    def read(self, address: int, size: int) -> bytes:
        if address not in self.text:
            raise KernelError(f"reading kernel memory at {address:#x}", errno.EFAULT)
        return self.text[address][:size]

    def open(self, type_: int, config: int, *, period: int, program: int = -1) -> int:
        assert (type_, period) == (2, 1)
        if self.refuses:
            raise OSError(self.refuses, os.strerror(self.refuses))
        if not self.off:
            self.text[config] = b"\xcc"
        self.opened[1000 + len(self.opened)] = config
        return 1000 + len(self.opened) - 1

    def close(self, descriptor: int) -> None:
        if descriptor not in self.opened:
            return self.really_close(descriptor)
        place = self.opened[descriptor]
        self.closed.append(place)
        if not self.off:
            self.text[place] = {PLACE: b"\xe8", OTHER: b"\x74"}[place]
        return None

    really_close = staticmethod(os.close)

    def event(self, name: str) -> None:
        """As the kernel makes one; its number is its address."""
        (self.folder / "events" / name).mkdir(parents=True)
        (self.folder / "events" / name / "id").write_text(f"{address_of(name)}\n")
        for each in ("enable", "filter"):
            (self.folder / "events" / name).with_name(each).touch()

    def written(self) -> list[str]:
        return (self.folder / "kprobe_events").read_text().splitlines()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel(tmp_path, monkeypatch)
    yield made
    Kernel.really_close(made.descriptor)


def test_a_trap_is_an_event_with_a_perf_event(kernel: Kernel) -> None:
    (kernel.folder / "kprobe_events").write_text("p:other/one do_exit\n")
    kernel.event(kernel.made.name(PLACE))
    assert kernel.opened[kernel.made.attach(PLACE, 7)] == PLACE
    assert kernel.text[PLACE] == b"\xcc"
    assert kernel.written() == ["p:other/one do_exit", f"p:krie_{AGENT}/at_{PLACE:x} {PLACE:#x}"]
    assert kernel.made.own() == [kernel.made.name(PLACE)]


def test_what_cannot_be_opened_leaves_no_event(kernel: Kernel) -> None:
    kernel.event(kernel.made.name(PLACE))
    kernel.refuses = errno.EMFILE
    with pytest.raises(OSError, match="open files"):
        kernel.made.attach(PLACE, 7)
    assert kernel.written()[1:] == [f"-:{kernel.made.name(PLACE)}"]


def test_what_was_armed_before_it_failed_keeps_its_owner(kernel: Kernel) -> None:
    """As where a switch was forged when its perf event was closed again."""
    kernel.event(kernel.made.name(PLACE))
    kernel.refuses, kernel.text[PLACE] = errno.EMFILE, b"\xcc"
    with pytest.raises(OSError, match="open files"):
        kernel.made.attach(PLACE, 7)
    assert kernel.written() == [f"p:{kernel.made.name(PLACE)} {PLACE:#x}"]


def test_an_event_is_removed_once_its_breakpoint_has_gone(kernel: Kernel) -> None:
    name = kernel.made.name(PLACE)
    kernel.event(name)
    assert kernel.made.remove(name) == ""
    assert kernel.written() == [f"-:{name}"]
    assert kernel.opened == {}  # nothing was armed for that


def test_a_breakpoint_that_stayed_is_taken_out_before(kernel: Kernel) -> None:
    name = kernel.made.name(PLACE)
    kernel.event(name)
    kernel.text[PLACE], kernel.off = b"\xcc", True
    assert kernel.made.remove(name) == f"a breakpoint or its jump is still at {PLACE:#x}"
    assert kernel.written() == []
    kernel.off = False
    assert kernel.made.remove(name) == ""
    assert kernel.closed == [PLACE, PLACE]
    assert kernel.text[PLACE] == b"\xe8"
    assert kernel.written() == [f"-:{name}"]


def jump(place: int, to: int) -> bytes:
    return b"\xe9" + (to - place - 5).to_bytes(4, "little", signed=True)


def test_a_jump_of_the_optimizer_has_not_gone(kernel: Kernel) -> None:
    """As where a trap came to share a tracer's kprobe, and a switch was forged while both ended."""
    name = kernel.made.name(PLACE)
    kernel.event(name)
    kernel.text[PLACE], kernel.off = jump(PLACE, TEXT.stop), True
    assert kernel.made.remove(name) == f"a breakpoint or its jump is still at {PLACE:#x}"
    assert kernel.closed == [PLACE]
    kernel.text[PLACE] = jump(PLACE, TEXT.stop - 1)  # the kernel's own
    assert kernel.made.remove(name) == ""
    assert kernel.closed == [PLACE]


def function(kernel: Kernel, places: dict[int, bytes], traps: Traps | None = None) -> list[int]:
    """What suits a trap in a function that has these at offsets."""
    text = bytearray(MOVE * 40)
    for offset, code in places.items():
        text[offset : offset + len(code)] = code
    kernel.text[PLACE] = bytes(text)
    return (traps or kernel.made).places(range(PLACE, PLACE + len(text)))


def test_what_kprobes_have_changed_suits_no_trap(kernel: Kernel) -> None:
    own = jump(PLACE + 8, PLACE)
    optimized = jump(PLACE + 16, TEXT.stop)[:3] + CALL * 2  # as its target's bytes may look
    assert function(kernel, {8: own, 13: CALL, 16: optimized, 21: CALL}) == [8, 13, 21]
    # Arming all kprobes writes a breakpoint over a jump, of which the rest stays.
    assert function(kernel, {16: b"\xcc" + optimized[1:], 21: CALL}) == [21]
    assert function(kernel, {30: CALL, 37: own[:3]}) == [30]  # its target lies behind the function
    unknown = Traps(kernel.descriptor, AGENT, kernel.read, range(0))
    assert function(kernel, {8: own, 13: CALL}, unknown) == [13]


def test_behind_a_trap_of_the_agents_own_another_has_a_place(kernel: Kernel) -> None:
    kernel.event(kernel.made.name(PLACE + 16))
    kernel.event(f"krie_{DEAD}/at_{PLACE + 24:x}")
    assert function(kernel, {16: b"\xcc", 18: CALL, 24: b"\xcc", 26: CALL}) == [18]


def test_what_cannot_be_read_stays(kernel: Kernel) -> None:
    name = kernel.made.name(0x1000)
    kernel.event(name)
    assert "reading kernel memory at 0x1000" in kernel.made.remove(name)
    assert kernel.written() == []


def test_what_somebody_else_removed_has_gone(kernel: Kernel) -> None:
    kernel.text[PLACE] = b"\xcc"
    assert kernel.made.remove(kernel.made.name(PLACE)) == ""
    kernel.event(kernel.made.name(PLACE))
    kernel.refuses = errno.EBUSY
    assert "resource busy" in kernel.made.remove(kernel.made.name(PLACE))


def test_those_of_the_dead(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.made.of_the_dead() == []
    for each in (f"krie_{DEAD}/at_{PLACE:x}", f"krie_{os.getpid()}/at_{PLACE:x}", f"krie_other/at_{PLACE:x}"):
        kernel.event(each)
    kernel.event(kernel.made.name(PLACE))
    with monkeypatch.context() as context:
        context.setattr(traps, "_others_keep", lambda: True)
        assert kernel.made.of_the_dead() == []
    with monkeypatch.context() as context:
        context.setattr(traps, "_FIRST_PID_NAMESPACE", 1)
        assert kernel.made.of_the_dead() == []
    monkeypatch.setattr(traps, "_others_keep", lambda: False)
    assert kernel.made.of_the_dead() == [f"krie_{DEAD}/at_{PLACE:x}"]
    assert kernel.made.remove(f"krie_{DEAD}/at_{PLACE:x}") == ""


def test_a_dead_ones_place_that_was_taken_again_is_freed(kernel: Kernel) -> None:
    dead, own = f"krie_{DEAD}/at_{PLACE:x}", kernel.made.name(PLACE)
    kernel.event(dead)
    kernel.event(own)
    kernel.text[PLACE], kernel.off = b"\xcc", True  # as long as the own one is attached
    assert kernel.made.remove(dead) == ""
    assert kernel.made.remove(own) == f"a breakpoint or its jump is still at {PLACE:#x}"  # whose owner the last one is
    kernel.event(f"krie_{DEAD}/at_{OTHER:x}")
    kernel.text[OTHER] = b"\xcc"
    assert kernel.made.remove(f"krie_{DEAD}/at_{OTHER:x}") == f"a breakpoint or its jump is still at {OTHER:#x}"
    assert kernel.written() == [f"-:{dead}"]


def test_without_tracefs_there_are_none() -> None:
    made = Traps(-1, AGENT, lambda _address, size: bytes(size), TEXT)
    assert (made.own(), made.of_the_dead()) == ([], [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        made.attach(PLACE, 7)
