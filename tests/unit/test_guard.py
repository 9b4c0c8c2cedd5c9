"""What the agent guards of itself beyond its process."""

import os
import struct
from pathlib import Path

import pytest
from krie.guard import Guard
from krie.process import Identity

from .kernel_side import KernelSide

SWITCH = Identity(6, 1234, 9)


@pytest.fixture
def debugfs(tmp_path: Path) -> Path:
    (tmp_path / "kprobes").mkdir()
    (tmp_path / "kprobes/enabled").write_text("1\n")
    return tmp_path


def guard(kernel: KernelSide, debugfs: Path | None) -> Guard:
    return Guard(lambda: os.open(debugfs, os.O_PATH) if debugfs is not None else -1, kernel.number_of)


def prepared(debugfs: Path | None) -> tuple[KernelSide, list[str]]:
    kernel, seen = KernelSide(), list[str]()

    def identify(descriptor: int) -> Identity:
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return SWITCH

    made = guard(kernel, debugfs)
    made.prepare(kernel.maps.starting_with("containment_"), kernel.maps.values(), identify)
    made.close()
    return kernel, seen


def test_all_maps_of_the_agent_are_guarded_and_not_only_the_sensors(debugfs: Path) -> None:
    kernel, _ = prepared(debugfs)
    assert kernel.owned() == {kernel.number_of(each.descriptor) for each in kernel.maps.values()}
    assert kernel.number_of(kernel.maps["krie_verdicts"].descriptor) in kernel.owned()


def test_the_switch_of_all_kprobes_is_known_by_file(debugfs: Path) -> None:
    kernel, seen = prepared(debugfs)
    assert seen == [str(debugfs / "kprobes/enabled")]
    assert kernel.content["containment_switch"] == {bytes(4): struct.pack("=QII", 1234, 6, 9)}


@pytest.mark.parametrize("has_debugfs", [False, True])
def test_a_kernel_without_kprobes_has_no_switch(tmp_path: Path, has_debugfs: bool) -> None:
    kernel, seen = prepared(tmp_path if has_debugfs else None)
    assert kernel.owned()
    assert (seen, kernel.content["containment_switch"]) == ([], {})


def test_whether_kprobes_are_off(debugfs: Path) -> None:
    made = guard(KernelSide(), debugfs)
    found = []
    for text in ("1\n", "0\n", "", "1\n"):
        (debugfs / "kprobes/enabled").write_text(text)
        found.append(made.kprobes_off())
    assert found == [False, True, False, False]
    (debugfs / "kprobes/enabled").unlink()
    assert not made.kprobes_off()  # nobody can tell
    made.close()
    assert not guard(KernelSide(), None).kprobes_off()


def test_nothing_stays_open(debugfs: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    prepared(debugfs)
    made = guard(KernelSide(), debugfs)
    made.kprobes_off()
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before
