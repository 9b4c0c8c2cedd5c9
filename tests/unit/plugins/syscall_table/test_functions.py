"""What `krie integrity` tells of functions in the kernel's lists."""

from pathlib import Path

import pytest
from krie import Check, KernelMemory
from krie.plugins.syscall_table import functions
from krie.plugins.syscall_table.entry import Entry
from krie.plugins.syscall_table.explain import Lists

from .untouched import MODULE, TEXT

PROGRAM, HIDDEN = MODULE + 0x8000, MODULE + 0x20000
OF_KERNEL = Entry("die_chain", 0x1000, TEXT)
OF_MODULE = Entry("hooks_ipv4[0]", 0x1008, MODULE + 8)
OF_BPF = Entry("tracepoints", 0x1010, PROGRAM + 8)
OF_NOBODY = Entry("module_notify_list", 0x1018, HIDDEN)


class Walks:
    """What walks of the kernel's lists find, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        self.found: list[list[Entry]] = []
        self.unknown = ["timers"]
        self.modules = [("evil", range(MODULE, MODULE + 0x1000))]
        self.symbols = {"_stext": TEXT, "_etext": TEXT + 0x1000}
        self._place = place
        monkeypatch.setattr(functions, "KALLSYMS", place)
        monkeypatch.setattr(functions, "FunctionLists", lambda *_: self)
        monkeypatch.setattr(functions, "offsets", dict)
        monkeypatch.setattr(functions, "named_ranges", lambda: self.modules)
        monkeypatch.setattr(functions, "_SETTLES_S", 0)
        monkeypatch.setattr(functions, "read_lists", lambda _: Lists(generated=((PROGRAM, "bpf"),)))

    def entries(self) -> tuple[list[Entry], list[str]]:
        return self.found.pop(0), self.unknown

    def check(self, *found: list[Entry]) -> Check:
        self.found = list(found)
        self._place.write_text("".join(f"{address:016x} T {name}\n" for name, address in self.symbols.items()))
        (check,) = functions.check(KernelMemory(0, bytearray(8)), lambda _: None)
        return check


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Walks:
    return Walks(monkeypatch, tmp_path / "kallsyms")


def test_functions_that_belong_to_somebody(lists: Walks) -> None:
    check = lists.check([OF_KERNEL, OF_MODULE, OF_BPF])
    assert (check.compared, check.differences, check.others) == (24, (), 0)
    assert check.explained == {"module evil": 1, "bpf": 1}
    assert check.not_looked_at[0] == "lists of timers: this kernel does not tell"


def test_a_function_that_belongs_to_nobody(lists: Walks) -> None:
    check = lists.check([OF_KERNEL, OF_NOBODY], [OF_KERNEL, OF_NOBODY])
    (found,) = check.differences
    assert (found.address, found.place, found.now) == (0x1018, "module_notify_list", f"{HIDDEN:x}")
    assert "nobody's" in found.leads_to
    many = [Entry("timers", 8 * number, HIDDEN) for number in range(70)]
    check = lists.check(many, many)
    assert (len(check.differences), check.others) == (64, 6)


@pytest.mark.parametrize("comes", [True, False])
def test_what_is_nobodys_for_a_moment(lists: Walks, monkeypatch: pytest.MonkeyPatch, comes: bool) -> None:
    """Its module is on its way in or out."""
    after = [OF_NOBODY] if comes else []
    first = iter([lists.modules, lists.modules])

    def listed() -> list[tuple[str, range]]:
        late = [("late", range(HIDDEN, HIDDEN + 8))] if comes else []
        return next(first, [*lists.modules, *late])

    monkeypatch.setattr(functions, "named_ranges", listed)
    assert lists.check([OF_NOBODY], after).differences == ()


def test_a_kernel_that_hides_its_symbols(lists: Walks) -> None:
    lists.symbols = {}
    check = lists.check()
    assert (check.reference, check.compared) == ("", 0)
    assert check.not_looked_at == ("lists: the kernel hides its symbols",)
