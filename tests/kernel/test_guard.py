"""An enforcing agent guards itself. In guests only: nobody could end it but tgid 1, and a Ctrl-C."""

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from krie.agent.admin import ask
from krie.errors import KernelError, ProgramLoadError
from krie.kernel import bpf
from krie.kernel.mounts import mounted
from krie.testing.agent import Line, RunningAgent
from krie.testing.bpf_objects import Objects, bpf_objects, leftovers, objects_of
from krie.testing.module import TestModule, address_of

from . import own_bpf
from .descriptors import descriptions
from .early import Early

pytestmark = pytest.mark.needs("guest", "kprobe")
SWITCH = Path("/sys/kernel/debug/kprobes/enabled")
RULED = Path("/proc/sys/kernel/kptr_restrict")
"""A kernel-tier rule of the shipped policy refuses to lower it."""
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHi", *each) for each in ((1, 6, -1), (2, 6, 65534), (4, 0, -1), (16, 6, -1), (32, 0, -1))
)
"""An access control list: another user may write, which the mode shows as its group's bits."""
FS_IOC_SETFLAGS, FS_IOC_SETVERSION = 0x40086602, 0x40087602
libc = ctypes.CDLL(None, use_errno=True)


def ids_of(agent: int, word: str) -> list[int]:
    """Numbers of the agent's maps, programs or links, out of its open files' descriptions."""
    return [int(each[word]) for each in descriptions(agent).values() if word in each]


@pytest.fixture(scope="module")
def before() -> Objects:
    """What BPF there was without this agent."""
    return bpf_objects()


@pytest.fixture(scope="module")
def early() -> Iterator[Early]:
    bpf.allow_locked_memory()
    made = Early(("krie_agent", "krie_busy"), ("krie_change",))
    yield made
    made.end()


@pytest.fixture(scope="module")
def guarding(
    alone: None, tmp_path_factory: pytest.TempPathFactory, before: Objects, early: Early
) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("guarding")
    folder.chmod(0o700)
    agent = RunningAgent(folder, plugins={"runtime_integrity": {"mode": "enforce"}}, guards=True)
    with agent:
        early.end()
        yield agent
    assert agent.process.returncode == 0, agent.stderr


def attempts(agent: RunningAgent, attempt: str, count: int = 1, *, by_us: bool = True) -> None:
    """It is told, with who did it."""
    lines: list[Line] = []
    while sum(line["event"]["count"] for line in lines) < count:
        lines = agent.wait("krie.guarded", lambda line: line["event"]["attempt"] == attempt, count=len(lines) + 1)
    if by_us:
        assert {line["event"]["stranger_tgid"] for line in lines} == {os.getpid()}
        assert lines[0]["event"]["stranger"]["exe"] == os.path.realpath(sys.executable)


def test_every_hook_is_there(guarding: RunningAgent) -> None:
    states = {each["name"]: each["state"] for each in ask(guarding.run_dir, {"ask": "status"}, 60)["probes"]}
    guard = {name: state for name, state in states.items() if name.startswith("guard.")}
    assert set(guard.values()) <= {"alive", "attached"}
    assert {name for name, state in guard.items() if state == "attached"} <= {"guard.task_movememory"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP])
def test_it_takes_no_signals(guarding: RunningAgent, number: int) -> None:
    with pytest.raises(PermissionError):
        os.kill(guarding.process.pid, number)
    os.kill(guarding.process.pid, 0)  # asks whether it lives, no more
    attempts(guarding, "agent_signalled")


def test_it_is_not_traced(guarding: RunningAgent) -> None:
    assert libc.syscall(101, 16, guarding.process.pid, 0, 0) == -1
    assert ctypes.get_errno() == 1
    with pytest.raises(PermissionError):
        open(f"/proc/{guarding.process.pid}/mem", "rb").close()
    descriptor = os.pidfd_open(guarding.process.pid)
    assert libc.syscall(438, descriptor, 3, 0) == -1  # pidfd_getfd
    assert ctypes.get_errno() == 1
    os.close(descriptor)
    attempts(guarding, "agent_traced", 3)


