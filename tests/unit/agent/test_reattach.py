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
from krie.agent.ground import Ground
from krie.agent.reattach import reattach, renew
from krie.errors import AttachError
from krie.kernel import bpf
from krie.kernel.attach import Places
from krie.loader.launcher import LoadedSet
from krie.plugin.report import ProbeReport
from krie.tree import Tree

LIES = "the static key lies"
SYSCTL = Program(AttachType.CGROUP_SYSCTL, "", "sample_sysctl")
LSM = Program(AttachType.LSM, "file_open", "sample_lsm")


def report(name: str, program: Program, state: str = "silent") -> ProbeReport:
    way = Alternative("way", (program,))
    return ProbeReport("sample", Probe(name, None, (way,)), None if state == "missing" else way, state, {})


class Kernel:
    """Links are files, and say by their name which attaching made them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.made, self.fails, self.full = folder, 0, False, False
        self.obstacle = ""
        self.kept: list[str] = []
        """What the keeper was given."""
        self.descriptors: dict[str, tuple[int, ...]] = {}
        for each in (SYSCTL, LSM):
            self.descriptors[f"program:{each.label}"] = (self.opened("program"),)
            self.descriptors[f"link:{each.label}"] = (self.opened("old"),)
        monkeypatch.setattr(subject, "attach", self.attach)

    def opened(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    def attach(self, program: Program, descriptor: int, places: Places) -> list[int]:
        assert self.named(descriptor) == "program"
        assert program == SYSCTL
        assert places.cgroup2 is not None
        assert places.cgroup2.names() == os.listdir(self.folder)
        if self.fails:
            raise AttachError("attaching sample_sysctl", errno.ENOENT)
        self.made += 1
        return [self.opened(f"new {self.made}")]

    def named(self, descriptor: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    def replace(self, descriptor: int, new: int) -> None:
        if self.full:
            raise OSError(errno.EMFILE, "too many open files")
        self.kept.append(self.named(new))
        os.dup2(new, descriptor, inheritable=False)
        os.close(new)

    def link(self, program: Program) -> int:
        (descriptor,) = self.descriptors[f"link:{program.label}"]
        return descriptor

    def again(self, *reports: ProbeReport) -> dict[str, str]:
        loaded = cast("LoadedSet", SimpleNamespace(descriptors=self.descriptors))
        ground = cast("Ground", SimpleNamespace(obstacle=lambda: self.obstacle, replace=self.replace))
        return reattach(reports, loaded, ground, lambda: Tree.at(self.folder))


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
    assert kernel.kept == ["new 1", "new 2"]


def test_nothing_is_attached_while_the_kernel_would_stop(kernel: Kernel) -> None:
    kernel.obstacle = LIES
    assert kernel.again(report("x", SYSCTL)) == {"sample.x": LIES}
    assert kernel.made == 0
    kernel.obstacle = ""
    assert kernel.again(report("x", SYSCTL)) == {}
    assert kernel.named(kernel.link(SYSCTL)) == "new 1"


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


def test_without_a_free_descriptor_the_old_link_stays(kernel: Kernel) -> None:
    kernel.full = True
    assert "too many open files" in kernel.again(report("x", SYSCTL))["sample.x"]
    assert kernel.named(kernel.link(SYSCTL)) == "old"


BEHIND = Program(AttachType.KPROBE, "commit_creds", "sample_behind", proven=False, through="sample_behind_it")
CLOCK = Program(AttachType.PERF_EVENT, "1000000", "sample_clock", proven=False)


@pytest.mark.parametrize("state", ["alive", "silent", "attached"])
def test_perf_events_are_enabled_and_tail_calls_are_back_whatever_canaries_say(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    enabled: list[int] = []
    elements = {40: b""}
    monkeypatch.setattr(subject, "enable", enabled.append)
    monkeypatch.setattr(bpf, "lookup", lambda each, _key, _size: elements[each] or None)
    monkeypatch.setattr(bpf, "update", lambda each, _key, value: elements.__setitem__(each, value))
    descriptors = {
        "map:sample_behind_it": (40,),
        f"program:{BEHIND.label}": (41,),
        f"link:{CLOCK.label}": (42, 43),
        f"link:{LSM.label}": (44,),
    }
    loaded = cast("LoadedSet", SimpleNamespace(descriptors=descriptors))
    reports = [report(name, each, state) for name, each in (("x", BEHIND), ("y", CLOCK), ("z", LSM))]
    assert renew(reports, loaded) == ["sample_behind"]
    assert elements == {40: (41).to_bytes(4, "little")}
    assert enabled == [42, 43]
    assert renew(reports, loaded) == []


def test_what_was_never_attached_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "enable", pytest.fail)
    loaded = cast("LoadedSet", SimpleNamespace(descriptors={}))
    assert renew([report("x", BEHIND), report("y", CLOCK, "missing")], loaded) == []
