"""The plugin without a kernel: its numbers, its probes, and what it does not look at."""

from pathlib import Path
from typing import Any

import pytest
from krie import Probe
from krie.kernel.features import Features
from krie.kernel.program import AttachType
from krie.plugins.syscall_table import control, limits, plugin, registers
from krie.plugins.syscall_table.config import SyscallTableConfig
from krie.plugins.syscall_table.events import X64
from krie.plugins.syscall_table.handlers import handlers
from krie.plugins.syscall_table.kallsyms import Kallsyms
from krie.plugins.syscall_table.numbers import call_of, handlers_by_number, numbers_by_handler
from krie.plugins.syscall_table.plugin import SyscallTable
from pydantic import ValidationError


def test_numbers_by_names() -> None:
    named = {1: ("__x64_sys_read",), 2: ("__x64_sys_newstat",), 3: ("__x64_sys_no_such_call",), 4: ("__ia32_sys_read",)}
    assert numbers_by_handler(named, X64) == {1: 0, 2: 4}
    alike = {1: ("__x64_sys_stat",), 2: ("__x64_sys_newstat",), 3: ("__x64_sys_read",), 4: ("__x64_sys_read",)}
    assert handlers_by_number(alike, X64) == {4: 2}  # the first one is of 32-bit callers
    assert call_of("__ia32_compat_sys_open") == "open"


def test_probes_by_configuration() -> None:
    def names(**keys: Any) -> list[str]:
        config = SyscallTableConfig.model_validate(keys)
        return [each.name for each in SyscallTable().krie_sensor(config, Features()).probes]

    assert names() == [
        *("timer", "module_init", "module_load", "module_free", "text_poke", "set_memory", "alias"),
        *("wrapped_kill", "wrapped_getdents", "wrapped_getdents64"),
    ]
    assert names(alias_mappings=False, wrapped=())[-1] == "set_memory"
    with pytest.raises(ValidationError):
        names(wrapped=("no;name",))
    with pytest.raises(ValidationError):
        names(wrapped=tuple(f"call{index}" for index in range(17)))


def test_what_is_not_looked_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "kallsyms"
    names = ("sys_call_table", "__start___jump_table", *limits.SYMBOLS)
    place.write_text("".join(f"{0xFFFFFFFF81000000 + 8 * at:x} D {name}\n" for at, name in enumerate(names[:-2])))
    symbols = Kallsyms((*names, "idt_table"), place)
    monkeypatch.setattr(limits, "PLACES", (str(place),))
    said = limits.limits(SyscallTableConfig(), symbols)
    for part in (
        "where idt_table is",
        "LSTAR",
        "bits of CR4 it pins",
        "IDTR",
        "lists of kernel threads, binary formats are",
        "code of BPF, and of modules without a file",
    ):
        assert part in said
    assert "image" not in said
    monkeypatch.setattr(limits, "PLACES", ())
    assert "there is no boot image" in limits.limits(SyscallTableConfig(), symbols)
    without_code = limits.limits(SyscallTableConfig(code=False), symbols)
    assert "lists of functions are looked at (code = false)" in without_code
    assert "timers" not in without_code


@pytest.mark.parametrize("shown", [True, False])
def test_doctor_tells_which_registers_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    """In the words of a probe, which doctor shows."""
    monkeypatch.setattr(registers, "shown", lambda: shown)
    names = (*limits.SYMBOLS, *control.SYMBOLS)
    place = tmp_path / "kallsyms"
    place.write_text("".join(f"{0xFFFFFFFF81000000 + 8 * at:x} D {name}\n" for at, name in enumerate(names)))
    (timer, *_) = (each for each in _probes(Kallsyms(names, place), monkeypatch) if each.name == "timer")
    (alternative,) = timer.alternatives
    assert ("LSTAR, CSTAR and SYSENTER_EIP are read only where" in alternative.limits) is not shown
    assert "bits of CR4 it pins" not in alternative.limits
    assert "IDTR, CR0, CR4 itself and the debug registers are never read" in alternative.limits


def _probes(symbols: Kallsyms, monkeypatch: pytest.MonkeyPatch) -> tuple[Probe, ...]:
    monkeypatch.setattr(plugin, "_read_symbols", lambda _: symbols)
    return SyscallTable().krie_sensor(SyscallTableConfig(), Features(tried=True)).probes


def test_each_handler_has_a_number_of_its_own() -> None:
    made = list(handlers([f"call{index}" for index in range(16)]))
    assert len({each.index for each in made}) == 48
    assert min(each.index for each in made) == 1
    assert max(each.index for each in made) < 64  # entries of the map
    programs = [
        program
        for probe in SyscallTable().krie_sensor(SyscallTableConfig(), Features()).probes
        for program in probe.alternatives[0].programs
        if program.attach is AttachType.KPROBE
    ]
    assert len({each.argument for each in programs}) == len(programs) == 9