def test_what_it_started_is_guarded_too(guarding: RunningAgent) -> None:
    """Its evaluators and its keeper: stopped or traced, they would decide and keep nothing."""
    tasks = Path(f"/proc/{guarding.process.pid}/task")
    children = [int(each) for task in tasks.iterdir() for each in (task / "children").read_text().split()]
    assert len(children) > 1
    for child in children:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            with pytest.raises(PermissionError):
                os.kill(child, number)
        assert libc.syscall(101, 16, child, 0, 0) == -1
        assert ctypes.get_errno() == 1
        assert not Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].startswith(" T")
    attempts(guarding, "agent_signalled", 2 * len(children))


@pytest.mark.parametrize(
    ("word", "get", "attempt"),
    [
        ("map_id", own_bpf.GET_MAP, "map_opened"),
        ("prog_id", own_bpf.GET_PROG, "program_opened"),
        ("link_id", own_bpf.GET_LINK, "link_opened"),
    ],
)
def test_nobody_gets_descriptors_of_its_objects(guarding: RunningAgent, word: str, get: int, attempt: str) -> None:
    """Not for reading either: a program may write through such a descriptor. As if they were gone, for lists' sake."""
    own = set(ids_of(guarding.process.pid, word))
    assert own
    flags = (0, own_bpf.RDONLY) if get == own_bpf.GET_MAP else (0, 0)
    assert {own_bpf.call(get, number, *flags) for number in own} == {-errno.ENOENT}
    attempts(guarding, attempt, len(own))


def test_the_policys_tables_are_hidden_too(guarding: RunningAgent) -> None:
    """They lie in a map that the agent holds no descriptor of: the map of maps does."""
    hidden = set()
    for number in own_bpf.numbers(own_bpf.NEXT_MAP):
        descriptor = own_bpf.call(own_bpf.GET_MAP, number, 0, own_bpf.RDONLY)
        hidden |= {number} if descriptor == -errno.ENOENT else set()
        os.close(descriptor) if descriptor >= 0 else None
    assert hidden > set(ids_of(guarding.process.pid, "map_id"))


def test_it_says_itself_what_it_has(guarding: RunningAgent) -> None:
    objects = ask(guarding.run_dir, {"ask": "status"}, 60)["objects"]
    assert {"krie_agent", "krie_read"} <= {each["name"] for each in objects}
    assert {each["id"] for each in objects if each["kind"] == "link"} == set(ids_of(guarding.process.pid, "link_id"))


def test_a_descriptor_from_before_the_guard_runs_nothing(guarding: RunningAgent, early: Early) -> None:
    assert early.program["krie_change"] >= 0
    assert own_bpf.run(early.program["krie_change"], 3, 0) == -errno.EPERM  # KRIE_CHANGE_FLAGS: the guard off
    attempts(guarding, "program_run")
    with pytest.raises(PermissionError):
        os.kill(guarding.process.pid, signal.SIGTERM)


def test_no_program_writes_what_programs_only_read(guarding: RunningAgent, early: Early) -> None:
    assert early.map["krie_agent"] >= 0
    with pytest.raises(ProgramLoadError, match="EACCES"):
        own_bpf.write_by_a_socket_filter(early.map["krie_agent"], 4, 0)


def test_a_descriptor_from_before_the_guard_changes_nothing(guarding: RunningAgent, early: Early) -> None:
    for state in (early.map["krie_agent"], early.map["krie_busy"]):
        with pytest.raises(KernelError, match="EPERM"):
            bpf.update(state, bytes(4), bytes(8))
    # One that programs do write, and the verifier allows that.
    with pytest.raises(ProgramLoadError, match="EPERM"):
        own_bpf.write_by_a_socket_filter(early.map["krie_busy"], 4, 0)
    attempts(guarding, "map_written", 3)
    with pytest.raises(PermissionError):
        os.kill(guarding.process.pid, signal.SIGTERM)


def test_links_stay(guarding: RunningAgent) -> None:
    """Everybody's: which one a descriptor is, another thread could change after the look."""
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    program = bpf.prog_load(bpf.ProgramSpec("mine", bpf.ProgType.RAW_TRACEPOINT), code)
    link = bpf.raw_tracepoint_open(program, "sched_process_exit")
    assert own_bpf.call(own_bpf.DETACH, link) == -errno.EPERM
    os.close(link)
    os.close(program)
    attempts(guarding, "link_changed")


