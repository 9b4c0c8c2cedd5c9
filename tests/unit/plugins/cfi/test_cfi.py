"""The plugin without a kernel: its probes, what it puts into its maps, what it tells."""

import io
import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from krie.errors import ConfigError, KernelError, PluginError
from krie.kernel.features import Features
from krie.kernel.maps import possible_cpus
from krie.kernel.program import AttachType
from krie.kernel.symbols import Symbols
from krie.plugins.cfi import background, derived, lock, lock_file, plugin
from krie.plugins.cfi.act import Act
from krie.plugins.cfi.act import probes as act_probes
from krie.plugins.cfi.background import Derivation
from krie.plugins.cfi.declaration import shipped
from krie.plugins.cfi.derived import Derived, filed, named_by
from krie.plugins.cfi.events import NAMES, Activity, Caller, Lock
from krie.plugins.cfi.live import BOUNDS, code_of, layout, locate
from krie.plugins.cfi.lock import Live
from krie.plugins.cfi.lock_file import LockedFunction, LockFile
from krie.plugins.cfi.maps import Argument, Count, Kernel, Place
from krie.plugins.cfi.plugin import CfiConfig
from krie.testing.events import build
from pydantic import ValidationError

BASE = 0xFFFFFFFF81000000
KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000000 T do_setuid
ffffffff81000040 T commit_creds
ffffffff81000080 t security_task_prctl
ffffffff810000c0 t set_memory_ro
ffffffff81000100 T return_to_handler
ffffffff81000140 T twice
ffffffff81000180 T twice
ffffffff81001000 T _etext
ffffffff83000000 B _end
ffffffffc0000000 t helper\t[krie_test]
"""
POINTER_CALL = BASE + 0x82  # behind a call by a pointer, two bytes into security_task_prctl()
FILE = LockFile(
    release="6.1",
    build_id="00112233",
    functions={
        "commit_creds": LockedFunction(callers=["do_setuid+0x11"], taken=["cap_task_prctl"]),
        "prepare_kernel_cred": LockedFunction(callers=["twice+0x1"], taken=[]),
    },
)
FOUND = Derived({"commit_creds": [1, 2], "set_memory_ro": [0x33]}, ["set_memory_ro"], 3)


class Maps(dict[str, Any]):
    """Those that the plugin fills and reads, in the order in which it does."""

    def __init__(self) -> None:
        self.legal: list[tuple[int, int]] = []
        self.kernel: Kernel | None = None
        self.paths: dict[int, int] = {}
        self.counts = Count(0, 0, 0)
        super().__init__(cfi_legal=self, cfi_kernel=self, cfi_counts=self, cfi_paths=self)

    def set(self, key: bytes, value: bytes) -> None:
        if len(key) == len(value) == 4:
            assert not self.kernel, "the lock was on before all system calls were known"
            self.paths[struct.unpack("=I", key)[0]] = struct.unpack("=I", value)[0]
        elif len(key) == Place.size():
            place = Place.decode(key)
            on = self.kernel is not None and self.kernel.locked >> place.function & 1
            assert not on, "the lock was on before its callers were known"
            self.legal.append((place.return_address, place.function))
        else:
            self.kernel = Kernel.decode(value)

    @property
    def on(self) -> tuple[int, int]:
        """Which functions are locked, and which are certain."""
        assert self.kernel is not None
        return self.kernel.locked, self.kernel.certain

    def array(self) -> list[bytes]:
        size = Count.size() * possible_cpus()
        return [self.counts.encode().ljust(size, b"\0"), bytes(size)]


class Memory:
    """In which security_task_prctl() calls by a pointer."""

    def read(self, address: int, size: int) -> bytes:
        return (b"\xff\xd0" if address == POINTER_CALL - 2 else b"").ljust(size, b"\xcc")

    def pieces(self, address: int, size: int) -> Iterator[tuple[int, bytes]]:
        yield 0, self.read(address, size)


class Background:
    """Takes the place of a derivation."""

    last: "Background"

    def __init__(self, _memory: object, ranges: list[range], build_id: str, functions: list[str]) -> None:
        self.asked = (ranges, build_id, functions)
        self.found: Derived | Exception | None = None
        self.stopped = False
        Background.last = self

    def answer(self) -> Derived | None:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    (tmp_path / "modules").write_text("krie_test 16384 0 - Live 0x0\n")
    monkeypatch.setattr(lock, "_MODULES", tmp_path / "modules")
    monkeypatch.setattr(lock, "_LIVE_PATCHES", tmp_path / "livepatch")
    monkeypatch.setattr(lock, "Symbols", lambda: Symbols((), tmp_path / "kallsyms"))
    monkeypatch.setattr(lock, "locate", lambda names, begins: locate(names, begins, tmp_path / "kallsyms"))
    monkeypatch.setattr(lock, "Derivation", Background)
    return tmp_path


def told(watched: Live, found: Derived | Exception) -> Lock:
    """What it tells when this is found; and nothing before and after that."""
    assert list(watched.poll()) == []
    Background.last.found = found
    (event,) = watched.poll()
    assert list(watched.poll()) == []
    return event


def live(maps: Maps, file: LockFile | None = FILE) -> Live:
    return Live(maps, Memory(), shipped(), file, ["f"])  # type: ignore[arg-type]


def test_each_function_has_a_probe_and_its_own_number() -> None:
    probes = plugin.krie_sensor(CfiConfig.model_validate({"functions": ["ptmx_open"]}), Features()).probes
    programs = {each.name: each.alternatives[0].programs[-1] for each in probes if each.event is Caller}
    assert programs["commit_creds"].argument == 1 | Argument.CREDENTIALS
    assert programs["ptmx_open"].argument == 32
    numbers = {name: each.argument & Argument.NUMBER for name, each in programs.items()}
    assert numbers == {name: number for number, name in NAMES.items()} | {"ptmx_open": 32}
    assert [each.name for each in probes if each.event is Caller and each.canary] == ["commit_creds"]


def test_acts_are_judged_where_it_is_wanted() -> None:
    def acts(**keys: object) -> list[str]:
        sensor = plugin.krie_sensor(CfiConfig.model_validate(keys), Features())
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
    probe, *_ = plugin.krie_sensor(CfiConfig(), Features(tried=True)).probes
    assert said in probe.alternatives[0].limits


def test_a_kernel_without_a_build_id_has_no_lock_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise ConfigError("notes", "holds no build id")

    monkeypatch.setattr(plugin, "running_build_id", none)
    probe, *_ = plugin.krie_sensor(CfiConfig(), Features(tried=True)).probes
    assert "some seconds after the start" in probe.alternatives[0].limits


def test_the_manual_is_the_same_on_all_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_file, "shipped", lambda _: FILE)
    probe, *_ = plugin.krie_sensor(CfiConfig(), Features()).probes
    assert probe.alternatives[0].limits.startswith("does not see")


def test_functions_are_checked() -> None:
    for wrong in (["a b"], [f"f{n}" for n in range(17)]):
        with pytest.raises(ValidationError):
            CfiConfig.model_validate({"functions": wrong})


def test_without_kprobes_it_says_so() -> None:
    with pytest.raises(PluginError, match="on this kernel: no such type"):
        plugin.krie_sensor(CfiConfig(), Features(refused={AttachType.KPROBE: "no such type"}, tried=True))


def test_the_lock_file_locks_at_once(kernel: Path) -> None:
    maps = Maps()
    live(maps)
    assert sorted(maps.legal) == [(BASE + 0x11, 1), (POINTER_CALL, 1)]  # prepare_kernel_cred's caller is ambiguous
    found = maps.kernel
    assert found is not None
    assert (found.locked, found.certain) == (1 << 1, 1 << 1)
    assert (found.text, found.text_end) == (BASE, BASE + 0x1000)
    assert found.modules == 0xFFFFFFFF83000000 < 0xFFFFFFFFC0000000 < found.modules_end
    assert found.trampolines == (0, 0, BASE + 0x100)
    assert Background.last.asked == ([range(BASE, BASE + 0x1000)], "00112233", ["f"])


def test_what_is_derived_locks_the_others(kernel: Path) -> None:
    maps = Maps()
    watched = live(maps)
    before = list(maps.legal)
    told(watched, FOUND)
    assert maps.legal == [*before, (0x33, 6)]  # of commit_creds only what the lock file has is legal
    assert maps.on == (1 << 1 | 1 << 6, 1 << 1 | 1 << 6)


def test_while_there_are_live_patches_nothing_is_certain(kernel: Path) -> None:
    (kernel / "livepatch/one").mkdir(parents=True)
    maps = Maps()
    watched = live(maps)
    assert maps.on == (1 << 1, 0)
    told(watched, FOUND)
    assert maps.on == (1 << 1 | 1 << 6, 0)
    (kernel / "livepatch/one").rmdir()
    list(watched.scan())
    assert maps.on == (1 << 1 | 1 << 6, 1 << 1 | 1 << 6)
    (kernel / "livepatch/two").mkdir()
    list(watched.scan())
    assert maps.on == (1 << 1 | 1 << 6, 0)


def test_who_may_gain_what(kernel: Path) -> None:
    maps = Maps()
    live(maps, None)
    assert maps.on == (0, 0)
    assert maps.paths[59] == maps.paths[520] == maps.paths[65536 | 11] == 0b1011  # execve: euid0, caps, uid
    assert maps.paths[272] == 0b0110  # unshare: caps, userns
    assert 1 not in maps.paths  # write


def test_the_lock_is_told_once_and_checks_are_counted(kernel: Path) -> None:
    maps = Maps()
    watched = live(maps)
    assert list(watched.scan()) == []
    event = told(watched, Derived(FOUND.legal, FOUND.certain, 3, ["+ commit_creds <- f+0x1", "more"]))
    assert (event.locked, event.callers, event.filed, event.differing, event.source) == (2, 3, 2, 2, "filed")
    assert (event.first, event.release, event.problem) == ("+ commit_creds <- f+0x1", "6.1", "")
    assert "prepare_kernel_cred" in event.unlocked.split()
    maps.counts = Count(7, 2, 1)
    (counted,) = watched.scan()
    assert isinstance(counted, Activity)
    assert (counted.checks, counted.failed, counted.traced) == (7, 2, 1)
    maps.counts = Count(9, 2, 1)
    (counted,) = watched.scan()
    assert isinstance(counted, Activity)
    assert (counted.checks, counted.failed) == (2, 0)


def test_a_derivation_that_fails_is_told(kernel: Path, caplog: pytest.LogCaptureFixture) -> None:
    event = told(live(Maps(), None), KernelError("deriving", 0, "no memory"))
    assert (event.locked, event.source, event.problem) == (0, "derived", "deriving; no memory")
    assert "no memory" in caplog.text


def test_a_full_map_is_told(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = Maps()
    watched = live(maps)

    def full(key: bytes, value: bytes) -> None:
        raise KernelError("changing a map", 7)

    monkeypatch.setattr(maps, "set", full)
    event = told(watched, FOUND)
    assert (event.locked, event.source) == (1, "filed")
    assert event.problem.startswith("changing a map")


def test_an_end_ends_the_derivation(kernel: Path) -> None:
    watched = live(Maps())
    watched.close()
    assert Background.last.stopped


def test_addresses_get_names(kernel: Path) -> None:
    stack = struct.pack("=2Q", BASE + 0x41, 0).ljust(160, b"\0")
    event = build(Caller, return_address=0xFFFFFFFFC0000005, kernel_stack=stack)
    facts = live(Maps()).facts(event)
    assert facts == {
        "return_symbol": "helper+0x5 [krie_test]",
        "return_module": "krie_test",
        "stack_symbols": ["commit_creds+0x1"],
    }
    assert plugin.krie_facts(Caller.NAME).keys() == facts.keys()  # type: ignore[union-attr]
    nowhere = live(Maps()).facts(build(Caller, return_address=5, kernel_stack=bytes(160)))
    assert nowhere == {"return_symbol": "", "return_module": "", "stack_symbols": []}


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


CHILD = """
import json, os, sys
question = json.load(sys.stdin)
code = os.pread(question["copy"], 1 << 20, 0)
{act}
print(json.dumps({{"legal": {{"f": [len(code), code[0]]}}, "certain": question["functions"], "callers": 1,
    "differences": [question["build_id"]], {more}}}))
