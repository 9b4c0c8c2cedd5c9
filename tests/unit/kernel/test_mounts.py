"""The cgroup v2 tree, whatever somebody mounts over it, and with the options that it has."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from krie.kernel import mounts
from krie.kernel.mounts import Mount, cgroup2

COVERED = """
import ctypes, os, subprocess
from krie.kernel import mounts
from krie.kernel.cgroups import Cgroups
from krie.kernel.keeper import leave_service

options = [each.options for each in mounts.mounted("cgroup2")]
for each in mounts.mounted("cgroup2"):
    subprocess.run(["mount", "-t", "tmpfs", "none", each.point], check=True)
    os.mkfifo(each.point / "cgroup.procs")  # who opens it by its path waits for ever
tree = mounts.cgroup2()
assert {"cgroup.controllers", "cgroup.procs"} <= set(tree.names())
assert not tree.is_mounted
tree.write("cgroup.procs", str(os.getpid()).encode())
leave_service()
identity = os.fstat(tree.open(".", os.O_DIRECTORY)).st_ino
assert Cgroups(tree).path(identity) == "/"
inside = [each for each in tree.names() if os.path.isdir(f"/proc/self/fd/{tree._root}/{each}")]
for each in inside:
    identity = os.fstat(tree.open(each, os.O_DIRECTORY)).st_ino
    assert Cgroups(tree).path(identity) == "/" + each
assert [each.options for each in mounts.mounted("cgroup2")] == options
"""


@pytest.mark.skipif(os.geteuid() != 0 or not mounts.mounted("cgroup2"), reason="mounts over cgroup v2")
def test_what_is_mounted_over_it_does_not_matter() -> None:
    command = ("unshare", "-m", sys.executable, "-c", COVERED)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


class Kernel:
    """What is mounted, and how it was asked to open the tree."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> None:
        self.here: list[Mount] = []
        self.elsewhere: list[Mount] = []
        self.asked: list[tuple[list[str], list[str]]] = []
        self.refuses = refuses
        monkeypatch.setattr(mounts, "mounted_for", self.mounted_for)
        monkeypatch.setattr(mounts, "open_root", self.open_root)

    def mounted_for(self, process: str, type_: str) -> list[Mount]:
        assert type_ == "cgroup2"
        return self.here if process == "self" else self.elsewhere

    def open_root(self, type_: str, options: Iterable[str], if_known: Iterable[str]) -> int:
        assert type_ == "cgroup2"
        self.asked.append((sorted(options), sorted(if_known)))
        return -1 if self.refuses else os.open("/", os.O_PATH | os.O_DIRECTORY)

    def mount(self, options: str, root: str = "/", point: Path = Path("/nowhere")) -> Mount:
        return Mount(root, point, "cgroup2", options)


def opened() -> bool | None:
    """Whether others may cover it; None where there is none."""
    if (tree := cgroup2()) is None:
        return None
    tree.close()
    return tree.is_mounted


def test_its_options_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    kernel.here = [kernel.mount("rw,seclabel,nsdelegate,memory_recursiveprot")]
    assert opened() is False
    kernel.here = [kernel.mount("ro,nsdelegate,favordynmods")]
    assert opened() is False
    assert kernel.asked == [
        (["memory_recursiveprot", "nsdelegate"], ["nofavordynmods"]),
        (["favordynmods", "nsdelegate"], []),
    ]


def test_they_are_known_from_the_first_process_where_it_is_not_mounted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    kernel.elsewhere = [kernel.mount("rw,nsdelegate")]
    assert opened() is False
    kernel.elsewhere = []
    assert opened() is False
    assert [options for options, _ in kernel.asked] == [["nsdelegate"], []]


def test_where_the_kernel_refuses_that_it_is_the_one_that_is_mounted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel = Kernel(monkeypatch, refuses=True)
    assert opened() is None
    kernel.here = [kernel.mount("rw", root="/a/container")]
    assert opened() is None
    kernel.here.append(kernel.mount("rw", point=tmp_path))
    assert opened() is True


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_options_are_set_and_of_those_that_need_not_be_known_some() -> None:
    code = """
from krie.roots import open_root
from krie.tree import Tree
assert open_root("tmpfs", ["nonesuch"]) == -1
assert Tree(open_root("tmpfs", ["inode64"], ["nonesuch"])).names() == []
"""
    subprocess.run(["unshare", "-m", sys.executable, "-c", code], check=True, timeout=60)