def test_maps_of_others_are_not_its_business(guarding: RunningAgent) -> None:
    own = own_bpf.call(0, 2, 4, 8, 1)
    assert own >= 0
    opened = own_bpf.call(own_bpf.GET_MAP, bpf.map_id(own), 0, 0)
    assert opened >= 0
    os.close(opened)
    os.close(own)


def test_its_limits_and_priorities_stay(guarding: RunningAgent) -> None:
    agent = guarding.process.pid
    for kind, limits in ((resource.RLIMIT_NOFILE, (3, 4096)), (resource.RLIMIT_CPU, (1, 1))):
        with pytest.raises(PermissionError):
            resource.prlimit(agent, kind, limits)
    resource.prlimit(agent, resource.RLIMIT_NOFILE)
    attempts(guarding, "agent_limited", 2)
    slows: tuple[Callable[[], object], ...] = (
        lambda: os.setpriority(os.PRIO_PROCESS, agent, 19),
        lambda: os.sched_setscheduler(agent, os.SCHED_IDLE, os.sched_param(0)),
        lambda: os.sched_setaffinity(agent, {0}),
    )
    for slow in slows:
        with pytest.raises(PermissionError):
            slow()
    assert libc.syscall(251, 1, agent, 3 << 13) == -1  # ioprio_set, idle
    assert ctypes.get_errno() == 1
    attempts(guarding, "agent_slowed", 4)


