"""The plugin between its watch and what compares code: when code is compared, and which pointers are watched."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from krie import Check, KernelError, KernelMemory, Maps, Symbols
from krie.plugins.syscall_table import entries, functions, passages, plugin, text
from krie.plugins.syscall_table import watch as watching
from krie.plugins.syscall_table.config import SyscallTableConfig
from krie.plugins.syscall_table.events import POINTER, Activity, Code, Hook, Wrapped
from krie.plugins.syscall_table.kallsyms import Kallsyms
from krie.plugins.syscall_table.plugin import SyscallTable
from krie.testing.events import build

from .fake_maps import remembering
from .untouched import TEXT, Kernel

Attach = Callable[..., SyscallTable]


class Comparer:
    """What compares code, as the plugin sees it."""

    made: list["Comparer"]
    reference, unknown = "image", ()

    def __init__(self, _: KernelMemory) -> None:
        self.asked, self.closed = 0, False
        self.made.append(self)

    def ask(self) -> None:
        self.asked += 1

    def compared(self) -> int:
        return 7

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def attach(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attach:
    """Attaches the plugin to the kernel of the test; keywords are keys of its configuration."""

    def symbols(names: tuple[str, ...]) -> Kallsyms:
        return Kallsyms(names, kernel.file)

    monkeypatch.setattr(plugin, "Kallsyms", symbols)
    monkeypatch.setattr(watching, "Symbols", lambda: Symbols(place=kernel.file))
    monkeypatch.setattr(plugin, "CodeWatch", Comparer)
    Comparer.made = []

    def attached(**keys: Any) -> SyscallTable:
        kernel.derive()  # which writes its symbols
        made = SyscallTable()
        made.krie_attached(cast("Maps", remembering()), kernel, SyscallTableConfig.model_validate(keys))
        return made

    return attached


def test_code_is_compared_at_each_scan(attach: Attach) -> None:
    attached = attach()
    (code,) = Comparer.made
    for turn in (1, 2):
        (line,) = attached.krie_scan()
        assert isinstance(line, Activity)
        assert (code.asked, line.text_bytes, line.reference) == (turn, 7, "image")


@pytest.mark.parametrize("event", [Hook, Wrapped])
def test_code_is_compared_after_each_finding(attach: Attach, event: type[Hook | Wrapped]) -> None:
    attached = attach()
    (code,) = Comparer.made
    assert attached.krie_enrich(build(event))
    assert code.asked == 1
    assert attached.krie_enrich(build(Code)) is None  # which was found by comparing it
    assert attached.krie_enrich(build(Activity)) is None
    assert code.asked == 1


def test_code_is_not_compared_where_nobody_wants_it(attach: Attach) -> None:
    attached = attach(code=False)
    (line,) = attached.krie_scan()
    assert isinstance(line, Activity)
    assert line.reference == "none"
    assert attached.krie_enrich(build(Hook))
    assert list(attached.krie_poll()) == []
    assert Comparer.made == []


def test_who_is_detached_compares_nothing_more(attach: Attach) -> None:
    attached = attach()
    (code,) = Comparer.made
    attached.krie_detaching()
    assert code.closed
    assert list(attached.krie_scan()) == []
    assert attached.krie_enrich(build(Hook)) is None
    assert code.asked == 0


def test_pointers_that_are_shipped_and_configured_are_watched(attach: Attach, kernel: Kernel) -> None:
    shipped = "proc_root_operations modules_op tcp4_seq_ops kernfs_dir_fops tcp_prot null_fops elf_format".split()
    for index, name in enumerate((*shipped, "my_ops")):
        address = TEXT + 0x600000 + 8 * index
        kernel.put(name, address, (TEXT + 0x1000).to_bytes(8, "little"))
    kernel.put("behind", TEXT + 0x600000 + 8 * len(shipped) + 8, bytes(8))

    def watched(**keys: Any) -> list[str]:
        pieces = attach(code=False, **keys)._watch.derived.pieces  # type: ignore[union-attr]
        return [each.name for each in pieces if each.where == POINTER]

    assert sorted(watched()) == sorted(shipped)
    assert sorted(watched(pointers=("my_ops",))) == sorted((*shipped, "my_ops"))
    assert watched(shipped_pointers=False) == []


def test_what_cannot_be_looked_at_takes_no_other_look_along(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Iterator[Check]:
        yield Check("first", 1)
        raise KernelError("reading the kernel", 14)

    modules = (passages, functions, entries, text)
    for each in modules:
        monkeypatch.setattr(each, "check", broken)
    found = list(SyscallTable().krie_integrity(kernel, lambda _: None))
    assert [each.name for each in found[::2]] == ["first"] * len(modules)
    names = [(each.name, each.needed) for each in found[1::2]]
    assert names == [("system calls", False), ("lists of functions", False), ("registers", False), ("text", True)]
    assert "EFAULT" in found[-1].not_looked_at[0]
