"""What a process executed, and what influenced it since, as the kernel side notes it: names rest on that."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from krie.events.event import INFLUENCED, EventTypes
from krie.kernel.inspection import Inspector
from krie.processes.binding import PROGRAM, Bindings
from krie.processes.process import NOTHING
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork, process_sensor
from krie.testing.patience import wait_for

from .identities import Setting, resolved, running, words
from .loading import loaded, sending
from .meddlers import poke, read_it, watch, write_by_descriptor, write_by_system_call
from .overlays import mounted, overlaid

pytestmark = pytest.mark.needs("raw_tracepoint")
_STRANGER = 0x7FFFFFFF  # no process: whatever this one does is told
_TYPES = EventTypes((ProcessExec, ProcessExit, ProcessFork))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with loaded(process_sensor()) as (made, maps), sending(maps, _STRANGER) as ring:
        bindings = Bindings(made.descriptors[f"program:{PROGRAM}"][0], maps)
        inspector = Inspector(made.descriptors["program:krie_inspect"][0], maps["krie_inspected"])
        bindings.note_all()
        chosen = made.loaded.chosen.get("process.influence", "")
        yield Setting(bindings, inspector, chosen, ring, tmp_path_factory.mktemp("named"))


@pytest.fixture
def marks(setting: Setting, lacks: Callable[[str], NoReturn]) -> Setting:
    """Where the kernel tells who writes to another process."""
    if not setting.influence_by:
        lacks("fentry and kprobes: nobody tells who writes to another process")
    return setting


def test_what_was_executed_is_known(setting: Setting) -> None:
    with running(setting.named) as process:
        found = setting.bindings.of(process.pid)
        assert (found.identity, found.influence, found.looked) == (setting.identity, 0, True)
    own = setting.bindings.of(os.getpid())
    assert (own.identity, own.looked) == (resolved(setting, os.path.realpath(sys.executable)), False)
    assert setting.bindings.of(2).identity == NOTHING  # a kernel thread


@pytest.mark.parametrize(
    ("env", "influence"),
    [
        ({"LD_PRELOAD": ""}, {"environment"}),
        ({"A": "x" * 5000, "B": "y" * 126, "LD_LIBRARY_PATH": "/nowhere"}, {"environment"}),
        ({"LD_AUDIT_OF_ANY_NAME": "1"}, {"environment"}),
        ({f"V{number}": "" for number in range(600)}, {"environment"}),  # more than is looked through
        ({"OLD_PRELOAD": "LD_PRELOAD", "A": "x" * 127 + "LD_PRELOAD=", "B": "x" * 123 + "LD_", "LD": "_"}, set()),
        ({f"V{number}": "" for number in range(400)}, set()),
    ],
    ids=["preload", "library path", "any", "too many", "alike", "many"],
)
def test_a_variable_for_the_linker_is_influence(setting: Setting, env: Mapping[str, str], influence: set[str]) -> None:
    with running(setting.named, env=env) as process:
        assert setting.influence(process.pid) == influence


@pytest.mark.parametrize(("env", "influence"), [({}, set()), ({"LD_BIND_NOW": "1"}, {"environment"})])
def test_what_influenced_its_makers_is_told(
    setting: Setting, tmp_path: Path, env: Mapping[str, str], influence: set[str]
) -> None:
    """A shell that makes a child, which executes something, and executes something itself. The shell's own exec is one
    of a process that has its parent's memory, which is no influence."""
    shell = tmp_path / "shell"
    shutil.copy("/bin/sh", shell)
    setting.bindings.look_at([setting.identity, resolved(setting, shell)])
    while setting.ring.read():
        pass
    tgid = os.posix_spawn(shell, [str(shell), "-c", "/bin/true; exec /bin/true"], env)
    os.waitpid(tgid, 0)
    setting.bindings.look_only_at([setting.identity])
    records = list(map(_TYPES.decode, setting.ring.read()))
    (made,) = (each for each in records if isinstance(each, ProcessFork) and each.tgid == tgid)
    assert words(made.context & INFLUENCED) == influence
    of_child, own = (
        [words(each.influence) for each in records if isinstance(each, ProcessExec) and each.tgid == of]
        for of in (made.child_tgid, tgid)
    )
    assert (of_child, own) == ([influence], [set(), influence])


def test_the_environment_of_others_is_not_looked_through(setting: Setting) -> None:
    with running("/bin/cat", env={"LD_LIBRARY_PATH": "/nowhere"}) as process:
        assert setting.influence(process.pid) == set()


def test_set_uid_programs_disregard_the_environment(setting: Setting) -> None:
    setting.named.chmod(0o4755)
    setting.named.parent.chmod(0o755)
    try:
        with running(
            "/usr/bin/setpriv", "--reuid=65534", "--clear-groups", setting.named, env={"LD_PRELOAD": ""}
        ) as process:
            assert (setting.bindings.identity(process.pid), setting.influence(process.pid)) == (setting.identity, set())
    finally:
        setting.named.chmod(0o755)


def test_who_ran_before_the_name_is_looked_at_too(setting: Setting, tmp_path: Path) -> None:
    late = tmp_path / "late"
    shutil.copy("/bin/cat", late)
    with running(late, env={"LD_BIND_NOW": "1"}) as one, running(late) as other:
        assert setting.influence(one.pid) == setting.influence(other.pid) == set()
        setting.bindings.look_at([setting.identity, resolved(setting, late)])
        assert (setting.influence(one.pid), setting.influence(other.pid)) == ({"environment"}, set())
        setting.bindings.look_only_at([setting.identity])


