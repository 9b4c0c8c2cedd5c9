"""What stands in for the last kprobe of a place; without a kernel."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from krie.kernel.stand_ins import StandIns
from krie.kernel.switches import Addresses, Switches

PLACE, OTHER = 0xFFFFFFFF81000010, 0xFFFFFFFF81000020


class Kernel:
    """A text, and tracefs: what was written there, in order. `obeys`: whether a breakpoint goes when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "kprobe_events").touch()
        (folder / "kprobes").mkdir()
        self.lists("")
        self.text = {PLACE: b"\xcc", OTHER: b"\x55"}
        self.root = os.open(folder, os.O_RDONLY)
        self.switches = Switches(lambda place, count: self.text[place][:count], self.root, Addresses(), -1)
        self.made = StandIns(self.root, self.switches)
        self.group = f"krie_stand_in_{os.getpid()}"

    def lists(self, text: str) -> None:
        (self.folder / "kprobes/list").write_text(text)

    def event(self, place: int, group: str = "", opcode: int = 0x55) -> Path:
        folder = self.folder / "events" / (group or self.group) / f"at_{place:x}_{opcode:x}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "enable").touch()
        return folder

    def written(self) -> list[str]:
        return (self.folder / "kprobe_events").read_text().splitlines()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    os.close(made.root)


def yes() -> bool:
    return True


def obeying(kernel: Kernel, place: int) -> Callable[[], bool]:
    """The breakpoint goes between the question whether that is safe and the next look."""

    def safe() -> bool:
        kernel.text[place] = b"\x55"
        return True

    return safe


def test_one_goes_with_its_breakpoint(kernel: Kernel) -> None:
    kernel.made.put({OTHER: 0x55})
    assert kernel.made.places == {OTHER}
    assert kernel.made.remove(yes)
    name = f"{kernel.group}/at_{OTHER:x}_55"
    assert kernel.written() == [f"p:{name} {OTHER:#x}", f"-:{name}"]
    assert kernel.made.places == frozenset()


def test_a_breakpoint_that_stayed_is_taken_out_first(kernel: Kernel) -> None:
    enable = kernel.event(PLACE) / "enable"
    kernel.made.put({PLACE: 0x55})
    assert not kernel.made.remove(lambda: False)  # the switches lie
    assert enable.read_text() == ""
    assert not kernel.made.remove(yes)  # it was in vain
    assert enable.read_text() == "0"
    assert len(kernel.written()) == 1
    assert kernel.made.remove(obeying(kernel, PLACE))
    assert kernel.written()[-1] == f"-:{kernel.group}/at_{PLACE:x}_55"


def test_what_the_jump_of_another_covers_is_uncovered(kernel: Kernel) -> None:
    kernel.event(OTHER)
    kernel.made.put({OTHER: 0x48})
    assert not kernel.made.remove(lambda: False)  # no breakpoint, and not what was there


def test_what_was_there_need_not_be_known(kernel: Kernel) -> None:
    kernel.made.put({PLACE: -1, OTHER: -1})
    assert not kernel.made.remove(lambda: False)
    assert kernel.made.places == {PLACE}


def test_a_breakpoint_of_somebody_else_stays(kernel: Kernel) -> None:
    kernel.made.put({PLACE: 0x55})
    kernel.lists(f"{PLACE:x}  k  commit_creds+0x10    [DISABLED]\n")
    assert not kernel.made.remove(lambda: False)
    kernel.lists(f"{PLACE:x}  k  commit_creds+0x10    [DISABLED]\n{PLACE:x}  k  commit_creds+0x10 \n")
    assert kernel.made.remove(lambda: False)


def test_those_of_who_has_gone_are_taken_over(kernel: Kernel) -> None:
    kernel.text[PLACE] = b"\x55"
    kernel.event(PLACE, "krie_stand_in_4194305", 0xFFF)  # no process has that number
    kernel.event(OTHER, f"krie_stand_in_{os.getppid()}")
    (kernel.folder / "events/krie_stand_in_4194305/filter").touch()
    kernel.made.take_over()
    assert kernel.made.remove(yes)
    assert kernel.written() == [f"-:krie_stand_in_4194305/at_{PLACE:x}_fff"]


def test_without_tracefs_there_are_none() -> None:
    made = StandIns(-1, Switches(lambda _place, _count: b"\xcc", -1, Addresses(), -1))
    made.take_over()
    made.put({PLACE: 0x55})
    assert made.remove(lambda: False)