"""


def derivation(act: str = "", more: str = "", memory: Any = None) -> Derived:
    """By a child like this one."""
    program = [sys.executable, "-I", "-c", CHILD.format(act=act, more=more)]
    made = Derivation(memory or Memory(), [range(4, 8), range(16, 20)], "00", ["f"], program)
    while (answer := made.answer()) is None:
        time.sleep(0.01)
    return answer


def test_the_child_gets_a_copy_and_hands_over_what_it_found() -> None:
    found = derivation()
    assert found == Derived({"f": [8, 0xCC]}, ["f"], 1, ["00"])


@pytest.mark.parametrize(
    ("act", "more", "said"),
    [
        ("sys.exit('no memory')", "", "exited with status 1: no memory"),
        ("os.kill(os.getpid(), 9)", "", "was ended by SIGKILL"),
        ("", '"problem": "no code"', "no code"),
    ],
)
def test_a_child_that_fails_says_why(act: str, more: str, said: str) -> None:
    with pytest.raises(KernelError, match=said):
        derivation(act, more)


def test_memory_that_cannot_be_read_starts_no_child() -> None:
    class Unreadable:
        def pieces(self, address: int, size: int) -> Iterator[tuple[int, bytes]]:
            raise KernelError(f"reading {size} bytes at {address}", 14)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError, match="reading 4 bytes at 4"):
        derivation(memory=Unreadable())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_stop_waits_for_nothing() -> None:
    program = [sys.executable, "-I", "-c", "import time; time.sleep(600)"]
    made = Derivation(Memory(), [range(4)], "", [], program)
    assert made.answer() is None
    made.stop()


def test_the_program_derives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = b"\xe8" + struct.pack("<i", 0x40 - 5)
    copy = os.memfd_create("copy")
    os.write(copy, call.ljust(0x1000, b"\xcc"))
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    question = {"copy": copy, "ranges": [[BASE, 0x1000]], "build_id": "", "functions": ["twice"]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(question)))
    monkeypatch.setattr(derived, "code_of", lambda read, ranges: code_of(read, ranges, tmp_path / "kallsyms"))
    monkeypatch.setattr(os, "nice", lambda _: 0)
    derived.main()
    os.close(copy)
    found = json.loads(capsys.readouterr().out)
    assert found == {"legal": {"commit_creds": [BASE + 5]}, "certain": [], "callers": 1, "differences": []}
    assert background._derived(json.dumps(found).encode(), b"", 0).callers == 1
