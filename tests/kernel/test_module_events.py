"""What is told of modules that come, go, or cannot be loaded, and of the functions that they patch."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie.plugins.runtime_integrity.patched_functions import Patch, PatchedFunctions
from krie.testing.fixtures import JournalOfVictims
from krie.testing.module import TestModule, address_of
from krie.testing.needs import MODULE_VARIABLE
from krie.testing.victims import Victims

from .lines import rules_of
from .operations import PREFIX


@pytest.fixture
def module() -> Iterator[TestModule]:
    made = TestModule(Path(os.environ[MODULE_VARIABLE]))
    yield made
    subprocess.run(["/usr/sbin/rmmod", made.name], capture_output=True, check=False)


@pytest.mark.needs("test_module", "kprobe")
def test_a_module_comes_and_goes(journal: JournalOfVictims, victims: Victims, module: TestModule) -> None:
    """Its init function registers a kprobe: both are told."""
    address = address_of("do_exit")
    victims.execute(["/usr/sbin/insmod", str(module.file), f"probed={address:#x}"])
    victims.execute(["/usr/sbin/rmmod", module.name])
    asked, linked = journal.exactly(f"{PREFIX}module_load", 2, helper=False, flags=[])
    assert (asked["event"]["step"], asked["event"]["path"]) == ("file", str(module.file.resolve()))
    assert asked["event"]["file_ino"] > 0  # on an overlayfs the kernel's number is another than stat's
    assert asked["event"]["file_deleted"] is False
    assert "MODULE003" in rules_of(asked)
    assert (linked["event"]["step"], linked["event"]["name"]) == ("linked", module.name)
    assert asked["event"]["args"] == linked["event"]["args"] == f"probed={address:#x}"
    signatures = Path("/sys/module/module/parameters/sig_enforce").exists()  # this kernel knows of any
    assert {"out_of_tree"} | ({"unsigned"} if signatures else set()) <= set(linked["event"]["taints"])
    assert linked["event"]["code_address"] > 1 << 63
    assert 0 < linked["event"]["code_size"] < 1 << 20
    assert rules_of(linked) == ({"MODULE006"} if signatures else set())
    gone = journal.exactly(f"{PREFIX}module_unload", 2, name=module.name, failed_load=False, forced=False)
    assert [line["event"]["step"] for line in gone] == ["asked", "freed"]
    assert [rules_of(line) for line in gone] == [{"MODULE007"}, set()]
    probes = journal.exactly(f"{PREFIX}probe_register", 2, mechanism="kprobe", owner=module.name)
    assert [line["event"]["operation"] for line in probes] == ["register", "unregister"]


@pytest.mark.needs("test_module")
def test_a_module_out_of_memory(journal: JournalOfVictims, victims: Victims, module: TestModule) -> None:
    code = "image = open(sys.argv[1], 'rb').read(); assert libc.syscall(175, image, len(image), b'') == 0"
    victims.run(code, str(module.file))
    asked, linked = journal.exactly(f"{PREFIX}module_load", 2, path="", file_ino=0)
    assert (asked["event"]["step"], rules_of(asked), asked["would"]) == ("memory", {"MODULE001"}, ["override"])
    assert linked["event"]["name"] == module.name


@pytest.mark.needs("test_module")
def test_a_module_that_cannot_be_loaded(journal: JournalOfVictims, victims: Victims, module: TestModule) -> None:
    """Its init function fails, after it was linked."""
    with pytest.raises(subprocess.CalledProcessError):
        victims.execute(["/usr/sbin/insmod", str(module.file), "probed=8"])
    (freed,) = journal.exactly(f"{PREFIX}module_unload", 1, step="freed", name=module.name, failed_load=True)
    assert rules_of(freed) == set()


def test_an_unload_of_nothing(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run("libc.syscall(176, b'lkrg', 0o4000 | 0o1000)")
    (line,) = journal.exactly(f"{PREFIX}module_unload", 1, step="asked", name="lkrg", forced=True)
    assert rules_of(line) == {"MODULE007", "MODULE008"}


@pytest.mark.needs("ia32")
def test_an_unload_from_a_code_segment_of_ones_own(
    journal: JournalOfVictims, victims: Victims, tmp_path: Path, lacks: Callable[[str], NoReturn]
) -> None:
    """The kernel knows user mode by its privilege level, and not by the number of the segment."""
    program = tmp_path / "own_segment"
    source = Path(__file__).with_name("own_segment.c")
    subprocess.run(["gcc", "-O1", "-mno-red-zone", "-o", program, source], check=True)
    try:
        victims.execute([str(program)])
    except subprocess.CalledProcessError as error:
        if error.returncode == 77:
            lacks("modify_ldt: this kernel makes no local descriptor tables")
        assert error.returncode in (errno.ENOENT, errno.ENOSYS)
    (line,) = journal.exactly(f"{PREFIX}module_unload", 1, step="asked", name="krie_none", compat=True)
    assert rules_of(line) == {"MODULE007"}


@pytest.mark.needs("test_module")
def test_a_function_that_a_module_patches_is_found(test_module: TestModule) -> None:
    function = "proc_tgid_stat"
    with test_module.effect("patch", address_of(function)):
        patched = PatchedFunctions()
        assert Patch(function, test_module.name) in patched.look()
        assert Patch(function, test_module.name) not in patched.look()
