"""Names that others choose and the kernel lists as they are: of modules, mounts and processes. None breaks what reads
the list, hides what is listed, or forges another line of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from krie import Symbols, addresses, kallsyms_text, kprobe_lines, loaded_modules
from krie.kernel import traps
from krie.kernel.modules import tag_of
from krie.kernel.switches import Switches
from krie.kernel.symbols import functions, read_once
from krie.plugins.cfi.live import code_of, locate
from krie.plugins.runtime_integrity.code_owner import ModuleRanges
from krie.plugins.runtime_integrity.module_views import in_proc
from krie.plugins.runtime_integrity.patched_functions import Patch, patched
from krie.plugins.syscall_table import modules
from krie.plugins.syscall_table.areas import module_functions
from krie.plugins.syscall_table.kallsyms import Kallsyms, addresses_in
from krie.procfs import Procfs

KERNEL, MODULE = 0xFFFFFFFF81000000, 0xFFFFFFFFC0000000
FORGED = f"{KERNEL:016x} T commit_creds".encode()
ODD = [
    *(b"du.my", b"kpatch-3.10.0", b"a b", b"a 1 2", b"x\ty", b"\xff\xe4", b"\xc3\xa4", b"a\\x", b"*", b"n" * 55),
    *(b"n\nl", b"a]", b"[", b"a]\nb", b"\x0b\x0c\x1c", b"\xe2\x80\xa8", b"a\nzz T x", b"a]\nzz T x\t[b"),
    *(b"a]\n" + FORGED, b"a]\n" + FORGED + b"\nb", b"a\t[b]\n" + FORGED, b"\n" + FORGED + b"\n"),
]
OWN = f"{KERNEL:016x} T _stext\n{KERNEL + 0x100:016x} T commit_creds\n{KERNEL + 0x200:016x} T _etext\n".encode()


def symbols(folder: Path, name: bytes) -> Path:
    place = folder / "kallsyms"
    lines = b"".join(b"%016x t f%d\t[%s]\n" % (MODULE + 16 * each, each, name) for each in range(2))
    # The kernel knows no kind of some symbols of modules.
    after = b"%016x ? odd\t[after]\n%016x t g\t[after]\n" % (MODULE + 0x2000, MODULE + 0x1000)
    place.write_bytes(OWN + lines + after)
    return place


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_symbols_are_the_kernels_whatever_a_module_is_called(tmp_path: Path, name: bytes, together: bool) -> None:
    place = symbols(tmp_path, name)
    if together:
        with read_once():
            check_symbols(place, name)
    else:
        check_symbols(place, name)


def check_symbols(place: Path, name: bytes) -> None:
    own = KERNEL + 0x100
    known = Symbols(["_stext"], place)
    assert str(known.find(own)) == "commit_creds+0x0"
    assert str(known.find(KERNEL)) == "_stext+0x0"
    assert known.address("_stext") == KERNEL
    assert str(known.find(MODULE + 0x1000)) == "g+0x0 [after]"
    found = known.find(MODULE + 17)
    assert found is not None
    assert found.name == "f1"
    assert found.module
    assert addresses({"commit_creds", "after:g"}, place) == {"commit_creds": (own,), "after:g": (MODULE + 0x1000,)}
    assert functions({"commit_creds"}, place) == {"commit_creds": range(own, own + 0x100)}
    assert Kallsyms(["commit_creds"], place).extent("commit_creds") == range(own, own + 0x100)
    text = kallsyms_text(place)
    assert text.isascii()
    assert addresses_in(text, ["commit_creds"])("commit_creds") == own
    assert module_functions(text)["after"] == [(MODULE + 0x1000, "g")]
    if b"\n" not in name or b"]" not in name:  # else the list itself does not tell what is a name
        assert module_functions(text)[tag_of(name).decode()] == [(MODULE, "f0"), (MODULE + 16, "f1")]
    assert locate(["commit_creds"], (), place) == {"commit_creds": range(own, own + 0x100)}
    code = code_of(lambda address, size: bytes(size), [range(KERNEL, KERNEL + 0x200)], place)
    assert code.address("commit_creds") == own


FORGING = b"a 1 0 - Live 0x0000000000000000\nnf_tables"
"""Its record reads as that of a module which has gone, and one of another."""


@pytest.mark.parametrize("name", [FORGING, b"a 1 0 - Live 0x0\nb", b"x 1 0 - Live 0x0\n", b"a/b! 1 0 - Live 0x0\nc"])
@pytest.mark.parametrize("user", [b"-", None, b"other,"])
def test_a_name_that_looks_like_a_record_forges_none(tmp_path: Path, name: bytes, user: bytes | None) -> None:
    """Neither as a module's own, nor where it is listed as one that uses another module."""
    users = name + b"," if user is None else user
    place = tmp_path / "modules"
    place.write_bytes(
        b"%s 8192 0 - Live 0x%x (OE)\nused 4096 1 %s Live 0x%x\nlast 4096 0 - Live 0x%x\n"
        % (name, MODULE, users, MODULE + 0x2000, MODULE + 0x3000)
    )
    for each in (name, b"used", b"last", b"kernel"):
        (tmp_path / "folder" / os.fsdecode(each.replace(b"/", b"!"))).mkdir(parents=True)
    found = loaded_modules(place, tmp_path / "folder")
    assert [(each.raw, each.size, each.address) for each in found] == [
        (name, 8192, MODULE),
        (b"used", 4096, MODULE + 0x2000),
        (b"last", 4096, MODULE + 0x3000),
    ]