def test_a_namespace_of_somebody_without_privileges_is_influence(setting: Setting) -> None:
    with running("/usr/bin/unshare", "-Ur", setting.named) as process:
        assert setting.influence(process.pid) == {"namespace"}
    with running("/usr/bin/unshare", "-m", setting.named) as process:  # which only root makes
        assert setting.influence(process.pid) == set()


SUPERVISED = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
answer = int(sys.argv[1], 0)
code = ctypes.create_string_buffer(struct.pack(
    "=HBBIHBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, 9999, 6, 0, 0, answer, 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(317, 1, 8 if answer == 0x7FC00000 else 0, program) >= 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(("answer", "influence"), [("0x7FC00000", {"supervised"}), ("0x00050001", set())])
def test_whoever_answers_its_system_calls_influences_it(setting: Setting, answer: str, influence: set[str]) -> None:
    """Another process, or a filter alone, as services have them. Of a system call that nobody makes."""
    with running(sys.executable, "-ISc", SUPERVISED, answer, setting.named) as process:
        assert setting.influence(process.pid) == influence
        assert setting.bindings.identity(process.pid) == setting.identity


@pytest.mark.parametrize(
    ("act", "influence"),
    [
        (write_by_descriptor, {"memory_written"}),
        (write_by_system_call, {"memory_written"}),
        (read_it, set()),
        (poke, {"traced"}),
        (watch, set()),
    ],
)
def test_what_others_change_is_influence(marks: Setting, act: Callable[[int], None], influence: set[str]) -> None:
    """Children have it too, as they have the memory; another executable is as good as new."""
    allowed = {*influence, "memory_written"} if influence else set()  # newer kernels write for tracers in the same way
    script = 'read line; echo 1; read line; (read line; echo 1; exec "$0"); :'
    marks.bindings.look_at([marks.identity, shell := resolved(marks, "/bin/sh")])
    with running("/bin/sh", "-c", script, marks.named) as process:
        assert marks.bindings.of(process.pid).identity == shell
        act(process.pid)
        found = marks.influence(process.pid)
        assert influence <= found <= allowed
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"fork\n")
        process.stdin.flush()
        (child,) = children(process.pid)
        wait_for(lambda: marks.influence(child) == found)  # /proc has it before it is noted, and that before it runs
        process.stdin.write(b"exec\n2\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.readline()
        fresh = marks.bindings.of(child)
        assert (fresh.identity, fresh.influence) == (marks.identity, 0)
        os.kill(child, signal.SIGKILL)
    marks.bindings.look_only_at([marks.identity])


def children(tgid: int) -> list[int]:
    folder = Path(f"/proc/{tgid}/task/{tgid}/children")
    while not (found := folder.read_text().split()):
        os.sched_yield()
    return [int(each) for each in found]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("library") / "influence.so"
    source = Path(__file__).with_name("influence.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-Wl,-z,now", "-o", made, source], check=True)
    made.chmod(0o755)
    return made


def test_nobody_wears_another_executable(setting: Setting, library: Path) -> None:
    """Through a system call that is meant for restoring processes."""
    env = {"LD_PRELOAD": str(library), "WEAR": str(setting.named)}
    with running("/bin/sh", env=env) as process:
        assert Path(f"/proc/{process.pid}/exe").samefile(setting.named)
        assert setting.influence(process.pid) == {"executable_changed"}
        assert setting.bindings.identity(process.pid) == NOTHING


def test_who_shares_its_memory_has_no_name(setting: Setting, library: Path) -> None:
    with subprocess.Popen(
        [setting.named], env={"LD_PRELOAD": str(library), "SHARE": "1"}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert setting.influence(process.pid) == {"environment"}
        assert setting.influence(child) == {"environment", "memory_shared"}
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_the_loader_run_by_hand_gives_no_name(setting: Setting) -> None:
    with running("/lib64/ld-linux-x86-64.so.2", setting.named) as process:
        found = setting.bindings.identity(process.pid)
    assert found == resolved(setting, "/lib64/ld-linux-x86-64.so.2") != setting.identity


@pytest.fixture
def overlay(tmp_path: Path, lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    """Two overlays, one on the other, with an executable in the lowest folder."""
    if "overlay" not in Path("/proc/filesystems").read_text():
        lacks("overlayfs: /proc/filesystems does not list it")
    with mounted(tmp_path, "-t", "tmpfs", "tmpfs"):
        (tmp_path / "0").mkdir()
        shutil.copy("/bin/cat", tmp_path / "0/tool")
        with overlaid(tmp_path, "0", "1"), overlaid(tmp_path, "1", "2"):
            yield tmp_path


def test_on_an_overlayfs_it_is_the_file_below(setting: Setting, overlay: Path) -> None:
    below = resolved(setting, overlay / "0/tool")
    assert below != NOTHING
    for folder in ("0", "1", "2"):
        tool = overlay / folder / "tool"
        with running(tool) as process:
            assert (resolved(setting, tool), setting.bindings.identity(process.pid)) == (below, below), folder
    (overlay / "1/tool").chmod(0o700)  # copied up: another file, which may have another content
    with running(overlay / "1/tool") as process:
        above = setting.bindings.identity(process.pid)
    assert above == resolved(setting, overlay / "1-upper/tool") != below
