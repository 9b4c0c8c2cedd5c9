"""The plugin without a kernel: its probes, its lock files and what it needs."""

import struct
from pathlib import Path

import pytest
from krie.config import plugin_config
from krie.errors import ConfigError, KernelError, PluginError
from krie.kernel.features import Features
from krie.kernel.program import AttachType
from krie.plugins.cfi import lock_file, plugin
from krie.plugins.cfi.act import Act
from krie.plugins.cfi.act import probes as act_probes
from krie.plugins.cfi.declaration import shipped
from krie.plugins.cfi.derived import filed, named_by
from krie.plugins.cfi.events import NAMES, Caller
from krie.plugins.cfi.live import BOUNDS, layout, locate
from krie.plugins.cfi.lock_file import LockedFunction, LockFile
from krie.plugins.cfi.maps import Argument
from krie.plugins.cfi.plugin import Cfi, CfiConfig
from pydantic import ValidationError

from .locked import BASE, FILE


def test_each_function_has_a_probe_and_its_own_number() -> None:
    probes = Cfi().krie_sensor(CfiConfig.model_validate({"functions": ("ptmx_open",)}), Features()).probes
    programs = {each.name: each.alternatives[0].programs[-1] for each in probes if each.event is Caller}
    assert {name for name, each in programs.items() if each.function == "cfi_commit"} == {"commit_creds"}
    assert programs["ptmx_open"].argument == 32
    numbers = {name: each.argument & Argument.NUMBER for name, each in programs.items()}
    assert numbers == {name: number for number, name in NAMES.items()} | {"ptmx_open": 32}
    assert [each.name for each in probes if each.event is Caller and each.canary] == ["commit_creds"]


def test_acts_are_judged_where_it_is_wanted() -> None:
    def acts(**keys: object) -> list[str]:
        sensor = Cfi().krie_sensor(CfiConfig.model_validate(keys), Features())
        return [each.name for each in sensor.probes if each.event is Act]

    assert acts() == []
    assert acts(acts=True) == [each.name for each in act_probes()]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (None, "some seconds after the start"),
        (FILE, "to the callers in this build's lock file; does not see"),
        (
            FILE.model_copy(update={"functions": {"commit_creds": LockedFunction(callers=["f+0x1"], taken=["g"])}}),
            "these are told; does not see",
        ),
    ],
)
def test_a_probe_says_what_its_lock_rests_on(monkeypatch: pytest.MonkeyPatch, file: LockFile | None, said: str) -> None:
    monkeypatch.setattr(lock_file, "shipped", lambda _: file)
    probe, *_ = Cfi().krie_sensor(CfiConfig(), Features(tried=True)).probes
    assert said in probe.alternatives[0].limits


def test_a_kernel_without_a_build_id_has_no_lock_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise ConfigError("notes", "holds no build id")

    monkeypatch.setattr(plugin, "running_build_id", none)
    probe, *_ = Cfi().krie_sensor(CfiConfig(), Features(tried=True)).probes
    assert "some seconds after the start" in probe.alternatives[0].limits


def test_the_manual_is_the_same_on_all_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_file, "shipped", lambda _: FILE)
    probe, *_ = Cfi().krie_sensor(CfiConfig(), Features()).probes
    assert probe.alternatives[0].limits.startswith("does not see")


def test_functions_are_checked() -> None:
    for wrong in (("a b",), tuple(f"f{n}" for n in range(17))):
        with pytest.raises(ValidationError):
            CfiConfig.model_validate({"functions": wrong})


def test_functions_come_from_the_configurations_file() -> None:
    assert plugin_config("cfi", {"functions": ["ptmx_open"]}, CfiConfig, "here").functions == ("ptmx_open",)


def test_without_kprobes_it_says_so() -> None:
    with pytest.raises(PluginError, match="on this kernel: no such type"):
        Cfi().krie_sensor(CfiConfig(), Features(refused={AttachType.KPROBE: "no such type"}, tried=True))


def test_where_addresses_are_hidden_nothing_is_believed(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T _stext\n0000000000000000 T _etext\n")
    with pytest.raises(KernelError, match=r"kptr_restrict hides"):
        locate(BOUNDS, (), tmp_path / "kallsyms")
    with pytest.raises(KernelError, match="_stext and _etext"):
        layout({})


def test_lock_files_ask_for_their_names() -> None:
    assert {"do_setuid", "twice", "security_task_prctl", "task_work_run"} <= named_by(FILE, shipped())


def test_calls_of_thunks_are_legal_by_pointer() -> None:
    """Where Spectre is mitigated."""
    start, thunk = BASE, BASE + 0x1000
    known = {
        "do_setuid": range(start, start + 8),
        "security_task_prctl": range(start + 0x40, start + 0x48),
        "__x86_indirect_thunk_rax": range(thunk, thunk + 16),
    }
    call = b"\xe8" + struct.pack("<i", thunk - (start + 0x45))
    found = filed(FILE, shipped(), known, lambda _, size: call.ljust(size, b"\xcc"))
    assert (found.legal, found.certain) == ({"commit_creds": [start + 0x11, start + 0x45]}, ["commit_creds"])
