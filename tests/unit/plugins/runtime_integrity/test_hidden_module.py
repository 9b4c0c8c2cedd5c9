"""Modules in the views of one look, and in memory that the test lays out as a kernel does."""

import os
import struct
from pathlib import Path
from typing import cast

import pytest
from krie import Btf, KernelError, KernelMemory
from krie.events.wire import text_of
from krie.plugins.runtime_integrity.hidden_module import Hidden, HiddenModules, Look
from krie.plugins.runtime_integrity.module_views import Module, ModuleMemory, in_kallsyms, in_proc, in_sysfs

OFFSETS = {
    ("module", "list"): 8,
    ("module", "name"): 24,
    ("module", "state"): 0,
    ("module", "mkobj.mod"): 88,
    ("module", "mem"): 128,
    ("module_memory", "base"): 0,
    ("module_memory", "size"): 8,
    ("kset", "list"): 0,
    ("kobject", "entry"): 8,
    ("module_kobject", "kobj"): 0,
    ("module_kobject", "mod"): 32,
    ("mod_tree_root", "addr_min"): 0,
    ("mod_tree_root", "addr_max"): 8,
}
SIZES = {("module", ""): 256, ("module", "mem"): 32, ("module_memory", ""): 16}
LIST, KSET_POINTER, KSET, TREE = 0x1000, 0x1100, 0x1200, 0x1300
AREA = 0xC000_0000


class Types:
    def offset(self, type_: str, path: str) -> int | None:
        return OFFSETS.get((type_, path))

    def size(self, type_: str, path: str = "") -> int | None:
        return SIZES.get((type_, path))


