"""The test module does what it says, and undoes it. In guests only: nowhere else does the command line allow it."""

import subprocess
from pathlib import Path

import pytest
from krie.testing.module import TestModule, address_of

pytestmark = pytest.mark.needs("test_module")
PROBED = "security_bpf"


def _listed() -> list[str]:
    """What the kernel says about the kprobes at the function. Where it begins with an endbr, they lie behind that."""
    lines = Path("/sys/kernel/debug/kprobes/list").read_text().splitlines()
    return [line for line in lines if f" {PROBED}+0x" in line]


def test_a_kprobe_lasts_until_the_device_is_closed(test_module: TestModule) -> None:
    before = _listed()
    with test_module.effect("kprobe", address_of(PROBED)):
        assert len(_listed()) == len(before) + 1
    assert _listed() == before


def test_a_kprobe_is_disarmed_and_armed_again(test_module: TestModule) -> None:
    find = address_of("get_kprobe")
    with test_module.effect("kprobe", address_of(PROBED)):
        (line,) = _listed()
        address = int(line.split()[0], 16)
        assert "[DISABLED]" not in line
        with test_module.effect("disarm", find, address):
            assert "[DISABLED]" in _listed()[0]
        assert _listed() == [line]
        with pytest.raises(FileNotFoundError), test_module.effect("disarm", find, address + 1):
            pass


def test_a_kprobe_is_said_to_be_disarmed(test_module: TestModule) -> None:
    with test_module.effect("kprobe", address_of(PROBED)):
        (line,) = _listed()
        with test_module.effect("flag", address_of("get_kprobe"), int(line.split()[0], 16)):
            assert "[DISABLED]" in _listed()[0]
        assert _listed() == [line]


def test_a_variable_is_written_and_restored(test_module: TestModule) -> None:
    seen = Path("/proc/sys/kernel/randomize_va_space")
    before = seen.read_text()
    with test_module.effect("write", address_of("randomize_va_space"), (0x07).to_bytes(4, "little").hex()):
        assert seen.read_text() == "7\n"
    assert seen.read_text() == before != "7\n"


def test_read_only_data_is_written_and_restored(test_module: TestModule) -> None:
    version = Path("/proc/version")
    before = version.read_text()
    assert before.startswith("Linux version")
    with test_module.effect("write", address_of("linux_proc_banner") + len("%s "), b"V".hex()):
        assert version.read_text().startswith("Linux Version")
    assert version.read_text() == before


def test_an_effect_ends_with_its_process(test_module: TestModule) -> None:
    code = (
        f"import os; file = os.open('/dev/krie_test', 1); os.write(file, b'kprobe {address_of(PROBED):x}'); os.abort()"
    )
    before = _listed()
    assert subprocess.run(["/usr/bin/python3", "-IS", "-c", code], check=False).returncode != 0
    assert _listed() == before


@pytest.mark.parametrize("words", [("nothing",), ("kprobe",), ("write", 0, "4"), ("write", 0, "00" * 17), ("x" * 128,)])
def test_what_it_does_not_know_it_refuses(test_module: TestModule, words: tuple[object, ...]) -> None:
    with pytest.raises(OSError, match="Invalid argument"), test_module.effect(*words):
        pass


def test_addresses_that_are_none_are_refused(test_module: TestModule) -> None:
    with pytest.raises(OSError, match="Bad address"), test_module.effect("write", 0, "00"):
        pass
    with pytest.raises(OSError, match="Invalid argument"), test_module.effect("kprobe", 0):
        pass


def test_it_leaves_with_all_that_it_made(test_module: TestModule) -> None:
    assert Path("/dev/krie_test").exists()
    with test_module.effect("kprobe", address_of(PROBED)), pytest.raises(subprocess.CalledProcessError):
        test_module.unload()  # in use
    test_module.unload()
    assert not Path("/dev/krie_test").exists()
    test_module.load()  # which the fixture unloads


@pytest.mark.parametrize("way", ["root", "escape"])
def test_nobody_becomes_root_and_makes_a_file_where_nothing_forbids_it(
    test_module: TestModule, attacker: Path, tmp_path: Path, way: str
) -> None:
    tmp_path.chmod(0o755)
    command = [str(attacker), "3", str(tmp_path), f"{address_of('init_task'):x}", way]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0 3 3 0\n"
    assert {each.stat().st_uid for each in tmp_path.iterdir()} == {0}