def test_a_name_that_is_a_part_of_other_records_hides_none(tmp_path: Path) -> None:
    place = tmp_path / "modules"
    parts = (b"- Live 0xffffffffc0000000\nlast", b"t 4096 0", b"4096 0")
    place.write_bytes(b"first 4096 0 - Live 0xffffffffc0000000\nlast 4096 0 - Live 0xffffffffc0003000\n")
    for each in parts:
        (tmp_path / "folder" / os.fsdecode(each)).mkdir(parents=True)
    assert [each.raw for each in loaded_modules(place, tmp_path / "folder")] == [b"first", b"last"]


def test_usual_names_are_left_as_they_are(tmp_path: Path) -> None:
    place = symbols(tmp_path, b"nf_tables")
    assert kallsyms_text(place) == place.read_bytes()
    (tmp_path / "none").write_bytes(OWN)
    assert kallsyms_text(tmp_path / "none") == OWN


def listed(folder: Path, name: bytes, users: bytes) -> Path:
    place = folder / "modules"
    place.write_bytes(
        b"first 4096 0 - Live 0xffffffffc0100000\n"
        b"%s 4096 1 %s Live 0x%x (OE)\nlast 8192 0 - Loading 0xffffffffc0200000\n" % (name, users, MODULE)
    )
    return place