class Kernel:
    """Memory with modules, each on its own two pages: code, and the struct 64 bytes into the data."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {page: bytearray(4096) for page in (0x1000, 0x9000)}
        self.places = {"modules": LIST, "module_kset": KSET_POINTER, "mod_tree": TREE}
        self.put(KSET_POINTER, struct.pack("=Q", KSET))
        self.put(TREE, struct.pack("=QQ", AREA, AREA + 0x10000))
        self.listed: list[int] = []
        self.in_kset: list[int] = []

    def put(self, address: int, data: bytes) -> None:
        page = self.pages.setdefault(address & -4096, bytearray(4096))
        page[address & 4095 : (address & 4095) + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        if address & -4096 not in self.pages:
            raise KernelError("reading kernel memory", 14)
        return bytes(self.pages[address & -4096][address & 4095 : (address & 4095) + size])

    def number(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def module(self, name: str | bytes, *, state: int = 0, listed: bool = True, kset: bool = True) -> int:
        base = AREA + 0x2000 * sum(each >= AREA for each in self.pages)
        address = base + 64
        self.put(address, struct.pack("=I", state))
        self.put(address + 24, (name.encode() if isinstance(name, str) else name) + b"\0")
        self.put(address + 88, struct.pack("=Q", address))
        self.put(address + 128, struct.pack("=QII", base, 4096, 0))
        if listed:
            self.listed.append(address)
        if kset:
            self.in_kset.append(address)
        self._link()
        return address

    def _link(self) -> None:
        nodes = [LIST, *(each + 8 for each in self.listed)]
        for here, behind in zip(nodes, [*nodes[1:], LIST], strict=True):
            self.put(here, struct.pack("=Q", behind))
        objects = {each: 0x9000 + 64 * index for index, each in enumerate(self.in_kset)}
        objects[0] = 0x9000 + 64 * len(objects)  # a built-in module
        for address, each in objects.items():
            self.put(each + 32, struct.pack("=Q", address))
        nodes = [KSET, *(each + 8 for each in objects.values())]
        for here, behind in zip(nodes, [*nodes[1:], KSET], strict=True):
            self.put(here, struct.pack("=Q", behind))

    def modules(self) -> ModuleMemory:
        return ModuleMemory(cast("KernelMemory", self), self.places, cast("Btf", Types()))


def test_lists_are_followed() -> None:
    kernel = Kernel()
    one, two = kernel.module("one"), kernel.module("two", state=1, kset=False)
    found = kernel.modules()
    assert [(each.address, each.name, each.live) for each in found.listed()] == [
        (one, "one", True),
        (two, "two", False),
    ]
    assert [each.name for each in found.in_kset()] == ["one"]
    assert found.unlisted(found.listed()) == []


@pytest.mark.parametrize(("state", "names"), [(0, ["hidden"]), (2, []), (3, [])])
def test_a_module_in_memory_is_known_by_its_pointer_to_itself(state: int, names: list[str]) -> None:
    kernel = Kernel()
    kernel.module("one")
    kernel.module("hidden", listed=False, kset=False, state=state)
    found = kernel.modules()
    assert [each.name for each in found.unlisted(found.listed())] == names


def test_a_list_without_end_is_given_up() -> None:
    kernel = Kernel()
    one = kernel.module("one")
    kernel.put(one + 8, struct.pack("=Q", one + 8))
    with pytest.raises(KernelError, match="it has no end"):
        kernel.modules().listed()


def test_what_a_kernel_lacks_is_named() -> None:
    kernel = Kernel()
    kernel.places["mod_tree"] = 0
    with pytest.raises(LookupError, match="the kernel tells no address of mod_tree"):
        kernel.modules()


def module(name: str, *, live: bool = True) -> Module:
    return Module(hash(name) & 0xFFFF, name, live, ())


def look(**changed: object) -> set[Hidden]:
    everywhere = [module("a"), module("b")]
    names = frozenset({"a", "b"})
    views = {"before": everywhere, "after": everywhere, "kset": everywhere, "memory": []}
    return Look(**{**views, "files": {"proc": names, "sysfs": names, "kallsyms": names}, **changed}).hidden()  # type: ignore[arg-type]


def test_modules_that_are_everywhere_do_not_hide() -> None:
    assert look() == set()


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"before": [module("a")], "after": [module("a")]}, {"list"}),
        ({"kset": [module("a")]}, {"kset"}),
        ({"files": {"proc": frozenset("a"), "sysfs": frozenset("ab")}}, {"proc"}),
        ({"files": {"proc": frozenset("ab"), "sysfs": frozenset("a")}}, {"sysfs"}),
    ],
)
def test_a_module_that_is_not_everywhere_hides(changed: dict[str, object], missing: set[str]) -> None:
    (found,) = look(**changed)
    assert (found.name, set(found.missing)) == ("b", missing)
    assert not found.seen & found.missing


@pytest.mark.parametrize("changed", [{"before": [module("a")]}, {"after": [module("a"), module("b", live=False)]}])
def test_modules_that_come_or_go_do_not_hide(changed: dict[str, object]) -> None:
    assert look(kset=[module("a")], **changed) == set()


def test_memory_alone_tells() -> None:
    (found,) = look(memory=[module("c")])
    assert (found.name, set(found.seen)) == ("c", {"memory"})
    assert found.missing == {"list", "kset", "proc", "sysfs", "kallsyms"}


def test_what_is_seen_once_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.plugins.runtime_integrity.hidden_module._BETWEEN_S", 0.0)
    kernel = Kernel()
    comparison = HiddenModules(kernel.modules())
    steady = Hidden("x", 1, frozenset({"kset"}), frozenset({"list"}))
    once = Hidden("y", 2, frozenset({"kset"}), frozenset({"list"}))
    looks = iter([{steady, once}, {steady}, {steady}, {steady}, {steady}, {steady}, set(), {steady}, *[{steady}] * 4])
    monkeypatch.setattr(HiddenModules, "_look", lambda _self, _modules: next(looks))
    assert [each.name for each in comparison.scan()] == ["x"]
    assert list(comparison.scan()) == []  # told before
    assert list(comparison.scan()) == []  # gone
    assert [each.name for each in comparison.scan()] == ["x"]  # again


ODD = [
    b"du.my",
    b"kpatch-3.10.0",
    b"my-mod",
    b"a,b",
    b"a]b",
    b"a [x]",
    b"a b",
    b"@",
    b"x\ty",
    b"a/b",
    b"\xff\xe4",
    b"\xc3\xa4",
]
ODD += [b"a\\x", b"n\nl", b"a 1 2", b"*", b"n" * 55]


def files_with(folder: Path, names: list[bytes]) -> dict[str, frozenset[str]]:
    """As the kernel shows them."""
    for each in names:
        place = folder / "module" / os.fsdecode(each.replace(b"/", b"!"))
        place.mkdir()
        (place / "initstate").touch()
    (folder / "module" / "builtin").mkdir()
    lines = [each + b" 16384 2 a,b, Live 0xffffffffc0a00000 (OE)\n" for each in names]
    (folder / "modules").write_bytes(b"first 1 - - Loading 0x0000000000000000\n" + b"".join(lines))
    symbols = [
        b"ffffffffc0000010 t init\t[" + each + b"]\nffffffffc0000020 d data\t[" + each + b"]\n" for each in names
    ]
    symbols += [b"ffffffffc0000000 t x\t[bpf]\n"]
    (folder / "kallsyms").write_bytes(b"ffffffff81000000 T _stext\n" + b"".join(symbols))
    return {
        "proc": in_proc(folder / "modules") - {"first"},
        "sysfs": in_sysfs(folder / "module"),
        "kallsyms": in_kallsyms(folder / "kallsyms"),
    }


def test_any_name_is_read_alike_everywhere(tmp_path: Path) -> None:
    for names in (ODD[:7], ODD[7:14], ODD[14:]):
        kernel, folder = Kernel(), tmp_path / str(len(os.listdir(tmp_path)))
        (folder / "module").mkdir(parents=True)
        for each in names:
            kernel.module(each)
        found = kernel.modules()
        everywhere = found.listed()
        assert len({each.name for each in everywhere}) == len(names)
        look = Look(everywhere, everywhere, found.in_kset(), found.unlisted(everywhere), files_with(folder, names))
        assert look.hidden() == set()


@pytest.mark.parametrize("name", [b"@odd", b".hid den", b"\xff", b"", b"a]\n"])
def test_an_odd_name_hides_no_module(tmp_path: Path, name: bytes) -> None:
    kernel = Kernel()
    kernel.module("one")
    kernel.module("two")
    address = kernel.module(name, listed=False, kset=False)
    found = kernel.modules()
    (tmp_path / "module").mkdir()
    files = files_with(tmp_path, [b"one", b"two"])
    (hidden,) = Look(found.listed(), found.listed(), found.in_kset(), found.unlisted(found.listed()), files).hidden()
    assert (hidden.name, hidden.address, hidden.seen) == (text_of(name), address, frozenset({"memory"}))


@pytest.mark.parametrize("view", ["proc", "sysfs", "kallsyms"])
@pytest.mark.parametrize("left", [0, 1])
def test_a_broken_view_is_one_finding(view: str, left: int) -> None:
    everywhere = [module(f"m{number}") for number in range(8)]
    names = frozenset(each.name for each in everywhere)
    files = {"proc": names, "sysfs": names, "kallsyms": names, view: frozenset(sorted(names)[:left])}
    changed = {"before": everywhere, "after": everywhere, "kset": everywhere}
    (found,) = look(**changed, files=files)
    assert (found.name, found.address, found.missing) == ("", 0, frozenset({view}))
    hiding = [*everywhere[:3], *everywhere[4:]]
    both = look(before=hiding, after=hiding, kset=everywhere, files=files)  # and one that hides elsewhere
    assert {(each.name, *each.missing) for each in both} == {("", view), ("m3", "list")}


def test_kallsyms_tags(tmp_path: Path) -> None:
    file = tmp_path / "kallsyms"
    file.write_text("ffff T _stext\nffff t one\t[a]\nffff t two\t[bpf]\nffff t three\t[__builtin__ftrace]\n")
    assert in_kallsyms(file) == {"a"}
