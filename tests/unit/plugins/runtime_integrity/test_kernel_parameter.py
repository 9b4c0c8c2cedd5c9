"""What a variable of the kernel should hold, and what is told and put back, against memory of the test's own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from krie import Btf, KernelError, KernelMemory
from krie.config import plugin_config
from krie.errors import ConfigError
from krie.plugins.runtime_integrity import kernel_parameter
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.kernel_parameter import KernelParameter, WatchedParameters
from krie.plugins.runtime_integrity.parameters import SHIPPED, Parameter

ADDRESS = 0x1000


@dataclass
class Memory:
    at: dict[int, bytes] = field(default_factory=dict)

    def read(self, address: int, size: int) -> bytes:
        if address not in self.at:
            raise KernelError("reading kernel memory", 14)
        return self.at[address].ljust(size, b"\0")[:size]


class Types:
    """As BTF: one type with one field."""

    def offset(self, _type: str, path: str) -> int | None:
        return 8 if path == "enforcing" else None

    def size(self, _type: str, path: str) -> int | None:
        return {"enforcing": 1, "": 16}.get(path)

    def variable_size(self, name: str) -> int | None:
        return 4 if name == "known" else None


def number(value: int, size: int = 4) -> bytes:
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def compare(parameter: Parameter, before: bytes) -> tuple[WatchedParameters, Memory]:
    offset = 8 if parameter.field else 0
    memory = Memory({ADDRESS + offset: before})
    comparison = WatchedParameters(cast("KernelMemory", memory))
    comparison.take({parameter.name: parameter}, {parameter.symbol: (ADDRESS,)}, cast("Btf", Types()))
    return comparison, memory


def told(comparison: WatchedParameters) -> list[tuple[str, str, str]]:
    return [(each.state, each.expected, each.found) for each in comparison.scan()]


@pytest.mark.parametrize(
    ("expectation", "before", "fine", "wrong", "words"),
    [
        ({"value": 0}, 1, 0, 1, "0"),
        ({"least": 1}, 0, 7, 0, "at least 1"),
        ({"most": 1}, 0, 1, 2, "at most 1"),
        ({"least": 1, "most": 3}, 0, 2, 4, "1 to 3"),
        ({"baseline": "same"}, 5, 5, 6, "5"),
        ({"baseline": "not_lower"}, 1, 2, 0, "at least 1"),
        ({"baseline": "not_higher"}, 1, 0, 2, "at most 1"),
        ({"baseline": "set"}, 2, 1, 0, "not 0"),
        ({"baseline": "set"}, 0, 0, None, "not 0"),
        ({"baseline": "not_lower", "signed": True}, -1, 0, -2, "at least -1"),
        ({"value": 1, "mask": 1}, 0, 0xFF, 0xFE, "1"),
    ],
)
def test_numbers(expectation: dict[str, Any], before: int, fine: int, wrong: int | None, words: str) -> None:
    comparison, memory = compare(Parameter(symbol="x", size=4, **expectation), number(before))
    memory.at[ADDRESS] = number(fine)
    assert told(comparison) == []
    if wrong is None:
        return
    memory.at[ADDRESS] = number(wrong)
    ((state, expected, _),) = told(comparison)
    assert (state, expected) == ("differs", words)
    assert told(comparison) == []  # once
    memory.at[ADDRESS] = number(fine)
    ((state, _, _),) = told(comparison)
    assert state == "agrees"
    assert told(comparison) == []


def test_text_is_compared_up_to_its_end() -> None:
    path = Parameter(symbol="x", size=16, form="text", baseline="same")
    comparison, memory = compare(path, b"/sbin/x\0rest")
    memory.at[ADDRESS] = b"/sbin/x\0other"
    assert told(comparison) == []
    memory.at[ADDRESS] = b"/tmp/x\0"
    assert told(comparison) == [("differs", "/sbin/x", "/tmp/x")]


def test_bytes_name_the_first_that_differs() -> None:
    comparison, memory = compare(Parameter(symbol="x", size=64, form="bytes", baseline="same"), bytes(64))
    memory.at[ADDRESS] = bytes(40) + b"\xff" + bytes(23)
    (event,) = comparison.scan()
    assert (event.offset, event.expected, event.found) == (40, "00" * 24, "ff" + "00" * 23)


def test_every_other_value_is_told_with_the_time_of_the_first() -> None:
    comparison, memory = compare(Parameter(symbol="x", size=4, value=0), number(0))
    memory.at[ADDRESS] = number(1)
    (first,) = comparison.scan()
    memory.at[ADDRESS] = number(2)
    (second,) = comparison.scan()
    assert (second.found, second.since) == ("2", first.since)
    assert first.since > 0


def test_a_field_lies_where_btf_says() -> None:
    field_of = Parameter(symbol="selinux_state", type="selinux_state", field="enforcing", baseline="not_lower")
    comparison, memory = compare(field_of, b"\1")
    memory.at[ADDRESS + 8] = b"\0"
    (event,) = comparison.scan()
    assert (event.symbol, event.address, event.length) == ("selinux_state.enforcing", ADDRESS + 8, 1)


@pytest.mark.parametrize(
    ("parameter", "places", "why"),
    [
        (Parameter(symbol="x", size=4, value=0), (), "this kernel lists no such symbol"),
        (Parameter(symbol="x", size=4, value=0), (0,), "kernel.kptr_restrict hides addresses"),
        (Parameter(symbol="x", size=4, value=0), (1, 2), "2 symbols have this name"),
        (Parameter(symbol="x", value=0), (ADDRESS,), "BTF does not tell its size; give one"),
        (Parameter(symbol="x", type="t", field="no", value=0), (ADDRESS,), "BTF does not tell its size; give one"),
        (Parameter(symbol="x", type="t", value=0), (ADDRESS,), "has 16 bytes and so is not a number"),
        (Parameter(symbol="x", size=4, value=0), (77,), "reading kernel memory: EFAULT (Bad address)"),
    ],
)
def test_what_cannot_be_watched_is_told_once(parameter: Parameter, places: tuple[int, ...], why: str) -> None:
    comparison = WatchedParameters(cast("KernelMemory", Memory({ADDRESS: number(0)})))
    comparison.take({parameter.name: parameter}, {"x": places}, cast("Btf", Types()))
    (event,) = comparison.scan()
    assert (event.state, event.reason) == ("unwatched", why)
    assert list(comparison.scan()) == []


def test_memory_that_goes_is_told_once() -> None:
    comparison, memory = compare(Parameter(symbol="known", value=0), number(0))
    memory.at.clear()
    assert [each.state for each in comparison.scan()] == ["unwatched"]
    assert list(comparison.scan()) == []


class Interface:
    """A file that sets the variable behind it, unless it refuses."""

    def __init__(self, memory: Memory, monkeypatch: pytest.MonkeyPatch, *, refuses: bool = False) -> None:
        self.written = b""

        def write(_path: str, text: bytes) -> None:
            self.written = text
            if not refuses:
                memory.at[ADDRESS] = number(int(text)) if text.strip().isdigit() else text.strip() + b"\0"

        monkeypatch.setattr(kernel_parameter, "_write", write)


def differing(parameter: Parameter, before: bytes, now: bytes) -> tuple[WatchedParameters, Memory, KernelParameter]:
    comparison, memory = compare(parameter, before)
    memory.at[ADDRESS] = now
    (event,) = comparison.scan()
    return comparison, memory, event


def test_a_number_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Parameter(symbol="x", size=4, baseline="not_lower", interface="/proc/sys/kernel/x")
    comparison, memory, event = differing(one, number(1), number(0))
    interface = Interface(memory, monkeypatch)
    assert comparison.restore(event) is None
    assert interface.written == b"1\n"
    assert list(comparison.scan()) == []


def test_a_text_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Parameter(symbol="x", size=16, form="text", baseline="same", interface="/proc/sys/kernel/x")
    comparison, memory, event = differing(one, b"/sbin/x\0", b"/tmp/x\0")
    interface = Interface(memory, monkeypatch)
    assert comparison.restore(event) is None
    assert interface.written == b"/sbin/x\n"


def test_what_does_not_help_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Parameter(symbol="x", size=4, value=1, interface="/proc/sys/kernel/x")
    comparison, memory, event = differing(one, number(1), number(0))
    Interface(memory, monkeypatch, refuses=True)
    assert comparison.restore(event) == "/proc/sys/kernel/x was written, and it still is 0"


def test_what_has_no_interface_is_not_put_back() -> None:
    comparison, _, event = differing(Parameter(symbol="x", size=4, value=1), number(1), number(0))
    assert comparison.restore(event) == "the kernel has no interface to put it back by"


@pytest.mark.parametrize(
    ("listed", "text", "why"),
    [
        ("2000  k  f+0x9\n", b"\x55", None),  # the kernel did disarm it
        ("2000  k  f+0x9\n", b"\xcc", "the agent puts it right itself"),
        ("3000  k  f+0x4  [FTRACE]\n2000  k  f+0x9  [OPTIMIZED]\n", b"\xe9", "the agent puts it right itself"),
        ("3000  k  f+0x4  [FTRACE]\n", b"\xcc", "the agent puts it right itself"),  # nothing to tell by
        ("2000  k  f+0x9  [DISABLED]\n", b"\xcc", None),
        ("0  k  f+0x9\n", b"\x55", "the agent puts it right itself"),  # addresses are hidden
    ],
)
def test_kprobes_are_armed_again_only_where_none_is_armed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: str, text: bytes, why: str | None
) -> None:
    (tmp_path / "list").write_text(listed)
    monkeypatch.setattr(kernel_parameter, "_LIST", tmp_path / "list")
    one = Parameter(symbol="kprobes_all_disarmed", size=1, value=0, interface="/sys/kernel/debug/kprobes/enabled")
    comparison, memory, event = differing(one, b"\0", b"\1")
    memory.at[0x2000] = text
    written: list[bytes] = []

    def write(_path: str, text: bytes) -> None:
        written.append(text)
        memory.at[ADDRESS] = b"\0"

    monkeypatch.setattr(kernel_parameter, "_write", write)
    found = comparison.restore(event)
    assert (found is None) if why is None else (why in (found or ""))
    assert written == ([b"1\n"] if why is None else [])


def test_an_interface_that_is_not_there_is_said(tmp_path: Path) -> None:
    one = Parameter(symbol="x", size=4, value=1, interface="/sys/kernel/krie-no-such-file")
    comparison, _, event = differing(one, number(1), number(0))
    assert "No such file" in (comparison.restore(event) or "")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"value": 1, "least": 1}, "x: give one of value, least and most, text, baseline"),
        ({}, "x: give one of value, least and most, text, baseline"),
        ({"form": "text", "value": 1}, "x: text is for form text; value, least and most for form number"),
        ({"form": "bytes", "baseline": "set"}, "x: baseline set is for form number"),
        ({"form": "text", "text": "a", "mask": 1}, "x: mask and signed are for form number"),
        ({"size": 3, "value": 1}, "x: a number has 1, 2, 4 or 8 bytes, not 3"),
        ({"field": "y", "value": 1}, "x.y: field needs the type that has it"),
        ({"field": "y", "type": "t", "size": 4, "value": 1}, "x.y: the size of a field is BTF's; leave size out"),
        ({"interface": "/etc/passwd", "value": 1}, "must be a path below /proc/sys or /sys"),
        ({"interface": "/proc/sys/../../etc", "value": 1}, "must be a path below /proc/sys or /sys"),
        ({"form": "bytes", "baseline": "same", "interface": "/sys/x"}, "bytes cannot be written back"),
        ({"valu": 1}, "no such key; did you mean 'value'?"),
    ],
)
def test_mistakes_in_the_configuration_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"krie.toml: plugins.runtime_integrity.parameters.0") as error:
        plugin_config(
            "runtime_integrity", {"parameters": [{"symbol": "x", **keys}]}, RuntimeIntegrityConfig, "krie.toml"
        )
    assert message in str(error.value)


def test_shipped_parameters_have_names_of_their_own() -> None:
    assert len({each.name for each in SHIPPED}) == len(SHIPPED)