@pytest.mark.parametrize("users", [b"-", b"b,", b"[permanent],"])
@pytest.mark.parametrize("name", ODD)
def test_modules_are_listed_whatever_they_are_called(
    tmp_path: Path, name: bytes, users: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = listed(tmp_path, name, users)
    found = loaded_modules(place)
    assert [(each.raw, each.size, each.state, each.address) for each in found] == [
        (b"first", 4096, "Live", 0xFFFFFFFFC0100000),
        (name, 4096, "Live", MODULE),
        (b"last", 8192, "Loading", 0xFFFFFFFFC0200000),
    ]
    assert found[1].tag.isascii()
    assert found[1].tag.split() == [found[1].tag]
    assert ModuleRanges(place).find(MODULE + 5) == found[1].name
    assert ModuleRanges(place).find(0xFFFFFFFFC0100000) == "first"
    assert len(in_proc(place)) == 3
    monkeypatch.setattr(modules, "_MODULES", place)
    monkeypatch.setattr(modules, "_FOLDER", tmp_path / "module")
    folder = tmp_path / "module" / os.fsdecode(name.replace(b"/", b"!"))
    folder.mkdir(parents=True)
    assert [(each.name, each.start) for each in modules.loaded()] == [(found[1].tag, MODULE)]
    assert len(modules.ranges()) == 3


def test_a_module_is_listed_whatever_those_are_called_that_use_it(tmp_path: Path) -> None:
    found = loaded_modules(listed(tmp_path, b"base", b"a b,\xff,n\nl,"))
    assert [each.raw for each in found] == [b"first", b"base", b"last"]
    assert loaded_modules(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["du.my", "kpatch-3.10.0", "a b", "\\xff", "*", "a\x0bb"])
@pytest.mark.parametrize(
    "how", ["\ttramp: 0xffffffffc0a4a000 ({})", "\t->{}", "\n\tdirect-->{}", "\t{{ent:{} ret:{}}}"]
)
def test_what_a_module_has_patched_is_told_whatever_it_is_called(name: str, how: str) -> None:
    handler = f"hook+0x0/0x10 [{name}]"
    assert patched(f"commit_creds (1)   {how.format(handler, handler)}\n") == {Patch("commit_creds", name)}


def test_of_a_name_with_a_bracket_or_a_line_break_the_begin_is_told() -> None:
    for name in ("a]b", "a\nb"):
        assert patched(f"commit_creds (1)   \t->hook+0x0/0x10 [{name}]\n") == {Patch("commit_creds", "a")}


LIST = b"%016x  k  hook+0x0  [n\nl\xff\x85] [FTRACE]\n\n%016x  k  commit_creds+0x0    [FTRACE]\n" % (MODULE, KERNEL)


def test_kprobes_are_listed_whatever_a_module_is_called(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(LIST)
    assert [each.split()[0] for each in kprobe_lines(tmp_path / "list")] == [f"{MODULE:016x}", f"{KERNEL:016x}"]


def test_kprobes_on_ftrace_are_counted_whatever_a_module_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Switches, "_file", lambda _self, _name: LIST)
    assert Switches.__new__(Switches)._on_ftrace() == 2


def in_a_child(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


MOUNTED = r"""
import os, subprocess, sys
from krie.kernel.mounts import mounted
for number, name in enumerate([b"\xff", b"a\x0cb", b"\xe2\x80\xa8", b"a b - tmpfs", b"\\134", "é".encode()]):
    place = os.path.join(os.fsencode(sys.argv[1]), name)
    os.mkdir(place)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    assert [os.fsencode(each.point) for each in mounted("tmpfs")].count(place) == 1, name
    assert len([each for each in mounted("tmpfs") if sys.argv[1] in str(each.point)]) == number + 1
assert all(each.point.is_dir() for each in mounted("proc"))
print("all")
"""


def test_mounts_are_found_whatever_others_are_called(tmp_path: Path) -> None:
    """Any user makes some, with FUSE."""
    assert in_a_child("unshare", "-m", sys.executable, "-c", MOUNTED, str(tmp_path)) == "all\n"


def test_whatever_a_process_calls_itself_it_is_no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'import ctypes, sys; ctypes.CDLL(None).prctl(15, b"\\xff\\xfe"); print(flush=True); sys.stdin.read()'
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    monkeypatch.setattr(Procfs, "tgids", lambda _: [child.pid])
    assert traps._others_keep() is False
    child.communicate()


def test_who_is_called_as_the_keeper_is_none_unless_he_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything asked of him that he can have the kernel wait for, as it does for /proc/TGID/cmdline."""
    code = """
import ctypes, os, sys
os.setuid({0})
ctypes.CDLL(None).prctl(15, b"krie-keeper")
print(flush=True)
sys.stdin.read()
"""
    asked: list[str] = []
    read = Procfs.read

    def noted(proc: Procfs, name: str) -> bytes:
        asked.append(name.partition("/")[2])
        return read(proc, name)

    monkeypatch.setattr(Procfs, "read", noted)
    for user, keeps in ((65534, False), (0, True)):
        command = [sys.executable, "-c", code.format(user)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            monkeypatch.setattr(Procfs, "tgids", lambda _, tgid=child.pid: [tgid])
            assert traps._others_keep() is keeps
            child.communicate()
    assert set(asked) == {"status"}
