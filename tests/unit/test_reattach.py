"""What somebody detached is attached again, under the same descriptor; the rest is left alone."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from krie import Alternative, AttachType, Probe, Program
from krie.agent import reattach as subject
from krie.agent.reattach import reattach
from krie.errors import AttachError
from krie.kernel.attach import Places
from krie.loader.launcher import LoadedSet
from krie.plugin.report import ProbeReport

SYSCTL = Program(AttachType.CGROUP_SYSCTL, "", "sample_sysctl")
LSM = Program(AttachType.LSM, "file_open", "sample_lsm")
PLACE = Path("/nowhere")


def report(name: str, program: Program, state: str = "silent") -> ProbeReport:
    way = Alternative("way", (program,))
    return ProbeReport("sample", Probe(name, None, (way,)), None if state == "missing" else way, state, {})


class Kernel:
    """Links are files, and say by their name which attaching made them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.made, self.fails = folder, 0, False
        self.descriptors: dict[str, tuple[int, ...]] = {}
        for each in (SYSCTL, LSM):
            self.descriptors[f"program:{each.label}"] = (self.opened("program"),)
            self.descriptors[f"link:{each.label}"] = (self.opened("old"),)
        monkeypatch.setattr(subject, "attach", self.attach)

    def opened(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    def attach(self, program: Program, descriptor: int, places: Places) -> list[int]:
        assert self.named(descriptor) == "program"
        assert (program, places.cgroup2) == (SYSCTL, PLACE)
        if self.fails:
            raise AttachError("attaching sample_sysctl", errno.ENOENT)
        self.made += 1
        return [self.opened(f"new {self.made}")]

    def named(self, descriptor: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    def link(self, program: Program) -> int:
        (descriptor,) = self.descriptors[f"link:{program.label}"]
        return descriptor

    def again(self, *reports: ProbeReport) -> dict[str, str]:
        loaded = cast("LoadedSet", SimpleNamespace(descriptors=self.descriptors))
        return reattach(reports, loaded, lambda: PLACE)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    before = len(os.listdir("/proc/self/fd"))
    made = Kernel(tmp_path, monkeypatch)
    yield made
    for group in made.descriptors.values():
        for each in group:
            with suppress(OSError):
                os.close(each)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_new_link_takes_the_place_of_one_that_was_detached(kernel: Kernel) -> None:
    assert kernel.again(report("x", SYSCTL), report("y", SYSCTL)) == {}  # two probes, one program
    assert kernel.named(kernel.link(SYSCTL)) == "new 1"
    assert not os.get_inheritable(kernel.link(SYSCTL))
    assert kernel.again(report("x", SYSCTL)) == {}
    assert kernel.named(kernel.link(SYSCTL)) == "new 2"


@pytest.mark.parametrize("state", ["alive", "attached", "missing"])
def test_what_is_not_silent_is_left_alone(kernel: Kernel, state: str) -> None:
    assert kernel.again(report("x", SYSCTL, state)) == {}
    assert kernel.made == 0


def test_nothing_in_the_kernels_text_is_touched(kernel: Kernel) -> None:
    assert kernel.again(report("x", LSM)) == {}
    assert kernel.named(kernel.link(LSM)) == "old"


def test_why_one_stays_silent_is_told(kernel: Kernel) -> None:
    kernel.fails = True
    failed = kernel.again(report("x", SYSCTL))
    assert failed.keys() == {"sample.x"}
    assert "attaching sample_sysctl" in failed["sample.x"]
    assert kernel.named(kernel.link(SYSCTL)) == "old"