def test_no_file_signals_it(guarding: RunningAgent) -> None:
    loaded = len(guarding.lines("krie.policy"))
    mine, theirs = socket.socketpair()
    with mine, theirs:
        fcntl.fcntl(mine, fcntl.F_SETSIG, signal.SIGHUP)
        fcntl.fcntl(mine, fcntl.F_SETOWN, guarding.process.pid)
        fcntl.fcntl(mine, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        told = sum(each["event"]["count"] for each in guarding.lines("krie.guarded", _signalled))
        theirs.send(b"x")
        attempts(guarding, "agent_signalled", told + 1)
    guarding.settle()
    assert len(guarding.lines("krie.policy")) == loaded


def test_nor_one_that_it_wakes_itself(guarding: RunningAgent) -> None:
    """Its answer makes a socket of ours readable, in its own context."""
    loaded = len(guarding.lines("krie.policy"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mine:
        mine.connect(str(guarding.run_dir / "agent.sock"))
        fcntl.fcntl(mine, fcntl.F_SETSIG, signal.SIGHUP)
        fcntl.fcntl(mine, fcntl.F_SETOWN, guarding.process.pid)
        fcntl.fcntl(mine, fcntl.F_SETFL, os.O_ASYNC)
        mine.send(b'{"ask": "status"}')
        guarding.wait("krie.guarded", lambda line: _signalled(line) and not line["event"]["stranger_tgid"])
    guarding.settle()
    assert len(guarding.lines("krie.policy")) == loaded


def _signalled(line: Line) -> bool:
    return bool(line["event"]["attempt"] == "agent_signalled")


def test_nothing_is_written_to_its_process(guarding: RunningAgent) -> None:
    agent = guarding.process.pid
    for name in (f"{agent}/oom_score_adj", f"{agent}/comm", f"{agent}/task/{agent}/comm", f"{agent}/clear_refs"):
        with pytest.raises(PermissionError):
            os.open(f"/proc/{name}", os.O_WRONLY)
    os.close(os.open("/proc/self/oom_score_adj", os.O_WRONLY))
    attempts(guarding, "proc_written", 4)


def test_sysrq_is_not_triggered(guarding: RunningAgent, tmp_path: Path) -> None:
    """It would end every process; by whatever mount of procfs."""
    subprocess.run(["mount", "-t", "proc", "proc", tmp_path], check=True)
    try:
        for folder in (Path("/proc"), tmp_path):
            with pytest.raises(PermissionError):
                os.open(folder / "sysrq-trigger", os.O_WRONLY)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    attempts(guarding, "sysrq_written", 2)


def control(path: Path, command: int) -> None:
    """Of a file that was opened for reading only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, command, bytes(8))
    finally:
        os.close(descriptor)


def test_its_files_stay(guarding: RunningAgent) -> None:
    state = guarding.folder / "state/agent.json"
    harms: tuple[Callable[[], object], ...] = (
        lambda: os.open(guarding.journal, os.O_WRONLY),
        lambda: guarding.journal.unlink(),
        lambda: guarding.journal.rename(guarding.folder / "away"),
        lambda: os.open(state, os.O_WRONLY),
        lambda: state.unlink(),
        lambda: state.parent.rename(guarding.folder / "elsewhere"),
        lambda: (guarding.run_dir / "agent.sock").unlink(),
        lambda: os.truncate(guarding.journal, 0),
        lambda: os.close(os.open(guarding.journal, os.O_RDONLY | os.O_TRUNC)),
        lambda: guarding.journal.chmod(0o666),
        lambda: os.chown(guarding.journal, 65534, 65534),
        lambda: os.utime(state),
        lambda: state.parent.chmod(0o777),
        lambda: (guarding.folder / "link").hardlink_to(guarding.journal),
        lambda: (state.parent / "agent.new").symlink_to("/etc/passwd"),
        lambda: (state.parent / "agent.new").mkdir(),
        lambda: os.mkfifo(state.parent / "agent.new"),
        lambda: os.setxattr(guarding.journal, "system.posix_acl_access", ACL),
        lambda: os.removexattr(guarding.run_dir, "system.posix_acl_access"),
        lambda: control(guarding.journal, FS_IOC_SETFLAGS),
        lambda: control(state.parent, FS_IOC_SETVERSION),
        lambda: guarding.folder.rename(guarding.folder.with_name("elsewhere")),
    )
    size = guarding.journal.stat().st_size
    for harm in harms:
        with pytest.raises(PermissionError):
            harm()
    assert guarding.journal.stat().st_size >= size > 0
    attempts(guarding, "files_changed", len(harms))


def test_its_mounts_stay(guarding: RunningAgent, tmp_path: Path) -> None:
    """Neither taken away nor covered. Another mount namespace may do what it likes."""
    covered, moved = f"mount -t tmpfs none {guarding.run_dir}", f"mount --move /sys {tmp_path}"
    harms = ("umount -l /proc", "umount -l /sys", covered, moved)
    for harm in harms:
        assert subprocess.run(harm.split(), capture_output=True, check=False).returncode
    (tmp_path / "root").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "root"], check=True)
    try:
        (tmp_path / "root/old").mkdir()
        pivot = [f"{tmp_path}/root".encode(), f"{tmp_path}/root/old".encode()]
        assert libc.syscall(155, *pivot) == -1
        assert ctypes.get_errno() == errno.EPERM
    finally:
        subprocess.run(["umount", tmp_path / "root"], check=True)
    attempts(guarding, "mounts_changed", len(harms) + 1, by_us=False)
    script = "umount -l /sys && mount -t tmpfs none /run && mount -t tmpfs none /proc"
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True)


def test_nor_does_move_mount_take_or_cover_them(guarding: RunningAgent, tmp_path: Path) -> None:
    """By the system call itself: mount(8) may use another one. By paths, by descriptors, and beneath what is there."""
    move_mount, open_tree, clone, empty, beneath, here = 429, 428, 1, 4, 0x200, -100
    told = sum(each["event"]["count"] for each in guarding.lines("krie.guarded", _mounts))
    sys_ = os.open("/sys", os.O_PATH)
    tree = libc.syscall(open_tree, here, bytes(tmp_path), clone)
    assert tree >= 0, os.strerror(ctypes.get_errno())
    moves = [
        (here, b"/sys", here, bytes(tmp_path), 0),
        (sys_, b"", here, bytes(tmp_path), empty),
        (here, bytes(guarding.run_dir), here, bytes(tmp_path), 0),
        (tree, b"", here, bytes(guarding.run_dir), empty),
        (tree, b"", here, bytes(guarding.folder), empty),
        (tree, b"", here, b"/sys", empty | beneath),
    ]
    try:
        for each in moves:
            assert libc.syscall(move_mount, *each) == -1, each
            if not each[4] & beneath:  # which kernels before 6.5 do not know
                assert ctypes.get_errno() == errno.EPERM, each
        target = tmp_path / "target"
        target.mkdir()
        assert libc.syscall(move_mount, tree, b"", here, bytes(target), empty) == 0  # what is nobody's business
        subprocess.run(["umount", "-l", target], check=True)  # `tree` is still open
    finally:
        os.close(tree)
        os.close(sys_)
    attempts(guarding, "mounts_changed", told + len(moves) - 1, by_us=False)


def _mounts(line: Line) -> bool:
    return bool(line["event"]["attempt"] == "mounts_changed")


@contextmanager
def cgroup(name: str, lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    root = next((each.point for each in mounted("cgroup2") if each.root == "/"), None)
    if root is None:
        lacks("cgroup2: it is not mounted")
    made = root / name
    made.mkdir()
    try:
        yield made
    finally:
        for each in (made / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(each)
        made.rmdir()


def test_its_cgroup_stays_as_it_is(guarding: RunningAgent, lacks: Callable[[str], NoReturn]) -> None:
    """Nothing refuses to move it. Where it comes to is guarded from that moment on."""
    with cgroup("krie-moved", lacks) as group:
        os.close(os.open(group / "cgroup.freeze", os.O_WRONLY))
        (group / "cgroup.procs").write_text(f"{guarding.process.pid}\n")
        harmful = [each for each in ("cgroup.freeze", "cgroup.kill") if (group / each).exists()]
        for name in harmful:
            with pytest.raises(PermissionError):
                os.open(group / name, os.O_WRONLY)
        os.close(os.open(group / "cgroup.procs", os.O_WRONLY))
        attempts(guarding, "agent_moved")
        attempts(guarding, "cgroup_written", len(harmful))


def lowered() -> int:
    """0, or the error of lowering what a rule of the kernel tier guards."""
    descriptor = os.open(RULED, os.O_WRONLY)
    try:
        os.write(descriptor, b"0")
        return 0
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(descriptor)


def test_a_freeze_is_told_when_it_ends_and_the_kernel_decides_meanwhile(
    guarding: RunningAgent, lacks: Callable[[str], NoReturn]
) -> None:
    with cgroup("krie-frozen", lacks) as group:
        freeze = os.open(group / "cgroup.freeze", os.O_WRONLY)  # before the agent is there
        (group / "cgroup.procs").write_text(f"{guarding.process.pid}\n")
        attempts(guarding, "agent_moved", 2)
        RULED.write_text("1")
        os.write(freeze, b"1")
        try:
            time.sleep(5)
            assert lowered() == errno.EPERM
            assert RULED.read_text() == "1\n"
        finally:
            os.write(freeze, b"0")
            os.close(freeze)
        (gap,) = guarding.wait("krie.gap", lambda line: line["event"]["state"] == "frozen")
        assert gap["event"]["gap_s"] >= 4
        assert gap["event"]["tgid_before"] == guarding.process.pid
        attempts(guarding, "agent_frozen")


def test_the_switch_of_kprobes_is_not_opened_for_writing(guarding: RunningAgent) -> None:
    assert SWITCH.read_text() == "1\n"
    with pytest.raises(PermissionError):
        os.open(SWITCH, os.O_WRONLY)
    assert SWITCH.read_text() == "1\n"
    attempts(guarding, "kprobes_switched")


@pytest.mark.needs("test_module")
def test_kprobes_that_are_off_are_seen(guarding: RunningAgent, test_module: TestModule) -> None:
    told = {"kprobes_off", "probes_forged"}  # two looks each second; whichever comes first puts it right
    with test_module.effect("write", address_of("kprobes_all_disarmed"), b"\1".hex()):
        guarding.wait("krie.guarded", lambda line: line["event"]["attempt"] in told)
    assert SWITCH.read_text() == "1\n"


def test_others_are_signalled_as_ever(guarding: RunningAgent) -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (64, 64))
        os.sched_setaffinity(child.pid, {0})
        child.kill()
    assert child.returncode == -signal.SIGKILL


def test_a_second_agent_says_that_one_runs(guarding: RunningAgent) -> None:
    command = [sys.executable, "-I", "-m", "krie.agent", "--config", str(guarding.config), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert str(guarding.process.pid) in done.stderr


def test_a_ctrl_c_on_its_terminal_ends_it_and_leaves_nothing(
    guarding: RunningAgent, before: Objects, early: Early
) -> None:
    early.close()
    objects = objects_of(guarding.process.pid, before)
    assert {kind for kind, _ in objects} == {"prog", "map", "link"}
    assert guarding.stop() == 0
    assert leftovers(objects) == frozenset()
    (line,) = guarding.lines("krie.stopped")
    assert line["event"]["reason"] == "SIGINT"
    assert SWITCH.read_text() == "1\n"
    os.close(os.open(SWITCH, os.O_WRONLY))  # nobody minds any more
